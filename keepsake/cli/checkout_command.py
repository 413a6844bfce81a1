"""``keepsake checkout``: code and weights back into a directory."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepsake.cli.options import cache_option, common_options, examples, options, project_of, yes_option
from keepsake.exceptions import DoesNotExist, NotConfirmed, UnsavedFiles

if TYPE_CHECKING:
    from typing import BinaryIO

    from keepsake.checkout import CheckoutPlan, Undo, UndoPlan
    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment
    from keepsake.project import Project

NAMES_SHOWN = 10


@click.command(
    epilog=examples(
        "keepsake checkout 4591273",
        "keepsake checkout 4591273 -o out/ --code-only",
        "keepsake checkout da0f8f6 --path model.pth -o - > model.pth",
        "keepsake checkout 4591273 --delete --dry-run",
        "keepsake checkout --undo",
    )
)
@click.argument("id", required=False)
@options(
    click.option(
        "-o",
        "--output-directory",
        metavar="DIR",
        help="Where to; default: the project directory. - prints the one file of --path.",
    ),
    click.option("--path", metavar="PATH", help="Only this file or directory."),
    click.option("--code-only", is_flag=True, help="Only the code of the experiment."),
    click.option("--weights-only", is_flag=True, help="Only the files of the checkpoint."),
    click.option("--with-config", is_flag=True, help="Put back the saved keepsake.yaml over yours."),
    click.option("--delete", is_flag=True, help="Remove files that are not in the version and would be saved with it."),
    click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done, with all names."),
    click.option("--backup", is_flag=True, help="Copy what is overwritten or removed to .keepsake/undo first."),
    click.option("-f", "--force", is_flag=True, help="Overwrite and remove without asking, unsaved work too."),
    click.option("--undo", is_flag=True, help="Bring back what was there before the last checkout."),
    yes_option,
    cache_option,
    common_options,
)
@click.pass_context
def checkout(
    ctx: click.Context,
    id: str | None,
    repository: str | None,
    output_directory: str | None,
    path: str | None,
    code_only: bool,
    weights_only: bool,
    with_config: bool,
    delete: bool,
    dry_run: bool,
    backup: bool,
    force: bool,
    undo: bool,
    yes: bool,
) -> None:
    """Copy the code of an experiment and the files of a checkpoint into a directory.

    Of an experiment it is the best checkpoint, else the latest. A keepsake.yaml that is there stays as it is. Work that is saved neither
    in Git nor in keepsake is not overwritten without a question; --yes answers it with a backup.
    """
    if code_only and weights_only:
        raise click.UsageError("--code-only and --weights-only leave nothing to check out", ctx)
    project = project_of(ctx, repository)
    if undo:
        if id is not None:
            raise click.UsageError(f'--undo takes no ID, it undoes the last checkout; got "{id}"', ctx)
        _undo(project, output_directory, dry_run=dry_run, force=force)
        return
    if id is None:
        raise click.UsageError("missing the ID of an experiment or a checkpoint", ctx)
    wanted = Wanted.of(project, id, path, code_only=code_only, weights_only=weights_only)
    if output_directory == "-":
        if path is None:
            raise click.UsageError("-o - prints one file: name it with --path", ctx)
        with wanted.opened(path) as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        return
    target = Path(output_directory) if output_directory is not None else project.directory
    run = Run(project, wanted, delete=delete, with_config=with_config)
    if dry_run:
        run.show(target)
    else:
        run.do(target, backup=backup or (yes and not force), force=force)


@dataclass(frozen=True)
class Wanted:
    """What is to be checked out.

    Args:
        reference: How the person named it.
        experiment: The experiment.
        checkpoint: The checkpoint; None for none.
        is_named: Whether the person named the checkpoint itself.
        path: The one file or directory wanted.
        code: Whether the code is wanted.
    """

    reference: str
    experiment: Experiment
    checkpoint: Checkpoint | None
    is_named: bool
    path: str | None
    code: bool

    @classmethod
    def of(cls, project: Project, reference: str, path: str | None, *, code_only: bool, weights_only: bool) -> Wanted:
        """Look up what a reference names."""
        experiment, named = project.experiments.find(reference)
        checkpoint = None if code_only else named or experiment.best() or experiment.latest()
        return cls(reference, experiment, checkpoint, named is not None and not code_only, path, not weights_only)

    def opened(self, path: str) -> BinaryIO:
        """Open a file of the checkpoint, or of the code if the checkpoint has none of this name."""
        has_files = self.checkpoint is not None and self.checkpoint.path is not None
        if self.checkpoint is None or not has_files:
            if not self.code:
                raise DoesNotExist(f"no checkpoint of experiment {self.experiment.short_id()} has files")
            return self.experiment.open(path)
        try:
            return self.checkpoint.open(path)
        except DoesNotExist:
            if not self.code or self.experiment.path is None:
                raise
            return self.experiment.open(path)

    def described(self) -> str:
        """Return what it is, such as ``experiment 4591273 and its best checkpoint da0f8f6``."""
        of = f"experiment {self.experiment.short_id()}"
        if self.checkpoint is None:
            return f"the code of {of}" if self.experiment.checkpoints else f"{of}, which has no checkpoints,"
        what = f"checkpoint {self.checkpoint.short_id()}"
        if self.is_named:
            return f"{what} (step {self.checkpoint.step})" + (f" and its {of}" if self.code else f" of {of}")
        which = "best" if self.checkpoint == self.experiment.best() else "latest"
        if not self.code:
            return f"the {which} {what} (step {self.checkpoint.step}) of {of}"
        return f"{of} and its {which} {what} (step {self.checkpoint.step})"


@dataclass(frozen=True)
class Run:
    """One run of the command, from the plan through the question to the files.

    Args:
        project: The project.
        wanted: What is to be checked out.
        delete: Whether files go that are not in the version.
        with_config: Whether an old keepsake.yaml may come back.
    """

    project: Project
    wanted: Wanted
    delete: bool
    with_config: bool

    def plan(self, target: Path) -> CheckoutPlan:
        """Compare the version with what is there."""
        from keepsake.checkout import plan_checkout

        wanted = self.wanted
        return plan_checkout(
            wanted.experiment,
            wanted.checkpoint,
            target,
            path=wanted.path,
            code=wanted.code,
            delete=self.delete,
            with_config=self.with_config,
        )

    def show(self, target: Path) -> None:
        """Print what would be done, every name of it."""
        from keepsake.cli import terminal

        with self.plan(target) as plan:
            self._print(plan, every=True)
            terminal.print_lines("Nothing was changed (dry run).")

    def do(self, target: Path, *, backup: bool, force: bool) -> None:
        """Check out, after a question where unsaved work would be lost."""
        from keepsake.checkout import undo_place
        from keepsake.cli import terminal
        from keepsake.config import shown_path

        undo = undo_place(self.project.directory)
        with self.plan(target) as plan:
            self._print(plan)
            if plan.unsaved and not (backup or force):
                answer = self._asked(plan, undo)
                if answer == "n":
                    raise NotConfirmed("nothing was checked out: you said no", hint=f"{self._command()} -o DIR")
                if answer == "o":
                    elsewhere = terminal.ask("Directory:", flag="-o DIR")
                    if not elsewhere:
                        raise NotConfirmed("nothing was checked out: no directory was named", hint=f"{self._command()} -o DIR")
                    self.do(Path(elsewhere), backup=False, force=False)
                    return
                backup = True
            with terminal.progress("fetching") as progress:
                plan.apply(undo=undo, backup=backup, source=self.wanted.described(), progress=progress)
            terminal.print_lines(_done(plan))
            if backup and (plan.changed or plan.deleted):
                terminal.print_lines(f"Your versions are in {shown_path(undo)}/; to bring them back: keepsake checkout --undo")

    def _print(self, plan: CheckoutPlan, *, every: bool = False) -> None:
        from keepsake.cli import terminal
        from keepsake.config import shown_path

        head = f"From {self.wanted.described()} into {shown_path(plan.target)}:"
        terminal.print_lines(head, *_plan_lines(plan, every=every))

    def _asked(self, plan: CheckoutPlan, undo: Path) -> str:
        from keepsake.cli import terminal
        from keepsake.config import shown_path
        from keepsake.display.text import plural

        lost = f"your version of {plural(len(plan.unsaved), 'file')} would be lost"
        if not terminal.can_ask():
            raise UnsavedFiles(
                lost,
                facts=["add --backup to keep a copy, -o DIR to check out elsewhere, or -f/--force to give it up"],
                hint=f"{self._command()} --backup",
            )
        terminal.print_lines(
            f"{lost[0].upper()}{lost[1:]}. Choose:",
            f"  b  back it up to {shown_path(undo)}/ and continue",
            "  o  check out into another directory instead",
            "  n  stop (default)",
        )
        answer = terminal.ask("[b/o/N]", flag="--backup, -o DIR or -f/--force").lower()
        return {"b": "b", "backup": "b", "o": "o", "other": "o"}.get(answer, "n")

    def _command(self) -> str:
        return f"keepsake checkout {shlex.quote(self.wanted.reference)}"


# --- lines of the plan ------------------------------------------------------------------------------------------------


def _plan_lines(plan: CheckoutPlan, *, every: bool) -> list[str]:
    counts = [f"{len(plan.new)} new", f"{len(plan.changed)} changed"]
    counts += [f"{len(plan.deleted)} to be removed"] if plan.deleted else []
    files = f"{len(plan.identical)} file{'' if len(plan.identical) == 1 else 's'} identical"
    unsaved = set(plan.unsaved)
    notes = {name: _note(plan, name) for name in [*plan.changed, *plan.deleted]}
    notes |= dict.fromkeys(plan.kept, "yours is kept (--with-config puts the saved one back)")
    groups = [("A", plan.new)] if every else []
    groups += [("M", plan.changed), ("D", plan.deleted), ("K", plan.kept)]
    shown: list[tuple[str, str]] = []
    more: list[str] = []
    for mark, names in groups:
        # What would be lost is named first.
        ordered = sorted(names, key=lambda name: name not in unsaved)
        limit = len(ordered) if every else NAMES_SHOWN
        shown += [(mark, name) for name in ordered[:limit]]
        more += [f"  {mark} … {len(ordered) - limit} more"] if len(ordered) > limit else []
    width = max((len(name) for _, name in shown if name in notes), default=0)
    lines = [f"  {mark} {name:<{width}}  {notes.get(name, '')}".rstrip() for mark, name in shown]
    return [f"  {files}, {', '.join(counts)}{':' if lines else ''}", *lines, *more]


def _note(plan: CheckoutPlan, name: str) -> str:
    place = plan.saved.get(name)
    return f"your version is in {place.label}" if place is not None else "your version is not in Git HEAD and not in Keepsake"


def _done(plan: CheckoutPlan) -> str:
    from keepsake.display.text import plural

    removed = f", {len(plan.deleted)} removed" if plan.deleted else ""
    return f"{plural(len(plan.new) + len(plan.changed), 'file')} written{removed}."


# --- undo -------------------------------------------------------------------------------------------------------------


def _undo(project: Project, output_directory: str | None, *, dry_run: bool, force: bool) -> None:
    from keepsake.checkout import Undo
    from keepsake.cli import terminal
    from keepsake.config import shown_path

    target = Path(output_directory).expanduser().absolute() if output_directory is not None else None
    undo = Undo.latest(project.directory, target)
    terminal.print_lines(
        f"Undo the checkout of {undo.created:%Y-%m-%d %H:%M:%S} from {undo.source} into {shown_path(undo.target)}:"
    )
    done = undo.apply(project.repository_at_hand(), force=force, dry_run=dry_run)
    terminal.print_lines(*_undo_lines(undo, done, dry_run=dry_run))


def _undo_lines(undo: Undo, done: UndoPlan, *, dry_run: bool) -> list[str]:
    from keepsake.config import shown_path
    from keepsake.display.text import plural

    lines = [f"  M {name}" for name in done.restored] + [f"  D {name}" for name in done.removed]
    lines += [f"  ! {name}  was changed since, and stays as it is" for name in done.changed]
    lines += [f"  ! {name}  cannot be restored: it was kept nowhere, or is there no more" for name in done.lost]
    verb = "would be " if dry_run else ""
    lines.append(f"{plural(len(done.restored), 'file')} {verb}restored, {len(done.removed)} {verb}removed.")
    if done.changed:
        kept = f"; the copies stay in {shown_path(undo.directory)}/" if undo.has_backup else ""
        lines.append(f"To give up what was changed since: keepsake checkout --undo --force{kept}")
    return lines
