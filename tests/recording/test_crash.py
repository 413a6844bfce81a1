"""Writers are killed at any moment: nothing that was accepted is lost, and nothing half is seen."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import keepsake
from keepsake import Project
from keepsake.repository import verify

KILLS, ROUNDS = 200, 4
"""Kills in all, and experiments that share a repository, so that each finds what those before it have left."""

SIZES = {"metric": 0, "small": 2_000, "zeros": 3_000_000, "big": 4_000_000, "directory": 100_000, "move": 2_000_000}

WRITER = """
    import os, random, sys
    import keepsake

    sizes, kinds = {sizes}, random.Random(int(sys.argv[1]))
    experiment = keepsake.init(path=".", quiet=True)
    os.write(1, f"experiment {{experiment.id}}\\n".encode())
    step = 0
    while True:
        kind = kinds.choice(list(sizes))
        content = bytes(sizes[kind]) if kind == "zeros" else random.Random(step).randbytes(sizes[kind])
        path = kind
        if kind == "metric":
            path = None
        elif kind == "directory":
            os.makedirs("directory/deeper", exist_ok=True)
            for i in range(5):
                open(f"directory/deeper/{{i}}", "wb").write(content + str(i).encode())
        else:
            open(kind, "wb").write(content)
        experiment.checkpoint(path, step=step, metrics={{"loss": step}}, move=kind == "move")
        # Unbuffered: what is read here was accepted.
        os.write(1, f"{{step}} {{kind}}\\n".encode())
        step += 1
"""


@dataclass
class Killed:
    """A writer that was killed.

    Attributes:
        experiment_id: Its experiment; empty if it was killed before it had one.
        accepted: The kind of each checkpoint that it was told to be accepted, by step.
    """

    experiment_id: str = ""
    accepted: dict[int, str] = field(default_factory=dict)

    def heard(self, line: str) -> None:
        first, second = line.split()
        if first == "experiment":
            self.experiment_id = second
        else:
            self.accepted[int(first)] = second


def run_and_kill(seed: int, steps: int, pause_s: float) -> Killed:
    """Run a writer until it has made so many steps, and kill it some moment later."""
    killed = Killed()
    with subprocess.Popen([sys.executable, "writer.py", str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        rest = b""
        while killed.experiment_id == "" or len(killed.accepted) < steps:
            data = os.read(writer.stdout.fileno(), 65536)
            assert data, writer.stderr.read().decode()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                killed.heard(line.decode())
        # The moment is left to chance; nothing is expected of it.
        end = time.monotonic() + pause_s
        while (left_s := end - time.monotonic()) > 0:
            select.select([], [], [], left_s)
        writer.kill()
        for line in (rest + writer.stdout.read()).split(b"\n")[:-1]:
            killed.heard(line.decode())
        assert writer.stderr.read() == b""
    return killed


def assert_all_there(killed: Killed) -> None:
    experiment = keepsake.experiments.get(killed.experiment_id)
    found = {checkpoint.step: checkpoint for checkpoint in experiment.checkpoints}
    for step, kind in killed.accepted.items():
        assert step in found, f"step {step} ({kind}) is lost"
        assert found[step].metrics == {"loss": step}
        content = bytes(SIZES[kind]) if kind == "zeros" else random.Random(step).randbytes(SIZES[kind])
        if kind == "directory":
            for i in range(5):
                assert found[step].open(f"directory/deeper/{i}").read() == content + str(i).encode()
        elif kind != "metric":
            assert found[step].open(kind).read() == content
    # What had not returned is whole, or has no files.
    for checkpoint in experiment.checkpoints:
        assert not checkpoint.record.archive_pending
        assert (checkpoint.path is None) == (checkpoint.archive is None)
    assert experiment.status.word != "failed"


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_nothing_that_was_accepted_is_lost_whenever_the_process_is_killed(
    project: Project, round_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A writer says what it has recovered of those before it.
    monkeypatch.setenv("KEEPSAKE_LOG", "warning")
    Path("writer.py").write_text(textwrap.dedent(WRITER.format(sizes=SIZES)), encoding="utf-8")
    Path(".keepsakeignore").write_text("".join(f"{kind}\n" for kind in SIZES), encoding="utf-8")
    chance = random.Random(round_)
    killed = []
    for number in range(KILLS // ROUNDS):
        killed.append(run_and_kill(seed=number, steps=chance.randrange(12), pause_s=chance.random() * 0.02))
        if chance.random() < 0.3:
            # Else the next writer finds what several have left.
            assert_all_there(killed[-1])
    for one in killed:
        assert_all_there(one)
    fsck = subprocess.run([sys.executable, "-m", "keepsake", "fsck"], capture_output=True, text=True, check=False, timeout=60)
    assert (fsck.returncode, fsck.stderr) == (0, "")
    assert f"Checked {KILLS // ROUNDS} experiments" in fsck.stdout
    damage = [found for found in verify.check(keepsake.Project().repository_at_hand()).findings if found.severity == "damage"]
    assert damage == []
    assert sorted(path.name for path in Path(".keepsake/.journal").iterdir()) == []


def test_five_thousand_metrics_are_all_there_after_a_kill_right_after_the_last_call(project: Project) -> None:
    code = """
        import os, signal
        import keepsake

        experiment = keepsake.init(path=None, quiet=True)
        for step in range(5000):
            experiment.checkpoint(step=step, metrics={"loss": 1 / (step + 1)})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    [experiment] = keepsake.experiments.list()
    assert [checkpoint.step for checkpoint in experiment.checkpoints] == list(range(5000))
    assert experiment.checkpoints[4999].metrics == {"loss": 1 / 5000}
