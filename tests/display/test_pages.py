"""The pages of one experiment, of one checkpoint, and of two that are compared."""

from __future__ import annotations

import math
from datetime import timedelta
from textwrap import dedent

import pytest

from keepsake.display.comparison import comparison_lines
from keepsake.display.details import checkpoint_details, experiment_details
from keepsake.display.tables import View
from keepsake.query.compare import Side, compare
from keepsake.repository.records import ArchiveInfo, ExperimentRecord
from keepsake.repository.status import Heartbeat
from tests.query.samples import NOW, checkpoint, experiment, five, full_id

STOPPED, FAILED, SGD, ADAMW, RUNNING = range(5)

pytestmark = pytest.mark.usefixtures("_utc")


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch):
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def page(record: ExperimentRecord, **view) -> list[str]:
    return experiment_details(record, View(now=NOW, **view))


def section(lines: list[str], heading: str) -> list[str]:
    """Return what stands below a heading, up to the next empty line."""
    start = next(index for index, line in enumerate(lines) if line.startswith(heading))
    body = lines[start + 1 :]
    return body[: body.index("")] if "" in body else body


# --- an experiment --------------------------------------------------------------------------------------------------


def test_an_experiment_from_head_to_foot() -> None:
    assert (
        page(five()[ADAMW], width=80)
        == dedent("""\
        Experiment 4591273  stopped (finished) 7m ago
        ID          4591273000000000000000000000000000000000000000000000000000000000
        Ran         2026-11-23 04:48:00 UTC for 5m
        Command     python train.py
        Where       ana@gpu-07, 1x H200, Python 3.12.4, Linux
        Git         8f3c2ad on main, with changes that are not committed,
                    https://example.org/ana/hotdog.git
        Saved       code 41 files 212 kB; 3 checkpoints

        Params      5
          lr    0.001    optimizer       adamw     batch_size  64
          seed  1        optim.schedule  cosine

        Packages    torch 2.9.1, numpy 2.3.4

        Metrics             best    last  trend
          val_loss (min)  0.1484  0.1502  █▁▁
          val_acc         0.9641     nan  ▁█

        Checkpoints (3)
        ID       STEP  AGE  VAL_LOSS  VAL_ACC
        77c0e1f   200  12m   0.9010    0.3911
        da0f8f6  3800  10m   0.1484*   0.9641  best
        0b77c4e  4000   9m   0.1502       nan  latest

        keepsake checkout 4591273 -o out/      get code
        keepsake diff 4591273 .                compare with your working directory
    """).splitlines()
    )


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"outcome": "finished", "ended": NOW - timedelta(minutes=3)}, "stopped (finished) 3m ago"),
        (
            {"outcome": "failed", "error": "ValueError: bad\n\x1b[31mshape", "ended": NOW - timedelta(minutes=118)},
            "failed after 2m: ValueError: bad\\n\\x1b[31mshape",
        ),
        ({"outcome": "failed"}, "failed"),
        ({"outcome": "interrupted", "ended": NOW}, "stopped (interrupted) 0s ago"),
        ({"outcome": "interrupted", "error": "SIGTERM", "ended": NOW}, "stopped (interrupted: SIGTERM) 0s ago"),
        ({"outcome": None}, "stopped"),
        ({"outcome": None, "heartbeat": Heartbeat(1.0, NOW)}, "running"),
        (
            {"outcome": None, "heartbeat": Heartbeat(3600.0, NOW - timedelta(hours=1))},
            "stopped (no heartbeat since 2026-11-23 04:00:00 UTC (host gpu-07))",
        ),
        ({"outcome": None, "heartbeat": Heartbeat(3600.0, None), "host": ""}, "stopped (no heartbeat)"),
    ],
)
def test_the_first_line_says_how_it_ended_and_why(fields: dict, line: str) -> None:
    assert page(experiment("4591273", **fields))[0] == f"Experiment 4591273  {line}"


def test_one_that_was_gone_on_with_says_when() -> None:
    once, twice = (experiment("a1", resumed=[NOW - timedelta(hours=1), NOW][-count:]) for count in (1, 2))
    assert "Resumed     2026-11-23 05:00:00 UTC" in page(once)
    assert "Resumed     2 times, last 2026-11-23 05:00:00 UTC" in page(twice)


