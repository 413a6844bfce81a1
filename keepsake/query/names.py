"""What names mean: fields of an experiment, its metrics and params, and what prefixes ask for.

A name is looked up among the fields, then the metrics (of the best checkpoint, else of the latest), then the params; nested params
have dotted names. Where none of them has it, its prefix says where it lies: ``best.val_loss``, ``param.name``, ``env.torch``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from keepsake.exceptions import InvalidQuery
from keepsake.repository.json_values import decode_value, utc_now
from keepsake.repository.summary import METRICS, STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord
    from keepsake.repository.summary import CheckpointRow, Summary

    Getter: TypeAlias = Callable[[Summary], Any]

MISSING: Final = object()
"""What stands for a name that an experiment does not have; None is a value."""


class Field(NamedTuple):
    """Something that every experiment can have.

    Args:
        kind: What sort of value it is, one of those in `keepsake.query.conditions`.
        get: Its value at a moment, or `MISSING`.
    """

    kind: str
    get: Callable[[Summary, datetime], Any]


FIELDS: Final[dict[str, Field]] = {
    "id": Field("id", lambda one, _: one.id),
    "name": Field("text", lambda one, _: one.name or MISSING),
    **dict.fromkeys(["tag", "tags"], Field("tags", lambda one, _: one.tags or MISSING)),
    "notes": Field("text", lambda one, _: one.notes or MISSING),
    **dict.fromkeys(["alias", "aliases"], Field("aliases", lambda one, _: one.aliases or MISSING)),
    **dict.fromkeys(["created", "started"], Field("time", lambda one, _: one.created)),
    "ended": Field("time", lambda one, _: one.ended or MISSING),
    "age": Field("span", lambda one, now: (now - one.created).total_seconds()),
    "duration": Field("span", lambda one, now: _duration_s(one, now)),
    "status": Field("status", lambda one, _: one.status.word),
    "outcome": Field("outcome", lambda one, _: one.outcome or MISSING),
    "error": Field("text", lambda one, _: one.error or MISSING),
    "user": Field("text", lambda one, _: one.user or MISSING),
    "host": Field("text", lambda one, _: one.host or MISSING),
    "command": Field("text", lambda one, _: one.command or MISSING),
    "path": Field("text", lambda one, _: one.path or MISSING),
    "step": Field("number", lambda one, _: _step(one.latest_row)),
    "checkpoints": Field("number", lambda one, _: one.num_checkpoints),
    "size": Field("size", lambda one, _: one.size_bytes),
    "uploaded": Field("truth", lambda one, _: one.is_uploaded),
    "python_version": Field("version", lambda one, _: one.python_version or MISSING),
    "keepsake_version": Field("version", lambda one, _: one.keepsake_version or MISSING),
}
"""Names of fields and what they are."""

ORIGINAL_FIELDS = ("created", "started", "step", "user", "host", "command", "status")
"""The fields of keepsake 0.4.2; elsewhere it would have found a param or a metric."""


class Name(NamedTuple):
    """A name and how to get its value.

    Args:
        text: The name.
        value_of: Returns what it means for an experiment, or `MISSING`.
        kind: What sort of values it has; ``any`` for params and metrics, whose values differ.
        exact: For a name with a prefix: what a metric or param of the whole name has, or `MISSING`. Such a value goes first, and
            is of kind ``any``.
        prefixed: For a name with a prefix: what the prefix asks for, or `MISSING`.
    """

    text: str
    value_of: Getter
    kind: str = "any"
    exact: Getter | None = None
    prefixed: Getter | None = None


def resolve(name: str, now: datetime | None = None) -> Name:
    """Say how to get the values of a name; whether any experiment has it is another question.

    Args:
        name: The name.
        now: The moment that ages are counted from; default: this one.
    """
    field = FIELDS.get(name)
    if field is not None:
        moment, of = now or utc_now(), field.get
        return Name(name, lambda summary: of(summary, moment), field.kind)
    exact = _recorded(name)
    prefix, dot, rest = name.partition(".")
    if not (dot and rest and prefix in _PREFIXES):
        return Name(name, exact)
    kind, prefixed = _PREFIXES[prefix](rest)

    def value_of(summary: Summary) -> Any:
        value = exact(summary)
        return prefixed(summary) if value is MISSING else value

    return Name(name, value_of, kind, exact, prefixed)


def value_of(summary: Summary, name: str) -> Any:
    """Return what a name means for an experiment, or `MISSING`."""
    return resolve(name).value_of(summary)


def shown_checkpoint(experiment: Summary | ExperimentRecord) -> CheckpointRecord | None:
    """Return the checkpoint whose metrics stand for the experiment: the best, else the latest."""
    return experiment.best() or experiment.latest()


# --- where values lie -------------------------------------------------------------------------------------------------


def _recorded(name: str) -> Getter:
    """Get a metric, else a param."""
    if "." not in name:
        # What nearly all names are, and asked of every experiment.
        def get(summary: Summary) -> Any:
            metrics = summary.shown_metrics
            return metrics[name] if name in metrics else summary.params.get(name, MISSING)

        return get

    splits = _splits(name)

    def get_nested(summary: Summary) -> Any:
        value = _dig(summary.shown_metrics, name, splits)
        return _dig(summary.params, name, splits) if value is MISSING else value

    return get_nested


def _splits(name: str) -> list[tuple[str, str]]:
    """Return the ways in which a dotted name can be that of a dict and of something inside it."""
    return [(name[:at], name[at + 1 :]) for at, char in enumerate(name) if char == "."]


def _dig(values: Mapping[str, Any], name: str, splits: list[tuple[str, str]]) -> Any:
    """Return a value of nested dicts by its dotted name."""
    if name in values:
        return values[name]
    for outer, rest in splits:
        inner = values.get(outer)
        if isinstance(inner, dict) and (value := _dig(inner, rest, _splits(rest))) is not MISSING:
            return value
    return MISSING


def _param(name: str) -> tuple[str, Getter]:
    splits = _splits(name)
    return "any", lambda summary: _dig(summary.params, name, splits)


def _metric(name: str) -> tuple[str, Getter]:
    splits = _splits(name)
    return "any", lambda summary: _dig(summary.shown_metrics, name, splits)


def _metric_of(choose: Callable[[Summary], CheckpointRow | None], name: str) -> tuple[str, Getter]:
    """Get a metric of one checkpoint, or its step. It is read as it stands in the record: there are thousands of them."""
    splits = _splits(name)

    def get(summary: Summary) -> Any:
        checkpoint = choose(summary)
        if checkpoint is None:
            return MISSING
        value = _dig(checkpoint[METRICS] or {}, name, splits)
        if value is not MISSING:
            return decode_value(value)
        return _step(checkpoint) if name == "step" else MISSING

    return "any", get


def _step(checkpoint: CheckpointRow | None) -> int:
    return int(checkpoint[STEP] or 0) if checkpoint is not None else 0


def _git(name: str) -> tuple[str, Getter]:
    return "id" if name == "commit" else "any", lambda summary: (summary.git or {}).get(name, MISSING)


def _env(name: str) -> tuple[str, Getter]:
    if name == "python":
        return "version", lambda summary: summary.python_version or MISSING
    # As pip does, so that scikit_learn is found too.
    wanted = _normal(name)

    def get(summary: Summary) -> Any:
        packages = summary.python_packages
        if name in packages:
            return packages[name]
        return next((version for one, version in packages.items() if _normal(one) == wanted), MISSING)

    return "version", get


def _normal(package: str) -> str:
    return package.lower().replace("_", "-").replace(".", "-")


_PREFIXES: Final[dict[str, Callable[[str], tuple[str, Getter]]]] = {
    "param": _param,
    "metric": _metric,
    "best": lambda name: _metric_of(lambda summary: summary.best_row, name),
    "latest": lambda name: _metric_of(lambda summary: summary.latest_row, name),
    "max": lambda name: ("any", lambda summary: summary.highest.get(name, MISSING)),
    "min": lambda name: ("any", lambda summary: summary.lowest.get(name, MISSING)),
    "git": _git,
    "env": _env,
}

PREFIXES = tuple(_PREFIXES)
"""What may stand before a name, with a dot."""

GIT_NAMES = ("commit", "branch", "dirty", "remote")
"""What an experiment records of Git."""

_METRIC_PREFIXES = ("metric", "best", "latest", "max", "min")


def _duration_s(summary: Summary, now: datetime) -> Any:
    status = summary.status
    if status.word == "running":
        return (now - summary.created).total_seconds()
    # One that was killed lasted at least until it was heard of last.
    latest = summary.latest()
    end = summary.ended or status.last_heartbeat or (latest.created if latest is not None else None)
    return (end - summary.created).total_seconds() if end is not None else MISSING


# --- which names there are --------------------------------------------------------------------------------------------


def names(summaries: Iterable[Summary]) -> list[str]:
    """Return all names of fields, metrics and params, each once."""
    found = dict.fromkeys(FIELDS)
    for summary in summaries:
        found.update(dict.fromkeys(summary.metric_names))
        found.update(dict.fromkeys(summary.flat_params))
    return list(found)


def exists(name: Name, summaries: Sequence[Summary]) -> bool:
    """Tell whether a name means anything among experiments; with no experiments, any name may."""
    if name.text in FIELDS or not summaries:
        return True
    if any(name.value_of(summary) is not MISSING for summary in summaries):
        return True
    prefix, _, rest = name.text.partition(".")
    if prefix == "git" and rest in GIT_NAMES:
        return True
    # A metric that only other checkpoints have is no typing error.
    metrics = {name.text, rest} if prefix in _METRIC_PREFIXES else {name.text}
    return any(not metrics.isdisjoint(summary.metric_names) for summary in summaries)


def check_name(name: Name, summaries: Sequence[Summary]) -> None:
    """Raise `InvalidQuery` with the nearest names for one that no experiment has."""
    if exists(name, summaries):
        return
    import difflib

    prefix, dot, rest = name.text.partition(".")
    start = prefix + dot if rest and prefix in PREFIXES else ""
    known, called = (_names_after(prefix, summaries), _CALLED[prefix]) if start else (names(summaries), "param, metric or field")
    wanted = name.text.removeprefix(start)
    by_lower_case = {one.lower(): one for one in known}
    close = difflib.get_close_matches(wanted.lower(), by_lower_case, n=3)
    meant = " or ".join(start + by_lower_case[one] for one in close)
    # Neither packages nor what is known of Git is listed there.
    where = "" if start in ("git.", "env.") else " (all names: keepsake ls --names)"
    hint = f"did you mean {meant}?{where}" if close else "keepsake ls --names lists all names"
    raise InvalidQuery(f'no {called} named "{wanted}"', hint=hint)


_CALLED = {"param": "param", "git": "fact of Git", "env": "package", **dict.fromkeys(_METRIC_PREFIXES, "metric")}


def _names_after(prefix: str, summaries: Sequence[Summary]) -> Iterator[str]:
    if prefix == "git":
        yield from GIT_NAMES
    elif prefix == "env":
        yield "python"
    for summary in summaries:
        if prefix == "param":
            yield from summary.flat_params
        elif prefix == "env":
            yield from summary.python_packages
        elif prefix in _METRIC_PREFIXES:
            yield from summary.metric_names


def shadowed(names: Iterable[str], summaries: Sequence[Summary]) -> list[str]:
    """Return names with prefix that somebody may have meant by a field that keepsake 0.4.2 did not have.

    Example:
        >>> shadowed(["lr"], [])
        []
    """
    fields = [name for name in dict.fromkeys(names) if name in FIELDS and name not in ORIGINAL_FIELDS]
    meant = []
    for name in fields:
        if any(name in summary.metric_names for summary in summaries):
            meant.append(f"metric.{name}")
        if any(name in summary.params for summary in summaries):
            meant.append(f"param.{name}")
    return meant
