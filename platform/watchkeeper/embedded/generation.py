"""Tokens for several requests at once: one thread that reads prompts and decodes.

Requests come and go between two steps. In one step all that are being answered advance by one token, and beside them a
piece of the prompts in line is read: small enough that those who are being answered hardly wait for it. Each has its own
temperature, nucleus and seed. Knows nothing of text, chat or HTTP.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from watchkeeper.embedded.answer import Event, Finish, Sampling
from watchkeeper.embedded.attention import Part, advance
from watchkeeper.embedded.keyvalues import KeyValues
from watchkeeper.embedded.prefixes import Prefixes
from watchkeeper.embedded.sampling import draw, likelihood

ROWS: Final = 8
"""Requests answered together."""
ALONE: Final = 256
"""Prompt tokens read in one step while nobody is being answered: a request that comes meanwhile waits for them."""
BESIDE: Final = 48
"""Prompt tokens read in a step of those who are being answered."""
PREFIXES: Final = 256 * 2**20
"""Bytes for what prompts begin with."""
KEEP: Final = 2048
"""Positions: larger buffers are given back when nobody is being answered."""

logger = logging.getLogger(__name__)


class Job:
    """A request on its way through. `deliver` is called on the generating thread and must return at once. `known`: tokens
    of the prompt that had been read for others."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, deliver: Callable[[Event], None]) -> None:
        self.prompt = list(prompt)
        self.sampling = sampling
        self.deliver = deliver
        self.cancelled = False
        self.answer: list[int] = []
        self.known = 0
        self.random = torch.Generator()
        if sampling.seed is None:
            self.random.seed()
        else:
            self.random.manual_seed(sampling.seed % 2**63)

    @property
    def generated(self) -> int:
        """Tokens, the end-of-answer token among them."""
        return len(self.answer)

    def cancel(self) -> None:
        """From any thread: no step after the current one is spent on it."""
        self.cancelled = True


class Reading:
    """A prompt on its way into a memory of its own. At least one token has to be read, also of a prompt that is known
    from before: its logits are what the answer begins with."""

    def __init__(self, job: Job, prefixes: Prefixes) -> None:
        self.job = job
        self.keys = KeyValues(rows=1)
        job.known = prefixes.find(job.prompt[:-1], self.keys)
        if not job.known:
            self.keys.lengths = [0]

    @property
    def read(self) -> int:
        return self.keys.lengths[0]


class Generator:
    """Runs the jobs it is given. `ends`: the tokens that end an answer."""

    def __init__(
        self,
        model: Any,
        ends: Iterable[int],
        *,
        rows: int = ROWS,
        alone: int = ALONE,
        beside: int = BESIDE,
        prefixes: int = PREFIXES,
    ) -> None:
        self._model = model
        self._ends = frozenset(ends)
        self._rows = rows
        self._alone = alone
        self._beside = beside
        self._prefixes = Prefixes(prefixes)
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._reading: list[Reading] = []
        self._running: list[Job] = []
        self._keys = KeyValues(rows=rows)
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """Requests that take part in steps."""
        return len(self._running) + len(self._reading)

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._waiting) + self._inbox.qsize()

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
                try:
                    self._step()
                except Exception:
                    logger.exception("a generation step failed")
                    self._fail()
        self._fail()
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

    def _fail(self) -> None:
        """Ends all jobs that take part in steps."""
        for job in [reading.job for reading in self._reading] + self._running:
            job.deliver(Event(None, job.generated, "error"))
        self._reading, self._running = [], []
        self._keys.clear()

    def _step(self) -> None:
        """One token for each running job, and as much of the prompts in line as may be read beside them."""
        self._drop([row for row, job in enumerate(self._running) if job.cancelled])
        self._admit()
        parts: list[Part] = []
        if self._running:
            parts.append((self._keys, torch.tensor([[job.answer[-1]] for job in self._running])))
        going: list[Reading] = []
        left = self._beside if self._running else self._alone
        for reading in self._reading:
            if chunk := reading.job.prompt[reading.read : reading.read + left]:
                parts.append((reading.keys, torch.tensor([chunk])))
                going.append(reading)
                left -= len(chunk)
        if parts:
            self._advance(parts, going)

    def _advance(self, parts: Sequence[Part], going: Sequence[Reading]) -> None:
        logits = advance(self._model, parts)
        # A row for each running job, then one for each prompt; those of prompts that are not at their end say nothing.
        rows = len(self._running)
        read = [at for at, reading in enumerate(going) if reading.read == len(reading.job.prompt)]
        jobs = self._running + [going[at].job for at in read]
        logits = logits[[*range(rows), *(rows + at for at in read)]]
        tokens = draw(logits, [(job.sampling, job.random) for job in jobs])
        over = [self._took(job, token, row) for job, token, row in zip(jobs, tokens, logits, strict=True)]
        for row in range(rows):
            if over[row]:
                job = self._running[row]
                self._prefixes.keep(job.prompt + job.answer[:-1], self._keys, row)
        self._drop([row for row in range(rows) if over[row]])
        for at, ended in zip(read, over[rows:], strict=True):
            reading = going[at]
            self._reading.remove(reading)
            self._prefixes.keep(reading.job.prompt, reading.keys, 0)
            if not ended:
                self._keys.begin(reading.keys.span(0, 0, reading.read))
                self._running.append(reading.job)

    def _admit(self) -> None:
        """The prompts to be read: the oldest in line, as many as there are rows for."""
        self._reading = [reading for reading in self._reading if not reading.job.cancelled]
        while self._waiting and len(self._running) + len(self._reading) < self._rows:
            job = self._waiting.popleft()
            if not job.cancelled:
                self._reading.append(Reading(job, self._prefixes))

    def _drop(self, rows: Sequence[int]) -> None:
        for row in reversed(rows):
            self._keys.drop(row)
            last = self._running.pop()
            if row < len(self._running):
                self._running[row] = last
        if not self._running and self._keys.capacity > KEEP:
            self._keys.clear()

    def _took(self, job: Job, token: int, logits: Tensor) -> bool:
        """Delivers the token; whether it was the job's last."""
        job.answer.append(token)
        finish: Finish | None = None
        if token in self._ends:
            finish = "stop"
        elif job.generated >= job.sampling.max_tokens:
            finish = "length"
        if finish == "stop":
            job.deliver(Event(None, job.generated, finish))
        else:
            top = job.sampling.logprobs
            job.deliver(Event(token, job.generated, finish, None if top is None else likelihood(logits, token, top)))
        return finish is not None
