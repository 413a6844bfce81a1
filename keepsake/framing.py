"""What can become a data frame: the methods that everything made of rows has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keepsake.query.columns import Column
    from keepsake.query.frames import Library


class Framed:
    """Something made of rows and named columns; whoever is one says which columns by `_columns`."""

    def _columns(self) -> dict[str, Column]:
        raise NotImplementedError

    def to_records(self) -> list[dict[str, Any]]:
        """Return the rows of `to_dataframe` as dicts, for which nothing has to be installed; None stands for what is missing."""
        from keepsake.query.frames import to_records

        return to_records(self._columns())

    def to_dataframe(self, *, library: Library = "pandas") -> Any:
        """Return a data frame with one row for each.

        Params are called ``param.lr``, metrics ``metric.loss``, and everything else is called without a prefix. Times are aware, in UTC.

        Args:
            library: ``"pandas"`` or ``"polars"``.

        Raises:
            MissingDependency: The library is not installed.
        """
        from keepsake.query.frames import to_frame

        return to_frame(self._columns(), library)
