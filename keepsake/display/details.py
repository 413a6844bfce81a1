"""Everything about one experiment or checkpoint, as lines of text."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from keepsake.display import text
from keepsake.display.facts import NAME_WIDTH, Fact, hanging, one_below_the_other, side_by_side
from keepsake.display.files import file_table
from keepsake.display.metrics import checkpoint_table, metric_name, metric_table, notes, value_style
from keepsake.display.tables import GAP, STATUS_STYLES, Column, View, fitting, lines
from keepsake.repository import history
from keepsake.values import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keepsake.repository.archive import ArchivedFile
    from keepsake.repository.records import CheckpointRecord, ExperimentRecord

PARAMS_SHOWN = 24
PACKAGES_SHOWN = 5
FILES_SHOWN = 10

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


class Annotated(Protocol):
    """What people have said of an experiment after it was recorded, as a `keepsake.repository.summary.Summary` has it."""

    @property
    def name(self) -> str:
        """Its name, "" for none."""
        ...

    @property
    def tags(self) -> Sequence[str]:
        """Its tags."""
        ...

    @property
    def notes(self) -> str:
        """A text of any length."""
        ...

    @property
    def aliases(self) -> Mapping[str, str]:
        """IDs of its checkpoints by alias."""
        ...


def experiment_details(
    record: ExperimentRecord,
    view: View,
    *,
    courses: Mapping[str, Sequence[Any]] | None = None,
    annotation: Annotated | None = None,
    options: Sequence[str] = (),
) -> list[str]:
    """Return an experiment's page.

    Args:
        record: The experiment.
        view: How it is to look; ``every`` shows all params, packages, metrics and checkpoints.
        courses: The values of each metric, oldest first; those of the checkpoints if not given.
        annotation: What people have said of it.
        options: What commands that are to be pasted need as well, such as ``["-R", "s3://acme/hotdog"]``.
    """
    aliases = annotation.aliases if annotation is not None else {}
    page = [*_title(record, view), *_head(record, view, annotation)]
    page += _params(record, view)
    page += _packages(record.python_packages, view)
    metrics = metric_table(record, courses if courses is not None else history.courses((), record.checkpoints), view)
    page += _section(view, metrics[0], metrics[1:]) if metrics else []
    page += _section(view, f"Checkpoints ({len(record.checkpoints)})", checkpoint_table(record, aliases, view))
    page += _closing(_commands(record, view) if view.flags else {}, options, view)
    return page


def checkpoint_details(
    record: ExperimentRecord,
    checkpoint: CheckpointRecord,
    view: View,
    *,
    files: Sequence[ArchivedFile] = (),
    annotation: Annotated | None = None,
    options: Sequence[str] = (),
) -> list[str]:
    """Return a checkpoint's page: its own facts and files, then its experiment's head.

    Args:
        record: The checkpoint's experiment.
        checkpoint: The checkpoint.
        view: How it is to look; ``every`` shows all files and params.
        files: What its archive holds, as far as that is known.
        annotation: What people have said of its experiment.
        options: See `experiment_details`.
    """
    short = checkpoint.id[: view.short]
    page = _checkpoint_head(record, checkpoint, view, annotation)
    page += _section(view, "Metrics", one_below_the_other(_indented(metric_facts(record, checkpoint)), view))
    page += _section(view, "Files", _files(files, view))
    page += ["", *_title(record, view), *_head(record, view, annotation)]
    page += _params(record, view)
    commands = {f"keepsake checkout {short} -o out/": "get code and these files"} if checkpoint.has_files and view.flags else {}
    page += _closing(commands, options, view)
    return page


# --- head -----------------------------------------------------------------------------------------------------------


def _title(record: ExperimentRecord, view: View) -> list[str]:
    short = record.id[: view.short]
    first, *further = hanging(f"Experiment {short}  ", status_line(record, view), view, STATUS_STYLES[record.status.word])
    return [first.replace(short, view.style(short, "bold"), 1), *further]


def status_line(record: ExperimentRecord, view: View) -> str:
    """Return the status with its reason, such as ``stopped (finished) 12m ago``, and whether something is not uploaded yet."""
    return _status(record, view) + (f"  {text.NOT_UPLOADED}" if not record.is_uploaded else "")


def _status(record: ExperimentRecord, view: View) -> str:
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


def _head(record: ExperimentRecord, view: View, annotation: Annotated | None) -> list[str]:
    return [
        *one_below_the_other([Fact("ID", _id(record.id, view))], view),
        *(_names(annotation, view) if annotation is not None else []),
        *one_below_the_other(run_facts(record, view, annotation), view),
    ]


def run_facts(record: ExperimentRecord, view: View, annotation: Annotated | None) -> list[Fact]:
    """Return when, how and where an experiment ran, what was saved of it, and the notes on it."""
    facts = {
        "Ran": _ran(record, view),
        "Resumed": _resumed(record),
        "Command": text.safe(record.command),
        "Where": _where(record),
        "Variables": _variables(record),
        "Git": _git(record.git or {}),
        "Saved": "; ".join(filter(None, (_saved_code(record), _saved_checkpoints(record)))),
    }
    if annotation is not None and annotation.notes.strip():
        facts["Notes"] = "\n".join(text.safe(line) for line in annotation.notes.strip().splitlines())
    return [Fact(name, value) for name, value in facts.items() if value]


def _id(id: str, view: View) -> str:
    room = view.width - NAME_WIDTH - len(GAP) if view.width is not None else len(id)
    if len(id) <= room:
        return id
    full = "  (full: --json)"
    return text.cut(id, max(room - len(full), text.MAX_CELL)) + full


def _names(annotation: Annotated, view: View) -> list[str]:
    """Return name, tags and aliases: side by side where there is room, else one below the other."""
    facts = name_facts(annotation)
    if not facts:
        return []
    start = one_below_the_other(facts[:1], view)
    line = (GAP * 2).join([*start, *(f"{fact.name}{GAP}{fact.value}" for fact in facts[1:])])
    if len(start) == 1 and (view.width is None or text.width(line) <= view.width):
        return [line]
    return one_below_the_other(facts, view)


def name_facts(annotation: Annotated) -> list[Fact]:
    """Return the name, the tags and the aliases that an experiment has been given."""
    said = {
        "Name": text.safe(annotation.name),
        "Tags": ", ".join(map(text.safe, annotation.tags)),
        "Aliases": ", ".join(f"@{text.safe(alias)}" for alias in annotation.aliases),
    }
    return [Fact(name, value) for name, value in said.items() if value]


def _ran(record: ExperimentRecord, view: View) -> str:
    ran = text.local(record.created)
    if record.ended is not None:
        return f"{ran} for {text.span((record.ended - record.created).total_seconds())}"
    if record.status.word == "running":
        return f"{ran}, for {text.span((view.now - record.created).total_seconds())} so far"
    return ran


def _resumed(record: ExperimentRecord) -> str:
    if not record.resumed:
        return ""
    last = text.local(max(record.resumed))
    return last if len(record.resumed) == 1 else f"{len(record.resumed)} times, last {last}"


def _where(record: ExperimentRecord) -> str:
    system = record.system or {}
    parts = [
        f"{record.user}@{record.host}" if record.host else record.user,
        *_gpus(system.get("gpus")),
        f"Python {record.python_version}" if record.python_version else "",
        str(system.get("os") or ""),
    ]
    return text.safe(", ".join(part for part in parts if part))


def _variables(record: ExperimentRecord) -> str:
    """Return the environment variables that were recorded."""
    recorded = (record.system or {}).get("env")
    return text.safe(", ".join(f"{name}={value}" for name, value in recorded.items())) if isinstance(recorded, dict) else ""


def _gpus(recorded: Any) -> list[str]:
    """Return what there is of GPUs, equal ones together, such as ``8x H200 151 GB``, and their driver."""
    gpus = [gpu for gpu in recorded if isinstance(gpu, dict)] if isinstance(recorded, list) else []
    kinds = Counter((str(gpu.get("name") or "GPU"), _memory(gpu)) for gpu in gpus)
    drivers = dict.fromkeys(str(gpu["driver"]) for gpu in gpus if gpu.get("driver"))
    return [*(f"{count}x {name}{memory}" for (name, memory), count in kinds.items()), *(f"driver {one}" for one in drivers)]


def _memory(gpu: Mapping[str, Any]) -> str:
    size_bytes = gpu.get("memory_bytes")
    return f" {text.size(size_bytes)}" if isinstance(size_bytes, int) and size_bytes > 0 else ""


def _git(git: Mapping[str, Any]) -> str:
    if not git.get("commit"):
        return ""
    branch = f" on {git['branch']}" if git.get("branch") else ""
    remote = f", {git['remote']}" if git.get("remote") else ""
    return text.safe(f"{str(git['commit'])[:7]}{branch}{_changes(git)}{remote}")


def _changes(git: Mapping[str, Any]) -> str:
    modified = git.get("modified")
    if isinstance(modified, int) and modified > 0:
        return f", {text.plural(modified, 'file')} modified"
    return ", with changes that are not committed" if git.get("dirty") else ""


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


def _checkpoint_head(
    record: ExperimentRecord, checkpoint: CheckpointRecord, view: View, annotation: Annotated | None
) -> list[str]:
    facts = checkpoint_facts(record, checkpoint, annotation)
    return [
        f"Checkpoint {view.style(checkpoint.id[: view.short], 'bold')}  {made(checkpoint, view)}",
        *one_below_the_other([Fact("ID", _id(checkpoint.id, view)), *facts], view),
    ]


def made(checkpoint: CheckpointRecord, view: View) -> str:
    """Return the step of a checkpoint and how long ago it was made."""
    return f"step {checkpoint.step}, {text.age((view.now - checkpoint.created).total_seconds())} ago"


def checkpoint_facts(record: ExperimentRecord, checkpoint: CheckpointRecord, annotation: Annotated | None) -> list[Fact]:
    """Return a checkpoint's aliases, when it was made, what makes it stand out, and what was saved."""
    noted = notes(record, annotation.aliases if annotation is not None else {}).get(checkpoint.id, [])
    places = [note for note in noted if not note.startswith("@")]
    aliases = [note for note in noted if note.startswith("@")]
    facts = {
        "Aliases": ", ".join(aliases),
        "Made": text.local(checkpoint.created),
        "Place": f"{' and '.join(places)} of its experiment" if places else "",
        "Saved": _saved(checkpoint),
    }
    return [Fact(name, value) for name, value in facts.items() if value]


