"""``keepsake show``: everything about one experiment or checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tests.cli.conftest import FINISHED, FINISHED_BEST, FINISHED_LATEST, Repo, Result

Run = Callable[..., Result]


def test_an_experiment(repo: Repo, keepsake: Run) -> None:
    result = keepsake("show", "eb96def")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(r"Experiment eb96def  stopped \(finished\) \d+d ago", result.lines[0])
    for line in (
        f"ID          {FINISHED}",
        "Ran         2026-03-01 08:00:00 UTC for 1h 12m",
        "Command     python train.py",
        "Where       ana@gpu-07, Python 3.12.4",
        "Git         8f3c2ad on main, with changes that are not committed",
        "  model.depth  3",
        "  val_loss (min)  0.2121  0.2500",
    ):
        assert line in result.lines


def test_why_an_experiment_does_not_run(repo: Repo, here: Run) -> None:
    assert here("show", "76ab171").lines[0] == "Experiment 76ab171  failed after 2m: RuntimeError: CUDA out of memory"
    assert "stopped (interrupted: SIGTERM)" in here("show", "91af3b0").lines[0]
    assert re.search(r"stopped \(no heartbeat since .* UTC \(host gpu-07\)\)", here("show", "4591273").lines[0])
    assert here("show", "bfb06bc").lines[0] == "Experiment bfb06bc  running"


def test_a_checkpoint(repo: Repo, here: Run) -> None:
    result = here("show", "fe6a313")
    assert result.lines[0].startswith("Checkpoint fe6a313  step 100, ")
    assert f"ID          {FINISHED_BEST}" in result.lines
    assert "  acc             0.9411" in result.lines
    assert any(line.startswith("Experiment eb96def") for line in result.lines)


def test_json(repo: Repo, keepsake: Run) -> None:
    shown = json.loads(keepsake("show", "eb96def", "--json").out)
    assert (shown["id"], shown["best_checkpoint"], shown["latest_checkpoint"]) == (FINISHED, FINISHED_BEST, FINISHED_LATEST)
    assert (shown["status"], shown["running"], len(shown["checkpoints"])) == ("stopped", False, 2)
    checkpoint = json.loads(keepsake("show", "fe6a313", "--json").out)
    assert (checkpoint["id"], checkpoint["experiment"]["id"]) == (FINISHED_BEST, FINISHED)


def test_all_shows_what_is_cut_otherwise(repo: Repo, here: Run) -> None:
    repo.add("aaaaaaa", params={f"p{number}": number for number in range(40)})
    assert "more: --all" in here("show", "aaaaaaa").out
    assert "  p39" not in here("show", "aaaaaaa").out
    assert "  p39" in here("show", "aaaaaaa", "--all").out
