"""The table of `keepsake ls` at several widths, letter by letter, for whatever can be odd about experiments."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pytest

from keepsake.display.experiments import ExperimentTable
from keepsake.display.tables import View
from keepsake.repository.annotations import Annotation
from keepsake.repository.records import ExperimentRecord
from keepsake.repository.summary import Summary
from tests.display.letters import WIDTHS, compare, fits, titled
from tests.query.samples import NOW, checkpoint, experiment, five

HOUR = timedelta(hours=1)


def wide_characters() -> list[ExperimentRecord]:
    return [
        experiment("aa", checkpoint("1a", 100, val_loss=0.5), params={"学習率": 0.1, "データ": "手書き数字"}, user="花子"),
        experiment("bb", checkpoint("1b", 200, val_loss=0.25), params={"学習率": 0.01, "データ": "🦊 foxes"}, user="søren"),
        experiment("cc", checkpoint("1c", 300, val_loss=0.75), params={"学習率": 0.001, "データ": "e\u0301te\u0301"}, user="ana"),
    ]


def long_names() -> list[ExperimentRecord]:
    name, text = "a_param_whose_name_alone_is_wider_than_a_narrow_terminal_is", "a value that goes on " * 20
    return [
        experiment("aa", checkpoint("1a", 10**9, val_loss=0.5), params={name: 1, "text": text}),
        experiment("bb", checkpoint("1b", 2, val_loss=0.25), params={name: 2, "text": text.upper()}),
    ]


def forty_params() -> list[ExperimentRecord]:
    return [
        experiment(start * 2, checkpoint(f"1{start}", 10, val_loss=loss), params={f"param_{n:02}": n * factor for n in range(40)})
        for start, loss, factor in (("a", 0.5, 1), ("b", 0.25, 2), ("c", 0.125, 2))
    ]


def nested_params() -> list[ExperimentRecord]:
    return [
        experiment(
            start * 2,
            checkpoint(f"1{start}", 10, val_loss=0.5),
            params={"optim": {"name": "adamw", "lr": rate, "betas": [0.9, rate]}, "layers": [64] * depth, "empty": {}},
        )
        for start, rate, depth in (("a", 0.1, 1), ("b", 0.01, 2), ("c", 0.001, 30))
    ]


def no_checkpoints() -> list[ExperimentRecord]:
    return [experiment("aa", params={"lr": 0.1}), experiment("bb", params={"lr": 0.2}, outcome="failed", error="OSError: no")]


def no_primary_metric() -> list[ExperimentRecord]:
    return [
        experiment("aa", checkpoint("1a", 1, loss=0.5, acc=0.1), checkpoint("2a", 2, loss=0.25, acc=0.2), params={"lr": 0.1}),
        experiment("bb", checkpoint("1b", 1, loss=0.75), params={"lr": 0.2}),
    ]


def numbers_that_are_none() -> list[ExperimentRecord]:
    return [
        experiment("aa", checkpoint("1a", 1, val_loss=math.nan), params={"lr": math.inf}),
        experiment("bb", checkpoint("1b", 1, val_loss=math.inf), params={"lr": -math.inf}),
        experiment("cc", checkpoint("1c", 1, val_loss=0.5), checkpoint("2c", 2, val_loss=math.nan), params={"lr": math.nan}),
        experiment("dd", checkpoint("1d", 1, val_loss=None, acc=True), params={"lr": None}),
    ]


LISTS: dict[str, Callable[[], list[ExperimentRecord]]] = {
    "usual": five,
    **{
        make.__name__: make
        for make in (
            wide_characters,
            long_names,
            forty_params,
            nested_params,
            no_checkpoints,
            no_primary_metric,
            numbers_that_are_none,
        )
    },
}


@pytest.mark.parametrize("name", LISTS)
def test_the_list_of_experiments(name: str) -> None:
    summaries = [Summary.of(record) for record in LISTS[name]()]
    summaries[0].annotation = Annotation("base/warm-up", ("prod", "v2"))
    pages = {}
    for columns in WIDTHS:
        table = ExperimentTable(summaries, View(now=NOW, width=columns))
        page = table.lines()
        assert fits(page, columns)
        pages[titled(columns)] = [*page, "", *table.footer()] if columns is not None else page
    compare(f"list-{name.replace('_', '-')}", pages)
