"""Gzip members: how a piece of the tar becomes a member of its own, and the other way round.

Each member is a whole gzip stream (RFC 1952), and gzip streams one after the other are one, so every reader of tar.gz reads them;
but they can be made and read in any order and by several threads.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


MEMBER_BYTES = 1 << 20
"""How much of a large file goes into one member: what stays in a processor's cache between reading, checking and writing it. Members of
4 MiB took two to four times as long."""

LEVEL = 1
"""isal's level 1: some 25 times as fast as the standard library's default, at the same size for weights."""

WORTH_COMPRESSING = 0.75
"""What does not shrink to this part of itself is stored: to read it back compressed takes ten times as long. Weights of 32 bits shrink
to 0.92 and those of 16 bits to 0.78."""

SAMPLE_BYTES = 1 << 14
"""How much is compressed to find out whether the rest is worth it."""

_BLOCK_BYTES = 65_535
"""The longest stored block (RFC 1951, section 3.2.4)."""

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""A member's header: deflate, no flags, no time, system unknown (RFC 1952, section 2.3)."""

TAIL_BYTES = 8
"""CRC-32 and length at the end of a member."""

_RAW = -15
"""zlib's ``wbits`` for deflate without a wrapper, in the largest window."""


def encoded(content: memoryview) -> Sequence[bytes | memoryview]:
    """Return a member as buffers to be written one after the other; a sample from its middle decides whether it is compressed.

    Args:
        content: What it is to hold; the buffers may refer to it.
    """
    middle = max(0, (len(content) - SAMPLE_BYTES) // 2)
    is_worth_it = shrinks(content[middle : middle + SAMPLE_BYTES])
    return (compressed(content) if is_worth_it else None) or stored(content)


def compressed(content: memoryview) -> Sequence[bytes] | None:
    """Return a member as buffers to be written one after the other; None if it would be longer than what it holds.

    Args:
        content: What it is to hold.
    """
    compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, _RAW)
    packed = compressor.compress(content) + compressor.flush()
    return [_HEADER, packed, tail([content])] if len(packed) < len(content) else None


def stored(content: memoryview) -> Sequence[bytes | memoryview]:
    """Return a member that is not compressed, as buffers to be written one after the other.

    Args:
        content: What it is to hold; the buffers are parts of it.
    """
    return [_HEADER, *_stored_blocks(content), tail([content])]


@lru_cache(maxsize=16)
def stored_around(length: int, zeros: int) -> Sequence[tuple[bytes, int]]:
    """Return what some members that are not compressed have around what they hold, which comes from a file.

    Instead of their `tail` they have zeros at first.

    Args:
        length: How much comes from the file.
        zeros: How many zeros follow in what the last one holds.

    Returns:
        What comes before each part of the file, and how long the part is; the last is empty.
    """
    around, before = [], b""
    for content_bytes in stored_members(length, zeros):
        before += _HEADER
        for header, start, end in _blocks(content_bytes):
            before += header
            if in_file := min(end - start, length):
                around.append((before, in_file))
                before = b""
                length -= in_file
            before += bytes(end - start - in_file)
        before += bytes(TAIL_BYTES)
    return [*around, (before, 0)]


def stored_members(length: int, zeros: int) -> Sequence[int]:
    """Return how much each of these members holds."""
    full, last = divmod(length, MEMBER_BYTES)
    contents = [MEMBER_BYTES] * full + [last] * bool(last)
    contents[-1] += zeros
    return contents


