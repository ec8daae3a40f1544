"""How hard a prompt is, before any model has seen it: a number in [0, 1].

By its embedding, which the gateway has anyway, through a small head (its card: encoder/heads/README.md); while that is
away, by what can be counted in it. Both were fitted on public prompts that stand for hard and easy ones, so the number
orders prompts and is no probability: where to cut is a matter of the two models at hand, and `watchkeeper calibrate
cascade` finds it. Knows nothing of models, of routes or of what was answered.
"""

import math
import re
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.encoder import heads
from watchkeeper.serving.words import size

COUNTED: Final = "counted-1"
"""Changes with the features or weights."""
READ: Final = 4_000
"""Characters: what a longer prompt asks stands at its beginning or its end, half of this each."""

_QUESTION: Final = re.compile(r"[?？؟](?=\s|$|[\"”')])")
_NUMBER: Final = re.compile(r"(?<![\w.])\d+(?:[.,:/]\d+)*")
_CALCULATION: Final = re.compile(
    r"\bhow (?:many|much|long|far|old)\b|\bwhat (?:is|are) the (?:\w+ ){0,3}(?:sum|total|product|difference|probability|"
    r"value|area|volume|number|percentage|average|odds)\b|\b(?:calculate|compute|solve|simplify|factori[sz]e|integral|derivative|"
    r"equations?|inequalit(?:y|ies)|remainder|divisible|altogether|in total|twice|half as|times as|"
    r"per (?:hour|day|week|month|year|person))\b|\d\s*[-+*/^=<>×÷]\s*[\dxyz(]",
    re.I,
)
_CODE: Final = re.compile(
    r"```|[{};]\s*$|\b(?:python|java(?:script)?|typescript|c\+\+|rust|golang|sql|html|css|bash|regex(?:p)?|"
    r"algorithm|leetcode|compil(?:e|er)|debug|unit tests?|stack trace|api endpoint|pseudocode)\b|\bdef \w+\(|\breturn \w+;|"
    r"\b(?:write|implement|develop|design|create|fix) (?:an? |the |this )?(?:\w+ ){0,4}(?:function|program|script|class|"
    r"quer(?:y|ies)|method|parser|data structure)\b",
    re.I | re.M,
)
_REASONING: Final = re.compile(
    r"\b(?:prove|proof|derive|deduce|infer|step[- ]by[- ]step|reason(?:ing)?|puzzle|riddle|logic(?:al)?|why|"
    r"explain (?:why|how|your)|justify|trade-?offs?|compare|contrast|"
    r"pros and cons|analy[sz]e|evaluate|critique|optimi[sz]e|hypothe\w+|"
    r"suppose|assum(?:e|ing|ption)|given that|if .{3,80}\bthen\b|implications?|counterexample|strategy)\b",
    re.I,
)
FEATURES: Final = ("length", "questions", "numbers", "calculation", "code", "reasoning")
WEIGHTS: Final = (0.6, 1.3, 2.1, 3.1, 3.1, 1.3)
BIAS: Final = -1.7


class Difficulty(msgspec.Struct, frozen=True):
    """`by`: the version of what measured it. A threshold is for one version."""

    value: float
    by: str


def difficulty(prompt: str, embedding: NDArray[np.float32] | None) -> Difficulty:
    """How hard the prompt is. `embedding`: its unit embedding; None: there is none."""
    if embedding is None:
        return Difficulty(counted(prompt), COUNTED)
    head = heads.load("difficulty")
    return Difficulty(float(head.score(embedding[None])[0, 0]), head.version)


def counted(prompt: str) -> float:
    """How hard the prompt is by what can be counted in it, in (0, 1)."""
    score = BIAS + sum(weight * value for weight, value in zip(WEIGHTS, features(prompt), strict=True))
    return 1 / (1 + math.exp(-score))


def features(prompt: str) -> tuple[float, ...]:
    """The values of `FEATURES`, each in [0, 1]: counts up to a few, since the tenth number makes no prompt harder."""
    text = prompt if len(prompt) <= READ else f"{prompt[: READ // 2]}\n{prompt[-READ // 2 :]}"
    return (
        min(math.log1p(size(prompt)) / 7, 1.0),
        _share(_QUESTION, text, 3),
        _share(_NUMBER, text, 5),
        _share(_CALCULATION, text, 2),
        _share(_CODE, text, 2),
        _share(_REASONING, text, 2),
    )


def _share(pattern: re.Pattern[str], text: str, most: int) -> float:
    found = 0
    for _ in pattern.finditer(text):
        found += 1
        if found == most:
            break
    return found / most
