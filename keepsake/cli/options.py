"""Options that commands share, and what they lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keepsake.cli import COLOR_CHOICES

if TYPE_CHECKING:
    from keepsake.display.tables import Style
    from keepsake.project import Project

F = TypeVar("F", bound=Callable[..., Any])


def common_options(function: F) -> F:
    """Add the options that every command has; those of the whole program may stand before or after the command's name."""
    for option in (
        click.option(
            "-R", "--repository", metavar="URL", help="Repository, such as file:///data/runs; default: what keepsake.yaml says."
        ),
        click.option(
            "-D", "--project-directory", metavar="DIR", expose_value=False, callback=_remember, help="Project directory."
        ),
        click.option(
            "-v", "--verbose", is_flag=True, expose_value=False, callback=_remember, help="Show where errors come from."
        ),
        click.option(
            "--color",
            type=click.Choice(COLOR_CHOICES),
            metavar="WHEN",
            expose_value=False,
            callback=_remember,
            help="When to use colours: auto, always, never.",
        ),
    ):
        function = option(function)
    return function


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Answer yes to the question.")


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value:
        ctx.ensure_object(dict)[param.name] = value


def project_of(ctx: click.Context, repository: str | None) -> Project:
    """Return the project that the options name."""
    from keepsake.project import Project

    return Project(repository=repository, directory=ctx.ensure_object(dict).get("project_directory"))


def style_of(ctx: click.Context) -> Style:
    """Return how the options want texts to be coloured."""
    from keepsake.cli import terminal

    return terminal.style(ctx.ensure_object(dict).get("color"))


def examples(*lines: str) -> str:
    r"""Return the end of a help text: examples that can be pasted; ``\b`` keeps click from joining them."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