def test_a_running_one_says_for_how_long() -> None:
    assert "Ran         2026-11-23 04:59:19 UTC, for 41s so far" in page(five()[RUNNING])


def test_long_sections_are_shortened_and_all_shows_everything() -> None:
    checkpoints = [checkpoint(f"c{step:02}", step, val_loss=abs(step - 20) + 0.5, **{f"m{step}": step}) for step in range(40)]
    record = experiment(
        "a1",
        *checkpoints,
        params={f"p{index:02}": index for index in range(30)},
        python_packages={f"package{index}": "1.0" for index in range(9)},
    )
    short = page(record, width=120)
    assert section(short, "Params")[-1] == "  … 6 more: --all"
    packages = ", ".join(f"package{index} 1.0" for index in range(5))
    assert f"Packages    {packages}, … 4 more: --all" in short
    assert section(short, "Metrics")[-1] == "  … 21 more: --all"
    shown = section(short, "Checkpoints (40)")
    assert [line.split()[0] for line in shown[1:-1]] == [
        *(checkpoint.id[:7] for checkpoint in checkpoints[:2]),
        "…",
        full_id("c20")[:7],
        *(checkpoint.id[:7] for checkpoint in checkpoints[-3:]),
    ]
    assert "34 more: --all" in "".join(shown)
    assert shown[-1].startswith("  22 columns hidden: m")
    for everything in (page(record, every=True, width=1000), page(record)):
        assert "--all" not in "\n".join(everything)
        assert len(section(everything, "Checkpoints (40)")) == 41
    assert len(section(page(record), "Params")) == 30


def test_what_is_not_there_takes_no_line() -> None:
    record = ExperimentRecord(full_id("a1"), NOW)
    assert [line.split()[0] for line in page(record)] == ["Experiment", "ID", "Ran"]


def test_files_on_their_way_are_not_called_stored() -> None:
    record = experiment("a1", checkpoint("c1", 1, val_loss=0.5), path=".", archive_pending=True)
    record.checkpoints[0].path = "model.pth"
    record.checkpoints[0].archive_pending = True
    assert "Saved       code (not stored yet); 1 checkpoint" in page(record)
    lines = checkpoint_details(record, record.checkpoints[0], View(now=NOW))
    assert "Saved       model.pth (not stored yet)" in lines


def test_a_narrow_terminal_drops_metrics_but_not_the_primary_one() -> None:
    record = experiment("a1", checkpoint("c1", 1, val_loss=0.5, **{f"another_metric_{index}": index for index in range(9)}))
    heading = section(page(record, width=60), "Checkpoints")[0]
    assert heading.split()[:4] == ["ID", "STEP", "AGE", "VAL_LOSS"]
    assert "columns hidden: another_metric_" in section(page(record, width=60), "Checkpoints")[-1]
    assert "ANOTHER_METRIC_8" not in heading
    assert "ANOTHER_METRIC_8" in section(page(record), "Checkpoints")[0]


# --- a checkpoint ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_with_the_head_of_its_experiment() -> None:
    record = five()[ADAMW]
    best = record.checkpoints[1]
    best.path, best.archive = "model.pth", ArchiveInfo(101_000_000, 1, "9bd2047" + "0" * 57)
    lines = checkpoint_details(record, best, View(now=NOW))
    assert lines[:10] == [
        "Checkpoint da0f8f6  step 3800, 10m ago",
        f"ID          {best.id}",
        "Made        2026-11-23 04:50:00 UTC",
        "Place       best of its experiment",
        "Saved       model.pth  1 file 101 MB",
        "",
        "Metrics",
        "  val_loss (min)  0.1484",
        "  val_acc         0.9641",
        "",
    ]
    assert lines[10].startswith("Experiment 4591273  stopped (finished)")
    assert lines[-1] == "keepsake checkout da0f8f6 -o out/      get code and these files"


# --- a comparison ---------------------------------------------------------------------------------------------------


