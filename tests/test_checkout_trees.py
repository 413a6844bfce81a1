"""Whatever lies in a directory: a checkout makes it equal to the version, and its undo gives back what was there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake import Project
from keepsake.capture.files import FileEntry
from keepsake.checkout import Undo, plan_checkout, undo_place
from keepsake.exceptions import UnsavedFiles
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from tests.archives import store_archive

NAMES = st.sampled_from(["a", "b", "a/c", "a/d", "b/c/e", "ü \udcff\n", "a/c/f"])
CONTENTS = st.one_of(st.binary(max_size=3), st.just("link"))
TREES = st.dictionaries(NAMES, st.tuples(CONTENTS, st.booleans()), max_size=5).map(
    lambda tree: {name: value for name, value in tree.items() if not any(name.startswith(f"{other}/") for other in tree)}
)
"""Files by name: content, or that it is a link, and whether it is executable."""


def write(directory: Path, tree: dict) -> None:
    for name, (content, executable) in tree.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content == "link":
            path.symlink_to("somewhere")
        else:
            path.write_bytes(content)
            path.chmod(0o755 if executable else 0o644)


def read(directory: Path) -> dict[str, tuple]:
    found: dict[str, tuple] = {}
    for parent, directories, files in os.walk(directory):
        for name in [*files, *(name for name in directories if (Path(parent) / name).is_symlink())]:
            path = Path(parent) / name
            key = path.relative_to(directory).as_posix()
            if path.is_symlink():
                found[key] = ("link", str(path.readlink()))
            else:
                found[key] = (path.read_bytes(), os.access(path, os.X_OK))
    return found


def saved(project: Project, place: Path, code: dict, weights: dict) -> str:
    """Record an experiment with these files, and return its ID."""
    repository = project.repository_at_hand()
    repository.prepare()
    record = ExperimentRecord(id=layout.new_id(), created=utc_now(), path=".", outcome="finished")
    checkpoint = CheckpointRecord(id=layout.new_id(), created=utc_now(), step=1, path=".")
    for owner, tree, key in (
        (record, code, layout.experiment_archive_key(record.id)),
        (checkpoint, weights, layout.checkpoint_archive_key(checkpoint.id)),
    ):
        write(place / owner.id, tree)
        entries = [
            FileEntry(
                name, place / owner.id / name, "link" if content == "link" else "file", "somewhere" if content == "link" else None
            )
            for name, (content, _) in tree.items()
        ]
        owner.archive = store_archive(repository, key, entries, owner.id)
    record.checkpoints = [checkpoint]
    repository.save(record)
    return record.id


def over(code: dict, weights: dict) -> dict:
    """What both together are."""
    clashes = {
        name
        for name in code
        for other in weights
        if name == other or name.startswith(f"{other}/") or other.startswith(f"{name}/")
    }
    return {name: value for name, value in code.items() if name not in clashes} | weights


@settings(max_examples=60)
@given(present=TREES, code=TREES, weights=TREES, delete=st.booleans())
def test_there_and_back(present: dict, code: dict, weights: dict, delete: bool) -> None:
    place = Path(tempfile.mkdtemp())
    try:
        project = Project(repository=f"file://{place / 'repository'}", directory=place)
        experiment = project.experiments.get(saved(project, place, code, weights))
        target, expected = place / "target", place / "expected"
        for directory, tree in ((target, present), (expected, over(code, weights))):
            directory.mkdir()
            write(directory, tree)
        before, wanted = read(target), read(expected)
        try:
            plan = plan_checkout(experiment, experiment.latest(), target, delete=delete)
        except UnsavedFiles:
            # Files in a directory, or a link, in whose place something else is to come.
            assert read(target) == before
            return
        with plan:
            assert read(target) == before
            plan.apply(undo=undo_place(place), backup=True)
        after = read(target)
        assert {name: after[name] for name in wanted} == wanted
        lost = {name for name in before if name not in after}
        assert all(any(other.startswith(f"{name}/") for other in wanted) for name in lost) or delete
        if delete:
            assert after == wanted
        with plan_checkout(experiment, experiment.latest(), target, delete=delete) as again:
            assert again.is_empty
            assert set(again.identical) == set(wanted)
        if before != after:
            Undo.latest(place).apply(project.repository_at_hand())
        assert read(target) == before
    finally:
        shutil.rmtree(place)
