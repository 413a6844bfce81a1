"""A checkout that is killed, has no room or may not write leaves every file old or new, and the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake.repository import layout
from tests.cli.conftest import FINISHED, FINISHED_BEST, Repo, Result
from tests.cli.test_checkout import tree
from tests.conftest import bound_by_permissions

Run = Callable[..., Result]

KILLED_AT = """
import os, pathlib, signal, sys
from keepsake.__main__ import main

at, calls = int(sys.argv[1]), 0


def killed_before(real):
    def call(self, *arguments, **keywords):
        global calls
        if ".keepsake/undo" not in str(self) or real.__name__ != "unlink":
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
        return real(self, *arguments, **keywords)
    return call


for name in ("replace", "unlink", "mkdir", "chmod"):
    setattr(pathlib.Path, name, killed_before(getattr(pathlib.Path, name)))
main(sys.argv[2:])
"""
"""Runs the command line and kills itself before the n-th time that it changes something in the file system."""


def killed(at: int, *arguments: str) -> int:
    command = [sys.executable, "-c", KILLED_AT, str(at), *arguments]
    return subprocess.run(command, capture_output=True, timeout=120, stdin=subprocess.DEVNULL).returncode


@pytest.fixture
def many(repo: Repo) -> dict[str, bytes]:
    """Three files of the version that are old in the project, two new ones and one that is to go; what the version holds."""
    files = {f"src/f{number}.py": b"new %d" % number for number in range(5)}
    record = repo.repository.load(FINISHED)
    record.archive = repo.archive(layout.experiment_archive_key(FINISHED), files)
    repo.repository.save(record)
    (repo.directory / "src").mkdir()
    for name in [*sorted(files)[:3], "gone.py"]:
        (repo.directory / name).write_bytes(b"old " + name.encode())
    return files | {"model.pth": b"best weights"}


def own(repo: Repo) -> dict[str, bytes]:
    """The person's files, and no others."""
    return {name: content for name, content in tree(repo.directory).items() if not name.startswith(".keepsake")}


def test_killed_anywhere_it_goes_on(repo: Repo, many: dict[str, bytes], here: Run) -> None:
    old = own(repo)
    arguments = ["checkout", "eb96def", "--backup", "--delete"]
    at = 0
    while (code := killed(at, *arguments)) == -signal.SIGKILL:
        for name, content in own(repo).items():
            assert content in (old.get(name), many.get(name)), (at, name)
        for name in old:
            # Nothing is gone of which there is no copy.
            copies = [copy.read_bytes() for copy in (repo.root / "undo").glob(f"*/files/{name}")]
            assert (repo.directory / name).exists() or old[name] in copies, (at, name)
        at += 1
    assert code == 0
    assert at > 10
    assert own(repo) == many | {"keepsake.yaml": old["keepsake.yaml"]}
    assert not list(repo.directory.glob(".keepsake-checkout-*"))
    assert here("checkout", "eb96def", "--delete").err.splitlines()[1:] == [
        "  6 files identical, 0 new, 0 changed",
        "0 files written.",
    ]


def test_what_was_interrupted_can_be_undone(repo: Repo, many: dict[str, bytes], here: Run) -> None:
    old = own(repo)
    at = 0
    while killed(at, "checkout", "eb96def", "--backup", "--delete") == -signal.SIGKILL:
        while here("checkout", "--undo").code == 0:
            pass
        assert own(repo) == old, at
        at += 1
    assert at > 10


FULL = """
import resource, sys
from keepsake.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
main(sys.argv[1:])
"""


@pytest.mark.parametrize("flag", ["--force", "--backup"])
def test_without_room_everything_stays(repo: Repo, flag: str) -> None:
    """The limit of a file's size stops writing as a full disk does."""
    record = repo.repository.load(FINISHED)
    key = layout.checkpoint_archive_key(FINISHED_BEST)
    record.checkpoints[0].archive = repo.archive(key, {"model.pth": os.urandom(300_000)})
    repo.repository.save(record)
    (repo.directory / "train.py").write_bytes(b"mine\n")
    before = own(repo)
    done = subprocess.run([sys.executable, "-c", FULL, "checkout", "eb96def", flag], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: file too large for " in done.stderr
    assert own(repo) == before
    assert not list(repo.directory.glob(".keepsake-checkout-*"))


def test_a_backup_that_has_no_room_stops_before_anything_is_lost(repo: Repo) -> None:
    (repo.directory / "train.py").write_bytes(os.urandom(300_000))
    before = own(repo)
    done = subprocess.run(
        [sys.executable, "-c", FULL, "checkout", "eb96def", "--backup"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "error: file too large for " in done.stderr
    assert own(repo) == before
    assert not list((repo.root / "undo").glob("2*"))


def test_a_target_that_may_not_be_written(repo: Repo, here: Run) -> None:
    target = repo.directory / "out"
    target.mkdir()
    with bound_by_permissions(target):
        assert here("checkout", "eb96def", "-o", "out", "--dry-run").code == 0
        result = here("checkout", "eb96def", "-o", "out")
    assert result.code == 1
    assert f"error: cannot write to {target}: Permission denied" in result.err
    assert tree(target) == {}


def test_a_project_that_may_not_be_written_and_a_target_that_may(
    repo: Repo, here: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("open")
    target.chmod(0o777)
    with bound_by_permissions(repo.directory, target):
        result = here("checkout", "eb96def", "-o", str(target))
        refused = here("checkout", "eb96def", "-o", str(target), "--backup")
    assert (result.code, refused.code) == (0, 0)
    assert "this checkout cannot be undone" in result.err
    assert (target / "train.py").exists()


def test_a_file_that_is_changed_while_files_are_fetched(repo: Repo, terminal) -> None:
    """What the person has agreed to lose is what was there then."""
    (repo.directory / "train.py").write_bytes(b"mine\n")
    asked = terminal("checkout", "eb96def")
    asked.wait_for("[b/o/N] ")
    (repo.directory / "train.py").write_bytes(b"mine, and more of it\n")
    asked.type("b\n")
    result = asked.end()
    assert result.code == 6
    assert "train.py has been changed meanwhile" in result.out
    assert (repo.directory / "train.py").read_bytes() == b"mine, and more of it\n"
    assert not (repo.directory / "model.pth").exists()


def test_the_staging_of_one_that_runs_stays(repo: Repo, here: Run) -> None:
    from keepsake.checkout.staging import Staging

    running = Staging(repo.directory)
    part = running.part("a")
    assert here("checkout", "eb96def").code == 0
    assert Path(part).is_dir()
    running.close()
    assert not list(repo.directory.glob(".keepsake-checkout-*"))
