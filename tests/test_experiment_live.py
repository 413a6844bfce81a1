"""An experiment that is being recorded can be read, waited for, copied, changed and ended from anywhere in its process, at any moment."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from keepsake import Experiment, Project
from keepsake.capture.files import FileEntry
from keepsake.exceptions import DoesNotExist
from keepsake.repository import layout
from keepsake.repository.journal import journals
from keepsake.repository.records import ExperimentRecord
from keepsake.repository.staging import Staging
from tests.conftest import Script

Start = Callable[..., Script]

PATIENCE_S = 120.0
"""Long enough for what takes seconds on a slow disk; whoever waits longer hangs."""


@pytest.fixture
def experiment(project: Project) -> Experiment:
    Path("train.py").write_text("print('train')\n", encoding="utf-8")
    return project.experiments.create(path=".", params={"lr": 0.1}, quiet=True)


def stored(experiment: Experiment) -> Experiment:
    """The same experiment as somebody else reads it."""
    return experiment.project.experiments.get(experiment.id)


def keepsake_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("keepsake")}


# --- waiting and reading ----------------------------------------------------------------------------------------------


def test_what_was_flushed_is_in_the_record_and_in_its_place(experiment: Experiment) -> None:
    for step in range(5):
        Path("model").write_bytes(b"weights %d" % step)
        experiment.checkpoint("model", step=step, metrics={"loss": step})
    assert experiment.flush()
    record = experiment.repository.load_stored(experiment.id)
    assert record.archive is not None
    assert [(one.step, one.archive_pending) for one in record.checkpoints] == [(step, False) for step in range(5)]
    for checkpoint in record.checkpoints:
        experiment.repository.archives.check(layout.checkpoint_archive_key(checkpoint.id), announced=checkpoint.archive)
    assert experiment.flush()


def test_flushing_an_experiment_that_nobody_here_records_has_nothing_to_wait_for(experiment: Experiment) -> None:
    experiment.stop()
    assert stored(experiment).flush()


@pytest.mark.parametrize("fetched", [False, True])
def test_files_can_be_read_right_after_they_were_saved(experiment: Experiment, tmp_path: Path, *, fetched: bool) -> None:
    for step in range(5):
        Path("model").write_bytes(b"weights %d" % step)
        made = experiment.checkpoint("model", step=step)
        checkpoint = stored(experiment).checkpoints[-1] if fetched else made
        with checkpoint.open("model") as file:
            assert file.read() == b"weights %d" % step
        [listed] = checkpoint.files()
        assert (listed.path, listed.size_bytes) == ("model", 9)
        checkpoint.checkout(tmp_path / str(step), quiet=True)
        assert (tmp_path / str(step) / "model").read_bytes() == b"weights %d" % step
    with (stored(experiment) if fetched else experiment).open("train.py") as code:
        assert code.read() == b"print('train')\n"
    assert "train.py" in [file.path for file in (stored(experiment) if fetched else experiment).files()]


def test_where_nothing_was_saved_no_files_can_be_listed(project: Project) -> None:
    bare = project.experiments.create(quiet=True)
    with pytest.raises(DoesNotExist, match="has no saved code"):
        bare.files()
    with pytest.raises(DoesNotExist, match="has no files"):
        bare.checkpoint(metrics={"loss": 1.0}).files()


def test_the_code_can_be_checked_out_right_after_the_start(experiment: Experiment, tmp_path: Path) -> None:
    experiment.checkout(tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "train.py").read_text(encoding="utf-8") == "print('train')\n"


def test_one_that_was_fetched_in_the_same_process_is_recorded_by_the_same_recorder(experiment: Experiment) -> None:
    experiment.checkpoint(step=0, metrics={"loss": 0})
    fetched = stored(experiment)
    for step in range(1, 6):
        (fetched if step % 2 else experiment).checkpoint(step=step, metrics={"loss": step})
    assert [one.step for one in fetched.checkpoints] == list(range(6))
    assert [one.step for one in experiment.checkpoints] == list(range(6))
    assert len(journals(experiment.project.directory / ".keepsake")) == 1
    fetched.stop()
    assert not experiment.is_running()
    assert [one.step for one in stored(experiment).checkpoints] == list(range(6))


def test_refreshing_shows_what_others_have_changed_and_forgets_nothing(experiment: Experiment) -> None:
    first = experiment.checkpoint(step=0, metrics={"loss": 0})
    assert experiment.flush()
    experiment.checkpoint(step=1, metrics={"loss": 1})

    def tag(record: ExperimentRecord) -> None:
        record.params["tag"] = "good"

    experiment.repository.update(experiment.id, tag)
    experiment.checkpoint(step=2, metrics={"loss": 2})
    experiment.refresh()
    assert experiment.params == {"lr": 0.1, "tag": "good"}
    assert [one.step for one in experiment.checkpoints] == [0, 1, 2]
    assert experiment.checkpoints[0].record is first.record
    experiment.stop()
    assert stored(experiment).params == {"lr": 0.1, "tag": "good"}
    assert [one.step for one in stored(experiment).checkpoints] == [0, 1, 2]


def test_a_pickled_experiment_reads_and_leaves_the_recording_to_the_first(experiment: Experiment) -> None:
    Path("model").write_bytes(b"weights")
    checkpoint = experiment.checkpoint("model", step=1, metrics={"loss": 1})
    copied, copied_checkpoint = pickle.loads(pickle.dumps((experiment, checkpoint)))
    assert (copied, copied_checkpoint) == (experiment, checkpoint)
    assert copied_checkpoint.open("model").read() == b"weights"
    assert [one.step for one in copied.checkpoints] == [1]
    experiment.checkpoint(step=2)
    copied.refresh()
    assert [one.step for one in copied.checkpoints] == [1, 2]
    copied.stop()
    assert experiment.status.word == "running"


# --- deleting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fetched", [False, True])
def test_a_checkpoint_can_be_deleted_while_its_experiment_lives(experiment: Experiment, *, fetched: bool) -> None:
    ids = []
    for step in range(4):
        Path("model").write_bytes(b"weights %d" % step)
        ids.append(experiment.checkpoint("model", step=step).id)
    (stored(experiment) if fetched else experiment).checkpoints[1].delete()
    experiment.checkpoint(step=4)
    assert [one.step for one in stored(experiment).checkpoints] == [0, 2, 3, 4]
    experiment.refresh()
    assert [one.step for one in experiment.checkpoints] == [0, 2, 3, 4]
    experiment.stop()
    assert [one.step for one in stored(experiment).checkpoints] == [0, 2, 3, 4]
    archives = {path.name.removesuffix(".tar.gz") for path in (Path(".keepsake") / "checkpoints").iterdir()}
    assert archives == {ids[0], ids[2], ids[3]}


def test_files_of_a_checkpoint_that_was_deleted_by_others_before_they_were_stored_do_not_stay(
    project: Project, script: Start
) -> None:
    run = script(
        """
        import sys, threading
        import keepsake
        from keepsake.storage import DiskStorage

        really_adopt, may_store = DiskStorage.adopt, threading.Event()
        def adopt_later(*arguments):
            may_store.wait()
            really_adopt(*arguments)
        DiskStorage.adopt = adopt_later
        experiment = keepsake.init(path=None, quiet=True)
        open("model", "wb").write(b"weights")
        print(experiment.checkpoint("model", step=1).id, flush=True)
        sys.stdin.readline()
        may_store.set()
        """
    )
    id = run.line()
    [experiment] = project.experiments.list()
    place = journals(project.directory / ".keepsake")[0]
    while place.mentions(id):
        # Until its entry is in the record; somebody who deletes it before is asked to wait.
        threading.Event().wait(0.01)
    experiment.repository.delete_checkpoint(experiment.id, id)
    assert run.wait() == 0, run.stderr
    [experiment] = project.experiments.list()
    assert experiment.checkpoints == []
    assert list(Path(".keepsake").rglob(f"{id}*")) == []


def test_a_live_experiment_can_be_deleted(experiment: Experiment) -> None:
    for step in range(3):
        Path("model").write_bytes(b"weights %d" % step)
        experiment.checkpoint("model", step=step)
    experiment.delete()
    experiment.checkpoint("model", step=3)
    assert list(experiment.project.experiments.list()) == []
    left = [path for path in Path(".keepsake").rglob("*") if path.is_file() and path.name != "repository.json"]
    assert left == []


# --- threads ----------------------------------------------------------------------------------------------------------


def test_many_experiments_in_one_process_leave_no_threads_and_no_journals_behind(project: Project) -> None:
    before = keepsake_threads()
    for number in range(20):
        with project.experiments.create(path=None, quiet=True) as experiment:
            Path("model").write_bytes(b"weights %d" % number)
            experiment.checkpoint("model", metrics={"loss": number})
        experiment.checkpoint("model", metrics={"loss": -number})
    for thread in keepsake_threads() - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), thread.name
    assert list((project.directory / ".keepsake" / ".journal").iterdir()) == []
    assert [len(found.checkpoints) for found in project.experiments.list()] == [2] * 20


STUCK = "somebody waits for somebody who waits for him"


def run_threads(script: Start, code: str) -> Script:
    """Run a script that must come to its end; one that does not is killed and says where it hangs."""
    run = script(
        f"""
