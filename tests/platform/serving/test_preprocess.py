"""A user's text made sound, and its language."""

import socket
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.preprocess import detect, preprocess

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
    ("text", "sound", "change"),
    [
        ("\ud83d\ude00 and \ud800.", "😀 and \ufffd.", "surrogates"),
        ("a\x00b\x07c\td\r\ne", "abc\td\r\ne", "controls"),
        ("\x1b[1;31mError\x1b[0m: no", "Error: no", "controls"),
        ("e\u0301cole", "école", "nfc"),
        (MISREAD, "don’t worry, it’s schön", "mojibake"),
        ("cafÃ©", "café", "mojibake"),
    ],
)
def test_what_is_broken_is_repaired_and_named(text: str, sound: str, change: str) -> None:
    done = preprocess(text)
    assert done.text == sound
    assert list(done.changes) == [change]
    assert done.changes[change] >= 1


@pytest.mark.parametrize(
    "text",
    [
        "kubectl get pods -n kube-system",
        "naïve – “quotes” … ½ £5 ±2° «oui» ¡Olé! 100 µm²",
        "L’ÉTÉ À LA PLAGE, ÂÊÎÔÛ, ÅÄÖ",
        "𝓗𝓮𝓵𝓵𝓸 ﬁ ｆｕｌｌ ⅷ",
        "zero\u200bwidth and \u202eright to left",
        "👩\u200d👩\u200d👧 family",
        "東京タワーは高い。 مرحبا हिन्दी",
        f"`{MISREAD}`",
        f"Why is this so?\n```\n{MISREAD}\n```\n",
        f"What encoding turns text into this: {MISREAD}",
        "tab\tand\nnewline  and   spaces ",
        "",
    ],
)
def test_ordinary_and_unusual_texts_and_code_stay_as_they_are(text: str) -> None:
    done = preprocess(text)
    assert done.text == text
    assert done.changes == {}


def test_mojibake_is_repaired_beside_code_that_is_left_alone() -> None:
    assert preprocess(f"{MISREAD}\n```\n{MISREAD}\n```\n").text == f"don’t worry, it’s schön\n```\n{MISREAD}\n```\n"


@given(st.text(max_size=300))
def test_any_text_comes_out_sound_and_stays_so(text: str) -> None:
    done = preprocess(text)
    done.text.encode("utf-8")
    assert unicodedata.is_normalized("NFC", done.text)
    assert not any(char < " " and char not in "\t\n\r" for char in done.text)
    assert preprocess(done.text).changes == {}
    assert (done.text == text) == (done.changes == {})


@given(st.text(alphabet=st.characters(codec="utf-8", max_codepoint=0x7E, min_codepoint=0x20), max_size=300))
def test_printable_ascii_is_never_changed(text: str) -> None:
    assert preprocess(text).text == text


@given(st.lists(st.sampled_from(ACCENTED), min_size=1, max_size=12).map(" ".join))
def test_a_text_read_as_another_encoding_is_repaired_and_a_sound_one_left_alone(text: str) -> None:
    assert preprocess(text).text == text
    assert preprocess(text.encode("utf-8").decode("windows-1252")).text == text


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
    done = preprocess(text)
    assert done.language == language
    assert 0.3 <= done.language_score <= 1.0


@pytest.mark.parametrize(
    "text",
    ["", "hi", "ok", "12345 67890", "https://example.com/a/very/long/path", "```\nprint('hello world')\n```", "👍👍👍"],
)
def test_too_little_to_tell_is_no_language(text: str) -> None:
    assert preprocess(text).language is None


def test_the_language_is_that_of_the_beginning() -> None:
    assert detect("This is how it begins, in plain English. " * 60 + "Und so endet es. " * 5_000)[0] == "en"


def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert preprocess("Nothing of this leaves the machine, it is all inside.").language == "en"


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
    preprocess(text)


def test_heaps_of_marks_are_cut_to_what_any_script_uses() -> None:
    """Composing 100,000 misordered marks would take a quarter of a minute."""
    done = preprocess("Zalgo" + "\u0301\u0327\u0323" * 33_000)
    assert len(done.text) < 50
    assert done.changes["marks"] > 90_000
    assert preprocess("e\u0301" * 50).text == "é" * 50
