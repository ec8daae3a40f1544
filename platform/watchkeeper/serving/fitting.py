"""What of a conversation goes to a model whose window is too small for all of it, with room kept for the answer.

Left out, in this order, until the rest fits: the session's stored turns, the client's own turns (unless the settings say
`refuse`), the passages that were found, the worst first. The oldest turns go first, whole exchanges: a question with its
answer, a tool's call with its results. What instructs, the newest user turn and the last round of tools always stay; where
they alone do not fit, the request is refused. Knows nothing of upstreams but their windows.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec

from watchkeeper.record import Message, Scalar
from watchkeeper.serving.journey import INSTRUCTING, Journey
from watchkeeper.serving.request import Refused, Turn
from watchkeeper.serving.tokens import TokenCounter

IMAGE_TOKENS: Final = 1_000
"""What an image counts for: between what OpenAI, Anthropic and Qwen take for one of a megapixel (765 to 1,600)."""
LEAST_ANSWER: Final = 32
"""Tokens that an answer must have room for; with less than was asked for it may have to do."""
DESCRIBING: Final = ("tools", "functions", "response_format")
"""Parameters that servers write into the prompt."""

Truncate = Literal["oldest", "refuse"]
Build = Callable[[Journey], list[Message]]
"""The messages that the model would get for a journey as it stands."""


def fit(journey: Journey, build: Build, counter: TokenCounter, window: int, truncate: Truncate) -> list[Message]:
    """The messages that go to the model, and their count, and the tokens that the answer may have, noted on the journey.

    What is left out is taken off the journey, and counted in `left_out`. For an answer that may be longer than half of the
    window nothing more is left out than for one of half: it may come out shorter. Raises `Refused` with 400. Time is linear
    in the conversation.
    """
    messages = build(journey)
    most = window - min(journey.most_tokens, window // 2)
    total = counter.count([message.content for message in messages]) + _beside(journey, counter)
    if total > most:
        total -= _leave_stored(journey, counter, total - most)
    if total > most and truncate == "oldest":
        total -= _leave_turns(journey, counter, total - most)
    while total > most and journey.sources:
        journey.sources = journey.sources[:-1]
        journey.leave_out("passages", 1)
        total = counter.count([message.content for message in build(journey)]) + _beside(journey, counter)
    journey.prompt_tokens = total
    least = min(journey.most_tokens, LEAST_ANSWER)
    if total + least > window:
        raise _too_long(total, least, window, counter.exact)
    journey.answer_tokens = min(journey.most_tokens, window - total)
    return build(journey) if journey.left_out else messages


def described(journey: Journey) -> dict[str, Scalar]:
    """What a span tells of it."""
    left_out = {f"left_out_{what}": number for what, number in journey.left_out.items()}
    return {"tokens": journey.prompt_tokens, "answer_tokens": journey.answer_tokens or 0, **left_out}


def exchanges(turns: Sequence[Turn]) -> list[range]:
    """The parts of a conversation that may be left out, each whole, oldest first.

    Before the newest user turn a part is a user turn with all that follows it; after it, a round of tools: the calls with
    their results. The newest user turn, the last round and all that instructs belong to none.
    """
    spoken = [at for at, turn in enumerate(turns) if turn.role == "user"]
    newest = spoken[-1] if spoken else -1
    begins = [at for at, turn in enumerate(turns) if _begins(turn, at, newest)]
    edges = sorted({0, *begins, *((newest, newest + 1) if spoken else ()), len(turns)})
    parts = _joined(turns, [range(start, end) for start, end in pairwise(edges)])
    return [part for part in parts[:-1] if newest not in part]


def _begins(turn: Turn, at: int, newest: int) -> bool:
    return turn.role == "user" or (at > newest and turn.role == "assistant")


def _joined(turns: Sequence[Turn], parts: list[range]) -> list[range]:
    """Parts of which one holds the results of another's calls become one, with all that lies between."""
    owner: dict[str, int] = {}
    reach = list(range(len(parts)))  # up to which part each one goes
    for number, part in enumerate(parts):
        for turn in turns[part.start : part.stop]:
            for call in _calls(turn):
                owner[call] = number
            answered = turn.body.get("tool_call_id")
            if isinstance(answered, str) and owner.get(answered, number) != number:
                reach[owner[answered]] = number
    joined: list[range] = []
    last = -1
    for number, part in enumerate(parts):
        if number <= last:
            joined[-1] = range(joined[-1].start, part.stop)
        else:
            joined.append(part)
        last = max(last, reach[number])
    return joined


def _calls(turn: Turn) -> Iterator[str]:
    """The ids of the tool calls that a turn of the assistant's makes; it is as the client sent it."""
    calls = turn.body.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict) and isinstance(call.get("id"), str):
            yield call["id"]


def _leave_stored(journey: Journey, counter: TokenCounter, excess: int) -> int:
    """Leaves out stored turns, question and answer together, until `excess` tokens are gone; how many are."""
    gone = at = 0
    while gone < excess and at < len(journey.history):
        gone += sum(counter.message(message.content) for message in journey.history[at : at + 2])
        at += 2
    if at:
        journey.leave_out("stored", len(journey.history[:at]))
        journey.history = journey.history[at:]
    return gone


def _leave_turns(journey: Journey, counter: TokenCounter, excess: int) -> int:
    gone = 0
    left: set[int] = set()
    for part in exchanges(journey.turns):
        if gone >= excess:
            break
        for at in part:
            turn = journey.turns[at]
            if turn.role not in INSTRUCTING:
                left.add(at)
                gone += counter.message(turn.text) + _beside_text(turn, counter)
    if left:
        journey.leave_out("turns", len(left))
        journey.turns = [turn for at, turn in enumerate(journey.turns) if at not in left]
    return gone


def _beside(journey: Journey, counter: TokenCounter) -> int:
    """Tokens of what goes with the messages' texts: calls of tools, names, images, and what tools there are."""
    total = sum(_beside_text(turn, counter) for turn in journey.turns)
    for name in DESCRIBING:
        if described := journey.request.forwarded.get(name):
            total += counter.text(_json(described))
    return total


def _beside_text(turn: Turn, counter: TokenCounter) -> int:
    if len(turn.body) <= 2 and not turn.images:
        return 0
    other = {key: value for key, value in turn.body.items() if key not in ("role", "content") and value}
    return (counter.text(_json(other)) if other else 0) + IMAGE_TOKENS * len(turn.images)


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # a lone surrogate
        return str(value)


def _too_long(total: int, least: int, window: int, exact: bool) -> Refused:
    about = "" if exact else "about "
    return Refused(
        400,
        "context_length_exceeded",
        f"messages: what cannot be left out has {about}{total} tokens, and an answer needs {least}, but the largest "
        f"context window here has {window}; shorten them",
        param="messages",
    )
