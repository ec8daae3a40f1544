"""One request after the other is logged, by the gateway's own parts or by MLflow's SDK: the same nine spans and texts, a
session and a tag. Each its own process, so that neither pays for the other's threads:
`python clients.py ours SPOOL REQUESTS DURABILITY redacted|raw PAUSE_S` or
`python clients.py sdk URI EXPERIMENT REQUESTS PAUSE_S`.
Prints one JSON document (`Cost`).
"""

import asyncio
import json
import os
import random
import select
import string
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.record import Message, Redact, Scalar, Source, StageName, Verdict
from watchkeeper.release import BUILTIN
from watchkeeper.serving.failure import freeze
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.request import ChatRequest, Extension, Turn
from watchkeeper.settings import Upstream
from watchkeeper.telemetry.otlp import SPAN_TYPES
from watchkeeper.telemetry.spool import Spool

SYSTEM: Final = BUILTIN.template
PROMPT: Final = "How many days of annual leave do I have as a {}, and how many of them may I carry over into next year? "
ANSWER: Final = "As a {} you have 27 days of annual leave a year; up to 5 unused days may be carried over until 31 March. "
LOGGED: Final = "logged"
QUIET: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
STAGES: Final[tuple[StageName, ...]] = (
    *("admit", "preprocess", "embed", "ground", "guard_in"),
    *("route", "generate", "guard_out"),
)
"""Eight, and the root: nine spans."""
ATTRIBUTES: Final[dict[StageName, dict[str, Scalar]]] = {
    "admit": {"tenant": "default", "in_flight": 1},
    "preprocess": {"language": "en", "tokens": 60, "changes": ""},
    "embed": {"texts": 1, "dimension": 384},
    "ground": {"turns": 0, "documents": 1, "search": "hybrid"},
    "guard_in": {"verdicts": 5, "blocked": False},
    "route": {"candidates": "instant", "policy": "balanced"},
    "generate": {"attempts": 1, "upstream": "instant", "model": "instant", "finish_reason": "stop"},
    "guard_out": {"verdicts": 5, "blocked": False},
}


class Cost(msgspec.Struct, frozen=True):
    """`wall_*_us`: that a request keeps its thread from others, beside its own work; `thread_us`: CPU of that thread for a
    request; `process_us`: of all threads, until all is handed on; `wait_*_ms`: that the last byte waits until its record is
    durable, from when that is made.
    `began_at`: seconds since the epoch."""

    requests: int
    began_at: float
    wall_p50_us: float
    wall_p99_us: float
    thread_us: float
    process_us: float
    wait_p50_ms: float = 0.0
    wait_p99_ms: float = 0.0


def texts() -> tuple[str, str]:
    """Prompt and answer, with a word that was not there before: nobody may answer out of a memory."""
    word = "".join(random.choices(string.ascii_lowercase, k=8))
    return PROMPT.format(word) * 2, ANSWER.format(word) * 2


def journey() -> Journey:
    """A request that has arrived at its end."""
    prompt, answer = texts()
    turn = Turn("user", prompt, {"role": "user", "content": prompt})
    extension = Extension(session=f"s{random.randrange(1000)}", tags={"app": "bench"})
    done = Journey(
        request_id=os.urandom(16).hex(),
        received_at=time.time_ns() // 1000,
        request=ChatRequest(model="watchkeeper", turns=(turn,), extension=extension),
        release=BUILTIN,
        clock=time.perf_counter,
        started=time.perf_counter(),
        turns=[turn],
    )
    done.spans = {name: Span(name, 1.0, 1.0, attributes=dict(ATTRIBUTES[name])) for name in STAGES}
    done.messages = [Message("system", SYSTEM), Message("user", prompt)]
    done.sources = (Source("leave.md#1", "Leave", 0.8, ANSWER.format("clerk")),)
    done.verdicts = [Verdict("pii", "prompt", "none", "pass", None, "", "1") for _ in range(5)]
    done.answered_by = Upstream(name="instant", base_url="http://127.0.0.1:1/v1", model="instant")
    done.answer, done.usage, done.finish_reason = answer, (60, 50), "stop"
    return done


class Unredacted:
    """A redactor that finds nothing and does not look."""

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        return text, {}

    def name(self, text: str) -> str:
        return text


