"""An archive is read by its index in few ranges, written in steps that may be interrupted, and its index is not trusted either."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import os
import random
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.capture.files import FileEntry, project_files
from keepsake.exceptions import DoesNotExist, ReadError
from keepsake.repository import archive
from keepsake.repository.archive import index, members, unpacking
from keepsake.repository.archive.index import Index
from keepsake.repository.archive.members import MEMBER_BYTES
from keepsake.repository.archive.threads import MAX_THREADS
from keepsake.repository.records import ArchiveInfo

ID = "cd" * 32


class Ranges:
    """An archive in memory that counts how it is read."""

    def __init__(self, content: bytes, *, is_far: bool = False) -> None:
        self.content = content
        self.is_far = is_far
        self.calls: list[tuple[int, int]] = []
        self.opened = 0

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def read_range(self, start: int, length: int) -> bytes:
        self.calls.append((start, length))
        return self.content[start : start + length]

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> bool:
        content = self.read_range(start, sum(map(len, buffers)))
        for buffer in buffers:
            buffer[: len(content)], content = content[: len(buffer)], content[len(buffer) :]
        return True

    def open(self) -> BinaryIO:
        self.opened += 1
        return io.BytesIO(self.content)


def archived(root: Path) -> tuple[bytes, ArchiveInfo]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "archive.tar.gz"
        archive.stage(project_files(root, "."), ID, path)
        info = archive.seal(path)
        return path.read_bytes(), info


def random_bytes(count: int) -> bytes:
    return random.Random(count).randbytes(count)


def mixed_tree(root: Path) -> dict[str, bytes]:
    """A tree with all kinds of members: compressed and stored, shared and many of one file."""
    files = {
        "empty": b"",
        "a": b"a",
        "log": b"step 1 loss 0.5\n" * 200_000,
        "weights": random_bytes(3_333_333),
        "mixed": bytes(2_000_000) + random_bytes(2_000_000) + bytes(100),
        "exact": random_bytes(2 << 20),
        "sections": random_bytes(9 << 20) + b"epoch\n" * (2 << 20) + random_bytes(1234),
        "x" * 180: b"a long name",
        "deep/" * 40 + "ünï": b"deep",
        **{f"code/file {number}.py": f"print({number})\n".encode() * number for number in range(600)},
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with (root / "sparse").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(2_000_000)
        file.write(b"island")
    files["sparse"] = (root / "sparse").read_bytes()
    (root / "a").chmod(0o750)
    (root / "link").symlink_to("deep")
    return files


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, ArchiveInfo, dict[str, bytes]]:
    root = tmp_path_factory.mktemp("tree")
    files = mixed_tree(root)
    content, info = archived(root)
    return content, info, files


def test_every_kind_of_member_comes_back_through_any_reader(
    mixed: tuple[bytes, ArchiveInfo, dict[str, bytes]], tmp_path: Path
) -> None:
    content, info, files = mixed
    assert info.files == len(files) + 1
    (tmp_path / "ours").mkdir()
    assert len(archive.extract(Ranges(content), tmp_path / "ours", announced=info)) == len(files) + 1
    (tmp_path / "plain").mkdir()
    archive.extract(Ranges(gzip.compress(gzip.decompress(content), 1)), tmp_path / "plain")
    (tmp_path / "gnu").mkdir()
    subprocess.run(["tar", "xzf", "-", "-C", str(tmp_path / "gnu")], input=content, check=True)
    (tmp_path / "python").mkdir()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(tmp_path / "python", filter="data")
    for place in (tmp_path / "ours", tmp_path / "plain", tmp_path / "gnu" / ID, tmp_path / "python" / ID):
        found = {
            path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file() and "link" not in path.parts
        }
        assert {name: path.read_bytes() for name, path in found.items()} == files
        assert (place / "a").stat().st_mode & 0o777 == 0o750
        assert (place / "link").readlink() == Path("deep")
    archive.check(Ranges(content))


def test_one_file_costs_two_reads_and_its_own_members(mixed: tuple[bytes, ArchiveInfo, dict[str, bytes]]) -> None:
    content, _, files = mixed
    for name in ("a", "empty", "code/file 7.py", "log"):
        source = Ranges(content, is_far=True)
        assert archive.open_file(source, name).read() == files[name]
        assert source.opened == 0
        assert len(source.calls) <= 2
        assert sum(length for _, length in source.calls) <= index.TAIL_BYTES + 300_000
    source = Ranges(content)
    assert archive.open_file(source, "weights").read() == files["weights"]
    assert sum(length for _, length in source.calls) < index.TAIL_BYTES + 3_500_000


def test_a_listing_reads_the_index_alone(mixed: tuple[bytes, ArchiveInfo, dict[str, bytes]]) -> None:
    content, _, files = mixed
    source = Ranges(content)
    found = archive.list_files(source)
    assert {file.path: file.sha256 for file in found if file.kind == "file"} == {
        name: hashlib.sha256(data).hexdigest() if len(data) <= index.SECTION_BYTES else None for name, data in files.items()
    }
    assert source.opened == 0
    assert sum(length for _, length in source.calls) <= 2 * index.TAIL_BYTES


@pytest.mark.parametrize("section_bytes", [index.SECTION_BYTES, index.MIN_SECTION_BYTES + 12_345, 1 << 40])
def test_a_large_file_is_checked_by_whatever_sections_its_index_has(
    section_bytes: int, mixed: tuple[bytes, ArchiveInfo, dict[str, bytes]], tmp_path: Path
) -> None:
    content, _, files = mixed
    data = files["sections"]

    def cut(it: Index) -> None:
        [row] = [row for row in it.rows if row.path == "sections"]
        starts = range(0, len(data), section_bytes)
        row.section_bytes = section_bytes
        row.digests = [hashlib.sha256(data[start : start + section_bytes]).hexdigest() for start in starts]

    source = Ranges(with_index(content, cut))
    assert archive.extract(source, tmp_path, only="sections") == ["sections"]
    assert (tmp_path / "sections").read_bytes() == data
    assert archive.open_file(source, "sections").read() == data
    archive.check(source)
    (tmp_path / "sections").unlink()
    for position in (0, 10 << 20, len(data) - 1):
        source = Ranges(with_index(with_another_byte(content, "sections", position), cut))
        for read in (
            lambda source=source: archive.extract(source, tmp_path),
            lambda source=source: archive.open_file(source, "sections"),
            lambda source=source: archive.check(source),
        ):
            with pytest.raises(ReadError, match="sections does not match its sha256"):
                read()
        assert list(tmp_path.iterdir()) == []


def with_another_byte(content: bytes, path: str, position: int) -> bytes:
    """The same archive with another byte in a file, of which gzip's checksums know nothing."""
    found = index.read(Ranges(content), "it")
    assert found is not None
    it, starts = found[0], found[0].starts()
    parts = [part for row in it.rows if row.path == path for part in it.parts(row)]
    part = next(part for part in parts if position < part.start + part.last - part.first)
    held = bytearray(gzip.decompress(content[starts[part.member] : starts[part.member + 1]]))
    held[part.first + position - part.start] ^= 1
    buffers = members.encoded(memoryview(held))
    it.member_bytes[part.member] = sum(map(len, buffers))
    changed = content[: starts[part.member]] + b"".join(map(bytes, buffers)) + content[starts[part.member + 1] : starts[-1]]
    return changed + index.packed(it, len(changed))[0]


