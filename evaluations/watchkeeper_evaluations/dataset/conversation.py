"""A request of the lake → a case: the conversation as its client gave it.

A record holds the messages as the model got them: the release's template before the client's own system text, and passages
around the question. Both are taken off again, so that the case can be put to another release. Knows nothing of which
requests are wanted.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from watchkeeper.record import Message, Redact
from watchkeeper.release import BUILTIN, FILE_NAME, FOLDER, Release
from watchkeeper.serving.journey import INSTRUCTING
from watchkeeper_evaluations.dataset.case import Case

LeftOut = Literal["no_text", "image", "tools", "no_user_turn_last"]
COLUMNS: Final = ("request_id", "release", "digest", "prompt", "prompt_text", "session", "tags", "stages")
"""The columns of `interactions` that a case is made of."""
_IMAGE: Final = re.compile(r"(?m)^\[image sha256:[0-9a-f]{64}\]$")


class Conversations:
    """Makes cases of requests. `unknown`: how many had a system text of a release that is not known here: it cannot be
    told what of it was the client's, so all of it was dropped."""

    def __init__(self, template_of: Callable[[str, str], str | None], redact: Redact) -> None:
        """`template_of`: name@version and digest of a release → its template; None: not known. `redact`: as it was for
        the records."""
        self._template_of = template_of
        self._redact = redact
        self.unknown = 0

    def case(self, row: Mapping[str, Any]) -> Case | LeftOut:
        """One row (`COLUMNS`) as a case, or why it cannot be one."""
        messages = msgspec.json.decode(row["prompt"] or "[]", type=list[Message])
        talk = [message for message in messages if message.role not in INSTRUCTING]
        if not messages or not (row["prompt_text"] or "").strip():
            return "image" if any(_IMAGE.search(message.content) for message in messages) else "no_text"
        if any(_IMAGE.search(message.content) for message in talk):
            return "image"
        if any(message.role not in ("user", "assistant") or not message.content.strip() for message in talk):
            return "tools"
        if not talk or talk[-1].role != "user":
            return "no_user_turn_last"
        own = self._own(row, [message.content for message in messages if message.role in INSTRUCTING])
        return Case(
            messages=(*([Message("system", own)] if own.strip() else []), *talk[:-1], Message("user", row["prompt_text"])),
            request_id=row["request_id"],
            session=row["session"] or None,
            tags=msgspec.json.decode(row["tags"] or "{}", type=dict[str, str]),
        )

    def _own(self, row: Mapping[str, Any], instructions: Sequence[str]) -> str:
        """The client's own system text: what it is as one text when a release's template goes before it."""
        whole = "\n\n".join(instructions)
        if not _routed(row["stages"]):  # blocked or refused before there were messages for a model
            return whole
        template = self._template_of(row["release"], row["digest"])
        if template is not None:
            for text in (template, self._redact(template)[0]):
                if whole == text:
                    return ""
                if whole.startswith(f"{text}\n\n"):
                    return self._redact(whole.removeprefix(f"{text}\n\n"))[0]
        self.unknown += bool(whole)
        return ""


def _routed(stages: Sequence[Mapping[str, Any]] | None) -> bool:
    return any(stage["name"] == "route" and stage["status"] == "ok" for stage in stages or ())


def templates(data: Path) -> Callable[[str, str], str | None]:
    """Looks templates up in the data folder: all releases that the shipper wrote there, the one that serves, the built-in.

    A request's digest decides, because a name and version can be another release on another MLflow; its name@version does
    where it has no digest.
    """
    known = {BUILTIN.digest: BUILTIN.template, BUILTIN.id: BUILTIN.template}
    for file in [*sorted((data / FOLDER).glob("*.json")), data / FILE_NAME]:
        try:
            release = msgspec.json.decode(file.read_bytes(), type=Release)
        except (OSError, msgspec.DecodeError):
            continue
        known |= {release.digest: release.template, release.id: release.template}
    return lambda name, digest: known.get(digest or name)
