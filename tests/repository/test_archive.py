"""Archives are read by everybody, are the same for the same tree, and are never trusted."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.capture.files import FileEntry, project_files
from keepsake.exceptions import DoesNotExist, ReadError
from keepsake.repository import archive

ID = "ab" * 32

NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/\\"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200 and not name.startswith(".") and name == name.strip()
)
FILES = st.dictionaries(
    st.lists(NAMES.map(str.lower), min_size=1, max_size=5).map("/".join),
    st.tuples(st.one_of(st.binary(max_size=2000), st.integers(1, 3_000_000).map(lambda n: bytes([n % 251]) * n)), st.booleans()),
    max_size=6,
)


def make_tree(root: Path, files: dict[str, tuple[bytes, bool]]) -> None:
    for name, (content, executable) in files.items():
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.write_bytes(content)
                path.chmod(0o755 if executable else 0o644)
        except (FileExistsError, NotADirectoryError):
            continue  # a name that is a file and a directory at once


def tree(root: Path) -> dict[str, tuple[str, object, bool]]:
    found: dict[str, tuple[str, object, bool]] = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path), False)
        elif path.is_dir():
            found[name] = ("directory", None, False)
        else:
            found[name] = ("file", path.read_bytes(), os.access(path, os.X_OK))
    return found


def packed(entries: list[FileEntry]) -> bytes:
    stream = archive.pack(entries, ID)
    content = stream.read()
    assert content is not None
    assert stream.info.size_bytes == len(content)
    return content


def extracted(content: bytes, target: Path, **options: str) -> list[str]:
    target.mkdir(exist_ok=True)
    return archive.extract(io.BytesIO(content), target, **options)


# --- round trips ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(FILES)
def test_any_tree_comes_back_through_any_reader(files: dict[str, tuple[bytes, bool]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "tree"
        root.mkdir()
        make_tree(root, files)
        expected = tree(root)
        entries = [entry for entry in walk(root)]
        content = packed(entries)

        extracted(content, Path(directory) / "ours")
        assert tree(Path(directory) / "ours") == expected

        (Path(directory) / "python").mkdir()
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(Path(directory) / "python", filter="data")
        (Path(directory) / "gnu").mkdir()
        subprocess.run(["tar", "xzf", "-", "-C", str(Path(directory) / "gnu")], input=content, check=True)
        for reader in ("python", "gnu"):
            got = tree(Path(directory) / reader / ID) if entries else {}
            assert {name: one for name, one in got.items() if one[0] != "directory"} == {
                name: one for name, one in expected.items() if one[0] != "directory"
            }
        assert [file.path for file in archive.list_files(io.BytesIO(content))] == [entry.name for entry in entries]
        for name, (kind, data, _) in expected.items():
            if kind == "file":
                assert archive.open_file(io.BytesIO(content), name).read() == data


def walk(root: Path) -> list[FileEntry]:
    paths = [path for path in root.rglob("*") if not path.is_dir()]
    return sorted(
        (FileEntry(path.relative_to(root).as_posix(), path, "file") for path in paths), key=lambda entry: entry.name
    )


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
    described = {file.path: file for file in archive.list_files(io.BytesIO(content))}
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


def test_a_large_file_is_packed_and_extracted_in_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(200_000_000)
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    with archive.pack([FileEntry("large", tmp_path / "large", "file")], ID) as stream, (tmp_path / "archive").open("wb") as target:
        while chunk := stream.read(1 << 20):
            target.write(chunk)
    with (tmp_path / "archive").open("rb") as file:
        archive.extract(file, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert (tmp_path / "out" / "large").stat().st_size == 200_000_000


# --- what is wanted of it -------------------------------------------------------------------------------------------


def test_one_file_or_directory_is_taken_by_whole_segments(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"model": (b"1", False), "model2": (b"2", False), "dir/a": (b"a", False), "dir2/a": (b"b", False)})
    content = packed(walk(tmp_path / "tree"))
    assert extracted(content, tmp_path / "file", only="model") == ["model"]
    assert extracted(content, tmp_path / "directory", only="dir/") == ["dir/a"]
    assert len(extracted(content, tmp_path / "all", only=".")) == 4
    with pytest.raises(DoesNotExist, match='no file "mode" in checkpoint x') as caught:
        extracted(content, tmp_path / "none", only="mode", where="checkpoint x")
    assert "model" in caught.value.facts[0]
    with pytest.raises(DoesNotExist):
        archive.open_file(io.BytesIO(content), "dir")


# --- sources that change --------------------------------------------------------------------------------------------


def test_a_small_file_that_grows_meanwhile_is_what_it_was_when_it_was_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\n")
    stream = archive.pack([FileEntry("log", tmp_path / "log", "file")], ID)
    (tmp_path / "log").write_bytes(b"one\ntwo\n")
    content = stream.read()
    assert content is not None
    assert archive.open_file(io.BytesIO(content), "log").read() == b"one\ntwo\n"


def test_a_large_file_that_shrinks_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    stream = archive.pack([FileEntry("large", path, "file")], ID)
    stream.read(10)
    os.truncate(path, 2_000_000)
    with pytest.raises(ReadError, match="changed while it was being saved"):
        stream.read()


def test_a_file_that_vanishes_meanwhile_is_left_out_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(tmp_path / "tree", {"a": (b"a", False), "b": (b"b", False)})
    stream = archive.pack(walk(tmp_path / "tree"), ID)
    (tmp_path / "tree" / "a").unlink()
    content = stream.read()
    assert content is not None
    assert [file.path for file in archive.list_files(io.BytesIO(content))] == ["b"]
    assert "vanished" in capsys.readouterr().err


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
    "a file below a file": lambda outside: [(member(f"{ID}/a"), b"x"), (member(f"{ID}/a/b"), b"y")],
}


@pytest.mark.parametrize("what", HARMFUL)
def test_a_harmful_archive_is_refused_and_nothing_outside_is_touched(what: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    content = made_by_hand(*HARMFUL[what](outside))
    with pytest.raises(ReadError, match="not safe|cannot extract") as caught:
        extracted(content, tmp_path / "target", where="checkpoint x")
    assert "checkpoint x" in caught.value.message
    assert tree(outside) == {"precious": ("file", b"mine", False)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "target"]
    assert not any(path.is_symlink() and not path.resolve().is_relative_to(tmp_path / "target") for path in (tmp_path / "target").rglob("*"))


def test_bits_that_change_who_runs_a_file_are_dropped(tmp_path: Path) -> None:
    extracted(made_by_hand((member(f"{ID}/run", mode=0o6755), b"x"), (member(f"{ID}/locked", mode=0), b"y")), tmp_path / "out")
    assert (tmp_path / "out/run").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out/locked").read_bytes() == b"y"


def test_archives_of_several_gzip_members_are_read(tmp_path: Path) -> None:
    tar = gzip.decompress(made_by_hand((member(f"{ID}/a"), b"a" * 5000), (member(f"{ID}/b"), b"b")))
    content = b"".join(gzip.compress(tar[i : i + 700]) for i in range(0, len(tar), 700)) + gzip.compress(b"")
    assert extracted(content, tmp_path / "out") == ["a", "b"]
    assert (tmp_path / "out/a").read_bytes() == b"a" * 5000


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.2, 0.5, 0.9, 0.99])
def test_a_truncated_archive_is_never_half_a_success(fraction: float, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"a": (os.urandom(50_000), False), "b": (os.urandom(50_000), False)})
    content = packed(walk(tmp_path / "tree"))
    cut = content[: int(len(content) * fraction)]
    for read in (
        lambda: extracted(cut, tmp_path / "out"),
        lambda: archive.list_files(io.BytesIO(cut)),
        lambda: archive.open_file(io.BytesIO(cut), "a"),
    ):
        with pytest.raises(ReadError, match="damaged"):
            read()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_altered_byte_is_found_or_does_no_harm(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        make_tree(Path(directory) / "tree", {"a": (b"content " * 500, False), "b": (b"\0\1\2" * 300, False)})
        content = bytearray(packed(walk(Path(directory) / "tree")))
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        try:
            extracted(bytes(content), Path(directory) / "out")
        except ReadError:
            return
        # gzip's header holds bytes that mean nothing for the content.
        assert position < 10
        assert tree(Path(directory) / "out") == tree(Path(directory) / "tree")


@pytest.mark.parametrize("content", [b"", b"not gzip at all", gzip.compress(b""), gzip.compress(b"not tar" * 200)])
def test_what_is_no_archive_is_damaged(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        extracted(content, tmp_path / "out")
