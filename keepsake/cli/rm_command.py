"""``keepsake rm``: delete experiments and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keepsake.cli.options import common_options, examples, project_of, yes_option
from keepsake.exceptions import NotConfirmed

if TYPE_CHECKING:
    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment


@click.command(
    epilog=examples(
        "keepsake rm 4591273",
        "keepsake rm 4591273 eb96def --yes",
        "keepsake rm da0f8f6 --dry-run     (a checkpoint)",
        'keepsake rm $(keepsake ls -q -f "val_accuracy < 0.2")',
    )
)
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option("-f", "--force", is_flag=True, help="Do not ask, and delete running experiments too.")
@yes_option
@common_options
@click.pass_context
def rm(ctx: click.Context, ids: tuple[str, ...], repository: str | None, dry_run: bool, force: bool, yes: bool) -> None:
    """Delete experiments with all their checkpoints, or single checkpoints. No ID, nothing deleted."""
    from keepsake.cli import terminal
    from keepsake.display.text import plural, size

    if not ids:
        click.echo("Nothing to delete.", err=True)
        return
    # Every ID is resolved before anything is deleted: a mistake in the last one must not cost the first.
    found = [project_of(ctx, repository).experiments.find(id) for id in dict.fromkeys(ids)]
    experiments = list(dict.fromkeys(experiment for experiment, checkpoint in found if checkpoint is None))
    checkpoints = list(dict.fromkeys(c for experiment, c in found if c is not None and experiment not in experiments))
    _refuse_running(experiments, force)
    _print_plan(experiments, checkpoints)
    every = [*checkpoints, *(checkpoint for experiment in experiments for checkpoint in experiment.checkpoints)]
    archives = [checkpoint.archive for checkpoint in every] + [experiment.record.archive for experiment in experiments]
    bytes_freed = sum(archive.size_bytes for archive in archives if archive is not None)
    counts = f"{plural(len(every), 'checkpoint')}, {size(bytes_freed)}"
    what = f"{plural(len(experiments), 'experiment')} ({counts})" if experiments else counts
    if dry_run:
        click.echo(f"Dry run: {what} would be deleted.", err=True)
        return
    if not (yes or force) and not terminal.confirm(f"Delete {what}?", flag="--yes"):
        click.echo("Nothing was deleted.", err=True)
        return
    for checkpoint in checkpoints:
        checkpoint.delete()
    for experiment in experiments:
        experiment.delete()
    click.echo(f"Deleted {what}.", err=True)


def _refuse_running(experiments: list[Experiment], force: bool) -> None:
    running = [experiment.short_id() for experiment in experiments if experiment.status.word == "running"]
    if running and not force:
        verb = "is" if len(running) == 1 else "are"
        raise NotConfirmed(f"{', '.join(running)} {verb} still running", hint="stop it first, or delete it anyway with --force")


def _print_plan(experiments: list[Experiment], checkpoints: list[Checkpoint]) -> None:
    from keepsake.display.text import cell, cut, plural, safe

    for experiment in experiments:
        params = " ".join(f"{safe(name)}={cut(cell(value))}" for name, value in list(experiment.params.items())[:4])
        count = plural(len(experiment.checkpoints), "checkpoint")
        click.echo(f"  experiment {experiment.short_id()}  {experiment.status.word}  {count}  {params}".rstrip(), err=True)
    for checkpoint in checkpoints:
        of = checkpoint.experiment.short_id()
        click.echo(f"  checkpoint {checkpoint.short_id()}  step {checkpoint.step} of experiment {of}", err=True)
