"""Documents cut into passages."""

from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving import words
from watchkeeper.serving.passages import MAX_CHARACTERS, TARGET, cut


def test_the_headings_above_a_passage_are_its_title() -> None:
    text = "# Handbook\n\nWelcome.\n\n## Leave\n\n### Parental **leave**\n\n20 weeks.\n\n## Pay\n\nMonthly."
    found = [(passage.id, passage.title, passage.text) for passage in cut("a/b.md", text)]
    assert found == [
        ("a/b.md#1", "Handbook", "Welcome."),
        ("a/b.md#2", "Handbook > Leave > Parental leave", "20 weeks."),
        ("a/b.md#3", "Handbook > Pay", "Monthly."),
    ]


def test_underlined_headings_count_too() -> None:
    assert [passage.title for passage in cut("x.md", "Title\n=====\n\nText.\n\nPart\n----\n\nMore.")] == [
        "Title",
        "Title > Part",
    ]


def test_without_headings_the_file_name_is_the_title() -> None:
    assert cut("notes/remote-work.txt", "Some text.")[0].title == "remote work"


def test_front_matter_gives_the_title_and_no_text() -> None:
    (passage,) = cut("x.md", "---\ntitle: 'Big Book'\ndraft: yes\n---\nText.<!-- hidden -->")
    assert (passage.title, passage.text) == ("Big Book", "Text.")


def test_a_heading_with_nothing_below_it_can_be_found() -> None:
    assert "Call 5555 in an emergency" in [
        passage.text for passage in cut("x.md", "# A\n\n## Call 5555 in an emergency\n\n## B\n\nText.")
    ]


def test_a_hash_in_code_is_no_heading() -> None:
    passages = cut("x.md", "# Run\n\n```sh\n# build it\nmake\n```\n")
    assert [passage.title for passage in passages] == ["Run"]
    assert "# build it" in passages[0].text


def test_long_sections_are_cut_between_sentences_at_about_the_target() -> None:
    text = "# A\n\n" + " ".join(f"Sentence number {number} has exactly seven words." for number in range(100))
    passages = cut("x.md", text)
    assert len(passages) > 4
    assert all(passage.text.endswith(".") for passage in passages)
    assert all(TARGET // 2 <= words.size(passage.text) <= TARGET * 3 // 2 for passage in passages[:-1])


def test_the_rows_of_a_long_table_take_its_head_along() -> None:
    rows = "\n".join(f"| setting_{number} | {number} | what it does and why one would set it |" for number in range(60))
    passages = cut("x.md", f"| name | default | meaning |\n|---|---|---|\n{rows}")
    assert len(passages) > 1
    assert all(passage.text.startswith("| name | default | meaning |") for passage in passages)


@given(
    st.text(max_size=400)
    | st.lists(st.sampled_from(["# a\n", "## b\n", "x " * 90, "\n", "```\n", "| a | b |\n|--|--|\n", "y" * 700])).map(
        "".join
    )
)
def test_no_word_is_lost_and_no_passage_is_too_long(text: str) -> None:
    passages = cut("name.md", text)
    assert all(passage.text.strip() and len(passage.text) <= MAX_CHARACTERS for passage in passages)
    assert [passage.id for passage in passages] == [f"name.md#{number}" for number in range(1, len(passages) + 1)]


def test_prose_is_kept_whole() -> None:
    text = "\n\n".join(" ".join(f"w{number}x{each}" for each in range(40)) for number in range(30))
    assert " ".join(passage.text for passage in cut("x.txt", text)).split() == text.split()
