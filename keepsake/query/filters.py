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
from keepsake.repository.records import is_comparable, parse_time
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
    "error": lambda record: record.error or MISSING,
    "user": lambda record: record.user,
    "host": lambda record: record.host,
    "command": lambda record: record.command,
    "path": lambda record: record.path or MISSING,
    "python_version": lambda record: record.python_version,
    "keepsake_version": lambda record: record.keepsake_version,
    "checkpoints": lambda record: len(record.checkpoints),
    "step": lambda record: latest.step if (latest := record.latest()) is not None else MISSING,
}
"""Names of fields and how to get them."""

STATUSES = ("running", "stopped", "failed")
_TIMES = ("created", "started", "ended")

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EQUALITY = ("=", "==", "!=")

_FILTER = re.compile(
    r"""\s*(?P<name>"[^"]+"|[^\s=<>!"]+)\s*(?P<operator>==|!=|<=|>=|=|<|>)\s*(?P<value>"[^"]*"|'[^']*'|[^\s=<>!].*?)\s*""",
    re.DOTALL,
)

_WORDS: dict[str, Any] = {
    "true": True,
    "false": False,
    "none": None,
    "null": None,
    "nan": math.nan,
    "inf": math.inf,
    "+inf": math.inf,
    "-inf": -math.inf,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on an experiment.

    Args:
        name: What is looked up.
        operator: One of ``= == != < <= > >=``.
        value: What it is compared with: a number, a text, a truth value, None, or a moment.
        raw: The same as the user wrote it, without quotes: a text such as ``007`` is compared with this.
        text: The whole condition as the user wrote it.
    """

    name: str
    operator: str
    value: Any
    raw: str
    text: str

    def matches(self, record: ExperimentRecord) -> bool:
        """Tell whether an experiment fulfils the condition; one that lacks the name fulfils ``!=`` only."""
        present = value_of(record, self.name)
        if self.name == "status" and self.raw == "stopped":
            # As in the original: whatever does not run has stopped, however it ended.
            present = "running" if present == "running" else "stopped"
        wanted = self.raw if isinstance(present, str) else self.value
        if present is MISSING or _kind(present) != _kind(wanted):
            return self.operator == "!="
        if self.operator in _EQUALITY and _is_nan(present) and _is_nan(wanted):
            return self.operator != "!="
        return _OPERATORS[self.operator](present, wanted)


def parse_filter(text: str) -> Filter:
    """Parse ``NAME OPERATOR VALUE``.

    Args:
        text: Such as ``val_loss < 0.2``; a name with spaces or operators stands in double quotes, a value may.

    Raises:
        InvalidQuery: It is not of this form.

    Example:
        >>> parse_filter("val/loss <= 1e-3").value
        0.001
    """
    match = _FILTER.fullmatch(text)
    if match is None:
        raise InvalidQuery(
            f'cannot understand the filter "{text}"',
            facts=["a filter is NAME OPERATOR VALUE, with one of = != < <= > >="],
            hint='keepsake ls -f "val_loss < 0.2"',
        )
    name, raw = match["name"].strip('"'), match["value"]
    quoted = raw[0] in "\"'" and raw[0] == raw[-1] and len(raw) > 1
    raw = raw[1:-1] if quoted else raw
    value = raw if quoted and name not in (*_TIMES, "status") else _parsed_value(name, raw)
    if match["operator"] not in _EQUALITY and (value is None or isinstance(value, bool)):
        raise InvalidQuery(f'"{text.strip()}" asks for an order, but {raw} has none', hint=f'keepsake ls -f "{name} = {raw}"')
    return Filter(name, match["operator"], value, raw, text.strip())


def _parsed_value(name: str, raw: str) -> Any:
    if name in _TIMES:
        try:
            return parse_time(raw)
        except (ValueError, OverflowError) as err:
            raise InvalidQuery(
                f'{name} is a time, cannot compare with "{raw}"', hint=f'keepsake ls -f "{name} > 2026-11-01"'
            ) from err
    if name == "status" and raw not in STATUSES:
        raise InvalidQuery(f'status is running, stopped or failed, never "{raw}"', hint='keepsake ls -f "status = running"')
    if raw.lower() in _WORDS:
        return _WORDS[raw.lower()]
    try:
        return int(raw) if re.fullmatch(r"[+-]?\d+", raw) else float(raw)
    except ValueError:
        return raw


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
    """Refuse a condition that no experiment could fulfil, since none has a value of its kind."""
    values = [value_of(record, condition.name) for record in records]
    present = [value for value in values if value is not MISSING and value is not None]
    kinds = {_kind(value) for value in present}
    if condition.value is None or len(kinds) != 1 or "text" in kinds or _kind(condition.value) in kinds:
        return
    # "All" must not be claimed of experiments that lack the name.
    which = "all" if len(present) == len(records) else "the"
    experiments = f"{len(present):,} experiment{'' if len(present) == 1 else 's'}"
    written = f'"{condition.raw}"' if isinstance(condition.value, str) else condition.raw
    raise InvalidQuery(
        f"{condition.name} is {_KIND_NAMES[kinds.pop()]} in {which} {experiments}"
        f"{'' if which == 'all' else ' that have it'}, cannot compare with {written}"
    )


def nearest(records: Sequence[ExperimentRecord], condition: Filter) -> tuple[str, float, ExperimentRecord] | None:
    """Return how near the experiments come to a condition that none of them fulfils.

    Returns:
        What the nearest value is (``best``, ``lowest`` or ``highest``), the value, and its experiment; None where the condition
        does not ask for an order of numbers.
    """
    if condition.operator in _EQUALITY:
        return None
    values = [(value_of(record, condition.name), record) for record in records]
    numbers = [(value, record) for value, record in values if is_comparable(value)]
    if not numbers:
        return None
    wants_low = condition.operator.startswith("<")
    value, record = (min if wants_low else max)(numbers, key=lambda pair: pair[0])
    metric = record.primary_metric
    is_goal = metric is not None and metric.name == condition.name and (metric.goal == "minimize") == wants_low
    return "best" if is_goal else "lowest" if wants_low else "highest", value, record


# --- sorting --------------------------------------------------------------------------------------------------------


def sort(records: Iterable[ExperimentRecord], key: str) -> list[ExperimentRecord]:
    """Return experiments sorted by a name; those without it, and NaN, come last in either direction.

    Args:
        records: The experiments.
        key: A name; ``-name`` or ``name-desc`` for the other direction.

    Raises:
        InvalidQuery: The name exists in none of them.
    """
    everything = list(records)
    name, descending = sort_name(key, everything)
    check_name(name, everything)
    ordered: list[tuple[int, Any, ExperimentRecord]] = []
    last: list[ExperimentRecord] = []
    for record in everything:
        value = value_of(record, name)
        if value is MISSING or value is None or _is_nan(value):
            last.append(record)
        else:
            kind = _kind(value)
            ordered.append((list(_KIND_NAMES).index(kind), value if kind != "other" else str(value), record))
    ordered.sort(key=lambda item: item[:2], reverse=descending)
    return [record for _, _, record in ordered] + last


def sort_name(key: str, records: Sequence[ExperimentRecord]) -> tuple[str, bool]:
    """Return the name in a sort key, and whether it is sorted downwards; a name may itself look like a key."""
    if _exists(key, records):
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
    if name in record.params and not isinstance(record.params[name], dict):
        return record.params[name]
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
    if not records or _exists(name, records):
        return
    known = names(records)
    if name in known:
        return
    by_lower_case = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=3)
    hint = f"did you mean {' or '.join(by_lower_case[one] for one in close)}?" if close else "keepsake ls --all shows all names"
    raise InvalidQuery(f'no param, metric or field named "{name}"', hint=hint)


def _exists(name: str, records: Sequence[ExperimentRecord]) -> bool:
    return name in FIELDS or any(value_of(record, name) is not MISSING for record in records)


# --- kinds of values ------------------------------------------------------------------------------------------------

_KIND_NAMES = {
    "number": "a number",
    "text": "a text",
    "truth": "true or false",
    "time": "a time",
    "other": "a list",
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


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
