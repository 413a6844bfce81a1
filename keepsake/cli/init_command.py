"""``keepsake init``: write keepsake.yaml."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from keepsake.cli.options import common_options, examples, yes_option
from keepsake.exceptions import UnsavedFiles

DEFAULT_REPOSITORY = "file://.keepsake"


@click.command(
    epilog=examples("keepsake init", "keepsake init --repository file:///mnt/lab/runs", "keepsake init --yes     (no questions)")
)
@click.option("-f", "--force", is_flag=True, help="Replace a keepsake.yaml that is there.")
@yes_option
@common_options
@click.pass_context
def init(ctx: click.Context, repository: str | None, force: bool, yes: bool) -> None:
    """Say where the experiments of this directory live: write keepsake.yaml."""
    from keepsake.cli import terminal
    from keepsake.project import Project

    directory = Path(ctx.ensure_object(dict).get("project_directory") or ".").absolute()
    config = directory / "keepsake.yaml"
    if config.exists() and not force:
        raise UnsavedFiles(f"{config} is there already", hint="change it by hand, or replace it with --force")
    asks = not yes and sys.stdin.isatty()
    if repository is None:
        answer = terminal.ask(f"Where should experiments live? [{DEFAULT_REPOSITORY}] ", flag="--repository") if asks else ""
        repository = answer or DEFAULT_REPOSITORY
    # An address that nobody understands must fail here and not in the first training.
    Project(repository=repository, directory=directory).repository_at_hand().check()
    config.write_text(f'repository: "{repository}"\n', encoding="utf-8")
    click.echo(f"Wrote {config}: experiments will live in {repository}.", err=True)
    ignored = _ignored_name(repository)
    wanted = yes or (asks and terminal.confirm(f"Keep {ignored} out of Git?", flag="--yes")) if ignored else False
    if ignored and wanted and (directory / ".git").exists():
        _add_to_gitignore(directory / ".gitignore", ignored)
    click.echo('Next: call keepsake.init(path=".") at the start of your training, or add a callback to your trainer.', err=True)


def _ignored_name(repository: str) -> str | None:
    """Return what .gitignore should say for a repository inside the project, or None."""
    location = Path(repository.removeprefix("file://"))
    if "://" in repository.removeprefix("file://") or location.is_absolute() or ".." in location.parts:
        return None
    return f"{location.as_posix()}/"


def _add_to_gitignore(file: Path, name: str) -> None:
    content = file.read_text(encoding="utf-8") if file.exists() else ""
    if name not in content.splitlines():
        file.write_text(f"{content}{'' if not content or content.endswith(chr(10)) else chr(10)}{name}\n", encoding="utf-8")
        click.echo(f"Added {name} to {file.name}.", err=True)
