"""A PDF file becomes text, page by page; what is locked, damaged or empty says so."""

import io
from collections.abc import Sequence

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from watchkeeper.serving.passages import Unreadable, cut
from watchkeeper.serving.pdf import text_of


def made(pages: Sequence[Sequence[str]], title: str = "", password: str = "") -> bytes:
    """A PDF with these lines on its pages, in Helvetica."""
    writer = PdfWriter()
    font = DictionaryObject(
        {NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"),
         NameObject("/BaseFont"): NameObject("/Helvetica"), NameObject("/Encoding"): NameObject("/WinAnsiEncoding")}
    )  # fmt: skip
    fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
    for lines in pages:
        page = writer.add_blank_page(595, 842)
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        shown = " ".join(f"({line}) Tj T*".replace("\\", "") for line in lines)
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 14 TL 50 780 Td {shown} ET".encode("cp1252"))
        page[NameObject("/Contents")] = writer._add_object(stream)
    if title:
        writer.add_metadata({"/Title": title})
    if password:
        writer.encrypt(password)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_passages_say_their_page() -> None:
    body = made([["Annual leave is 28 days."], [], ["Dogs are welcome."]], title="Staff handbook")
    passages = cut("handbook.pdf", text_of(body, "handbook"))
    assert [(passage.title, passage.text) for passage in passages] == [
        ("Staff handbook > Page 1", "Annual leave is 28 days."),
        ("Staff handbook > Page 3", "Dogs are welcome."),
    ]


@pytest.mark.parametrize("title", ["", "untitled", "Microsoft Word - x", "draft.docx"])
def test_what_programs_write_is_no_title(title: str) -> None:
    assert text_of(made([["Text."]], title), "staff handbook").startswith("# staff handbook\n")


def test_running_heads_go_and_words_cut_at_a_line_are_joined() -> None:
    pages = [
        ["Brightwater Ltd", f"Chapter {n} is about man-", f"agement number {n}.", f"Page {n} of 4"] for n in range(1, 5)
    ]
    text = text_of(made(pages), "x")
    assert "Brightwater" not in text
    assert "of 4" not in text
    assert "Chapter 2 is about management number 2." in text


def test_a_line_that_looks_like_a_heading_is_none() -> None:
    passages = cut("x.pdf", text_of(made([["# 12 is the number"]], "T"), "x"))
    assert [passage.title for passage in passages] == ["T > Page 1"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is damaged"),
        (b"%PDF-1.7 and then nothing", "is damaged"),
        (made([["Text."]])[:300], "is damaged"),
        (made([[], []]), "has no text"),
        (made([["Secret."]], password="x"), "needs a password"),
    ],
)
def test_what_cannot_be_read_says_why(body: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        text_of(body, "x")


def test_a_file_that_only_restricts_printing_is_read() -> None:
    writer_body = made([["Annual leave is 28 days."]])
    writer = PdfWriter(clone_from=io.BytesIO(writer_body))
    writer.encrypt("", "owner")
    out = io.BytesIO()
    writer.write(out)
    assert "Annual leave is 28 days." in text_of(out.getvalue(), "x")
