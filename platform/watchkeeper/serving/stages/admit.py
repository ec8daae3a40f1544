"""admit: is there room, and which release serves? Refuses when too much is in flight, and a model that nobody serves."""

from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.request import Refused
from watchkeeper.serving.stages.stage import Stage

CHAMPION = "watchkeeper"


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    span.attributes |= {"tenant": journey.tenant, "in_flight": parts.in_flight}
    limit = parts.settings.gateway.max_in_flight
    if parts.in_flight > limit:
        raise Refused(429, "rate_limit_exceeded", f"more than {limit} requests are in flight; try again", retry_after=1)
    asked = journey.request.model
    named = journey.release if asked in (CHAMPION, journey.release.id) else parts.releases.named(asked)
    if named is not None:
        journey.release, journey.upstream_name = named, named.model
    elif parts.upstreams.named(asked):
        journey.upstream_name = asked
    else:
        known = ", ".join(models(parts, journey.release.id))
        raise Refused(
            404, "model_not_found", f"model: nothing here serves {asked[:100]!r}; there is {known}", param="model"
        )


def models(parts: Parts, release: str) -> list[str]:
    """The names that a request's `model` may have; `release` is the champion's."""
    others = (name for name in parts.releases.ids() if name != release)
    return [CHAMPION, release, *others, *(upstream.name for upstream in parts.upstreams.all)]


STAGE = Stage("admit", _run, on_error="closed")
