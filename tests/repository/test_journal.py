"""An entry is whole or not there, and laying entries over a record says the same however often it is done."""

from __future__ import annotations

import copy
import json
import os
import textwrap
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepsake import Project
from keepsake.exceptions import WriteError
from keepsake.repository import journal
from keepsake.repository.journal import Journal, JournalDirectory, journals, replay
from keepsake.repository.layout import new_id, record_key
from keepsake.repository.records import ArchiveInfo, CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from tests.conftest import Script

MOMENT = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def checkpoint(step: int, *, pending: bool = False) -> CheckpointRecord:
    path = "model.pth" if pending else None
    return CheckpointRecord(id=new_id(), created=MOMENT, step=step, path=path, metrics={"loss": 0.5}, archive_pending=pending)


def fresh_record() -> ExperimentRecord:
    return ExperimentRecord(id=new_id(), created=MOMENT)


def archive(number: int = 1) -> ArchiveInfo:
    return ArchiveInfo(number, 1, f"{number:064x}")


@st.composite
def histories(draw: st.DrawFn) -> tuple[ExperimentRecord, list[dict[str, Any]]]:
    """Entries as a writer makes them, with the record that they begin with."""
    record = fresh_record()
    record.path, record.archive_pending = ".", True
    entries: list[dict[str, Any]] = []
    waiting = [record.id]
    for number in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["metrics", "files", "stored", "unsaved", "ended", "resumed"]))
        moment = MOMENT.replace(microsecond=number)
        if kind == "metrics":
            entries.append(journal.accepted(checkpoint(number)))
        elif kind == "files":
            new = checkpoint(number, pending=True)
            waiting.append(new.id)
            entries.append(journal.accepted(new))
        elif kind == "stored" and waiting:
            id = waiting.pop(draw(st.integers(0, len(waiting) - 1)))
            entries.append(journal.stored(id, archive(number + 1)))
        elif kind == "unsaved" and len(waiting) > 1:
            entries.append(journal.unsaved(waiting.pop()))
        elif kind == "ended":
            entries.append(journal.ended(moment, draw(st.sampled_from(["finished", "failed"])), draw(st.none() | TEXT)))
        elif kind == "resumed":
            entries.append(journal.resumed(moment))
    return record, entries


def laid(record: ExperimentRecord, entries: list[dict[str, Any]]) -> ExperimentRecord:
    """Return a copy of a record with entries over it."""
    result = copy.deepcopy(record)
    replay(result, entries)
    return result


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


# --- the bytes ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.lists(st.integers(0, 10**6), min_size=1, max_size=8, unique=True), data=st.data())
def test_an_entry_is_whole_or_not_there_whatever_happens_to_the_bytes(
    tmp_path: Path, numbers: list[int], data: st.DataObject
) -> None:
    root = tmp_path / new_id()
    root.mkdir()
    written = [journal.accepted(checkpoint(number)) for number in numbers]
    opened = Journal.open(root, new_id())
    for entry in written:
        opened.append(entry)
    segment = opened.place.segment(1)
    content = bytearray(segment.read_bytes())
    match data.draw(st.sampled_from(["cut", "alter", "lose", "insert", "zeros", "duplicate"]), label="what happens"):
        case "cut":
            del content[data.draw(st.integers(0, len(content))) :]
        case "alter":
            for _ in range(data.draw(st.integers(1, 4))):
                content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        case "lose":
            start = data.draw(st.integers(0, len(content) - 1))
            del content[start : start + data.draw(st.integers(1, 300))]
        case "insert":
            start = data.draw(st.integers(0, len(content)))
            content[start:start] = data.draw(st.binary(min_size=1, max_size=40))
        case "zeros":
            start = data.draw(st.integers(0, len(content) - 1))
            content[start:] = bytes(len(content) - start)
        case "duplicate":
            content *= 2
    segment.write_bytes(content)

    found = opened.place.entries()
    assert all(entry in written for entry in found)
    places = [written.index(entry) for entry in found]
    assert len(places) > len(written) or places == sorted(places)
    # One place of damage costs the entries that it touches, and one more where it takes a line's end away.
    for line, entry in zip(bytes(content).split(b"\n")[:-1], written, strict=False):
        if line == journal._line(entry).rstrip(b"\n"):
            assert entry in found
    opened.close(remove=True)


