"""``keepsake init``: write keepsake.yaml."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepsake.cli.options import examples, global_options, options, yes_option
from keepsake.exceptions import NotConfirmed, UnsavedFiles

if TYPE_CHECKING:
    from keepsake.project import Project

DEFAULT_REPOSITORY = "file://.keepsake"


@click.command(
    epilog=examples(
        "keepsake init",
        "keepsake init --yes                          # no questions",
        "keepsake init file:///mnt/lab/runs",
        "keepsake init s3://acme-hotdog/runs",
    )
)
@click.argument("url", metavar="[URL]", required=False)
@options(
    click.option("-R", "--repository", metavar="URL", help=f"The same as URL; default: {DEFAULT_REPOSITORY}."),
    click.option("-f", "--force", is_flag=True, help="Replace a keepsake.yaml that is there."),
    yes_option,
    global_options,
)
@click.pass_context
def init(ctx: click.Context, url: str | None, repository: str | None, force: bool, yes: bool) -> None:
    """Say where the experiments of this directory live: write keepsake.yaml with this URL.

    Asks where, and whether to keep that out of Git, if a person sits at the terminal. Offers to make a bucket that does not exist.
    """
    from keepsake.cli import terminal
    from keepsake.config import CONFIG_FILE_NAMES, shown_path
    from keepsake.project import Project

    if url is not None and repository is not None:
        raise click.UsageError("give the address once, as URL or with -R/--repository", ctx)
    repository = url or repository
    directory = _directory(ctx)
    present = next((directory / name for name in CONFIG_FILE_NAMES if (directory / name).exists()), None)
    if present is not None and not force and repository is not None and _says(directory, repository):
        _check(Project(repository=repository, directory=directory), yes=yes)
        terminal.print_lines(f"{shown_path(present)} is there already: experiments live in {repository}.")
        return
    if present is not None and not force:
        raise UnsavedFiles(f"{shown_path(present)} is there already", hint="change it by hand, or replace it with -f/--force")
    asks = not yes and terminal.can_ask()
    if repository is None and asks:
        repository = terminal.ask(f"Where should experiments live? [{DEFAULT_REPOSITORY}]", flag="--repository")
    repository = repository or DEFAULT_REPOSITORY
    # An address that nobody understands must fail here and not in the first training.
    _check(Project(repository=repository, directory=directory), yes=yes)
    config = directory / CONFIG_FILE_NAMES[0]
    # JSON's quoted text is YAML's as well, whatever characters the address has.
    config.write_text(f"repository: {json.dumps(repository, ensure_ascii=False)}\n", encoding="utf-8")
    terminal.print_lines(f"Wrote {shown_path(config)}: experiments will live in {repository}.")
    ignored = _to_be_ignored(directory, repository)
    if ignored is not None and (yes or (asks and terminal.confirm(f"Add {ignored} to .gitignore?", flag="-y/--yes"))):
        _append(directory / ".gitignore", ignored)
        terminal.print_lines(f"Added {ignored} to {shown_path(directory / '.gitignore')}.")
    terminal.print_lines('Next: call keepsake.init(path=".") at the start of your training, or add a callback to your trainer.')


def _says(directory: Path, repository: str) -> bool:
    """Tell whether the configuration of a directory names this repository, and can be understood."""
    from keepsake.exceptions import KeepsakeError
    from keepsake.project import Project

    with suppress(KeepsakeError):
        return Project(directory=directory).repository_url == repository
    return False


def _check(project: Project, *, yes: bool) -> None:
    from keepsake.cli import terminal

    repository = project.store_at_hand()
    if repository.lacks_bucket():
        if not yes and not terminal.confirm(f"There is no bucket for {repository.label}. Make it?", flag="-y/--yes"):
            raise NotConfirmed("nothing was written: there is no bucket", hint="look for a slip in its name")
        repository.create_bucket()
        terminal.print_lines(f"Made the bucket for {repository.label}.")
    repository.check()


def _directory(ctx: click.Context) -> Path:
    from keepsake.config import find_directory

    named = ctx.ensure_object(dict).get("project_directory") or os.environ.get("KEEPSAKE_DIRECTORY")
    # Not the nearest one with a keepsake.yaml: this command makes a new one.
    return find_directory(named) if named else Path.cwd()


def _to_be_ignored(directory: Path, repository: str) -> str | None:
    """Return the line that .gitignore lacks for a repository inside a Git working tree, or None."""
    location = Path(repository.removeprefix("file://"))
    is_inside = location.parts and "://" not in repository.removeprefix("file://") and not location.is_absolute()
    if not is_inside or ".." in location.parts or not any((one / ".git").exists() for one in (directory, *directory.parents)):
        return None
    line = f"{location.as_posix()}/"
    file = directory / ".gitignore"
    return None if file.exists() and line in file.read_text(encoding="utf-8").split() else line


def _append(file: Path, line: str) -> None:
    content = file.read_text(encoding="utf-8") if file.exists() else ""
    separator = "" if not content or content.endswith("\n") else "\n"
    file.write_text(f"{content}{separator}{line}\n", encoding="utf-8")
