"""Plots show what was recorded: asserted through the axes, drawn by the real matplotlib."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from keepsake import Experiment, Project
from keepsake.experiment import ExperimentList


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


def test_a_figure_of_its_own_unless_axes_are_given(experiment: Experiment) -> None:
    from matplotlib import pyplot

    first, second = experiment.plot(), experiment.plot()
    assert first.figure is not second.figure
    assert len(first.get_lines()) == 2
    # keepsake 0.4.2 drew the bare curve into the present axes.
    assert experiment.plot("loss", False, True) is second
    figures = pyplot.get_fignums()
    assert experiment.plot(ax=first) is first
    assert pyplot.get_fignums() == figures
    assert pyplot.gca() is second


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


def trained(project: Project, count: int, **params: Any) -> ExperimentList:
    """Return experiments of which the middle one is the best."""
    for number in range(count):
        own = {name: values[number % len(values)] for name, values in params.items()}
        with project.experiments.create(params=own, quiet=True, name=f"run-{number}") as one:
            for step in range(3):
                loss = 3.0 - step + abs(number - count // 2)
                one.checkpoint(step=step, metrics={"val_loss": loss, "other": step}, primary_metric=("val_loss", "minimize"))
    return project.experiments.list()


def names(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_smoothing_leaves_what_was_recorded_visible_behind(experiment: Experiment) -> None:
    raw, line = experiment.plot("loss", smooth=0.5).get_lines()
    assert curve(raw) == ([0, 1, 2, 3], [4.0, 3.0, 2.0, 1.0])
    assert raw.get_alpha() == 0.25
    assert raw.get_color() == line.get_color()
    assert curve(line)[1] == pytest.approx([4, (2 + 3) / 1.5, (1 + 1.5 + 2) / 1.75, (0.5 + 0.75 + 1 + 1) / 1.875])
    with pytest.raises(ValueError, match="below 1"):
        experiment.plot("loss", smooth=1.0)


def test_along_the_time(experiment: Experiment) -> None:
    history = experiment.history()
    times = [time for time, loss in zip(history.times, history["loss"], strict=True) if loss is not None]
    axes = experiment.plot("loss", x="time")
    assert list(axes.get_lines()[0].get_xdata(orig=True)) == times
    axes = experiment.plot("loss", x="elapsed")
    assert list(axes.get_lines()[0].get_xdata()) == [(time - experiment.created).total_seconds() for time in times]
    assert axes.get_xlabel() == "elapsed (s)"
    assert experiment.plot("loss", logx=True).get_xscale() == "symlog"  # step 0 has no logarithm
    with pytest.raises(ValueError, match="step, time, elapsed"):
        experiment.plot("loss", x="epoch")  # type: ignore[arg-type]


def test_what_is_no_number_is_a_gap_and_a_point_alone_is_a_dot(project: Project) -> None:
    with project.experiments.create(quiet=True) as one:
        for step, value in enumerate([3.0, float("nan"), 2.0, float("inf"), 1.0, 0.5]):
            one.log({"loss": value, "note": "a text"}, step)
    [line] = one.plot("loss").get_lines()
    assert list(map(math.isnan, line.get_ydata())) == [False, True, False, True, False, False]
    assert (line.get_marker(), line.get_markevery()) == (".", [0, 2])
    with pytest.raises(ValueError, match="no numbers"):
        one.plot("note")


def test_no_line_leads_back_where_a_training_went_back(project: Project) -> None:
    with project.experiments.create(quiet=True) as one:
        for step in (0, 1, 2, 1, 2):
            one.log({"loss": float(step)}, step)
    xs, ys = curve(one.plot("loss").get_lines()[0])
    assert xs == [0, 1, 2, 1, 1, 2]
    assert math.isnan(ys[3])


def test_a_slice_of_checkpoints(experiment: Experiment) -> None:
    axes = experiment.checkpoints[1:3].plot()
    line, best = axes.get_lines()
    assert curve(line) == ([1, 2], [1.0, 2.0])
    assert curve(best) == ([1], [1.0])
    # Of a slice without the best one nothing is marked.
    [line] = experiment.checkpoints[2:].plot("val_loss").get_lines()
    assert curve(line) == ([2, 3], [2.0, 2.5])
    with pytest.raises(KeyError, match="accuracy"):
        experiment.checkpoints.plot("accuracy")


def test_a_history(experiment: Experiment) -> None:
    axes = experiment.history().plot("loss", logy=True)
    assert curve(axes.get_lines()[0]) == ([0, 1, 2, 3], [4.0, 3.0, 2.0, 1.0])
    assert names(axes) == ["loss"]


def test_ten_experiments_are_all_named_and_the_best_is_thicker(project: Project) -> None:
    axes = trained(project, 10).plot()
    assert names(axes) == [f"run-{number}{' (best)' if number == 5 else ''}" for number in range(10)]
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    assert [line.get_linewidth() for line in lines].count(2.5) == 1
    assert lines[5].get_linewidth() == 2.5
    assert curve(lines[5]) == ([0, 1, 2], [3.0, 2.0, 1.0])
    assert trained(project, 1)[:1].plot("other", True).get_yscale() == "log"


def test_of_many_experiments_the_best_are_named_before_the_others(project: Project) -> None:
    axes = trained(project, 30).plot(smooth=0.5)
    assert names(axes) == ["run-15 (best)", "run-16", "run-14", "run-17", "run-13", "25 others"]
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    assert len(lines) == 30 + 5  # of the others only the smooth line
    assert all(line.get_color() == "0.6" for line in lines[:25])


def test_a_param_against_a_metric(project: Project) -> None:
    experiments = trained(project, 3, lr=[0.1, 0.01, 0.001], optimizer=["sgd", "adam"], amp=[True, False])
    axes = experiments.scatter("lr", "val_loss", True)
    points, best = axes.collections
    assert points.get_offsets().tolist() == [[0.1, 2.0], [0.01, 1.0], [0.001, 2.0]]
    assert best.get_offsets().tolist() == [[0.01, 1.0]]
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "lr", "val_loss")
    assert [text.get_text() for text in axes.texts] == ["run-0", "run-1", "run-2"]

    axes = experiments.scatter("optimizer")
    assert axes.collections[0].get_offsets().tolist() == [[1.0, 2.0], [0.0, 1.0], [1.0, 2.0]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["adam", "sgd"]
    assert [label.get_text() for label in experiments.scatter("amp").get_xticklabels()] == ["false", "true"]
    with pytest.raises(KeyError, match="momentum"):
        experiments.scatter("momentum")


def test_parallel_coordinates(project: Project) -> None:
    experiments = trained(project, 3, lr=[0.1, 0.01, 0.0001], optimizer=["sgd", "adam"], seed=[1], layers=[2, 3, 4])
    axes = experiments.parallel_coordinates()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lr (log)", "optimizer", "layers", "val_loss"]
    lines = [line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) == 4]
    # The best one is drawn last.
    expected = [[1, 0.75, 0, 1], [0, 0.75, 1, 1], [2 / 3, 0.25, 0.5, 0]]
    assert [list(line) for line in lines] == [pytest.approx(heights) for heights in expected]
    assert axes.get_title(loc="right") == "best: run-1"
    assert {"sgd", "adam", "2", "3", "4", "0.1", "0.0001"} <= {text.get_text().strip() for text in axes.texts}
    [*_, heading] = experiments.parallel_coordinates(["layers"], "other").get_xticklabels()
    assert heading.get_text() == "other"
    with pytest.raises(KeyError, match="momentum"):
        experiments.parallel_coordinates(["momentum"])
    with pytest.raises(ValueError, match="do not differ"):
        experiments[:1].parallel_coordinates()


@pytest.mark.parametrize("hostile", ["$\\frac{", "_hidden", "\x1b[31m$x$", "a" * 500, "{}%s\n"])
def test_a_label_is_text_whatever_was_recorded(project: Project, tmp_path: Path, hostile: str) -> None:
    for value in (hostile, "b"):
        with project.experiments.create(quiet=True, params={hostile: value}) as one:
            one.checkpoint(step=1, metrics={hostile: 1.0}, primary_metric=(hostile, "minimize"))
    experiments = project.experiments.list()
    for axes in (
        experiments.plot(),
        experiments[0].history().plot(hostile),
        experiments.scatter(hostile),
        experiments.parallel_coordinates(),
    ):
        axes.figure.savefig(tmp_path / "plot.png")  # where formulas are set and glyphs are looked for
        assert "\x1b" not in axes.get_ylabel()
