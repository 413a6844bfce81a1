"""Curves of metrics, params against metrics, and parallel coordinates, drawn by matplotlib, which is loaded only here.

Each function draws into the axes that it is given and returns them; where it is given none it makes a figure of its own. What is
drawn never depends on what was drawn before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias, get_args

from keepsake.display import text
from keepsake.display.experiments import best_row
from keepsake.exceptions import MissingDependency
from keepsake.repository.layout import short_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from keepsake.repository.primary_metric import PrimaryMetric
    from keepsake.repository.records import ExperimentRecord
    from keepsake.repository.summary import Summary

Along: TypeAlias = Literal["step", "time", "elapsed"]
"""What a curve is drawn along: its steps, the moments when they were recorded, or how long that was after its beginning."""

MOST_NAMED = 10
"""Up to so many experiments are all named; of more only the best."""

BEST_NAMED = 5
MOST_PARAMS = 7
MOST_MARKED = 5
GREY = "0.6"
MOST_CHARACTERS = 60
"""How many characters below an axis there is room for beside each other."""

LOGARITHMIC_FROM = 100
"""From which ratio of the highest to the lowest value an axis of the parallel coordinates is logarithmic."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The course of a metric.

    Args:
        label: What it is called.
        steps: The step of each point.
        times: When each was recorded.
        values: Its value there; what is no finite number is a gap.
        started: What elapsed time is counted from.
        best: Step and value of the point to mark, if one is the best.
        ranked_by: The metric by which it is better or worse than others, if there is one.
        score: The best value of that, the lower the better.
    """

    label: str
    steps: Sequence[int]
    times: Sequence[datetime]
    values: Sequence[Any]
    started: datetime
    best: tuple[int, Any] | None = None
    ranked_by: PrimaryMetric | None = None
    score: float | None = None

    @classmethod
    def of(cls, record: ExperimentRecord, name: str, points: Iterable[tuple[int, datetime, Any]], label: str = "") -> Self:
        """Return the course of an experiment's metric.

        Args:
            record: The experiment.
            name: The metric.
            points: Steps, times and values; where the value is None, there is none.
            label: What people call the experiment; its ID if nothing.
        """
        present = [point for point in points if point[2] is not None]
        steps, times, values = zip(*present, strict=True) if present else ((), (), ())
        primary, best = record.primary_metric, record.best()
        if primary is None or best is None:
            return cls(label or short_id(record.id), steps, times, values, record.created)
        score = best.metrics[primary.name] * (1 if primary.goal == "minimize" else -1)
        marked = (best.step, best.metrics[name]) if name == primary.name else None
        return cls(label or short_id(record.id), steps, times, values, record.created, marked, primary, score)


def plot_curves(
    curves: Sequence[Curve],
    name: str,
    *,
    x: Along = "step",
    logx: bool = False,
    logy: bool = False,
    smooth: float = 0.0,
    plot_only: bool = False,
    ax: Any = None,
) -> Any:
    """Draw curves of one metric into axes, and return them.

    Ten curves are all named; of more, the best five are, and the others are grey behind them.

    Args:
        curves: The curves, of which one at least has a number.
        name: Of the metric, beside the axis.
        x: What to draw them along.
        logx: Give the horizontal axis a logarithmic scale.
        logy: Give the axis of the values one.
        smooth: How much of each value is taken from those before it, from 0 (nothing) to below 1; what was recorded stays visible behind.
        plot_only: Draw the curves and nothing around them; into the present axes of ``matplotlib.pyplot``, if no axes are given.
        ax: The axes; those of a new figure if not given.

    Raises:
        ValueError: An argument makes no sense, or there is nothing to draw.
        MissingDependency: matplotlib is not installed.
    """
    if x not in get_args(Along):
        raise ValueError(f'x is "{x}", it must be one of {", ".join(get_args(Along))}')
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth is {smooth}, it must be at least 0 and below 1")
    if logx and x == "time":
        raise ValueError('moments have no logarithm; elapsed time has: x="elapsed"')
    numbers = [[_number(value) for value in curve.values] for curve in curves]
    if not any(math.isfinite(number) for values in numbers for number in values):
        raise ValueError(f'"{name}" has no numbers to draw')
    axes = ax if ax is not None else _present_axes() if plot_only else _new_axes()
    unit = _unit(curves) if x == "elapsed" else _SECONDS
    order = _order(curves)
    named = set(range(len(curves)) if len(curves) <= MOST_NAMED else order[:BEST_NAMED])
    is_ranked = len(curves) > 1 and len({curve.ranked_by for curve in curves} - {None}) == 1
    handles = {}
    # What is behind is drawn first.
    for place in sorted(range(len(curves)), key=lambda place: place in named):
        curve = curves[place]
        looks: dict[str, Any] = {"linewidth": 2.5} if is_ranked and place == order[0] else {}
        looks |= {} if place in named else {"color": GREY, "alpha": 0.4, "linewidth": 0.6, "zorder": 1}
        across = _along(curve, x, unit)
        handles[place] = _draw(axes, curve, numbers[place], across, smooth, looks, is_named=place in named)
    if not plot_only:
        axes.set_xlabel({"step": "step", "time": "time (UTC)", "elapsed": f"elapsed ({unit.name})"}[x])
        axes.set_ylabel(_label(name))
        if logx:
            axes.set_xscale("log" if _is_positive(axes) else "symlog")
        shown = order if len(curves) > MOST_NAMED else list(range(len(curves)))
        labels = [(handles[place], curves[place].label) for place in shown if place in named]
        others = [place for place in handles if place not in named]
        labels += [(handles[others[0]], f"{len(others)} others")] if others else []
        _legend(axes, labels, best=handles[order[0]] if is_ranked else None)
    if logy:
        axes.set_yscale("log")
    if x == "time":
        from matplotlib import dates

        concise: Any = dates.ConciseDateFormatter
        axes.xaxis.set_major_formatter(concise(axes.xaxis.get_major_locator()))
    return axes


def scatter(
    summaries: Sequence[Summary], param: str, metric: str, *, logx: bool = False, logy: bool = False, ax: Any = None
) -> Any:
    """Draw a metric against a param, one point for each experiment that has both; return the axes.

    Texts and booleans are categories. The best experiment is a star; up to ten are named.

    Args:
        summaries: The experiments.
        param: A param; one within others has a dotted name.
        metric: A metric, as it is at the best checkpoint, else at the latest.
        logx: Give the axis of the param a logarithmic scale.
        logy: Give the axis of the metric one.
        ax: The axes; those of a new figure if not given.

    Raises:
        KeyError: No experiment has the param, or the metric.
        MissingDependency: matplotlib is not installed.
    """
    for noun, name, rows in (
        ("param", param, [summary.flat_params for summary in summaries]),
        ("metric", metric, [summary.shown_metrics for summary in summaries]),
    ):
        if not any(name in row for row in rows):
            raise KeyError(f'no experiment has a {noun} "{name}"')
    found = [one for one in summaries if param in one.flat_params and math.isfinite(_number(one.shown_metrics.get(metric)))]
    if not found:
        raise ValueError(f'no experiment has "{param}" and a number as "{metric}"')
    axes = ax if ax is not None else _new_axes()
    scale = _Scale.of([one.flat_params[param] for one in found])
    across = [scale.position(one.flat_params[param]) for one in found]
    values = [_number(one.shown_metrics[metric]) for one in found]
    axes.scatter(across, values, alpha=0.8 if len(found) <= MOST_NAMED else 0.5)
    best = best_row(found)
    if best is not None:
        axes.scatter([across[best]], [values[best]], marker="*", s=180, zorder=3)
    for place, one in enumerate(found):
        if len(found) <= MOST_NAMED or place == best:
            axes.annotate(
                _label(_name(one)), (across[place], values[place]), (5, 5), textcoords="offset points", fontsize="small"
            )
    axes.margins(0.1)
    if scale.categories:
        labels = [_label(category) for category in scale.categories]
        axes.set_xticks(range(len(labels)), labels, rotation=30 if len("".join(labels)) > MOST_CHARACTERS else 0)
        axes.margins(x=0.15)
    elif logx:
        axes.set_xscale("log")
    if logy:
        axes.set_yscale("log")
    axes.set_xlabel(_label(param))
    axes.set_ylabel(_label(metric))
    return axes


def parallel_coordinates(summaries: Sequence[Summary], params: Sequence[str] | None, metric: str, *, ax: Any = None) -> Any:
    """Draw each experiment as a line through its params to a metric, in the colour of that metric; return the axes.

    Each vertical axis has a scale of its own: texts and booleans are categories, and params over two orders of magnitude are logarithmic.

    Args:
        summaries: The experiments.
        params: The params in the order wanted; if not given, those that differ, up to seven.
        metric: A metric, as it is at the best checkpoint, else at the latest.
        ax: The axes; those of a new figure if not given.

    Raises:
        KeyError: No experiment has the metric, or one of the params.
        ValueError: No param differs.
        MissingDependency: matplotlib is not installed.
    """
    found = [one for one in summaries if math.isfinite(_number(one.shown_metrics.get(metric)))]
    if not found:
        raise KeyError(f'no experiment has a number as metric "{metric}"')
    names = list(params) if params is not None else _differing(found)
    for name in names:
        if not any(name in one.flat_params for one in found):
            raise KeyError(f'no experiment has a param "{name}"')
    if not names:
        raise ValueError("these experiments do not differ in any param")
    axes = ax if ax is not None else _new_axes()
    columns = [[one.flat_params.get(name, text.NOTHING) for one in found] for name in names]
    columns.append([one.shown_metrics[metric] for one in found])
    scales = [_Scale.of([value for value in column if value is not text.NOTHING], stretched=True) for column in columns]
    heights = [[scale.position(value) for value in column] for scale, column in zip(scales, columns, strict=True)]
    best = best_row(found)
    colours = _colours(heights[-1])
    for place in sorted(range(len(found)), key=lambda place: place == best):
        looks: dict[str, Any] = {"linewidth": 3.0, "zorder": 3} if place == best else {"linewidth": 1.0, "alpha": 0.6}
        axes.plot(range(len(columns)), [column[place] for column in heights], color=colours[place], **looks)
    for place, scale in enumerate(scales):
        axes.axvline(place, color="0.5", linewidth=0.8, zorder=0)
        for height, tick in scale.ticks():
            # Legible before lines, on any background.
            box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "alpha": 0.7, "pad": 1}
            axes.text(place, height, f" {_label(tick)}", fontsize="small", va="center", clip_on=False, bbox=box, zorder=4)
    headings = [
        f"{text.cut(text.safe(name))}{' (log)' if scale.is_log else ''}"
        for name, scale in zip([*names, metric], scales, strict=True)
    ]
    axes.set_xticks(range(len(columns)), [_label(heading) for heading in headings], rotation=20 if len(columns) > 5 else 0)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(columns) - 0.7)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if best is not None:
        axes.set_title(_label(f"best: {_name(found[best])}"), fontsize="medium", loc="right")
    return axes


# --- axes -----------------------------------------------------------------------------------------------------------


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as err:
        raise MissingDependency("plots need matplotlib, which is not installed", hint='pip install "keepsake[plot]"') from err
    return pyplot


def _new_axes() -> Any:
    _, axes = _pyplot().subplots(layout="constrained")
    return axes


def _present_axes() -> Any:
    return _pyplot().gca()


def _legend(axes: Any, labels: Sequence[tuple[Any, str]], best: Any) -> None:
    """Name lines beside the axes, where the names cover none of them."""
    names = [_label(f"{name} (best)" if handle is best else name) for handle, name in labels]
    axes.legend(
        [handle for handle, _ in labels], names, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False
    )


def _label(recorded: str) -> str:
    """Return a recorded text as a label of matplotlib, for which dollars enclose formulas and an underscore at the start hides it."""
    label = text.cut(text.safe(recorded)).replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def _name(summary: Summary) -> str:
    return summary.name or short_id(summary.id)


def _is_positive(axes: Any) -> bool:
    return all(across > 0 for line in axes.get_lines() for across in line.get_xdata())


# --- curves ---------------------------------------------------------------------------------------------------------


class _Unit(NamedTuple):
    name: str
    seconds: float


_SECONDS = _Unit("s", 1)


def _unit(curves: Sequence[Curve]) -> _Unit:
    longest = max(((max(curve.times) - curve.started).total_seconds() for curve in curves if curve.times), default=0.0)
    return _SECONDS if longest < 300 else _Unit("min", 60) if longest < 3 * 3600 else _Unit("h", 3600)


def _along(curve: Curve, x: Along, unit: _Unit) -> list[Any]:
    if x == "step":
        return list(curve.steps)
    if x == "time":
        return list(curve.times)
    return [(time - curve.started).total_seconds() / unit.seconds for time in curve.times]


def _draw(
    axes: Any, curve: Curve, values: list[float], across: list[Any], smooth: float, looks: dict[str, Any], *, is_named: bool
) -> Any:
    """Draw one curve and return its line."""
    if smooth and is_named:
        [raw] = axes.plot(*_drawn(across, values), **looks | {"alpha": 0.25, "linewidth": 1})
        looks = looks | {"color": raw.get_color()}
    xs, ys = _drawn(across, _smoothed(values, smooth) if smooth else values)
    alone = [place for place, value in enumerate(ys) if _is_alone(ys, place)]
    [line] = axes.plot(xs, ys, **looks, **({"marker": ".", "markevery": alone} if alone else {}))
    points = list(zip(curve.steps, curve.values, strict=True))
    if is_named and curve.best is not None and curve.best in points:
        place = len(points) - 1 - points[::-1].index(curve.best)
        axes.plot([across[place]], [values[place]], marker="o", color=line.get_color(), linestyle="none")
    return line


def _drawn(across: Sequence[Any], values: Sequence[float]) -> tuple[list[Any], list[float]]:
    """Return a curve that has a gap where it goes back, as one that was resumed from an earlier checkpoint: no line leads there."""
    xs: list[Any] = []
    ys: list[float] = []
    for one, value in zip(across, values, strict=True):
        if xs and one < xs[-1]:
            xs.append(one)
            ys.append(math.nan)
        xs.append(one)
        ys.append(value)
    return xs, ys


def _is_alone(values: Sequence[float], place: int) -> bool:
    """Tell whether no line leads to or from a point, which needs a dot then to be seen."""
    around = values[max(place - 1, 0) : place + 2]
    return math.isfinite(values[place]) and sum(map(math.isfinite, around)) == 1


def _smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Return moving means in which each value weighs less than the one after it; gaps stay."""
    total = weights = 0.0
    means = []
    for value in values:
        if math.isfinite(value):
            total, weights = total * weight + value, weights * weight + 1
        means.append(total / weights if math.isfinite(value) else math.nan)
    return means


