"""``keepsake diff``: what differs between two experiments or checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.cli.conftest import FINISHED, FINISHED_BEST, KILLED, Repo, Result, checkpoint, full_id

Run = Callable[..., Result]

PIPED = """\
                  eb96def                  4591273
checkpoint        fe6a313 step 100 best    45da0f8 step 300 best
ran               2026-03-01 08:00 1h 12m  2026-03-01 13:00

Params (1 of 4 differs)
  optimizer       sgd                      adamw

Metrics (2 of 2 differ)
  val_loss (min)  0.2121                   0.1484                 -0.0637   -30%  better
  acc             0.9411                   0.9641                 +0.0230  +2.4%

Environment (2 of 3 differ)
  python          3.12.4                   -
  torch           2.8.0                    2.9.1
"""


def test_two_experiments(repo: Repo, keepsake: Run) -> None:
    assert keepsake("diff", "eb96def", "4591273") == Result(0, PIPED, "")


def test_json(repo: Repo, keepsake: Run) -> None:
    compared = json.loads(keepsake("diff", "eb96def", "4591273", "--json").out)
    assert list(compared) == ["left", "right", "params", "metrics", "environment"]
    assert compared["left"] == {"experiment": FINISHED, "checkpoint": FINISHED_BEST}
    assert compared["right"]["experiment"] == KILLED
    assert compared["params"] == {"optimizer": {"left": "sgd", "right": "adamw"}}
    assert compared["metrics"]["val_loss"]["better"] is True


def test_the_exit_code(repo: Repo, here: Run) -> None:
    assert here("diff", "eb96def", "4591273", "--exit-code").code == 1
    same = here("diff", "eb96def", "eb96def", "--exit-code")
    assert same.code == 0
    assert same.lines[-5:] == ["Params: same", "", "Metrics: same", "", "Environment: same"]


def test_two_checkpoints_of_one_experiment(repo: Repo, here: Run) -> None:
    result = here("diff", "fe6a313", "0b77c4e")
    assert "worse" in result.out
    assert "Params: same" in result.lines


def test_percent_is_never_scientific(repo: Repo, here: Run) -> None:
    for short, loss in (("aa", 0.25), ("bb", 1.25)):
        repo.add(short, checkpoints=[checkpoint(full_id(short + "c"), 1, 1, metrics={"val_loss": loss})])
    result = here("diff", "aa0", "bb0")
    assert "+400%" in result.out
    assert "e+" not in result.out
