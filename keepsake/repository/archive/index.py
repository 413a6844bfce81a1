"""The index of an archive: what lies where, at the very end, where readers of tar.gz see nothing.

It stands in the extra fields of empty gzip members (RFC 1952, section 2.3.1.1), which every decompressor skips. The last one is of a
fixed size and says where the index begins. The bytes are described in ``docs/format.md``.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from keepsake.exceptions import ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

SECTION_BYTES = 8 << 20
"""How much of a file has a digest of its own, so that several threads can check one file: little enough to be shared out, and enough that
the index of an archive of 10 GB still comes with its trailer in one read."""

MIN_SECTION_BYTES = 1 << 20
"""Shortest section that is read, but for the last of a file: each costs the reading of a member."""

MIN_INDEX_LIMIT_BYTES = 1 << 20
MAX_INDEX_RATIO = 64
"""How much longer than itself an index may be when it is unpacked, beside what the length of the archive allows: the digests in it do not
shrink, and each member takes more of the archive than of the index. A small archive must not take gigabytes."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where a part of a file lies.

    Args:
        member: The number of the member.
        first: Its first position in what the member holds.
        last: Its last one.
        start: Where in the file it belongs.
    """

    member: int
    first: int
    last: int
    start: int


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
        section_bytes: How much of a file's content each digest is of, but for the last one.
        digests: The SHA-256 of each section of a file's content; None until it is known.
    """

    path: str
    kind: Kind
    size_bytes: int
    mode: int
    mtime: int
    member: int
    offset: int = 0
    link_target: str | None = None
    section_bytes: int = SECTION_BYTES
    digests: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.kind == "file" and not self.digests:
            self.digests = [None] * sections_of(self.size_bytes, self.section_bytes)

    @property
    def sha256(self) -> str | None:
        """The digest of the whole content; None where there are only those of its sections."""
        return self.digests[0] if len(self.digests) == 1 else None


def sections_of(size_bytes: int, section_bytes: int) -> int:
    """Return how many sections a file has: one at least, which is empty where the file is."""
    return max(1, -(-size_bytes // section_bytes))


@dataclass(slots=True)
class Index:
    """What lies where in an archive.

    Args:
        member_bytes: The length of each member.
        content_bytes: How much of the tar each member holds.
        rows: The entries, sorted by path.
        checksums: The CRC-32 of each member as it lies in the archive, by which a bit is found that means nothing to a reader; None until
            it is known, and empty where nobody has kept them.
    """

    member_bytes: list[int]
    content_bytes: list[int]
    rows: list[Row]
    checksums: list[int | None] = field(default_factory=list)

    @property
    def files(self) -> int:
        """How many files and links there are."""
        return sum(row.kind != "directory" for row in self.rows)

    def starts(self) -> list[int]:
        """Return where each member begins, and at last where they end."""
        return list(accumulate(self.member_bytes, initial=0))

    def parts(self, row: Row) -> Iterator[Part]:
        """Yield where a file's content lies, cut at the ends of members and of sections.

        Raises:
            ValueError: It does not lie in the archive.
        """
        start, first = 0, row.offset
        for number in range(row.member, len(self.content_bytes)):
            end = min(self.content_bytes[number], first + row.size_bytes - start)
            if start == row.size_bytes or end < first:
                break
            while first < end:
                last = min(end, first + row.section_bytes - start % row.section_bytes)
                yield Part(number, first, last, start)
                start, first = start + last - first, last
            first = 0
        if start < row.size_bytes:
            raise ValueError(f"{row.path!r} does not lie in the archive")

    def to_json(self) -> bytes:
        """Return the index as it is written, before it is packed."""
        rows = [
            {"path": r.path, "kind": r.kind, "size": r.size_bytes, "mode": r.mode, "mtime": r.mtime}
            | {"member": r.member, "offset": r.offset}
            | ({"target": r.link_target} if r.kind == "link" else {})
            | ({"sha256": r.sha256} if r.sha256 is not None else {})
            | ({"sections": {"size": r.section_bytes, "sha256": r.digests}} if len(r.digests) > 1 else {})
            for r in self.rows
        ]
        members: dict[str, Any] = {"lengths": self.member_bytes, "contents": self.content_bytes}
        members |= {"crc32": self.checksums} if self.checksums else {}
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
            checksums = raw["members"].get("crc32", [])
        except (KeyError, TypeError, AttributeError, RecursionError) as err:
            raise ValueError(f"the index makes no sense: {type(err).__name__} {err}") from err
        if len(lengths) != len(contents):
            raise ValueError("the index has members without a length")
        if not isinstance(checksums, list) or len(checksums) not in (0, len(lengths)):
            raise ValueError("the index has not one checksum for each member")
        _counts([checksum for checksum in checksums if checksum is not None])
        return cls(lengths, contents, rows, checksums)


def _row(item: dict[str, Any]) -> Row:
    kind = item["kind"]
    if kind not in ("file", "directory", "link"):
        raise ValueError("an entry of unknown kind")
    path, target = item["path"], item.get("target")
    if not isinstance(path, str) or not isinstance(target, str | None):
        raise ValueError("a path that is no text")
    if (kind == "link") != (target is not None):
        raise ValueError("a link without a target")
    size, mode, mtime, member, offset = _counts([item[name] for name in ("size", "mode", "mtime", "member", "offset")])
    section_bytes, digests = _sections(item, size) if kind == "file" else (SECTION_BYTES, [])
    return Row(path, kind, size, mode, mtime, member, offset, target, section_bytes, digests)


def _sections(item: dict[str, Any], size_bytes: int) -> tuple[int, list[str | None]]:
    """Return how long a file's sections are, and their digests: one is as long as the file where that has a digest of its own."""
    sections = item.get("sections", {"size": max(size_bytes, MIN_SECTION_BYTES), "sha256": [item.get("sha256")]})
    [section_bytes], digests = _counts([sections["size"]]), sections["sha256"]
    if not isinstance(digests, list) or not all(isinstance(digest, str | None) for digest in digests):
        raise ValueError("a digest that is no text")
    if section_bytes < MIN_SECTION_BYTES or len(digests) != sections_of(size_bytes, section_bytes):
        raise ValueError("sections that make no sense")
    return section_bytes, digests


def _counts(values: Any) -> list[int]:
    # As three passes without a step in Python: an index holds some thousand numbers.
    if (
        not isinstance(values, list)
        or not set(map(type, values)) <= {int}
        or (values and not 0 <= min(values) <= max(values) < 1 << 62)
    ):
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

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> bool:
        """Fill buffers, one after the other, from a position on; return False where it ends before, or cannot do that."""
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
    if len(member) < TRAILER_BYTES or not member.startswith(begin) or not member.endswith(_EMPTY_DEFLATE + _EMPTY_TAIL):
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
        end = begin + 6 + payload_bytes
        position = end + len(_EMPTY_DEFLATE) + len(_EMPTY_TAIL)
        if parts[end:position] != _EMPTY_DEFLATE + _EMPTY_TAIL:
            raise ValueError("a part of it does not end where it must")
        yield parts[begin + 6 : end]
