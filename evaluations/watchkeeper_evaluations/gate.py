"""The gate: a comparison and a policy in, a verdict out. Each rule is judged alone, by the ends of the metric's interval.

good end, bad end: of the interval of the difference, seen in the metric's good direction.

| rule | pass | fail | unknown |
|---|---|---|---|
| better | adjusted p < alpha, in the good direction | good end below the margin (0 where none is given) | else |
| not_worse | bad end at -margin or above | bad end below -margin, good end below 0: worse for certain | else |
| at_least, at_most | the candidate's mean is within the value | it is not | never |
| any | | | under `min_cases` or `min_sessions`, or nobody has the metric |

What `better` and `not_worse` let pass must hold as well over the cases of which the base has a value itself, and only those
are enough cases or not: an outage while the base was asked, or a base that rightly claimed nothing, earns nobody a pass.
A `better` whose good end is below its margin fails also where p is small: an effect of the size asked for is not there.
One fail fails the gate; else one unknown leaves it unknown; else it passes.

Adjusted p is Holm's over the `better` rules: that chance passes any of them has a probability of alpha at most. `not_worse`
needs no such correction, since all must hold: a candidate that breaks one passes no more often than that one passes by
chance (intersection-union; Berger 1982).
"""

import math
from typing import Final, Literal

import msgspec

from watchkeeper_evaluations.comparison import Comparison, Metric, Own, Ruled, read_for
from watchkeeper_evaluations.pairing import NotComparable
from watchkeeper_evaluations.policy import Policy, PolicyError, Require

Verdict = Literal["pass", "fail", "unknown"]

_SEEN: Final = 1.43
"""(1.96 + .84) / 1.96: an effect of this many half intervals is found 8 times of 10."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """`reason`: one sentence. `comparison`: as the policy reads it, with its rules; its primary metrics are what `better`
    rules judge."""

    verdict: Verdict
    reason: str
    comparison: Comparison

    @property
    def rules(self) -> tuple[Ruled, ...]:
        return self.comparison.rules or ()


def judge(comparison: Comparison, policy: Policy) -> Gate:
    """Raises `PolicyError` for a rule that does not fit its metric, `NotComparable` for intervals of another alpha."""
    if comparison.alpha != policy.alpha:
        raise NotComparable(f"the comparison was made with alpha {comparison.alpha:g}, the policy has {policy.alpha:g}")
    chosen = [(rule, _choose(comparison, rule, policy)) for rule in policy.require]
    primary = {metric.name for rule, metric in chosen if metric is not None and rule.rule == "better"}
    read = read_for(comparison, primary, policy.margins)
    rules = tuple(_ruled(rule, read.metric(metric.name) if metric else None, policy) for rule, metric in chosen)
    verdict = _worst([rule.verdict for rule in rules])
    return Gate(verdict=verdict, reason=_reason(verdict, rules), comparison=msgspec.structs.replace(read, rules=rules))


def _choose(comparison: Comparison, rule: Require, policy: Policy) -> Metric | None:
    """The first of the rule's metrics that enough cases have; else the first that any has."""
    there = [metric for name in rule.metric if (metric := comparison.metric(name)) is not None]
    enough = [metric for metric in there if _too_few(metric, policy) is None]
    return next(iter([*enough, *there]), None)


def _too_few(metric: Metric, policy: Policy) -> str | None:
    """Cases of which the base has nothing are no evidence: an outage while it was asked lets nobody pass."""
    counted = metric.own or metric
    if counted.n < policy.min_cases:
        return f"{_many(counted.n, 'case has', 'cases have')} {metric.name}, {policy.min_cases} are needed"
    if counted.clusters < policy.min_sessions:
        return f"its cases are of {_many(counted.clusters, 'session', 'sessions')}, {policy.min_sessions} are needed"
    return None


def _ruled(rule: Require, metric: Metric | None, policy: Policy) -> Ruled:
    name = metric.name if metric else " or ".join(rule.metric)
    few = f"no case has {name}" if metric is None else _too_few(metric, policy)
    verdict: Verdict
    if metric is None or few is not None:
        verdict, reason = "unknown", few or ""
    elif rule.rule == "better":
        verdict, reason = _better(metric, policy.alpha, rule.margin or 0.0)
    elif rule.rule == "not_worse":
        verdict, reason = _not_worse(metric, rule.margin or 0.0)
    else:
        verdict, reason = _limit(metric, rule.rule, rule.value or 0.0)
    return Ruled(metric=name, rule=rule.rule, margin=rule.margin, value=rule.value, verdict=verdict, reason=reason)


