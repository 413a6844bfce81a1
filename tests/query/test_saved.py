"""What the sides of a comparison have saved: what is read of it, and what differs."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pytest

from keepsake.capture.files import FileEntry
from keepsake.exceptions import DoesNotExist, ReadError
from keepsake.query import code
from keepsake.query.compare import Side, compare
from keepsake.query.saved import MISSING, NOT_STORED_YET, NOTHING_SAVED, SavedFiles, TreeComparison
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage import MemoryStorage
from tests.archives import store_archive

Content = Mapping[str, bytes]


class CountingStorage(MemoryStorage):
    """Keeps what was read: keys with the number of bytes, and the keys of what was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[tuple[str, int]] = []
        self.opened: list[str] = []

    def read_range(self, key: str, start: int, length: int) -> bytes:
        found = super().read_range(key, start, length)
        self.ranges.append((key, len(found)))
        return found

    def open(self, key: str) -> BinaryIO:
        self.opened.append(key)
        return super().open(key)


class Saved:
    """A repository in memory, and a project directory.

    Args:
        directory: An empty directory for all of it.
        stack: Closes what was opened.
    """

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.storage = CountingStorage()
        self.repository = Repository(self.storage)
        self.project = directory / "project"
        self.project.mkdir()
        self._sources = directory / "sources"
        self._stack = stack
        self._count = 0

    def side(self, code: Content | None = None, files: Content | None = None, *, path: str = ".", saved_as: str = "out") -> Side:
        """Save an experiment with one checkpoint."""
        record = ExperimentRecord(layout.new_id(), utc_now(), outcome="finished")
        checkpoint = CheckpointRecord(layout.new_id(), utc_now(), step=1)
        if code is not None:
            record.path, record.archive = path, self._store(layout.experiment_archive_key(record.id), record.id, code)
        if files is not None:
            key = layout.checkpoint_archive_key(checkpoint.id)
            checkpoint.path, checkpoint.archive = saved_as, self._store(key, checkpoint.id, files)
        record.checkpoints.append(checkpoint)
        return Side(record, checkpoint)

    def _store(self, key: str, id: str, files: Content):
        self._count += 1
        root = self._sources / str(self._count)
        write(root, files)
        return store_archive(self.repository, key, [FileEntry(name, root / name, "file") for name in files], id)

    def compare(self, left: Side, right: Side, *globs: str) -> tuple[TreeComparison, TreeComparison]:
        """Return what differs in code and files."""
        found = compare(left, right, ["code", "files"], self.files(*globs))
        assert found.code is not None
        assert found.files is not None
        return found.code, found.files

    def files(self, *globs: str) -> SavedFiles:
        return SavedFiles(self.repository, self.project, self._stack, globs)


def write(root: Path, files: Content) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Saved]:
    with ExitStack() as stack:
        yield Saved(tmp_path, stack)


def statuses(tree: TreeComparison) -> dict[str, str]:
    return {pair.path: pair.status for pair in tree.differing}


def lines(tree: TreeComparison) -> dict[str, tuple[int, int] | str]:
    """Return for each file that differs how many lines, or as what it was compared."""
    return {c.pair.path: (c.edit.added, c.edit.deleted) if c.edit is not None else c.form for c in tree.changes}


# --- what is read -------------------------------------------------------------------------------------------------------


def test_only_the_indexes_and_the_files_that_differ_are_read(saved: Saved) -> None:
    luck = random.Random(5)
    same = {f"lib/{number}.bin": luck.randbytes(20_000) for number in range(200)} | {"weights": luck.randbytes(8_000_000)}
    left, right = (saved.side(same | {"train.py": text}, {"model.pth": text * 1000}) for text in (b"lr = 1\n", b"lr = 2\n"))
    tree, files = saved.compare(left, right)
    assert (lines(tree), len(tree.pairs), statuses(files)) == ({"train.py": (1, 1)}, 202, {"model.pth": "changed"})
    assert saved.storage.opened == []
    # Of each code archive the end with its index, and the one member with train.py; of each checkpoint the end alone.
    assert len(saved.storage.ranges) == 2 * 2 + 2
    assert sum(length for _, length in saved.storage.ranges) < 2_500_000


