"""The file format of a segment: one file of frames, only ever added to, and at its beginning how much of it counts.

    birth         a frame: who the segment is, and the numbers that it follows on
    mark          up to which byte the file counts. It moves once what stands before it is written (and on the disk, where
                  power may fail), so nobody reads what is half written, or was taken back
    frames        each a head, with a checksum of its own, and a body, whose checksum the head holds

A body is erased where it stands: one byte of its head, which no checksum covers, says so, and then it is zeros. The first
byte of every head occurs in no UTF-8: no text that somebody sends passes for a frame when a torn file is searched. Knows
nothing of what bodies are, nor of workers. Standard library only.
"""

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar
from zlib import crc32

MAGIC: Final = b"\xf5WK1"
_CHECKED: Final = struct.Struct("<4sBIIqq16s")
"""Of a head: magic, kind, length and checksum of the body, sequence, time, name."""
_REST: Final = struct.Struct("<IB")
"""... and the checksum of that, and whether the body is whole or erased."""
_MARK: Final = struct.Struct("<QI")
HEAD_BYTES: Final = _CHECKED.size + _REST.size
START: Final = HEAD_BYTES + _MARK.size
"""Where the frames begin."""

BIRTH: Final = ord("b")
"""`name`: the segment's uid; `sequence`, `at`: the last accept and the last row before it."""
MENDED: Final = ord("m")
"""As `BIRTH`, of a segment that was made of what was whole in a torn one."""
ACCEPT: Final = ord("a")
RECORD: Final = ord("r")
FEEDBACK: Final = ord("f")
SEAL: Final = ord("s")
"""The last frame of a segment that is ended. `name`: its uid; `sequence`, `at`: its last accept and its last row."""
KINDS: Final = frozenset({BIRTH, MENDED, ACCEPT, RECORD, FEEDBACK, SEAL})

_WHOLE: Final = ord("w")
_ERASED: Final = ord("e")
_CHUNK: Final = 1 << 17
"""Bytes that are read at once while heads are looked through."""
_LOOKS: Final = 5
_LOOK_S: Final = 0.002
"""How often it is read again, and after how long, what somebody may be writing just now."""

T = TypeVar("T")


class Torn(Exception):
    """What stands in the file is not whole; the message is one line."""


class Head(NamedTuple):
    """`at`: µs since the epoch; `name`: 32 hexadecimal digits; `length`: bytes of the body, `checksum` its CRC-32;
    `offset`: where the frame begins."""

    kind: int
    sequence: int
    at: int
    name: str
    length: int
    checksum: int
    erased: bool
    offset: int

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + HEAD_BYTES + self.length


def frame(kind: int, sequence: int, at: int, name: str, body: bytes = b"", *, erased: bool = False) -> bytes:
    """A frame as it is written."""
    checked = _CHECKED.pack(MAGIC, kind, len(body), crc32(body), sequence, at, bytes.fromhex(name))
    return checked + _REST.pack(crc32(checked), _ERASED if erased else _WHOLE) + body


def mark(end: int) -> bytes:
    """What stands at `HEAD_BYTES` when the file counts up to `end`."""
    return _MARK.pack(end, crc32(end.to_bytes(8, "little")))


def marked(descriptor: int) -> int:
    """Up to which byte the file counts. Raises `Torn` where it does not say, or is shorter."""
    end = _settled(lambda: _marked(descriptor))
    if os.fstat(descriptor).st_size < end:
        raise Torn("its end is cut off")
    return end


def _marked(descriptor: int) -> int:
    found = os.pread(descriptor, _MARK.size, HEAD_BYTES)
    if len(found) < _MARK.size:
        raise Torn("its beginning is cut off")
    end, checksum = _MARK.unpack(found)
    if crc32(found[:8]) != checksum or end < START:
        raise Torn("it does not say how much of it counts")
    return int(end)


