"""What a notebook shows of experiments, checkpoints and histories: the columns and facts of ``keepsake ls`` and ``keepsake show``."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keepsake.display import details, text
from keepsake.display.experiments import ExperimentTable
from keepsake.display.facts import Fact
from keepsake.display.files import file_columns
from keepsake.display.metrics import (
    METRICS_SHOWN,
    checkpoint_columns,
    metric_columns,
    metric_names,
)
from keepsake.display.page import Facts, Page, Table
from keepsake.display.tables import STATUS_STYLES, Column, View, fitting, hidden_columns, lines, short_length
from keepsake.display.trends import TrendColumn
from keepsake.repository.json_values import utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keepsake.display.details import Annotated
    from keepsake.repository.archive import ArchivedFile
    from keepsake.repository.records import CheckpointRecord, ExperimentRecord
    from keepsake.repository.summary import Summary

ROWS_SHOWN = 30
WIDTH = 120
"""For how many characters a notebook has room beside each other."""


def _view(ids: Sequence[str] = ()) -> View:
    return View(now=utc_now(), width=WIDTH, short=short_length(ids), flags=False)


def _text_view(view: View) -> View:
    """Return how the same looks as text: as wide as the terminal, if there is one."""
    return view._replace(width=shutil.get_terminal_size((WIDTH, 1)).columns)


# --- experiments ----------------------------------------------------------------------------------------------------


def experiments_page(summaries: Sequence[Summary], courses: Sequence[Sequence[Any]]) -> Page:
    """Return experiments as a table: the last ones of a long list, their columns chosen by all of them.

    Args:
        summaries: The experiments.
        courses: For each of the last `ROWS_SHOWN` of them the values of what its trend shows, oldest first.
    """
    if not summaries:
        return Page("No experiments", text=["No experiments"])
    ids = [summary.id for summary in summaries]
    ids += [one["id"] for summary in summaries for one in (summary.best_json, summary.latest_json) if one is not None]
    view = _view(ids)
    trends: list[Sequence[Any]] = [*([()] * (len(summaries) - len(courses))), *courses]
    table, lines_table = (ExperimentTable(summaries, one, trends=trends, rows=ROWS_SHOWN) for one in (view, _text_view(view)))
    skipped = max(len(summaries) - ROWS_SHOWN, 0)
    counts, *notes = table.footer()
    heading, *rows = lines_table.lines()
    text_lines = [heading, *([f"… {skipped:,} more"] if skipped else []), *rows, "", *lines_table.footer()]
    return Page("", counts, "", [Table("", table.shown, (skipped, 0), notes)], text_lines)


def course(record: ExperimentRecord) -> list[Any]:
    """Return the values at its checkpoints of what matters most of an experiment: its primary metric, else its first one."""
    name = next(iter(metric_names(record)), None)
    return [one.metrics[name] for one in record.checkpoints if name in one.metrics] if name is not None else []


def experiment_page(
    record: ExperimentRecord, courses: Mapping[str, Sequence[Any]], annotation: Annotated | None, problem: str = ""
) -> Page:
    """Return everything about an experiment.

    Args:
        record: The experiment.
        courses: The values of each metric, oldest first.
        annotation: What people have said of it.
        problem: What could not be read, in a sentence.
    """
    view = _view([record.id, *(checkpoint.id for checkpoint in record.checkpoints)])
    aliases = annotation.aliases if annotation is not None else {}
    facts = [Fact("ID", record.id), *(details.name_facts(annotation) if annotation is not None else [])]
    facts += details.run_facts(record, view, annotation)
    if record.python_packages:
        facts.append(Fact("Packages", details.telling_packages(record.python_packages, view)))
    names = metric_names(record, courses)
    columns = metric_columns(record, names[:METRICS_SHOWN], courses, view) if names else []
    parts: list[Facts | Table] = [Facts("", facts, text.safe(problem)), *_params(record, view)]
    if columns:
        left_out = len(names) - METRICS_SHOWN
        parts.append(Table("", columns, notes=[view.more(left_out, "")] if left_out > 0 else []))
    if record.checkpoints:
        parts.append(_checkpoints(f"Checkpoints ({len(record.checkpoints)})", [record], record.checkpoints, aliases, view))
    page = details.experiment_details(record, _text_view(view), courses=courses, annotation=annotation)
    status = details.status_line(record, view)
    title = f"Experiment {record.id[: view.short]}"
    return Page(title, status, STATUS_STYLES[record.status.word], parts, [*page, *([text.safe(problem)] if problem else [])])


def _params(record: ExperimentRecord, view: View) -> list[Facts]:
    facts = details.param_facts(record)
    left_out = len(facts) - details.PARAMS_SHOWN
    cut = [replace(fact, value=text.cut(fact.value, 60)) for fact in facts[: details.PARAMS_SHOWN]]
    return [Facts(f"Params ({len(facts)})", cut, view.more(left_out, "") if left_out > 0 else "")] if facts else []


# --- checkpoints ----------------------------------------------------------------------------------------------------


def checkpoints_page(records: Sequence[ExperimentRecord], shown: Sequence[CheckpointRecord]) -> Page:
    """Return checkpoints as a table: the last ones of a long list.

    Args:
        records: The experiments that they belong to.
        shown: The checkpoints.
    """
    if not shown:
        return Page("No checkpoints", text=["No checkpoints"])
    view = _view([*(record.id for record in records), *(checkpoint.id for checkpoint in shown)])
    table, as_text = (_checkpoints("", records, shown, {}, one) for one in (view, _text_view(view)))
    heading, *rows = lines(as_text.columns)
    skipped = as_text.skipped[0]
    text_lines = [heading, *([f"… {skipped:,} more"] if skipped else []), *rows, *as_text.notes]
    whose = (
        f"of experiment {records[0].id[: view.short]}" if len(records) == 1 else f"of {text.plural(len(records), 'experiment')}"
    )
    return Page(text.plural(len(shown), "checkpoint"), whose, "", [table], text_lines)


def checkpoint_page(
    record: ExperimentRecord,
    checkpoint: CheckpointRecord,
    files: Sequence[ArchivedFile],
    annotation: Annotated | None,
    problem: str = "",
) -> Page:
    """Return everything about a checkpoint.

    Args:
        record: Its experiment.
        checkpoint: The checkpoint.
        files: What its archive holds, as far as that is known.
        annotation: What people have said of its experiment.
        problem: What could not be read, in a sentence.
    """
    view = _view([record.id, *(one.id for one in record.checkpoints)])
    facts = [Fact("ID", checkpoint.id), *details.checkpoint_facts(record, checkpoint, annotation)]
    facts.append(Fact("Experiment", f"{record.id[: view.short]}  {details.status_line(record, view)}"))
    facts += details.name_facts(annotation) if annotation is not None else []
    parts: list[Facts | Table] = [Facts("", facts, text.safe(problem))]
    metrics = details.metric_facts(record, checkpoint)
    parts += [Facts("Metrics", metrics)] if metrics else []
    entries = [file for file in files if file.kind != "directory"]
    if entries:
        left_out = len(entries) - ROWS_SHOWN
        notes = [view.more(left_out, "")] if left_out > 0 else []
        parts.append(Table(f"Files ({len(entries)})", file_columns(entries[:ROWS_SHOWN], view), notes=notes))
    parts += _params(record, view)
    page = details.checkpoint_details(record, checkpoint, _text_view(view), files=files, annotation=annotation)
    title = f"Checkpoint {checkpoint.id[: view.short]}"
    return Page(title, details.made(checkpoint, view), "", parts, [*page, *([text.safe(problem)] if problem else [])])


def _checkpoints(
    heading: str,
    records: Sequence[ExperimentRecord],
    checkpoints: Sequence[CheckpointRecord],
    aliases: Mapping[str, str],
    view: View,
) -> Table:
    """Return the last ones of these checkpoints, and before them those that stand out."""
    last = checkpoints[-ROWS_SHOWN:]
    standing_out = {best.id for record in records if (best := record.best()) is not None} | set(aliases.values())
    earlier = [one for one in checkpoints[:-ROWS_SHOWN] if one.id in standing_out] if len(checkpoints) > ROWS_SHOWN else []
    shown = [*earlier, *last][-ROWS_SHOWN - len(earlier) :]
    columns = checkpoint_columns(records, shown, aliases, view)
    fitted = fitting(columns, view.width)
    hidden = hidden_columns(columns, fitted)
    skipped = len(checkpoints) - len(shown)
    return Table(heading, fitted, (skipped, len(earlier)), [hidden] if hidden else [])


# --- history --------------------------------------------------------------------------------------------------------


def history_page(steps: int, columns: Mapping[str, Sequence[Any]]) -> Page:
    """Return a history: each metric with how many values it has, its first, last, lowest and highest one, and its course.

    Args:
        steps: How many steps there are.
        columns: The values of each metric, oldest first.
    """
    view = _view()
    names = list(columns)[:METRICS_SHOWN]
    rows = [_course_cells(columns[name]) for name in names]
    headings = ("VALUES", "FIRST", "LAST", "LOWEST", "HIGHEST")
    table: list[Column] = [Column("METRIC", [text.cut(text.safe(name)) for name in names])]
    table += [Column(heading, [row[place] for row in rows], right=True) for place, heading in enumerate(headings)]
    trend = TrendColumn.of("TREND", [columns[name] for name in names], view, (1, 0))
    table += [trend] if any(trend.cells) else []
    left_out = len(columns) - len(names)
    notes = [view.more(left_out, "")] if left_out else []
    fitted = fitting(table, _text_view(view).width)
    title = f"History of {text.plural(steps, 'step')}"
    return Page(title, "", "", [Table("", table, notes=notes)] if names else [], [title, *lines(fitted), *notes])


def _course_cells(values: Sequence[Any]) -> list[str]:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool) and value == value]
    extremes = [min(numbers), max(numbers)] if numbers else [text.NOTHING, text.NOTHING]
    return [f"{len(values):,}", *map(text.cut, text.column([values[0], values[-1], *extremes]))]
