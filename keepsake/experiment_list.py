"""Experiments as a list: chosen, compared, drawn, shown in a notebook and made into data frames together."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from keepsake.display.page import Displayed
from keepsake.exceptions import DoesNotExist
from keepsake.recorded import raw_checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keepsake.display.page import Page
    from keepsake.display.plots import Along, Curve
    from keepsake.experiment import Experiment
    from keepsake.query.columns import Column, Metrics
    from keepsake.query.frames import Library
    from keepsake.repository.primary_metric import Goal

__all__ = ["ExperimentList"]

READ_AT_ONCE = 8
"""How many histories are read at the same time: a store that is far away takes its time for each."""


class ExperimentList(Displayed, list["Experiment"]):
    """Experiments, oldest first; a slice is a list of the same kind."""

    def __init__(self, experiments: Iterable[Experiment] = ()) -> None:
        super().__init__(experiments)

    def primary_metric(self) -> str:
        """Return the name of the primary metric that these experiments share.

        Raises:
            ValueError: There is none, or there are several.
        """
        metrics = (experiment.metric_in_force for experiment in self)
        names = {metric.name for metric in metrics if metric is not None}
        if len(names) != 1:
            found = f"several: {', '.join(sorted(names))}" if names else "none"
            raise ValueError(f"no shared primary metric (there are {found})")
        return names.pop()

    def plot(
        self,
        metric: str | None = None,
        logy: bool = False,
        plot_only: bool = False,
        *,
        x: Along = "step",
        logx: bool = False,
        smooth: float = 0.0,
        ax: Any = None,
    ) -> Any:
        """Draw a metric of all experiments that have it; see `Experiment.plot`.

        The best experiment is drawn thicker. Up to ten are all named; of more the best five are, before the others in grey.

        Args:
            metric: Its name; the primary metric that they share if not given.
            logy: Give its axis a logarithmic scale.
            plot_only: Draw the curves and nothing around them.
            x: What to draw them along: ``"step"``, ``"time"`` or ``"elapsed"``.
            logx: Give that axis a logarithmic scale.
            smooth: From 0 to below 1.
            ax: Axes of matplotlib to draw into; those of a new figure if not given.

        Returns:
            The axes.

        Raises:
            ValueError: No metric is given, and they share none; it has no numbers; another argument makes no sense.
            KeyError: No experiment has the metric.
            MissingDependency: matplotlib is not installed.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.list("optimizer = adam").plot("val_loss", smooth=0.6)  # doctest: +SKIP
        """
        from concurrent.futures import ThreadPoolExecutor

        from keepsake.display.plots import plot_curves

        name = metric if metric is not None else self.primary_metric()

        def curve(experiment: Experiment) -> Curve | None:
            with suppress(KeyError):
                return experiment.curve(name)
            return None

        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            curves = [one for one in pool.map(curve, self) if one is not None]
        if not curves:
            raise KeyError(name)
        return plot_curves(curves, name, x=x, logx=logx, logy=logy, smooth=smooth, plot_only=plot_only, ax=ax)

    def scatter(self, param: str, metric: str | None = None, logx: bool = False, logy: bool = False, *, ax: Any = None) -> Any:
        """Draw a metric against a param, one point for each experiment that has both, the best one as a star.

        Args:
            param: The param; one within others has a dotted name, such as ``"optim.lr"``. Texts and booleans are categories.
            metric: The metric, as it is at the best checkpoint, else at the latest; the primary metric that they share if not given.
            logx: Give the axis of the param a logarithmic scale.
            logy: Give the axis of the metric one.
            ax: Axes of matplotlib to draw into; those of a new figure if not given.

        Returns:
            The axes.

        Raises:
            ValueError: No metric is given, and they share none; or nothing can be drawn.
            KeyError: No experiment has the param, or the metric.
            MissingDependency: matplotlib is not installed.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.list().scatter("lr", "val_loss", logx=True)  # doctest: +SKIP
        """
        from keepsake.display import plots

        name = metric if metric is not None else self.primary_metric()
        return plots.scatter([one.summary for one in self], param, name, logx=logx, logy=logy, ax=ax)

    def parallel_coordinates(self, params: Sequence[str] | None = None, metric: str | None = None, *, ax: Any = None) -> Any:
        """Draw each experiment as a line through its params to a metric, in the colour of that metric, the best one thicker.

        Args:
            params: The params in the order wanted; those that differ, up to seven, if not given.
            metric: The metric, as it is at the best checkpoint, else at the latest; the primary metric that they share if not given.
            ax: Axes of matplotlib to draw into; those of a new figure if not given.

        Returns:
            The axes.

        Raises:
            ValueError: No metric is given, and they share none; or no param differs.
            KeyError: No experiment has the metric, or one of the params.
            MissingDependency: matplotlib is not installed.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.list().parallel_coordinates(["lr", "optimizer"])  # doctest: +SKIP
        """
        from keepsake.display import plots

        name = metric if metric is not None else self.primary_metric()
        return plots.parallel_coordinates([one.summary for one in self], params, name, ax=ax)

    def _page(self) -> Page:
        from keepsake.display import notebook

        courses = [notebook.course(experiment.record) for experiment in self[-notebook.ROWS_SHOWN :]]
        return notebook.experiments_page([experiment.summary for experiment in self], courses)

    def best(self, metric: str | None = None, *, goal: Goal | None = None) -> Experiment | None:
        """Return the experiment that has reached the best value of a metric at any checkpoint; None if none has a number.

        NaN is never chosen, and of equals the first is.

        Args:
            metric: Its name; the primary metric that they share if not given.
            goal: ``"minimize"`` or ``"maximize"``; what is recorded of this metric if not given.

        Raises:
            InvalidQuery: No experiment has such a metric.
            ValueError: No metric is given and they share none, or nothing says what is better.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.list("optimizer = adamw").best("val_loss")  # doctest: +SKIP
            >>> keepsake.experiments.list().best("val_acc", goal="maximize")  # doctest: +SKIP
        """
        from keepsake.query.best import best_of

        by_id = {experiment.id: experiment for experiment in self}
        chosen = best_of([experiment.summary for experiment in self], metric, goal)
        return by_id[chosen.id] if chosen is not None else None

    def refresh(self) -> None:
        """Load all experiments anew; those that were deleted are taken out of the list."""
        present = []
        for experiment in self:
            with suppress(DoesNotExist):
                experiment.refresh()
                present.append(experiment)
        self[:] = present

    def to_dataframe(self, *, metrics: Metrics = "best", checkpoints: bool = False, library: Library = "pandas") -> Any:
        """Return a data frame with one row for each experiment, or one for each checkpoint.

        Columns are called as a filter calls them: fields by their names, params ``param.lr`` with dots for nested ones, metrics
        ``metric.val_loss``. Times are aware, in UTC; what is missing is NaN, NaT or NA.

        Args:
            metrics: Which checkpoint's metrics stand for an experiment: those of the ``"best"``, and of the latest where none is the
                best, as ``keepsake ls`` shows; or those of the ``"latest"``.
            checkpoints: One row for each checkpoint, with the params of its experiment.
            library: ``"pandas"`` or ``"polars"``.

        Raises:
            MissingDependency: The library is not installed; `to_records` needs none.

        Example:
            >>> import keepsake
            >>> frame = keepsake.experiments.list().to_dataframe()  # doctest: +SKIP
            >>> frame.groupby("param.optimizer")["metric.val_loss"].min()  # doctest: +SKIP
        """
        from keepsake.query.frames import to_frame

        return to_frame(self._columns(metrics, checkpoints=checkpoints), library)

    def to_records(self, *, metrics: Metrics = "best", checkpoints: bool = False) -> list[dict[str, Any]]:
        """Return the rows of `to_dataframe` as dicts, for which nothing has to be installed.

        Args:
            metrics: As for `to_dataframe`.
            checkpoints: As for `to_dataframe`.
        """
        from keepsake.query.frames import to_records

        return to_records(self._columns(metrics, checkpoints=checkpoints))

    def _columns(self, metrics: Metrics, *, checkpoints: bool) -> dict[str, Column]:
        from keepsake.query.columns import checkpoint_columns, experiment_columns

        if metrics not in ("best", "latest"):
            raise ValueError(f'metrics must be "best" or "latest", not {metrics!r}')
        if not checkpoints:
            return experiment_columns([experiment.summary for experiment in self], metrics)
        return checkpoint_columns(raw_checkpoints(self))

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Experiment: ...
    @overload
    def __getitem__(self, index: slice, /) -> ExperimentList: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> Experiment | ExperimentList:
        return ExperimentList(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)
