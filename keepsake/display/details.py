"""Everything about one experiment or checkpoint, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepsake.display import text
from keepsake.display.tables import Column, Style, fitting, lines, plain
from keepsake.repository.layout import SHORT_ID_LENGTH
from keepsake.repository.records import utc_now
from keepsake.values import flatten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord

STATUS_STYLES = {"running": "cyan", "stopped": "", "failed": "red"}

PARAMS_SHOWN = 20
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


def experiment_details(
    record: ExperimentRecord, *, now: datetime, width: int | None, every: bool = False, style: Style = plain
) -> list[str]:
    """Return an experiment's page.

    Args:
        record: The experiment.
        now: The present moment, which ages are counted to.
        width: Terminal columns; None for any.
        every: Show all params, packages and checkpoints.
        style: How to colour.
    """
    page = [f"Experiment {style(record.id[:SHORT_ID_LENGTH], 'bold')}  {_status(record, now, style)}"]
    page += _pairs(_head(record))
    for heading, body in (
        (f"Params      {len(flatten(record.params))}", list(_params(record.params, every))),
        ("Packages", list(_packages(record.python_packages, every))),
        (f"Checkpoints ({len(record.checkpoints)})", list(_checkpoints(record, now, width, every, style))),
    ):
        if body:
            page += ["", style(heading, "bold"), *body]
    if any(checkpoint.has_files for checkpoint in record.checkpoints) or record.path is not None:
        page += ["", f"keepsake checkout {record.id[:SHORT_ID_LENGTH]} -o out/      get code and best weights"]
    return page


def checkpoint_details(
    record: ExperimentRecord,
    checkpoint: CheckpointRecord,
    *,
    now: datetime,
    width: int | None,
    every: bool = False,
    style: Style = plain,
) -> list[str]:
    """Return a checkpoint's page: its own facts, then its experiment's head; see `experiment_details`."""
    short = checkpoint.id[:SHORT_ID_LENGTH]
    page = [
        f"Checkpoint {style(short, 'bold')}  step {checkpoint.step}, {text.age((now - checkpoint.created).total_seconds())} ago"
    ]
    notes = _notes(record, checkpoint)
    page += _pairs(
        {
            "ID": checkpoint.id,
            "Made": text.local(checkpoint.created),
            "Saved": _saved(checkpoint),
            "Place": ", ".join(notes) + " of its experiment" if notes else None,
        }
    )
    metric = record.primary_metric
    if checkpoint.metrics:
        page += ["", style("Metrics", "bold")]
        goals = {metric.name: f" ({metric.goal[:3]})"} if metric is not None else {}
        page += _pairs(
            {f"  {text.safe(name)}{goals.get(name, '')}": text.cell(value) for name, value in checkpoint.metrics.items()}
        )
    page += ["", f"Experiment {style(record.id[:SHORT_ID_LENGTH], 'bold')}  {_status(record, now, style)}"]
    page += _pairs(_head(record))
    params = list(_params(record.params, every))
    if params:
        page += ["", style(f"Params      {len(flatten(record.params))}", "bold"), *params]
    if checkpoint.has_files:
        page += ["", f"keepsake checkout {short} -o out/      get code and these files"]
    return page


def status_line(record: ExperimentRecord) -> str:
    """Return the status with its reason, without an age, such as ``stopped (finished)``."""
    status = record.status
    if status.word == "failed":
        return f"failed: {text.safe(record.error)}" if record.error else "failed"
    if status.reason == "no heartbeat" and status.last_heartbeat is not None:
        host = f" (host {text.safe(record.host)})" if record.host else ""
        return f"stopped (no heartbeat since {text.local(status.last_heartbeat)}{host})"
    if status.reason == "interrupted" and record.error:
        return f"stopped (interrupted: {text.safe(record.error)})"
    return f"stopped ({status.reason})" if status.word == "stopped" and status.reason != "unknown" else status.word


def _status(record: ExperimentRecord, now: datetime, style: Style) -> str:
    line = status_line(record)
    if record.status.word == "failed":
        took = text.span(((record.ended or now) - record.created).total_seconds())
        line = line.replace("failed", f"failed after {took}", 1)
    elif record.ended is not None:
        line += f" {text.age((now - record.ended).total_seconds())} ago"
    return style(line, STATUS_STYLES[record.status.word])


def _head(record: ExperimentRecord) -> dict[str, str | None]:
    system, git = record.system or {}, record.git or {}
    ran = text.local(record.created)
    if record.ended is not None:
        ran += f" for {text.span((record.ended - record.created).total_seconds())}"
    elif record.status.word == "running":
        ran += f", for {text.span((utc_now() - record.created).total_seconds())} so far"
    gpus = ", ".join(str(gpu.get("name", gpu)) if isinstance(gpu, dict) else str(gpu) for gpu in system.get("gpus") or ())
    place = f"{record.user}@{record.host}" if record.host else record.user
    where = [place, gpus, f"Python {record.python_version}" if record.python_version else "", str(system.get("os") or "")]
    code = f"code {text.plural(record.archive.files, 'file')} {text.size(record.archive.size_bytes)}" if record.archive else ""
    if record.path is not None and not code:
        code = "code (not stored yet)" if record.archive_pending else "code"
    files = sum(checkpoint.archive.size_bytes for checkpoint in record.checkpoints if checkpoint.archive is not None)
    checkpoints = f"{text.plural(len(record.checkpoints), 'checkpoint')}{f' {text.size(files)}' if files else ''}"
    return {
        "ID": record.id,
        "Ran": ran,
        "Command": text.safe(record.command) or None,
        "Where": text.safe(", ".join(part for part in where if part)) or None,
        "Git": _git(git),
        "Saved": "; ".join(part for part in (code, checkpoints if record.checkpoints else "") if part) or None,
    }


def _git(git: Mapping[str, Any]) -> str | None:
    if not git.get("commit"):
        return None
    branch = f" on {git['branch']}" if git.get("branch") else ""
    dirty = ", with changes that are not committed" if git.get("dirty") else ""
    remote = f", {git['remote']}" if git.get("remote") else ""
    return text.safe(f"{str(git['commit'])[:7]}{branch}{dirty}{remote}")


def _saved(checkpoint: CheckpointRecord) -> str:
    if not checkpoint.has_files:
        return "metrics only"
    archive = checkpoint.archive
    if archive is None:
        return f"{text.safe(checkpoint.path or '')}{' (not stored yet)' if checkpoint.archive_pending else ''}"
    files = text.plural(archive.files, "file")
    return f"{text.safe(checkpoint.path or '')}  {files} {text.size(archive.size_bytes)}  sha256 {archive.sha256[:7]}"


def _params(params: Mapping[str, Any], every: bool) -> Iterator[str]:
    flat = flatten(params)
    shown = list(flat.items()) if every else list(flat.items())[:PARAMS_SHOWN]
    yield from _pairs({f"  {text.safe(name)}": text.cell(value) for name, value in shown})
    if len(shown) < len(flat):
        yield f"  … {len(flat) - len(shown)} more: --all"


def _packages(packages: Mapping[str, str], every: bool) -> Iterator[str]:
    if every:
        yield from _pairs({f"  {text.safe(name)}": text.safe(version) for name, version in packages.items()})
        return
    ordered = sorted(packages.items(), key=lambda item: item[0].lower() not in TELLING_PACKAGES)
    shown = [f"{text.safe(name)} {text.safe(version)}" for name, version in ordered[:PACKAGES_SHOWN]]
    if shown:
        more = f", … {len(packages) - len(shown)} more: --all" if len(packages) > len(shown) else ""
        yield f"  {', '.join(shown)}{more}"


def _checkpoints(record: ExperimentRecord, now: datetime, width: int | None, every: bool, style: Style) -> Iterator[str]:
    shown, left_out = _some(record, every)
    if not shown:
        return
    best, metric = record.best(), record.primary_metric
    names = list(dict.fromkeys(name for checkpoint in record.checkpoints for name in checkpoint.metrics))
    names.sort(key=lambda name: metric is None or name != metric.name)
    columns = [
        Column("ID", [checkpoint.id[:SHORT_ID_LENGTH] for checkpoint in shown], 0, ["bold"] * len(shown)),
        Column("STEP", [str(checkpoint.step) for checkpoint in shown], 0, right=True),
        Column("AGE", [text.age((now - checkpoint.created).total_seconds()) for checkpoint in shown], 0, right=True),
    ]
    for index, name in enumerate(names):
        cells = [text.cut(text.cell(c.metrics[name])) if name in c.metrics else "-" for c in shown]
        if metric is not None and name == metric.name:
            cells = [cell + ("*" if c is best else "") for cell, c in zip(cells, shown, strict=True)]
        styles = ["bold green" if c is best and not index else "" for c in shown]
        columns.append(Column(text.safe(name).upper(), cells, index + 1 if index else 0, styles))
    sizes = [text.size(c.archive.size_bytes) if c.archive is not None else "-" for c in shown]
    columns.append(Column("SIZE", sizes, len(names) + 1, right=True))
    notes = [", ".join(_notes(record, checkpoint)) for checkpoint in shown]
    columns.append(Column("", notes, 0))
    table = lines(fitting(columns, width), style)
    if left_out:
        half = 1 + CHECKPOINTS_SHOWN // 2
        table.insert(half, f"  … {left_out} more: --all")
    yield from table


def _some(record: ExperimentRecord, every: bool) -> tuple[Sequence[CheckpointRecord], int]:
    """Return the first and the last checkpoints, with the best among them, and how many are left out."""
    everything = record.checkpoints
    if every or len(everything) <= CHECKPOINTS_SHOWN:
        return everything, 0
    half = CHECKPOINTS_SHOWN // 2
    shown = everything[:half] + everything[-half:]
    best = record.best()
    if best is not None and best not in shown:
        shown.insert(half, best)
    return shown, len(everything) - len(shown)


def _notes(record: ExperimentRecord, checkpoint: CheckpointRecord) -> list[str]:
    return [note for note, noted in (("best", record.best()), ("latest", record.latest())) if noted is checkpoint]


def _pairs(pairs: Mapping[str, str | None]) -> list[str]:
    """Return names and values in two columns; None leaves the line out."""
    present = {name: value for name, value in pairs.items() if value is not None}
    widest = max([text.width(name) for name in present] + [10])
    return [f"{name}{' ' * (widest - text.width(name))}  {value}" for name, value in present.items()]