async def ours(folder: Path, requests: int, durability: str, pause_s: float, *, redacted: bool) -> Cost:
    """`redacted`: as the gateway does; else the record is made of the texts as they are, which is what the SDK does."""
    redact: Redact = Redactor() if redacted else Unredacted()
    spool = Spool.open(folder, "bench", durability="power" if durability == "power" else "process")
    journeys = [journey() for _ in range(requests)]
    busy: list[float] = []
    waits: list[float] = []
    began_at, thread, process = time.time(), time.thread_time(), time.process_time()
    for one in journeys:
        begun = time.perf_counter()
        spool.accept(one.request_id, one.received_at)
        record = freeze(one, redact)
        made = time.perf_counter()
        appending = asyncio.ensure_future(spool.append(record))
        await asyncio.sleep(0)  # a whole turn of the loop, in which the record is encoded, and written or handed over
        busy.append(time.perf_counter() - begun)
        await appending
        waits.append(time.perf_counter() - made)
        if pause_s:
            await asyncio.sleep(pause_s)
    thread = time.thread_time() - thread
    print(LOGGED, flush=True)
    await spool.close()
    return _cost(busy, waits, began_at, thread, time.process_time() - process)


def sdk(uri: str, experiment: str, requests: int, pause_s: float) -> Cost:
    """With MLflow's asynchronous export, and its queue emptied at the end."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment)
    _trace()
    mlflow.flush_trace_async_logging()
    busy: list[float] = []
    began_at, thread, process = time.time(), time.thread_time(), time.process_time()
    for _ in range(requests):
        begun = time.perf_counter()
        _trace()
        busy.append(time.perf_counter() - begun)
        if pause_s:
            time.sleep(pause_s)
    thread = time.thread_time() - thread
    print(LOGGED, flush=True)
    mlflow.flush_trace_async_logging(terminate=True)
    return _cost(busy, [], began_at, thread, time.process_time() - process)


def _trace() -> None:
    import mlflow

    prompt, answer = texts()
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
    choices = [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}]
    with mlflow.start_span("watchkeeper", span_type="CHAIN", attributes={"release": BUILTIN.id, "status": 200}) as root:
        mlflow.update_current_trace(session_id=f"s{random.randrange(1000)}", tags={"watchkeeper.action": "pass"})
        root.set_inputs({"messages": [{"role": "user", "content": prompt}]})
        for name in STAGES:
            with mlflow.start_span(name, span_type=SPAN_TYPES[name], attributes=dict(ATTRIBUTES[name])) as span:
                if name == "generate":
                    span.set_inputs({"messages": messages})
                    span.set_outputs({"choices": choices})
                    usage = {"input_tokens": 60, "output_tokens": 50, "total_tokens": 110}
                    span.set_attribute("mlflow.chat.tokenUsage", usage)
                elif name == "ground":
                    span.set_outputs([{"page_content": ANSWER.format("clerk"), "metadata": {"doc_uri": "leave.md"}}])
        root.set_outputs({"choices": choices})


def _cost(busy: Sequence[float], waits: Sequence[float], began_at: float, thread: float, process: float) -> Cost:
    count = len(busy)

    def at(values: Sequence[float], share: float) -> float:
        return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0

    return Cost(
        requests=count,
        began_at=began_at,
        wall_p50_us=at(busy, 0.5) * 1e6,
        wall_p99_us=at(busy, 0.99) * 1e6,
        thread_us=thread / count * 1e6,
        process_us=process / count * 1e6,
        wait_p50_ms=at(waits, 0.5) * 1e3,
        wait_p99_ms=at(waits, 0.99) * 1e3,
    )


def run(*arguments: str, environment: dict[str, str] | None = None, timeout: float = 600) -> Cost:
    """One of the two in a process of its own. Raises `subprocess.SubprocessError`."""
    command = [sys.executable, str(Path(__file__)), *arguments]
    env = {**os.environ, **QUIET, **(environment or {})}
    done = subprocess.run(command, capture_output=True, check=True, timeout=timeout, env=env)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Cost)


def start(*arguments: str) -> "subprocess.Popen[str]":
    """One of the two, under way in a process of its own."""
    command = [sys.executable, str(Path(__file__)), *arguments]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen(command, stdout=pipe, stderr=nowhere, text=True, env={**os.environ, **QUIET})


def wait_logged(client: "subprocess.Popen[str]", limit_s: float) -> None:
    """Waits until it has logged everything, though not yet delivered it. Raises `TimeoutError`, and `RuntimeError` when it
    has ended before."""
    assert client.stdout is not None
    if not select.select([client.stdout], [], [], limit_s)[0]:
        raise TimeoutError(f"{client.args!r} has not logged everything within {limit_s:.0f} s")
    if client.stdout.readline().strip() != LOGGED:
        raise RuntimeError(f"{client.args!r} has ended before it had logged everything")


def main(arguments: Sequence[str]) -> Cost:
    if arguments[0] == "ours":
        import uvloop

        _, folder, requests, durability, way, pause_s = arguments
        return uvloop.run(ours(Path(folder), int(requests), durability, float(pause_s), redacted=way == "redacted"))
    _, uri, experiment, requests, pause_s = arguments
    return sdk(uri, experiment, int(requests), float(pause_s))


if __name__ == "__main__":
    print(json.dumps(msgspec.to_builtins(main(sys.argv[1:]))))
