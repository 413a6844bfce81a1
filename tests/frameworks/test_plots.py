"""Plots show what was recorded: asserted through the axes, drawn by the real matplotlib."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib
import pytest

from keepsake import Experiment, Project


@pytest.fixture(autouse=True)
def _no_window() -> Iterator[None]:
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


@pytest.fixture
def experiment(project: Project) -> Experiment:
    found = project.experiments.create(quiet=True)
    for step in range(4):
        found.log({"loss": 4.0 - step}, step)
        found.checkpoint(step=step, metrics={"val_loss": [3.0, 1.0, 2.0, 2.5][step]}, primary_metric=("val_loss", "minimize"))
    return found


def curve(line: Any) -> tuple[list[float], list[float]]:
    return list(line.get_xdata()), list(line.get_ydata())


def test_the_primary_metric_is_drawn_with_the_best_marked(experiment: Experiment) -> None:
    axes = experiment.plot()
    line, best = axes.get_lines()
    assert curve(line) == ([0, 1, 2, 3], [3.0, 1.0, 2.0, 2.5])
    assert curve(best) == ([1], [1.0])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "val_loss")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [experiment.short_id()]


def test_what_was_logged_between_checkpoints_is_drawn(experiment: Experiment) -> None:
    from matplotlib import pyplot

    _, axes = pyplot.subplots()
    assert experiment.plot("loss", logy=True, ax=axes) is axes
    [line] = axes.get_lines()
    assert curve(line) == ([0, 1, 2, 3], [4.0, 3.0, 2.0, 1.0])
    assert axes.get_yscale() == "log"


def test_only_the_curve(experiment: Experiment) -> None:
    axes = experiment.plot("loss", plot_only=True)
    assert (axes.get_xlabel(), axes.get_legend()) == ("", None)


def test_a_metric_that_does_not_exist_is_an_error(experiment: Experiment) -> None:
    with pytest.raises(KeyError, match="accuracy"):
        experiment.plot("accuracy")


def test_without_matplotlib_the_error_says_how_to_get_it(experiment: Experiment) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import keepsake\n"
        "try: keepsake.experiments.list()[0].plot()\n"
        "except keepsake.exceptions.MissingDependency as err: print(err.hint)\n"
    )
    code = code.replace("import keepsake\n", "import keepsake, keepsake.exceptions\n", 1)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'pip install "keepsake[plot]"\n'
    assert matplotlib.__version__
