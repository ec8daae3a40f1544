"""Retrieved documents, as frameworks write them → sources."""

from collections.abc import Mapping
from typing import Any, Final

from watchkeeper.record import Source
from watchkeeper.telemetry.spans import content
from watchkeeper.telemetry.spans.number import real
from watchkeeper.telemetry.spans.part import MOST_SOURCES

NAMED: Final = ("doc_uri", "source", "url", "file_name", "file_path", "title")
"""Where a document's metadata say what it is; the first counts."""


def passages(value: Any) -> list[Source]:
    """A list of documents (LangChain's, LlamaIndex's, MLflow's, OpenInference's, OpenTelemetry's) → sources, in order."""
    value = content.plain(value)
    if isinstance(value, Mapping):
        value = value.get("documents", value.get("results"))
    listed = [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
    return [_source(one, number) for number, one in enumerate(listed[:MOST_SOURCES])]


def _source(document: Mapping[str, Any], number: int) -> Source:
    inner = document.get("document")
    document = inner if isinstance(inner, Mapping) else document
    metadata = content.plain(document.get("metadata"))
    metadata = metadata if isinstance(metadata, Mapping) else {}
    named = next((str(metadata[name]) for name in NAMED if metadata.get(name)), "")
    text = document.get("page_content", document.get("content", document.get("text")))
    return Source(
        id=str(document.get("id") or named or f"#{number}"),
        title=str(metadata.get("title") or named),
        score=real(document.get("score", metadata.get("score", metadata.get("similarity_score")))),
        text=text if isinstance(text, str) else "",
    )
