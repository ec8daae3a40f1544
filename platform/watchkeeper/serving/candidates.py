"""The upstreams that may answer one request, in the order in which to ask them, and what the span says of why.

Knows nothing of how they are called, nor of what they said before.
"""

from collections.abc import Sequence
from typing import Final

from watchkeeper.serving.balancing import READING, Ask
from watchkeeper.serving.journey import INSTRUCTING, Journey, Span
from watchkeeper.serving.request import Refused, needs
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.settings import Upstream

CHARACTERS: Final = 4
"""Of a token, about, where nobody counted: a load need not be known better than the length of its answer is."""
OPENING: Final = 1_000
"""Characters of its first prompt by which a conversation without a session is known again."""


PARAMETERS: Final = {"tools": "tools", "json": "response_format", "vision": "messages", "logprobs": "logprobs"}
"""What a request needs of an upstream, and the parameter that says so. Several answers it need not give at once."""


def able(journey: Journey, among: Sequence[Upstream]) -> list[Upstream]:
    """Those that can do what the request needs. Raises `Refused` with 400 where none can."""
    needed = needs(journey.request) & PARAMETERS.keys()
    if not needed:
        return list(among)
    found = [one for one in among if one.capabilities is None or needed <= set(one.capabilities)]
    if among and not found:
        most = max(among, key=lambda one: len(needed & set(one.capabilities or ())))
        lacking = sorted(needed - set(most.capabilities or ()))
        names = ", ".join(one.name for one in among)
        raise Refused(
            400,
            "unsupported_parameter",
            f"{PARAMETERS[lacking[0]]}: no upstream that may answer this ({names}) can do {' and '.join(sorted(needed))}",
            param=PARAMETERS[lacking[0]],
        )
    return found


def ranked(journey: Journey, upstreams: Upstreams, groups: Sequence[Sequence[Upstream]], span: Span) -> list[Upstream]:
    """All of the `groups`, one group after the other, in each the one to ask first in front; notes on the journey what it
    will ask of them."""
    groups = [group for group in groups if group]
    journey.ask = ask = ask_of(journey, upstreams, alike=len(groups) == 1)
    rankings = [upstreams.rank(group, ask) for group in groups]
    order = [upstream for ranking in rankings for upstream in ranking.order]
    costs = [f"{name}={cost:.4g}" for ranking in rankings for name, cost in ranking.costs.items()]
    homes = [ranking.home for ranking in rankings if ranking.home is not None]
    shut = [f"{one.name}={state}" for one in order if (state := upstreams.state(one.name)) != "closed"]
    told = {"costs": costs, "affinity": homes, "breakers": shut}
    span.attributes |= {name: ", ".join(found) for name, found in told.items() if found}
    if homes:
        span.attributes["affinity_known"] = round(ask.known, 3)
    return order


def ask_of(journey: Journey, upstreams: Upstreams, *, alike: bool = True) -> Ask:
    """How much the journey will ask of an upstream, and who has most of its prompt already. `alike`: as in `Ask`."""
    talk = [message.content for message in journey.history]
    talk += [turn.text for turn in journey.turns if turn.role not in INSTRUCTING]
    characters = sum(map(len, talk))
    answer = min(journey.answer_tokens or journey.most_tokens, upstreams.usual_output) * journey.request.n
    tokens = READING * (journey.prompt_tokens or characters / CHARACTERS) + answer
    key = _key(journey) if upstreams.settings.affinity else None
    known = 1 - len(talk[-1]) / max(characters, 1) if key is not None and len(talk) > 1 else 0.0
    return Ask(tokens, journey.request.stream, key, known, alike)


def _key(journey: Journey) -> str | None:
    """What is the same for all turns of a conversation: its session, or how it began. A first prompt without a session has
    none: its upstream is drawn like any other's."""
    extension = journey.request.extension
    if extension.session:
        return f"{journey.tenant}\0{extension.session}"
    talk = [turn.text for turn in journey.request.turns if turn.role not in INSTRUCTING]
    return f"{journey.tenant}\0{extension.user}\0{talk[0][:OPENING]}" if len(talk) > 1 else None
