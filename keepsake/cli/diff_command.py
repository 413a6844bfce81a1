"""``keepsake diff``: what differs between two experiments or checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keepsake.cli.options import common_options, examples, json_option, options, project_of, records_of, view_of

if TYPE_CHECKING:
    from keepsake.project import Project
    from keepsake.query.compare import Side


@click.command(
    epilog=examples(
        "keepsake diff eb96def 4591273",
        "keepsake diff fe6a313 da0f8f6                # two checkpoints, also of one experiment",
        "keepsake diff eb96def 4591273 --json",
        "keepsake diff eb96def 4591273 --exit-code && echo same",
    )
)
@click.argument("left", metavar="ID")
@click.argument("right", metavar="ID")
@options(
    json_option,
    click.option("--exit-code", "use_exit_code", is_flag=True, help="Exit with 1 if anything differs."),
    common_options,
)
@click.pass_context
def diff(ctx: click.Context, left: str, right: str, repository: str | None, as_json: bool, use_exit_code: bool) -> None:
    """Compare params, metrics and packages of two experiments or checkpoints.

    Of an experiment the best checkpoint's metrics are compared, else the latest's.
    """
    from keepsake.cli import json_output
    from keepsake.display.comparison import comparison_lines
    from keepsake.query.compare import compare

    project = project_of(ctx, repository)
    comparison = compare(_side(project, left), _side(project, right))
    if as_json:
        click.echo(json_output.dumps(json_output.compared(comparison)))
    else:
        for line in comparison_lines(comparison, view_of(ctx, records_of(project))):
            click.echo(line, color=True)
    if use_exit_code and comparison.differs:
        ctx.exit(1)


def _side(project: Project, id: str) -> Side:
    from keepsake.query.compare import Side
    from keepsake.query.names import shown_checkpoint

    experiment, checkpoint = project.experiments.find(id)
    return Side(experiment.record, checkpoint.record if checkpoint is not None else shown_checkpoint(experiment.record))
