"""docs/cli.md names every command, option, exit code and environment variable."""

from __future__ import annotations

import re

import click
import pytest

from keepsake.cli import ALIASES, COMMANDS, cli
from keepsake.cli.errors import EXIT_CODES
from keepsake.query.filters import FIELDS
from tests.conftest import ROOT

DOCUMENT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
VARIABLES = [
    "KEEPSAKE_REPOSITORY",
    "KEEPSAKE_DIRECTORY",
    "KEEPSAKE_MODE",
    "KEEPSAKE_USER",
    "KEEPSAKE_HOST",
    "KEEPSAKE_DEBUG",
    "KEEPSAKE_LOG",
    "KEEPSAKE_NO_PROMPT",
    "KEEPSAKE_REDACT",
    "KEEPSAKE_NO_ANALYTICS",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR_FORCE",
    "CI",
    "TERM",
]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command(name: str) -> None:
    sections = re.split(r"^##+ ", DOCUMENT, flags=re.MULTILINE)
    [section] = [section for section in sections if re.match(rf"`keepsake {name}\b", section)]
    command = cli.get_command(None, name)
    assert command is not None
    for option in (one for one in command.params if isinstance(one, click.Option)):
        for spelling in option.opts:
            assert re.search(rf"(?<![\w-]){re.escape(spelling)}(?![\w-])", section), f"{name} {spelling}"


def test_other_names_exit_codes_and_variables() -> None:
    assert all(f"`keepsake {alias}`" in DOCUMENT for alias in ALIASES)
    assert all(f"| {code} | " in DOCUMENT for code in EXIT_CODES)
    assert all(f"`{variable}`" in DOCUMENT for variable in VARIABLES)
    assert [name for name in FIELDS if not re.search(rf"\b{name}\b", DOCUMENT)] == []
