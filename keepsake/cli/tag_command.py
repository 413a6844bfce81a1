"""``keepsake tag``: words that group experiments."""

from __future__ import annotations

import click

from keepsake.cli.options import common_options, examples, options, project_of


@click.command(
    epilog=examples(
        "keepsake tag 4591273 prod baseline",
        "keepsake tag 4591273 --remove prod",
        "keepsake tag last~1                # prints its tags",
        'keepsake ls -f "tag = prod"',
    )
)
@click.argument("id")
@click.argument("tags", nargs=-1, metavar="[TAG...]")
@options(
    click.option("--remove", "removed", multiple=True, metavar="TAG", help="Remove a tag; may be given several times."),
    common_options,
)
@click.pass_context
def tag(ctx: click.Context, id: str, tags: tuple[str, ...], removed: tuple[str, ...], repository: str | None) -> None:
    """Add tags to an experiment and remove others, or print those that it has, one a line."""
    from keepsake.cli import terminal
    from keepsake.display.text import safe

    experiment, _ = project_of(ctx, repository).experiments.find(id)
    if not tags and not removed:
        for one in experiment.tags:
            click.echo(safe(one))
        return
    experiment.tag(*tags, *(f"-{one}" for one in removed))
    terminal.print_lines(f"Tags of {experiment.short_id()}: {', '.join(experiment.tags) or 'none'}.")
