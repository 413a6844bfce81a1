"""The table of experiments: what is shown, what gives way, and what a terminal is never sent."""

from __future__ import annotations

import re
from datetime import timedelta
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.display.experiments import ExperimentTable
from keepsake.display.tables import View, short_length
from keepsake.display.text import width
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.summary import Summary
from tests.query.samples import NOW, checkpoint, experiment, five, full_id

AT_60 = """\
    EXPERIMENT  STARTED  STATUS   VAL_LOSS  BEST CHECKPOINT
    91af3b0     9d ago   stopped  0.1611    0c1fe22 (step 8800)
    76ab171     1h ago   failed   -
    eb96def     1h ago   stopped  0.2121    fe6a313 (step 4000)
    4591273     12m ago  stopped  0.1484*   da0f8f6 (step 3800)
    bfb06bc     41s ago  running  0.1500    d01b7aa (step 1200)
"""

AT_80 = """\
    EXPERIMENT  STARTED  STATUS   LR      OPTIMIZER  VAL_LOSS  BEST CHECKPOINT
    91af3b0     9d ago   stopped  0.0001  adamw      0.1611    0c1fe22 (step 8800)
    76ab171     1h ago   failed   0.003   adamw      -
    eb96def     1h ago   stopped  0.001   sgd        0.2121    fe6a313 (step 4000)
    4591273     12m ago  stopped  0.001   adamw      0.1484*   da0f8f6 (step 3800)
    bfb06bc     41s ago  running  0.0003  adamw      0.1500    d01b7aa (step 1200)
"""

AT_120 = """\
    EXPERIMENT  STARTED  STATUS   LR      OPTIMIZER  VAL_LOSS  VAL_ACC  TRAIN_LOSS  BEST CHECKPOINT      LATEST CHECKPOINT
    91af3b0     9d ago   stopped  0.0001  adamw      0.1611    0.9600   -           0c1fe22 (step 8800)  aa10f02 (step 9000)
    76ab171     1h ago   failed   0.003   adamw      -         -        7.25                             5be0071 (step 140)
    eb96def     1h ago   stopped  0.001   sgd        0.2121    0.9411   -           fe6a313 (step 4000)  fe6a313 (step 4000)
    4591273     12m ago  stopped  0.001   adamw      0.1484*   0.9641   -           da0f8f6 (step 3800)  0b77c4e (step 4000)
    bfb06bc     41s ago  running  0.0003  adamw      0.1500    0.9620   -           d01b7aa (step 1200)  d01b7aa (step 1200)
"""


def made(records, view: View, **options) -> ExperimentTable:
    return ExperimentTable([Summary.of(record) for record in records], view, **options)


def table(records, columns=None, *, every=False, **options) -> list[str]:
    return made(records, View(now=NOW, width=columns, every=every), **options).lines()


def headings(records, columns=None, **options) -> list[str]:
    return re.split(r" {2,}", table(records, columns, **options)[0])


@pytest.mark.parametrize(("columns", "expected"), [(60, AT_60), (80, AT_80), (120, AT_120)])
def test_whole_columns_give_way_to_a_narrow_terminal(columns: int, expected: str) -> None:
    lines = table(five(), columns)
    assert lines == dedent(expected).splitlines()
    assert max(map(width, lines)) <= columns


def test_a_pipe_gets_everything_uncut_and_iso_times() -> None:
    name = "a-name-that-is-much-longer-than-any-cell-of-a-terminal"
    records = five()
    records[0].params["data"] = name
    lines = table(records)
    assert lines[0].split()[:6] == ["EXPERIMENT", "STARTED", "STATUS", "LR", "OPTIMIZER", "DATA"]
    assert lines[1].split()[:6] == ["91af3b0", "2026-11-14T04:00:00Z", "stopped", "0.0001", "adamw", name]
    assert name not in "".join(table(records, 200))
    assert "a-name-that-…a-terminal" not in "".join(lines)


def test_the_footer_says_what_the_table_does_not() -> None:
    records = five()
    for index in range(4):
        records[0].params |= {f"extra{index}": index}
        for record in records[1:]:
            record.params |= {f"extra{index}": index}
    assert made(records, View(now=NOW, width=80)).footer() == [
        "5 experiments, 1 running. Best val_loss 0.1484 (4591273)",
        "Same in all: batch_size=64 seed=1 optim.schedule=cosine extra0=0 extra1=1 … 2 more (--all)",
        "3 columns hidden: val_acc, train_loss, latest checkpoint  (--wide shows all, --columns picks)",
    ]


def test_all_shows_columns_that_are_equal_too_and_a_mentioned_name_is_never_left_out() -> None:
    assert {"HOST", "USER", "BATCH_SIZE", "SEED", "OPTIM.SCHEDULE"} <= set(headings(five(), every=True))
    assert not {"HOST", "BATCH_SIZE"} & set(headings(five()))
    assert "BATCH_SIZE" in headings(five(), 60, mentioned=["batch_size"])
    assert "VAL_ACC" in headings(five(), 60, mentioned=["val_acc"])


