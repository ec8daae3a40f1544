"""The cases of an experiment: what both releases scored, sorted by the difference; and one case with both answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dash import html
from dash.development.base_component import Component

from watchkeeper.lake.experiments import Answer
from watchkeeper_dashboards import parts, shell, units
from watchkeeper_dashboards.metrics import Metric, metric_of
from watchkeeper_dashboards.page import Sources
from watchkeeper_dashboards.scores import in_order, words_of
from watchkeeper_dashboards.word_diff import differing, marked

SHOWN: Final = 200
MEASURES: Final = ("total_ms", "output_tokens", "cost_usd")

Order = Literal["worse", "better"]


@dataclass(frozen=True)
class Pair:
    """One case, asked once of each release. None: that release has no answer to it."""

    case_id: str
    repeat: int
    base: Answer | None
    candidate: Answer | None

    @property
    def prompt(self) -> str:
        answer = self.base or self.candidate
        return answer.prompt if answer else ""

    def delta(self, name: str) -> float | None:
        """Candidate minus base; None where one of them has no such value."""
        ours, theirs = value_of(self.base, name), value_of(self.candidate, name)
        return None if ours is None or theirs is None else theirs - ours


def pairs(answers: Sequence[Answer], base: str, candidate: str) -> list[Pair]:
    """Answers of both releases, put together by case and repeat, in the order of the cases."""
    found: dict[tuple[str, int], dict[str, Answer]] = {}
    for answer in answers:
        if answer.release in (base, candidate):
            found.setdefault((answer.case_id, answer.repeat), {})[answer.release] = answer
    return [Pair(case, repeat, by.get(base), by.get(candidate)) for (case, repeat), by in found.items()]


def value_of(answer: Answer | None, name: str) -> float | None:
    """A score's number, or a measure; of an answer that never came there is none."""
    if answer is None or answer.failed:
        return None
    if name in MEASURES:
        return float(getattr(answer, name))
    given = answer.scores.get(name)
    return given.value if given else None


def names_of(answers: Sequence[Answer]) -> list[str]:
    """What the cases can be sorted by."""
    numbered = {name for answer in answers for name, given in answer.scores.items() if given.value is not None}
    return [*in_order(list(numbered)), *MEASURES]


def ordered(found: Sequence[Pair], name: str, order: Order) -> list[Pair]:
    """By the difference, what became worse (or better) first; pairs without one, because an answer failed, at the top."""
    lower_is_better = name in MEASURES or words_of(name).better == "lower"
    sign = -1.0 if lower_is_better == (order == "worse") else 1.0

    def key(pair: Pair) -> tuple[bool, float]:
        delta = pair.delta(name)
        return (delta is not None, 0.0 if delta is None else sign * delta)

    return sorted(found, key=key)


def table(found: Sequence[Pair], name: str, base: str, candidate: str, address: Mapping[str, str]) -> Component:
    """The list. `address`: case and repeat (`case.repeat`) → where it is shown."""
    metric = metric_of(name)
    columns = (
        ("Case", "wk-clip"), (base, "wk-num wk-optional"), (candidate, "wk-num wk-optional"), ("Difference", "wk-num"),
        ("Status", "wk-nowrap wk-optional"),
    )  # fmt: skip
    rows = [parts.cells(columns, _cells(pair, metric, address), "wk-linked") for pair in found[:SHOWN]]
    return parts.table(columns, rows, f"Cases by the difference in {metric.label}")


def _cells(pair: Pair, metric: Metric, address: Mapping[str, str]) -> tuple[parts.Children, ...]:
    link = shell.link(pair.prompt[:200] or pair.case_id, address[key_of(pair)], class_name="wk-row-link")
    delta = pair.delta(metric.name)
    return (
        link,
        metric.of_one(value_of(pair.base, metric.name)),
        metric.of_one(value_of(pair.candidate, metric.name)),
        _change(metric, delta),
        _status(pair),
    )


