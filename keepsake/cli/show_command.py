"""``keepsake show``: everything about one experiment or checkpoint."""

from __future__ import annotations

import json

import click

from keepsake.cli.options import common_options, examples, json_option, project_of, style_of


@click.command(
    epilog=examples(
        "keepsake show 4591273", "keepsake show 4591273 --all", "keepsake show da0f8f6", "keepsake show 4591273 --json"
    )
)
@click.argument("id")
@click.option("--all", "every", is_flag=True, help="Show all params, packages and checkpoints.")
@json_option
@common_options
@click.pass_context
def show(ctx: click.Context, id: str, repository: str | None, every: bool, as_json: bool) -> None:
    """Show an experiment or a checkpoint. ID is any start of its ID that fits nothing else."""
    from keepsake.cli import json_output, terminal
    from keepsake.display.details import checkpoint_details, experiment_details
    from keepsake.repository.records import utc_now

    experiment, checkpoint = project_of(ctx, repository).experiments.find(id)
    record = experiment.record
    if as_json:
        shown = json_output.shown(record) if checkpoint is None else json_output.shown_checkpoint(record, checkpoint.record)
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False, allow_nan=False))
        return
    now, width, style = utc_now(), terminal.columns(), style_of(ctx)
    if checkpoint is None:
        page = experiment_details(record, now=now, width=width, every=every, style=style)
    else:
        page = checkpoint_details(record, checkpoint.record, now=now, width=width, every=every, style=style)
    for line in page:
        click.echo(line, color=True)
