"""Journeys that end badly: what becomes of one that got no answer, and a record whatever happens.

For the gateway and for replays alike, so that a failure looks the same wherever a prompt travelled.
"""

import logging
import traceback

from watchkeeper.record import Record, Redact
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.request import Refused
from watchkeeper.telemetry.segment import unanswered

logger = logging.getLogger(__name__)


def refuse(journey: Journey, error: Exception) -> Refused:
    """Notes on the journey why it has no answer, and gives what a client is told. A prompt that a guard blocked is no
    error."""
    refused = error if isinstance(error, Refused) else defect(journey, error)
    journey.status = refused.status
    journey.error = None if refused.code == "content_filter" else refused.code
    return refused


def defect(journey: Journey, error: Exception) -> Refused:
    """An error of our own: logged, and what a client is told of it."""
    log_defect(f"request {journey.request_id}", error)
    return Refused(500, "internal_error", f"the gateway failed; its log tells more under {journey.request_id}")


def freeze(journey: Journey, redact: Redact) -> Record:
    """The journey's record. What cannot be redacted is not kept, but that there was a request is."""
    try:
        return journey.record(redact)
    except Exception as error:
        log_defect(f"request {journey.request_id}", error)
        return unanswered(journey.request_id, journey.received_at, "record_failed", 500, replica=journey.replica)


def log_defect(where: str, error: Exception) -> None:
    """Logs where a defect is, without its message: that may hold a text of the user's. `where`: in what, by its id."""
    place = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s: %s\n%s", where, type(error).__name__, place)
