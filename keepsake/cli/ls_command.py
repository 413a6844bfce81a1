"""``keepsake ls``: the experiments of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepsake.cli.options import (
    common_options,
    examples,
    json_option,
    options,
    project_of,
    records_of,
    require_repository,
    short_length_among,
    view_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.display.experiments import ExperimentTable
    from keepsake.project import Project
    from keepsake.query.filters import Filter
    from keepsake.repository.summary import Summary

list_options = options(
    click.option(
        "-f", "--filter", "filters", multiple=True, metavar="EXPR", help='Only those where "name op value"; repeat for AND.'
    ),
    click.option("-s", "--sort", "sort_key", default="created", metavar="KEY", help="Sort by a name; -KEY or KEY-desc reverses."),
    click.option("--all", "every", is_flag=True, help="Show all params and metrics, not only those that differ."),
    json_option,
    click.option("-q", "--quiet", is_flag=True, help="Print IDs only."),
    common_options,
)
"""Options of ``ls`` and ``ps``."""


@click.command(
    epilog=examples(
        "keepsake ls",
        'keepsake ls -f "val_loss < 0.2" -f "optimizer = adam"',
        "keepsake ls -s -val_loss",
        "keepsake ls --json | jq '.[].params'",
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
    list_experiments(ctx, repository, **options)


def list_experiments(
    ctx: click.Context,
    repository: str | None,
    *,
    filters: Sequence[str],
    sort_key: str,
    every: bool,
    as_json: bool,
    quiet: bool,
    running: bool = False,
) -> None:
    """Do what ``ls`` and ``ps`` do.

    Args:
        ctx: The command's context.
        repository: What ``--repository`` says.
        filters: What each ``--filter`` says.
        sort_key: What ``--sort`` says.
        every: Whether to show columns that are equal in all experiments.
        as_json: Whether to print JSON.
        quiet: Whether to print IDs only.
        running: Whether to show running experiments only, with the columns that matter there.
    """
    from keepsake.display.experiments import ExperimentTable
    from keepsake.query.filters import parse, select
    from keepsake.query.sorting import sort, sort_keys
    from keepsake.repository.summary import Summary

    project = project_of(ctx, repository)
    conditions = [parse(text) for text in filters]
    everything = records_of(project)
    if not everything and repository is not None:
        require_repository(project)
    records = {record.id: record for record in everything}
    summaries = [Summary.of(record) for record in everything]
    selected = [records[summary.id] for summary in select(sort(summaries, sort_key), conditions)]
    if running:
        selected = [record for record in selected if record.status.word == "running"]
    if as_json:
        from keepsake.cli import json_output

        click.echo(json_output.dumps([json_output.listed(record) for record in selected]))
    elif quiet:
        for record in selected:
            click.echo(record.id)
    elif selected:
        mentioned = [name for condition in conditions for name in condition.names()]
        mentioned += [key.name for key in sort_keys(sort_key, summaries)]
        view = view_of(ctx, everything, every=every)
        _print_table(ExperimentTable(selected, view, mentioned=mentioned, running=running))
    else:
        click.echo(
            _why_empty(summaries, conditions, project, running=running, short_length=short_length_among(everything)), err=True
        )


def _print_table(table: ExperimentTable) -> None:
    from keepsake.cli import terminal

    for line in table.lines():
        click.echo(line, color=True)
    if terminal.is_terminal():
        terminal.print_lines("", *table.footer())


def _why_empty(everything: list[Summary], conditions: list[Filter], project: Project, *, running: bool, short_length: int) -> str:
    from keepsake.display import text
    from keepsake.query.filters import nearest

    where = text.safe(project.repository_at_hand().label)
    if not everything:
        return f"No experiments in {where} yet."
    if not conditions:
        return f"No experiments are running ({text.plural(len(everything), 'experiment')} in {where})."
    said = f"No {'running ' if running else ''}experiments match {' and '.join(text.safe(one.text) for one in conditions)}"
    near = nearest(everything, conditions) if not running else None
    if near is None:
        return f"{said}."
    kind, value, summary = near
    return f"{said} ({kind} is {text.number(value)}, {summary.id[:short_length]})."
