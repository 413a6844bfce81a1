"""What a dead process has accepted is stored by the next that opens the repository, and what is of a living one is left alone."""

from __future__ import annotations

import json
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake import Experiment, Project
from keepsake.repository import layout, recovery
from keepsake.repository.journal import JournalDirectory, journals
from keepsake.repository.records import ExperimentRecord
from keepsake.repository.repository import Repository
from tests.conftest import Script, bound_by_permissions
from tests.storage.test_disk import backdate

Start = Callable[..., Script]

WEIGHTS = bytes(range(256)) * 20_000
"""Larger than what is worth cloning, so that each way of taking files has its turn."""

BEGINNING = """
    import os, random, signal, sys, threading
    from pathlib import Path
    import keepsake
    from keepsake.repository import archive
    from keepsake.repository.archive import writing
    from keepsake.storage import DiskStorage

    def die(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()

    def never(*arguments):
        threading.Event().wait()

    really_adopt = DiskStorage.adopt
    weights = bytes(range(256)) * 20_000
    def save(name, content=weights):
        with open(name, "wb") as file:
            file.write(content)
            os.fsync(file.fileno())

"""


def run_and_die(script: Start, code: str) -> Script:
    """Run a script that makes an experiment and is killed."""
    run = script(textwrap.dedent(BEGINNING) + textwrap.dedent(code))
    assert run.wait() == -signal.SIGKILL, run.stderr
    return run


def started(script: Start, count: int, code: str) -> list[Script]:
    """Start a script several times; each is ready before the next is started."""
    running = []
    for _ in range(count):
        running.append(script(code))
        assert running[-1].line() == "ready"
    return running


def repository_of(project: Project) -> Repository:
    return Repository.at(f"file://{project.directory / '.keepsake'}")


def only_record(project: Project) -> ExperimentRecord:
    """The record as whoever opens the repository anew finds it."""
    [record] = repository_of(project).list_experiments()
    return record


def only_place(project: Project) -> JournalDirectory:
    [place] = journals(project.directory / ".keepsake")
    return place


def written(project: Project, experiment_id: str) -> ExperimentRecord:
    """The record as it stands in the file, without what a journal adds."""
    return repository_of(project).load_stored(experiment_id)


def step_of(record: ExperimentRecord, id: str) -> int:
    [step] = [checkpoint.step for checkpoint in record.checkpoints if checkpoint.id == id]
    return step


def check_files(project: Project, record: ExperimentRecord, step: int, name: str, content: bytes) -> None:
    [checkpoint] = [one for one in record.checkpoints if one.step == step]
    assert checkpoint.archive is not None
    assert not checkpoint.archive_pending
    key = layout.checkpoint_archive_key(checkpoint.id)
    repository = repository_of(project)
    repository.archives.check(key, announced=checkpoint.archive)
    with repository.archives.open_file(key, name) as file:
        assert file.read() == content


def check_nothing_is_left(project: Project) -> None:
    directory = project.directory / ".keepsake" / ".journal"
    assert list(directory.iterdir()) == []


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_metrics_that_a_killed_process_has_accepted_come_into_the_record(
    project: Project, script: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    run_and_die(
        script,
        """
        experiment = keepsake.init(path=None, quiet=True)
        for step in range(50):
            experiment.checkpoint(step=step, metrics={"loss": step})
        die()
        """,
    )
    record = only_record(project)
    assert [checkpoint.step for checkpoint in record.checkpoints] == list(range(50))
    assert [checkpoint.step for checkpoint in written(project, record.id).checkpoints] == list(range(50))
    check_nothing_is_left(project)
    assert f"that experiment {record.id[:7]} had not stored when its process ended" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["packed", "moved", "cloned where that is possible"])