@pytest.mark.parametrize(
    "sections",
    [
        {"size": index.MIN_SECTION_BYTES - 1, "sha256": ["0" * 64] * 2},
        {"size": index.MIN_SECTION_BYTES, "sha256": ["0" * 64]},
        {"size": 0, "sha256": []},
        {"size": index.SECTION_BYTES, "sha256": [1]},
        {"size": index.SECTION_BYTES, "sha256": "0"},
        {"size": index.SECTION_BYTES},
        [],
        "sections",
    ],
)
def test_sections_that_make_no_sense_are_no_index(sections: object) -> None:
    row = {"path": "a", "kind": "file", "size": (1 << 20) + 1, "mode": 0o644, "mtime": 0, "member": 0, "offset": 0}
    content = json.dumps({"members": {"lengths": [1], "contents": [1]}, "files": [row | {"sections": sections}]})
    with pytest.raises(ValueError, match="sense|text"):
        Index.from_json(content.encode())


def test_an_index_longer_than_one_read_is_read_in_two(tmp_path: Path) -> None:
    for number in range(3_000):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    content, _ = archived(tmp_path)
    source = Ranges(content)
    assert archive.open_file(source, "1234").read() == b"1234"
    assert len(source.calls) == 3


def test_a_directory_of_an_archive_is_extracted_from_its_own_members(
    mixed: tuple[bytes, ArchiveInfo, dict[str, bytes]], tmp_path: Path
) -> None:
    content, info, files = mixed
    source = Ranges(content)
    assert len(archive.extract(source, tmp_path, only="code", announced=info)) == 600
    assert sum(length for _, length in source.calls) < 500_000
    assert (tmp_path / "code/file 599.py").read_bytes() == files["code/file 599.py"]
    with pytest.raises(DoesNotExist, match='no file "cod"'):
        archive.extract(source, tmp_path, only="cod")


