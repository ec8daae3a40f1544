"""Tokens for several requests at once: one thread that reads prompts and decodes.

Requests come and go between two steps. The prompt of the oldest waiting one is read in chunks, so that those who are being
answered wait for a chunk at most; all that are being answered advance by one token together. Each has its own
temperature, nucleus and seed. Knows nothing of text, chat or HTTP.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, Final

import torch
from torch import Tensor

from watchkeeper.embedded.answer import Event, Finish, Sampling
from watchkeeper.embedded.keyvalues import KeyValues

CHUNK: Final = 128
"""Prompt tokens read between two decoding steps."""
ROWS: Final = 8
"""Requests decoded together; on a CPU more of them gain little."""
NUCLEUS: Final = 512
"""Most nuclei are smaller than this, and finding the largest 512 is far cheaper than sorting a vocabulary."""
COLDEST: Final = 1e-5
"""A temperature below this is greedy: dividing by it would overflow."""
SMALLEST: Final = 1e-9
"""A nucleus holds a token at least, also for a `top_p` of 0."""
KEEP: Final = 2048
"""Positions: larger buffers are given back when nobody is being answered."""

logger = logging.getLogger(__name__)


class Job:
    """A request on its way through. `deliver` is called on the generating thread and must return at once."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, deliver: Callable[[Event], None]) -> None:
        self.prompt = list(prompt)
        self.sampling = sampling
        self.deliver = deliver
        self.cancelled = False
        self.generated = 0
        self.last = -1
        self.random = torch.Generator()
        if sampling.seed is None:
            self.random.seed()
        else:
            self.random.manual_seed(sampling.seed % 2**63)

    def cancel(self) -> None:
        """From any thread: no step after the current one is spent on it."""
        self.cancelled = True


class Generator:
    """Runs the jobs it is given. `ends`: the tokens that end an answer."""

    def __init__(self, model: Any, ends: Iterable[int], *, rows: int = ROWS, chunk: int = CHUNK) -> None:
        self._model = model
        self._ends = frozenset(ends)
        self._rows = rows
        self._chunk = chunk
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._reading: Job | None = None
        # The prompt read last, and its keys and values: the next prompt begins where it differs from this one.
        self._read: list[int] = []
        self._read_keys = KeyValues(rows=1)
        self._running: list[Job] = []
        self._keys = KeyValues(rows=rows)
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def submit(self, prompt: Sequence[int], sampling: Sampling, deliver: Callable[[Event], None]) -> Job:
        """Puts a request at the end of the line. From any thread."""
        job = Job(prompt, sampling, deliver)
        self._inbox.put(job)
        return job

    def stop(self) -> None:
        """Ends after the current step; jobs that are not finished end with an error."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        with torch.inference_mode():
            while self._collect():
                self._guarded(self._read_chunk, self._fail_reading)
                self._guarded(self._decode, self._fail_running)
        self._fail_reading()
        self._fail_running()
        for job in self._waiting:
            job.deliver(Event(None, 0, "error"))

    def _collect(self) -> bool:
        """Takes in new jobs; waits for one when there is nothing to do. False: stop."""
        busy = bool(self._waiting or self._reading or self._running)
        try:
            while True:
                job = self._inbox.get(block=not busy)
                if job is None:
                    return False
                self._waiting.append(job)
                busy = True
        except queue.Empty:
            return True

    def _guarded(self, step: Callable[[], None], fail: Callable[[], None]) -> None:
        """A step that fails ends the jobs that took part in it, and no others."""
        try:
            step()
        except Exception:
            logger.exception("a generation step failed")
            fail()

    def _fail_reading(self) -> None:
        if self._reading is not None:
            self._reading.deliver(Event(None, 0, "error"))
        self._reading = None
        self._read = []
        self._read_keys.clear()

    def _fail_running(self) -> None:
        for job in self._running:
            job.deliver(Event(None, job.generated, "error"))
        self._running = []
        self._keys.clear()

    def _read_chunk(self) -> None:
        """The next piece of the prompt that is being read; after its last one the job runs, with its first token."""
        job = self._next_to_read()
        if job is None:
            return
        start = len(self._read)
        chunk = job.prompt[start : start + self._chunk]
        logits = self._read_keys.advance(self._model, torch.tensor([chunk]))
        self._read = job.prompt[: start + len(chunk)]
        if len(self._read) < len(job.prompt):
            return
        self._reading = None
        if not self._took(job, draw(logits, [job])[0]):
            self._keys.append(self._read_keys)
            self._running.append(job)

    def _next_to_read(self) -> Job | None:
        if self._reading is not None and self._reading.cancelled:
            self._reading = None
        while self._reading is None and self._waiting and len(self._running) < self._rows:
            job = self._waiting.popleft()
            if not job.cancelled:
                # At least one token has to be read: its logits are what the answer begins with.
                same = takewhile(lambda pair: pair[0] == pair[1], zip(self._read, job.prompt[:-1], strict=False))
                self._read = [token for token, _ in same]
                self._read_keys.lengths = [len(self._read)]
                self._reading = job
        return self._reading

    def _decode(self) -> None:
        """One token for each running job."""
        self._drop(row for row, job in enumerate(self._running) if job.cancelled)
        if not self._running:
            return
        logits = self._keys.advance(self._model, torch.tensor([[job.last] for job in self._running]))
        tokens = draw(logits, self._running)
        self._drop([row for row, token in enumerate(tokens) if self._took(self._running[row], token)])

    def _drop(self, rows: Iterable[int]) -> None:
        for row in sorted(rows, reverse=True):
            self._keys.drop(row)
            last = self._running.pop()
            if row < len(self._running):
                self._running[row] = last
        if not self._running and self._keys.capacity > KEEP:
            self._keys.clear()

    def _took(self, job: Job, token: int) -> bool:
        """Delivers the token; whether it was the job's last."""
        job.last = token
        job.generated += 1
        finish: Finish | None = None
        if token in self._ends:
            finish = "stop"
        elif job.generated >= job.sampling.max_tokens:
            finish = "length"
        job.deliver(Event(None if finish == "stop" else token, job.generated, finish))
        return finish is not None


def draw(logits: Tensor, jobs: Sequence[Job]) -> list[int]:
    """The next token of each job from its row of the logits (jobs, vocabulary)."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    for row, job in enumerate(jobs):
        if job.sampling.temperature >= COLDEST:
            tokens[row] = _sample(logits[row].float(), job)
    return tokens


def _sample(logits: Tensor, job: Job) -> int:
    """A draw from the nucleus: the fewest tokens whose probabilities reach `top_p`; the likeliest is always in it."""
    probabilities = torch.softmax(logits / job.sampling.temperature, dim=-1)
    if job.sampling.top_p >= 1:
        return int(torch.multinomial(probabilities, 1, generator=job.random))
    likely, tokens = probabilities.topk(min(NUCLEUS, len(probabilities)))
    if likely.sum() < job.sampling.top_p:
        likely, tokens = probabilities.sort(descending=True)
    nucleus = likely[likely.cumsum(0) - likely < max(job.sampling.top_p, SMALLEST)]
    return int(tokens[torch.multinomial(nucleus, 1, generator=job.random)])
