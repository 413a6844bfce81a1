"""``keepsake show``: everything about one experiment or checkpoint."""

from __future__ import annotations

import click

from keepsake.cli.options import common_options, examples, json_option, options, project_of, records_of, view_of


@click.command(
    epilog=examples(
        "keepsake show 4591273", "keepsake show 4591273 --all", "keepsake show da0f8f6", "keepsake show 4591273 --json"
    )
)
@click.argument("id")
@options(
    click.option("--all", "every", is_flag=True, help="Show all params, packages, metrics and checkpoints."),
    json_option,
    common_options,
)
@click.pass_context
def show(ctx: click.Context, id: str, repository: str | None, every: bool, as_json: bool) -> None:
    """Show an experiment or a checkpoint. ID is any start of its ID that fits nothing else."""
    from keepsake.cli import json_output
    from keepsake.display.details import checkpoint_details, experiment_details

    project = project_of(ctx, repository)
    experiment, checkpoint = project.experiments.find(id)
    record = experiment.record
    if as_json:
        shown = json_output.shown(record) if checkpoint is None else json_output.shown_checkpoint(record, checkpoint.record)
        click.echo(json_output.dumps(shown))
        return
    view = view_of(ctx, records_of(project), every=every)
    page = experiment_details(record, view) if checkpoint is None else checkpoint_details(record, checkpoint.record, view)
    for line in page:
        click.echo(line, color=True)
