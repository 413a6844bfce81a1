"""History: the metrics of all steps of an experiment, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from keepsake.display import text
from keepsake.display.page import Displayed
from keepsake.framing import Framed

if TYPE_CHECKING:
    from datetime import datetime

    from keepsake.display.page import Page
    from keepsake.display.plots import Along
    from keepsake.query.columns import Column
    from keepsake.repository.history import Point

__all__ = ["History"]


class History(Displayed, Framed, Mapping[str, list[Any]]):
    """A table with one row for each step and one column for each metric.

    ``history["loss"]`` is a column: one value for each row, None where that metric has none there. Made by `Experiment.history`.

    Args:
        rows: Points in the order in which they were logged, of which no two that follow each other can be one row.

    Attributes:
        steps: The step of each row. They rise, but where a training went back, as one that was resumed from an earlier checkpoint.
        times: When each row was logged, in UTC.

    Example:
        >>> from datetime import UTC, datetime
        >>> from keepsake.repository.history import Point
        >>> now = datetime(2026, 11, 23, tzinfo=UTC)
        >>> history = History.merged([Point(0, now, {"loss": 3.0}), Point(1, now, {"loss": 2.0}), Point(1, now, {"val_loss": 2.5})])
        >>> history.steps, history["val_loss"], history.series("val_loss")
        ([0, 1], [None, 2.5], ([1], [2.5]))
    """

    def __init__(self, rows: Iterable[Point]) -> None:
        found = list(rows)
        self._rows = [row.metrics for row in found]
        self.steps = [row.step for row in found]
        self.times: list[datetime] = [row.time for row in found]

    @classmethod
    def merged(cls, points: Iterable[Point]) -> Self:
        """Return points in the order of their times, those that follow each other at one step as one row, unless they disagree."""
        rows: list[Point] = []
        for point in sorted(points, key=lambda point: point.time):
            last = rows[-1] if rows else None
            if last is not None and last.step == point.step and _agree(last.metrics, point.metrics):
                rows[-1] = type(point)(point.step, point.time, {**last.metrics, **point.metrics})
            else:
                rows.append(point)
        return cls(rows)

    def series(self, name: str) -> tuple[list[int], list[Any]]:
        """Return the steps at which a metric has a value, and these values.

        Raises:
            KeyError: It was never logged.
        """
        found = self.points(name)
        return [step for step, _, _ in found], [value for _, _, value in found]

    def points(self, name: str) -> list[tuple[int, datetime, Any]]:
        """Return the steps at which a metric has a value, when each was logged, and the values.

        Raises:
            KeyError: It was never logged.
        """
        rows = zip(self.steps, self.times, self[name], strict=True)
        return [row for row in rows if row[2] is not None]

    def plot(
        self,
        metric: str,
        logy: bool = False,
        plot_only: bool = False,
        *,
        x: Along = "step",
        logx: bool = False,
        smooth: float = 0.0,
        ax: Any = None,
    ) -> Any:
        """Draw a metric; see `Experiment.plot`.

        Args:
            metric: Its name.
            logy: Give its axis a logarithmic scale.
            plot_only: Draw the curve and nothing around it.
            x: What to draw it along: ``"step"``, ``"time"`` or ``"elapsed"``.
            logx: Give that axis a logarithmic scale.
            smooth: From 0 to below 1.
            ax: Axes of matplotlib to draw into; those of a new figure if not given.

        Returns:
            The axes.

        Raises:
            ValueError: It has no numbers, or another argument makes no sense.
            KeyError: It was never logged.
            MissingDependency: matplotlib is not installed.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.get("4591273").history().plot("train_loss", smooth=0.9)  # doctest: +SKIP
        """
        from keepsake.display.plots import Curve, plot_curves

        steps, times, values = zip(*self.points(metric), strict=True)
        curve = Curve(metric, steps, times, values, started=self.times[0])
        return plot_curves([curve], metric, x=x, logx=logx, logy=logy, smooth=smooth, plot_only=plot_only, ax=ax)

    def _columns(self) -> dict[str, Column]:
        from keepsake.query.columns import history_columns

        return history_columns(self.steps, self.times, self)

    def __getitem__(self, name: str) -> list[Any]:
        column = [row.get(name) for row in self._rows]
        if name not in self:
            raise KeyError(name)
        return column

    def __contains__(self, name: object) -> bool:
        return any(name in row for row in self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for row in self._rows for name in row))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _page(self) -> Page:
        from keepsake.display import notebook

        return notebook.history_page(len(self.steps), {name: self.series(name)[1] for name in self})

    def __repr__(self) -> str:
        return f"<History of {len(self.steps)} steps: {', '.join(map(text.safe, self))}>"


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether no metric has two values; NaN is the same as NaN."""
    return all(
        name not in one or one[name] == value or (value != value and one[name] != one[name]) for name, value in other.items()
    )
