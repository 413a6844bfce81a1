from __future__ import annotations

import pytest

from keepsake import Project
from keepsake.recording.ranks import other_rank


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, None),
        ({"RANK": "1", "LOCAL_RANK": "1"}, "RANK=1"),
        ({"RANK": "0", "SLURM_PROCID": "5"}, None),  # torchrun inside of one Slurm task: the inner launcher decides
        ({"SLURM_PROCID": "3"}, "SLURM_PROCID=3"),
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, None),
        ({"OMPI_COMM_WORLD_RANK": "2"}, "OMPI_COMM_WORLD_RANK=2"),
        ({"PMI_RANK": "1"}, "PMI_RANK=1"),
        ({"PMIX_RANK": "4"}, "PMIX_RANK=4"),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, "LOCAL_RANK=1"),  # children of Lightning's own launcher
        ({"LOCAL_RANK": "0", "NODE_RANK": "2"}, "NODE_RANK=2"),
        ({"RANK": "", "LOCAL_RANK": "none"}, None),
        ({"RANK": "not a number"}, None),
    ],
)
def test_rank_zero_is_told_from_the_others(environ: dict[str, str], expected: str | None) -> None:
    assert other_rank(environ) == expected


@pytest.mark.parametrize(
    "variable", [{"RANK": "1"}, {"SLURM_PROCID": "2"}, {"OMPI_COMM_WORLD_RANK": "1"}, {"KEEPSAKE_MODE": "disabled"}]
)
def test_an_experiment_that_does_not_record_does_nothing_and_works(
    project: Project, variable: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    (project.directory / "keepsake.yaml").unlink()  # not even a repository is needed

    with project.experiments.create(path=".", params={"lr": 0.1}) as experiment:
        first = experiment.checkpoint("no such file", metrics={"loss": object()})
        second = experiment.checkpoint(step=9)
        assert (first.step, second.step) == (0, 9)
        assert experiment.params == {"lr": 0.1}
        assert not experiment.is_running()
        assert experiment.best() is None
    experiment.stop()
    experiment.delete()
    assert list(project.directory.iterdir()) == []


def test_the_frameworks_answer_wins_over_the_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    project.experiments.create(is_rank_zero=True).stop()
    monkeypatch.setenv("RANK", "0")
    project.experiments.create(is_rank_zero=False).stop()
    assert len(project.experiments.list()) == 1
