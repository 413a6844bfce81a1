"""Columns as what people work with: data frames of pandas or polars, which are loaded only here, or a list of dicts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from keepsake.exceptions import MissingDependency
from keepsake.repository.json_values import encode_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keepsake.query.columns import Column

Library: TypeAlias = Literal["pandas", "polars"]


def to_records(columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """Return rows as dicts, all with the same names; None stands for what is missing.

    Example:
        >>> from keepsake.query.columns import Column
        >>> to_records({"id": Column("text", ["4591273"]), "metric.loss": Column("number", [0.5])})
        [{'id': '4591273', 'metric.loss': 0.5}]
    """
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*(column.values for column in columns.values()), strict=True)]


def to_frame(columns: Mapping[str, Column], library: Library = "pandas") -> Any:
    """Return a data frame.

    Args:
        columns: Columns by name.
        library: Which library's.

    Raises:
        MissingDependency: It is not installed.
        ValueError: There is no such library.
    """
    if library == "pandas":
        return _pandas_frame(columns)
    if library == "polars":
        return _polars_frame(columns)
    raise ValueError(f'library must be "pandas" or "polars", not {library!r}')


def _missing(library: Library, err: ModuleNotFoundError) -> Exception:
    if err.name != library:
        return err  # installed, and broken
    return MissingDependency(
        f"data frames need {library}, which is not installed; to_records() needs nothing",
        hint=f'pip install "keepsake[{library}]"',
    )


# --- pandas -------------------------------------------------------------------------------------------------------------


def _pandas_frame(columns: Mapping[str, Column]) -> Any:
    try:
        import pandas
    except ModuleNotFoundError as err:
        raise _missing("pandas", err) from err
    return pandas.DataFrame({name: _pandas_column(column) for name, column in columns.items()}, copy=False)


def _pandas_column(column: Column) -> Any:
    import pandas

    kind, values = column
    try:
        if kind == "time":
            return pandas.Series(pandas.DatetimeIndex(values, dtype="datetime64[us, UTC]"))
        if kind == "number":
            return pandas.Series(values, dtype="float64")
        if kind == "whole":
            return pandas.Series(values, dtype="Int64" if None in values else "int64")
        if kind == "truth":
            return pandas.Series(values, dtype="boolean" if None in values else "bool")
    except OverflowError:
        # A number of more than 64 bits.
        return pandas.Series(values, dtype=object)
    if kind == "text":
        # Which type texts have differs between versions of pandas; a column in which all are missing has it as well.
        return pandas.Series(values, dtype=pandas.Series([""]).dtype)
    return pandas.Series(values, dtype=object)


# --- polars -------------------------------------------------------------------------------------------------------------


def _polars_frame(columns: Mapping[str, Column]) -> Any:
    try:
        import polars
    except ModuleNotFoundError as err:
        raise _missing("polars", err) from err
    return polars.DataFrame([_polars_column(name, column) for name, column in columns.items()])


def _polars_column(name: str, column: Column) -> Any:
    import polars

    kinds = {
        "text": polars.String(),
        "texts": polars.List(polars.String),
        "time": polars.Datetime("us", "UTC"),
        "whole": polars.Int64(),
        "number": polars.Float64(),
        "truth": polars.Boolean(),
        "any": None,
    }
    kind, values = column
    try:
        return polars.Series(
            name, [float(v) if v is not None else None for v in values] if kind == "number" else values, kinds[kind]
        )
    except (TypeError, OverflowError, polars.exceptions.PolarsError):
        # Its columns are of one kind.
        return polars.Series(
            name, [value if isinstance(value, str | None) else _as_json(value) for value in values], polars.String()
        )


def _as_json(value: Any) -> str:
    return json.dumps(encode_value(value), ensure_ascii=False)
