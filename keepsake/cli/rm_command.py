"""``keepsake rm``: delete experiments and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from keepsake.cli.options import common_options, examples, options, project_of, short_length_among, yes_option
from keepsake.exceptions import NotConfirmed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment

PARAMS_SHOWN = 4
LINES_SHOWN = 50
"""How many experiments and checkpoints are listed one by one; the question counts all of them."""


@click.command(
    epilog=examples(
        "keepsake rm 4591273",
        "keepsake rm 4591273 eb96def --yes",
        "keepsake rm da0f8f6 --dry-run                # a checkpoint",
        'keepsake rm $(keepsake ls -q -f "val_accuracy < 0.2")',
    )
)
@click.argument("ids", nargs=-1, metavar="ID...")
@options(
    click.option("-n", "--dry-run", is_flag=True, help="Only show what would be deleted."),
    click.option("-f", "--force", is_flag=True, help="Do not ask, and delete running experiments too."),
    yes_option,
    common_options,
)
@click.pass_context
def rm(ctx: click.Context, ids: tuple[str, ...], repository: str | None, dry_run: bool, force: bool, yes: bool) -> None:
    """Delete experiments with all their checkpoints, or single checkpoints. No ID, nothing deleted."""
    from keepsake.cli import terminal

    if not ids:
        terminal.print_lines("Nothing to delete.")
        return
    project = project_of(ctx, repository)
    # Every ID is resolved before anything is deleted: a mistake in the last one must not cost the first.
    removal = Removal.of(project.experiments.find_all(dict.fromkeys(ids)))
    short = short_length_among(experiment.record for experiment in removal.concerned())
    if not force:
        removal.refuse_running(short)
    terminal.print_lines(*removal.lines(short))
    if dry_run:
        terminal.print_lines(f"Would delete {removal.summary()} (dry run).")
        return
    if not (yes or force) and not terminal.confirm(f"Delete {removal.summary()}?", flag="-y/--yes"):
        raise NotConfirmed("nothing was deleted: you said no")
    # Counted before: what is deleted cannot be counted any more.
    summary = removal.summary()
    project.experiments.delete(removal.experiments, removal.checkpoints)
    terminal.print_lines(f"Deleted {summary}.")


@dataclass(frozen=True)
class Removal:
    """What is to be deleted.

    Args:
        experiments: Whole experiments.
        checkpoints: Checkpoints of other experiments.
    """

    experiments: list[Experiment]
    checkpoints: list[Checkpoint]

    @classmethod
    def of(cls, found: Iterable[tuple[Experiment, Checkpoint | None]]) -> Removal:
        """Build a removal from what IDs name; a checkpoint goes with its experiment where both are named."""
        pairs = list(found)
        experiments = list(dict.fromkeys(experiment for experiment, checkpoint in pairs if checkpoint is None))
        checkpoints = [checkpoint for experiment, checkpoint in pairs if checkpoint is not None and experiment not in experiments]
        return cls(experiments, list(dict.fromkeys(checkpoints)))

    def concerned(self) -> list[Experiment]:
        """Return the experiments that lose something, each once."""
        return list(dict.fromkeys([*self.experiments, *(checkpoint.experiment for checkpoint in self.checkpoints)]))

    def refuse_running(self, short: int) -> None:
        """Raise `NotConfirmed` if something belongs to an experiment that still runs and would write it again."""
        running = [one.id[:short] for one in self.concerned() if one.status.word == "running"]
        if running:
            verb = "experiment {} is" if len(running) == 1 else "experiments {} are"
            raise NotConfirmed(
                f"{verb.format(', '.join(running))} still running", hint="stop the training first, or add -f/--force"
            )

    def lines(self, short: int) -> list[str]:
        """Return what goes, one experiment or checkpoint a line."""
        from keepsake.display.text import cell, cut, plural

        lines = []
        for experiment in self.experiments:
            params = " ".join(f"{name}={cut(cell(value))}" for name, value in list(experiment.params.items())[:PARAMS_SHOWN])
            count = plural(len(experiment.checkpoints), "checkpoint")
            lines.append(f"  experiment {experiment.id[:short]}  {experiment.status.word}  {count}  {params}".rstrip())
        for checkpoint in self.checkpoints:
            of = f"of experiment {checkpoint.experiment.id[:short]}"
            lines.append(f"  checkpoint {checkpoint.id[:short]}  step {checkpoint.step} {of}")
        if len(lines) > LINES_SHOWN:
            lines = [*lines[:LINES_SHOWN], f"  … {len(lines) - LINES_SHOWN:,} more"]
        return lines

    def summary(self) -> str:
        """Return how much goes, such as ``3 experiments (12 checkpoints, 1.2 GB)``."""
        from keepsake.display.text import plural, size

        inner = [checkpoint for experiment in self.experiments for checkpoint in experiment.checkpoints]
        archives = [one.archive for one in (*inner, *self.checkpoints)] + [one.record.archive for one in self.experiments]
        size_bytes = sum(archive.size_bytes for archive in archives if archive is not None)
        details = ([plural(len(inner), "checkpoint")] if self.experiments else []) + ([size(size_bytes)] if size_bytes else [])
        named = ((self.experiments, "experiment"), (self.checkpoints, "checkpoint"))
        what = " and ".join(plural(len(things), noun) for things, noun in named if things)
        return f"{what} ({', '.join(details)})" if details else what
