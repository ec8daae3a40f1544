"""The rows that are whole in a torn SQLite file, page by page: SQLite itself gives a file up as soon as its tree is broken.

Reads the leaves of tables, and the pages on which long rows go on, in the file and in what its log has committed; of a page
that is there several times the newest. Knows the format (sqlite.org/fileformat.html) as far as segments use it: rowid
tables to which rows are added, UTF-8, no freed pages. What is not whole is left out; nothing here raises for what it reads.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PAGE: Final = 4096
LEAF: Final = 0x0D
HEADER: Final = 100
"""Bytes before the first page's own header."""

LOG_HEADER: Final = 32
FRAME_HEADER: Final = 24

Value = int | str | bytes | None


class Whole(NamedTuple):
    """A row of some table: its number, and its columns, where the number itself is None."""

    number: int
    values: tuple[Value, ...]


def rows(file: Path, log: Path) -> Iterator[Whole]:
    """Every whole row of every table; one that is there twice comes twice, the newest last. Raises `OSError`."""
    body = file.read_bytes()
    newest = dict(enumerate(_cut(body), start=1))
    older = list(newest.items())
    changed = _log(log.read_bytes()) if log.exists() else []
    newest.update(changed)
    for number, page in (*older, *changed):
        yield from _leaf(page, HEADER if number == 1 else 0, newest)


def _cut(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body) - PAGE + 1, PAGE):
        yield body[start : start + PAGE]


def _log(body: bytes) -> list[tuple[int, bytes]]:
    """The pages of a log up to its last commit. Its checksums are not held against it: rows show whether they are whole."""
    if len(body) < LOG_HEADER or struct.unpack_from(">I", body, 8)[0] != PAGE:
        return []
    salt = body[16:24]
    pages: list[tuple[int, bytes]] = []
    committed = 0
    for start in range(LOG_HEADER, len(body) - FRAME_HEADER - PAGE + 1, FRAME_HEADER + PAGE):
        number, commit = struct.unpack_from(">II", body, start)
        if body[start + 8 : start + 16] != salt:
            continue
        pages.append((number, body[start + FRAME_HEADER : start + FRAME_HEADER + PAGE]))
        if commit:
            committed = len(pages)
    return pages[:committed]


def _leaf(page: bytes, start: int, pages: dict[int, bytes]) -> Iterator[Whole]:
    if page[start] != LEAF:
        return
    (count,) = struct.unpack_from(">H", page, start + 3)
    for index in range(min(count, PAGE // 4)):
        try:
            (at,) = struct.unpack_from(">H", page, start + 8 + 2 * index)
            length, at = _varint(page, at)
            number, at = _varint(page, at)
            yield Whole(number, _columns(_payload(page, at, length, pages)))
        except (IndexError, ValueError, KeyError, struct.error):
            continue  # it is not whole


def _payload(page: bytes, at: int, length: int, pages: dict[int, bytes]) -> bytes:
    """A row's bytes, gathered from the pages on which it goes on. Raises `KeyError`, `ValueError`."""
    local = length
    if length > PAGE - 35:
        least = (PAGE - 12) * 32 // 255 - 23
        local = least + (length - least) % (PAGE - 4)
        local = least if local > PAGE - 35 else local
    parts = [page[at : at + local]]
    left = length - local
    if left:
        (more,) = struct.unpack_from(">I", page, at + local)
    while left > 0:
        following = pages[more]
        (more,) = struct.unpack_from(">I", following)
        parts.append(following[4 : 4 + left])
        left -= len(parts[-1])
    payload = b"".join(parts)
    if len(payload) != length:
        raise ValueError("cut off")
    return payload


def _columns(payload: bytes) -> tuple[Value, ...]:
    """Raises `ValueError`, `IndexError`."""
    end, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Value] = []
    for kind in kinds:
        size = _size(kind)
        part = payload[at : at + size]
        if len(part) != size:
            raise ValueError("cut off")
        values.append(_value(kind, part))
        at += size
    if at != len(payload):
        raise ValueError("not a row")
    return tuple(values)


def _size(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    return (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind]


def _value(kind: int, part: bytes) -> Value:
    if kind >= 12:
        return part.decode() if kind % 2 else part
    if kind in (8, 9):
        return kind - 8
    return int.from_bytes(part, "big", signed=True) if kind else None


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """A number of up to nine bytes, and where it ends. Raises `IndexError`."""
    value = 0
    for index in range(9):
        byte = body[at + index]
        if index == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    raise AssertionError("unreachable")
