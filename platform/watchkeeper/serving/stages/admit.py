"""admit: which release serves, may this tenant have it, and when is its turn? Refuses a model that nobody serves, and what
is beyond a tenant's limits or the gateway's (admission.py)."""

from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.request import Refused
from watchkeeper.serving.selection import CHAMPION, select, subject
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    span.attributes |= {"tenant": journey.tenant, "in_flight": parts.in_flight}
    _select(journey, parts, span)
    if parts.admission is not None:
        await parts.admission.enter(journey, span)


def _select(journey: Journey, parts: Parts, span: Span) -> None:
    """Which release serves. `share`: the challenger's, where there was a draw; `missing`: a route's release that is not
    there."""
    asked, who = journey.request.model, journey.request.extension
    drawn_for = subject(journey.tenant, who.session, who.user, journey.request_id)
    route = parts.settings.route(who.route)
    selected = select(asked, route, journey.release, parts.releases, parts.upstreams, drawn_for)
    if selected is None:
        known = ", ".join(models(parts, journey.release.id, journey.tenant))
        raise Refused(
            404, "model_not_found", f"model: nothing here serves {asked[:100]!r}; there is {known}", param="model"
        )
    journey.release, journey.upstream_name = selected.release, selected.upstream
    span.attributes["selected_by"] = selected.by
    if selected.share is not None:
        span.attributes["share"] = selected.share
    if selected.missing is not None:
        span.status, span.attributes["missing"] = "degraded", selected.missing


def models(parts: Parts, release: str, tenant: str) -> list[str]:
    """The names that a request's `model` may have; `release` is the champion's."""
    others = (name for name in parts.releases.ids() if name != release)
    names = [CHAMPION, release, *others, *(upstream.name for upstream in parts.upstreams.all)]
    allowed = None if parts.admission is None else parts.admission.of(tenant).models
    return names if allowed is None else [name for name in names if name in allowed]


STAGE = Stage("admit", _run, on_error="closed")
