"""The guards, in the order in which they look. A new one is one file here and one line in `guards`.

Beside them: what several share (patterns, rules), and what single ones know (checksums, identities, phones, places).
"""

from watchkeeper.encoder import heads
from watchkeeper.serving.guard import Guard
from watchkeeper.serving.guards.bias import Bias
from watchkeeper.serving.guards.injection import Injection
from watchkeeper.serving.guards.misinformation import Misinformation
from watchkeeper.serving.guards.pii import Pii
from watchkeeper.serving.guards.policy import PolicyGuard
from watchkeeper.serving.guards.secrets import Secrets
from watchkeeper.serving.guards.toxicity import Toxicity
from watchkeeper.settings import Settings


def guards(settings: Settings) -> tuple[Guard, ...]:
    """All guards, cheap ones first. Raises `HeadBroken` where a packaged head is not what its card says."""
    toxicity = heads.load("toxicity")
    return (
        Pii(),
        Secrets(),
        PolicyGuard(settings.guards.denied_topics),
        Injection(heads.load("injection")),
        Toxicity(toxicity),
        Bias(toxicity),
        Misinformation(),
    )