def _change(metric: Metric, delta: float | None) -> str:
    """What became of one answer: of a yes or no, whether it was gained or lost."""
    if metric.unit == "share" and delta is not None:
        return "gained" if delta > 0 else "lost" if delta < 0 else "same"
    return metric.difference(delta)


def key_of(pair: Pair) -> str:
    return f"{pair.case_id}.{pair.repeat}"


def _status(pair: Pair) -> Component:
    sides = (("base", pair.base), ("candidate", pair.candidate))
    bad = [
        f"{side} {'missing' if answer is None else 'failed'}" for side, answer in sides if answer is None or answer.failed
    ]
    return parts.badge(", ".join(bad), "error") if bad else html.Span("both answered", className="wk-dim")


def case_page(
    sources: Sources, pair: Pair, base: str, candidate: str, older: str | None, newer: str | None, back: str
) -> list[Component]:
    """One case: the question, both answers with what differs marked, and their scores."""
    ours, theirs = differing(_words(pair.base), _words(pair.candidate))
    head = html.Div(
        [
            html.H1(f"Case {pair.case_id[:16]}", className="wk-title"),
            _status(pair),
            html.Span(className="wk-grow"),
            shell.link("previous case", older) if older else None,
            shell.link("next case", newer) if newer else None,
        ],
        className="wk-trace-head",
    )
    answers = html.Div(
        [
            _answer(sources, base, pair.base, marked(ours, missing_there=True), "struck: the candidate does not say it"),
            _answer(sources, candidate, pair.candidate, marked(theirs, missing_there=False),
                    "underlined: the base does not say it"),
        ],
        className="wk-row wk-row-even",
    )  # fmt: skip
    question = parts.card("Question", "what both releases were asked", parts.text(pair.prompt))
    return [
        html.Div(shell.link([parts.icon("arrow-left"), "Experiment"], back, class_name="wk-back")),
        head,
        html.Div(
            [question, answers, _scores(pair, base, candidate)],
            className="wk-stack",
        ),
    ]  # fmt: skip


def _words(answer: Answer | None) -> str:
    return answer.answer if answer else ""


def _answer(sources: Sources, release: str, answer: Answer | None, text: Component, note: str) -> Component:
    if answer is None:
        return parts.card(release, note, parts.empty("This release has no answer to this case.", small=True))
    mlflow = sources.links.trace(answer.request_id)
    links = [shell.link("trace", f"/traces/{answer.request_id}"), parts.outside("in MLflow", mlflow) if mlflow else None]
    outcome = answer.error or answer.finish_reason or "no reason"
    said = text if answer.answer else parts.empty(f"There is no answer: {outcome}.", small=True)
    facts: list[tuple[str, parts.Children]] = [
        ("Status", f"{answer.status}, {outcome}"),
        ("Total", units.milliseconds(answer.total_ms)),
        ("Tokens in / out", f"{answer.input_tokens} / {answer.output_tokens}"),
        ("Cost", units.dollars(answer.cost_usd)),
    ]
    aside = html.Div([link for link in links if link is not None], className="wk-links")
    return parts.card(release, note, said, parts.facts(facts), aside=aside, class_name="wk-answer")


def _scores(pair: Pair, base: str, candidate: str) -> Component:
    answers = [answer for answer in (pair.base, pair.candidate) if answer is not None]
    columns = (("Score", "wk-nowrap"), (base, "wk-num"), (candidate, "wk-num"), ("Difference", "wk-num"))
    rows = []
    for name in names_of(answers):
        metric = metric_of(name)
        values = (metric.of_one(value_of(pair.base, name)), metric.of_one(value_of(pair.candidate, name)))
        rows.append(parts.cells(columns, (metric.label, *values, _change(metric, pair.delta(name)))))
    return parts.card("Scores", "what the scorers said of both", parts.table(columns, rows, "Scores of both answers"))
