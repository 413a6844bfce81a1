"""``keepsake checkout``: code and weights back into a directory."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepsake.cli.options import common_options, examples, project_of, yes_option
from keepsake.exceptions import DoesNotExist, UnsavedFiles

if TYPE_CHECKING:
    from keepsake.checkout import CheckoutPlan
    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment

SHOWN = 10


@click.command(
    epilog=examples(
        "keepsake checkout 4591273 -o out/",
        "keepsake checkout 4591273 --path train.py",
        "keepsake checkout da0f8f6 --path model.pth -o -  > model.pth",
        "keepsake checkout 4591273 --force",
    )
)
@click.argument("id")
@click.option("-o", "--output-directory", metavar="DIR", help="Where to; default: the project directory. - prints one file.")
@click.option("--path", metavar="PATH", help="Only this file or directory.")
@click.option("-f", "--force", is_flag=True, help="Overwrite files whose content would be lost, without asking.")
@yes_option
@common_options
@click.pass_context
def checkout(
    ctx: click.Context, id: str, repository: str | None, output_directory: str | None, path: str | None, force: bool, yes: bool
) -> None:
    """Copy the code of an experiment and the files of a checkpoint into a directory.

    Of an experiment it is the best checkpoint, else the latest. A keepsake.yaml that is there stays as it is.
    """
    from keepsake.checkout import plan_checkout

    project = project_of(ctx, repository)
    experiment, checkpoint = project.experiments.find(id)
    chosen = checkpoint or experiment.best() or experiment.latest()
    if output_directory == "-":
        _print_file(experiment, chosen, path)
        return
    target = Path(output_directory) if output_directory is not None else project.directory
    with plan_checkout(experiment, chosen, target, path=path) as plan:
        click.echo(f"From {_source(experiment, checkpoint, chosen)} into {plan.target}:", err=True)
        _print_plan(plan)
        if plan.changed and not (force or yes) and not _confirmed(plan):
            click.echo("Nothing was changed.", err=True)
            ctx.exit(6)
        plan.apply()
        click.echo(f"{len(plan.new) + len(plan.changed)} files written.", err=True)


def _source(experiment: Experiment, named: Checkpoint | None, chosen: Checkpoint | None) -> str:
    if chosen is None:
        return f"experiment {experiment.short_id()}, which has no checkpoints,"
    if named is not None:
        return f"checkpoint {chosen.short_id()} (step {chosen.step}) and its experiment {experiment.short_id()}"
    kind = "best" if experiment.best() is not None else "latest"
    return f"experiment {experiment.short_id()} and its {kind} checkpoint {chosen.short_id()} (step {chosen.step})"


def _print_plan(plan: CheckoutPlan) -> None:
    from keepsake.display.text import safe

    click.echo(f"  {len(plan.new)} new, {len(plan.changed)} changed, {len(plan.identical)} identical", err=True)
    for mark, names, note in (("M", plan.changed, "your version would be lost"), ("K", plan.kept, "yours is kept")):
        for name in names[:SHOWN]:
            click.echo(f"  {mark} {safe(name)}  ({note})", err=True)
        if len(names) > SHOWN:
            click.echo(f"  {mark} … {len(names) - SHOWN} more", err=True)


def _confirmed(plan: CheckoutPlan) -> bool:
    from keepsake.cli import terminal

    count = len(plan.changed)
    lost = f"{count} file{'s' if count > 1 else ''} with other content would be overwritten"
    if not sys.stdin.isatty():
        raise UnsavedFiles(lost, hint="check out elsewhere with -o DIR, or overwrite with --force")
    return terminal.confirm(f"{lost[0].upper()}{lost[1:]}. Continue?", flag="--force, or check out elsewhere with -o DIR")


def _print_file(experiment: Experiment, checkpoint: Checkpoint | None, path: str | None) -> None:
    if path is None:
        raise click.UsageError("-o - prints one file: name it with --path")
    if checkpoint is not None and checkpoint.path is not None:
        try:
            file = checkpoint.open(path)
        except DoesNotExist:
            file = experiment.open(path)
    else:
        file = experiment.open(path)
    with file:
        shutil.copyfileobj(file, sys.stdout.buffer)
