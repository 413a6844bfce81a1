"""Experiments as the JSON that commands print: every key of keepsake 0.4.2, and ours after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepsake.query.listed_json import status
from keepsake.repository import fast_json
from keepsake.repository.json_values import encode_value, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.display.details import Annotated
    from keepsake.query.compare import Comparison, MetricPair, Pair, Side
    from keepsake.query.saved import TreeComparison
    from keepsake.query.trees import TreeFile
    from keepsake.repository.archive import ArchivedFile
    from keepsake.repository.records import CheckpointRecord, ExperimentRecord


def dumps(value: object) -> str:
    """Return the text of a JSON document: no bare NaN, which other programs refuse, and nothing that steers a terminal."""
    return fast_json.harmless(fast_json.dumps(value, indented=True))


def line(value: object) -> str:
    """Return the text of a JSON document on one line."""
    return fast_json.harmless(fast_json.dumps(value))


def on_one_line(text: str) -> str:
    """Return a JSON document without its indents."""
    return line(fast_json.loads(text.encode()))


def shown(record: ExperimentRecord, annotation: Annotated | None = None) -> dict[str, Any]:
    """Return what ``show --json`` prints of an experiment: the whole record, what follows from it, and what people said of it later."""
    best, latest = record.best(), record.latest()
    return {
        **record.to_json(),
        **status(record),
        "best_checkpoint": best.id if best is not None else None,
        "latest_checkpoint": latest.id if latest is not None else None,
        "name": annotation.name if annotation is not None else "",
        "tags": list(annotation.tags) if annotation is not None else [],
        "notes": annotation.notes if annotation is not None else "",
        "aliases": dict(annotation.aliases) if annotation is not None else {},
    }


def shown_checkpoint(
    record: ExperimentRecord, checkpoint: CheckpointRecord, annotation: Annotated | None = None
) -> dict[str, Any]:
    """Return what ``show --json`` prints of a checkpoint."""
    experiment = {key: value for key, value in shown(record, annotation).items() if key != "checkpoints"}
    aliases = [alias for alias, checkpoint_id in experiment["aliases"].items() if checkpoint_id == checkpoint.id]
    return {**checkpoint.to_json(), "aliases": aliases, "experiment": experiment}


def archived_file(file: ArchivedFile) -> dict[str, Any]:
    """Return what ``show --files --json`` prints of a file."""
    return {
        "path": file.path,
        "kind": file.kind,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "link_target": file.link_target,
        "modified": format_time(file.modified),
    }


def compared(comparison: Comparison) -> dict[str, Any]:
    """Return what ``diff --json`` prints of two sides: the sections that were asked for, null where a side cannot have one."""
    params, metrics, environment = comparison.params, comparison.metrics, comparison.environment
    sections = {
        "params": {pair.name: _pair(pair) for pair in params if pair.differs} if params is not None else None,
        "metrics": {pair.name: _metric(pair) for pair in metrics} if metrics is not None else None,
        "env": {pair.name: _pair(pair) for pair in environment if pair.differs} if environment is not None else None,
        "code": _tree(comparison.code) if comparison.code is not None else None,
        "files": _tree(comparison.files) if comparison.files is not None else None,
    }
    shown = {("environment" if name == "env" else name): sections[name] for name in sections if name in comparison.sections}
    return {"left": _side(comparison.left), "right": _side(comparison.right), **shown}


def compared_with_first(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return what ``diff --json`` prints of more than two sides: each of the others as it is compared with the first."""
    others = [compared(comparison) for comparison in comparisons]
    sides = [others[0]["left"], *(other["right"] for other in others)]
    return {"sides": sides, "compared_with_first": [{key: other[key] for key in other if key != "left"} for other in others]}


def _side(side: Side) -> dict[str, str | None]:
    return {
        "experiment": side.experiment.id if side.experiment is not None else None,
        "checkpoint": side.checkpoint.id if side.checkpoint is not None else None,
    }


def _pair(pair: Pair) -> dict[str, Any]:
    sides = {"left": (pair.left, pair.in_left), "right": (pair.right, pair.in_right)}
    return {name: encode_value(value) for name, (value, present) in sides.items() if present}


def _metric(pair: MetricPair) -> dict[str, Any]:
    return {**_pair(pair), "goal": pair.goal, "delta": pair.delta, "better": pair.better}


def _tree(tree: TreeComparison) -> dict[str, Any]:
    """Return what differs between two trees of files: all that do, and why a side has none, if it has none."""
    lines = {change.pair: change.edit for change in tree.changes}
    files = []
    for pair in tree.differing:
        edit = lines.get(pair)
        counted = {"added": edit.added, "deleted": edit.deleted} if edit is not None else {}
        sides = {"left": pair.left, "right": pair.right}
        described = {side: _file(file) for side, file in sides.items() if file is not None}
        files.append({"path": pair.path, "status": pair.status, **counted, **described})
    absent = {side: reason for side, reason in zip(("left", "right"), tree.absent, strict=True) if reason}
    return {"files": files, "same": len(tree.pairs) - len(files)} | ({"absent": absent} if absent else {})


def _file(file: TreeFile) -> dict[str, Any]:
    kind = "link" if file.is_link else "file"
    return {"kind": kind, "size_bytes": file.size_bytes, "sha256": file.sha256, "executable": file.is_executable}
