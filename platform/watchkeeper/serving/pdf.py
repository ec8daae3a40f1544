"""A PDF file as Markdown: each page a section of its own, so that a passage's title says the page. The one import of pypdf.

Lines that stand at the head or foot of most pages are left out, words cut by a line's end are joined. Does not recognise
scanned pages, and reads columns in the order in which the file has them.
"""

import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError

from watchkeeper.serving.passages import Unreadable

MAX_PAGES: Final = 3_000
_HYPHENATED: Final = re.compile(r"(?<=[^\W\d_])[-\u00ad\u2010]\n(?=[a-zß-öø-ÿ])")
_UNSPACED_BREAK: Final = re.compile(r"(?<=[\u3040-\u30ff\u3400-\u9fff])\n(?=[\u3040-\u30ff\u3400-\u9fff])")
_NO_TITLE: Final = re.compile(r"|untitled.*|microsoft .*|\S*\.(?:docx?|pptx?|xlsx?|odt|indd|tex|dvi|qxd|pdf)", re.I)
"""What programs write where nobody gave a title."""
_DIGITS: Final = re.compile(r"\d+")
_LEAST_REPEATED: Final = 3
"""Pages that have a line alike, at the least, before it is taken for a header or a footer."""


def text_of(body: bytes, name: str) -> str:
    """The file's text under its title, or `name`. Raises `Unreadable` where it is locked, damaged or has none."""
    try:
        reader = PdfReader(io.BytesIO(body), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("needs a password")
        if len(reader.pages) > MAX_PAGES:
            raise Unreadable(f"has more than {MAX_PAGES} pages")
        pages = [_lines(page.extract_text()) for page in reader.pages]
        title = reader.metadata.title if reader.metadata else None
    except (FileNotDecryptedError, DependencyError):
        raise Unreadable("needs a password") from None
    except PyPdfError as error:
        raise Unreadable(f"is damaged: {error}") from None
    sections = [
        f"## Page {number}\n\n{text}" for number, lines in enumerate(_bare(pages), start=1) if (text := _flowing(lines))
    ]
    if not sections:
        raise Unreadable("has no text; scanned pages have to be recognised first")
    said = " ".join(title.split()) if isinstance(title, str) else ""
    return "\n\n".join([f"# {name if _NO_TITLE.fullmatch(said) else said}", *sections])


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\0", "").splitlines() if line.strip()]


def _bare(pages: Sequence[list[str]]) -> list[list[str]]:
    """The pages without the first and last lines that most of them have, numbers aside."""
    edges = Counter(alike for lines in pages for alike in {_alike(line) for line in (lines[:1] + lines[-1:])})
    least = max(_LEAST_REPEATED, len(pages) // 2)
    bare = []
    for lines in pages:
        start = 1 if lines and edges[_alike(lines[0])] >= least else 0
        end = len(lines) - 1 if len(lines) > start and edges[_alike(lines[-1])] >= least else len(lines)
        bare.append(lines[start:end])
    return bare


def _alike(line: str) -> str:
    return _DIGITS.sub("0", line.strip())


def _flowing(lines: Sequence[str]) -> str:
    """Lines as prose. What looks like a mark of Markdown at a line's beginning is none in a PDF."""
    text = "\n".join(line.replace("#", "\\#", 1) if line.lstrip().startswith("#") else line for line in lines)
    return _UNSPACED_BREAK.sub("", _HYPHENATED.sub("", text)).strip()
