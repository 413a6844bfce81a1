"""Saved files as local ones: `checkpoint.path(file)` and `checkpoint.directory()`, and the cache behind them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake import Checkpoint, Project
from keepsake.checkout import kept
from keepsake.checkout.cached import DEFAULT_SIZE
from keepsake.exceptions import ConfigInvalid, DoesNotExist, ReadError, WriteError
from keepsake.repository import layout
from keepsake.repository.stored_archives import StoredArchives
from keepsake.settings import VARIABLES
from tests.conftest import ROOT, Script, bound_by_permissions

FILES = {"out/model.pt": b"weights" * 1000, "out/config.json": b"{}", "out/deep/er/tokens": b"a b c", "out/run": b"#!"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("KEEPSAKE_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    # As at the end of a process.
    kept._leave()


def saved(project: Project, files: dict[str, bytes] | None = None, path: str = "out") -> Checkpoint:
    for name, content in (files or FILES).items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    if "out/run" in (files or FILES):
        Path("out/run").chmod(0o755)
    with project.experiments.create(quiet=True) as experiment:
        experiment.checkpoint(path, metrics={"loss": 0.1}, primary_metric=("loss", "minimize"))
    return project.experiments.get(experiment.id).checkpoints[0]


def lose(checkpoint: Checkpoint) -> None:
    """Take the files out of the repository: what is still served is served from the cache."""
    root = checkpoint.experiment.repository.local_root
    assert root is not None
    (root / layout.checkpoint_archive_key(checkpoint.id)).unlink()


def leave(checkpoint: Checkpoint, copy: Path, *, ago_s: float) -> None:
    """Be as if the process that was given a copy had ended some time ago."""
    kept._leave()
    place = next(parent for parent in copy.parents if parent.name == checkpoint.id)
    then = time.time() - ago_s
    os.utime(place / "kept.json", (then, then))


# --- what is given ----------------------------------------------------------------------------------------------------


def test_a_file_is_copied_once_and_cannot_be_written_to(project: Project) -> None:
    checkpoint = saved(project)
    copy = checkpoint.path("out/model.pt")
    assert copy.is_absolute()
    assert copy.name == "model.pt"
    assert copy.read_bytes() == FILES["out/model.pt"]
    assert copy.stat().st_mode & 0o777 == 0o444
    assert checkpoint.path("out/run").stat().st_mode & 0o777 == 0o555
    lose(checkpoint)
    assert checkpoint.path(Path("out") / "model.pt") == copy
    with pytest.raises(ReadError, match="not in the repository"):
        checkpoint.path("out/config.json")


@pytest.mark.parametrize("path", ["out", "out/", "."])
def test_a_directory_is_copied_whole(project: Project, path: str) -> None:
    checkpoint = saved(project)
    copy = checkpoint.path(path)
    lose(checkpoint)
    base = copy if path == "." else copy.parent
    assert {name: (base / name).read_bytes() for name in FILES} == FILES
    assert checkpoint.directory() == base / "out"
    assert checkpoint.path("out/deep") == base / "out" / "deep"
    assert checkpoint.path("out/deep/er/tokens").read_bytes() == b"a b c"


def test_the_directory_of_a_single_file_is_the_one_that_it_lies_in(project: Project) -> None:
    checkpoint = saved(project, path="out/model.pt")
    directory = checkpoint.directory()
    assert [path.name for path in directory.iterdir()] == ["model.pt"]
    assert checkpoint.path(checkpoint.path) == directory / "model.pt"


def test_a_record_of_somebody_elses_leads_nowhere_else(project: Project) -> None:
    checkpoint = saved(project)
    checkpoint.record.path = "../../../../etc"
    with pytest.raises(DoesNotExist):
        checkpoint.directory()


def test_links_are_followed_within_the_checkpoint(project: Project) -> None:
    Path("out").mkdir()
    Path("out/last.pt").symlink_to("model.pt")
    Path("out/latest.pt").symlink_to("last.pt")
    Path("out/loop").symlink_to("loop")
    checkpoint = saved(project)
    assert checkpoint.path("out/latest.pt").read_bytes() == FILES["out/model.pt"]
    with pytest.raises(ReadError, match='"out/loop" of checkpoint .* leads to no file'):
        checkpoint.path("out/loop")
    lose(checkpoint)
    assert checkpoint.path("out/last.pt").read_bytes() == FILES["out/model.pt"]


@pytest.mark.parametrize("path", ["out/modle.pt", "model.pt"])
def test_a_file_that_was_not_saved_has_its_name_mended(project: Project, path: str) -> None:
    with pytest.raises(DoesNotExist, match=rf'no file "{path}" in checkpoint \w+ .*\nclose to it: out/model.pt'):
        saved(project).path(path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../kept.json", "out/../../kept.json"])
def test_nothing_else_is_given(project: Project, path: str) -> None:
    checkpoint = saved(project)
    checkpoint.path(".")
    with pytest.raises(DoesNotExist, match="no file"):
        checkpoint.path(path)


def test_a_checkpoint_without_files_says_so(project: Project) -> None:
    with project.experiments.create(quiet=True) as experiment:
        checkpoint = experiment.checkpoint(metrics={"loss": 1})
    assert checkpoint.path is None
    with pytest.raises(DoesNotExist, match="has no files"):
        checkpoint.directory()


def test_the_path_is_still_the_text_that_it_was(project: Project) -> None:
    checkpoint = saved(project)
    assert checkpoint.path == "out"
    assert json.dumps({"path": checkpoint.path}) == '{"path": "out"}'
    assert type(pickle.loads(pickle.dumps(checkpoint.path))) is str
    assert Path(checkpoint.path) == Path("out")


def test_files_are_there_as_soon_as_they_are_saved(project: Project) -> None:
    with project.experiments.create(quiet=True) as experiment:
        Path("weights").write_bytes(b"w" * 100_000)
        checkpoint = experiment.checkpoint("weights")
        Path("weights").unlink()
        assert checkpoint.path("weights").read_bytes() == b"w" * 100_000


def test_whatever_was_asked_for_before_what_is_given_is_whole(project: Project, cache: Path) -> None:
    checkpoint = saved(project)
    asked = st.lists(st.tuples(st.sampled_from([*FILES, "out", "out/deep", "out/deep/er", "."]), st.sampled_from(list(FILES))))

    @settings(max_examples=25)
    @given(asked, st.data())
    def ask(asked: list[tuple[str, str]], data: st.DataObject) -> None:
        shutil.rmtree(cache, ignore_errors=True)
        for name, harmed in asked:
            copy = checkpoint.path(name)
            base = copy if name == "." else Path(*copy.parts[: len(copy.parts) - len(Path(name).parts)])
            wanted = [file for file in FILES if name == "." or file == name or file.startswith(f"{name}/")]
            assert {file: (base / file).read_bytes() for file in wanted} == {file: FILES[file] for file in wanted}
            if (base / harmed).exists() and data.draw(st.booleans()):
                (base / harmed).unlink()
                (base / harmed).write_bytes(data.draw(st.binary(max_size=10)))

    ask()


# --- nothing is taken on trust ----------------------------------------------------------------------------------------


def test_a_damaged_archive_leaves_nothing_behind(project: Project, cache: Path) -> None:
    checkpoint = saved(project, {"out/model.pt": os.urandom(50_000)})
    root = checkpoint.experiment.repository.local_root
    archive = root / layout.checkpoint_archive_key(checkpoint.id)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ReadError):
        checkpoint.path("out/model.pt")
    assert [path for path in cache.rglob("*") if path.name == "model.pt"] == []
    assert list(cache.glob(".keepsake-checkout-*")) == []


def test_the_copies_of_one_repository_are_not_those_of_another(project: Project, tmp_path: Path) -> None:
    """Who gives somebody a repository must not give them another model under the ID of their own."""
    checkpoint = saved(project)
    copy = checkpoint.path("out/model.pt")
    shutil.copytree(".keepsake", tmp_path / "other")
    other = Project(repository=f"file://{tmp_path}/other").experiments.get(checkpoint.experiment.id).checkpoints[0]
    assert other.path("out/model.pt") != copy


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"whole": ["."]}',
        b'{"whole": ["."], "files": {"out/model.pt": [1]}}',
        b'{"whole": ["."], "files": {"out/model.pt": ["", {}]}}',
        b"\xff",
    ],
)
def test_a_damaged_cache_is_as_if_it_were_empty(project: Project, cache: Path, content: bytes) -> None:
    checkpoint = saved(project)
    checkpoint.path("out/model.pt")
    [said] = cache.rglob("kept.json")
    said.write_bytes(content)
    assert checkpoint.path("out/model.pt").read_bytes() == FILES["out/model.pt"]


def test_a_cache_that_is_deleted_meanwhile_comes_again(project: Project, cache: Path) -> None:
    checkpoint = saved(project)
    copy = checkpoint.path("out/model.pt")
    shutil.rmtree(cache)
    assert checkpoint.path("out/model.pt") == copy
    assert copy.exists()


def test_a_cache_that_cannot_be_written_says_what_to_do(project: Project, cache: Path) -> None:
    checkpoint = saved(project)
    cache.mkdir()
    cache.chmod(0o555)
    with bound_by_permissions(cache), pytest.raises(WriteError, match="(?s)cannot write to .*KEEPSAKE_CACHE_DIR"):
        checkpoint.path("out/model.pt")


def test_a_cache_that_can_only_be_read_serves_what_it_holds(project: Project, cache: Path) -> None:
    """As in an image of a container that was built with the model in it."""
    checkpoint = saved(project)
    copy = checkpoint.path("out/model.pt")
    kept._leave()
    directories = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    for path in directories:
        path.chmod(0o555)
    with bound_by_permissions(*directories):
        assert checkpoint.path("out/model.pt") == copy
    for path in directories:
        path.chmod(0o755)


# --- several processes ------------------------------------------------------------------------------------------------

FETCH = """
import keepsake
from keepsake.repository.stored_archives import StoredArchives
from keepsake.checkout.kept import KeptFiles

