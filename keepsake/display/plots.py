"""Curves of metrics over the steps, drawn by matplotlib, which is loaded only here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepsake.exceptions import MissingDependency

if TYPE_CHECKING:
    from collections.abc import Sequence


def plot_curve(
    steps: Sequence[int],
    values: Sequence[float],
    *,
    name: str,
    label: str,
    best: tuple[int, float] | None = None,
    logy: bool = False,
    plot_only: bool = False,
    ax: Any = None,
) -> Any:
    """Draw one curve into axes, and return them.

    Args:
        steps: Where.
        values: What.
        name: Of the metric, beside the axis.
        label: Of the curve, in the legend.
        best: A point to mark.
        logy: Give the axis of the values a logarithmic scale.
        plot_only: Draw the curve and nothing around it.
        ax: The axes; the present ones of ``matplotlib.pyplot`` if not given.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    ax = ax if ax is not None else _present_axes()
    [line] = ax.plot(steps, values, label=label)
    if best is not None:
        ax.plot(*best, marker="o", color=line.get_color(), linestyle="none")
    if logy:
        ax.set_yscale("log")
    if not plot_only:
        ax.set_xlabel("step")
        ax.set_ylabel(name)
        ax.legend()
    return ax


def _present_axes() -> Any:
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as err:
        raise MissingDependency("plots need matplotlib, which is not installed", hint='pip install "keepsake[plot]"') from err
    return pyplot.gca()
