"""Cases as lines of JSON: {"messages" or "prompt", "reference", "session", "tags", "request_id"}; only the first is needed.

What comes in is redacted before anything else happens to it. Knows nothing of MLflow or of files.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from watchkeeper.record import Message, Redact
from watchkeeper_evaluations.dataset.case import Case
from watchkeeper_evaluations.dataset.dataset import DatasetError

_ID: Final = re.compile(r"[0-9a-f]{32}")


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    content: str


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    messages: tuple[_Message, ...] | None = None
    prompt: str | None = None
    reference: str | None = None
    session: str | None = None
    tags: dict[str, str] = {}
    request_id: str | None = None


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """`redacted`: category → how many were taken out of the texts."""

    cases: list[Case]
    redacted: dict[str, int]


def import_jsonl(body: bytes, redact: Redact) -> Imported:
    """The cases of a file (UTF-8; empty lines are skipped). Raises a `DatasetError` that names the first bad line."""
    redacted: Counter[str] = Counter()

    def clean(text: str) -> str:
        text, counts = redact(text)
        redacted.update(counts)
        return text

    cases: list[Case] = []
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            read = decoder.decode(line)
            cases.append(
                _case(read, [Message(message.role, clean(message.content)) for message in _messages(read)], clean, redact)
            )
        except ValueError as error:  # msgspec's and Unicode's are such
            raise DatasetError(f"line {number}: {error}; nothing was written") from None
    return Imported(cases=cases, redacted=dict(redacted))


def export_jsonl(cases: Iterable[Case]) -> str:
    """One line a case, in the order of their ids; imported again, the cases have the same digest."""
    lines = [msgspec.json.encode(plain(case)).decode() for case in sorted(cases, key=lambda case: case.case_id)]
    return "".join(f"{line}\n" for line in lines)


def plain(case: Case) -> dict[str, Any]:
    """A case as its line has it, without what it lacks."""
    body: dict[str, Any] = msgspec.to_builtins(case)
    return {key: value for key, value in body.items() if value not in (None, {})}


def _messages(line: _Line) -> tuple[_Message, ...]:
    if (line.messages is None) == (line.prompt is None):
        raise ValueError("either `messages` or `prompt` is needed")
    return line.messages if line.messages is not None else (_Message("user", line.prompt or ""),)


def _case(line: _Line, messages: list[Message], clean: Callable[[str], str], redact: Redact) -> Case:
    if line.request_id is not None and not _ID.fullmatch(line.request_id):
        raise ValueError("request_id must be 32 hex digits")
    return Case(
        messages=tuple(messages),
        reference=None if line.reference is None else clean(line.reference),
        request_id=line.request_id,
        session=redact.name(line.session) if line.session else None,
        tags={clean(key): clean(value) for key, value in line.tags.items()},
    )
