"""The index of an archive: what lies where, at the very end, where readers of tar.gz see nothing.

It stands in the extra fields of empty gzip members (RFC 1952, section 2.3.1.1), which every decompressor skips. The last one is of a
fixed size and says where the index begins. The bytes are described in ``docs/format.md``.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from keepsake.exceptions import ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind: TypeAlias = Literal["file", "directory", "link"]

VERSION = 1

_PART_ID = b"KI"
_TRAILER_ID = b"KT"
_EMPTY_DEFLATE = b"\x03\x00"
_EMPTY_TAIL = bytes(8)
_EXTRA_HEADER = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"
"""A member's header whose flags say that an extra field follows."""

_PART_BYTES = 65_000
"""How much of the index goes into one member; an extra field holds less than 65,536 bytes."""

_TRAILER = struct.Struct("<HQQ32s")
"""Version, position of the index, its length without the trailer, and its SHA-256."""

TRAILER_BYTES = len(_EXTRA_HEADER) + 2 + 4 + _TRAILER.size + len(_EMPTY_DEFLATE) + len(_EMPTY_TAIL)
TAIL_BYTES = 1 << 16
"""How much of an archive's end is read at once: the trailer, and with it most indexes."""

MIN_INDEX_LIMIT_BYTES = 1 << 20
MAX_INDEX_RATIO = 64
"""How much longer than itself an index may be when it is unpacked, beside what the length of the archive allows: the digests in it do not
shrink, and each member takes more of the archive than of the index. A small archive must not take gigabytes."""


@dataclass(slots=True)
class Row:
    """What the index says of one entry.

    Args:
        path: Its path without the ID in front.
        kind: What it is.
        size_bytes: Its length; 0 for directories and links.
        mode: Permission bits.
        mtime: When it was last changed, in whole seconds since 1970.
        member: The number of the member that its content begins in.
        offset: Where in that member's content it begins; it goes on at the beginning of the next.
        link_target: Where a link points to.
        sha256: The digest of a file's content; None until it is known.
    """

    path: str
    kind: Kind
    size_bytes: int
    mode: int
    mtime: int
    member: int
    offset: int = 0
    link_target: str | None = None
    sha256: str | None = None


@dataclass(slots=True)
class Index:
    """What lies where in an archive.

    Args:
        member_bytes: The length of each member.
        content_bytes: How much of the tar each member holds.
        rows: The entries, sorted by path.
    """

    member_bytes: list[int]
    content_bytes: list[int]
    rows: list[Row]

    @property
    def files(self) -> int:
        """How many files and links there are."""
        return sum(row.kind != "directory" for row in self.rows)

    def starts(self) -> list[int]:
        """Return where each member begins, and at last where they end."""
        return list(accumulate(self.member_bytes, initial=0))

    def parts(self, row: Row) -> Iterator[tuple[int, int, int]]:
        """Yield where a file's content lies: the number of a member, and the first and last position in what it holds.

        Raises:
            ValueError: It does not lie in the archive.
        """
        left, first = row.size_bytes, row.offset
        for number in range(row.member, len(self.content_bytes)):
            if not left:
                return
            last = min(self.content_bytes[number], first + left)
            if last < first:
                break
            yield number, first, last
            left, first = left - (last - first), 0
        if left:
            raise ValueError(f"{row.path!r} does not lie in the archive")

    def to_json(self) -> bytes:
        """Return the index as it is written, before it is packed."""
        rows = [
            {"path": r.path, "kind": r.kind, "size": r.size_bytes, "mode": r.mode, "mtime": r.mtime}
            | {"member": r.member, "offset": r.offset}
            | ({"target": r.link_target} if r.kind == "link" else {})
            | ({"sha256": r.sha256} if r.sha256 is not None else {})
            for r in self.rows
        ]
        members = {"lengths": self.member_bytes, "contents": self.content_bytes}
        # ASCII, because names may hold bytes that are not Unicode.
        return json.dumps({"members": members, "files": rows}, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, content: bytes) -> Index:
        """Read an index.

        Raises:
            ValueError: It is not one. What it claims is not checked against the archive.
        """
        try:
            raw = json.loads(content)
            lengths, contents = _counts(raw["members"]["lengths"]), _counts(raw["members"]["contents"])
            rows = [_row(item) for item in raw["files"]]
        except (KeyError, TypeError, AttributeError, RecursionError) as err:
            raise ValueError(f"the index makes no sense: {type(err).__name__} {err}") from err
        if len(lengths) != len(contents):
            raise ValueError("the index has members without a length")
        return cls(lengths, contents, rows)


