"""`python unlogged.py serve --config FILE`: the gateway, but its spool acknowledges at once and keeps nothing.

What the spool costs a request is the difference. Only here: the product has no such thing.
"""

from watchkeeper.cli.main import main
from watchkeeper.feedback import Feedback
from watchkeeper.record import Record
from watchkeeper.serving import building
from watchkeeper.settings import Settings
from watchkeeper.telemetry.spool import Spool


class Unlogged(Spool):
    """Takes everything and keeps nothing."""

    def accept(self, request_id: str, received_at: int) -> None:
        return

    async def append(self, said: Record | Feedback) -> None:
        return


def _open(settings: Settings) -> tuple[Spool, str]:
    return Unlogged.open(settings.spool_folder, "gateway-0"), "gateway-0"


if __name__ == "__main__":
    building.open_spool = _open  # before anything has imported it from there
    main()