def head(descriptor: int, offset: int) -> Head:
    """The head that stands there. Raises `Torn`."""
    return _head(os.pread(descriptor, HEAD_BYTES, offset), 0, offset)


def heads(descriptor: int, start: int, end: int) -> Iterator[Head]:
    """The heads from one byte to another, where frames begin and end; bodies are passed over. Raises `Torn`."""
    offset, base, chunk = start, start, b""
    while offset < end:
        if offset + HEAD_BYTES > base + len(chunk):
            base, chunk = offset, os.pread(descriptor, _CHUNK, offset)
        found = _head(chunk, offset - base, offset)
        if found.end > end:
            raise Torn(f"at {offset}: a frame goes on where the file ends")
        yield found
        offset = found.end


def whole_until(descriptor: int, start: int) -> int:
    """Up to which byte frames are whole, from one on at which a frame may begin."""
    end, size = start, os.fstat(descriptor).st_size
    with contextlib.suppress(Torn):
        for found in heads(descriptor, start, size):
            body(descriptor, found)
            end = found.end
    return end


def body(descriptor: int, of: Head) -> bytes | None:
    """A frame's body; None: it is erased. Raises `Torn`."""
    return None if of.erased else _settled(lambda: _body(descriptor, of))


def _body(descriptor: int, of: Head) -> bytes | None:
    found = os.pread(descriptor, of.length, of.offset + HEAD_BYTES)
    if len(found) == of.length and crc32(found) == of.checksum:
        return found
    if head(descriptor, of.offset).erased:  # since its head was read
        return None
    raise Torn(f"at {of.offset}: a body is not what it was")


def _settled(read: Callable[[], T]) -> T:
    """What is read, once nobody is in the midst of writing it. Raises `Torn` where that is not why it is not whole."""
    for _ in range(_LOOKS):
        try:
            return read()
        except Torn:
            time.sleep(_LOOK_S)
    return read()


def erase(descriptor: int, some: Sequence[Head]) -> int:
    """Takes bodies away, also where that was cut off before; on the disk when it returns. For how many there was anything
    to take."""
    meant = [of for of in some if not of.erased or any(os.pread(descriptor, of.length, of.offset + HEAD_BYTES))]
    for of in meant:
        put(descriptor, bytes([_ERASED]), of.offset + HEAD_BYTES - 1)
    os.fdatasync(descriptor)  # first: who finds zeros looks at the head again, and they are meant
    for of in meant:
        put(descriptor, bytes(of.length), of.offset + HEAD_BYTES)
    os.fdatasync(descriptor)
    return len(meant)


def put(descriptor: int, data: bytes, at: int) -> None:
    """Writes all of it: a disk that is nearly full takes a part. Raises `OSError`."""
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:] if done else data, at + done)


def whole(data: bytes) -> Iterator[tuple[Head, bytes | None]]:
    """Every frame that is whole, and its body, in bytes of which some may be damaged or missing."""
    at = data.find(MAGIC)
    while at >= 0:
        following = at + 1
        try:
            found = _head(data, at, at)
        except Torn:
            pass
        else:
            text = data[at + HEAD_BYTES : found.end]
            if len(text) == found.length and (found.erased or crc32(text) == found.checksum):
                yield found, None if found.erased else text
                following = found.end
        at = data.find(MAGIC, following)


def _head(data: bytes, at: int, offset: int) -> Head:
    if len(data) - at < HEAD_BYTES:
        raise Torn(f"at {offset}: a head is cut off")
    magic, kind, length, checksum, sequence, time_, name = _CHECKED.unpack_from(data, at)
    own, state = _REST.unpack_from(data, at + _CHECKED.size)
    right = magic == MAGIC and crc32(data[at : at + _CHECKED.size]) == own
    if not right or kind not in KINDS or state not in (_WHOLE, _ERASED):
        raise Torn(f"at {offset}: there is no head")
    return Head(kind, sequence, time_, name.hex(), length, checksum, state == _ERASED, offset)
