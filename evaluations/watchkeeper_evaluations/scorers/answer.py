"""What the scorers take for an answer: the text that somebody got to see. Blank text is none, nor is a withheld one."""

from typing import Final

import pyarrow as pa

COLUMNS: Final = ("output_text", "finish_reason")
"""What `answers` reads."""

WITHHELD: Final = "content_filter"
"""The finish reason of an answer that a guard blocked; its text is in the record all the same."""


def answers(batch: pa.Table) -> list[str | None]:
    """One a row: the answer, None where there is none or it was withheld."""
    texts, reasons = (batch.column(name).to_pylist() for name in COLUMNS)
    return [
        text if text and text.strip() and reason != WITHHELD else None for text, reason in zip(texts, reasons, strict=True)
    ]
