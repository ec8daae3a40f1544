"""The little language that picks requests of the lake: `grounded = false and release = watchkeeper@1 and text ~ refund`.

    filter    = [ condition { "and" condition } ]           nothing at all: every request
    condition = field operator value
    operator  = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" (contains, whatever the case) | "!~"
    value     = 'quoted' | "quoted" (a quote inside is doubled) | a word without quotes, blanks, parentheses or operators

Fields are columns of `interactions`, `tag.NAME`, `feedback` (the newest), and names of scores (the newest value each; one
that is called like a column is `score.NAME`). `none` is a missing value, `true` and `false` are what assertions say. A
missing value fulfils `!=` and `!~`, and no other comparison.

What a filter says becomes parameters of one SQL condition: no text of it ever stands in the SQL. Knows nothing of cases.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from watchkeeper.record import ACTIONS
from watchkeeper_evaluations.dataset.dataset import DatasetError

Kind = Literal["text", "number", "flag", "measure"]
"""`measure`: a score or the feedback, which may be a number, a truth or a label."""

OPERATORS: Final[Mapping[str, str]] = {
    "=": "IS NOT DISTINCT FROM",
    "!=": "IS DISTINCT FROM",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
    "~": "",
    "!~": "NOT",
}
_ALLOWED: Final[Mapping[Kind, Collection[str]]] = {
    "text": ("=", "!=", "~", "!~"),
    "number": ("=", "!=", "<", "<=", ">", ">="),
    "flag": ("=", "!="),
    "measure": ("=", "!=", "<", "<=", ">", ">="),
}
_WORDS: Final = (
    *("request_id", "tenant", "user", "session", "route", "release", "model", "upstream", "language", "finish_reason"),
    "error",
)
_NUMBERS: Final = (
    *("input_tokens", "output_tokens", "cost_usd", "ttft_ms", "tpot_ms", "total_ms", "overhead_ms", "support", "retrieved"),
    "attempts",
)
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {"action": ACTIONS, "status": ("ok", "blocked", "error", "rejected")}
COLUMNS: Final[Mapping[str, tuple[Kind, str]]] = {
    **{name: ("text", f"nullif(i.\"{name}\", '')") for name in _WORDS},
    **{name: ("number", f'i."{name}"') for name in _NUMBERS},
    "action": ("text", "i.action"),
    "status": ("text", "i.outcome"),
    "http_status": ("number", "i.status"),
    "stream": ("flag", "i.stream::DOUBLE"),
    "prompt": ("text", "nullif(i.prompt_text, '')"),
    "output": ("text", "nullif(i.output_text, '')"),
    "text": ("text", "nullif(concat_ws(chr(10), i.prompt_text, i.output_text), '')"),
}
"""Field → what it is, and its SQL over the row `i`."""

WINDOW: Final = "w"
"""The window's name in the SQL (see `watchkeeper_evaluations.case.bounds`)."""
TAG: Final = "tag."
SCORE: Final = "score."
FEEDBACK: Final = "feedback"
_TRUTH: Final = {"true": 1.0, "false": 0.0}
_TOKEN: Final = re.compile(
    r"""\s*(?: (?P<operator>!=|<=|>=|!~|[=<>~])
          | '(?P<single>(?:[^']|'')*)' | "(?P<double>(?:[^"]|"")*)"
          | (?P<word>[^\s'"()=<>!~]+) )""",
    re.VERBOSE,
)
_FIELD: Final = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_LIKE: Final = "what a filter looks like: grounded = false and text ~ 'a refund'"
_SHOWN: Final = 60
"""Characters of a filter that an error repeats."""


class FilterError(DatasetError):
    """The filter cannot be read or means nothing; the message is one line that says what there is."""


@dataclass(frozen=True)
class Condition:
    """`quoted`: the value stood in quotes, so `none`, `true` and `false` are plain text."""

    field: str
    operator: str
    value: str
    quoted: bool = False

    def __str__(self) -> str:
        quote = "'" if self.quoted else ""
        return f"{self.field} {self.operator} {quote}{self.value.replace(quote, quote * 2) if quote else self.value}{quote}"

    @property
    def missing(self) -> bool:
        return self.value == "none" and not self.quoted

    @property
    def number(self) -> float | None:
        """The value as a finite number, or as 1 and 0 where it is a truth."""
        if self.quoted:
            return None
        try:
            value = _TRUTH[self.value] if self.value in _TRUTH else float(self.value)
        except ValueError:
            return None
        return value if math.isfinite(value) else None


@dataclass
class Compiled:
    """SQL over the rows `i` of `interactions`: what follows FROM and WHERE. `parameters`: all that the filter said."""

    joins: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def parameter(self, value: str | float) -> str:
        name = f"f{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"


def parse(text: str) -> tuple[Condition, ...]:
    """Raises `FilterError`."""
    tokens = _tokens(text)
    conditions: list[Condition] = []
    at = 0
    while at < len(tokens):
        if conditions:
            kind, word = tokens[at]
            if (kind, word.lower()) != ("word", "and"):
                raise FilterError(f"between conditions stands `and`, not {_cut(word)!r}; {_LIKE}")
            at += 1
        conditions.append(_condition(tokens[at : at + 3], _last(tokens[:at])))
        at += 3
    return tuple(conditions)


