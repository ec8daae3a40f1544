"""What the stages work with: the long-lived collaborators of one gateway worker, made once, given to every stage."""

from collections.abc import Callable
from dataclasses import dataclass, field

from watchkeeper.encoder.client import EncoderClient
from watchkeeper.release import Follower
from watchkeeper.serving.admission import Admission
from watchkeeper.serving.cache import AnswerCache
from watchkeeper.serving.calibration import Calibration
from watchkeeper.serving.exchange import HttpExchange
from watchkeeper.serving.guard import Guard, Judgement
from watchkeeper.serving.knowledge import Knowledge
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.sessions import Sessions
from watchkeeper.serving.tokens import TokenCounter
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.serving.vector_memory import VectorMemory
from watchkeeper.settings import Settings


@dataclass
class Parts:
    """`admission`: None where nobody is kept waiting or counted, as in replays. `knowledge`: None where no folder is set.
    `cache`: None unless it is switched on. `calibrations`: those of cascades now. `vectors`: the encoder's, each text once.
    `judged_passages`: what the guards said of passages that were seen before, by release digest and text: the knowledge
    base is the same for all requests."""

    settings: Settings
    releases: Follower
    encoder: EncoderClient
    knowledge: Knowledge | None
    sessions: Sessions
    guards: tuple[Guard, ...]
    redact: Redactor
    upstreams: Upstreams
    tokens: TokenCounter
    calibrations: Callable[[], tuple[Calibration, ...]] = tuple
    cache: AnswerCache | None = None
    admission: Admission | None = None
    exchange: HttpExchange | None = None
    in_flight: int = 0
    judged_passages: dict[tuple[str, str], Judgement] = field(default_factory=dict)
    vectors: VectorMemory = field(init=False)

    def __post_init__(self) -> None:
        self.vectors = VectorMemory(self.encoder)

    async def close(self) -> None:
        """Lets go of files, threads and connections."""
        if self.knowledge:
            self.knowledge.close()
        self.sessions.close()
        if self.exchange:
            await self.exchange.close()
