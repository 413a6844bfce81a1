"""Gzip members: how a piece of the tar becomes a member of its own, and the other way round.

Each member is a whole gzip stream (RFC 1952), and gzip streams one after the other are one, so every reader of tar.gz reads them;
but they can be made and read in any order and by several threads.
"""

from __future__ import annotations

import zlib
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


def encoded(
    content: memoryview, *, compress: bool | None = None, with_checksum: bool = True
) -> tuple[Sequence[bytes | memoryview], int, bool]:
    """Return a member as buffers to be written one after the other, its length, and whether it is compressed.

    The buffers refer to the content. It is only looked at to compress it or for its checksum.

    Args:
        content: What it is to hold.
        compress: Whether to try to compress it; a sample from its middle decides if not given.
        with_checksum: False for zeros in place of the checksum if it is stored, until somebody puts `tail` there.
    """
    if compress is None:
        middle = max(0, (len(content) - SAMPLE_BYTES) // 2)
        compress = shrinks(content[middle : middle + SAMPLE_BYTES])
    if len(content) and compress:
        compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, _RAW)
        packed = compressor.compress(content) + compressor.flush()
        if len(packed) < len(content):
            return [_HEADER, packed, tail([content])], len(_HEADER) + len(packed) + TAIL_BYTES, True
    buffers = [_HEADER, *_stored_blocks(content), tail([content]) if with_checksum else bytes(TAIL_BYTES)]
    return buffers, stored_size(len(content)), False


def stored_size(content_bytes: int) -> int:
    """Return the length of a member that holds so much without compressing it."""
    return len(_HEADER) + 5 * max(1, -(-content_bytes // _BLOCK_BYTES)) + content_bytes + TAIL_BYTES


def shrinks(sample: memoryview) -> bool:
    """Tell whether a sample shrinks so much that what it stands for is worth compressing."""
    return len(isal_zlib.compress(sample, LEVEL)) <= WORTH_COMPRESSING * len(sample)


def _stored_blocks(content: memoryview) -> list[bytes | memoryview]:
    """Return headers and contents of stored blocks (RFC 1951, section 3.2.4)."""
    blocks: list[bytes | memoryview] = []
    last = max(0, len(content) - 1) // _BLOCK_BYTES * _BLOCK_BYTES
    for start in range(0, last, _BLOCK_BYTES):
        blocks += (_FULL_BLOCK, content[start : start + _BLOCK_BYTES])
    return [*blocks, _stored_header(len(content) - last, is_last=True), content[last:]]


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