def compiled(conditions: Collection[Condition], scores: Collection[str]) -> Compiled:
    """The SQL of all conditions together. `scores`: the names of scores that there are. Raises `FilterError`."""
    sql = Compiled()
    for condition in conditions:
        kind, expression = _field(condition.field, sql, scores)
        _check(condition, kind)
        sql.where.append(_comparison(condition, kind, expression, sql))
    return sql


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            rest = text[at:].strip()
            what = "a quote that is not closed" if rest[0] in "'\"" else f"{rest[0]!r}"
            raise FilterError(f"the filter cannot be read from {_cut(rest)!r}: {what}; {_LIKE}")
        kind = str(match.lastgroup)
        quote = {"single": "'", "double": '"'}.get(kind)
        value = match[kind]
        tokens.append((kind, value.replace(quote * 2, quote)) if quote else (kind, value))
        at = match.end()
    return tokens


def _condition(tokens: list[tuple[str, str]], before: str) -> Condition:
    kinds = [kind for kind, _ in tokens]
    words = [word for _, word in tokens]
    if not kinds or kinds[0] != "word" or not _FIELD.fullmatch(words[0]):
        raise FilterError(f"a field's name is missing {_place(words[0] if words else '', before)}; {_LIKE}")
    if len(kinds) < 2 or kinds[1] != "operator":
        raise FilterError(f"after {_cut(words[0])!r} stands one of {' '.join(OPERATORS)}; {_LIKE}")
    if len(kinds) < 3 or kinds[2] == "operator":
        raise FilterError(f"after {_cut(words[0])!r} {words[1]} stands a value, in quotes where it has blanks; {_LIKE}")
    return Condition(words[0], words[1], words[2], kinds[2] != "word")


def _last(tokens: list[tuple[str, str]]) -> str:
    return tokens[-1][1] if tokens else ""


def _place(found: str, before: str) -> str:
    return f"where {_cut(found)!r} stands" if found else f"after {_cut(before)!r}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _field(name: str, sql: Compiled, scores: Collection[str]) -> tuple[Kind, str]:
    """What a field is and its SQL; a score or the feedback is joined."""
    if name in COLUMNS:
        return COLUMNS[name]
    if name.startswith(TAG) and len(name) > len(TAG):
        return (
            "text",
            f"nullif(map_extract_value(i.tags::JSON::MAP(VARCHAR, VARCHAR), {sql.parameter(name.removeprefix(TAG))}), '')",
        )
    alias = f"m{len(sql.joins)}"
    if name == FEEDBACK:
        sql.joins.append(_joined(alias, "feedback", "score", "received_at", ""))
        return "measure", alias
    score = name.removeprefix(SCORE)
    if score not in scores:
        listed = ", ".join(sorted(scores)) or "none yet (`watchkeeper evaluate` makes them)"
        there = f"{', '.join(sorted(COLUMNS))}, {TAG}NAME, {FEEDBACK}, and scores: {listed}"
        raise FilterError(f"there is no field {_cut(name)!r}; there is {there}")
    sql.joins.append(
        _joined(alias, "scores", "value", "scored_at", f"replay IS NOT TRUE AND name = {sql.parameter(score)} AND ")
    )
    return "measure", alias


def _joined(alias: str, table: str, value: str, at: str, condition: str) -> str:
    """The newest row of `table` for each request, as columns `value` and `label`."""
    newest = f"arg_max({{'value': {value}, 'label': label}}, {at}) AS newest"
    return (
        f"LEFT JOIN (SELECT request_id, newest.value AS value, newest.label AS label FROM (SELECT request_id, {newest} "
        f"FROM {table} WHERE {condition}date >= make_timestamptz(${WINDOW}_start)::DATE GROUP BY request_id)) AS {alias} "
        f"ON {alias}.request_id = i.request_id"
    )


def _check(condition: Condition, kind: Kind) -> None:
    name, operator = condition.field, condition.operator
    text = kind == "measure" and condition.number is None
    allowed = ("=", "!=") if text or condition.missing else _ALLOWED[kind]
    if operator not in allowed:
        raise FilterError(
            f"{name} {operator} {_cut(condition.value)!r} means nothing; here stands one of {' '.join(allowed)}"
        )
    if condition.missing:
        return
    choices = _CHOICES.get(name, ())
    if choices and condition.value not in choices and operator in ("=", "!="):
        raise FilterError(f"{name} is one of {', '.join(choices)}, or none, not {_cut(condition.value)!r}")
    if kind == "number" and condition.number is None:
        raise FilterError(f"{name} is a number, or none, not {_cut(condition.value)!r}")
    if kind == "flag" and (condition.quoted or condition.value not in _TRUTH):
        raise FilterError(f"{name} is true or false, not {_cut(condition.value)!r}")


def _comparison(condition: Condition, kind: Kind, expression: str, sql: Compiled) -> str:
    if condition.missing:
        column = f"coalesce({expression}.value::VARCHAR, {expression}.label)" if kind == "measure" else expression
        return f"{column} IS {'NOT ' if condition.operator == '!=' else ''}NULL"
    number = None if kind == "text" else condition.number
    value = sql.parameter(condition.value if number is None else number)
    if kind == "measure":
        expression = f"{expression}.{'label' if number is None else 'value'}"
    operator = OPERATORS[condition.operator]
    if condition.operator in ("~", "!~"):
        return f"{operator} coalesce(contains(lower({expression}), lower({value})), false)"
    return f"{expression} {operator} {value}"
