"""``keepsake checkout``: code and weights back into a directory."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepsake.cli.options import common_options, examples, options, project_of, records_of, short_length_among, yes_option
from keepsake.exceptions import DoesNotExist, UnsavedFiles

if TYPE_CHECKING:
    from typing import BinaryIO

    from keepsake.checkout import CheckoutPlan
    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment

NAMES_SHOWN = 10


@click.command(
    epilog=examples(
        "keepsake checkout 4591273 -o out/",
        "keepsake checkout 4591273 --path train.py",
        "keepsake checkout da0f8f6 --path model.pth -o - > model.pth",
        "keepsake checkout 4591273 --force",
    )
)
@click.argument("id")
@options(
    click.option(
        "-o",
        "--output-directory",
        metavar="DIR",
        help="Where to; default: the project directory. - prints the one file of --path.",
    ),
    click.option("--path", metavar="PATH", help="Only this file or directory."),
    click.option("-f", "--force", is_flag=True, help="Overwrite files with other content without asking."),
    yes_option,
    common_options,
)
@click.pass_context
def checkout(
    ctx: click.Context,
    id: str,
    repository: str | None,
    output_directory: str | None,
    path: str | None,
    force: bool,
    yes: bool,
) -> None:
    """Copy the code of an experiment and the files of a checkpoint into a directory.

    Of an experiment it is the best checkpoint, else the latest. A keepsake.yaml that is there stays as it is.
    """
    from keepsake.checkout import plan_checkout
    from keepsake.cli import terminal
    from keepsake.config import shown_path
    from keepsake.display.text import plural
    from keepsake.exceptions import NotConfirmed

    if output_directory == "-" and path is None:
        raise click.UsageError("-o - prints one file: name it with --path", ctx)
    project = project_of(ctx, repository)
    experiment, checkpoint = project.experiments.find(id)
    chosen = checkpoint or experiment.best() or experiment.latest()
    if output_directory == "-" and path is not None:
        with _opened(experiment, chosen, path) as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        return
    target = Path(output_directory) if output_directory is not None else project.directory
    with terminal.progress("fetching") as progress:
        planned = plan_checkout(experiment, chosen, target, path=path, progress=progress)
    with planned as plan:
        source = _source(experiment, chosen, is_named=checkpoint is not None, short=short_length_among(records_of(project)))
        terminal.print_lines(f"From {source} into {shown_path(plan.target)}:", *_plan_lines(plan))
        if plan.changed and not (force or yes) and not _confirmed(plan, id):
            raise NotConfirmed("nothing was checked out: you said no", hint=f"keepsake checkout {id} -o DIR")
        plan.apply()
    terminal.print_lines(f"{plural(len(plan.new) + len(plan.changed), 'file')} written.")


def _opened(experiment: Experiment, checkpoint: Checkpoint | None, path: str) -> BinaryIO:
    """Open a file of the checkpoint, or of the code if the checkpoint has none of this name."""
    if checkpoint is None or checkpoint.path is None:
        return experiment.open(path)
    try:
        return checkpoint.open(path)
    except DoesNotExist:
        if experiment.path is None:
            raise
        return experiment.open(path)


def _source(experiment: Experiment, checkpoint: Checkpoint | None, *, is_named: bool, short: int) -> str:
    of = f"experiment {experiment.id[:short]}"
    if checkpoint is None:
        return f"{of}, which has no checkpoints,"
    what = f"checkpoint {checkpoint.id[:short]} (step {checkpoint.step})"
    if is_named:
        return f"{what} and its {of}"
    return f"{of} and its {'best' if checkpoint == experiment.best() else 'latest'} {what}"


def _plan_lines(plan: CheckoutPlan) -> list[str]:
    said = [f"  {len(plan.new)} new, {len(plan.changed)} changed, {len(plan.identical)} identical"]
    for mark, names, note in (("M", plan.changed, "your version would be lost"), ("K", plan.kept, "yours is kept")):
        said += [f"  {mark} {name}  ({note})" for name in names[:NAMES_SHOWN]]
        if len(names) > NAMES_SHOWN:
            said.append(f"  {mark} … {len(names) - NAMES_SHOWN} more")
    return said


def _confirmed(plan: CheckoutPlan, id: str) -> bool:
    from keepsake.cli import terminal
    from keepsake.display.text import plural

    count = plural(len(plan.changed), "file")
    if not terminal.can_ask():
        raise UnsavedFiles(
            f"{count} with other content would be overwritten",
            hint=f"keepsake checkout {id} -o DIR   or, to overwrite, -f/--force",
        )
    return terminal.confirm(f"Overwrite {count} with other content?", flag="--force, or choose another directory with -o DIR")