def _saved(checkpoint: CheckpointRecord) -> str:
    if not checkpoint.has_files:
        return "metrics only"
    path, archive = text.safe(checkpoint.path or ""), checkpoint.archive
    if archive is None:
        return f"{path}{' (not stored yet)' if checkpoint.archive_pending else ''}"
    return f"{path}  {text.plural(archive.files, 'file')} {text.size(archive.size_bytes)}"


# --- sections -------------------------------------------------------------------------------------------------------


def _section(view: View, heading: str, body: Sequence[str]) -> list[str]:
    return ["", view.style(heading, "bold"), *body] if body else []


def _counted(heading: str, count: int) -> str:
    return f"{heading:<{NAME_WIDTH}}{GAP}{count}"


def _params(record: ExperimentRecord, view: View) -> list[str]:
    facts = param_facts(record)
    shown = facts[:PARAMS_SHOWN] if view.is_short else facts
    more = len(facts) - len(shown)
    body = [*side_by_side(_indented(shown), view), *([f"  {view.more(more, '--all')}"] if more else [])]
    return _section(view, _counted("Params", len(facts)), body)


def param_facts(record: ExperimentRecord) -> list[Fact]:
    """Return the params, nested ones with dotted names."""
    return _value_facts(flatten(record.params))


def metric_facts(record: ExperimentRecord, checkpoint: CheckpointRecord) -> list[Fact]:
    """Return the metrics of a checkpoint of an experiment."""
    return _value_facts({metric_name(record, name): value for name, value in checkpoint.metrics.items()})


