"""Full disks, lost permissions and files that change under our hands: the training goes on, and says so once."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake import Experiment, Project
from keepsake.repository import verify
from tests.conftest import Script, bound_by_permissions

Start = Callable[..., Script]


def only(project: Project) -> Experiment:
    [experiment] = project.experiments.list()
    return experiment


def errors(run: Script) -> list[str]:
    return [line for line in run.stderr.splitlines() if line.startswith("keepsake: ") and "error" in line]


def assert_whole(project: Project) -> None:
    assert verify.check(project.repository_at_hand()).findings == []


# --- no file that could be opened --------------------------------------------------------------------------------------

WITHOUT_DESCRIPTORS = """
    import resource
    import keepsake

    experiment = keepsake.init(path=None, quiet=True)
    open("model", "wb").write(b"weights")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # From here on nothing can be opened, no module either.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    for step in range(3):
        experiment.checkpoint("model", step=step, metrics={"loss": step})
        experiment.log({"accuracy": step})
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    experiment.checkpoint("model", step=3, metrics={"loss": 3})
    print("trained", flush=True)
"""


def test_a_training_goes_on_where_nothing_can_be_opened_any_more(project: Project, script: Start) -> None:
    run = script(WITHOUT_DESCRIPTORS)
    assert run.line() == "trained"
    assert run.wait() == 0
    assert "Traceback" not in run.stderr
    assert any("checkpoint(path=" in line for line in errors(run))
    experiment = only(project)
    assert [checkpoint.step for checkpoint in experiment.checkpoints] == [0, 1, 2, 3]
    with experiment.checkpoints[-1].open("model") as model:
        assert model.read() == b"weights"
    assert_whole(project)


# --- no room --------------------------------------------------------------------------------------------------------

LIMITED = """
    import resource, signal
    import keepsake

    experiment = keepsake.init(path=None)
    open("small", "wb").write(b"s" * 1000)
    open("large", "wb").write(__import__("os").urandom(3_000_000))
    experiment.checkpoint("small", metrics={"loss": 0})
    experiment.flush()
    # As a quota does: no file may grow beyond 1 MB from here on.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    for step in range(1, 4):
        experiment.checkpoint("large", metrics={"loss": step})
    experiment.checkpoint("small", metrics={"loss": 4})
    print("trained", flush=True)
"""


def test_a_file_that_has_no_room_costs_its_checkpoint_and_nothing_else(project: Project, script: Start) -> None:
    run = script(LIMITED)
    assert run.line() == "trained"
    assert run.wait() == 0
    [error] = errors(run)
    assert 'checkpoint(path="large")' in error
    assert f"file too large for {project.directory / '.keepsake'} (3 MB); " in error
    assert "its files are not saved (step 1), its metrics and earlier checkpoints are" in error
    experiment = only(project)
    assert [checkpoint.metrics["loss"] for checkpoint in experiment.checkpoints] == [0, 1, 2, 3, 4]
    assert [checkpoint.path for checkpoint in experiment.checkpoints] == ["small", None, None, None, "small"]
    assert experiment.checkpoints[0].open("small").read() == b"s" * 1000
    assert experiment.checkpoints[4].open("small").read() == b"s" * 1000
    assert experiment.outcome == "finished"
    assert_whole(project)


MOUNT = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 3 MB, in a name space of its own that goes with its last process."""
    directory = tmp_path / "disk"
    directory.mkdir()
    return directory


