"""``keepsake note``: free text about an experiment."""

from __future__ import annotations

import sys

import click

from keepsake.cli.options import common_options, examples, options, project_of
from keepsake.exceptions import KeepsakeError


@click.command(
    epilog=examples(
        'keepsake note 4591273 "lower dropout after sweep 3"',
        "keepsake note 4591273 - < notes.md",
        "keepsake note 4591273              # prints its notes",
        "keepsake note 4591273 --edit       # opens them in an editor",
        "keepsake note 4591273 --clear",
    )
)
@click.argument("id")
@click.argument("text", required=False, metavar="[TEXT]")
@options(
    click.option("-e", "--edit", is_flag=True, help="Write them in an editor: $VISUAL, else $EDITOR."),
    click.option("--clear", is_flag=True, help="Take the notes away."),
    common_options,
)
@click.pass_context
def note(ctx: click.Context, id: str, text: str | None, edit: bool, clear: bool, repository: str | None) -> None:
    """Write notes about an experiment in place of those that there are, or print them. The text - is read from standard input."""
    from keepsake.cli import terminal
    from keepsake.display.text import safe

    if (text is not None) + edit + clear > 1:
        raise click.UsageError("a text, --edit and --clear exclude each other", ctx)
    experiment, _ = project_of(ctx, repository).experiments.find(id)
    if edit:
        text = _edited(experiment.notes or "")
        if text is None:
            terminal.print_lines(f"Notes of {experiment.short_id()} unchanged.")
            return
        clear = not text
    if clear:
        experiment.note("")
        terminal.print_lines(f"{experiment.short_id()} has no notes.")
    elif text is None:
        for line in experiment.notes.split("\n") if experiment.notes else ():
            click.echo(safe(line))
    else:
        experiment.note(sys.stdin.read().strip() if text == "-" else text)
        terminal.print_lines(f"Notes of {experiment.short_id()} written.")


def _edited(notes: str) -> str | None:
    """Return what a person makes of notes; None where they left them as they are."""
    try:
        written = click.edit(notes, extension=".md")
    except click.ClickException as err:
        raise KeepsakeError(f"{err.format_message()}; the notes are as they were", hint="export EDITOR=nano") from err
    text = (written or notes).strip() if written != "" else ""
    return text if text != notes.strip() else None
