"""``keepsake copy``: copy experiments from one repository to another; `push_command` and `pull_command` do the same for this project's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keepsake.cli.options import examples, global_options, other_project, require_repository

if TYPE_CHECKING:
    from keepsake.project import Project


@click.command(
    epilog=examples(
        "keepsake copy file://.keepsake s3://acme-hotdog/runs",
        "keepsake copy s3://acme-hotdog file:///data/runs 4591273",
        "keepsake copy s3://acme-hotdog/old s3://acme-hotdog/new",
        "keepsake copy lab s3://acme-hotdog    # lab is one of the remotes in keepsake.yaml",
    )
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@global_options
@click.pass_context
def copy(ctx: click.Context, /, source: str, target: str, ids: tuple[str, ...]) -> None:
    """Copy experiments from one repository to another: those that are named, else all.

    SRC and DST are URLs, or names that the configuration gives them under "remotes".

    Digests are compared on the way, and what is there already is left out: a copy that broke off can be run again.
    """
    copy_experiments(other_project(ctx, source), other_project(ctx, target), ids)


def copy_experiments(source: Project, target: Project, ids: tuple[str, ...]) -> None:
    """Copy experiments and say how many.

    Args:
        source: A project with the repository to copy from.
        target: One with the repository to copy to.
        ids: Which experiments; all if empty.
    """
    from keepsake.cli import terminal
    from keepsake.display.text import plural

    require_repository(source)
    with terminal.progress("copying") as progress:
        copied, present = source.copy_to(target, ids, progress=progress)
    place = target.repository_at_hand().label
    there = f", {plural(present, 'experiment')} there already" if present else ""
    terminal.print_lines(f"Copied {plural(copied, 'experiment')} to {place}{there}.")
