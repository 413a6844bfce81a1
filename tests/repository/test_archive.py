"""Archives are read by everybody, are the same for the same tree, and are never trusted."""

from __future__ import annotations

import contextlib
import filecmp
import gzip
import io
import os
import random
import subprocess
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.capture.files import IGNORED_NAMES, MARKERS, REPOSITORY_MEMBERS, FileEntry, project_files
from keepsake.exceptions import DoesNotExist, ReadError, WriteError
from keepsake.repository import archive
from keepsake.repository.archive import appending, index, writing
from keepsake.repository.archive.index import SECTION_BYTES
from keepsake.repository.archive.members import MEMBER_BYTES
from keepsake.repository.archive.packing import LargeFile
from keepsake.repository.archive.splicing import Pipe
from keepsake.repository.records import ArchiveInfo
from keepsake.storage import DiskStorage
from tests.archives import Held

ID = "ab" * 32

NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/\\"), min_size=1, max_size=250).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 250 and not name.startswith(".") and name == name.strip()
)
# What is never saved, or keeps its directory from being saved, is of no interest here. Hypothesis finds such names in our own sources.
SAVED_NAMES = NAMES.map(str.lower).filter(lambda name: name not in {*IGNORED_NAMES, *MARKERS, *REPOSITORY_MEMBERS})
PATHS = st.lists(SAVED_NAMES, min_size=1, max_size=8).map("/".join).filter(lambda path: len(path.encode()) < 1500)


@dataclass(frozen=True)
class Content:
    """What is in a file.

    Args:
        start: How it begins.
        random_bytes: How much follows that does not shrink.
        equal_bytes: How much follows that does.
        hole_bytes: How long the hole behind that is.
        end: How it ends.
        mode: Permission bits, of which its owner always has reading and writing.
    """

    start: bytes
    random_bytes: int
    equal_bytes: int
    hole_bytes: int
    end: bytes
    mode: int

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(self.start + random.Random(self.random_bytes).randbytes(self.random_bytes) + b"=" * self.equal_bytes)
            file.seek(self.hole_bytes, os.SEEK_CUR)
            file.truncate()
            file.write(self.end)
        path.chmod(self.mode)


MOSTLY_NONE = st.sampled_from([0, 0, 0, 1, 511, 512, 513, 70_000])
CONTENTS = st.builds(
    Content,
    st.binary(max_size=2000),
    st.one_of(MOSTLY_NONE, st.integers(0, 3_000_000), st.just((8 << 20) + 7)),
    st.one_of(MOSTLY_NONE, st.integers(0, 3_000_000)),
    st.one_of(MOSTLY_NONE, st.integers(0, 3_000_000)),
    st.binary(max_size=20),
    st.integers(0, 0o777).map(lambda mode: mode | 0o600),
)
TREES = st.dictionaries(PATHS, CONTENTS, max_size=6)


def make_tree(root: Path, files: Mapping[str, tuple[bytes, bool] | Content]) -> None:
    for name, content in files.items():
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                continue
            if isinstance(content, Content):
                content.write(path)
            else:
                path.write_bytes(content[0])
                path.chmod(0o755 if content[1] else 0o644)
        except (FileExistsError, NotADirectoryError):
            continue  # a name that is a file and a directory at once


def tree(root: Path) -> dict[str, tuple[str, object, bool]]:
    found: dict[str, tuple[str, object, bool]] = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()), False)
        elif path.is_dir():
            found[name] = ("directory", None, False)
        else:
            found[name] = ("file", path.read_bytes(), os.access(path, os.X_OK))
    return found


def modes(root: Path) -> dict[str, int]:
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.relative_to(root).as_posix(): path.stat().st_mode & 0o7777 for path in files}


def check_passing(content: bytes, info: ArchiveInfo) -> None:
    check = archive.PassingCheck(Held(content), info, where="it")
    for start in range(0, len(content), 100_000):
        check.update(content[start : start + 100_000])
    check.finish()