import faulthandler, threading
faulthandler.dump_traceback_later({PATIENCE_S}, exit=True)
import keepsake
{code}
print("done", flush=True)
"""
    )
    answer = run.line()
    run.wait()
    assert answer == "done", f"{STUCK}:\n{run.stderr}"
    return run


def test_threads_may_checkpoint_together_after_the_end(project: Project, script: Start) -> None:
    run_threads(
        script,
        """
experiment = keepsake.init(path=None, quiet=True)
experiment.stop()
def work(first):
    for step in range(first, first + 60):
        experiment.checkpoint(step=step, metrics={"loss": step})
threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 240, 60)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
""",
    )
    [experiment] = project.experiments.list()
    assert sorted(one.step for one in experiment.checkpoints) == list(range(240))


def test_an_experiment_can_be_ended_while_other_threads_checkpoint(project: Project, script: Start) -> None:
    run_threads(
        script,
        """
for number in range(10):
    experiment = keepsake.init(path=None, params={"number": number}, quiet=True)
    has_begun = threading.Barrier(4)
    def work(first):
        has_begun.wait()
        for step in range(first, first + 40):
            experiment.checkpoint(step=step, metrics={"loss": step})
    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 120, 40)]
    for thread in threads:
        thread.start()
    has_begun.wait()
    experiment.stop()
    for thread in threads:
        thread.join()
