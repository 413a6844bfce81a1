"""``keepsake ls``: the experiments of a repository."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from keepsake.cli.options import common_options, examples, json_option, project_of, style_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keepsake.query.filters import Filter
    from keepsake.repository.records import ExperimentRecord


def list_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that ``ls`` and ``ps`` share."""
    for option in (
        click.option(
            "-f", "--filter", "filters", multiple=True, metavar="EXPR", help='Only those where "name op value"; repeat for AND.'
        ),
        click.option(
            "-s", "--sort", "sort_key", default="created", metavar="KEY", help="Sort by a name; -KEY or KEY-desc reverses."
        ),
        click.option("--all", "every", is_flag=True, help="Show all params and metrics, not only those that differ."),
        json_option,
        click.option("-q", "--quiet", is_flag=True, help="Print IDs only."),
    ):
        function = option(function)
    return common_options(function)


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

    Params are shown where they differ. The primary metric is that of the best checkpoint; * marks the best of the listed ones.
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
    from keepsake.query import filters as query

    project = project_of(ctx, repository)
    conditions = [query.parse_filter(text) for text in filters]
    everything = [experiment.record for experiment in project.experiments.list()]
    selected = query.sort(query.select(everything, conditions), sort_key)
    if running:
        selected = [record for record in selected if record.status.word == "running"]
    if as_json:
        from keepsake.cli.json_output import listed

        click.echo(json.dumps([listed(record) for record in selected], indent=2, ensure_ascii=False, allow_nan=False))
    elif quiet:
        for record in selected:
            click.echo(record.id)
    elif selected:
        _print_table(ctx, selected, everything, [condition.name for condition in conditions] + [sort_key], every, running)
    else:
        click.echo(_nothing(everything, conditions, project.repository_url, running), err=True)


def _print_table(
    ctx: click.Context,
    selected: list[ExperimentRecord],
    everything: list[ExperimentRecord],
    mentioned: list[str],
    every: bool,
    running: bool,
) -> None:
    from keepsake.cli import terminal
    from keepsake.display.experiments import Layout, experiment_table, footer, short_length
    from keepsake.repository.records import utc_now

    layout = Layout(width=terminal.columns(), now=utc_now(), every=every, running=running)
    mentioned = [name.removeprefix("-").removesuffix("-desc") for name in mentioned]
    ids = [id for record in everything for id in (record.id, *(checkpoint.id for checkpoint in record.checkpoints))]
    table = experiment_table(selected, layout, mentioned=mentioned, short=short_length(ids), style=style_of(ctx))
    for line in table:
        click.echo(line, color=True)
    if terminal.is_terminal():
        click.echo(err=True)
        for line in footer(selected, layout, mentioned):
            click.echo(line, err=True)


def _nothing(everything: list[ExperimentRecord], conditions: list[Filter], repository: str, running: bool) -> str:
    """Say why the list is empty."""
    if not everything:
        return f"No experiments in {repository} yet."
    if not conditions:
        return f"No experiments are running (of {len(everything)} in {repository})." if running else "No experiments."
    said = " and ".join(condition.text for condition in conditions)
    return f"No {'running ' if running else ''}experiments match {said}{_nearest(everything, conditions)}."


def _nearest(everything: list[ExperimentRecord], conditions: list[Filter]) -> str:
    """Say how near the best experiment comes to a numeric condition."""
    from keepsake.display import text
    from keepsake.query.filters import value_of
    from keepsake.repository.records import is_comparable

    if len(conditions) != 1 or conditions[0].operator.strip("=") not in ("<", ">"):
        return ""
    [condition] = conditions
    values = [(value_of(record, condition.name), record) for record in everything]
    numbers = [(value, record) for value, record in values if is_comparable(value)]
    if not numbers:
        return ""
    pick = min if condition.operator.startswith("<") else max
    value, record = pick(numbers, key=lambda pair: pair[0])
    return f" (best is {text.number(value)}, {record.id[:7]})"
