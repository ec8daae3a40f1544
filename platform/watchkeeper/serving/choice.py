"""One of the answers to a request (`n` asks for several): what the model said, put together from its pieces, and what of
it leaves.

Knows nothing of guards or of who is asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from watchkeeper.serving.citing import Citing
from watchkeeper.serving.leaves import Document, plain
from watchkeeper.serving.logprobs import Logprobs

CALLS: Final = "tool_calls"
BODIES: Final = {"function": "arguments", "custom": "input"}
"""Kinds of calls, and what the model wrote for each."""
TEXTS: Final = ("reasoning_content", "reasoning", "refusal")
"""Fields of a message that are text beside its content; in streams they come in pieces, as the content does."""
UNDERSTOOD: Final = frozenset((CALLS, "function_call", *TEXTS))
"""What may leave of a message's other fields: what the guards can read."""
WRITTEN: Final = (*TEXTS, "name")
"""The texts among them; a client's message may name who speaks."""
CALLING: Final = (CALLS, "function_call")
SAID_BESIDE: Final = (*CALLING, *WRITTEN)
"""What the guards read of a client's message besides its content."""
MOST_CALLS: Final = 128


@dataclass(frozen=True, slots=True)
class Piece:
    """What leaves of a streamed answer: text (with the log-probabilities of its tokens, where there are), or fields of the
    message beside it, of the choice `index`."""

    index: int
    text: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Choice:
    """`answer`: the text as received; `delivered`: what the client got of it, None while that is the answer itself.
    `extra`: the message's other fields, put together from their pieces; `extra_delivered`: what leaves of them, None while
    that is all of them. `support`: as in `Record`. `withheld`: why the answer was cut, for the client; `json`:
    whether it is the JSON that was asked for. `citing`: what is cited of it; `below_min_support`: what was done about too
    little support."""

    index: int = 0
    answer: str = ""
    delivered: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    extra_delivered: dict[str, Any] | None = None
    finish_reason: str | None = None
    support: float | None = None
    withheld: dict[str, str | int] = field(default_factory=dict)
    json: dict[str, Any] | None = None
    citing: Citing | None = None
    below_min_support: str | None = None
    logprobs: Logprobs = field(default_factory=Logprobs)

    @property
    def begun(self) -> bool:
        """Whether the model has said anything here."""
        return bool(self.answer or self.extra or self.finish_reason)

    @property
    def leaving(self) -> dict[str, Any]:
        """The message's other fields as the client gets them."""
        return self.extra if self.extra_delivered is None else self.extra_delivered

    @property
    def said(self) -> str:
        """All that was said, as one text for the record: thoughts as models write them, the answer, a refusal, calls."""
        answer = self.answer if self.json is None else plain(self.answer)
        if not self.extra:
            return answer
        thoughts = "".join(self.extra.get(key, "") for key in TEXTS if key != "refusal")
        thought = f"<think>\n{thoughts}\n</think>" if thoughts else ""
        parts = (thought, answer, self.extra.get("refusal", ""), *written_calls(self.extra))
        return "\n".join(part for part in parts if part)

    def add(self, extra: dict[str, Any]) -> None:
        """Puts pieces of the message's other fields together: calls by their index, texts end to end. Of what is not
        understood the newest counts."""
        for key, value in extra.items():
            if key == CALLS and isinstance(value, list):
                self._add_calls(value)
            elif key == "function_call" and isinstance(value, dict):
                _join(self.extra.setdefault(key, {"name": ""}), "arguments", value)
            elif key in TEXTS and isinstance(value, str):
                self.extra[key] = self.extra.get(key, "") + value
            elif key not in UNDERSTOOD:
                self.extra[key] = value

    def _add_calls(self, pieces: list[Any]) -> None:
        calls: list[dict[str, Any]] = self.extra.setdefault(CALLS, [])
        for place, piece in enumerate(pieces):
            if not isinstance(piece, dict):
                continue
            index = piece.get("index")
            index = index if isinstance(index, int) and index >= 0 else place
            if index >= len(calls):
                if len(calls) >= MOST_CALLS:
                    continue
                index = len(calls)
                calls.append({"id": f"call_{index}", "type": "function"})
            call = calls[index]
            call |= {key: piece[key] for key in ("id", "type") if isinstance(piece.get(key), str) and piece[key]}
            for kind, text in BODIES.items():
                if isinstance(piece.get(kind), dict):
                    _join(call.setdefault(kind, {"name": ""}), text, piece[kind])


def _join(body: dict[str, Any], text: str, piece: dict[str, Any]) -> None:
    """Adds a piece of a call: its name comes at once, what the model wrote for it bit by bit."""
    if isinstance(piece.get("name"), str) and piece["name"]:
        body["name"] = piece["name"]
    written = piece.get(text)
    body[text] = body.get(text, "") + (written if isinstance(written, str) else "")


def spoken_calls(message: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and written text of each call in a message, a client's or a model's."""
    for body, text in _bodies(message):
        yield str(body.get("name") or ""), str(body.get(text) or "")


def written_calls(message: dict[str, Any]) -> list[str]:
    """The calls in a message as the record has them."""
    return [f"{name}({plain(text)})" for name, text in spoken_calls(message)]


def _bodies(message: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    calls = message.get(CALLS)
    for call in calls if isinstance(calls, list) else ():
        for kind, text in BODIES.items():
            if isinstance(call, dict) and isinstance(call.get(kind), dict):
                yield call[kind], text
    if isinstance(message.get("function_call"), dict):
        yield message["function_call"], "arguments"


def readable(message: dict[str, Any]) -> list[Any]:
    """All that a guard has to read of a message's other fields; what is written in JSON is a `Document`."""
    texts = [message[key] for key in WRITTEN if isinstance(message.get(key), str)]
    calls = [[name, Document(text)] for name, text in spoken_calls(message)]
    return [*texts, *calls]


def with_texts(message: dict[str, Any], texts: list[Any]) -> dict[str, Any]:
    """The message with the texts that `readable` gave changed."""
    left = iter(texts)
    changed = dict(message)
    for key in WRITTEN:
        if isinstance(message.get(key), str):
            changed[key] = next(left)
    if isinstance(message.get(CALLS), list):
        changed[CALLS] = [
            {kind: dict(value) if isinstance(value, dict) else value for kind, value in call.items()}
            if isinstance(call, dict)
            else call
            for call in message[CALLS]
        ]
    if isinstance(message.get("function_call"), dict):
        changed["function_call"] = dict(message["function_call"])
    for (body, text), (name, written) in zip(_bodies(changed), left, strict=True):
        body |= {"name": name, text: written}
    return changed