extract, add = StoredArchives.extract, KeptFiles.add

def told(self, *arguments, **options):
    print("fetching", flush=True)
    return extract(self, *arguments, **options)

def slow(self, *arguments):
    {wait}
    return add(self, *arguments)

StoredArchives.extract, KeptFiles.add = told, slow
copy = keepsake.experiments.get("{id}").best().path("out/model.pt")
print(copy, len(copy.read_bytes()), flush=True)
input()
"""
WAIT = "print('waiting', flush=True); input()"


def test_two_processes_that_ask_at_once_fetch_once(project: Project, script: Callable[..., Script]) -> None:
    checkpoint = saved(project)
    first = script(FETCH.format(wait=WAIT, id=checkpoint.experiment.id))
    assert [first.line(), first.line()] == ["fetching", "waiting"]
    second = script(FETCH.format(wait="pass", id=checkpoint.experiment.id))
    # It says so once it has found that somebody is at it.
    assert "which is being fetched already" in second.process.stderr.readline()
    first.process.stdin.write("\n")
    first.process.stdin.flush()
    line = f"{checkpoint.path('out/model.pt')} {len(FILES['out/model.pt'])}"
    assert first.line() == line
    assert second.line() == line
    assert (first.wait(), second.wait()) == (1, 1)  # no more input


def test_a_process_that_is_killed_leaves_nothing_half_done(project: Project, cache: Path, script: Callable[..., Script]) -> None:
    checkpoint = saved(project)
    one = script(FETCH.format(wait=WAIT, id=checkpoint.experiment.id))
    assert [one.line(), one.line()] == ["fetching", "waiting"]
    one.process.kill()
    one.process.wait()
    assert [path for path in cache.rglob("*.files/*/*/*") if path.name == "out"] == []
    assert len(list(cache.glob(".keepsake-checkout-*"))) == 1
    assert checkpoint.path("out/model.pt").read_bytes() == FILES["out/model.pt"]
    assert list(cache.glob(".keepsake-checkout-*")) == []


def test_threads_that_ask_at_once_fetch_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved(project)
    extract, fetched = StoredArchives.extract, []

    def counted(self: StoredArchives, *arguments: Any, **options: Any) -> list[str]:
        fetched.append(options["only"])
        return extract(self, *arguments, **options)

    monkeypatch.setattr(StoredArchives, "extract", counted)
    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(checkpoint.path, ["out/model.pt", "out/config.json"] * 8))
    assert len(set(copies)) == 2
    assert sorted(fetched) == ["out/config.json", "out/model.pt"]


def test_processes_that_have_ended_leave_no_files_behind(project: Project, cache: Path, script: Callable[..., Script]) -> None:
    checkpoint = saved(project)
    one = script(f'import keepsake\nprint(keepsake.experiments.get("{checkpoint.experiment.id}").best().path("out/model.pt"))')
    assert one.wait() == 0, one.stderr
    assert sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".sqlite") == [
        "files.lock",
        "kept.json",
        "model.pt",
    ]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list open files")
def test_many_checkpoints_take_no_more_open_files_than_one(project: Project) -> None:
    before, *others = several(project, 5)
    before.path("model.pt")
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    for checkpoint in others:
        checkpoint.path("model.pt")
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


# --- room -------------------------------------------------------------------------------------------------------------

SIZE = 100_000


def several(project: Project, count: int) -> list[Checkpoint]:
    return [saved(project, {"model.pt": os.urandom(SIZE)}, "model.pt") for _ in range(count)]


def test_what_was_used_longest_ago_goes_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_CACHE_SIZE", f"{2.5 * SIZE:.0f}")
    one, two, three = several(project, 3)
    copies = [one.path("model.pt"), two.path("model.pt")]
    leave(one, copies[0], ago_s=10_000)
    leave(two, copies[1], ago_s=20_000)
    copies.append(three.path("model.pt"))
    assert [copy.exists() for copy in copies] == [True, False, True]
    assert two.path("model.pt") == copies[1]
    assert [copy.exists() for copy in copies] == [False, True, True]


def test_what_was_handed_out_stays(
    project: Project, monkeypatch: pytest.MonkeyPatch, script: Callable[..., Script], capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEEPSAKE_CACHE_SIZE", "0")
    own, others, passed_on, killed, last = several(project, 5)
    copies = [own.path("model.pt")]
    code = 'import keepsake\nprint(keepsake.experiments.get("{}").best().path("model.pt"), flush=True)\ninput()'
    living = script(code.format(others.experiment.id))
    copies.append(Path(living.line()))
    done = script(code.format(passed_on.experiment.id))
    copies.append(Path(done.line()))
    done.wait()
    dead = script(code.format(killed.experiment.id))
    copies.append(Path(dead.line()))
    dead.process.kill()
    dead.process.wait()
    for checkpoint, copy in zip((own, others, killed), (copies[0], copies[1], copies[3]), strict=True):
        place = next(parent for parent in copy.parents if parent.name == checkpoint.id)
        os.utime(place / "kept.json", (0, 0))
    copies.append(last.path("model.pt"))
    assert [copy.exists() for copy in copies] == [True, True, True, False, True]
    assert "in use, more than KEEPSAKE_CACHE_SIZE" in capfd.readouterr().err


def test_a_forked_child_keeps_and_forgets_its_own(
    project: Project, script: Callable[..., Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPSAKE_CACHE_SIZE", "0")
    first, second = several(project, 2)
    parent = script(f"""
        import keepsake, os
        copy = keepsake.experiments.get("{first.experiment.id}").best().path("model.pt")
        if not os.fork():
            keepsake.experiments.get("{first.experiment.id}").best().path("model.pt")
            raise SystemExit
        os.wait()
        os.utime(copy.parents[1] / "kept.json", (0, 0))
        print(copy, flush=True)
        input()
    """)
    copy = Path(parent.line())
    second.path("model.pt")
    assert copy.exists()
    parent.wait()


@pytest.mark.parametrize("size", ["ten", "10 XB"])
def test_a_limit_that_is_none_is_an_error(project: Project, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    checkpoint = saved(project)
    monkeypatch.setenv("KEEPSAKE_CACHE_SIZE", size)
    with pytest.raises(ConfigInvalid, match=f'KEEPSAKE_CACHE_SIZE is "{size}"'):
        checkpoint.path("out/model.pt")


def test_the_limit_is_the_one_that_users_are_told() -> None:
    assert VARIABLES["KEEPSAKE_CACHE_SIZE"].default == DEFAULT_SIZE


# --- what keepsake 0.4.2 has written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["directories", "files"])
def test_files_of_the_original_are_served_too(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "compat" / "golden" / name / "repository", tmp_path / "repository")
    found = Project(repository=f"file://{tmp_path}/repository", directory=tmp_path).experiments.list()
    checkpoints = [checkpoint for experiment in found for checkpoint in experiment.checkpoints if checkpoint.path is not None]
    assert checkpoints
    for checkpoint in checkpoints:
        files = [file.path for file in checkpoint.files() if file.kind == "file"]
        content = {file: checkpoint.open(file).read() for file in files}
        lone = checkpoint.path(files[0])
        assert lone.read_bytes() == content[files[0]]
        directory = checkpoint.directory()
        assert lone.is_relative_to(directory)
        root = lone.parents[len(Path(files[0]).parts) - 1]
        assert {file: (root / file).read_bytes() for file in files} == content
