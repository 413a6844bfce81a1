"""Writes ``docs/cli-reference.md`` from the commands themselves: ``python docs/generate_cli_reference.py``.

A test of ``tests/docs`` fails while the file is not what this prints.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from keepsake.cli import ALIASES, COMMANDS, cli
from keepsake.cli.errors import EXIT_CODES
from keepsake.settings import SETTINGS, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TARGET = Path(__file__).with_name("cli-reference.md")

INTRODUCTION = """\
# Reference of the command line

Made from the commands by `python docs/generate_cli_reference.py`; [the command line](cli.md) explains them, with what they print.
"""


def reference() -> str:
    """Return the whole text."""
    parts = [
        [INTRODUCTION],
        ["## Commands", "", *table(("command", "what it does"), (row(name) for name in COMMANDS))],
        aliases(),
        *(section(name) for name in COMMANDS),
        ["## Options of every command", "", *table(("option", "meaning"), SHARED)],
        ["## Exit codes", "", *table(("code", "meaning"), ((f"`{code}`", meaning) for code, meaning in EXIT_CODES.items()))],
        ["## Settings", "", *table(("key", "meaning", "default", "variable"), settings())],
        ["## Environment variables", "", *table(("variable", "meaning", "default"), variables())],
    ]
    return "\n".join(line for part in parts for line in [*part, ""]).rstrip("\n").replace("\n\n\n", "\n\n") + "\n"


def row(name: str) -> tuple[str, str]:
    return f"[`keepsake {name}`](#keepsake-{name})", COMMANDS[name]


def aliases() -> list[str]:
    return [", ".join(f"`keepsake {alias}` is `keepsake {name}`" for alias, name in ALIASES.items()) + "."]


def section(name: str) -> Iterator[str]:
    command = command_named(name)
    yield f"## `keepsake {name}`"
    yield ""
    yield paragraphs(command.help or "")
    yield ""
    yield "```"
    yield " ".join(command.get_usage(context_of(command, name)).removeprefix("Usage: ").split())
    yield "```"
    own = [option for option in options_of(command) if option not in SHARED]
    if own:
        yield ""
        yield from table(("option", "meaning"), own)
    if command.epilog:
        yield ""
        yield "```sh"
        yield from (line.removeprefix("  ") for line in command.epilog.partition("Examples:\n")[2].splitlines())
        yield "```"


def context_of(command: click.Command, name: str = "") -> click.Context:
    return click.Context(command, info_name=f"keepsake {name}", **cli.context_settings)


def command_named(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def options_of(command: click.Command) -> list[tuple[str, str]]:
    """Return the options that its help text lists, ``--help`` included, and what they mean."""
    found = [parameter for parameter in command.get_params(context_of(command)) if isinstance(parameter, click.Option)]
    return [option_row(option) for option in found if not option.hidden]


def option_row(option: click.Option) -> tuple[str, str]:
    flags, meaning = option.get_help_record(context_of(click.Command("any"))) or ("", "")
    value = "" if option.is_flag or option.count else flags.rpartition(" ")[2]
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return f"{names} {f'`{value}`' if value else ''}".strip(), " ".join(meaning.split())


_counts = Counter(row for name in COMMANDS for row in options_of(command_named(name)))
SHARED = [row for row, count in _counts.items() if count > len(COMMANDS) / 2]
"""Options that most commands have, and that are listed once."""


def settings() -> Iterator[tuple[str, str, str, str]]:
    for name, setting in SETTINGS.items():
        default = "" if setting.default in (None, "", (), {}) else f"`{written(setting.default)}`"
        yield f"`{name}`", setting.meaning, default, f"`{setting.variable}`" if setting.variable else ""


def written(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def variables() -> Iterator[tuple[str, str, str]]:
    for name, variable in VARIABLES.items():
        yield f"`{name}`", variable.meaning, f"`{variable.default}`" if variable.default else ""


def paragraphs(text: str) -> str:
    """Join the lines of each paragraph."""
    return "\n\n".join(" ".join(block.replace("\b", "").split()) for block in text.split("\n\n"))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines]


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
