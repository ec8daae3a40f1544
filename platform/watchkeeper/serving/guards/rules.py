"""Rules over words: regular expressions written down in a TOML file beside this one, for the guards that read sentences.

In a pattern, a space stands for whatever separates two words, `~` for up to five words, `{name}` for an entry of the file's
`[words]`, and a line end for nothing. Patterns are matched on the lower-cased scan copy. A rule with a score is a hint; one
without decides.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.record import Target

_SEPARATOR: Final = r"(?:[\W_]{1,6})"
_SOME_WORDS: Final = r"(?:[^\W_]{1,24}(?:'\w{1,3})?[\W_]{1,6}){0,5}?"
_NAME = re.compile(r"\{([a-z_]+)\}")


class Rule(msgspec.Struct, frozen=True):
    """`needs`: one of these must be in the text for the rule to be tried; it only saves time. `targets`: what it is for."""

    name: str
    category: str
    regex: re.Pattern[str]
    needs: tuple[str, ...]
    score: float | None
    targets: tuple[Target, ...]


class Match(msgspec.Struct, frozen=True):
    """A rule and the span of the matched text that it matched first."""

    rule: Rule
    start: int
    end: int


def load(file: str, category: str) -> tuple[Rule, ...]:
    """The rules of a file beside this one, in its order. `category` is that of rules that name none."""
    content = _read(file)
    return tuple(_rule(entry, content["words"], category) for entry in content["rules"])


def words(file: str) -> dict[str, str]:
    """The `[words]` of a file beside this one."""
    found: dict[str, str] = _read(file)["words"]
    return found


def _read(file: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(file).read_text(encoding="utf-8"))


def _rule(entry: dict[str, Any], names: dict[str, str], category: str) -> Rule:
    return Rule(
        name=entry["name"],
        category=entry.get("category", category),
        regex=compiled(entry["pattern"], names),
        needs=tuple(entry["needs"].split("|")),
        score=entry.get("score"),
        targets=tuple(entry.get("targets", ("prompt", "context", "output"))),
    )


def compiled(pattern: str, names: dict[str, str]) -> re.Pattern[str]:
    """A pattern as it is written in these files → what `re` takes."""
    while _NAME.search(pattern):
        pattern = _NAME.sub(lambda name: f"(?:{names[name[1]]})", pattern)
    return re.compile(pattern.replace("\n", "").replace("~ ", _SOME_WORDS).replace(" ", _SEPARATOR))


def matches(rules: Iterable[Rule], text: str, target: Target) -> Iterator[Match]:
    """Which rules for a target match a lower-cased text, in the order of the rules."""
    for rule in rules:
        if target in rule.targets and any(needed in text for needed in rule.needs):
            found = rule.regex.search(text)
            if found:
                yield Match(rule, found.start(), found.end())