def packed(entries: list[FileEntry]) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "archive.tar.gz"
        archive.stage(entries, ID, path)
        info = archive.seal(path)
        content = path.read_bytes()
        assert archive.describe(Held(content)) == info
        archive.check(Held(content), announced=info)
        check_passing(content, info)
        return content


def without_index(content: bytes) -> bytes:
    """The same archive as somebody else might have written it."""
    return gzip.compress(gzip.decompress(content))


def members_of(content: bytes) -> bytes:
    """What of an archive comes before its index."""
    found = index.read(Held(content), "it")
    assert found is not None
    return content[: sum(found[0].member_bytes)]


def extracted(content: bytes, target: Path, **options: str) -> list[str]:
    target.mkdir(exist_ok=True)
    return archive.extract(Held(content), target, **options)


# --- round trips ----------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(TREES, st.data())
def test_any_tree_comes_back_through_any_reader(files: dict[str, Content], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "tree"
        root.mkdir()
        make_tree(root, files)
        for number, path in enumerate(sorted(root.rglob("*"))):
            if data.draw(st.booleans()):
                (root / f"link {number}").symlink_to(path.relative_to(root))
        expected = tree(root)
        entries = project_files(root, ".")
        content = packed(entries)
        readers = ("ours", "python", "gnu")
        for reader in readers:
            target = Path(directory) / reader
            target.mkdir()
            if reader == "ours":
                extracted(content, target)
            elif reader == "python":
                with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                    tar.extractall(target, filter="fully_trusted")
            else:
                subprocess.run(["tar", "xzpf", "-", "-C", str(target)], input=content, check=True)
            place = target if reader == "ours" else target / ID
            assert (tree(place), modes(place)) == (expected, modes(root)), reader
        assert [file.path for file in archive.list_files(Held(content))] == [entry.name for entry in entries]
        for name, (kind, held, _) in expected.items():
            if kind == "file":
                assert archive.open_file(Held(content), name).read() == held


def walk(root: Path) -> list[FileEntry]:
    paths = [path for path in root.rglob("*") if not path.is_dir()]
    return sorted((FileEntry(path.relative_to(root).as_posix(), path, "file") for path in paths), key=lambda entry: entry.name)


def test_links_directories_modes_and_times_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    make_tree(root, {"bin/run": (b"#!", True), "x" * 150: (b"long", False), "deep/" * 30 + "ünï": (b"unicode", False)})
    (root / "latest").symlink_to("bin/run")
    (root / "empty").mkdir()
    os.utime(root / "bin/run", (1_000_000_000, 1_000_000_000))
    content = packed(project_files(root, "."))
    extracted(content, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(root)
    assert (tmp_path / "out/bin/run").stat().st_mtime == 1_000_000_000
    described = {file.path: file for file in archive.list_files(Held(content))}
    assert described["bin/run"].mode == 0o755
    assert described["latest"].link_target == "bin/run"
    assert described["empty"].kind == "directory"
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert {(member.uid, member.gid, member.uname) for member in tar} == {(0, 0, "")}


def test_equal_trees_give_equal_archives(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        make_tree(tmp_path / name, {"b": (b"b", False), "a/c": (b"c" * 10_000, True)})
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (5, 5))
        contents.append(packed(list(reversed(walk(tmp_path / name)))))
    assert contents[0] == contents[1]


def test_an_archive_of_nothing_is_an_archive(tmp_path: Path) -> None:
    assert extracted(packed([]), tmp_path / "out") == []


@dataclass(frozen=True)
class OnDisk:
    """An archive in a file."""

    path: Path

    is_far = False

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size

    def read_range(self, start: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> bool:
        return DiskStorage(self.path.parent).read_into(self.path.name, start, buffers)

    def open(self) -> BinaryIO:
        return self.path.open("rb")


def test_a_large_file_is_packed_sealed_and_extracted_in_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(200_000_000)
        file.write(os.urandom(20_000_000))
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    archive.stage([FileEntry("large", tmp_path / "large", "file")], ID, tmp_path / "archive")
    info = archive.seal(tmp_path / "archive")
    archive.extract(OnDisk(tmp_path / "archive"), tmp_path / "out", announced=info)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40_000_000
    assert filecmp.cmp(tmp_path / "out" / "large", tmp_path / "large", shallow=False)


# --- what is wanted of it -------------------------------------------------------------------------------------------


def test_one_file_or_directory_is_taken_by_whole_segments(tmp_path: Path) -> None:
    make_tree(
        tmp_path / "tree", {"model": (b"1", False), "model2": (b"2", False), "dir/a": (b"a", False), "dir2/a": (b"b", False)}
    )
    content = packed(walk(tmp_path / "tree"))
    assert extracted(content, tmp_path / "file", only="model") == ["model"]
    assert extracted(content, tmp_path / "directory", only="dir/") == ["dir/a"]
    assert len(extracted(content, tmp_path / "all", only=".")) == 4
    with pytest.raises(DoesNotExist, match='no file "mode" in checkpoint x') as caught:
        extracted(content, tmp_path / "none", only="mode", where="checkpoint x")
    assert "model" in caught.value.facts[0]
    with pytest.raises(DoesNotExist):
        archive.open_file(Held(content), "dir")


# --- sources that change --------------------------------------------------------------------------------------------


def while_packing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Let something happen once after the first bytes of a large file were taken, in whatever way."""
    happens = iter([change])

    def followed(take: Callable[..., object]) -> Callable[..., object]:
        def taking(*arguments: object) -> object:
            result = take(*arguments)
            for happen in happens:
                happen()
            return result

        return taking

    monkeypatch.setattr(writing, "threads_for", lambda size_bytes: 1)
    monkeypatch.setattr(LargeFile, "read", followed(LargeFile.read))
    monkeypatch.setattr(Pipe, "take", followed(Pipe.take))


@pytest.fixture(params=["piped", "read"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How what is stored comes into the archive: as the system can, and as it can everywhere."""
    if request.param == "read":
        monkeypatch.setattr(appending, "open_pipe", lambda: None)
    return str(request.param)


def test_a_small_file_that_has_grown_since_it_was_listed_is_what_it_is_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\n")
    entries = [FileEntry("log", tmp_path / "log", "file")]
    (tmp_path / "log").write_bytes(b"one\ntwo\n")
    assert archive.open_file(Held(packed(entries)), "log").read() == b"one\ntwo\n"


@pytest.mark.usefixtures("way")
def test_a_large_file_that_grows_meanwhile_is_cut_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    first = os.urandom(5_000_000)
    path.write_bytes(first)

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"later")

    while_packing(monkeypatch, grow)
    content = packed([FileEntry("large", path, "file"), FileEntry("next", path, "file")])
    with archive.open_file(Held(content), "large") as opened:
        assert opened.read() == first
    with archive.open_file(Held(content), "next") as opened:
        assert opened.read() == first + b"later"


def test_a_file_that_vanishes_meanwhile_is_left_out_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(tmp_path / "tree", {"a": (b"a", False), "b": (b"b", False)})
    entries = walk(tmp_path / "tree")
    (tmp_path / "tree" / "a").unlink()
    assert [file.path for file in archive.list_files(Held(packed(entries)))] == ["b"]
    assert "vanished" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["nothing", "link", "pipe", "directory", "parent"])
def test_what_is_replaced_meanwhile_is_left_out(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(tmp_path / "tree", {"dir/a": (b"a", False), "b": (b"b", False)})
    (tmp_path / "precious").write_bytes(b"elsewhere")
    entries = walk(tmp_path / "tree")
    path = tmp_path / "tree/dir/a"
    path.unlink()
    if what == "link":
        path.symlink_to(tmp_path / "precious")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    elif what == "parent":
        path.parent.rmdir()
        path.parent.write_bytes(b"now a file")
    content = packed(entries)
    assert [file.path for file in archive.list_files(Held(content))] == ["b"]
    assert "dir/a" in capsys.readouterr().err
    with pytest.raises(ReadError, match="before it was saved"):
        packed([entry for entry in entries if entry.name == "dir/a"])


def test_links_and_directories_that_vanish_meanwhile_are_left_out(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"a": (b"a", False)})
    (tmp_path / "tree/link").symlink_to("a")
    (tmp_path / "tree/empty").mkdir()
    entries = project_files(tmp_path / "tree", ".")
    assert [entry.name for entry in entries] == ["a", "empty", "link"]
    (tmp_path / "tree/link").unlink()
    (tmp_path / "tree/empty").rmdir()
    content = packed(entries)
    assert [file.path for file in archive.list_files(Held(content))] == ["a"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("left_bytes", [0, 500_000, 2_000_000, 4_999_999])
@pytest.mark.parametrize("content", [bytes(5_000_000), os.urandom(5_000_000)], ids=["compressed", "stored"])
def test_a_large_file_that_shrinks_meanwhile_is_an_error_that_leaves_nothing(
    content: bytes, left_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    path.write_bytes(content)
    while_packing(monkeypatch, lambda: os.truncate(path, left_bytes))
    with pytest.raises(
        ReadError, match=rf"changed while it was being saved: {5_000_000 - left_bytes:,} of 5,000,000 bytes are gone"
    ):
        archive.stage([FileEntry("large", path, "file")], ID, tmp_path / "archive")
    assert [found.name for found in tmp_path.iterdir()] == ["large"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [MEMBER_BYTES + 1, 2 * SECTION_BYTES + 5])
def test_a_large_file_that_is_cut_before_its_end_is_written_is_an_error(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken of it by reference, and is not written yet, is cut with it."""
    path, content = tmp_path / "large", os.urandom(size)
    path.write_bytes(content)
    note_written = LargeFile.note_written

    def cutting(large: LargeFile, length: int) -> None:
        if length == large.left_bytes:
            os.truncate(path, 0)
        note_written(large, length)

    monkeypatch.setattr(LargeFile, "note_written", cutting)
    with pytest.raises(ReadError, match=f"{size:,} of {size:,} bytes are gone"):
        archive.stage([FileEntry("large", path, "file")], ID, tmp_path / "archive")
    assert [found.name for found in tmp_path.iterdir()] == ["large"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [MEMBER_BYTES + 1, SECTION_BYTES, SECTION_BYTES + 511, 3 * SECTION_BYTES + 65_535 * 3 + 4_096])
def test_what_is_stored_is_what_python_and_ours_read(size: int, tmp_path: Path) -> None:
    large, small = os.urandom(size), b"between"
    make_tree(tmp_path / "tree", {"a": (large, False), "b": (small, False), "c": (large[1:], True)})
    content = packed(walk(tmp_path / "tree"))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        read = {member.name.removeprefix(f"{ID}/"): tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert read == {"a": large, "b": small, "c": large[1:]}
    for name, expected in read.items():
        with archive.open_file(Held(content), name) as file:
            assert file.read() == expected


def test_plain_names_need_no_extended_headers(tmp_path: Path) -> None:
    """So that even the simplest reader of tar understands them."""
    make_tree(tmp_path / "tree", {"out/model.pth": (b"w" * 1000, True), "train.py": (b"p", False)})
    tar = gzip.decompress(packed(walk(tmp_path / "tree")))
    assert [tar[offset + 156 : offset + 157] for offset in (0, 1536)] == [b"0", b"0"]
    assert len(tar) == (1 + 2) * 512 + (1 + 1) * 512 + 2 * 512


# --- archives of others ---------------------------------------------------------------------------------------------


def made_by_hand(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def named(name: str) -> tarfile.TarInfo:
    """Return a member whose name stands in an extended header, where it may hold anything."""
    info = member("short")
    info.pax_headers = {"path": name}
    return info


HARMFUL: dict[str, Callable[[Path], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "absolute path": lambda outside: [(member(f"{outside}/evil"), b"x")],
    "parent path": lambda outside: [(member(f"{ID}/../../outside/evil"), b"x")],
    "parent path after a directory": lambda outside: [(member(f"{ID}/a/../../../outside/evil"), b"x")],
    "only a parent": lambda outside: [(member(".."), b"")],
    "absolute link": lambda outside: [(member(f"{ID}/link", tarfile.SYMTYPE, str(outside)), b"")],
    "link to the parent": lambda outside: [(member(f"{ID}/link", tarfile.SYMTYPE, "../outside"), b"")],
    "link deep to the outside": lambda outside: [(member(f"{ID}/a/b/link", tarfile.SYMTYPE, "../../../outside"), b"")],
    "write through a link": lambda outside: [
        (member(f"{ID}/link", tarfile.SYMTYPE, "."), b""),
        (member(f"{ID}/link/evil"), b"x"),
    ],
    "file in the place of a link": lambda outside: [
        (member(f"{ID}/a"), b"x"),
        (member(f"{ID}/link", tarfile.SYMTYPE, "a"), b""),
        (member(f"{ID}/link"), b"y"),
    ],
    "hard link": lambda outside: [(member(f"{ID}/link", tarfile.LNKTYPE, f"{outside}/precious"), b"")],
    "character device": lambda outside: [(member(f"{ID}/null", tarfile.CHRTYPE), b"")],
    "block device": lambda outside: [(member(f"{ID}/disk", tarfile.BLKTYPE), b"")],
    "pipe": lambda outside: [(member(f"{ID}/pipe", tarfile.FIFOTYPE), b"")],
    "the same file twice": lambda outside: [(member(f"{ID}/a"), b"x"), (member(f"{ID}/a"), b"y")],
    "link out through another link": lambda outside: [
        (member(f"{ID}/a/b/up", tarfile.SYMTYPE, "../.."), b""),
        (member(f"{ID}/out", tarfile.SYMTYPE, "a/b/up/../outside"), b""),
    ],
    "link out through a later link": lambda outside: [
        (member(f"{ID}/a/out", tarfile.SYMTYPE, "z/../../outside"), b""),
        (member(f"{ID}/a/z", tarfile.SYMTYPE, "."), b""),
    ],
    "link in the place of a directory": lambda outside: [
        (member(f"{ID}/a/b"), b"x"),
        (member(f"{ID}/a", tarfile.SYMTYPE, "."), b""),
    ],
    "directory in the place of a link": lambda outside: [
        (member(f"{ID}/a", tarfile.SYMTYPE, "."), b""),
        (member(f"{ID}/a", tarfile.DIRTYPE), b""),
    ],
    "two IDs": lambda outside: [(member(f"{ID}/a"), b"x"), (member("other/b"), b"y")],
    "no ID": lambda outside: [(member("a"), b"x")],
    "NUL": lambda outside: [(named(f"{ID}/a\0b"), b"x")],
    "sparse": lambda outside: [(member(f"{ID}/huge", tarfile.GNUTYPE_SPARSE), b"")],
    "unknown kind": lambda outside: [(member(f"{ID}/what", b"Z"), b"")],
    "a file below a file": lambda outside: [(member(f"{ID}/a"), b"x"), (member(f"{ID}/a/b"), b"y")],
}


@pytest.mark.parametrize("what", HARMFUL)
def test_a_harmful_archive_is_refused_and_nothing_outside_is_touched(what: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    content = made_by_hand(*HARMFUL[what](outside))
    with pytest.raises(ReadError, match="not safe") as caught:
        extracted(content, tmp_path / "target", where="checkpoint x")
    assert "checkpoint x" in caught.value.message
    assert tree(outside) == {"precious": ("file", b"mine", False)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "target"]
    assert list((tmp_path / "target").iterdir()) == []
    with pytest.raises(ReadError, match="not safe"):
        archive.list_files(Held(content))


def test_bits_that_change_who_runs_a_file_are_dropped(tmp_path: Path) -> None:
    extracted(made_by_hand((member(f"{ID}/run", mode=0o6755), b"x"), (member(f"{ID}/locked", mode=0), b"y")), tmp_path / "out")
    assert (tmp_path / "out/run").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out/locked").read_bytes() == b"y"


def test_archives_of_several_gzip_members_are_read(tmp_path: Path) -> None:
    tar = gzip.decompress(made_by_hand((member(f"{ID}/a"), b"a" * 5000), (member(f"{ID}/b"), b"b")))
    content = b"".join(gzip.compress(tar[i : i + 700]) for i in range(0, len(tar), 700)) + gzip.compress(b"")
    assert extracted(content, tmp_path / "out") == ["a", "b"]
    assert (tmp_path / "out/a").read_bytes() == b"a" * 5000


def test_a_directory_of_the_id_and_repeated_directories_are_no_harm(tmp_path: Path) -> None:
    directory = tarfile.DIRTYPE
    content = made_by_hand(
        (member(ID, directory), b""),
        (member(f"{ID}/a", directory), b""),
        (member(f"{ID}/a/b"), b"x"),
        (member(f"{ID}/a/", directory), b""),
    )
    assert extracted(content, tmp_path / "out") == ["a", "a/b", "a"]
    assert tree(tmp_path / "out") == {"a": ("directory", None, False), "a/b": ("file", b"x", False)}


LINKS = st.lists(st.sampled_from(["..", ".", "a", "b", "c", "deep"]), min_size=1, max_size=6).map("/".join)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "deep/a", "deep/b", "deep/deep/c"]), LINKS, min_size=1))
def test_no_chain_of_links_leads_out_and_every_other_comes_back(links: dict[str, str]) -> None:
    """The judge is the operating system: it resolves the links as they were meant to be written, in a tree with a world around."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve().joinpath(*["deep"] * 8)
        (root / "deep/deep").mkdir(parents=True)
        for parent in list(root.parents)[:8]:
            for name in "abc":
                (parent / name).mkdir(exist_ok=True)
        for name, target in links.items():
            (root / name).symlink_to(target)
        content = made_by_hand(*((member(f"{ID}/{name}", tarfile.SYMTYPE, target), b"") for name, target in links.items()))
        try:
            extracted(content, Path(directory) / "out")
        except ReadError:
            # It may also lead out and in again, or to where nothing is.
            assert any(".." in target.split("/") for target in links.values())
        else:
            assert (
                tree(Path(directory) / "out").items()
                >= {name: ("link", str(Path(target)), False) for name, target in links.items()}.items()
            )
            for name in links:
                with contextlib.suppress(OSError, RuntimeError):  # it leads nowhere, or round and round
                    assert (root / name).resolve(strict=True).is_relative_to(root)


@settings(max_examples=100)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "deep/a", "deep/b", "deep/deep/c"]), LINKS, min_size=1, max_size=4),
    st.sampled_from([".", "deep"]),
)
def test_every_tree_of_links_that_we_pack_we_also_extract(links: dict[str, str], path: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "tree"
        (root / "deep/deep").mkdir(parents=True)
        (root / "c").write_bytes(b"c")
        for name, target in links.items():
            (root / name).symlink_to(target)
        entries = project_files(root, path)
        assert extracted(packed(entries), Path(directory) / "out") == [entry.name for entry in entries]


# --- damage ---------------------------------------------------------------------------------------------------------


def small_archive(directory: Path) -> bytes:
    make_tree(directory / "tree", {"a": (os.urandom(5_000), False), "b/c": (b"text" * 900, False), "d": (b"", False)})
    return packed(walk(directory / "tree"))


def assert_refused(content: bytes, directory: Path) -> None:
    """Whatever reads it says that it is damaged, and nothing of it stays."""
    for read in (
        lambda: extracted(content, directory / "out", where="checkpoint x"),
        lambda: extracted(content, directory / "out", only="a", where="checkpoint x"),
        lambda: archive.list_files(Held(content), where="checkpoint x"),
        lambda: archive.open_file(Held(content), "a", where="checkpoint x"),
    ):
        with pytest.raises(ReadError, match="checkpoint x is damaged"):
            read()
    assert list((directory / "out").iterdir()) == []


@settings(max_examples=80)
@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_archive_is_never_half_a_success(fraction: float) -> None:
    with tempfile.TemporaryDirectory() as directory:
        content = members_of(small_archive(Path(directory)))
        assert_refused(content[: int(len(content) * fraction)], Path(directory))


@settings(max_examples=40)
@given(st.floats(0, 1, exclude_max=True))
def test_a_tar_that_ends_early_is_refused_although_its_gzip_is_whole(fraction: float) -> None:
    """As when one of several gzip members is lost."""
    with tempfile.TemporaryDirectory() as directory:
        tar = gzip.decompress(small_archive(Path(directory)))
        assert tar.endswith(bytes(1024))
        for cut in (int((len(tar) - 1024) * fraction), int((len(tar) - 1024) * fraction) // 512 * 512):
            assert_refused(gzip.compress(tar[:cut]), Path(directory))


def test_a_header_that_makes_no_sense_does_not_end_an_archive(tmp_path: Path) -> None:
    tar = bytearray(gzip.decompress(small_archive(tmp_path)))
    second = tar.index(f"{ID}/b/c".encode())
    tar[second] ^= 1
    assert_refused(gzip.compress(bytes(tar)), tmp_path)


@pytest.mark.parametrize(
    "rest", [b"garbage", b"\0garbage", gzip.compress(b"more", mtime=0), gzip.compress(b"\0" * 600 + b"more", mtime=0)]
)
def test_what_follows_the_end_is_refused(rest: bytes, tmp_path: Path) -> None:
    assert_refused(small_archive(tmp_path) + rest, tmp_path)


def test_padding_after_the_end_is_no_damage(tmp_path: Path) -> None:
    content = small_archive(tmp_path)
    assert extracted(content + gzip.compress(bytes(9000)) + bytes(100), tmp_path / "out") == ["a", "b/c", "d"]


def header(**fields: bytes) -> bytes:
    """Return a tar header with raw fields that no writer makes."""
    block = bytearray(member(f"{ID}/a").tobuf(tarfile.USTAR_FORMAT))
    for name, value in fields.items():
        start = {"size": 124, "mtime": 136, "type": 156}[name]
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize(
    "tar",
    [
        header(size=b"\xff" * 12),  # negative
        header(size=b"\x80" + b"\0" * 3 + b"\x7f" + b"\0" * 7),  # more than there is
        header(type=b"x", size=b"77777777777\0"),  # an extended header that would fill the memory
        header(type=b"L", size=b"77777777777\0"),
        header(type=b"x", size=b"00000000011\0") + b"9 path=x\n".ljust(512, b"\0"),  # and then nothing
        (header(type=b"x", size=b"00000177000\0") + bytes(65_024)) * 400,
    ],
    ids=["negative", "huge", "pax bomb", "longname bomb", "pax alone", "pax chain"],
)
def test_headers_that_no_writer_makes_are_refused_in_little_memory(tar: bytes, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    content = gzip.compress(tar + bytes(100_000_000))
    tracemalloc.start()
    with pytest.raises(ReadError):
        extracted(content, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000_000
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("mtime", [b"\x80" + b"\xff" * 11, b"\xff" * 12])
def test_a_time_that_nothing_can_hold_is_none(mtime: bytes, tmp_path: Path) -> None:
    content = gzip.compress(header(mtime=mtime) + bytes(1024))
    [file] = archive.list_files(Held(content))
    assert file.modified.timestamp() == 0
    assert extracted(content, tmp_path / "out") == ["a"]


def test_what_cannot_be_written_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    content = made_by_hand((member(f"{ID}/dir/a"), b"x"), (named(f"{ID}/{'long' * 100}"), b"y"))
    with pytest.raises(WriteError, match="cannot write"):
        extracted(content, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_error_takes_back_only_what_it_wrote(tmp_path: Path) -> None:
    make_tree(tmp_path / "out", {"dir/kept": (b"kept", False)})
    content = made_by_hand((member(f"{ID}/dir/a"), b"x"), (member(f"{ID}/pipe", tarfile.FIFOTYPE), b""))
    with pytest.raises(ReadError):
        extracted(content, tmp_path / "out")
    assert tree(tmp_path / "out") == {"dir": ("directory", None, False), "dir/kept": ("file", b"kept", False)}


def test_a_link_in_the_target_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/dir").symlink_to(tmp_path / "outside")
    (tmp_path / "out/file").symlink_to(tmp_path / "outside/file")
    for name in ("dir/a", "file"):
        with pytest.raises(WriteError):
            extracted(made_by_hand((member(f"{ID}/{name}"), b"x")), tmp_path / "out")
    assert list((tmp_path / "outside").iterdir()) == []


def test_whichever_bit_is_turned_it_is_refused_or_all_the_same(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"a": (b"content " * 20, True), "b": (os.urandom(40), False)})
    whole = packed(walk(tmp_path / "tree"))
    expected = everything(whole)
    for position in range(8 * len(whole)):
        altered = bytearray(whole)
        altered[position // 8] ^= 1 << position % 8
        try:
            found = everything(bytes(altered))
        except ReadError:
            continue
        # Some bits mean nothing, and others lead to the same content: in a repetition, a copy from one period further back.
        assert found == expected


def test_an_archive_is_refused_wherever_it_is_cut_off(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"a": (b"content " * 20, True), "b": (os.urandom(40), False)})
    whole = packed(walk(tmp_path / "tree"))
    end_of_members = len(members_of(whole))
    for end in range(end_of_members):
        with pytest.raises(ReadError):
            everything(whole[:end])
    for end in range(end_of_members, len(whole)):
        # Without its index it may be read as an archive that has none.
        with contextlib.suppress(ReadError):
            assert everything(whole[:end]) == everything(whole)


def everything(content: bytes) -> list[tuple[archive.ArchivedFile, bytes]]:
    """Return all that an archive says."""
    files = archive.list_files(Held(content))
    return [(replace(file, sha256=None, digests=None), archive.open_file(Held(content), file.path).read()) for file in files]


@settings(max_examples=100)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_an_altered_byte_is_found_or_does_no_harm(fraction: float, bits: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        make_tree(Path(directory) / "tree", {"a": (b"content " * 500, False), "b": (b"\0\1\2" * 300, False)})
        content = bytearray(packed(walk(Path(directory) / "tree")))
        content[int(len(content) * fraction)] ^= bits
        try:
            extracted(bytes(content), Path(directory) / "out")
        except ReadError:
            return
        # Some bits mean nothing for the content: in gzip's header, and where its last byte is filled up.
        assert tree(Path(directory) / "out") == tree(Path(directory) / "tree")


@pytest.mark.parametrize(
    "content", [b"", b"not gzip at all", gzip.compress(b"", mtime=0), gzip.compress(b"not tar" * 200, mtime=0)]
)
def test_what_is_no_archive_is_damaged(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        extracted(content, tmp_path / "out")
