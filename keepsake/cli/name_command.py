"""``keepsake name``: what people call an experiment."""

from __future__ import annotations

import click

from keepsake.cli.options import common_options, examples, options, project_of


@click.command(
    epilog=examples(
        "keepsake name 4591273 warm-up",
        "keepsake show warm-up",
        "keepsake name 4591273              # prints its name",
        "keepsake name warm-up --clear",
    )
)
@click.argument("id")
@click.argument("new_name", required=False, metavar="[NAME]")
@options(click.option("--clear", is_flag=True, help="Take the name away."), common_options)
@click.pass_context
def name(ctx: click.Context, id: str, new_name: str | None, clear: bool, repository: str | None) -> None:
    """Give an experiment a name that no other one has, or print the one that it has."""
    from keepsake.cli import terminal
    from keepsake.display.text import safe

    if clear and new_name is not None:
        raise click.UsageError("a name and --clear exclude each other", ctx)
    experiment, _ = project_of(ctx, repository).experiments.find(id)
    if clear:
        experiment.rename("")
        terminal.print_lines(f"{experiment.short_id()} has no name.")
    elif new_name is None:
        if experiment.name:
            click.echo(safe(experiment.name))
    elif new_name:
        experiment.rename(new_name)
        terminal.print_lines(f'{experiment.short_id()} is named "{new_name}".')
    else:
        raise click.UsageError("an empty text is no name; --clear takes the name away", ctx)