def _row(item: dict[str, Any]) -> Row:
    kind = item["kind"]
    if kind not in ("file", "directory", "link"):
        raise ValueError("an entry of unknown kind")
    path, target, digest = item["path"], item.get("target"), item.get("sha256")
    if not isinstance(path, str) or not isinstance(target, str | None) or not isinstance(digest, str | None):
        raise ValueError("a path that is no text")
    if (kind == "link") != (target is not None):
        raise ValueError("a link without a target")
    size, mode, mtime, member, offset = _counts([item[name] for name in ("size", "mode", "mtime", "member", "offset")])
    return Row(path, kind, size, mode, mtime, member, offset, target, digest)


def _counts(values: Any) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 1 << 62 for value in values):
        raise ValueError("a number that makes no sense")
    return values


# --- at the end of an archive ---------------------------------------------------------------------------------------


def packed(index: Index, start: int) -> tuple[bytes, str]:
    """Return the members that hold an index, the trailer included, and the index's digest.

    Args:
        index: The index.
        start: Where in the archive they will lie.
    """
    content = zlib.compress(index.to_json(), 6)
    parts = b"".join(
        _empty_member(_PART_ID, content[position : position + _PART_BYTES]) for position in range(0, len(content), _PART_BYTES)
    )
    digest = hashlib.sha256(content).digest()
    return parts + _empty_member(_TRAILER_ID, _TRAILER.pack(VERSION, start, len(parts), digest)), digest.hex()


def _empty_member(id: bytes, payload: bytes) -> bytes:
    field = id + struct.pack("<H", len(payload)) + payload
    return _EXTRA_HEADER + struct.pack("<H", len(field)) + field + _EMPTY_DEFLATE + _EMPTY_TAIL


class Ranges(Protocol):
    """What can be read in parts."""

    @property
    def size_bytes(self) -> int:
        """Its length."""
        ...

    @property
    def is_far(self) -> bool:
        """Whether most of the time goes by on the way to it."""
        ...

    def read_range(self, start: int, length: int) -> bytes:
        """Return a part, less only where it ends before."""
        ...


def read(source: Ranges, where: str) -> tuple[Index, str] | None:
    """Return an archive's index and its digest; None if it has none.

    Args:
        source: The archive.
        where: What to call it in errors.

    Raises:
        ReadError: It has one, which is damaged.
    """
    tail_start = max(0, source.size_bytes - TAIL_BYTES)
    tail = source.read_range(tail_start, TAIL_BYTES)
    if tail_start + len(tail) != source.size_bytes:
        raise ReadError(f"{where} was cut short while it was read")
    trailer = _trailer(tail)
    if trailer is None:
        return None
    version, start, length, digest = trailer
    if version != VERSION:
        # Of a newer keepsake: the archive itself is readable all the same.
        return None
    if start + length + TRAILER_BYTES != source.size_bytes:
        raise ReadError(f"{where} is damaged: it has another length than its index says")
    parts = tail[start - tail_start : start - tail_start + length] if start >= tail_start else source.read_range(start, length)
    try:
        content = b"".join(_payloads(parts))
        if len(parts) != length or hashlib.sha256(content).digest() != digest:
            raise ValueError("its digest is another")
        unpacked = zlib.decompressobj()
        text = unpacked.decompress(content, MIN_INDEX_LIMIT_BYTES + MAX_INDEX_RATIO * len(content) + source.size_bytes)
        if not unpacked.eof:
            raise ValueError("it is too long")
        index = Index.from_json(text)
    except (ValueError, zlib.error, struct.error) as err:
        raise ReadError(f"{where} is damaged: its index: {err}") from err
    if sum(index.member_bytes) != start:
        raise ReadError(f"{where} is damaged: its index is about another archive")
    return index, digest.hex()


def _trailer(tail: bytes) -> tuple[int, int, int, bytes] | None:
    member = tail[-TRAILER_BYTES:]
    begin = _EXTRA_HEADER + struct.pack("<H", 4 + _TRAILER.size) + _TRAILER_ID + struct.pack("<H", _TRAILER.size)
    if len(member) < TRAILER_BYTES or not member.startswith(begin):
        return None
    version, start, length, digest = _TRAILER.unpack_from(member, len(begin))
    return version, start, length, digest


def _payloads(parts: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(parts):
        begin = position + len(_EXTRA_HEADER)
        (field_bytes,) = struct.unpack_from("<H", parts, begin)
        id, (payload_bytes,) = parts[begin + 2 : begin + 4], struct.unpack_from("<H", parts, begin + 4)
        if parts[position:begin] != _EXTRA_HEADER or id != _PART_ID or field_bytes != payload_bytes + 4:
            raise ValueError("a part of it is not where it must be")
        yield parts[begin + 6 : begin + 6 + payload_bytes]
        position = begin + 6 + payload_bytes + len(_EMPTY_DEFLATE) + len(_EMPTY_TAIL)
