"""The last touch on an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.postprocess import postprocess
from watchkeeper.serving.sentences import code_blocks

MARKS = [
    "<|im_end|>",
    "<|im_start|>",
    "assistant",
    ":",
    "</s>",
    "<s>",
    "user: ",
    "```",
    "```py\n",
    "~~~",
    "`x`",
    "- item\n",
]
WORDS = ["Hello there, my friend. ", "The end.", "1", '"quoted"', "    code", "| a | b |\n", "\n", "\n\n\n\n", " "]
PIECES = st.sampled_from([*MARKS, *WORDS])
ANSWERS = st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=200)


@pytest.mark.parametrize(
    ("text", "done", "changes"),
    [
        ("Paris.<|im_end|>", "Paris.", ("residue",)),
        ("Paris.</s></s>\n", "Paris.", ("residue",)),
        ("<|im_start|>assistant\nParis.<|im_end|>\n<|im_start|>user\nAnd Rome?", "Paris.", ("residue",)),
        ("assistant: Paris.", "Paris.", ("residue",)),
        ("assistant\nParis.", "Paris.", ("residue",)),
        ("\n\n Paris.  \n", "Paris.", ("space",)),
        ("a\n\n\n\n\nb", "a\n\nb", ("blank_lines",)),
        ("Run:\n```py\nx = 1\n\n\n\n\ny = 2", "Run:\n```py\nx = 1\n\n\n\n\ny = 2\n```", ("fence",)),
        ("~~~~\nx", "~~~~\nx\n~~~~", ("fence",)),
        ("Run this.\n```", "Run this.", ("residue",)),
        ("It is Paris, of course. " * 3 + "It is Par", "It is Paris, of course.", ("loop",)),
        ("Ask A about it. Ask B instead. " * 4, "Ask A about it. Ask B instead.", ("space", "loop")),
        ("Es ist Paris, wie bekannt.\n\n" * 3 + "Es ist P", "Es ist Paris, wie bekannt.", ("loop",)),
        (
            "巴黎是法国的首都，也是最大的城市，众所周知。" * 3 + "巴黎是法国",
            "巴黎是法国的首都，也是最大的城市，众所周知。",
            ("loop",),
        ),
        ("First this. " + "It is Paris, of course. " * 9, "First this. It is Paris, of course.", ("space", "loop")),
    ],
)
def test_what_a_model_leaves_behind_is_taken_away(text: str, done: str, changes: tuple[str, ...]) -> None:
    assert postprocess(text) == (done, changes)


@pytest.mark.parametrize(
    "text",
    [
        "Paris is the capital of France. It has 2,102,650 inhabitants.",
        "The mark is `<|im_end|>`, see `<|im_start|>`.",
        "```\n<|im_end|>\n<|im_start|>user\n\n\n\n\nx\n```",
        "Use <s>old</s>",
        "Assistant: Hello.\nUser: Hi.\nAssistant: How are you?",
        "An assistant: somebody who helps.",
        "Ho. Ho. Ho. Ho.",
        '"I will not talk in class." "I will not talk in class." "I will not talk in class."',
        "| a long enough row |\n| a long enough row |\n| a long enough row |",
        "It is Paris, of course. It is Paris, of course.",
        "    x = 1",
        "a\n\nb\n\n\nc",
        "~~~\nx\n~~~",
        "",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert postprocess(text) == (text, ())


@given(ANSWERS)
def test_doing_it_twice_changes_nothing_more(text: str) -> None:
    once, _ = postprocess(text)
    assert postprocess(once) == (once, ())


@given(ANSWERS)
def test_code_stays_and_every_fence_is_closed(text: str) -> None:
    done, changes = postprocess(text)
    assert (done == text) == (changes == ())
    if "residue" not in changes and "loop" not in changes and "space" not in changes:
        kept = [text[start:end].rstrip() for start, end in code_blocks(text)]
        now = [done[start:end] for start, end in code_blocks(done)]
        assert all(block.startswith(code) for code, block in zip(kept, now, strict=False))


@given(ANSWERS)
def test_nothing_is_added_but_a_fence(text: str) -> None:
    done, changes = postprocess(text)
    assert len(done) <= len(text) + (10 if "fence" in changes else 0) + text.count("`") + text.count("~")
    without = "".join(done.replace("```", "").replace("~~~", "").split())
    assert len(without) <= len("".join(text.split()))


@pytest.mark.parametrize(
    ("text", "done", "changes"),
    [
        ("It is **very imp", "It is **very imp**", ("markdown",)),
        ("Run:\n```py\nx = **", "Run:\n```py\nx = **\n```", ("fence",)),
        ("And so on and on" + " and on" * 30 + " an", "And so on and on", ("stutter",)),
        ("no, no, no, no, no, no, no, no, no, no", "no,", ("stutter",)),
        ("It is done. Then it w", "It is done. Then it w", ()),
        ("1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,", "1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,", ()),
    ],
)
def test_an_answer_that_was_cut_off_is_rounded_off(text: str, done: str, changes: tuple[str, ...]) -> None:
    assert postprocess(text, torn=True) == (done, changes)
    assert postprocess(text)[1] == (("fence",) if "fence" in changes else ())


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("It is done. Then it w", "It is done."),
        ("Then it w", "Then it w"),
        ("It is done. Then it was", "It is done."),
        ("It is done. It costs 12", "It is done. It costs 12"),
        ("It is done.\n- one\n- tw", "It is done.\n- one\n- tw"),
        ('He said so. "And th', 'He said so. "And th'),
        ("It is done. And over.", "It is done. And over."),
        ("It is so.\n```py\nx", "It is so.\n```py\nx\n```"),
    ],
)
def test_a_torn_sentence_is_dropped_where_that_is_asked_for(text: str, done: str) -> None:
    assert postprocess(text, torn=True, drop=True)[0] == done


PROTECTED = st.sampled_from(
    ["1,{:03}.5", "{}", '"as quoted {}"', "`x = {}`", "```py\nx  =  {}\n\n\n\n\n```\n", "“so {}”", "{}%"]
)
FILLING = st.sampled_from(
    [
        *MARKS,
        *WORDS,
        "word ",
        "word. ",
        "**",
        "- ",
        "\n\n\n\n\n",
        "on and ",
        "on and on and on and on and on and on and ",
        "| ",
        "# ",
    ]
)


@st.composite
def filled(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A text, and what is in it that nobody may touch; each is there once."""
    pieces: list[str] = []
    protected: list[str] = []
    for number, (shape, between) in enumerate(
        draw(st.lists(st.tuples(PROTECTED, st.lists(FILLING, max_size=6)), max_size=6))
    ):
        kept = shape.format(number + 700)
        protected.append(kept)
        pieces += [*between, "\n" if kept.startswith("```") else " ", kept, " "]
    return "".join([*pieces, *draw(st.lists(FILLING, max_size=6))]), protected