def stored_size(content_bytes: int) -> int:
    """Return the length of a member that holds so much without compressing it."""
    return len(_HEADER) + 5 * max(1, -(-content_bytes // _BLOCK_BYTES)) + content_bytes + TAIL_BYTES


def shrinks(sample: memoryview) -> bool:
    """Tell whether a sample shrinks so much that what it stands for is worth compressing."""
    return len(isal_zlib.compress(sample, LEVEL)) <= WORTH_COMPRESSING * len(sample)


def _stored_blocks(content: memoryview) -> list[bytes | memoryview]:
    """Return headers and contents of stored blocks."""
    return [buffer for header, start, end in _blocks(len(content)) for buffer in (header, content[start:end])]


def _blocks(content_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the header of each stored block (RFC 1951, section 3.2.4), and where what it holds begins and ends."""
    last = max(0, content_bytes - 1) // _BLOCK_BYTES * _BLOCK_BYTES
    for start in range(0, last, _BLOCK_BYTES):
        yield _FULL_BLOCK, start, start + _BLOCK_BYTES
    yield _stored_header(content_bytes - last, is_last=True), last, content_bytes


def _stored_header(length: int, *, is_last: bool) -> bytes:
    return bytes([is_last]) + length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little")


_FULL_BLOCK = _stored_header(_BLOCK_BYTES, is_last=False)


def tail(held: Sequence[memoryview]) -> bytes:
    """Return what a member ends with: checksum and length of what it holds (RFC 1952, section 2.3.1).

    Args:
        held: What it holds, in parts.
    """
    return checksum(held).to_bytes(4, "little") + (sum(map(len, held)) & 0xFFFFFFFF).to_bytes(4, "little")


def checksum(buffers: Iterable[bytes | memoryview], begun: int = 0) -> int:
    """Return the CRC-32 of buffers one after the other, behind those that it was begun with."""
    for buffer in buffers:
        begun = isal_zlib.crc32(buffer, begun)
    return begun


def decoded(member: memoryview, content_bytes: int) -> list[memoryview]:
    """Return what a member holds, in parts.

    Args:
        member: One whole member, as `encoded` makes them.
        content_bytes: How much it must hold; never more memory is taken.

    Raises:
        ValueError: It is not such a member.
    """
    if bytes(member[: len(_HEADER)]) != _HEADER or len(member) < len(_HEADER) + 5 + TAIL_BYTES:
        raise ValueError("no gzip member")
    body = member[len(_HEADER) : -TAIL_BYTES]
    parts = _unstored(body) if body[0] in (0, 1) else None
    if parts is None:
        parts = [memoryview(_inflated(body, content_bytes))]
    if sum(map(len, parts)) != content_bytes:
        raise ValueError("a member of another length than the index says")
    return parts


def read_stored(content: memoryview, read_into: Callable[[Sequence[memoryview]], bool]) -> bool:
    """Read a stored member so that what it holds lies in one piece; return whether it is one.

    So it is digested and written in one piece, too: a thread has to wait for the interpreter after each.

    Args:
        content: Takes what it holds.
        read_into: Fills buffers, one after the other, with the member's bytes; returns False where that cannot be.
    """
    expected = [_HEADER, *_stored_blocks(content)]
    buffers = [buffer if isinstance(buffer, memoryview) else memoryview(bytearray(len(buffer))) for buffer in expected]
    if not read_into([*buffers, memoryview(bytearray(TAIL_BYTES))]):
        return False
    return all(buffer is known or buffer == known for buffer, known in zip(buffers, expected, strict=True))


def _unstored(body: memoryview) -> list[memoryview] | None:
    """Return the contents of stored blocks without copying them; None where there are other blocks."""
    parts: list[memoryview] = []
    position, is_last = 0, False
    while not is_last:
        if position + 5 > len(body) or body[position] not in (0, 1):
            return None
        is_last = body[position] == 1
        length = int.from_bytes(body[position + 1 : position + 3], "little")
        if length ^ 0xFFFF != int.from_bytes(body[position + 3 : position + 5], "little"):
            raise ValueError("a damaged block")
        parts.append(body[position + 5 : position + 5 + length])
        if len(parts[-1]) != length:
            raise ValueError("a block that is cut short")
        position += 5 + length
    return parts


def _inflated(body: memoryview, content_bytes: int) -> bytes:
    decompressor = isal_zlib.decompressobj(_RAW)
    try:
        content: bytes = decompressor.decompress(body, content_bytes + 1)
    except (zlib.error, cast("type[Exception]", isal_zlib.error)) as err:
        raise ValueError(str(err)) from err
    return content


def sliced(parts: Sequence[memoryview], first: int, last: int) -> Iterator[memoryview]:
    """Yield what lies between two positions of a member's content, without copying it.

    Args:
        parts: The content, as `decoded` gives it.
        first: Where it begins.
        last: Where it ends.
    """
    position = 0
    for part in parts:
        piece = part[max(0, first - position) : max(0, last - position)]
        if piece:
            yield piece
        position += len(part)
