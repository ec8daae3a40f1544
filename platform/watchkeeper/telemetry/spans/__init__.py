"""Other people's spans into our record: decoded, read in whatever names they use, gathered by trace, assembled."""

from watchkeeper.telemetry.spans.assembly import assemble
from watchkeeper.telemetry.spans.decoding import Unreadable, spans_of
from watchkeeper.telemetry.spans.dialects import read
from watchkeeper.telemetry.spans.part import Part, cleaned
from watchkeeper.telemetry.spans.span import Event, Span

__all__ = ["Event", "Part", "Span", "Unreadable", "assemble", "cleaned", "read", "spans_of"]
