"""An HTML page as Markdown: what a reader of the page would read of it, with its headings, lists, tables and code.

Navigation, forms, scripts and whatever the page hides are left out: hidden text is how instructions get into documents. A
stream of tags, not a tree: nothing nests too deeply, and what is left open ends with the page. Knows no style sheets.
"""

import codecs
import re
from html.parser import HTMLParser
from typing import Final

from watchkeeper.serving.passages import Unreadable

_VOID: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
)
_NEVER: Final = frozenset(
    {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas", "audio", "video", "select"}
)
_AROUND: Final = frozenset({"nav", "footer", "aside", "form", "dialog", "menu", "button"})
"""What stands around a page's own text; it is read where nothing else is there."""
_BLOCKS: Final = frozenset(
    {"address", "article", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption",
     "figure", "header", "hr", "html", "legend", "main", "ol", "p", "search", "section", "summary", "table", "tbody",
     "tfoot", "thead", "ul"}
)  # fmt: skip
_HEADINGS: Final = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_HIDING: Final = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden|(?:font-size|opacity)\s*:\s*0(?![.\d]))", re.I)
_CHARSET: Final = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{1,40})""", re.I)
_HEAD_BYTES: Final = 2_048
"""Within so many a page says its character set."""
_SPACE: Final = re.compile(r"[ \t\n\r\f\v\u00a0]+")


def text_of(body: bytes) -> str:
    """The page's text. Raises `Unreadable` where it has none or says no character set that fits."""
    page = _decoded(body)
    for left_out in (_NEVER | _AROUND, _NEVER):
        reader = _Page(left_out)
        reader.feed(page)
        reader.close()
        if text := reader.text():
            return text
    raise Unreadable("has no text")


def _decoded(body: bytes) -> str:
    for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if body.startswith(mark):
            return body.decode(name, "replace")
    said = _CHARSET.search(body, 0, _HEAD_BYTES)
    name = said[1].decode() if said else "utf-8"
    try:
        return body.decode(name)
    except LookupError:
        raise Unreadable(f"is in an unknown character set, {name}") from None
    except UnicodeDecodeError:
        raise Unreadable(f"is not {name}, as it says" if said else "is not UTF-8 and says no other character set") from None


class _Page(HTMLParser):
    """Gathers blocks of Markdown. `_skipped`: the element that is being left out, as often as it stands inside itself;
    `_prefix`: the mark of the block that is open."""

    def __init__(self, left_out: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self._left_out = left_out
        self._skipped: list[str] = []
        self._blocks: list[str] = []
        self._inline: list[str] = []
        self._prefix = ""
        self._row: list[str] | None = None
        self._rows = 0
        self._lists: list[int | None] = []
        self._code = 0
        self._title: list[str] | None = None
        self._head = ""
        self._headed = False

    def text(self) -> str:
        """What has been read; empty where the page had nothing to read."""
        self._end_block()
        text = re.sub(r"\n{3,}", "\n\n", "".join(self._blocks)).strip()
        return f"# {self._head}\n\n{text}" if text and self._head and not self._headed else text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipped:
            self._skipped += [tag] if tag == self._skipped[0] else []
        elif tag == "title" and not self._head:
            self._title = []
        elif tag not in _VOID and (tag in self._left_out or _hidden(dict(attrs))):
            self._skipped.append(tag)
        elif tag == "br":
            self._inline.append("\n" if self._code else " ")
        elif self._row is not None and tag in {"td", "th"}:
            self._end_cell()
        elif tag == "pre":
            self._end_block()
            self._code += 1
        else:
            self._open(tag)

    def _open(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._end_block()
            self._prefix = _HEADINGS[tag]
        elif tag in {"ul", "ol"}:
            self._end_block()
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "li":
            self._end_block()
            self._prefix = self._item()
        elif tag == "tr":
            self._end_block()
            self._row = []
        elif tag == "table":
            self._end_block()
            self._rows = 0
        elif tag in _BLOCKS and self._row is None:
            self._end_block()

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            if tag == self._skipped[0]:
                self._skipped.pop()
        elif tag == "title":
            self._head = self._head or _SPACE.sub(" ", "".join(self._title or [])).strip()
            self._title = None
        elif tag == "pre" and self._code:
            self._end_block()
            self._code -= 1
        elif tag in {"td", "th"}:
            self._end_cell()
        elif tag in {"tr", "table"}:
            self._end_row()
        elif tag in {"ul", "ol"} and self._lists:
            self._end_block()
            self._lists.pop()
            self._blocks.append("\n")
        elif tag in _HEADINGS or tag == "li":
            self._end_block()
            self._prefix = ""
        elif tag in _BLOCKS and self._row is None:
            self._end_block()

    def handle_data(self, data: str) -> None:
        if self._title is not None:
            self._title.append(data)
        elif not self._skipped:
            self._inline.append(data)

    def _item(self) -> str:
        if not self._lists or self._lists[-1] is None:
            return "- "
        self._lists[-1] += 1
        return f"{self._lists[-1]}. "

    def _end_block(self) -> None:
        if self._row is not None:
            self._end_row()
            return
        raw, self._inline = "".join(self._inline), []
        if not raw.strip():
            return  # a mark waits for its text: <li><p>
        prefix, self._prefix = self._prefix, ""
        text = _SPACE.sub(" ", raw).strip()
        if self._code:
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", raw)), default=0))
            self._blocks.append(f"\n\n{fence}\n{raw.strip(chr(10))}\n{fence}\n\n")
        elif prefix and prefix not in _HEADINGS.values():
            self._blocks.append(f"\n{prefix}{text}")
        else:
            self._headed = self._headed or prefix == "# "
            self._blocks.append(f"\n\n{prefix}{text}\n\n")

    def _end_cell(self) -> None:
        if self._row is None:  # a table for the layout, whose row ended with a block in it
            self._end_block()
            return
        text = _SPACE.sub(" ", "".join(self._inline)).strip().replace("|", "/")
        self._inline = []
        if text:
            self._row.append(text)

    def _end_row(self) -> None:
        self._end_cell()
        row, self._row = self._row, None
        if not row:
            return
        self._blocks.append(("\n\n" if self._rows == 0 else "\n") + f"| {' | '.join(row)} |")
        self._rows += 1
        if self._rows == 1 and len(row) > 1:
            self._blocks.append("\n|" + " --- |" * len(row))


def _hidden(attributes: dict[str, str | None]) -> bool:
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or _HIDING.search(attributes.get("style") or "") is not None
    )
