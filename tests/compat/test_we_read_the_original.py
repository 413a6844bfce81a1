"""What keepsake 0.4.2 recorded is used through the public API as if it were ours; `record_golden.py` says how it was recorded."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from keepsake import Project

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str, tmp_path: Path) -> tuple[Project, list[dict[str, Any]]]:
    """Return a copy of a recorded repository, and what 0.4.2 itself says of it."""
    shutil.copytree(GOLDEN / name / "repository", tmp_path / "repository")
    expected = json.loads((GOLDEN / name / "expected.json").read_text(encoding="utf-8"))
    return Project(repository=f"file://{tmp_path / 'repository'}"), expected


def digests(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def record(tmp_path: Path, id: str) -> dict[str, Any]:
    path = tmp_path / "repository" / "metadata" / "experiments" / f"{id}.json"
    parsed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return parsed


def test_params_of_any_depth_are_what_was_given(tmp_path: Path) -> None:
    project, [expected] = golden("files", tmp_path)
    experiment = project.experiments.get(expected["id"][:7])
    assert experiment.params == expected["params"]
    assert experiment.params["optimizer"] == {"name": "adam", "betas": [0.9, 0.999], "deep": {"er": [1, {"x": None}]}}
    assert experiment.params["name"] == "ünï ☃"


def test_numbers_that_json_lacks_are_numbers_again(tmp_path: Path) -> None:
    project, [expected] = golden("directories", tmp_path)
    experiment = project.experiments.get(expected["id"])
    assert math.isnan(experiment.params["nan"])
    assert (experiment.params["inf"], experiment.params["minus"], experiment.params["whole"]) == (math.inf, -math.inf, 1)
    losses = [checkpoint.metrics.get("loss") for checkpoint in experiment.checkpoints]
    assert losses[0] == 0.5
    assert isinstance(losses[1], float)
    assert math.isnan(losses[1])
    assert losses[2:] == [0.25, math.inf, -1.5, None, None]
    assert experiment.checkpoints[0].metrics["text"] == "a [NaN] b"


@pytest.mark.parametrize(("name", "step"), [("files", 2), ("bare", 7)])
def test_the_best_is_the_one_that_the_original_chose(name: str, step: int, tmp_path: Path) -> None:
    project, expected = golden(name, tmp_path)
    experiment = project.experiments.get(expected[-1]["id"])
    best = experiment.best()
    assert best is not None
    assert (best.id, best.step) == (expected[-1]["best"], step)


def test_an_experiment_without_params_files_or_checkpoints_is_one(tmp_path: Path) -> None:
    project, expected = golden("bare", tmp_path)
    empty = project.experiments.get(expected[0]["id"])
    assert (empty.params, empty.checkpoints, empty.path, empty.best()) == ({}, [], None, None)
    assert {experiment.id for experiment in project.experiments.list()} == {one["id"] for one in expected}


@pytest.mark.parametrize("name", ["files", "directories", "killed"])
def test_each_checkout_gives_what_the_originals_gives(name: str, tmp_path: Path) -> None:
    project, [expected] = golden(name, tmp_path)
    experiment = project.experiments.get(expected["id"])
    experiment.checkout(tmp_path / "code and best", quiet=True)
    for checkpoint, wanted in zip(experiment.checkpoints, expected["checkpoints"], strict=True):
        if wanted["checkout"] is None:
            assert checkpoint.path is None
            continue
        checkpoint.checkout(tmp_path / checkpoint.id, quiet=True)
        found = digests(tmp_path / checkpoint.id)
        assert found
        # The original puts a checkpoint's files over the experiment's; ours are the checkpoint's own.
        assert found.items() <= wanted["checkout"].items()
        best = experiment.best()
        if best is not None and best.id == checkpoint.id:
            assert digests(tmp_path / "code and best") == wanted["checkout"]


def test_one_more_checkpoint_keeps_all_that_was_there(tmp_path: Path) -> None:
    project, [expected] = golden("files", tmp_path)
    before = record(tmp_path, expected["id"])
    experiment = project.experiments.get(expected["id"])
    experiment.checkpoint(metrics={"loss": 0.01}, step=3, primary_metric=("loss", "minimize"))
    after = record(tmp_path, expected["id"])
    for key in set(before) - {"checkpoints", "created"}:
        assert after[key] == before[key], key
    # The original writes nanoseconds, we write microseconds.
    assert after["created"][:26] == before["created"][:26]
    assert len(after["checkpoints"]) == len(before["checkpoints"]) + 1
    for now, then in zip(after["checkpoints"], before["checkpoints"], strict=False):
        assert {**now, "created": now["created"][:26]} == {**then, "created": then["created"][:26]}
    best = project.experiments.get(expected["id"]).best()
    assert best is not None
    assert best.step == 3
    project.experiments.get(expected["id"]).checkpoints[0].checkout(tmp_path / "out", quiet=True)
    assert digests(tmp_path / "out").items() <= expected["checkpoints"][0]["checkout"].items()


def test_a_checkpoint_and_an_experiment_are_deleted_with_their_files(tmp_path: Path) -> None:
    project, [expected] = golden("files", tmp_path)
    experiment = project.experiments.get(expected["id"])
    gone = experiment.checkpoints[0].id
    experiment.checkpoints[0].delete()
    left = project.experiments.get(expected["id"])
    assert [checkpoint.step for checkpoint in left.checkpoints] == [1, 2]
    archives = {path.name for path in (tmp_path / "repository/checkpoints").iterdir()}
    assert archives == {f"{checkpoint.id}.tar.gz" for checkpoint in left.checkpoints}
    assert f"{gone}.tar.gz" not in archives
    left.delete()
    assert list(project.experiments.list()) == []
    assert [path.name for path in (tmp_path / "repository").rglob("*.tar.gz")] == []