def test_what_was_cut_does_not_reach_into_what_the_next_writer_appends(root: Path) -> None:
    id = new_id()
    first, second, third = (journal.accepted(checkpoint(number)) for number in range(3))
    dead = Journal.open(root, id)
    dead.append(first)
    dead.append(second)
    dead.close(remove=False)
    segment = dead.place.segment(1)
    segment.write_bytes(segment.read_bytes()[:-5])

    living = Journal.open(root, id)
    living.append(third)
    assert living.place.entries() == [first, third]
    living.close(remove=True)


def test_a_failed_append_leaves_nothing_that_would_spoil_the_next(root: Path, script: Callable[..., Script]) -> None:
    writer = script(
        f"""
        import resource, signal
        from datetime import UTC, datetime
        from pathlib import Path
        from keepsake.exceptions import WriteError
        from keepsake.repository import journal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        opened = journal.Journal.open(Path({str(root)!r}), "a" * 64)
        opened.append(journal.unsaved("first"))
        room = opened.place.segment(1).stat().st_size + 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            opened.append(journal.unsaved("without room"))
        except WriteError:
            print("refused", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        opened.append(journal.unsaved("second"))
        opened.close(remove=False)
        """
    )
    assert writer.line() == "refused"
    assert writer.wait() == 0, writer.stderr
    found = [entry["unsaved"]["id"] for entry in JournalDirectory(root, "a" * 64).entries()]
    assert found == ["first", "second"]


def test_lines_that_are_no_entries_are_left_out(root: Path) -> None:
    opened = Journal.open(root, new_id())
    opened.append(journal.unsaved("a"))
    with opened.place.segment(1).open("ab") as file:
        for line in (b"", b" ", b"\xff\xfe nonsense", b"zzzzzzzz {}", b"00000000", b"00000000 ", b"d8932aac []"):
            file.write(line + b"\n")
    opened.append(journal.unsaved("b"))
    assert [entry["unsaved"]["id"] for entry in opened.place.entries()] == ["a", "b"]
    opened.close(remove=True)


# --- laying entries over a record -----------------------------------------------------------------------------------


@given(histories())
def test_what_is_in_the_record_already_changes_nothing(history: tuple[ExperimentRecord, list[dict[str, Any]]]) -> None:
    record, entries = history
    once = laid(record, entries)
    kept = once.to_bytes()
    settled = {"checkpoint", "stored", "unsaved"}
    assert not replay(once, [entry for entry in entries if settled.issuperset(entry)])
    assert once.to_bytes() == kept


@given(histories(), st.data())
def test_a_record_that_holds_a_part_already_comes_to_the_same(
    history: tuple[ExperimentRecord, list[dict[str, Any]]], data: st.DataObject
) -> None:
    # A process dies between the rewriting of the record and the dropping of the entries.
    record, entries = history
    published = data.draw(st.integers(0, len(entries)), label="entries in the record")
    once = laid(record, entries)
    again = laid(laid(record, entries[:published]), entries)
    assert again.to_bytes() == once.to_bytes()


@given(st.lists(st.integers(0, 100), max_size=10))
def test_checkpoints_stand_in_the_order_in_which_they_were_accepted(steps: list[int]) -> None:
    checkpoints = [checkpoint(step) for step in steps]
    record = laid(fresh_record(), [journal.accepted(one) for one in checkpoints])
    assert [one.id for one in record.checkpoints] == [one.id for one in checkpoints]