def compared(left: ExperimentRecord, right: ExperimentRecord, **view) -> list[str]:
    sides = [Side(record, record.best() or record.latest()) for record in (left, right)]
    return comparison_lines(compare(*sides), View(now=NOW, **view))


def test_a_comparison() -> None:
    assert (
        compared(five()[SGD], five()[ADAMW], width=80)
        == dedent("""\
                          eb96def                 4591273
        checkpoint        fe6a313 step 4000 best  da0f8f6 step 3800 best
        ran               2026-11-23 03:38 15m    2026-11-23 04:48 5m

        Params (1 of 5 differs)
          optimizer       sgd                     adamw

        Metrics (2 of 2 differ)
          val_loss (min)  0.2121                  0.1484  -0.0637   -30%  better
          val_acc         0.9411                  0.9641  +0.0230  +2.4%

        Environment (3 of 5 differ)
          os              -                       Linux
          gpu             -                       1x H200
          torch           2.8.0                   2.9.1
    """).splitlines()
    )


def test_a_section_without_differences_is_one_line() -> None:
    lines = compared(five()[SGD], five()[SGD])
    assert lines[3:] == ["", "Params: same", "Metrics: same", "Environment: same"]
    empty = ExperimentRecord(full_id("a1"), NOW)
    assert compared(empty, empty)[3:] == ["", "Params: none", "Metrics: none", "Environment: none"]
    assert compared(empty, empty)[1].split() == ["checkpoint", "none", "none"]


@pytest.mark.parametrize(
    ("left", "right", "change"),
    [
        (0.25, 0.1, ["-0.15", "-60%", "better"]),
        (0.1, 0.25, ["+0.15", "+150%", "worse"]),
        (0.1, 0.10000001, ["+1e-08", "+1e-05%", "worse"]),
        (2, 3, ["+1", "+50%", "worse"]),
        (0, 3, ["+3", "worse"]),
        (1e-9, 1.0, ["+1", "worse"]),
        (0.5, math.nan, []),
        (0.5, math.inf, []),
        ("a", "b", []),
    ],
)
def test_how_a_metric_changed(left: object, right: object, change: list[str]) -> None:
    records = [experiment(f"a{index}", checkpoint(f"c{index}", 1, val_loss=value)) for index, value in enumerate((left, right))]
    # A metric that is no number is never the best, so the checkpoint is the latest one.
    [line] = [line for line in compared(*records) if line.startswith("  val_loss (min)")]
    assert line.split()[4:] == change


def test_a_goal_that_is_not_shared_makes_nothing_better() -> None:
    from keepsake.repository.primary_metric import PrimaryMetric

    records = [experiment(f"a{index}", checkpoint(f"c{index}", 1, val_loss=index + 0.5)) for index in range(2)]
    records[1].checkpoints[0].primary_metric = PrimaryMetric("val_loss", "maximize")
    [line] = [line for line in compared(*records) if line.startswith("  val_loss")]
    assert line.split() == ["val_loss", "0.5", "1.5", "+1.0", "+200%"]


def test_long_values_are_cut_on_a_terminal_only() -> None:
    records = [experiment(f"a{index}", params={"data": "x" * 100 + str(index)}) for index in range(2)]
    assert "x" * 100 not in "".join(compared(*records, width=80))
    assert max(map(len, compared(*records, width=80))) <= 80
    assert "x" * 100 + "0" in "".join(compared(*records))


def test_what_one_side_lacks_is_a_dash() -> None:
    lines = compared(experiment("a1", params={"lr": None}), experiment("b2", params={"seed": True}))
    assert [line.split() for line in lines if line.startswith("  ")][1:] == [["lr", "none", "-"], ["seed", "-", "true"]]


def test_the_packages_that_decide_what_comes_out_are_named_first() -> None:
    record = experiment("a1")
    record.python_packages = dict.fromkeys(("absl-py", "click", "fsspec", "idna", "joblib", "PyYAML", "torch"), "1")
    [line] = [line for line in page(record, width=120) if line.startswith("Packages")]
    assert line.split(", ")[0].split() == ["Packages", "torch", "1"]
    assert line.endswith("… 2 more: --all")
