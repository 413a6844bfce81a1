"""Options that commands share, and what they lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keepsake.cli.terminal import COLOR_CHOICES

if TYPE_CHECKING:
    from keepsake.display.tables import View
    from keepsake.project import Project
    from keepsake.repository.records import ExperimentRecord
    from keepsake.repository.repository import Repository

F = TypeVar("F", bound=Callable[..., Any])

MOST_HELPERS = 4
"""How many processes may help a command to read records. Python starts slowly, and one process writes down what they find."""


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value:
        ctx.ensure_object(dict)[param.name] = value


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Add several options to a command, in the order in which its help text is to list them."""

    def add(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return add


global_options = options(
    click.option(
        "-D",
        "--project-directory",
        metavar="DIR",
        expose_value=False,
        callback=_remember,
        help="Project directory; default: $KEEPSAKE_DIRECTORY, else where keepsake.yaml is, from here upwards.",
    ),
    click.option(
        "--color",
        type=click.Choice(COLOR_CHOICES),
        metavar="WHEN",
        expose_value=False,
        callback=_remember,
        help="When to use colours: auto, always or never.",
    ),
    click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=_remember, help="Show where an error comes from."),
)
"""Options that may stand before the command as well as after it."""

common_options = options(
    click.option(
        "-R",
        "--repository",
        metavar="URL",
        help="Repository, such as file:///data/runs; default: $KEEPSAKE_REPOSITORY, else what keepsake.yaml says.",
    ),
    global_options,
)
"""Options of every command that looks at a repository."""

cache_option = click.option(
    "--no-cache", is_flag=True, expose_value=False, callback=_remember, help="Read all records anew, and keep nothing."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Answer yes to every question.")


def project_of(ctx: click.Context, repository: str | None) -> Project:
    """Return the project that the options name."""
    import os

    from keepsake.project import Project

    project = Project(repository=repository, directory=ctx.ensure_object(dict).get("project_directory"))
    project.uses_index = not ctx.ensure_object(dict).get("no_cache", False)
    project.helpers = min(os.cpu_count() or 1, MOST_HELPERS)
    return project


def other_project(ctx: click.Context, named: str) -> Project:
    """Return a project with another repository than this project's.

    Args:
        ctx: The command's context.
        named: One of the ``remotes`` of the configuration, or a URL.

    Raises:
        UsageError: There are remotes, but none of that name, nor a directory.
    """
    if "://" in named:
        return project_of(ctx, named)
    remotes = project_of(ctx, None).settings().remotes()
    if named in remotes:
        return project_of(ctx, remotes[named].value)
    if remotes and "/" not in named and not Path(named).is_dir():
        from difflib import get_close_matches

        close = get_close_matches(named, remotes, n=1)
        meant = f'did you mean "{close[0]}"?' if close else f"there are: {', '.join(remotes)}."
        raise click.UsageError(f'no remote "{named}", {meant} A directory of that name is ./{named}', ctx)
    return project_of(ctx, named)


def require_repository(project: Project) -> Repository:
    """Return the project's repository, and tell one that is still empty from a mistake in an address that was typed.

    Raises:
        RepositoryConfigurationError: There is none.
    """
    from keepsake.exceptions import RepositoryConfigurationError

    repository = project.repository_at_hand()
    if not repository.exists():
        raise RepositoryConfigurationError(
            f"no repository at {repository.label}", hint="look for a slip in the address; the first keepsake.init() makes it"
        )
    return repository


def view(ctx: click.Context, *, short: int, every: bool = False, fits: bool = True) -> View:
    """Return how the options and the terminal want a page to look.

    Args:
        ctx: The command's context.
        short: How many characters of an ID are shown.
        every: Whether to show what is left out otherwise.
        fits: Whether it must not be wider than the terminal.
    """
    from keepsake.cli import terminal
    from keepsake.display.tables import UNLIMITED, View
    from keepsake.repository.json_values import utc_now

    width = terminal.columns()
    return View(
        now=utc_now(),
        width=width if fits or width is None else UNLIMITED,
        every=every,
        short=short,
        style=terminal.style(ctx.ensure_object(dict).get("color")),
        unicode=terminal.can_draw(),
    )


def view_of(ctx: click.Context, records: Iterable[ExperimentRecord], *, every: bool = False) -> View:
    """Return how the options and the terminal want a page to look.

    Args:
        ctx: The command's context.
        records: All experiments of the repository: a short ID must tell them apart.
        every: Whether to show what is left out otherwise.
    """
    return view(ctx, short=short_length_among(records), every=every)


def short_length_among(records: Iterable[ExperimentRecord]) -> int:
    """Return how many characters of an ID tell all of these experiments and their checkpoints apart."""
    from keepsake.display.tables import short_length

    ids: list[str] = []
    for record in records:
        ids += [record.id, *(checkpoint.id for checkpoint in record.checkpoints)]
    return short_length(ids)


def examples(*lines: str) -> str:
    r"""Return the end of a help text: examples that can be pasted; ``\b`` keeps click from joining them."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
