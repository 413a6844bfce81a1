"""An archive that is listed, and of which some files are read: with as few reads as possible."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.exceptions import ReadError
from keepsake.repository import archive
from keepsake.repository.archive import Digests, index
from keepsake.repository.archive.index import SECTION_BYTES
from tests.repository.test_archive_index import Ranges, archived, mixed_tree, random_bytes

Mixed = tuple[bytes, dict[str, bytes]]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    root = tmp_path_factory.mktemp("tree")
    files = mixed_tree(root)
    return archived(root)[0], files


def without_index(content: bytes) -> bytes:
    """Return the same archive as keepsake 0.4.2 writes it."""
    return gzip.compress(gzip.decompress(content), 1)


@pytest.mark.parametrize("has_index", [True, False])
def test_entries_and_contents_are_those_of_the_files(mixed: Mixed, has_index: bool) -> None:
    content, files = mixed
    with archive.opened(Ranges(content if has_index else without_index(content))) as opened:
        entries = {entry.path: entry for entry in opened.entries() if entry.kind == "file"}
        assert {name: entry.digests for name, entry in entries.items()} == {
            name: Digests.of_content([data], SECTION_BYTES) for name, data in files.items()
        }
        assert entries["a"].sha256 == hashlib.sha256(b"a").hexdigest()
        assert {name: b"".join(opened.content(name)) for name in files} == files
        assert dict(zip(sorted(files), opened.contents(sorted(files)), strict=True)) == files
        assert next(entry for entry in opened.entries() if entry.path == "link").link_target == "deep"


@settings(max_examples=40)
@given(data=st.data())
def test_any_files_come_in_the_order_in_which_they_are_asked_for(mixed: Mixed, data: st.DataObject) -> None:
    content, files = mixed
    names = data.draw(st.lists(st.sampled_from(sorted(files)), max_size=8))
    with archive.opened(Ranges(content)) as opened:
        assert list(opened.contents(names)) == [files[name] for name in names]


def test_entries_alone_read_the_index_alone(mixed: Mixed) -> None:
    source = Ranges(mixed[0])
    with archive.opened(source) as opened:
        opened.entries()
    assert source.opened == 0
    assert sum(length for _, length in source.calls) <= 2 * index.TAIL_BYTES


def test_many_small_files_beside_each_other_are_read_at_once(mixed: Mixed) -> None:
    content, files = mixed
    source = Ranges(content)
    names = sorted(name for name in files if name.startswith("code/"))
    with archive.opened(source) as opened:
        opened.entries()
        before = len(source.calls)
        assert list(opened.contents(names)) == [files[name] for name in names]
    assert len(names) == 600
    # They take no more than two members, of which each comes with a file of another name too.
    assert len(source.calls) <= before + 2
    assert source.opened == 0


def test_no_member_is_read_twice(mixed: Mixed) -> None:
    content, files = mixed
    source = Ranges(content)
    with archive.opened(source) as opened:
        before = len(source.calls)
        list(opened.contents(sorted(files)))
    ends = [start + length for start, length in source.calls[before:]]
    assert ends == sorted(ends)
    assert all(start >= end for (start, _), end in zip(source.calls[before + 1 :], ends, strict=False))


def test_an_archive_without_an_index_is_read_once_from_its_beginning(mixed: Mixed) -> None:
    content, files = mixed
    source = Ranges(without_index(content))
    with archive.opened(source) as opened:
        opened.entries()
        assert list(opened.contents(["log", "weights"])) == [files["log"], files["weights"]]
        assert list(opened.contents(["log"])) == [files["log"]]
        assert b"".join(opened.content("weights")) == files["weights"]
    assert source.opened == 1
    assert sum(length for _, length in source.calls) <= index.TAIL_BYTES  # to see that it has no index


def test_entries_alone_of_an_archive_without_an_index_keep_no_copy(mixed: Mixed) -> None:
    content, files = mixed
    source = Ranges(without_index(content))
    with archive.opened(source, with_contents=False) as opened:
        assert {entry.path for entry in opened.entries() if entry.kind == "file"} == files.keys()
        assert source.opened == 1
        assert b"".join(opened.content("weights")) == files["weights"]
    assert source.opened == 2


def test_a_file_that_was_altered_is_not_given_out(tmp_path: Path) -> None:
    weights = random_bytes(10_000)
    (tmp_path / "weights").write_bytes(weights)
    content, _ = archived(tmp_path)
    place = content.index(weights[5_000:5_100])
    damaged = content[:place] + bytes([weights[5_000] ^ 1]) + content[place + 1 :]
    with archive.opened(Ranges(damaged)) as opened, pytest.raises(ReadError, match="weights does not match its sha256"):
        list(opened.contents(["weights"]))