def test_names_that_are_no_unicode_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / name).write_bytes(b"old encoding")
    content, _ = archived(tmp_path / "tree")
    assert archive.open_file(Ranges(content), name).read() == b"old encoding"
    (tmp_path / "out").mkdir()
    assert archive.extract(Ranges(content), tmp_path / "out") == [name]


def test_what_does_not_shrink_is_stored_and_what_does_is_not(mixed: tuple[bytes, ArchiveInfo, dict[str, bytes]]) -> None:
    content, _, _ = mixed
    found = index.read(Ranges(content), "it")
    assert found is not None
    rows = {row.path: row for row in found[0].rows}

    def ratios(name: str) -> list[float]:
        return [found[0].member_bytes[part.member] / found[0].content_bytes[part.member] for part in found[0].parts(rows[name])]

    assert all(1 <= ratio < 1.001 for ratio in ratios("weights"))
    assert all(ratio < 0.1 for ratio in ratios("log"))
    assert ratios("mixed")[0] < 0.1
    assert ratios("mixed")[2] > 0.99


def test_a_program_written_from_the_documentation_reads_one_file(mixed: tuple[bytes, ArchiveInfo, dict[str, bytes]]) -> None:
    """Follows docs/format.md, "Members and index", and uses nothing of keepsake."""
    content, info, files = mixed
    trailer = content[-76:]
    assert trailer[:10] == bytes.fromhex("1f8b0804000000 0000ff".replace(" ", ""))
    assert trailer[10:16] == struct.pack("<H", 54) + b"KT" + struct.pack("<H", 50)
    version, start, length, digest = struct.unpack("<HQQ32s", trailer[16:66])
    assert (version, start + length + 76) == (1, len(content))
    packed, position = b"", start
    while position < start + length:
        (payload,) = struct.unpack("<H", content[position + 14 : position + 16])
        assert content[position + 12 : position + 14] == b"KI"
        packed += content[position + 16 : position + 16 + payload]
        position += 16 + payload + 10
    assert hashlib.sha256(packed).digest() == digest
    assert digest.hex() == info.index_sha256
    found = json.loads(zlib.decompress(packed))
    lengths, contents = found["members"]["lengths"], found["members"]["contents"]
    for row in found["files"]:
        if row["kind"] != "file" or row["path"].startswith("code/"):
            continue
        data, member, offset = b"", row["member"], row["offset"]
        while len(data) < row["size"]:
            begin = sum(lengths[:member])
            held = gzip.decompress(content[begin : begin + lengths[member]])
            assert len(held) == contents[member]
            data += held[offset:]
            member, offset = member + 1, 0
        data = data[: row["size"]]
        if "sections" in row:
            size = row["sections"]["size"]
            sections = [data[start : start + size] for start in range(0, len(data), size)]
            assert [hashlib.sha256(section).hexdigest() for section in sections] == row["sections"]["sha256"]
        else:
            assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert data == files[row["path"]]


