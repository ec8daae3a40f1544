"""The language of filters: what people write is what is read, what is wrong is one line, and no text of it becomes SQL."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper_evaluations.dataset import FilterError
from watchkeeper_evaluations.dataset.filter import COLUMNS, OPERATORS, Condition, compiled, parse

WORDS = st.from_regex(r"[^\s'\"()=<>!~]+", fullmatch=True)
FIELDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]*", fullmatch=True)
CONDITIONS = st.builds(Condition, FIELDS, st.sampled_from(list(OPERATORS)), WORDS) | st.builds(
    Condition, FIELDS, st.sampled_from(list(OPERATORS)), st.text(), st.just(True)
)


@given(st.lists(CONDITIONS), st.sampled_from([" and ", "  AND\n", " And\t"]))
def test_what_is_written_is_what_is_read(conditions: list[Condition], joint: str) -> None:
    assert parse(joint.join(map(str, conditions))) == tuple(conditions)


@given(st.text() | st.lists(st.sampled_from([*OPERATORS, "and", "'", '"', "support", "0.5", " ", "(", "x y"])).map("".join))
def test_any_text_is_read_or_is_one_line(text: str) -> None:
    said = "read"
    try:
        parse(text)
    except FilterError as error:
        said = str(error)
    assert len(said.splitlines()) == 1
    assert len(said) < 400


@given(
    st.lists(
        st.builds(Condition, st.sampled_from([*COLUMNS, "feedback", "quality"]), st.sampled_from(list(OPERATORS)), WORDS)
    ),
    st.text(min_size=1),
)
def test_no_text_of_a_filter_stands_in_the_sql(conditions: list[Condition], secret: str) -> None:
    """The SQL of a filter is the SQL of the same filter with other values."""

    def shape(*more: Condition) -> tuple[list[str], list[str]]:
        sql = compiled([*sound, *more], {"quality"})
        return sql.joins, sql.where

    sound = []
    for condition in conditions:
        try:
            compiled([condition], {"quality"})
        except FilterError:
            continue
        sound.append(condition)
    assert shape(Condition("text", "~", secret, quoted=True)) == shape(Condition("text", "~", "plain", quoted=True))
    assert shape(Condition("tag.x", "=", secret, quoted=True)) == shape(Condition("tag.y", "=", "plain", quoted=True))


def test_quotes_hold_anything() -> None:
    assert parse("""text ~ 'it''s "and" = 1' and tag.kind = "a ""b"" c" """) == (
        Condition("text", "~", """it's "and" = 1""", True),
        Condition("tag.kind", "=", 'a "b" c', True),
    )
    assert parse("release=watchkeeper@1 and support<0.5") == (
        Condition("release", "=", "watchkeeper@1"),
        Condition("support", "<", "0.5"),
    )
    assert parse("  ") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("support", "after 'support' stands one of = != <"),
        ("support <", "after 'support' < stands a value"),
        ("support < and action = flag", "between conditions stands `and`, not 'action'"),
        ("text ~ a refund", "between conditions stands `and`, not 'refund'"),
        ("action = flag or action = block", "between conditions stands `and`, not 'or'"),
        ("action = flag and", "a field's name is missing after 'and'"),
        ("= 3", "a field's name is missing where '=' stands"),
        ("'text' ~ x", "a field's name is missing where 'text' stands"),
        ("(action = flag)", r"cannot be read from '\(action = flag\)': '\('"),
        ("text ~ 'open", "a quote that is not closed"),
        ("1=1", "a field's name is missing where '1' stands"),
        ("action = flag; drop table x", "between conditions stands `and`"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        compiled(parse(text), ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grounded = false", "no field 'grounded'; there is action, .*, tag.NAME, feedback, and scores: quality, support$"),
        ("tag. = x", "no field 'tag.'"),
        ("score.nothing = 1", "no field 'score.nothing'"),
        ("action = blocked", "action is one of pass, unknown, flag, redact, block, or none, not 'blocked'"),
        ("status = 500", "status is one of ok, blocked, error, rejected"),
        ("support < low", "support is a number, or none, not 'low'"),
        ("total_ms > nan", "total_ms is a number"),
        ("total_ms > inf", "total_ms is a number"),
        ("total_ms > '5'", "total_ms is a number"),
        ("stream = 1", "stream is true or false, not '1'"),
        ("release < 3", "release < '3' means nothing; here stands one of = != ~ !~"),
        ("support ~ 3", "support ~ '3' means nothing; here stands one of = != < <= > >="),
        ("quality < good", "quality < 'good' means nothing; here stands one of = !="),
        ("support < none", "here stands one of = !="),
    ],
)
def test_what_means_nothing_says_what_there_is(text: str, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        compiled(parse(text), {"quality", "support"})


def test_without_any_score_it_says_how_to_get_them() -> None:
    with pytest.raises(FilterError, match=r"none yet .*watchkeeper evaluate"):
        compiled(parse("grounded = false"), ())


def test_every_parameter_of_the_sql_has_its_value() -> None:
    sql = compiled(
        parse("score.support > 0.5 and quality = good and tag.kind = 'a' and text !~ b and error = none"),
        {"quality", "support"},
    )
    used = re.findall(r"\$(f\d+)", " ".join([*sql.joins, *sql.where]))
    assert sorted(used) == sorted(sql.parameters)
    assert list(sql.parameters.values()) == ["support", 0.5, "quality", "good", "kind", "a", "b"]
