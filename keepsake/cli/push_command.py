"""``keepsake push``: copy experiments of this project to another repository."""

from __future__ import annotations

import click

from keepsake.cli.copy_command import copy_experiments
from keepsake.cli.options import common_options, examples, other_project, project_of


@click.command(
    epilog=examples(
        "keepsake push s3://acme-hotdog/runs",
        "keepsake push gs://acme-hotdog 4591273 eb96def",
        "keepsake push s3://acme-hotdog -R file:///data/runs",
        "keepsake push lab                  # one of the remotes in keepsake.yaml",
    )
)
@click.argument("url", metavar="URL")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@common_options
@click.pass_context
def push(ctx: click.Context, /, url: str, ids: tuple[str, ...], repository: str | None) -> None:
    """Copy experiments of this project to another repository: those that are named, else all.

    URL may be a name that the configuration gives it under "remotes".

    What is there already is left out: a push that broke off can be run again.
    """
    copy_experiments(project_of(ctx, repository), other_project(ctx, url), ids)