# --- two steps ------------------------------------------------------------------------------------------------------


def test_sealing_again_gives_the_same_archive_wherever_the_first_attempt_was_killed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    mixed_tree(tmp_path / "tree")
    path = tmp_path / "archive"
    archive.stage(project_files(tmp_path / "tree", "."), ID, path)
    staged = path.read_bytes()
    info = archive.seal(path)
    whole = path.read_bytes()
    for end in (len(staged), len(staged) + 1, len(staged) + 5_000, len(whole) - 1, len(whole)):
        # Some of the members have got their checksums.
        for sealed_bytes in (0, len(staged) // 2, len(staged)):
            path.write_bytes(whole[:sealed_bytes] + (staged + whole[len(staged) :])[sealed_bytes:end])
            assert archive.seal(path) == info
            assert path.read_bytes() == whole


def test_only_checksums_of_stored_members_are_left_to_sealing(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    mixed_tree(tmp_path / "tree")
    path = tmp_path / "archive"
    archive.stage(project_files(tmp_path / "tree", "."), ID, path)
    staged = path.read_bytes()
    layout = Index.from_json(archive.layout_path(path).read_bytes())
    archive.seal(path)
    whole = path.read_bytes()
    places = list(itertools.pairwise(layout.starts()))
    changed = [(start, end) for start, end in places if staged[start:end] != whole[start:end]]
    assert changed == [place for place, known in zip(places, layout.checksums, strict=True) if known is None]
    assert len(changed) > 1
    for start, end in changed:
        assert staged[start : end - 8] == whole[start : end - 8]
        assert staged[end - 8 : end] == bytes(8)


def test_what_was_cut_after_staging_is_not_sealed(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(random_bytes(3_000_000))
    archive.stage([FileEntry("weights", tmp_path / "weights", "file")], ID, tmp_path / "archive")
    os.truncate(tmp_path / "archive", 1_000_000)
    with pytest.raises(ReadError, match="shorter than its layout says"):
        archive.seal(tmp_path / "archive")


def test_staging_never_writes_over_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "archive").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError):
        archive.stage([FileEntry("a", tmp_path / "a", "file")], ID, tmp_path / "archive")
    assert (tmp_path / "archive").read_bytes() == b"somebody's"


def test_all_of_it_works_while_the_interpreter_ends(tmp_path: Path) -> None:
    """From Python 3.12 on no thread can be started there."""
    (tmp_path / "weights").write_bytes(random_bytes(12_000_000))
    (tmp_path / "out").mkdir()
    code = f"""
import atexit
from pathlib import Path
from keepsake.capture.files import FileEntry
from keepsake.repository.repository import Repository
from keepsake.storage import DiskStorage
from tests.archives import store_archive

def at_exit():
    repository = Repository(DiskStorage({str(tmp_path / "repository")!r}))
    info = store_archive(repository, "a", [FileEntry("weights", Path({str(tmp_path / "weights")!r}), "file")], "{ID}")
    print(repository.archives.extract("a", Path({str(tmp_path / "out")!r}), announced=info))

atexit.register(at_exit)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("['weights']\n", "")
    assert (tmp_path / "out/weights").read_bytes() == random_bytes(12_000_000)


@given(st.integers(0, 3 * 65_535), st.data())
def test_a_stored_member_is_read_in_one_piece_and_another_is_none(size: int, data: st.DataObject) -> None:
    def read_into(buffers: Sequence[memoryview]) -> bool:
        return Ranges(bytes(member)).read_into(0, buffers)

    content = memoryview(random_bytes(size))
    member = bytearray().join(members.stored(content))
    held = memoryview(bytearray(size))
    assert members.read_stored(held, read_into)
    assert held == content
    # Where the blocks begin, and so where something else than the content lies.
    frame = [*range(10), *(position for start in range(10, len(member) - 8, 65_540) for position in range(start, start + 5))]
    position = data.draw(st.sampled_from(frame))
    member[position] ^= data.draw(st.integers(1, 255))
    assert not members.read_stored(held, read_into)


def test_members_that_are_written_make_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/weights").write_bytes(random_bytes(40 * MEMBER_BYTES + 1))
    content, info = archived(tmp_path / "tree")
    (tmp_path / "out").mkdir()
    read_into, taken = Ranges.read_into, {}

    def watched(source: Ranges, start: int, buffers: Sequence[memoryview]) -> bool:
        space = max(buffers, key=len).obj
        # Held, so that no other gets its place in memory.
        taken[id(space)] = space
        return read_into(source, start, buffers)

    monkeypatch.setattr(Ranges, "read_into", watched)
    archive.extract(Ranges(content), tmp_path / "out", announced=info)
    assert (tmp_path / "out/weights").read_bytes() == random_bytes(40 * MEMBER_BYTES + 1)
    # As many as all threads fill, write and let wait at once.
    assert len(taken) <= MAX_THREADS + 2 * unpacking.WAITING_WRITES


def test_where_members_cannot_be_read_in_one_piece_they_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    files = mixed_tree(tmp_path / "tree")
    content, info = archived(tmp_path / "tree")
    monkeypatch.setattr(Ranges, "read_into", lambda *_: False)
    (tmp_path / "out").mkdir()
    archive.extract(Ranges(content), tmp_path / "out", announced=info)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files


def test_where_no_thread_can_be_started_one_does_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    (tmp_path / "tree").mkdir()
    files = mixed_tree(tmp_path / "tree")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    content, info = archived(tmp_path / "tree")
    (tmp_path / "out").mkdir()
    assert len(archive.extract(Ranges(content), tmp_path / "out", announced=info)) == len(files) + 1


def test_archives_of_several_threads_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree").mkdir()
    mixed_tree(tmp_path / "tree")
    contents = set()
    for threads in (1, 2, 7):
        monkeypatch.setattr("keepsake.repository.archive.writing.threads_for", lambda size_bytes, threads=threads: threads)
        contents.add(archived(tmp_path / "tree"))
    assert len(contents) == 1


# --- distrust -------------------------------------------------------------------------------------------------------


def with_index(content: bytes, change: Callable[[Index], object]) -> bytes:
    """The same members with an index that says something else."""
    found = index.read(Ranges(content), "it")
    assert found is not None
    start = sum(found[0].member_bytes)
    change(found[0])
    return content[:start] + index.packed(found[0], start)[0]


def set_row(number: int, **fields: object) -> Callable[[Index], object]:
    def change(it: Index) -> None:
        it.rows[number] = replace(it.rows[number], **fields)  # type: ignore[arg-type]

    return change


HARMFUL: dict[str, Callable[[Index], object]] = {
    "absolute path": set_row(0, path="/tmp/evil"),
    "parent path": set_row(0, path="../evil"),
    "parent path inside": set_row(0, path="b/../../evil"),
    "empty path": set_row(0, path=""),
    "no plain path": set_row(0, path="b//x"),
    "NUL": set_row(0, path="a\0"),
    "twice": set_row(0, path="b"),
    "below a file": set_row(0, path="b/a"),
    "link out": set_row(0, kind="link", link_target="../..", size_bytes=0),
    "absolute link": set_row(0, kind="link", link_target="/etc/passwd", size_bytes=0),
    "other content": set_row(0, digests=["0" * 64]),
    "no digest": set_row(0, digests=[None]),
    "the wrong place": set_row(0, offset=0),
    "beyond the end": set_row(0, size_bytes=1 << 50),
    "a member that is not there": set_row(0, member=999),
    "a member that holds more": lambda it: it.content_bytes.__setitem__(0, it.content_bytes[0] + 1),
    "a member that holds less": lambda it: it.content_bytes.__setitem__(0, 10),
    "a member that holds terabytes": lambda it: it.content_bytes.__setitem__(0, 1 << 45),
    "longer members": lambda it: it.member_bytes.__setitem__(0, it.member_bytes[0] + 1),
    "a terabyte of members": lambda it: it.member_bytes.__setitem__(0, 1 << 45),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_a_harmful_index_is_refused_in_little_memory_and_nothing_is_left(what: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_bytes(b"a" * 3000)
    (tmp_path / "tree/b").write_bytes(b"b" * 10)
    content, info = archived(tmp_path / "tree")
    altered = with_index(content, HARMFUL[what])
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    with pytest.raises(ReadError, match="checkpoint x"):
        archive.extract(Ranges(altered), tmp_path / "out", where="checkpoint x")
    with pytest.raises(ReadError, match="checkpoint x"):
        # The record vouches for another index.
        archive.extract(Ranges(altered), tmp_path / "out", where="checkpoint x", announced=info)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tree"]
    assert list((tmp_path / "out").iterdir()) == []


def test_an_index_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    content, _ = archived(tmp_path)
    found = index.read(Ranges(content), "it")
    assert found is not None
    start = sum(found[0].member_bytes)
    bomb = zlib.compress(b"[" * 300_000_000, 9)
    parts = b"".join(index._empty_member(b"KI", bomb[n : n + 60_000]) for n in range(0, len(bomb), 60_000))
    trailer = struct.pack("<HQQ32s", 1, start, len(parts), hashlib.sha256(bomb).digest())
    tracemalloc.start()
    with pytest.raises(ReadError, match="too long"):
        archive.list_files(Ranges(content[:start] + parts + index._empty_member(b"KT", trailer)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000_000


def test_an_index_of_a_newer_keepsake_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    content, _ = archived(tmp_path)
    position = content.rindex(b"KT") + 4
    newer = content[:position] + struct.pack("<H", 2) + content[position + 2 :]
    source = Ranges(newer)
    assert [file.path for file in archive.list_files(source)] == ["a"]
    assert source.opened == 1


@settings(max_examples=150)
@given(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8))
def test_bytes_of_the_index_that_are_altered_are_found_or_do_no_harm(fraction: float, junk: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "tree").mkdir()
        (Path(directory) / "out").mkdir()
        (Path(directory) / "tree/a").write_bytes(b"content " * 500)
        content, info = archived(Path(directory) / "tree")
        found = index.read(Ranges(content), "it")
        assert found is not None
        start = sum(found[0].member_bytes)
        position = start + int((len(content) - start) * fraction)
        altered = Ranges(content[:position] + junk + content[position + len(junk) :])
        for announced in (None, info):
            try:
                names = archive.extract(altered, Path(directory) / "out", announced=announced)
            except ReadError:
                continue
            assert names == ["a"]
            assert (Path(directory) / "out/a").read_bytes() == b"content " * 500
            (Path(directory) / "out/a").unlink()


def test_an_archive_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(name.encode())
    _, info = archived(tmp_path / "one")
    other, _ = archived(tmp_path / "other")
    (tmp_path / "out").mkdir()
    with pytest.raises(ReadError, match="does not match its record"):
        archive.extract(Ranges(other), tmp_path / "out", announced=info)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(ReadError, match="does not match its record"):
        archive.check(Ranges(other), announced=info)
    with pytest.raises(ReadError, match="does not match its record"):
        archive.PassingCheck(Ranges(other), info, where="it")


def pass_by(content: bytes, passing: bytes, info: ArchiveInfo, chunk_bytes: int = 1 << 20) -> None:
    """Check what passes by in the place of the archive that was announced."""
    check = archive.PassingCheck(Ranges(content), info, where="it")
    for begin in range(0, len(passing), chunk_bytes):
        check.update(passing[begin : begin + chunk_bytes])
    check.finish()


@given(
    fraction=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=3),
    chunk_bytes=st.sampled_from([1 << 10, 1 << 20]),
)
@settings(max_examples=60)
def test_whatever_is_altered_while_an_archive_passes_by_is_found(
    mixed: tuple[bytes, ArchiveInfo, dict[str, bytes]], fraction: float, junk: bytes, chunk_bytes: int
) -> None:
    content, info, _ = mixed
    start = int(fraction * len(content))
    altered = content[:start] + junk + content[start + len(junk) :]
    if altered == content:
        pass_by(content, altered, info, chunk_bytes)
    else:
        with pytest.raises(ReadError, match="it is damaged|does not match"):
            pass_by(content, altered, info, chunk_bytes)


def test_each_bit_that_is_altered_is_found_even_those_that_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "stored").write_bytes(random_bytes(100))
    (tmp_path / "tree" / "packed").write_bytes(b"loss 0.5\n" * 100)
    content, info = archived(tmp_path / "tree")
    for position in range(len(content)):
        altered = bytearray(content)
        altered[position] ^= 1 << position % 8
        with pytest.raises(ReadError):
            archive.check(Ranges(bytes(altered)), announced=info)
        with pytest.raises(ReadError):
            pass_by(content, bytes(altered), info)


def test_an_archive_without_an_index_passes_by_its_digest(tmp_path: Path) -> None:
    content = gzip.compress(b"anything")
    info = ArchiveInfo(len(content), 1, sha256=hashlib.sha256(content).hexdigest())
    check = archive.PassingCheck(Ranges(content), info, where="it")
    check.update(content)
    check.finish()
    check.update(b"more")
    with pytest.raises(ReadError, match="it does not match its sha256"):
        check.finish()


def test_content_that_is_altered_in_a_stored_member_is_found(
    mixed: tuple[bytes, ArchiveInfo, dict[str, bytes]], tmp_path: Path
) -> None:
    content, info, files = mixed
    altered = bytearray(content)
    altered[content.index(files["weights"][2_000_000:2_000_050])] ^= 1
    for read in (
        lambda: archive.open_file(Ranges(bytes(altered)), "weights"),
        lambda: archive.extract(Ranges(bytes(altered)), tmp_path, announced=info),
        lambda: archive.extract(Ranges(bytes(altered)), tmp_path, only="weights"),
        lambda: archive.check(Ranges(bytes(altered))),
    ):
        with pytest.raises(ReadError):
            read()
        assert list(tmp_path.iterdir()) == []
    assert archive.open_file(Ranges(bytes(altered)), "log").read() == files["log"]


@pytest.mark.parametrize("size_bytes", [0, 1, 99, 100, 101, 200, 201])
def test_digests_of_a_file_by_sections(tmp_path: Path, size_bytes: int) -> None:
    from keepsake.repository.archive import Digests

    path, content = tmp_path / "file", os.urandom(size_bytes)
    path.write_bytes(content)
    sections = [content[start : start + 100] for start in range(0, size_bytes, 100)] or [b""]
    found = Digests.of(path, 100)
    assert found.sha256 == tuple(hashlib.sha256(section).hexdigest() for section in sections)
    assert Digests.of(path) == Digests((hashlib.sha256(content).hexdigest(),))
    assert found.fit(path)
    assert Digests.of(path).fit(path)
    path.write_bytes(content + b"x")
    assert not found.fit(path)


@pytest.mark.parametrize("number", [-1, 1 << 62, True, 1.0, "1", None, []])
@pytest.mark.parametrize("where", ["lengths", "contents"])
def test_a_length_that_makes_no_sense_is_refused(number: object, where: str) -> None:
    raw = {"members": {"lengths": [5, 6], "contents": [7, 8]}, "files": []}
    assert Index.from_json(json.dumps(raw).encode()).member_bytes == [5, 6]
    raw["members"][where][1] = number
    with pytest.raises(ValueError, match="makes no sense"):
        Index.from_json(json.dumps(raw).encode())