def can_mount(directory: Path) -> bool:
    if sys.platform != "linux":
        return False
    command = ["unshare", "--mount", "--map-root-user", *MOUNT, str(directory)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_disk_that_is_full_loses_nothing_of_what_was_accepted(tmp_path: Path, small_disk: Path) -> None:
    """The repository lies on the full disk, with its journal; when there is room again, the same process goes on."""
    if not can_mount(small_disk):
        pytest.skip("only Linux lets a test mount a file system of its own; the quota above runs everywhere")
    code = f"""
        import os
        import keepsake
        from keepsake.repository import verify

        (filler, project) = ("{small_disk}/filler", keepsake.Project(repository="file://{small_disk}/runs", directory="."))
        experiment = project.experiments.create(path=None, quiet=True)
        open("weights", "wb").write(os.urandom(500_000))
        experiment.checkpoint("weights", metrics={{"loss": 0}})
        assert experiment.flush()
        open("{small_disk}/owned", "wb").write(os.urandom(400_000))
        file = os.open(filler, os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(file, b"f" * 4096)
        except OSError:
            os.close(file)
        for step in range(1, 200):
            experiment.checkpoint("weights" if step % 50 == 0 else None, metrics={{"loss": step, "text": "x" * 100}})
        assert not experiment.flush()
        # What was taken away from the training waits until it can be packed.
        os.truncate(filler, os.path.getsize(filler) - 100_000)
        experiment.checkpoint("{small_disk}/owned", metrics={{"loss": 200}}, move=True)
        assert not experiment.flush()
        assert [c.metrics["loss"] for c in experiment.checkpoints] == list(range(201))
        os.unlink(filler)
        experiment.checkpoint("weights", metrics={{"loss": 201}})
        assert experiment.flush()
        experiment.stop()
        [found] = project.experiments.list()
        assert [c.metrics["loss"] for c in found.checkpoints] == list(range(202)), len(found.checkpoints)
        whole = open("weights", "rb").read()
        assert found.checkpoints[0].open("weights").read() == found.checkpoints[201].open("weights").read() == whole
        assert len(found.checkpoints[200].open("disk/owned").read()) == 400_000
        assert found.outcome == "finished"
        assert verify.check(found.repository).findings == []
        print("whole")
    """
    program = tmp_path / "fill.py"
    program.write_text(textwrap.dedent(code), encoding="utf-8")
    command = f"{' '.join(MOUNT)} {small_disk} && {sys.executable} {program}"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
    said = [line for line in done.stderr.splitlines() if "error" in line]
    lacking = rf"no space left on {re.escape(str(small_disk))}/runs \(need %s, [0-9.]+ k?B free\); "
    for what, need, consequence in (
        (
            r'checkpoint\(path="weights"\)',
            "500 kB",
            r"its files are not saved \(step 50\), its metrics and earlier checkpoints are",
        ),
        ("storing a checkpoint", "400 kB", "its files wait in "),
    ):
        assert [line for line in said if re.search(f"error: {what}: {lacking % need}{consequence}", line)], said
    assert not any("Errno" in line for line in said)
    assert len(said) == len(set(said)) <= 4


# --- no permission ----------------------------------------------------------------------------------------------------


def test_a_repository_that_becomes_read_only_does_not_stop_the_training(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = project.experiments.create(path=None, quiet=True)
    Path("weights").write_bytes(b"w")
    experiment.checkpoint("weights", metrics={"loss": 0})
    assert experiment.flush()
    root = project.directory / ".keepsake"
    directories = [root, *[path for path in root.rglob("*") if path.is_dir()]]
    for directory in directories:
        directory.chmod(0o555)
    with bound_by_permissions(root):
        for step in (1, 2):
            experiment.checkpoint("weights", metrics={"loss": step})
        assert not experiment.flush()
    said = capsys.readouterr().err.splitlines()
    assert any('checkpoint(path="weights")' in line and "Permission denied" in line for line in said)
    assert len(said) == len(set(said)) <= 3
    for directory in directories:
        directory.chmod(0o755)
    experiment.stop()
    found = only(project)
    assert [checkpoint.metrics["loss"] for checkpoint in found.checkpoints] == [0, 1, 2]
    assert found.checkpoints[0].open("weights").read() == b"w"
    assert_whole(project)


# --- sources that are not what they were ------------------------------------------------------------------------------


def test_files_that_cannot_be_read_are_named(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = project.experiments.create(path=None, quiet=True)
    Path("locked").write_bytes(b"x")
    Path("locked").chmod(0)
    Path("both").mkdir()
    Path("both/fine").write_bytes(b"f")
    Path("both/locked").write_bytes(b"x")
    Path("both/locked").chmod(0)
    for directory in (project.directory / ".keepsake", *(project.directory / ".keepsake").rglob("*")):
        directory.chmod(0o777)
    with bound_by_permissions(project.directory):
        experiment.checkpoint("gone", metrics={"loss": 0})
        experiment.checkpoint("locked", metrics={"loss": 1})
        experiment.checkpoint("both", metrics={"loss": 2})
    said = capsys.readouterr().err.splitlines()
    for line, beginning in zip(
        said,
        (
            'keepsake: error: checkpoint(path="gone"): no such file',
            'keepsake: error: checkpoint(path="locked"): ',
            "keepsake: warning: not saved, because they cannot be read: both/locked",
        ),
        strict=True,
    ):
        assert line.startswith(beginning)
    experiment.stop()
    found = only(project)
    assert [(one.metrics["loss"], one.path) for one in found.checkpoints] == [(0, None), (1, None), (2, "both")]
    assert found.checkpoints[2].open("both/fine").read() == b"f"
    assert_whole(project)


@pytest.mark.parametrize("trouble", ["truncate", "replace", "delete", "grow"])
def test_a_file_that_changes_while_it_is_packed_is_saved_as_it_was_or_reported(
    project: Project, script: Start, trouble: str
) -> None:
    """Another thread of the training alters the file all the time; what a checkpoint holds is one of its states, or nothing."""
    change = {
        "truncate": "os.truncate('weights', 0); write(n)",
        "replace": "write(n, 'new'); os.replace('new', 'weights')",
        "delete": "os.unlink('weights'); write(n)",
        "grow": "open('weights', 'ab').write(bytes([n % 251]) * 100_000) if os.path.getsize('weights') < 30_000_000 else write(n)",
    }[trouble]
    run = script(
        f"""
        import os, threading, keepsake

        def write(n, name="weights"):
            with open(name, "wb") as file:
                file.write(bytes([n % 251]) * 2_000_000)

        def alter():
            n = 0
            while not done.is_set():
                n += 1
                {change}

        done = threading.Event()
        write(0)
        experiment = keepsake.init(path=None, quiet=True)
        thread = threading.Thread(target=alter)
        thread.start()
        for step in range(40):
            experiment.checkpoint("weights", metrics={{"loss": step}})
        done.set()
        thread.join()
        """
    )
    assert run.wait() == 0, run.stderr
    said = [re.sub("[0-9,]+", "#", line) for line in run.stderr.splitlines()]
    assert len(said) == len(set(said)), run.stderr
    experiment = only(project)
    assert [checkpoint.metrics["loss"] for checkpoint in experiment.checkpoints] == list(range(40))
    for checkpoint in experiment.checkpoints:
        if checkpoint.path is not None and trouble in ("replace", "delete"):
            with checkpoint.open("weights") as file:
                found = file.read()
            assert found == found[:1] * len(found)
    assert_whole(project)
