"""Training is rarely one process that ends politely: interruptions, children of every kind, and several writers at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake import Experiment, Project
from tests.conftest import Script

Start = Callable[..., Script]

SLOW_DISK = """
    import os, sys, threading
    import keepsake
    from keepsake.storage import DiskStorage

    adopt = DiskStorage.adopt
    disk_works = threading.Event()

    def adopt_some_time(*arguments):
        disk_works.wait()
        adopt(*arguments)

    DiskStorage.adopt = adopt_some_time
"""


def only(project: Project) -> Experiment:
    [experiment] = project.experiments.list()
    return experiment


def content(seed: int, size_bytes: int = 50_000) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


# --- Ctrl-C ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_stores_all_and_is_an_interruption(project: Project, script: Start) -> None:
    run = script(
        """
        import random, time, keepsake
        experiment = keepsake.init()
        for step in range(5):
            open("weights", "wb").write(random.Random(step).randbytes(50_000))
            experiment.checkpoint("weights", metrics={"loss": step})
        print("training", flush=True)
        while True:  # a blocking call might begin just after the signal, and not be interrupted
            time.sleep(0.01)
        """
    )
    assert run.line() == "training"
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == -signal.SIGINT
    assert "KeyboardInterrupt" in run.stderr
    experiment = only(project)
    assert (experiment.outcome, experiment.error) == ("interrupted", "KeyboardInterrupt")
    assert [checkpoint.open("weights").read() for checkpoint in experiment.checkpoints] == [content(step) for step in range(5)]
    assert list((project.directory / ".keepsake" / ".journal").iterdir()) == []


def test_a_second_ctrl_c_leaves_the_files_to_the_next_command(project: Project, script: Start) -> None:
    run = script(
        textwrap.dedent(SLOW_DISK)
        + textwrap.dedent(
            """
            import random, time
            experiment = keepsake.init(path=None)
            open("weights", "wb").write(random.Random(1).randbytes(50_000))
            experiment.checkpoint("weights", metrics={"loss": 1})
            print("training", flush=True)
            while True:
                time.sleep(0.01)
            """
        )
    )
    assert run.line() == "training"
    run.process.send_signal(signal.SIGINT)
    assert run.process.stderr is not None
    said = ""
    while "Ctrl-C leaves that to the next keepsake command" not in said:
        line = run.process.stderr.readline()
        assert line, said
        said += line
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == -signal.SIGINT
    assert "the files of 1 checkpoint (51 kB) not stored yet, safe in" in run.stderr

    listed = subprocess.run([sys.executable, "-m", "keepsake", "ls"], capture_output=True, text=True, check=True)
    assert f"recovered 1 checkpoint that experiment {only(project).short_id()} had not stored" in listed.stderr
    experiment = only(project)
    assert (experiment.outcome, experiment.error) == ("interrupted", "KeyboardInterrupt")
    assert experiment.checkpoints[0].open("weights").read() == content(1)


# --- ends without a word --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)", "os.abort()"])
@pytest.mark.parametrize("move", [False, True])
def test_files_outlive_a_process_that_ends_without_a_word(project: Project, script: Start, end: str, *, move: bool) -> None:
    run = script(
        textwrap.dedent(SLOW_DISK)
        + textwrap.dedent(
            f"""
            import random
            experiment = keepsake.init()
            for step in range(3):
                os.makedirs("saved", exist_ok=True)
                open("saved/weights", "wb").write(random.Random(step).randbytes(50_000))
                experiment.checkpoint("saved", metrics={{"loss": step}}, move={move})
            {end}
            """
        )
    )
    run.wait()
    experiment = only(project)
    assert [checkpoint.open("saved/weights").read() for checkpoint in experiment.checkpoints] == [
        content(step) for step in range(3)
    ]
    assert experiment.outcome is None
    assert (project.directory / "saved").exists() == (not move)


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_stores_all(project: Project, script: Start, code: int) -> None:
    run = script(
        f"""
        import random, sys, keepsake
        with keepsake.init() as experiment:
            open("weights", "wb").write(random.Random(1).randbytes(50_000))
            experiment.checkpoint("weights", metrics={{"loss": 1}})
            sys.exit({code})
        """
    )
    assert run.wait() == code
    experiment = only(project)
    assert experiment.outcome == ("finished" if code == 0 else "failed")
    assert experiment.checkpoints[0].open("weights").read() == content(1)


# --- children -------------------------------------------------------------------------------------------------------

# A module of its own, because spawn and forkserver import what they run.
WORKER_MODULE = """
    import os

    def work(experiment):
        # What a data loader's worker has no business to do, and does no harm.
        checkpoint = experiment.checkpoint(metrics={"loss": -1})
        experiment.stop()
        os.write(1, b"worked\\n")

    def square(number):
        return number * number
