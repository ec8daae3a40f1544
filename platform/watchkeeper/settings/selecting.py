"""Settings of which model answers: routes with a release and upstreams of their own, cascades from a small model to a
large."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from watchkeeper.settings.serving import Upstream
from watchkeeper.settings.values import Section

EMBEDDED: Final = "local"
"""The name of the embedded model as an upstream."""


def _one_or_more(given: object) -> object:
    return (given,) if isinstance(given, str) else given


Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_one_or_more), Field(min_length=1)]

Signal = Literal["empty", "refusal", "repetition", "truncated", "json", "support"]
"""What makes an answer of the small model weak."""


class Cascade(Section):
    """`small` and `large`: upstreams by name, each one or several that share the traffic. A prompt whose difficulty (in
    [0, 1]) reaches `difficulty` goes to the large model at once; None: the value that `watchkeeper calibrate cascade`
    found for these two, and 0.45 before (0.3 without an encoder). An answer of the small one that shows one of `signals`
    is thrown away for one of the large one's; `min_support`: below it the share of sentences that the sources support is
    weak. Streams leave as they come, so that only the difficulty decides there."""

    small: Names
    large: Names
    difficulty: Annotated[float, Field(ge=0, le=1)] | None = None
    signals: tuple[Signal, ...] = ("empty", "refusal", "repetition", "truncated", "json", "support")
    min_support: Annotated[float, Field(ge=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _apart(self) -> Self:
        both = sorted({*self.small} & {*self.large})
        if both:
            raise ValueError(f"{both[0]} cannot be small and large")
        return self


class Route(Section):
    """What is different for requests with this `watchkeeper.route`. `release`: `name@version`, `champion` or `challenger`;
    None: drawn as everywhere. `upstreams`: the only ones that may answer; `order` `listed`: tried in that order, not
    balanced. `cascade`: one of its own, instead of the one for all."""

    name: Annotated[str, Field(min_length=1)]
    release: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+@[0-9]+|champion|challenger)$")] | None = None
    upstreams: tuple[str, ...] = ()
    order: Literal["balanced", "listed"] = "balanced"
    cascade: Cascade | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.order == "listed" and not self.upstreams:
            raise ValueError("order = 'listed' needs upstreams: it is theirs")
        if self.cascade is not None and self.upstreams:
            raise ValueError("has upstreams and a cascade: its upstreams are the cascade's, name them there")
        return self

    def named(self) -> Iterator[str]:
        """The upstreams that it names."""
        yield from self.upstreams
        if self.cascade is not None:
            yield from (*self.cascade.small, *self.cascade.large)


def _routes(routes: tuple[Route, ...], info: ValidationInfo) -> tuple[Route, ...]:
    names = [route.name for route in routes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]} is there twice")
    for route in routes:
        _known(f"route {route.name}", tuple(route.named()), info)
    return routes


def _cascade(cascade: Cascade | None, info: ValidationInfo) -> Cascade | None:
    if cascade is not None:
        _known("the cascade", (*cascade.small, *cascade.large), info)
    return cascade


def _known(who: str, names: Sequence[str], info: ValidationInfo) -> None:
    """Raises `ValueError` for an upstream that is not set. `info`: has the upstreams, unless they are wrong themselves."""
    upstreams: tuple[Upstream, ...] | None = info.data.get("upstreams")
    if upstreams is None:
        return
    known = [upstream.name for upstream in upstreams] or [EMBEDDED]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise ValueError(f"{who} names the upstream {unknown!r}, which is not set; there is {', '.join(known)}")


Routes = Annotated[tuple[Route, ...], AfterValidator(_routes)]
CascadeForAll = Annotated[Cascade | None, AfterValidator(_cascade)]