def test_files_that_are_stored_after_the_entries_were_dropped_are_announced_all_the_same() -> None:
    record = fresh_record()
    new = checkpoint(1, pending=True)
    record.checkpoints.append(new)
    assert replay(record, [journal.stored(new.id, archive())])
    assert (record.checkpoints[0].archive, record.checkpoints[0].archive_pending) == (archive(), False)


def test_news_of_a_checkpoint_that_was_deleted_do_not_bring_it_back() -> None:
    record = fresh_record()
    assert not replay(record, [journal.stored(new_id(), archive()), journal.unsaved(new_id())])
    assert record.checkpoints == []


KINDS = ("checkpoint", "stored", "unsaved", "ended", "resumed")


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(KINDS) | TEXT,
        ANYTHING
        | st.fixed_dictionaries(
            {},
            optional={
                "id": ANYTHING,
                "archive": ANYTHING,
                "at": st.sampled_from(["0001-01-01T00:00:00+23:59", "2026-11-23T00:00:00Z"]) | ANYTHING,
                "outcome": st.sampled_from(["finished", "exploded"]) | ANYTHING,
                "error": ANYTHING,
                "created": ANYTHING,
            },
        ),
        max_size=2,
    )
)
def test_an_entry_that_makes_no_sense_is_left_out_and_never_damages_the_record(entry: dict[str, Any]) -> None:
    record = fresh_record()
    record.checkpoints.append(checkpoint(1, pending=True))
    replay(record, [entry])
    ExperimentRecord.from_bytes(record.to_bytes(), key=record_key(record.id))


def test_what_a_newer_keepsake_may_write_is_left_out(root: Path) -> None:
    record = fresh_record()
    opened = Journal.open(root, record.id)
    opened.append({"tagged": {"id": new_id(), "tag": "best"}})
    opened.append(journal.accepted(checkpoint(1)))
    opened.append({"checkpoint": {"not": "a checkpoint"}})
    opened.append({})
    replay(record, opened.place.entries())
    assert [one.step for one in record.checkpoints] == [1]
    opened.close(remove=True)


# --- segments -------------------------------------------------------------------------------------------------------


def test_rotating_loses_nothing_and_an_empty_segment_is_kept(root: Path) -> None:
    opened = Journal.open(root, new_id())
    assert opened.rotate() == 0
    opened.append(journal.unsaved("a"))
    assert opened.rotate() == 1
    assert opened.rotate() == 1
    opened.append(journal.unsaved("b"))
    assert [entry["unsaved"]["id"] for entry in opened.place.entries()] == ["a", "b"]
    opened.drop_through(1)
    assert [entry["unsaved"]["id"] for entry in opened.place.entries()] == ["b"]
    opened.close(remove=True)


def test_more_than_nine_segments_are_read_in_their_order(root: Path) -> None:
    opened = Journal.open(root, new_id())
    for number in range(12):
        opened.append(journal.unsaved(str(number)))
        opened.rotate()
    assert [entry["unsaved"]["id"] for entry in opened.place.entries()] == [str(number) for number in range(12)]
    opened.close(remove=True)


def test_a_segment_that_was_rotated_while_it_was_synced_does_not_count_for_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Journal.open(root, new_id())
    opened.append(journal.unsaved("a long one, so that its size is above that of the next" * 3))
    synced: list[int] = []
    really_sync = os.fsync

    def sync_while_another_thread_rotates(descriptor: int) -> None:
        if not synced:
            opened.rotate()
        synced.append(opened._number)
        really_sync(opened._descriptor)

    monkeypatch.setattr(os, "fsync", sync_while_another_thread_rotates)
    opened.sync()
    opened.append(journal.unsaved("b"))
    opened.sync()
    assert len(synced) == 2, "the new segment is taken for synced"
    opened.close(remove=True)