def test_of_trees_that_are_the_same_nothing_but_the_indexes_is_read(saved: Saved) -> None:
    left, right = saved.side({"a": b"a" * 3_000_000, "b": b"b"}, {}), saved.side({"a": b"a" * 3_000_000, "b": b"b"}, {})
    tree, files = saved.compare(left, right)
    assert not tree.differs
    assert not files.differs
    assert len(saved.storage.ranges) == 4


def test_an_archive_is_opened_once_however_often_it_is_compared(saved: Saved) -> None:
    first, *others = (saved.side({"a": b"%d\n" % number}) for number in range(4))
    files = saved.files()
    found = [compare(first, other, ["code"], files).code for other in others]
    assert [tree.added for tree in found if tree is not None] == [1, 1, 1]
    indexes = [key for key, length in saved.storage.ranges if length > 200]
    assert len(indexes) == len(set(indexes)) == 4


def test_archives_of_the_original_have_no_index_and_are_read_once(saved: Saved) -> None:
    left, right = (saved.side({"a": b"a\n", "same": b"s", "t": text}, {"m": text}) for text in (b"1\n", b"2\n"))
    for key in [info.key for info in saved.storage.list("experiments/")] + [
        info.key for info in saved.storage.list("checkpoints/")
    ]:
        saved.storage.write(key, gzip.compress(gzip.decompress(saved.storage.read(key))))
    tree, files = saved.compare(left, right)
    assert (lines(tree), statuses(files)) == ({"t": (1, 1)}, {"m": "changed"})
    assert len(saved.storage.opened) == len(set(saved.storage.opened)) == 4


def test_large_files_of_which_only_sections_have_digests(saved: Saved) -> None:
    large = random.Random(1).randbytes(20_000_000)
    other = large[:-1] + bytes([large[-1] ^ 1])
    first, second, third = (saved.side(None, {"weights": content}) for content in (large, large, other))
    assert second.checkpoint is not None
    key = layout.checkpoint_archive_key(second.checkpoint.id)
    saved.storage.write(key, gzip.compress(gzip.decompress(saved.storage.read(key)), 1))  # as keepsake 0.4.2 writes it
    write(saved.project, {"weights": large})
    present = Side(None)
    assert [saved.compare(first, side)[1].differs for side in (second, third)] == [False, True]
    assert [saved.compare(second, side)[1].differs for side in (first, third)] == [False, True]
    for side in (first, second, third):
        assert side.checkpoint is not None
        side.checkpoint.path = "weights"
    assert [saved.compare(side, present)[1].differs for side in (first, second, third)] == [False, False, True]
    [pair] = saved.compare(third, present)[1].pairs
    assert pair.left is not None
    assert pair.right is not None
    assert (pair.left.sha256, pair.right.sha256) == (None, None)
    assert pair.left.digest != pair.right.digest
    [pair] = saved.compare(first, present)[1].pairs
    assert pair.left is not None
    assert pair.right is not None
    assert pair.left.digest == pair.right.digest


