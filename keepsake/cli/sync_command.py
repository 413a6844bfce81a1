"""``keepsake sync``: upload what was recorded while the repository could not be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keepsake.cli.options import common_options, examples, options, project_of

if TYPE_CHECKING:
    from keepsake.recording.uploader import Sync


@click.command(epilog=examples("keepsake sync", "keepsake sync --dry-run", "keepsake sync -R s3://acme-hotdog"))
@options(click.option("-n", "--dry-run", is_flag=True, help="Only show what would be uploaded."), common_options)
@click.pass_context
def sync(ctx: click.Context, /, repository: str | None, *, dry_run: bool) -> None:
    """Upload what this project has recorded and its repository does not have yet.

    It may be interrupted and run again, also while a training runs.
    """
    from keepsake.cli import terminal

    found = project_of(ctx, repository).syncs()
    if not found:
        terminal.print_lines("Nothing to upload.")
    for one in found:
        terminal.print_lines(f"{'Would upload' if dry_run else 'Uploading'} {_amount(one)} to {one.label}")
        if not dry_run:
            _upload(one)


def _amount(one: Sync) -> str:
    from keepsake.display.text import plural, size

    waiting = one.waiting()
    details = f"{plural(waiting.checkpoints, 'checkpoint')}, {size(waiting.size_bytes)}"
    return f"{plural(waiting.experiments, 'experiment')} ({details})"


def _upload(one: Sync) -> None:
    from keepsake.cli import terminal
    from keepsake.display.text import plural

    with terminal.progress("uploading") as progress:
        left = one.run(progress(one.waiting().size_bytes) if progress is not None else None)
    if left:
        terminal.print_lines(f"Uploaded; {plural(len(left), 'experiment')} still being recorded, of which more will come.")
    else:
        terminal.print_lines("Uploaded.")