def test_the_latest_checkpoint_gives_way_first_where_it_is_the_best_in_every_row() -> None:
    records = [experiment(start, checkpoint(f"{start}c", 1, val_loss=0.5), host=start) for start in ("a1", "b2")]
    assert headings(records, 81)[-2:] == ["BEST CHECKPOINT", "LATEST CHECKPOINT"]
    # One column less leaves room for the host or for the same checkpoint a second time.
    assert headings(records, 80) == ["EXPERIMENT", "STARTED", "STATUS", "HOST", "VAL_LOSS", "BEST CHECKPOINT"]
    records[0].checkpoints.append(checkpoint("c2", 2, val_loss=0.75))
    assert headings(records, 80) == ["EXPERIMENT", "STARTED", "STATUS", "VAL_LOSS", "BEST CHECKPOINT", "LATEST CHECKPOINT"]


def test_params_that_group_come_before_those_that_all_differ() -> None:
    records = [
        experiment(
            f"a{index}", params={"seed": index, "kind": index % 2, "layers": index % 3, "flag": index % 2 == 0, "list": [index]}
        )
        for index in range(4)
    ]
    wide = headings(records, 200)
    assert wide == ["EXPERIMENT", "STARTED", "STATUS", "SEED", "KIND", "LAYERS", "FLAG", "LIST"]
    assert headings(records, 46) == ["EXPERIMENT", "STARTED", "STATUS", "KIND", "LAYERS"]


def test_without_a_primary_metric_the_latest_values_stand_under_a_heading_that_says_so() -> None:
    records = [experiment("a1", checkpoint("c1", 1, loss=0.5), checkpoint("c2", 2, loss=0.75)), experiment("b2")]
    assert "LOSS (LATEST)" in headings(records)
    assert "0.75" in table(records)[1]


def test_only_the_best_of_the_listed_ones_has_a_star_and_nan_never() -> None:
    records = [
        experiment(f"a{index}", checkpoint(f"c{index}", 1, val_loss=loss)) for index, loss in enumerate((float("nan"), 0.5, 0.4))
    ]
    assert [line.count("*") for line in table(records)] == [0, 0, 0, 1]
    assert "nan" in table(records)[1]
    records[2].checkpoints[0].primary_metric = PrimaryMetric("val_loss", "maximize")
    # Goals that contradict each other have no best.
    assert "*" not in "".join(table(records))


def test_true_is_not_one_and_one_is_one_point_zero() -> None:
    assert "FLAG" in headings([experiment("a1", params={"flag": True}), experiment("b2", params={"flag": 1})])
    assert "FLAG" not in headings([experiment("a1", params={"flag": 1.0}), experiment("b2", params={"flag": 1})])
    nan = float("nan")
    assert "FLAG" not in headings([experiment("a1", params={"flag": nan}), experiment("b2", params={"flag": float("nan")})])


def test_ps_says_how_long_and_where() -> None:
    assert table(five()[4:], 100, running=True)[0].split()[3:6] == ["ELAPSED", "LAST", "HOST"]
    assert re.split(r" {2,}", table(five()[4:], 100, running=True)[1])[3:6] == ["41s", "3s ago", "gpu-07"]


def test_wide_characters_are_aligned() -> None:
    records = [
        experiment("a1", params={"名前": "深い", "x": "one"}),
        experiment("b2", params={"名前": "e\u0301tude", "x": "two"}),
    ]
    starts = [width(line[: line.rindex(cell)]) for line, cell in zip(table(records), ("X", "one", "two"), strict=True)]
    assert len(set(starts)) == 1


def test_colours_are_named_and_never_carry_the_meaning_alone() -> None:
    styled = made(five(), View(now=NOW, style=lambda text, name: f"<{name}>{text}</>")).lines()
    assert "<red>failed</>" in styled[2]
    assert "<cyan>running</>" in styled[5]
    assert "<bold green>0.1484*</>" in styled[4]
    assert "<bold>4591273</>" in styled[4]


def test_short_ids_grow_until_they_are_unique() -> None:
    assert short_length([]) == 7
    assert short_length([full_id("4591273"), full_id("bfb06bc")]) == 7
    assert short_length([full_id("45912731a"), full_id("45912731b"), full_id("45912731b")]) == 9


@given(st.dictionaries(st.text(min_size=1), st.text() | st.floats() | st.none() | st.lists(st.text(), max_size=2), max_size=4))
def test_whatever_was_recorded_every_experiment_is_one_line_without_controls(params: dict) -> None:
    records = [experiment("a1", checkpoint("c1", 1, val_loss=0.5), params=params), experiment("b2", ago=timedelta(days=-1))]
    for columns in (None, 80):
        lines = made(records, View(now=NOW, width=columns)).lines()
        assert len(lines) == 3
        assert all(line.isprintable() or not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line) for line in lines)
        assert columns is None or max(map(width, lines)) <= columns
