"""Everything about one experiment or checkpoint, as lines of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from keepsake.display import text
from keepsake.display.tables import GAP, STATUS_STYLES, Column, View, fitting, lines
from keepsake.values import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord

PARAMS_SHOWN = 20
METRICS_SHOWN = 20
PACKAGES_SHOWN = 5
CHECKPOINTS_SHOWN = 10

TELLING_PACKAGES = frozenset(
    [
        "flax",
        "jax",
        "keras",
        "lightgbm",
        "lightning",
        "numpy",
        "pytorch-lightning",
        "scikit-learn",
        "tensorflow",
        "torch",
        "transformers",
        "xgboost",
    ]
)
"""Packages that are named first: their versions decide what comes out of a training."""

NAME_WIDTH = 10


def experiment_details(record: ExperimentRecord, view: View) -> list[str]:
    """Return an experiment's page.

    Args:
        record: The experiment.
        view: How it is to look; ``every`` shows all params, packages, metrics and checkpoints.
    """
    page = [_title(record, view), *_pairs(_head(record, view))]
    page += _section(view, f"{'Params':<{NAME_WIDTH}}  {len(flatten(record.params))}", _params(record, view))
    page += _section(view, "Packages", _packages(record.python_packages, view))
    page += _metrics(record, view)
    page += _section(view, f"Checkpoints ({len(record.checkpoints)})", _checkpoints(record, view))
    if record.path is not None or any(checkpoint.has_files for checkpoint in record.checkpoints):
        page += ["", f"keepsake checkout {record.id[: view.short]} -o out/      get code and best weights"]
    return page


def checkpoint_details(record: ExperimentRecord, checkpoint: CheckpointRecord, view: View) -> list[str]:
    """Return a checkpoint's page: its own facts, then its experiment's head.

    Args:
        record: The checkpoint's experiment.
        checkpoint: The checkpoint.
        view: How it is to look; ``every`` shows all params.
    """
    short = checkpoint.id[: view.short]
    age = text.age((view.now - checkpoint.created).total_seconds())
    notes = _notes(record, checkpoint)
    page = [f"Checkpoint {view.style(short, 'bold')}  step {checkpoint.step}, {age} ago"]
    page += _pairs(
        {
            "ID": checkpoint.id,
            "Made": text.local(checkpoint.created),
            "Place": f"{' and '.join(notes)} of its experiment" if notes else None,
            "Saved": _saved(checkpoint),
        }
    )
    cells = {_metric_name(record, name): _styled(value, view) for name, value in checkpoint.metrics.items()}
    page += _section(view, "Metrics", _pairs(cells))
    page += ["", _title(record, view), *_pairs(_head(record, view))]
    page += _section(view, f"{'Params':<{NAME_WIDTH}}  {len(flatten(record.params))}", _params(record, view))
    if checkpoint.has_files:
        page += ["", f"keepsake checkout {short} -o out/      get code and these files"]
    return page


# --- head -----------------------------------------------------------------------------------------------------------


def _title(record: ExperimentRecord, view: View) -> str:
    status = view.style(_status(record, view), STATUS_STYLES[record.status.word])
    if not record.is_uploaded:
        status += f"  {text.NOT_UPLOADED}"
    return f"Experiment {view.style(record.id[: view.short], 'bold')}  {status}"


def _status(record: ExperimentRecord, view: View) -> str:
    """Return the status with its reason, such as ``stopped (finished) 12m ago``."""
    status, error = record.status, text.safe(record.error or "")
    if status.reason == "failed":
        took = f" after {text.span((record.ended - record.created).total_seconds())}" if record.ended is not None else ""
        return f"failed{took}{f': {error}' if error else ''}"
    if status.reason == "no heartbeat":
        since = f" since {text.local(status.last_heartbeat)}" if status.last_heartbeat is not None else ""
        host = f" (host {text.safe(record.host)})" if record.host else ""
        return f"stopped (no heartbeat{since}{host})"
    ago = f" {text.age((view.now - record.ended).total_seconds())} ago" if record.ended is not None else ""
    if status.reason == "interrupted":
        return f"stopped (interrupted{f': {error}' if error else ''}){ago}"
    return f"stopped (finished){ago}" if status.reason == "finished" else status.word


def _head(record: ExperimentRecord, view: View) -> dict[str, str | None]:
    system = record.system or {}
    gpus = [gpu.get("name", gpu) if isinstance(gpu, dict) else gpu for gpu in system.get("gpus") or ()]
    where = [
        f"{record.user}@{record.host}" if record.host else record.user,
        *map(str, gpus),
        f"Python {record.python_version}" if record.python_version else "",
        str(system.get("os") or ""),
    ]
    return {
        "ID": record.id,
        "Ran": _ran(record, view),
        "Resumed": _resumed(record),
        "Command": text.safe(record.command) or None,
        "Where": text.safe(", ".join(part for part in where if part)) or None,
        "Git": _git(record.git or {}),
        "Saved": "; ".join(filter(None, (_saved_code(record), _saved_checkpoints(record)))) or None,
    }


def _resumed(record: ExperimentRecord) -> str | None:
    if not record.resumed:
        return None
    last = text.local(max(record.resumed))
    return last if len(record.resumed) == 1 else f"{len(record.resumed)} times, last {last}"


def _ran(record: ExperimentRecord, view: View) -> str:
    ran = text.local(record.created)
    if record.ended is not None:
        return f"{ran} for {text.span((record.ended - record.created).total_seconds())}"
    if record.status.word == "running":
        return f"{ran}, for {text.span((view.now - record.created).total_seconds())} so far"
    return ran


def _git(git: Mapping[str, Any]) -> str | None:
    if not git.get("commit"):
        return None
    branch = f" on {git['branch']}" if git.get("branch") else ""
    dirty = ", with changes that are not committed" if git.get("dirty") else ""
    remote = f", {git['remote']}" if git.get("remote") else ""
    return text.safe(f"{str(git['commit'])[:7]}{branch}{dirty}{remote}")


def _saved_code(record: ExperimentRecord) -> str:
    if record.archive is not None:
        return f"code {text.plural(record.archive.files, 'file')} {text.size(record.archive.size_bytes)}"
    if record.path is None:
        return ""
    return "code (not stored yet)" if record.archive_pending else "code"


def _saved_checkpoints(record: ExperimentRecord) -> str:
    if not record.checkpoints:
        return ""
    size_bytes = sum(checkpoint.archive.size_bytes for checkpoint in record.checkpoints if checkpoint.archive is not None)
    return f"{text.plural(len(record.checkpoints), 'checkpoint')}{f' {text.size(size_bytes)}' if size_bytes else ''}"


def _saved(checkpoint: CheckpointRecord) -> str:
    path = text.safe(checkpoint.path or "")
    if not checkpoint.has_files:
        return "metrics only"
    if checkpoint.archive is None:
        return f"{path}{' (not stored yet)' if checkpoint.archive_pending else ''}"
    archive = checkpoint.archive
    return f"{path}  {text.plural(archive.files, 'file')} {text.size(archive.size_bytes)}  sha256 {archive.sha256[:7]}"


# --- sections -------------------------------------------------------------------------------------------------------


def _section(view: View, heading: str, body: Sequence[str]) -> list[str]:
    return ["", view.style(heading, "bold"), *body] if body else []


def _params(record: ExperimentRecord, view: View) -> list[str]:
    flat = flatten(record.params)
    shown = list(flat.items()) if view.every else list(flat.items())[:PARAMS_SHOWN]
    return [
        *_pairs({f"  {text.safe(name)}": _styled(value, view) for name, value in shown}),
        *_more(len(flat) - len(shown)),
    ]


def _packages(packages: Mapping[str, str], view: View) -> list[str]:
    if view.every:
        return _pairs({f"  {text.safe(name)}": text.safe(version) for name, version in packages.items()})
    ordered = sorted(packages.items(), key=lambda item: item[0].lower() not in TELLING_PACKAGES)
    shown = [f"{text.safe(name)} {text.safe(version)}" for name, version in ordered[:PACKAGES_SHOWN]]
    more = f", … {len(packages) - len(shown)} more: --all" if len(packages) > len(shown) else ""
    return [f"  {', '.join(shown)}{more}"] if shown else []


def _metrics(record: ExperimentRecord, view: View) -> list[str]:
    """Return each metric with its value at the best checkpoint and the last value that it had."""
    names = _metric_names(record)
    shown = names if view.every else names[:METRICS_SHOWN]
    if not shown:
        return []
    best = record.best()
    last = {name: value for checkpoint in record.checkpoints for name, value in checkpoint.metrics.items()}
    at_best = best.metrics if best is not None else {}
    pairs = [iter(text.column([values[name] for values in (at_best, last) if name in values])) for name in shown]
    columns = [
        Column("Metrics", [_metric_name(record, name) for name in shown]),
        Column("best", [_cut(next(pair), view) if name in at_best else "-" for name, pair in zip(shown, pairs, strict=True)]),
        Column("last", [_cut(next(pair), view) for pair in pairs], styles=[_value_style(last[name]) for name in shown]),
    ]
    for column in columns[1:]:
        column.right = True
    heading, *rows = lines(columns if best is not None else [columns[0], columns[2]], view.style)
    return ["", view.style(heading, "bold"), *rows, *_more(len(names) - len(shown))]


def _checkpoints(record: ExperimentRecord, view: View) -> list[str]:
    shown, left_out = _some(record, view)
    if not shown:
        return []
    best, metric = record.best(), record.primary_metric
    columns = [
        Column("ID", [checkpoint.id[: view.short] for checkpoint in shown], styles=["bold"] * len(shown)),
        Column("STEP", [str(checkpoint.step) for checkpoint in shown], right=True),
        Column("AGE", [text.age((view.now - c.created).total_seconds()) for c in shown], right=True),
    ]
    for index, name in enumerate(_metric_names(record)):
        values = iter(text.column([checkpoint.metrics[name] for checkpoint in shown if name in checkpoint.metrics]))
        cells = [_cut(next(values), view) if name in checkpoint.metrics else "-" for checkpoint in shown]
        styles = [_value_style(checkpoint.metrics.get(name)) for checkpoint in shown]
        if metric is not None and metric.name == name and best in shown:
            # The star hangs over the right edge, so that the numbers stay below each other.
            cells = [cell + ("*" if checkpoint is best else " ") for cell, checkpoint in zip(cells, shown, strict=True)]
            styles[shown.index(best)] = "bold green"
        columns.append(Column(_cut(text.safe(name.upper()), view), cells, (1, index), styles, right=True))
    sizes = [text.size(checkpoint.archive.size_bytes) if checkpoint.archive is not None else "-" for checkpoint in shown]
    columns.append(Column("SIZE", sizes, (2, 0), right=True))
    columns.append(Column("", [", ".join(_notes(record, checkpoint)) for checkpoint in shown]))
    table = lines(fitting(columns, view.width), view.style)
    if left_out:
        table.insert(1 + CHECKPOINTS_SHOWN // 2, f"  … {left_out} more: --all")
    return table


def _some(record: ExperimentRecord, view: View) -> tuple[list[CheckpointRecord], int]:
    """Return the first and the last checkpoints, with the best among them, and how many are left out."""
    everything = record.checkpoints
    if view.every or len(everything) <= CHECKPOINTS_SHOWN:
        return everything, 0
    half = CHECKPOINTS_SHOWN // 2
    shown = everything[:half] + everything[-half:]
    best = record.best()
    if best is not None and best not in shown:
        shown.insert(half, best)
    return shown, len(everything) - len(shown)


# --- parts ----------------------------------------------------------------------------------------------------------


def _metric_names(record: ExperimentRecord) -> list[str]:
    """Return the names of all metrics, the primary one first."""
    names = list(dict.fromkeys(name for checkpoint in record.checkpoints for name in checkpoint.metrics))
    metric = record.primary_metric
    return sorted(names, key=lambda name: metric is None or name != metric.name)


def _metric_name(record: ExperimentRecord, name: str) -> str:
    metric = record.primary_metric
    goal = f" ({metric.goal[:3]})" if metric is not None and metric.name == name else ""
    return f"  {text.safe(name)}{goal}"


def _notes(record: ExperimentRecord, checkpoint: CheckpointRecord) -> list[str]:
    return [note for note, noted in (("best", record.best()), ("latest", record.latest())) if noted is checkpoint]


def _pairs(pairs: Mapping[str, str | None]) -> list[str]:
    """Return names and values in two columns; None leaves the line out."""
    present = {name: value for name, value in pairs.items() if value is not None}
    widest = max([text.width(name) for name in present] + [NAME_WIDTH])
    return [f"{name}{' ' * (widest - text.width(name))}{GAP}{value}" for name, value in present.items()]


def _more(left_out: int) -> list[str]:
    return [f"  … {left_out} more: --all"] if left_out else []


def _styled(value: Any, view: View) -> str:
    return view.style(text.cell(value), _value_style(value))


def _value_style(value: Any) -> str:
    return "red" if isinstance(value, float) and not math.isfinite(value) else ""


def _cut(shown: str, view: View) -> str:
    return shown if view.width is None else text.cut(shown)