""",
    )
    for experiment in project.experiments.list():
        assert sorted(one.step for one in experiment.checkpoints) == list(range(120)), experiment.params


def test_a_termination_in_the_middle_of_a_flush_ends_the_process(project: Project, script: Start) -> None:
    for _ in range(5):
        run = script(
            f"""
            import faulthandler
            import keepsake
            faulthandler.dump_traceback_later({PATIENCE_S}, exit=True)
            experiment = keepsake.init(path=None, quiet=True)
            for step in range(20):
                experiment.checkpoint(step=step, metrics={{"loss": step}})
                experiment.flush()
            print("begun", flush=True)
            while True:
                step += 1
                experiment.checkpoint(step=step, metrics={{"loss": step}})
                experiment.flush()
            """
        )
        assert run.line() == "begun"
        run.process.send_signal(signal.SIGTERM)
        code = run.wait()
        assert (code, run.stderr) == (-signal.SIGTERM, ""), run.stderr
    for experiment in project.experiments.list():
        assert (experiment.outcome, experiment.error) == ("interrupted", "SIGTERM")
        assert [one.step for one in experiment.checkpoints] == list(range(len(experiment.checkpoints)))


def test_files_that_another_thread_is_just_saving_when_the_experiment_ends_are_kept(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert experiment.flush()
    pack, has_begun, may_go_on = Staging.pack, threading.Event(), threading.Event()

    def pack_later(self: Staging, id: str, entries: Sequence[FileEntry]) -> None:
        has_begun.set()
        assert may_go_on.wait(PATIENCE_S)
        pack(self, id, entries)

    monkeypatch.setattr(Staging, "pack", pack_later)
    Path("model").write_bytes(b"weights")
    saving = threading.Thread(target=experiment.checkpoint, args=("model",))
    saving.start()
    assert has_begun.wait(PATIENCE_S)
    ending = threading.Thread(target=experiment.stop)
    ending.start()
    # It may wait for the other one or not; either way both come to an end.
    ending.join(0.5)
    may_go_on.set()
    for thread in (saving, ending):
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), STUCK
    [checkpoint] = stored(experiment).checkpoints
    assert checkpoint.open("model").read() == b"weights"