def test_one_process_records_an_experiment(root: Path) -> None:
    id = new_id()
    opened = Journal.open(root, id)
    with pytest.raises(WriteError, match=f"process {os.getpid()} on "):
        Journal.open(root, id)
    opened.close(remove=False)
    Journal.open(root, id).close(remove=True)
    assert journals(root) == []


def test_only_directories_that_are_named_by_an_id_are_journals(root: Path) -> None:
    assert journals(root) == []
    id = new_id()
    opened = Journal.open(root, id)
    (opened.place.path.parent / "notes").mkdir()
    assert [place.experiment_id for place in journals(root)] == [id]
    opened.close(remove=True)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "host": "h"}'])
def test_a_writer_that_cannot_be_read_is_nobody(root: Path, content: str) -> None:
    opened = Journal.open(root, new_id())
    (opened.place.path / "writer.json").write_text(content, encoding="utf-8")
    assert opened.place.writer() is None
    assert "another process" in str(opened.place.refusal())
    opened.close(remove=True)


# --- a reader while it is written -----------------------------------------------------------------------------------


def test_a_reader_never_misses_what_was_accepted_while_the_writer_rotates_and_drops(root: Path) -> None:
    (root / "metadata" / "experiments").mkdir(parents=True)
    repository = Repository.at(f"file://{root}")
    repository.prepare()
    record = fresh_record()
    repository.save(record)
    opened = Journal.open(root, record.id)
    accepted, is_over = 0, threading.Event()

    def write() -> None:
        nonlocal accepted
        try:
            for step in range(600):
                new = checkpoint(step)
                opened.append(journal.accepted(new))
                record.checkpoints.append(new)
                accepted = step + 1
                if step % 7 == 6:
                    last = opened.rotate()
                    repository.save(record)
                    opened.drop_through(last)
        finally:
            is_over.set()

    writer = threading.Thread(target=write)
    writer.start()
    rounds = 0
    while not is_over.is_set():
        before = accepted
        steps = [one.step for one in repository.load(record.id).checkpoints]
        assert steps == list(range(len(steps)))
        assert len(steps) >= before
        rounds += 1
    writer.join()
    assert accepted == 600
    assert rounds > 1
    opened.close(remove=True)


READER = """
    import os, sys, threading
    from keepsake.repository.repository import Repository

    repository = Repository.at({url!r})
    is_over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    seen, rounds = 0, 0
    os.write(1, b"ready\\n")
    while True:
        last_round = is_over.is_set()
        steps = [checkpoint.step for checkpoint in repository.load({id!r}).checkpoints]
        assert steps == list(range(len(steps))), "a hole in " + repr(steps)
        assert len(steps) >= seen, f"{{len(steps)}} after {{seen}}"
        seen, rounds = len(steps), rounds + 1
        if last_round:
            break
    print(seen, rounds, flush=True)
"""


def test_what_another_process_sees_of_a_live_experiment_only_grows(project: Project, script: Callable[..., Script]) -> None:
    experiment = project.experiments.create(quiet=True)
    url = f"file://{project.directory / '.keepsake'}"
    reader = script(textwrap.dedent(READER).format(url=url, id=experiment.id))
    assert reader.line() == "ready"
    for step in range(2000):
        experiment.checkpoint(step=step, metrics={"loss": 1 / (step + 1)})
        if step % 100 == 99:
            # The record is rewritten and the entries are dropped while the other one reads.
            assert experiment.flush()
    assert reader.process.stdin is not None
    reader.process.stdin.close()
    line = reader.line()
    assert line, reader.process.stderr and reader.process.stderr.read()
    seen, rounds = map(int, line.split())
    assert seen == 2000
    assert rounds > 2
    experiment.stop()


def test_the_writer_of_a_journal_is_named_for_people(root: Path) -> None:
    opened = Journal.open(root, new_id())
    writer = json.loads((opened.place.path / "writer.json").read_bytes())
    assert writer["pid"] == os.getpid()
    assert set(writer) == {"pid", "host", "machine"}
    opened.close(remove=True)
