"""A user's text as it can be sent, its copy for retrieval, and its language."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving import words
from watchkeeper.serving.preprocess import detect, searchable, sound

ACCENTED = [
    "schön",
    "größe",
    "déjà-vu",
    "cœur",
    "œuvre",
    "garçon",
    "niño",
    "smörgås",
    "ærlig",
    "naïve",
    "‘so‘",
    "it’s",
    "the",
    "end",
]
MISREAD = "donâ€™t worry, itâ€™s schÃ¶n"


@pytest.mark.parametrize(
    ("text", "sent", "change"),
    [
        ("\ud83d\ude00 and \ud800.", "😀 and \ufffd.", "surrogates"),
        ("a\x00b\x07c\td\r\ne", "abc\td\r\ne", "controls"),
        ("\x1b[1;31mError\x1b[0m: no", "Error: no", "controls"),
        ("x" + "\u0301\u0316" * 20, "x" + "\u0301\u0316" * 15, "marks"),
    ],
)
def test_what_cannot_be_sent_is_changed_and_named(text: str, sent: str, change: str) -> None:
    done = sound(text)
    assert done.text == sent
    assert list(done.changes) == [change]
    assert done.changes[change] >= 1


ORDINARY = [
    "kubectl get pods -n kube-system",
    "naïve – “quotes” … ½ £5 ±2° «oui» ¡Olé! 100 µm²",
    "L’ÉTÉ À LA PLAGE, ÂÊÎÔÛ, ÅÄÖ",
    "👩\u200d👩\u200d👧 family",
    "東京タワーは高い。 مرحبا हिन्दी",
    f"`{MISREAD}`",
    f"Why is this so?\n```\n{MISREAD}\n```\n",
    f"What encoding turns text into this: {MISREAD}",
    "tab\tand\nnewline  and   spaces ",
    "",
]
UNUSUAL = ["𝓗𝓮𝓵𝓵𝓸 ﬁ ｆｕｌｌ ⅷ", "zero\u200bwidth and \u202eright to left", "cafe\u0301", MISREAD, "cafÃ©", "раypal"]


@pytest.mark.parametrize("text", [*ORDINARY, *UNUSUAL])
def test_the_model_gets_what_was_written(text: str) -> None:
    done = sound(text)
    assert done.text == text
    assert done.changes == {}


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_and_code_are_their_own_copy_for_retrieval(text: str) -> None:
    assert words.tokens(searchable(text)) == words.tokens(text)


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        (MISREAD, "don't worry, it's schön"),
        ("ho\u200bli\u00adday", "holiday"),
        ("hоlіday", "holiday"),  # Cyrillic o and i
        ("\u202eholiday\u202c", "holiday"),
        ("𝓱𝓸𝓵𝓲𝓭𝓪𝔂", "holiday"),
        (f"{MISREAD}\n```\n{MISREAD}\n```\n", None),
    ],
)
def test_what_hides_words_from_a_search_is_resolved_in_the_copy(text: str, copy: str | None) -> None:
    expected = words.tokens(copy) if copy is not None else words.tokens(f"don’t worry, it’s schön\n```\n{MISREAD}\n```\n")
    assert words.tokens(searchable(text)) == expected


@given(st.text(max_size=300))
def test_any_text_comes_out_fit_to_be_sent_and_stays_so(text: str) -> None:
    done = sound(text)
    done.text.encode("utf-8")
    assert not any(char < " " and char not in "\t\n\r" for char in done.text)
    assert sound(done.text).changes == {}
    assert (done.text == text) == (done.changes == {})
    searchable(done.text)


@given(st.text(alphabet=st.characters(codec="utf-8", max_codepoint=0x7E, min_codepoint=0x20), max_size=300))
def test_printable_ascii_is_never_changed(text: str) -> None:
    assert sound(text).text == searchable(text) == text


@given(st.lists(st.sampled_from(ACCENTED), min_size=1, max_size=12).map(" ".join))
def test_a_text_read_as_another_encoding_is_repaired_and_a_sound_one_left_alone(text: str) -> None:
    assert searchable(text) == text
    assert words.tokens(searchable(text.encode("utf-8").decode("windows-1252"))) == words.tokens(text)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How many days of leave do I have?", "en"),
        ("Wie viele Urlaubstage habe ich im Jahr?", "de"),
        ("Comment puis-je réserver des congés ?", "fr"),
        ("¿Cuántos días de vacaciones tengo?", "es"),
        ("Quanti giorni di ferie ho?", "it"),
        ("Сколько у меня дней отпуска?", "ru"),
        ("我每年有多少天年假？", "zh"),
        ("有給休暇は何日ありますか？", "ja"),
        ("안녕하세요", "ko"),
        ("كم عدد أيام الإجازة لدي؟", "ar"),
    ],
)
def test_the_language_is_found(text: str, language: str) -> None:
    found, score = detect(text)
    assert found == language
    assert 0.3 <= score <= 1.0


@pytest.mark.parametrize(
    "text",
    ["", "hi", "ok", "12345 67890", "https://example.com/a/very/long/path", "```\nprint('hello world')\n```", "👍👍👍"],
)
def test_too_little_to_tell_is_no_language(text: str) -> None:
    assert detect(text)[0] is None


def test_who_shouts_is_not_taken_for_japanese() -> None:
    assert detect("WHERE IS MY ORDER, IT SHOULD HAVE BEEN HERE A WEEK AGO")[0] == "en"
    assert detect("WO BLEIBT MEINE BESTELLUNG, sie sollte LÄNGST HIER SEIN")[0] == "de"


def test_the_language_is_that_of_the_beginning() -> None:
    assert detect("This is how it begins, in plain English. " * 60 + "Und so endet es. " * 5_000)[0] == "en"


def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert detect("Nothing of this leaves the machine, it is all inside.")[0] == "en"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "Größe und Maße " * 14_000,
        MISREAD + " " * 200_000,
        "\x1b[" * 100_000,
        "`" * 200_000,
        "é\n" * 100_000,
        "a@" * 100_000,
    ],
)
def test_time_is_linear(text: str) -> None:
    searchable(sound(text).text)
    detect(text)


def test_heaps_of_marks_are_cut_to_what_any_script_uses() -> None:
    """Composing 100,000 misordered marks would take a quarter of a minute."""
    done = sound("Zalgo" + "\u0301\u0327\u0323" * 33_000)
    assert len(done.text) < 50
    assert done.changes["marks"] > 90_000
    assert sound("e\u0301" * 50).text == "e\u0301" * 50