def _value_facts(values: Mapping[str, Any]) -> list[Fact]:
    return [Fact(text.safe(name), text.cell(value), value_style(value)) for name, value in values.items()]


def _indented(facts: Sequence[Fact]) -> list[Fact]:
    return [replace(fact, name=f"  {fact.name}") for fact in facts]


def _packages(packages: Mapping[str, str], view: View) -> list[str]:
    if not view.is_short:
        facts = [Fact(f"  {text.safe(name)}", text.safe(version)) for name, version in packages.items()]
        return _section(view, _counted("Packages", len(facts)), side_by_side(facts, view))
    if not packages:
        return []
    first, *further = one_below_the_other([Fact("Packages", telling_packages(packages, view))], view)
    return ["", first.replace("Packages", view.style("Packages", "bold"), 1), *further]


def telling_packages(packages: Mapping[str, str], view: View) -> str:
    """Return those packages that tell most, in one line."""
    ordered = sorted(packages.items(), key=lambda item: item[0].lower() not in TELLING_PACKAGES)
    shown = [f"{text.safe(name)} {text.safe(version)}" for name, version in ordered[:PACKAGES_SHOWN]]
    more = [view.more(len(packages) - len(shown), "--all")] if len(packages) > len(shown) else []
    return ", ".join([*shown, *more])


def _files(files: Sequence[ArchivedFile], view: View) -> list[str]:
    entries = [file for file in files if file.kind != "directory"]
    shown = entries[:FILES_SHOWN] if view.is_short else entries
    more = len(entries) - len(shown)
    return [*file_table(shown, view), *([view.more(more, "--files")] if more else [])] if entries else []


# --- end ------------------------------------------------------------------------------------------------------------


def _commands(record: ExperimentRecord, view: View) -> dict[str, str]:
    """Return commands that are likely to be wanted next, with what they do."""
    short = record.id[: view.short]
    chosen = record.best() or record.latest()
    which = "best" if record.best() is not None else "latest"
    saved = [
        *(["code"] if record.path is not None else []),
        *([f"{which} weights"] if chosen is not None and chosen.has_files else []),
    ]
    commands = {f"keepsake checkout {short} -o out/": f"get {' and '.join(saved)}"} if saved else {}
    if record.path is not None:
        commands[f"keepsake diff {short} ."] = "compare with your working directory"
    return commands


def _closing(commands: Mapping[str, str], options: Sequence[str], view: View) -> list[str]:
    """Return commands that can be pasted, each with what it does where there is room for that."""
    if not commands:
        return []
    given = "".join(f" {text.safe(shlex.quote(option))}" for option in options)
    columns = [
        Column("", [f"{command}{given}" for command in commands]),
        Column("", [f"    {does}" for does in commands.values()], (1, 0)),
    ]
    return ["", *lines(fitting(columns, view.width), view.style, headings=False)]