def test_staged_files_are_sealed_and_announced(project: Project, script: Start, how: str) -> None:
    content = "weights" if how != "packed" else "b'small'"
    run_and_die(
        script,
        f"""
        DiskStorage.adopt = never
        experiment = keepsake.init(path=None, quiet=True)
        for step in range(3):
            save("model", {content})
            experiment.checkpoint("model", step=step, metrics={{"loss": step}}, move={how == "moved"})
            save("model", b"later")
        die()
        """,
    )
    record = only_record(project)
    for step in range(3):
        check_files(project, record, step, "model", b"small" if how == "packed" else WEIGHTS)
    assert written(project, record.id) == record
    check_nothing_is_left(project)


def test_code_that_was_not_in_its_place_is_stored(project: Project, script: Start) -> None:
    run_and_die(
        script,
        """
        adopting = threading.Event()
        def never(*arguments):
            adopting.set()
            threading.Event().wait()
        DiskStorage.adopt = never
        keepsake.init(path=".", quiet=True)
        adopting.wait()
        die()
        """,
    )
    record = only_record(project)
    assert record.archive is not None
    repository_of(project).archives.check(layout.experiment_archive_key(record.id), announced=record.archive)
    check_nothing_is_left(project)


@pytest.mark.parametrize("move", [False, True])
def test_an_archive_that_is_in_its_place_and_not_announced_gets_announced(project: Project, script: Start, *, move: bool) -> None:
    run_and_die(
        script,
        f"""
        def adopt_and_die(*arguments):
            really_adopt(*arguments)
            die()
        DiskStorage.adopt = adopt_and_die
        experiment = keepsake.init(path=None, quiet=True)
        save("model")
        experiment.checkpoint("model", metrics={{"loss": 1}}, move={move})
        threading.Event().wait()
        """,
    )
    check_files(project, only_record(project), 0, "model", WEIGHTS)
    check_nothing_is_left(project)


def test_a_moved_file_that_was_set_aside_and_not_removed_is_removed(project: Project, script: Start) -> None:
    run_and_die(
        script,
        """
        from keepsake.repository.staging import Staging
        Staging.sweep = die
        experiment = keepsake.init(path=None, quiet=True)
        save("model")
        experiment.checkpoint("model", metrics={"loss": 1}, move=True)
        threading.Event().wait()
        """,
    )
    check_files(project, only_record(project), 0, "model", WEIGHTS)
    check_nothing_is_left(project)


@pytest.mark.parametrize(
    "death",
    [
        pytest.param("writing.stage.__globals__['_replace'] = die", id="before the archive is known to be whole"),
        pytest.param("writing._MemberWriter._write = die", id="before its first member is written"),
        pytest.param("from keepsake.repository.staging import Staging; Staging.pack = die", id="before it is begun"),
    ],
)
def test_files_that_a_kill_has_cut_become_metrics_only(project: Project, script: Start, death: str) -> None:
    run_and_die(
        script,
        f"""
        experiment = keepsake.init(path=None, quiet=True)
        experiment.checkpoint(step=0, metrics={{"loss": 0}})
        save("model", b"small")
        {death}
        experiment.checkpoint("model", step=1, metrics={{"loss": 1}})
        """,
    )
    record = only_record(project)
    assert [(one.step, one.metrics, one.path, one.archive_pending) for one in record.checkpoints] == [
        (0, {"loss": 0}, None, False),
        (1, {"loss": 1}, None, False),
    ]
    assert Path("model").read_bytes() == b"small"
    check_nothing_is_left(project)


