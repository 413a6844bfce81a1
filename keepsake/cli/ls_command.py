"""``keepsake ls``: the experiments of a repository."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from keepsake.cli.options import cache_option, common_options, examples, options, project_of, require_repository
from keepsake.cli.paging import page, pager_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.display.experiments import ExperimentTable
    from keepsake.project import Project
    from keepsake.query.filters import Filter
    from keepsake.query.index import Index, Part
    from keepsake.repository.summary import Summary

FORMATS = ("table", "json", "jsonl", "csv", "tsv", "md", "ids")

WATCH_INTERVAL_S = 2.0

_kept: list[_Found] = []
"""What was listed last: to free so many objects takes a tenth of the time of a listing, and the process ends anyway."""

list_options = options(
    click.option("-f", "--filter", "filters", multiple=True, metavar="EXPR", help="Only those that fulfil it; repeat for AND."),
    click.option(
        "-s",
        "--sort",
        "sort_keys",
        multiple=True,
        metavar="KEY",
        help="Sort by a name; -KEY or KEY-desc reverses; repeat for what decides between equals. [default: created]",
    ),
    click.option(
        "-n",
        "--limit",
        type=click.IntRange(min=0),
        metavar="N",
        help="Show the last N of them; 0 for all. [default: 50 on a terminal]",
    ),
    click.option(
        "-c",
        "--columns",
        multiple=True,
        metavar="NAMES",
        help="These columns; +NAME adds one, -NAME removes one; metrics.* works.",
    ),
    click.option("--all", "every", is_flag=True, help="Show all params and metrics, not only those that differ."),
    click.option("--wide", is_flag=True, help="Show all columns, however wide the terminal is."),
    click.option("--format", "form", type=click.Choice(FORMATS), help="How to print them. [default: table]"),
    click.option("--json", "form", flag_value="json", help="The same as --format json."),
    click.option("-q", "--quiet", "form", flag_value="ids", help="Print IDs only: --format ids."),
    click.option("--names", is_flag=True, help="List what there is to filter, sort and choose columns by, instead."),
    click.option("--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C."),
    cache_option,
    pager_option,
    common_options,
)
"""Options of ``ls`` and ``ps``."""


@click.command(
    epilog=examples(
        "keepsake ls",
        'keepsake ls -f "val_loss < 0.2 and optimizer = adam" -s -val_loss',
        "keepsake ls -c val_loss,lr,user",
        "keepsake ls --format csv > experiments.csv",
        'keepsake rm $(keepsake ls -q -f "val_accuracy < 0.2")',
    )
)
@list_options
@click.pass_context
def ls(ctx: click.Context, /, repository: str | None, **options: Any) -> None:
    """List experiments, oldest first.

    Params and metrics are shown where they differ. Metrics are those of the best checkpoint; * marks the best of the listed
    experiments. keepsake help filters explains -f and -s.
    """
    list_experiments(ctx, repository, Options(**options))


class Options(NamedTuple):
    """What the options of ``ls`` and ``ps`` say; see `list_options`."""

    filters: Sequence[str]
    sort_keys: Sequence[str]
    limit: int | None
    columns: Sequence[str]
    every: bool
    wide: bool
    form: str | None
    names: bool
    watch: bool
    pager: bool
    running: bool = False

    @property
    def chooses(self) -> bool:
        """Whether it takes more than the number of experiments to tell which are listed."""
        return bool(self.filters or self.sort_keys or self.running)


def list_experiments(ctx: click.Context, repository: str | None, wanted: Options) -> None:
    """Do what ``ls`` and ``ps`` do."""
    if wanted.names and (wanted.form or wanted.watch):
        raise click.UsageError("--names goes with neither --format nor --watch", ctx)
    if wanted.watch and wanted.pager:
        raise click.UsageError("--watch goes without --pager", ctx)
    project = project_of(ctx, repository)
    if not wanted.watch:
        page(ctx, wanted=wanted.pager)
        _list_once(ctx, project, wanted, is_named=repository is not None)
        return
    from keepsake.cli import terminal

    if not terminal.is_terminal() or wanted.form not in (None, "table"):
        raise click.UsageError("--watch shows a table on a terminal", ctx)
    terminal.repeat(lambda: _list_once(ctx, project, wanted, is_named=repository is not None), WATCH_INTERVAL_S)


def _list_once(ctx: click.Context, project: Project, wanted: Options, *, is_named: bool) -> None:
    index = project.index()
    index.forget()
    form = wanted.form or "table"
    if form in ("json", "jsonl") and not wanted.chooses and not wanted.names:
        # All that is printed is at hand as text.
        texts = index.listed_json(_limit(project, wanted))
        if not texts and is_named:
            require_repository(project)
        _print_json(texts, by_line=form == "jsonl")
        return
    found = _Found.of(index, project, wanted)
    _kept[:] = [found]
    if not found.total and is_named:
        require_repository(project)
    if wanted.names:
        from keepsake.display.name_list import name_lines
        from keepsake.query.names import FIELDS

        for line in name_lines(found.summaries, FIELDS):
            click.echo(line)
    elif form in ("json", "jsonl"):
        _print_json(index.listed_json_of(found.summaries), by_line=form == "jsonl")
    elif form == "ids":
        for summary in found.summaries:
            click.echo(summary.id)
    elif found.summaries:
        _print_table(_table(ctx, project, index, found, wanted), form)
    elif form == "table":
        click.echo(_why_empty(index, found, project, wanted), err=True)


class _Found(NamedTuple):
    """Which experiments are to be shown.

    Args:
        summaries: These, in their order.
        filters: What they were chosen by.
        mentioned: The names that they were chosen and sorted by.
        total: How many there would be without a limit; all experiments where there is no filter.
    """

    summaries: list[Summary]
    filters: list[Filter]
    mentioned: list[str]
    total: int

    @classmethod
    def of(cls, index: Index, project: Project, wanted: Options) -> _Found:
        limit = _limit(project, wanted)
        part: Part | None = "ranges" if wanted.names else None
        if not wanted.chooses:
            # The usual case needs only the newest, which are the last.
            return cls(index.summaries(limit, part), [], ["created"], index.count())
        from keepsake.query.filters import parse, select

        filters = [parse(text) for text in wanted.filters]
        everything = index.summaries(part=part)
        found = select(everything, filters)
        if wanted.running:
            found = [summary for summary in found if summary.status.word == "running"]
        mentioned = [name for one in filters for name in one.names()]
        if wanted.sort_keys:
            from keepsake.query.sorting import sort, sort_keys

            keys = sort_keys(list(wanted.sort_keys), everything)
            mentioned += [key.name for key in keys]
            found = sort(found, list(wanted.sort_keys), among=everything)
        return cls(
            found[len(found) - limit :] if limit is not None and limit < len(found) else found, filters, mentioned, len(found)
        )


def _limit(project: Project, wanted: Options) -> int | None:
    """Return how many experiments may be shown; None for any number."""
    from keepsake.cli import terminal

    if wanted.limit is not None:
        return wanted.limit or None
    if wanted.filters or wanted.form not in (None, "table") or not terminal.is_terminal():
        return None
    return project.settings().get("ls.limit").value or None


# --- printing -------------------------------------------------------------------------------------------------------


def _print_json(texts: Sequence[str], *, by_line: bool) -> None:
    if by_line:
        from keepsake.cli import json_output

        for text in texts:
            click.echo(json_output.on_one_line(text))
    elif texts:
        click.echo("\n".join(["[", ",\n".join([f"  {text}" for text in texts]), "]"]))
    else:
        click.echo("[]")


def _table(ctx: click.Context, project: Project, index: Index, found: _Found, wanted: Options) -> ExperimentTable:
    from keepsake.cli.options import view
    from keepsake.display.experiments import Choice, ExperimentTable

    return ExperimentTable(
        found.summaries,
        view(ctx, short=index.short_length(), every=wanted.every, fits=not wanted.wide),
        mentioned=found.mentioned,
        running=wanted.running,
        choice=Choice.parse(wanted.columns or project.settings().get("ls.columns").value),
        counts=(found.total, index.running()) if found.total > len(found.summaries) else None,
    )


def _print_table(table: ExperimentTable, form: str) -> None:
    from keepsake.cli import terminal

    if form in ("csv", "tsv"):
        import csv

        csv.writer(sys.stdout, dialect="excel-tab" if form == "tsv" else "excel", lineterminator="\n").writerows(table.values())
    elif form == "md":
        from keepsake.display import markdown

        for line in markdown.table(table.rows()):
            click.echo(line)
    else:
        click.echo("\n".join(table.lines()), color=True)
        if terminal.is_terminal():
            terminal.print_lines("", *table.footer())


def _why_empty(index: Index, found: _Found, project: Project, wanted: Options) -> str:
    from keepsake.display import text
    from keepsake.query.filters import nearest

    where = text.safe(project.repository_at_hand().label)
    everything = index.summaries()
    if not everything:
        return f"No experiments in {where} yet."
    if not found.filters:
        return f"No experiments are running ({text.plural(len(everything), 'experiment')} in {where})."
    said = (
        f"No {'running ' if wanted.running else ''}experiments match {' and '.join(text.safe(one.text) for one in found.filters)}"
    )
    near = nearest(everything, found.filters) if not wanted.running else None
    if near is None:
        return f"{said}."
    kind, value, summary = near
    return f"{said} ({kind} is {text.number(value)}, {summary.id[: index.short_length()]})."
