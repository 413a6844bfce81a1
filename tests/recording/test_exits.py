"""How a run ends is recorded truthfully, in real processes that end in every way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from keepsake import Experiment, Project
from keepsake.repository import layout
from tests.conftest import Script

Start = Callable[..., Script]


def only(project: Project) -> Experiment:
    experiments = project.experiments.list()
    assert len(experiments) == 1
    return experiments[0]


def ended(project: Project) -> tuple[str, str | None, str | None]:
    experiment = only(project)
    return experiment.status.word, experiment.outcome, experiment.error


def test_a_normal_end_is_finished_and_stopped_at_once(project: Project, script: Start) -> None:
    run = script("import keepsake; keepsake.init().checkpoint(metrics={'loss': 1})")
    assert run.wait() == 0
    assert ended(project) == ("stopped", "finished", None)
    assert not only(project).is_running()
    assert only(project).ended is not None
    assert list(project.repository_at_hand().storage.list(layout.HEARTBEATS_PREFIX)) == []


def test_an_exception_is_failed_with_its_message(project: Project, script: Start) -> None:
    run = script("import keepsake; keepsake.init(); raise RuntimeError('CUDA out\\nof memory')")
    assert run.wait() == 1
    assert "RuntimeError: CUDA out" in run.stderr
    assert ended(project) == ("failed", "failed", "RuntimeError: CUDA out of memory")


def test_an_exception_is_failed_whoever_replaced_the_exception_hook(project: Project, script: Start) -> None:
    run = script(
        """
        import sys, keepsake
        keepsake.init()
        sys.excepthook = lambda *args: None
        raise ValueError("unseen")
        """
    )
    assert run.wait() == 1
    assert ended(project) == ("failed", "failed", "ValueError: unseen")


def test_an_exception_that_was_caught_is_not_a_failure(project: Project, script: Start) -> None:
    run = script(
        """
        import keepsake
        keepsake.init()
        try:
            raise ValueError("handled")
        except ValueError:
            pass
        """
    )
    assert run.wait() == 0
    assert ended(project) == ("stopped", "finished", None)


def test_the_error_holds_no_secret(project: Project, script: Start) -> None:
    run = script("import keepsake; keepsake.init(); raise OSError('https://ana:hunter2@example.org refused')")
    assert run.wait() == 1
    error = only(project).error
    assert error is not None
    assert "hunter2" not in error
    assert "refused" in error


def test_the_last_checkpoint_in_a_ctrl_c_handler_is_kept(project: Project, script: Start) -> None:
    run = script(
        """
        import sys, keepsake
        experiment = keepsake.init()
        try:
            print("ready", flush=True)
            sys.stdin.readline()
        except KeyboardInterrupt:
            experiment.checkpoint(metrics={"last": 1})
            raise
        """
    )
    assert run.line() == "ready"
    run.process.send_signal(signal.SIGINT)
    run.wait()
    assert ended(project) == ("stopped", "interrupted", "KeyboardInterrupt")
    assert only(project).checkpoints.metrics["last"] == [1]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_signal_is_recorded_and_still_kills(project: Project, script: Start, signum: signal.Signals) -> None:
    run = script("import sys, keepsake; keepsake.init(); print('ready', flush=True); sys.stdin.readline()")
    assert run.line() == "ready"
    run.process.send_signal(signum)
    run.wait()
    assert run.process.returncode == -signum
    assert ended(project) == ("stopped", "interrupted", signum.name)


def test_a_handler_that_ends_the_process_is_called_and_the_end_is_interrupted(project: Project, script: Start) -> None:
    run = script(
        """
        import signal, sys, keepsake
        signal.signal(signal.SIGTERM, lambda *args: sys.exit(7))
        keepsake.init()
        print("ready", flush=True)
        sys.stdin.readline()
        """
    )
    assert run.line() == "ready"
    run.process.send_signal(signal.SIGTERM)
    run.wait()
    assert run.process.returncode == 7
    assert ended(project) == ("stopped", "interrupted", "SIGTERM")


def test_a_handler_that_goes_on_is_called_and_the_run_goes_on(project: Project, script: Start) -> None:
    run = script(
        """
        import os, signal, sys, keepsake
        # Not print(): the signal may come in the middle of the other one, and Python forbids that.
        signal.signal(signal.SIGTERM, lambda *args: os.write(1, b"noted\\n"))
        experiment = keepsake.init()
        print("ready", flush=True)
        while not sys.stdin.readline().startswith("end"):
            pass
        experiment.checkpoint(metrics={"after": 1})
        experiment.stop()
        """
    )
    assert run.line() == "ready"
    run.process.send_signal(signal.SIGTERM)
    assert run.line() == "noted"
    assert only(project).is_running()
    assert run.process.stdin is not None
    run.process.stdin.write("end\n")
    assert run.wait() == 0
    assert ended(project) == ("stopped", "finished", None)
    assert len(only(project).checkpoints) == 1


def test_an_ignored_signal_stays_ignored(project: Project, script: Start) -> None:
    run = script(
        """
        import os, signal, keepsake
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        keepsake.init()
        os.kill(os.getpid(), signal.SIGHUP)
        """
    )
    assert run.wait() == 0
    assert ended(project) == ("stopped", "finished", None)


def test_handlers_are_given_back_when_the_last_experiment_stops(project: Project, script: Start) -> None:
    run = script(
        """
        import signal, keepsake
        before = signal.getsignal(signal.SIGTERM)
        first, second = keepsake.init(), keepsake.init()
        first.stop()
        assert signal.getsignal(signal.SIGTERM) is not before
        second.stop()
        assert signal.getsignal(signal.SIGTERM) is before
        """
    )
    assert run.wait() == 0, run.stderr


def test_a_killed_run_is_stopped_for_lack_of_a_heartbeat_after_the_tolerance(project: Project, script: Start) -> None:
    run = script(
        """
        import sys, keepsake
        keepsake.init().checkpoint(metrics={"loss": 1})
        print("ready", flush=True)
        sys.stdin.readline()
        """
    )
    assert run.line() == "ready"
    run.process.kill()
    run.wait()
    assert only(project).status.word == "running"  # nobody can know yet

    heartbeat = project.directory / ".keepsake" / layout.heartbeat_key(only(project).id)
    written = heartbeat.stat().st_mtime
    os.utime(heartbeat, (written - 29, written - 29))
    assert only(project).is_running()
    os.utime(heartbeat, (written - 31, written - 31))

    status = only(project).status
    assert (status.word, status.reason) == ("stopped", "no heartbeat")
    assert status.last_heartbeat is not None
    assert abs(status.last_heartbeat.timestamp() - (written - 31)) < 1
    assert len(only(project).checkpoints) == 1


def test_os_exit_leaves_what_was_accepted(project: Project, script: Start) -> None:
    run = script("import os, keepsake; keepsake.init().checkpoint(metrics={'loss': 1}); os._exit(3)")
    assert run.wait() == 3
    assert only(project).outcome is None
    assert only(project).checkpoints.metrics["loss"] == [1]


@pytest.mark.parametrize(
    ("ending", "outcome", "error"),
    [
        ("pass", "finished", None),
        ("sys.exit()", "finished", None),
        ("sys.exit(3)", "failed", "SystemExit: 3"),
        ("1 / 0", "failed", "ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt", "interrupted", "KeyboardInterrupt"),
    ],
)
def test_a_with_block_knows_how_it_was_left(
    project: Project, script: Start, ending: str, outcome: str, error: str | None
) -> None:
    run = script(f"import sys, keepsake\nwith keepsake.init():\n    {ending}")
    run.wait()
    assert (only(project).outcome, only(project).error) == (outcome, error)


def test_a_forked_child_neither_records_nor_ends_the_experiment(project: Project, script: Start) -> None:
    run = script(
        """
        import os, sys, keepsake
        experiment = keepsake.init()
        child = os.fork()
        if child == 0:
            experiment.checkpoint(metrics={"child": 1})
            experiment.stop()
            sys.exit(0)  # the child runs its exit hooks, as any program does
        os.waitpid(child, 0)
        print("alive" if experiment.is_running() else "ended", flush=True)
        experiment.checkpoint(metrics={"parent": 1})
        """
    )
    assert run.line() == "alive"
    assert run.wait() == 0
    assert ended(project) == ("stopped", "finished", None)
    assert list(only(project).checkpoints.metrics) == ["parent"]


def test_terminating_a_forked_worker_does_not_end_the_experiment(project: Project, script: Start) -> None:
    run = script(
        """
        import multiprocessing, keepsake

        def work(ready):
            ready.set()
            multiprocessing.Event().wait()

        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            experiment = keepsake.init()
            ready = context.Event()
            worker = context.Process(target=work, args=(ready,))
            worker.start()
            ready.wait()
            worker.terminate()
            worker.join()
            print(worker.exitcode, experiment.is_running(), flush=True)
        """
    )
    assert run.line() == f"-{int(signal.SIGTERM)} True"
    assert run.wait() == 0
    assert ended(project) == ("stopped", "finished", None)


def test_a_thread_that_outlives_main_still_records(project: Project, script: Start) -> None:
    run = script(
        """
        import sys, threading, keepsake
        experiment = keepsake.init()

        def work():
            threading.main_thread().join()
            experiment.checkpoint(metrics={"late": 1})

        threading.Thread(target=work).start()
        """
    )
    assert run.wait() == 0
    assert ended(project) == ("stopped", "finished", None)
    assert only(project).checkpoints.metrics["late"] == [1]


def test_init_in_another_thread_works(project: Project, script: Start) -> None:
    run = script(
        """
        import threading, keepsake
        thread = threading.Thread(target=lambda: keepsake.init().checkpoint(metrics={"loss": 1}))
        thread.start()
        thread.join()
        """
    )
    assert run.wait() == 0
    assert ended(project) == ("stopped", "finished", None)


def test_a_failed_statement_of_an_interactive_session_is_not_its_end(project: Project, script: Start) -> None:
    run = script(
        """
        import sys
        sys.ps1 = ">>> "
        import keepsake
        keepsake.init()
        sys.last_value = ValueError("an earlier cell")
        """
    )
    assert run.wait() == 0
    assert ended(project) == ("stopped", "finished", None)


def test_a_signal_in_the_middle_of_a_checkpoint_waits_until_it_is_written(project: Project, script: Start) -> None:
    run = script(
        """
        import os, signal, keepsake
        from keepsake.repository.staging import Staging

        pack = Staging.pack
        def pack_and_be_terminated(self, *args):
            os.kill(os.getpid(), signal.SIGTERM)
            return pack(self, *args)

        experiment = keepsake.init()
        Staging.pack = pack_and_be_terminated
        open("weights", "w").write("w")
        experiment.checkpoint("weights", metrics={"loss": 1})
        raise AssertionError("not reached")
        """
    )
    assert run.wait() == -signal.SIGTERM
    assert ended(project) == ("stopped", "interrupted", "SIGTERM")
    [checkpoint] = only(project).checkpoints
    assert checkpoint.open("weights").read() == b"w"


def test_a_signal_in_the_middle_of_a_line_on_standard_error_does_no_harm(project: Project, script: Start) -> None:
    run = script(
        """
        import io, os, signal, sys, keepsake

        class Slow(io.RawIOBase):
            def writable(self):
                return True
            def write(self, data):
                if b"progress" in bytes(data):
                    os.kill(os.getpid(), signal.SIGTERM)
                    for _ in range(1000):
                        pass  # the handler runs here, inside of the write
                return len(data)

        sys.stderr = io.TextIOWrapper(io.BufferedWriter(Slow()), write_through=True)
        keepsake.init()
        print("progress", file=sys.stderr, flush=True)
        """
    )
    assert run.wait() == -signal.SIGTERM
    assert ended(project) == ("stopped", "interrupted", "SIGTERM")
