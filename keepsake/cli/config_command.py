"""``keepsake config``: print what is set, and where."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from keepsake.cli.options import common_options, examples, json_option, options, project_of

if TYPE_CHECKING:
    from keepsake.config import Said, Settings
    from keepsake.exceptions import ConfigInvalid

NOT_SET, DEFAULT, ENVIRONMENT, ARGUMENT, INVALID = "not set", "default", "environment", "-R", "invalid"
"""Sources of a value, beside the names of variables and files."""


@click.command(
    epilog=examples(
        "keepsake config",
        "keepsake config -D ~/hotdog",
        "keepsake config --json",
        "keepsake help environment",
    )
)
@options(json_option, common_options)
@click.pass_context
def config(ctx: click.Context, as_json: bool, repository: str | None) -> None:
    """Print every setting and environment variable: its value, and where that comes from.

    An option goes before a variable, that before keepsake.yaml, that before [tool.keepsake] of pyproject.toml, and that before the
    user's own file, ~/.config/keepsake/config.toml. Secrets are not shown.
    """
    from keepsake.config import shown_path
    from keepsake.exceptions import ConfigInvalid

    project = project_of(ctx, repository)
    settings = project.settings()
    files = [table.file for table in settings.tables]
    said, errors = _said(settings, repository)
    if as_json:
        from keepsake.cli import json_output

        found = {
            "directory": str(project.directory),
            "files": [str(file) for file in files],
            "settings": {name: _as_json(name, one) for name, one in said.items()},
            "variables": {name: one._asdict() for name, one in _variables().items()},
        }
        click.echo(json_output.dumps(found))
    else:
        click.echo(f"Directory  {_safe(shown_path(project.directory))}")
        click.echo(f"Files      {_safe(', '.join(map(shown_path, files))) or 'none'}")
        for heading, rows in (("SETTING", said), ("VARIABLE", _variables())):
            click.echo()
            _print_table(heading, rows)
    if errors:
        raise ConfigInvalid(errors[0].message, facts=[err.message for err in errors[1:]])


def _said(settings: Settings, repository: str | None) -> tuple[dict[str, Said], list[ConfigInvalid]]:
    """Return the settings without secrets, and what is wrong with those that are invalid."""
    from keepsake.capture.redaction import redact_text
    from keepsake.config import Said
    from keepsake.exceptions import ConfigInvalid
    from keepsake.settings import SETTINGS

    said: dict[str, Said] = {}
    errors = []
    for name in SETTINGS:
        try:
            if name == "repository" and repository is not None:
                found = {name: Said(repository, ARGUMENT)}
            elif name == "remotes":
                remotes = settings.remotes()
                found = {f"remotes.{remote}": one for remote, one in remotes.items()} or {name: Said(None, NOT_SET)}
            else:
                one = settings.get(name)
                found = {name: one._replace(source=NOT_SET) if one.value is None else one}
        except ConfigInvalid as err:
            errors.append(err)
            found = {name: Said(None, INVALID)}
        for key, one in found.items():
            said[key] = one._replace(value=redact_text(one.value)) if isinstance(one.value, str) else one
    return said, errors


def _variables() -> dict[str, Said]:
    from keepsake.capture.redaction import redact_text
    from keepsake.config import Said
    from keepsake.settings import VARIABLES

    return {
        name: Said(redact_text(os.environ[name]), ENVIRONMENT)
        if os.environ.get(name)
        else Said(variable.default or None, DEFAULT if variable.default else NOT_SET)
        for name, variable in VARIABLES.items()
    }


def _as_json(name: str, said: Said) -> dict[str, Any]:
    value = said.value
    if name == "primary_metric" and value is not None:
        value = dict(zip(("name", "goal"), value, strict=True))
    return {**said._asdict(), "value": list(value) if isinstance(value, tuple) else value}


def _print_table(heading: str, rows: dict[str, Said]) -> None:
    from keepsake.cli import terminal
    from keepsake.display import tables, text

    names = tables.Column(heading, [_safe(name) for name in rows])
    sources = tables.Column("FROM", [_safe(said.place) for said in rows.values()])
    values = tables.Column("VALUE", [_safe(_text(said.value)) for said in rows.values()])
    width = terminal.columns()
    if width is not None:
        # A long value must not push its source out of sight.
        room = max(len(values.heading), width - names.width - sources.width - 2 * len(tables.GAP))
        values = tables.Column(values.heading, [text.cut_end(cell, room) for cell in values.cells])
    click.echo("\n".join(tables.lines([names, values, sources])))


def _text(value: Any) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _safe(shown: str) -> str:
    from keepsake.display.text import safe

    return safe(shown)
