"""What logging costs the thread that serves: a record into the spool, against MLflow's SDK logging the same ten spans."""

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import mlflow
from servers import mlflow_server
from table import Row, alternate, figure

from watchkeeper.record import STAGES, Message, Record, Source, Stage, Verdict
from watchkeeper.telemetry.spool import Spool

TRACES = 200
PROMPT = "How many days of annual leave do I have, and how many of them may I carry over into the next year? " * 2
ANSWER = "You have 27 days of annual leave a year; up to 5 unused days may be carried over until 31 March. " * 2


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, mlflow_server(Path(folder)) as uri:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("bench")
        ours, theirs = alternate(lambda: _spool(Path(folder)), _sdk)
        mlflow.flush_trace_async_logging(terminate=True)
    yield Row(
        "CPU of the serving thread, one logged request of ten stages",
        figure(ours, "µs"),
        "mlflow SDK 3.17, asynchronous export",
        figure(theirs, "µs"),
    )


def record() -> Record:
    return Record(
        request_id=uuid.uuid4().hex,
        received_at=time.time_ns() // 1000,
        session="s",
        model="m",
        prompt=(Message("system", "Be brief."), Message("user", PROMPT)),
        prompt_text=PROMPT,
        output_text=ANSWER,
        stages=tuple(Stage(name, 1.0, 1.0, attributes={"n": 1}) for name in STAGES),
        verdicts=tuple(Verdict("pii", "prompt", "none", "pass", None, "", "1") for _ in range(10)),
        sources=(Source("a#1", "A", 0.5, ANSWER),),
        embedding=bytes(768),
    )


def _spool(folder: Path) -> float:
    """µs of this thread's CPU for each record, from accept until it is durable; the writer has its own thread."""

    async def run() -> float:
        spool = Spool.open(folder / uuid.uuid4().hex, "bench")
        records = [record() for _ in range(TRACES)]
        started = time.thread_time()
        for one in records:
            spool.accept(one.request_id, one.received_at)
            await spool.append(one)
        spent = time.thread_time() - started
        await spool.close()
        return spent / TRACES * 1e6

    return asyncio.run(run())


def _sdk() -> float:
    """µs of this thread's CPU for each trace: a root and nine spans, with the same texts."""
    started = time.thread_time()
    for _ in range(TRACES):
        with mlflow.start_span("chat") as root:
            root.set_inputs({"messages": [{"role": "user", "content": PROMPT}]})
            for name in STAGES[1:]:
                with mlflow.start_span(name) as span:
                    span.set_attribute("n", 1)
            root.set_outputs({"choices": [{"message": {"role": "assistant", "content": ANSWER}}]})
    return (time.thread_time() - started) / TRACES * 1e6
