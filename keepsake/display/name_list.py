"""All names that experiments can be filtered and sorted by, with what each is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepsake.display import text
from keepsake.display.tables import Column, lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keepsake.repository.summary import Summary

EXAMPLES = 3
"""How many values of each name are shown."""


def name_lines(summaries: Sequence[Summary], fields: Iterable[str]) -> list[str]:
    """Return a table of the params and metrics of experiments, and of the fields that all have.

    It says what each is, how many experiments have it, and some of the values.

    Args:
        summaries: The experiments.
        fields: Names of what every experiment has.
    """
    params = _gathered(summary.flat_params for summary in summaries)
    # Also those that the best checkpoint, whose values are shown, does not have.
    metrics = _gathered(
        {name: summary.shown_metrics.get(name, text.NOTHING) for name in summary.metric_names} for summary in summaries
    )
    rows = [
        (text.safe(name), kind, str(len(values)), _examples(values))
        for kind, found in (("param", params), ("metric", metrics))
        for name, values in found.items()
    ]
    rows += [(name, "field", "", "") for name in fields if name not in params and name not in metrics]
    names, kinds, counts, examples = (list(column) for column in zip(*rows, strict=True))
    return lines(
        [
            Column("NAME", names),
            Column("KIND", kinds),
            Column("EXPERIMENTS", counts, right=True),
            Column("VALUES", examples),
        ]
    )


def _gathered(values: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in values:
        for name, value in one.items():
            found.setdefault(name, []).append(value)
    return found


def _examples(values: Sequence[Any]) -> str:
    different = list(dict.fromkeys(text.cell(value) for value in values if value is not text.NOTHING))
    shown = ", ".join(different[:EXAMPLES])
    return f"{shown}, … {len(different) - EXAMPLES} more" if len(different) > EXAMPLES else shown