@pytest.mark.parametrize("moved", ["model", "directory"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_is_moved_is_never_lost(project: Project, script: Start, moment: str, moved: str) -> None:
    run_and_die(
        script,
        f"""
        rename = Path.rename
        def rename_and_die(self, target):
            if {moment == "after"}:
                rename(self, target)
            die()
        experiment = keepsake.init(path=None, quiet=True)
        os.mkdir("directory")
        save("model")
        save("directory/model")
        Path.rename = rename_and_die
        experiment.checkpoint({moved!r}, metrics={{"loss": 1}}, move=True)
        """,
    )
    record = only_record(project)
    name = "model" if moved == "model" else "directory/model"
    if moment == "after":
        assert not Path(moved).exists()
        check_files(project, record, 0, name, WEIGHTS)
    else:
        assert Path(name).read_bytes() == WEIGHTS
        assert [(one.metrics, one.path) for one in record.checkpoints] == [({"loss": 1}, None)]
    check_nothing_is_left(project)


def test_the_end_that_a_process_could_not_write_into_the_record_is_recorded(project: Project, script: Start) -> None:
    run_and_die(
        script,
        """
        experiment = keepsake.init(path=None, quiet=True)
        from keepsake.repository.repository import Repository
        Repository.save = die
        experiment.finish("failed", "it went wrong")
        """,
    )
    record = only_record(project)
    assert (record.outcome, record.error) == ("failed", "it went wrong")
    assert written(project, record.id).ended is not None
    assert repository_of(project).heartbeat(record.id) is None


# --- again and together -----------------------------------------------------------------------------------------------

LEFT_BEHIND = """
    DiskStorage.adopt = never
    experiment = keepsake.init(path=None, quiet=True)
    for step in range(4):
        save("model")
        experiment.checkpoint("model", step=step, metrics={"loss": step}, move=bool(step % 2))
    die()
"""


@pytest.mark.parametrize("death", ["DiskStorage.adopt = die", "DiskStorage.adopt = adopt_and_die", "Repository.save = die"])
def test_recovery_may_be_killed_and_begun_again(project: Project, script: Start, death: str) -> None:
    run_and_die(script, LEFT_BEHIND)
    run_and_die(
        script,
        f"""
        from keepsake.repository.repository import Repository
        def adopt_and_die(*arguments):
            really_adopt(*arguments)
            die()
        {death}
        keepsake.experiments.list()
        """,
    )
    record = only_record(project)
    for step in range(4):
        check_files(project, record, step, "model", WEIGHTS)
    check_nothing_is_left(project)


def test_several_processes_that_recover_at_once_do_not_disturb_each_other(project: Project, script: Start) -> None:
    run_and_die(script, LEFT_BEHIND)
    readers = started(
        script,
        4,
        """
        import sys, keepsake
        print("ready", flush=True)
        sys.stdin.readline()
        [experiment] = keepsake.experiments.list()
        print([checkpoint.step for checkpoint in experiment.checkpoints], flush=True)
        """,
    )
    for reader in readers:
        assert reader.process.stdin is not None
        reader.process.stdin.write("\n")
        reader.process.stdin.flush()
    for reader in readers:
        assert reader.line() == "[0, 1, 2, 3]"
        assert reader.wait() == 0
        assert "Traceback" not in reader.stderr
    record = only_record(project)
    for step in range(4):
        check_files(project, record, step, "model", WEIGHTS)
    check_nothing_is_left(project)


def test_recovering_twice_changes_nothing(project: Project, script: Start) -> None:
    run_and_die(script, LEFT_BEHIND)
    record = only_record(project)
    path = project.directory / ".keepsake" / layout.record_key(record.id)
    before = path.read_bytes(), path.stat().st_mtime_ns
    recovery.recover(repository_of(project))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


# --- what is not stored -----------------------------------------------------------------------------------------------


def test_of_a_deleted_experiment_everything_is_removed(project: Project, script: Start) -> None:
    run_and_die(script, LEFT_BEHIND)
    place = only_place(project)
    (project.directory / ".keepsake" / layout.record_key(place.experiment_id)).unlink()
    assert repository_of(project).list_experiments() == []
    check_nothing_is_left(project)
    assert not any((project.directory / ".keepsake").rglob("*.tar.gz"))


@pytest.mark.parametrize("damage", [b"", b"{", b'[{"name": 1}]', bytes(100)], ids=["empty", "cut", "no entries", "zeros"])
def test_a_snapshot_whose_list_is_damaged_costs_its_files_and_nothing_else(
    project: Project, script: Start, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    # As a power cut leaves it: what was renamed is there, what was written a moment before is not.
    run_and_die(
        script,
        """
        DiskStorage.adopt = never
        experiment = keepsake.init(path=None, quiet=True)
        for step in range(2):
            save("model")
            experiment.checkpoint("model", step=step, metrics={"loss": step}, move=True)
        die()
        """,
    )
    place = only_place(project)
    staged = sorted(place.path.glob("*.snapshot"))
    damaged, intact = (path.name.partition(".")[0] for path in staged)
    (staged[0] / "entries.json").write_bytes(damage)
    record = only_record(project)
    assert [checkpoint.metrics for checkpoint in record.checkpoints] == [{"loss": 0}, {"loss": 1}]
    check_files(project, record, step_of(record, intact), "model", WEIGHTS)
    assert step_of(record, damaged) in (0, 1)
    assert "cannot be stored" in (said := capsys.readouterr().err) or "are lost" in said


@pytest.mark.parametrize("damage", [b"", b"{", bytes(100)], ids=["empty", "cut", "zeros"])
def test_a_packed_archive_whose_layout_is_damaged_costs_its_files_and_nothing_else(
    project: Project, script: Start, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    run_and_die(
        script,
        """
        DiskStorage.adopt = never
        experiment = keepsake.init(path=None, quiet=True)
        for step in range(2):
            save("model", b"small")
            experiment.checkpoint("model", step=step, metrics={"loss": step})
        die()
        """,
    )
    place = only_place(project)
    staged = sorted(place.path.glob("*.layout"))
    damaged, intact = (path.name.partition(".")[0] for path in staged)
    staged[0].write_bytes(damage)
    record = only_record(project)
    assert [checkpoint.metrics for checkpoint in record.checkpoints] == [{"loss": 0}, {"loss": 1}]
    assert [one.path for one in record.checkpoints if one.id == damaged] == [None]
    check_files(project, record, step_of(record, intact), "model", b"small")
    assert "are lost, its metrics are not" in capsys.readouterr().err
    check_nothing_is_left(project)


# --- the living -------------------------------------------------------------------------------------------------------

LIVING = """
    import sys, threading
    import keepsake
    from keepsake.storage import DiskStorage

    DiskStorage.adopt = lambda *arguments: threading.Event().wait()
    experiment = keepsake.init(path=None, quiet=True)
    open("model", "wb").write(b"weights")
    experiment.checkpoint("model", metrics={"loss": 1})
    print("made", flush=True)
    sys.stdin.readline()
"""


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_the_journal_of_a_living_process_is_left_alone(project: Project, script: Start) -> None:
    run = script(LIVING)
    assert run.line() == "made"
    # The process goes on to finish the archive meanwhile, under names of its own; entries and files stay.
    for _ in range(3):
        [checkpoint] = only_record(project).checkpoints
        assert checkpoint.metrics == {"loss": 1}
        present = tree(only_place(project).path).keys()
        assert any(name.endswith(".log") for name in present)
        assert any(checkpoint.id in name for name in present)


def test_the_journal_of_this_process_is_left_alone_whatever_name_the_repository_goes_by(project: Project) -> None:
    experiment = project.experiments.create(quiet=True)
    experiment.checkpoint(metrics={"loss": 1})
    assert experiment.flush()
    other_name = project.directory.parent / "by another name"
    other_name.symlink_to(project.directory / ".keepsake")
    before = tree(only_place(project).path)
    Repository.at(f"file://{other_name}").list_experiments()
    assert tree(only_place(project).path) == before
    experiment.checkpoint(metrics={"loss": 2})
    assert [checkpoint.metrics["loss"] for checkpoint in only_record(project).checkpoints] == [1, 2]


def test_looking_at_a_repository_does_not_keep_anybody_from_writing_to_it(project: Project, script: Start) -> None:
    # An experiment that has ended takes its journal for each checkpoint anew, between which others look after what it has left.
    with project.experiments.create(quiet=True) as experiment:
        experiment.checkpoint(step=0, metrics={"loss": 0})
    readers = started(
        script,
        2,
        """
        import os, sys, threading
        from keepsake.repository.repository import Repository
        is_over = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
        os.write(1, b"ready\\n")
        while not is_over.is_set():
            Repository.at("file://.keepsake").list_experiments()
        """,
    )
    for step in range(1, 150):
        experiment.checkpoint(step=step, metrics={"loss": step})
    for reader in readers:
        assert reader.wait() == 0, reader.stderr
    assert [checkpoint.step for checkpoint in only_record(project).checkpoints] == list(range(150))


# --- other machines ---------------------------------------------------------------------------------------------------


def make_it_of_another_machine(project: Project) -> JournalDirectory:
    place = only_place(project)
    path = place.path / "writer.json"
    writer = json.loads(path.read_bytes())
    path.write_text(json.dumps(writer | {"machine": "another", "host": "elsewhere"}), encoding="utf-8")
    return place


def test_what_another_machine_records_is_left_alone_while_its_heart_beats(project: Project, script: Start) -> None:
    run_and_die(script, LEFT_BEHIND)
    place = make_it_of_another_machine(project)
    before = tree(place.path)
    assert [checkpoint.step for checkpoint in only_record(project).checkpoints] == [0, 1, 2, 3]
    assert tree(place.path) == before

    beat = project.directory / ".keepsake" / layout.heartbeat_key(place.experiment_id)
    backdate(beat, recovery.SILENT_ELSEWHERE_S - 60)
    only_record(project)
    assert tree(place.path) == before

    backdate(beat, 120)
    record = only_record(project)
    for step in range(4):
        check_files(project, record, step, "model", WEIGHTS)
    assert journals(project.directory / ".keepsake") == []


def test_without_a_heartbeat_what_was_written_last_tells_whether_another_machine_lives(project: Project, script: Start) -> None:
    run_and_die(script, LEFT_BEHIND)
    place = make_it_of_another_machine(project)
    (project.directory / ".keepsake" / layout.heartbeat_key(place.experiment_id)).unlink()
    paths = list(place.path.iterdir())
    for path in paths[1:]:
        backdate(path, recovery.SILENT_WITHOUT_BEAT_S + 60)
    only_record(project)
    assert place.path.exists()
    backdate(paths[0], recovery.SILENT_WITHOUT_BEAT_S + 60)
    record = only_record(project)
    assert not place.path.exists()
    for step in range(4):
        check_files(project, record, step, "model", WEIGHTS)


# --- who may not write ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are those of POSIX")
def test_who_may_only_read_sees_all_that_was_accepted(
    project: Project, script: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    run_and_die(script, LEFT_BEHIND)
    root = project.directory / ".keepsake"
    before = tree(root)
    directories = [root, *(path for path in root.rglob("*") if path.is_dir())]
    modes = {path: path.stat().st_mode for path in directories}
    for path in directories:
        path.chmod(0o555)
    try:
        with bound_by_permissions(root):
            assert [checkpoint.step for checkpoint in only_record(project).checkpoints] == [0, 1, 2, 3]
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert tree(root) == before
    assert capsys.readouterr().err == ""
    record = only_record(project)
    for step in range(4):
        check_files(project, record, step, "model", WEIGHTS)


def test_what_cannot_be_recovered_is_said_once_and_hides_nothing_else(
    project: Project, script: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    run_and_die(script, LEFT_BEHIND)
    damaged = only_place(project).experiment_id
    path = project.directory / ".keepsake" / layout.record_key(damaged)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    other: Experiment = project.experiments.create(quiet=True)
    other.stop()
    for _ in range(2):
        assert [record.id for record in repository_of(project).list_experiments()] == [other.id]
    assert capsys.readouterr().err.count("cannot be stored") == 1
    # Somebody mends the record; nothing has been thrown away meanwhile.
    path.write_bytes(whole)
    [record] = [record for record in repository_of(project).list_experiments() if record.id == damaged]
    for step in range(4):
        check_files(project, record, step, "model", WEIGHTS)


def test_a_repository_that_is_not_there_has_nothing_to_recover(tmp_path: Path) -> None:
    recovery.recover(Repository.at(f"file://{tmp_path / 'nowhere'}"))
    assert list(tmp_path.iterdir()) == []