@given(filled(), st.booleans(), st.booleans())
def test_code_numbers_and_quotations_are_never_touched(given_text: tuple[str, list[str]], torn: bool, drop: bool) -> None:
    text, protected = given_text
    done, changes = postprocess(text, torn=torn, drop=drop)
    at = 0
    left = []
    for kept in protected:
        found = done.find(kept.rstrip(), at)
        if found >= 0:
            left.append(kept)
            at = found + len(kept.rstrip())
        else:  # as a whole, or not at all
            assert str(700 + protected.index(kept)) not in done
    if not set(changes) & {"residue", "torn"}:
        assert left == protected
    assert postprocess(done, torn=torn, drop=drop) == (done, ())


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text",
    [
        " " * 200_000,
        "\n" * 200_000,
        "<|im_end|>" * 20_000,
        "assistant: " * 18_000,
        "```\n<|im_end|><|im_start|>\n```\n" * 6_000,
        "Round and round it goes. " * 8_000,
        "on and " * 30_000,
        "**`" * 60_000,
        "| a " * 50_000,
        "|\n" * 100_000,
        "- \n" * 60_000,
        "`" * 200_000,
        "` `` " * 40_000,
    ],
)
def test_time_is_linear(text: str) -> None:
    postprocess(text)
    postprocess(text, torn=True, drop=True)