def _number(value: Any) -> float:
    """Return what is drawn of a value: NaN, which is a gap, for what is no finite number."""
    if not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _order(curves: Sequence[Curve]) -> list[int]:
    """Return the places of the curves, those of the best experiments first; where they cannot be compared, of the newest."""
    newest = sorted(range(len(curves)), key=lambda place: curves[place].started, reverse=True)
    if len({curve.ranked_by for curve in curves} - {None}) != 1:
        return newest
    scores = [math.inf if curve.score is None else curve.score for curve in curves]
    return sorted(newest, key=lambda place: (curves[place].score is None, scores[place]))


# --- scales ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where values stand on an axis.

    Args:
        categories: Those of values that are not all numbers, in their order; empty for numbers.
        low: The lowest number, which stands at 0 where the scale is stretched.
        high: The highest number, which stands at 1 then.
        marked: The numbers that are written beside it.
        is_log: Whether it is logarithmic.
        stretched: Whether all values stand between 0 and 1.
    """

    categories: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    marked: tuple[float, ...] = ()
    is_log: bool = False
    stretched: bool = False

    @classmethod
    def of(cls, values: Sequence[Any], *, stretched: bool = False) -> _Scale:
        """Return the scale for these values."""
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            by_text = {text.cell(value): value for value in values}
            ordered = sorted(by_text, key=lambda shown: (math.isnan(_number(by_text[shown])), _number(by_text[shown]), shown))
            return cls(tuple(ordered), stretched=stretched)
        numbers = [number for value in values if math.isfinite(number := _number(value))]
        low, high = min(numbers, default=0.0), max(numbers, default=0.0)
        distinct = sorted(set(numbers))
        marked = distinct if len(distinct) <= MOST_MARKED else [low, high]
        is_log = stretched and low > 0 and high / low >= LOGARITHMIC_FROM
        return cls((), low, high, tuple(marked), is_log, stretched)

    def position(self, value: Any) -> float:
        """Return where a value stands; NaN for one that is missing."""
        if value is text.NOTHING:
            return math.nan
        if self.categories:
            place = self.categories.index(text.cell(value))
            return (place + 0.5) / len(self.categories) if self.stretched else float(place)
        number = _number(value)
        if not self.stretched:
            return number
        if self.low == self.high:
            return 0.5
        if self.is_log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number / 2 - self.low / 2) / (self.high / 2 - self.low / 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Return what is written beside the axis, and where."""
        if self.categories:
            return [((place + 0.5) / len(self.categories), category) for place, category in enumerate(self.categories)]
        return [(self.position(number), text.number(number)) for number in self.marked]


def _differing(summaries: Sequence[Summary]) -> list[str]:
    """Return the params that differ and can be drawn: those with the fewest values first, which group the experiments."""
    flat = [summary.flat_params for summary in summaries]
    counts = {}
    for name in dict.fromkeys(name for params in flat for name in params):
        values = [params.get(name, text.NOTHING) for params in flat]
        if not any(isinstance(value, list | dict) for value in values):
            counts[name] = len(set(text.cells(values)))
    telling = sorted((name for name, count in counts.items() if count > 1), key=lambda name: counts[name])[:MOST_PARAMS]
    return [name for name in counts if name in telling]


def _colours(heights: Sequence[float]) -> list[Any]:
    import matplotlib as mpl

    # Without either end: the one cannot be seen on black, the other not on white.
    return [mpl.colormaps["viridis"](0.25 + 0.65 * height) for height in heights]