"""


def test_the_signals_of_a_forked_child_are_its_own(project: Project, script: Start) -> None:
    """A pool ends its workers by SIGTERM, and a handler of Python's does not run while one of them waits in C code."""
    run = script(
        """
        import os, signal
        import keepsake

        def own(signum, frame):
            print("own", flush=True)

        signal.signal(signal.SIGHUP, own)
        experiment = keepsake.init(path=None, quiet=True)
        ours = signal.getsignal(signal.SIGTERM)
        if not (pid := os.fork()):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and signal.getsignal(signal.SIGHUP) is own
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        assert callable(ours) and signal.getsignal(signal.SIGTERM) is ours is signal.getsignal(signal.SIGHUP)
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
        os.kill(os.getpid(), signal.SIGHUP)
        experiment.checkpoint(metrics={"loss": 1})
        """
    )
    assert [run.line(), run.line()] == ["own", "own"]
    assert run.wait() == 0
    experiment = only(project)
    assert (len(experiment.checkpoints), run.stderr) == (1, "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_any_kind_leave_the_experiment_alone(project: Project, script: Start, method: str) -> None:
    (project.directory / "worker.py").write_text(textwrap.dedent(WORKER_MODULE), encoding="utf-8")
    run = script(
        f"""
        import multiprocessing
        import keepsake, worker

        if __name__ == "__main__":
            experiment = keepsake.init(path=None, quiet=True)
            experiment.checkpoint(metrics={{"loss": 1}})
            context = multiprocessing.get_context({method!r})
            with context.Pool(2) as pool:
                assert pool.map(worker.square, range(10)) == [n * n for n in range(10)]
            child = context.Process(target=worker.work, args=(experiment,))
            child.start()
            child.join()
            print("child", child.exitcode, flush=True)
            experiment.checkpoint(metrics={{"loss": 2}})
        """
    )
    assert run.line() == "worked"
    assert run.line() == "child 0"
    assert run.wait() == 0
    experiment = only(project)
    assert [checkpoint.metrics["loss"] for checkpoint in experiment.checkpoints] == [1, 2]
    assert experiment.outcome == "finished"
    if method == "fork":
        assert run.stderr == ""
    else:
        [line] = run.stderr.splitlines()
        assert f"experiment {experiment.short_id()} is being recorded by process {run.process.pid} on " in line


def test_a_child_that_outlives_its_killed_parent_does_not_keep_it_alive(project: Project, script: Start) -> None:
    run = script(
        """
        import os, random, sys, keepsake
        experiment = keepsake.init(path=None)
        open("weights", "wb").write(random.Random(1).randbytes(50_000))
        experiment.checkpoint("weights", metrics={"loss": 1})
        if os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
        print("forked", flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    assert run.line() == "forked"
    run.process.wait()
    # The child still holds our pipes; it ends when they are closed.
    experiment = only(project)
    assert experiment.checkpoints[0].open("weights").read() == content(1)
    assert list((project.directory / ".keepsake" / ".journal").iterdir()) == []
    run.wait()


def test_a_fork_in_the_middle_of_the_work_blocks_nobody(project: Project, script: Start) -> None:
    """Locks that other threads hold at the moment of a fork stay locked for ever in the child."""
    run = script(
        """
        import os, threading, keepsake
        experiment = keepsake.init(path=None, quiet=True)
        done = threading.Event()

        def train():
            while not done.is_set():
                open("weights", "wb").write(b"w" * 100_000)
                experiment.checkpoint("weights", metrics={"loss": 1})

        thread = threading.Thread(target=train)
        thread.start()
        for _ in range(50):
            child = os.fork()
            if child == 0:
                experiment.checkpoint(metrics={"loss": -1})
                experiment.stop()
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        done.set()
        thread.join()
        """
    )
    assert run.wait() == 0, run.stderr
    losses = {checkpoint.metrics["loss"] for checkpoint in only(project).checkpoints}
    assert losses == {1}


# --- several writers ------------------------------------------------------------------------------------------------

HOLDER = """
    import sys, keepsake
    experiment = keepsake.init(path=None, quiet=True)
    experiment.checkpoint(metrics={"loss": 1})
    print(experiment.id, flush=True)
    sys.stdin.readline()
    experiment.checkpoint(metrics={"loss": 3})
"""


def test_a_second_writer_is_refused_clearly_and_disturbs_nothing(
    project: Project, script: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    run = script(HOLDER)
    experiment = project.experiments.get(run.line())
    for _ in range(3):
        assert experiment.checkpoint(metrics={"loss": 2}).metrics == {}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("keepsake: error: checkpoint(): ")
    assert f"experiment {experiment.short_id()} is being recorded by process {run.process.pid} on " in line
    assert "one process records an experiment" in line
    assert run.wait() == 0
    experiment.refresh()
    assert [checkpoint.metrics["loss"] for checkpoint in experiment.checkpoints] == [1, 3]
    # Now it has ended, and takes more.
    experiment.checkpoint(metrics={"loss": 4})
    assert [checkpoint.metrics["loss"] for checkpoint in only(project).checkpoints] == [1, 3, 4]


def test_many_writers_share_a_repository_and_die_in_it(project: Project, tmp_path: Path) -> None:
    """Each starts while others write, some are killed, and each recovers what it finds."""
    code = """
        import os, random, sys, keepsake
        number = int(sys.argv[1])
        experiment = keepsake.init(params={"number": number}, path=None, quiet=True)
        for step in range(20):
            name = f"weights-{number}"
            open(name, "wb").write(random.Random(1000 * number + step).randbytes(50_000))
            experiment.checkpoint(name, metrics={"loss": step}, move=step % 2 == 0, step=step)
        if number % 2:
            os.kill(os.getpid(), 9)
    """
    program = tmp_path / "many.py"
    program.write_text(textwrap.dedent(code), encoding="utf-8")
    environment = {**os.environ, "KEEPSAKE_LOG": "warning"}
    running = [
        subprocess.Popen([sys.executable, str(program), str(number)], stderr=subprocess.PIPE, env=environment, text=True)
        for number in range(8)
    ]
    for number, process in enumerate(running):
        _, stderr = process.communicate(timeout=120)
        assert (process.returncode, stderr) == (-signal.SIGKILL if number % 2 else 0, "")
    experiments = project.experiments.list()
    assert sorted(experiment.params["number"] for experiment in experiments) == list(range(8))
    for experiment in experiments:
        number = experiment.params["number"]
        assert [checkpoint.step for checkpoint in experiment.checkpoints] == list(range(20))
        for checkpoint in experiment.checkpoints:
            assert checkpoint.open(f"weights-{number}").read() == content(1000 * number + checkpoint.step)


def test_readers_see_each_checkpoint_as_soon_as_it_is_accepted(project: Project, script: Start) -> None:
    run = script(
        """
        import sys, keepsake
        experiment = keepsake.init(path=None, quiet=True)
        for step in range(30):
            experiment.checkpoint(metrics={"loss": step})
            print(step, flush=True)
            sys.stdin.readline()
        """
    )
    assert run.process.stdin is not None
    for step in range(30):
        assert run.line() == str(step)
        assert [checkpoint.step for checkpoint in only(project).checkpoints] == list(range(step + 1))
        run.process.stdin.write("\n")
        run.process.stdin.flush()
    assert run.wait() == 0
