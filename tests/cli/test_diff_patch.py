"""``keepsake diff A B --only code | git apply`` makes the second tree of the first one, whatever is in them."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from keepsake import cli
from keepsake.capture.files import FileEntry
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import ExperimentRecord
from keepsake.repository.repository import Repository
from tests.archives import store_archive

A, B = ("a" * layout.ID_LENGTH, "b" * layout.ID_LENGTH)


@dataclass(frozen=True)
class File:
    """What lies at a path."""

    content: bytes = b""
    is_executable: bool = False
    is_link: bool = False


Files = Mapping[str, File]

# --- random trees -------------------------------------------------------------------------------------------------------

odd_chars = st.sampled_from("ab \"'\\\t\n\r\x01é模$*?[]{}~#%-+@,:;&|<>")
odd_names = st.sampled_from(["train.py", "a b", "x b", "b", "-n", " ", '"', "\udcff", "e\u0301", "_dev_null"])
names = st.text(st.sampled_from("ab") | odd_chars, min_size=1, max_size=3) | odd_names
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
odd_lines = st.sampled_from([b"\n", b"a\r\n", b"\r\n", b"\r", b"--- a/x\n", b"+++ b/x\n", b"@@ -1 +1 @@\n"])
lines = st.sampled_from([b"a\n", b"b\n", b"c\n"]) | odd_lines | st.binary(max_size=4)
texts = st.lists(lines, max_size=30).map(b"".join)
files = st.builds(File, texts | st.binary(max_size=200), st.booleans())
# Never to each other: below a link that leads to itself Git cannot make anything.
targets = st.sampled_from([b".", b"nowhere", b"no/where", "\né ".encode()])
links = st.builds(File, targets, st.just(False), st.just(True))
things = files | links


@st.composite
def trees(draw: st.DrawFn) -> tuple[Files, Files]:
    """Return two trees with many paths in common, some of them files in one and directories in the other."""
    pool = draw(st.lists(paths, min_size=1, max_size=5, unique=True))
    deeper = [f"{path}/{draw(names)}" for path in draw(st.lists(st.sampled_from(pool), max_size=2, unique=True))]
    first, second = {}, {}
    for path in [*pool, *deeper]:
        where = draw(st.sampled_from(["left", "right", "both", "both", "edited", "edited"]))
        thing = draw(things)
        if where != "right":
            first[path] = thing
        if where != "left":
            second[path] = draw(edited(thing)) if where == "edited" else thing
    order = draw(st.permutations([*pool, *deeper]))
    return tree_of(first, order), tree_of(second, order)


@st.composite
def edited(draw: st.DrawFn, thing: File) -> File:
    """Return something that has most lines in common."""
    if thing.is_link or draw(st.booleans()):
        return draw(things)
    kept = thing.content.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(kept)))
        kept[place : place + draw(st.integers(0, 2))] = draw(st.lists(lines, max_size=2))
    return File(b"".join(kept), draw(st.booleans()))


def tree_of(things: Files, order: list[str]) -> Files:
    """Return those of them that can be in one tree: nothing lies below a file."""
    kept: dict[str, File] = {}
    for path in (path for path in order if path in things):
        above = {path.rsplit("/", count)[0] for count in range(1, path.count("/") + 1)}
        if not above & kept.keys() and not any(other.startswith(f"{path}/") for other in kept):
            kept[path] = things[path]
    return kept


# --- from one to the other ----------------------------------------------------------------------------------------------


def write(tree: Files, directory: Path) -> list[FileEntry]:
    directory.mkdir()
    for path, file in tree.items():
        place = directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.is_link:
            place.symlink_to(os.fsdecode(file.content))
        else:
            place.write_bytes(file.content)
            place.chmod(0o755 if file.is_executable else 0o644)
    return [
        FileEntry(path, directory / path, "link" if file.is_link else "file", os.fsdecode(file.content) if file.is_link else None)
        for path, file in tree.items()
    ]


def read(directory: Path) -> Files:
    found = {}
    for parent, directories, names in os.walk(directory):
        for name in [*names, *(name for name in directories if (Path(parent) / name).is_symlink())]:
            path = Path(parent) / name
            if path.is_symlink():
                file = File(os.fsencode(path.readlink()), False, True)
            else:
                file = File(path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
            found[path.relative_to(directory).as_posix()] = file
    return found


def store(root: Path, code: Mapping[str, list[FileEntry]]) -> None:
    repository = Repository.at(f"file://{root}")
    repository.prepare()
    for id, entries in code.items():
        archive = store_archive(repository, layout.experiment_archive_key(id), entries, id)
        repository.save(ExperimentRecord(id, utc_now(), path=".", archive=archive, outcome="finished"))


def printed(*arguments: str) -> bytes:
    """Return what the command line prints into a pipe."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with redirect_stdout(out):
        assert cli.run(list(arguments)) == 0
    return out.buffer.getvalue()  # type: ignore[attr-defined]


def git_apply(patch: bytes, directory: Path, *options: str) -> None:
    env = {"GIT_CEILING_DIRECTORIES": str(directory.parent), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", "apply", *options, "-"], input=patch, cwd=directory, capture_output=True, env={**os.environ, **env}, timeout=60
    )
    assert done.returncode == 0, (done.stderr.decode(), patch)


@settings(max_examples=150)
@given(trees(), st.sampled_from([1, 3, 10]))
@example(({"x": File(b"a")}, {"x": File(b"a", True)}), 3)
@example(({"x": File(b"a\n")}, {"x/y": File(b"a\n")}), 3)
@example(({"x/y": File(b"a\n")}, {"x": File(b"a\n")}), 3)
@example(({"d/y": File(b"a\n"), "x": File(b"d", is_link=True)}, {"d/y": File(b"a\n"), "x/y": File(b"b\n")}), 3)
@example(({"d/y": File(b"a\n"), "x/y": File(b"b\n")}, {"d/y": File(b"a\n"), "x": File(b"d", is_link=True)}), 3)
@example(({"x": File(b"y", is_link=True), "y": File()}, {"x": File(b"y"), "y": File()}), 3)
@example(({"gone": File(), "x y b": File(b"\0")}, {"new": File(), "x y b": File(b"\0\n" * 999, True)}), 3)
def test_git_apply_makes_the_second_tree_of_the_first(both: tuple[Files, Files], context: int) -> None:
    first, second = both
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        store(root / "repository", {A: write(first, root / "one"), B: write(second, root / "other")})
        patch = printed("diff", "aaaa", "bbbb", "--only", "code", f"-U{context}", "-R", f"file://{root / 'repository'}")
        event("nothing differs" if not patch else "something differs")
        assert bool(patch) == (first != second)
        if patch:
            git_apply(patch, root / "one")
            assert read(root / "one") == second
            git_apply(patch, root / "one", "--reverse")
            assert read(root / "one") == first
