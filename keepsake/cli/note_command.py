"""``keepsake note``: free text about an experiment."""

from __future__ import annotations

import sys

import click

from keepsake.cli.options import common_options, examples, options, project_of


@click.command(
    epilog=examples(
        'keepsake note 4591273 "lower dropout after sweep 3"',
        "keepsake note 4591273 - < notes.md",
        "keepsake note 4591273              # prints its notes",
        "keepsake note 4591273 --clear",
    )
)
@click.argument("id")
@click.argument("text", required=False, metavar="[TEXT]")
@options(click.option("--clear", is_flag=True, help="Take the notes away."), common_options)
@click.pass_context
def note(ctx: click.Context, id: str, text: str | None, clear: bool, repository: str | None) -> None:
    """Write notes about an experiment in place of those that there are, or print them. The text - is read from standard input."""
    from keepsake.cli import terminal
    from keepsake.display.text import safe

    if clear and text is not None:
        raise click.UsageError("a text and --clear exclude each other", ctx)
    experiment, _ = project_of(ctx, repository).experiments.find(id)
    if clear:
        experiment.note("")
        terminal.print_lines(f"{experiment.short_id()} has no notes.")
    elif text is None:
        for line in experiment.notes.split("\n") if experiment.notes else ():
            click.echo(safe(line))
    else:
        experiment.note(sys.stdin.read().strip() if text == "-" else text)
        terminal.print_lines(f"Notes of {experiment.short_id()} written.")
