"""The guards, in the order in which they look. A new one is one file here and one line in `guards`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchkeeper.serving.guard import Guard
    from watchkeeper.settings import Settings


def guards(settings: "Settings") -> "tuple[Guard, ...]":
    from watchkeeper.encoder.heads import load
    from watchkeeper.serving.guards.injection import Injection
    from watchkeeper.serving.guards.pii import Pii
    from watchkeeper.serving.guards.secrets import Secrets
    from watchkeeper.serving.guards.toxicity import Toxicity

    Pii.reads_embedding = False
    Secrets.reads_embedding = False
    return Pii(), Secrets(), Injection(load("injection")), Toxicity(load("toxicity"))
