"""Filters, sort keys and names over many experiments. Works on records; how they look is `keepsake.display`'s business.

A name is looked up among the fields, then the metrics (of the best checkpoint, else the latest), then the params; nested params
have dotted names.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from keepsake.exceptions import InvalidQuery
from keepsake.repository.records import parse_time
from keepsake.values import flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord

MISSING: Final = object()
"""What `value_of` returns for an experiment that has no such name; None is a value."""

FIELDS: dict[str, Callable[[ExperimentRecord], Any]] = {
    "id": lambda record: record.id,
    "created": lambda record: record.created,
    "started": lambda record: record.created,
    "ended": lambda record: record.ended if record.ended is not None else MISSING,
    "status": lambda record: record.status.word,
    "outcome": lambda record: record.outcome or MISSING,
    "user": lambda record: record.user,
    "host": lambda record: record.host,
    "command": lambda record: record.command,
    "path": lambda record: record.path or MISSING,
    "python_version": lambda record: record.python_version,
    "keepsake_version": lambda record: record.keepsake_version,
    "checkpoints": lambda record: len(record.checkpoints),
    "step": lambda record: shown.step if (shown := shown_checkpoint(record)) is not None else MISSING,
}
"""Names of fields and how to get them."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_FILTER = re.compile(r"""\s*(?P<name>"[^"]+"|[^\s=<>!"]+)\s*(?P<operator>==|!=|<=|>=|=|<|>)\s*(?P<value>.*?)\s*""", re.DOTALL)

_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None, "nan": math.nan}


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on an experiment.

    Args:
        name: What is looked up.
        operator: One of ``= == != < <= > >=``.
        value: What it is compared with: a number, a text, a truth value, None, or a moment.
        text: The condition as the user wrote it.
    """

    name: str
    operator: str
    value: Any
    text: str

    def matches(self, record: ExperimentRecord) -> bool:
        """Tell whether an experiment fulfils the condition; one that lacks the name fulfils ``!=`` only."""
        present = value_of(record, self.name)
        if self.name == "status" and self.value == "stopped":
            # As in the original: whatever does not run has stopped, however it ended.
            present = "running" if present == "running" else "stopped"
        if present is MISSING or _kind(present) != _kind(self.value):
            return self.operator == "!="
        return _OPERATORS[self.operator](present, self.value)


def parse_filter(text: str) -> Filter:
    """Parse ``NAME OPERATOR VALUE``.

    Args:
        text: Such as ``val_loss < 0.2``; a name or a value with spaces stands in double quotes.

    Raises:
        InvalidQuery: It is not of this form.

    Example:
        >>> parse_filter("val/loss <= 1e-3").value
        0.001
    """
    match = _FILTER.fullmatch(text)
    if match is None or not match["value"]:
        raise InvalidQuery(
            f'cannot understand the filter "{text}"',
            facts=["a filter is NAME OPERATOR VALUE, with one of = != < <= > >="],
            hint='keepsake ls -f "val_loss < 0.2"',
        )
    name, value = match["name"].strip('"'), match["value"]
    return Filter(name, match["operator"], _parsed_value(name, value), text.strip())


def _parsed_value(name: str, text: str) -> Any:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if name in ("created", "started", "ended"):
        try:
            return parse_time(text)
        except ValueError as err:
            raise InvalidQuery(f'{name} is a time, cannot compare with "{text}"', hint=f'-f "{name} > 2026-11-01"') from err
    if name == "status" and text not in ("running", "stopped", "failed"):
        raise InvalidQuery(f'status is running, stopped or failed, never "{text}"', hint='keepsake ls -f "status = running"')
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return float(text) if not re.fullmatch(r"[+-]?\d+", text) else int(text)
    except ValueError:
        return text


def select(records: Sequence[ExperimentRecord], filters: Sequence[Filter]) -> list[ExperimentRecord]:
    """Return the experiments that fulfil all conditions.

    Raises:
        InvalidQuery: A name exists in none of them, or its values cannot be compared with the one given.
    """
    for condition in filters:
        check_name(condition.name, records)
        _check_kind(condition, records)
    return [record for record in records if all(condition.matches(record) for condition in filters)]


def _check_kind(condition: Filter, records: Sequence[ExperimentRecord]) -> None:
    present = [value for record in records if (value := value_of(record, condition.name)) is not MISSING and value is not None]
    kinds = {_kind(value) for value in present}
    if condition.value is None or len(kinds) != 1 or _kind(condition.value) in kinds:
        return
    written = f'"{condition.value}"' if isinstance(condition.value, str) else str(condition.value).lower()
    raise InvalidQuery(
        f"{condition.name} is {_KIND_NAMES[kinds.pop()]} in all {len(present)} experiments, cannot compare with {written}"
    )


def sort(records: Iterable[ExperimentRecord], key: str) -> list[ExperimentRecord]:
    """Return experiments sorted by a name; those without it, and NaN, come last in either direction.

    Args:
        records: The experiments.
        key: A name; ``-name`` or ``name-desc`` for the other direction.

    Raises:
        InvalidQuery: The name exists in none of them.
    """
    everything = list(records)
    name, descending = _sort_name(key, everything)
    check_name(name, everything)
    ordered: list[tuple[int, Any, ExperimentRecord]] = []
    last: list[ExperimentRecord] = []
    for record in everything:
        value = value_of(record, name)
        if value is MISSING or value is None or (isinstance(value, float) and math.isnan(value)):
            last.append(record)
        else:
            kind = _kind(value)
            ordered.append((list(_KIND_NAMES).index(kind), value if kind != "other" else str(value), record))
    ordered.sort(key=lambda item: item[:2], reverse=descending)
    return [record for _, _, record in ordered] + last


def _sort_name(key: str, records: Sequence[ExperimentRecord]) -> tuple[str, bool]:
    if key in names(records):
        return key, False
    if key.startswith("-"):
        return key[1:], True
    if key.endswith("-desc"):
        return key.removesuffix("-desc"), True
    return key.removesuffix("-asc"), False


# --- names ----------------------------------------------------------------------------------------------------------


def shown_checkpoint(record: ExperimentRecord) -> CheckpointRecord | None:
    """Return the checkpoint whose metrics stand for the experiment: the best, else the latest."""
    return record.best() or record.latest()


def value_of(record: ExperimentRecord, name: str) -> Any:
    """Return what a name means for an experiment, or `MISSING`."""
    if name in FIELDS:
        return FIELDS[name](record)
    checkpoint = shown_checkpoint(record)
    if checkpoint is not None and name in checkpoint.metrics:
        return checkpoint.metrics[name]
    return flatten(record.params).get(name, MISSING)


def names(records: Iterable[ExperimentRecord]) -> list[str]:
    """Return all names of fields, metrics and params, each once."""
    found = dict.fromkeys(FIELDS)
    for record in records:
        for checkpoint in record.checkpoints:
            found.update(dict.fromkeys(checkpoint.metrics))
        found.update(dict.fromkeys(flatten(record.params)))
    return list(found)


def check_name(name: str, records: Sequence[ExperimentRecord]) -> None:
    """Raise `InvalidQuery` with the nearest names for one that no experiment has; with no experiments, any name may be right."""
    known = names(records)
    if not records or name in known:
        return
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "keepsake ls --all shows all names"
    raise InvalidQuery(f'no param, metric or field named "{name}"', hint=hint)


# --- kinds of values ------------------------------------------------------------------------------------------------

_KIND_NAMES = {
    "number": "a number",
    "text": "a text",
    "truth": "true or false",
    "time": "a time",
    "other": "a list",
    "nothing": "nothing",
}


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "time" if isinstance(value, datetime) else "other"