def test_long_files_are_not_read(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MAX_TEXT_BYTES", 1000)
    luck = random.Random(3)
    left, right = (saved.side({"data.csv": luck.randbytes(5_000_000)}) for _ in range(2))
    tree, _ = saved.compare(left, right)
    assert lines(tree) == {"data.csv": "large"}
    assert sum(length for _, length in saved.storage.ranges) < 200_000


# --- what differs -------------------------------------------------------------------------------------------------------


def test_every_kind_of_change(saved: Saved) -> None:
    left = saved.side({"gone": b"g\n", "same": b"s\n", "text": b"a\nb\n", "image": b"\0\1", "empty": b""})
    right = saved.side({"new": b"1\n2\n", "same": b"s\n", "text": b"a\nc\nd\n", "image": b"\0\2", "filled": b"x"})
    tree, _ = saved.compare(left, right)
    assert statuses(tree) == {
        "empty": "deleted",
        "filled": "added",
        "gone": "deleted",
        "image": "changed",
        "new": "added",
        "text": "changed",
    }
    assert lines(tree) == {
        "empty": (0, 0),
        "filled": (1, 0),
        "gone": (0, 1),
        "image": "binary",
        "new": (2, 0),
        "text": (2, 1),
    }
    assert (tree.added, tree.deleted) == (5, 2)


def test_of_a_notebook_only_what_a_person_wrote_counts(saved: Saved) -> None:
    def notebook(source: str, output: str) -> bytes:
        cell = {"cell_type": "code", "source": source.splitlines(keepends=True), "outputs": [output], "execution_count": 7}
        return json.dumps({"cells": [cell], "nbformat": 4}).encode()

    left = saved.side({"edited.ipynb": notebook("x = 1\ny", "1"), "run.ipynb": notebook("x", "1"), "torn.ipynb": b"{"})
    right = saved.side({"edited.ipynb": notebook("x = 2\ny", "2"), "run.ipynb": notebook("x", "2"), "torn.ipynb": b"{}\n"})
    tree, _ = saved.compare(left, right)
    assert lines(tree) == {"edited.ipynb": (1, 1), "run.ipynb": (0, 0), "torn.ipynb": (1, 1)}
    assert [change.form for change in tree.changes] == ["notebook", "notebook", "text"]
    assert tree.differs
    # A patch is for programs: there the whole file counts.
    assert [change.form for change in saved.files().code_changes(left, right)] == ["text", "text", "text"]


def test_paths_are_chosen_by_patterns_and_directories(saved: Saved) -> None:
    left = saved.side(dict.fromkeys(("train.py", "lib/net.py", "lib/data.csv", "library.py"), b"1\n"))
    right = saved.side(dict.fromkeys(("train.py", "lib/net.py", "lib/data.csv", "library.py"), b"2\n"))
    assert statuses(saved.compare(left, right, "lib")[0]).keys() == {"lib/net.py", "lib/data.csv"}
    assert statuses(saved.compare(left, right, "./lib/")[0]).keys() == {"lib/net.py", "lib/data.csv"}
    assert statuses(saved.compare(left, right, "*.py")[0]).keys() == {"train.py", "lib/net.py", "library.py"}
    assert statuses(saved.compare(left, right, "train.py", "*.csv")[0]).keys() == {"train.py", "lib/data.csv"}
    assert not saved.compare(left, right, "nothing")[0].differs


# --- what is not there --------------------------------------------------------------------------------------------------


def test_sides_without_files_say_why(saved: Saved) -> None:
    full, bare, coming = saved.side({"a": b"1"}, {"m": b"1"}), saved.side(), saved.side({"a": b"1"}, {"m": b"1"})
    assert coming.experiment is not None
    assert coming.checkpoint is not None
    coming.experiment.archive_pending = coming.checkpoint.archive_pending = True
    for tree in saved.compare(full, bare):
        assert (tree.absent, tree.differs) == (("", NOTHING_SAVED), True)
    for tree in saved.compare(bare, bare):
        assert (tree.absent, tree.differs) == ((NOTHING_SAVED, NOTHING_SAVED), False)
    for tree in saved.compare(coming, full):
        assert (tree.absent, tree.differs) == ((NOT_STORED_YET, ""), True)
    with pytest.raises(
        DoesNotExist, match=f"no code of experiment {layout.short_id(coming.experiment.id)} to compare: {NOT_STORED_YET}"
    ):
        list(saved.files().code_changes(full, coming))


def test_an_archive_that_is_missing_leaves_the_rest_to_be_compared(saved: Saved) -> None:
    left, right = saved.side({"a": b"1"}), saved.side({"a": b"1"})
    assert right.experiment is not None
    saved.storage.delete([layout.experiment_archive_key(right.experiment.id)])
    compared, _ = saved.compare(left, right)
    assert (compared.absent, compared.differs) == (("", MISSING), True)
    with pytest.raises(DoesNotExist, match=MISSING):
        list(saved.files().code_changes(left, right))


def test_a_file_that_is_too_long_for_a_patch_is_an_error(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MAX_PATCHED_BYTES", 3)
    with pytest.raises(ReadError, match=r"long.bin is too long for a patch \(4 bytes\)"):
        list(saved.files().code_changes(saved.side({"long.bin": b"1234"}), saved.side({})))


# --- the working directory ----------------------------------------------------------------------------------------------


def test_the_working_directory_is_what_would_be_saved_of_it_now(saved: Saved) -> None:
    side = saved.side(
        {"train.py": b"1\n", "gone.py": b"1\n", "same.py": b"1\n"}, {"out/model.pth": b"12"}, saved_as="out/model.pth"
    )
    write(saved.project, {"train.py": b"2\n", "same.py": b"1\n", "new.py": b"1\n", ".git/config": b"x", "cache/big": b"x"})
    write(saved.project, {".keepsakeignore": b"cache/\n.keepsakeignore\nout/\n", ".env": b"TOKEN=1", "out/model.pth": b"12"})
    tree, files = saved.compare(side, Side(None))
    found = statuses(tree)
    assert {name: found.get(name) for name in ("train.py", "gone.py", "new.py")} == {
        "train.py": "changed",
        "gone.py": "deleted",
        "new.py": "added",
    }
    assert not found.keys() & {"same.py", ".git/config", "cache/big", "out/model.pth"}
    assert not files.differs
    back, _ = saved.compare(Side(None), side)
    assert {path: status for path, status in statuses(back).items() if path == "gone.py"} == {"gone.py": "added"}


def test_only_the_path_that_was_saved_is_looked_at(saved: Saved) -> None:
    write(saved.project, {"src/a.py": b"1\n", "other.py": b"1\n"})
    tree, _ = saved.compare(saved.side({"src/a.py": b"1\n"}, path="src"), Side(None))
    assert not tree.differs
    tree, files = saved.compare(saved.side({"lib/a.py": b"1\n"}, {"m": b"1"}, path="lib", saved_as="m"), Side(None))
    assert (tree.absent, files.absent) == (("", "no lib"), ("", "no m"))


def test_a_file_of_the_working_directory_is_read_only_where_its_length_is_the_same(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keepsake.capture import files as capture

    side = saved.side(None, {"same": b"1234", "longer": b"123"}, saved_as=".")
    write(saved.project, {"same": b"1234", "longer": b"12345", "new": b"12"})
    read: list[str] = []
    open_plain = capture.open_plain
    monkeypatch.setattr(capture, "open_plain", lambda path: read.append(path.name) or open_plain(path))
    _, files = saved.compare(side, Side(None))
    assert statuses(files) == {"longer": "changed", "new": "added"}
    assert read == ["same"]


@pytest.mark.parametrize("path", ["/etc", "../elsewhere", "a/../../b"])
def test_a_record_leads_nowhere_outside_of_the_project(saved: Saved, path: str) -> None:
    side = saved.side({"a": b"1"}, {"m": b"1"}, path=path, saved_as=path)
    for tree in saved.compare(side, Side(None)):
        assert tree.absent[0] == ""
        assert tree.absent[1]


def test_an_executable_file_and_a_link_differ_from_a_plain_file(saved: Saved) -> None:
    side = saved.side({"run.sh": b"1\n", "file": b"target"})
    write(saved.project, {"run.sh": b"1\n", "target": b"t"})
    (saved.project / "run.sh").chmod(0o755)
    (saved.project / "file").symlink_to("target")
    tree, _ = saved.compare(side, Side(None))
    assert [(pair.path, pair.status) for pair in tree.differing] == [
        ("file", "deleted"),
        ("file", "added"),
        ("run.sh", "changed"),
        ("target", "added"),
    ]
