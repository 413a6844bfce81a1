"""``keepsake alias``: names of checkpoints that move on, such as ``@production``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keepsake.cli.options import common_options, examples, options, project_of

if TYPE_CHECKING:
    from keepsake.project import Project


@click.command(
    epilog=examples(
        "keepsake alias production 4591273@best",
        "keepsake checkout @production -o out/",
        "keepsake alias                     # lists all aliases",
        "keepsake alias production          # prints the ID that it stands for",
        "keepsake alias --delete production",
    )
)
@click.argument("alias_name", required=False, metavar="[NAME]")
@click.argument("reference", required=False, metavar="[REFERENCE]")
@options(click.option("--delete", is_flag=True, help="Forget the alias; the checkpoint stays."), common_options)
@click.pass_context
def alias(ctx: click.Context, alias_name: str | None, reference: str | None, delete: bool, repository: str | None) -> None:
    """Let @NAME stand for a checkpoint, print the one that it stands for, or list all aliases.

    REFERENCE names the checkpoint: the start of its ID, or 4591273@best, last@step:4000. Of an experiment it is the best checkpoint, else
    the latest.
    """
    from keepsake.cli import terminal

    project = project_of(ctx, repository)
    if delete and (alias_name is None or reference is not None):
        raise click.UsageError("--delete takes the name of one alias", ctx)
    if alias_name is None:
        _list(project)
        return
    bare = alias_name.removeprefix("@")
    if reference is not None:
        terminal.print_lines(_set(project, bare, reference))
    elif delete:
        project.experiments.remove_alias(bare)
        terminal.print_lines(f"@{bare} stands for nothing any more.")
    else:
        _, checkpoint = project.experiments.find(f"@{bare}")
        if checkpoint is not None:
            click.echo(checkpoint.id)


def _list(project: Project) -> None:
    from keepsake.display.text import safe

    index = project.index()
    short = index.short_length()
    rows = [(f"@{safe(name)}", one.checkpoint[:short], one.experiment[:short]) for name, one in sorted(index.aliases().items())]
    if rows:
        table = [("ALIAS", "CHECKPOINT", "EXPERIMENT"), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        for row in table:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _set(project: Project, name: str, reference: str) -> str:
    from keepsake.exceptions import DoesNotExist

    experiment, checkpoint = project.experiments.find(reference)
    chosen, why = checkpoint, ""
    if chosen is None:
        best = experiment.best()
        chosen, why = (best, ", its best checkpoint") if best is not None else (experiment.latest(), ", its latest checkpoint")
    if chosen is None:
        raise DoesNotExist(
            f"experiment {experiment.short_id()} has no checkpoints", hint=f"keepsake name {experiment.short_id()} NAME"
        )
    chosen.alias(name)
    return f"@{name} stands for {chosen.short_id()} (step {chosen.step} of {experiment.short_id()}{why})."