def _better(metric: Metric, alpha: float, margin: float) -> tuple[Verdict, str]:
    bad, good = _ends(metric)
    p = metric.p if metric.adjusted_p is None else metric.adjusted_p
    if good < 0:
        return "fail", f"{_measured(metric)}: worse for certain"
    if good < margin:
        return "fail", f"{_measured(metric)}: better by {_short(good)} at most, {_short(margin)} was asked for"
    if p < alpha and bad >= 0:
        if metric.own is not None and (metric.own.p >= alpha or _ends(metric, metric.own)[0] < 0):
            return (
                "unknown",
                f"{_measured(metric)}: not where the base has a value itself ({_many(metric.own.n, 'case', 'cases')})",
            )
        return "pass", f"{_measured(metric)}, p {_p(p)}"
    if not math.isfinite(good - bad):
        return "unknown", f"{_measured(metric)}: too few sessions to say how large a difference is"
    seen = _short(_SEEN * (good - bad) / 2)
    return "unknown", f"{_measured(metric)}, p {_p(p)}: cases like these show a difference of {seen} in 8 of 10 comparisons"


def _not_worse(metric: Metric, margin: float) -> tuple[Verdict, str]:
    bad, good = _ends(metric)
    if bad >= -margin and metric.own is not None and _ends(metric, metric.own)[0] < -margin:
        return (
            "unknown",
            f"{_measured(metric)}: not where the base has a value itself ({_many(metric.own.n, 'case', 'cases')})",
        )
    if bad >= -margin:
        return "pass", f"{_measured(metric)}: worse by {_short(max(-bad, 0.0))} at most, {_short(margin)} is allowed"
    if good < 0:
        return "fail", f"{_measured(metric)}: worse for certain, and not certainly by {_short(margin)} or less"
    return "unknown", f"{_measured(metric)}: up to {_short(-bad)} worse, {_short(margin)} is allowed{_more(metric, margin)}"


def _not_of_its_own(metric: Metric, own: Own) -> str:
    cases = _many(own.n, "case", "cases")
    return f"{_measured(metric)}: it is not shown by the {cases} of which the base has a value itself"


def _limit(metric: Metric, rule: str, value: float) -> tuple[Verdict, str]:
    within = metric.candidate >= value if rule == "at_least" else metric.candidate <= value
    words = f"{_short(metric.candidate)} on these cases, {rule.replace('_', ' ')} {_short(value)} is asked for"
    return ("pass" if within else "fail"), words


def _ends(metric: Metric, found: Metric | Own | None = None) -> tuple[float, float]:
    """The bad and the good end of the interval (of `found`: the metric over its own cases), more is better. Raises
    `PolicyError` where no way is better."""
    if metric.better is None:
        raise PolicyError(
            f"{metric.name} is neither good nor bad: ask for at_least or at_most, not for better or not_worse"
        )
    found = found or metric
    low = -math.inf if found.low is None else found.low
    high = math.inf if found.high is None else found.high
    return (low, high) if metric.better == "higher" else (-high, -low)


def _more(metric: Metric, margin: float) -> str:
    """How many cases would do, were the difference the one measured: intervals shrink with the root of their number."""
    bad, _ = _ends(metric)
    middle = metric.delta if metric.better == "higher" else -metric.delta
    room = middle + margin
    if room <= 0 or not math.isfinite(bad):
        return ""
    return f"; about {math.ceil(metric.n * ((middle - bad) / room) ** 2):,} such cases would tell"


def _worst(verdicts: list[Verdict]) -> Verdict:
    return "fail" if "fail" in verdicts else "unknown" if "unknown" in verdicts else "pass"


def _reason(verdict: Verdict, rules: tuple[Ruled, ...]) -> str:
    """One sentence: what decided, or all that was shown."""
    return "; ".join(f"{rule.metric} {rule.rule}: {rule.reason}" for rule in rules if rule.verdict == verdict)


def _measured(metric: Metric) -> str:
    ends = " to ".join("?" if end is None else f"{end:+.3g}" for end in (metric.low, metric.high))
    return f"{_short(metric.base)} → {_short(metric.candidate)} ({metric.delta:+.3g}, {ends})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
