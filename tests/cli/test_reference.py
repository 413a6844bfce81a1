"""`docs/cli.md` and the help texts leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from keepsake.cli import ALIASES, COMMANDS, cli
from keepsake.cli.errors import EXIT_CODES
from keepsake.cli.help_command import FILTERS, TOPICS
from keepsake.query.grammar import OPERATORS
from keepsake.query.names import FIELDS, PREFIXES
from keepsake.settings import SETTINGS, VARIABLES
from tests.conftest import ROOT

REFERENCE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def part(heading: str) -> str:
    """Return what the reference says under a heading."""
    return REFERENCE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def command(name: str) -> click.Command:
    found = cli.get_command(None, name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_is_documented(name: str) -> None:
    said = part(f"`keepsake {name}`")
    assert f"[`keepsake {name}`]" in REFERENCE
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert re.search(rf"`{re.escape(option)}[ `]", said), f"{name} {option} is not in docs/cli.md"
            assert parameter.help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_in_the_reference_exists(name: str) -> None:
    known = {option for parameter in command(name).params for option in parameter.opts}
    rows = [line for line in part(f"`keepsake {name}`").splitlines() if line.startswith("| `-")]
    for row in rows:
        for option in re.findall(r"`(--?[a-z][\w-]*)", row.split("|")[1], re.IGNORECASE):
            assert option in known, f"docs/cli.md has {name} {option}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text_ends_with_three_to_five_examples_that_can_be_run(name: str) -> None:
    check_examples(command(name).epilog)


def test_the_programs_own_help_text_too() -> None:
    check_examples(cli.epilog)


def check_examples(epilog: str | None) -> None:
    assert epilog is not None
    lines = epilog.partition("Examples:\n")[2].splitlines()
    assert 3 <= len(lines) <= 5
    for line in lines:
        assert line.startswith("  keepsake ")
        words = re.split(r"  #|[|>&]", line)[0].split()
        options = {option for parameter in command(words[1]).params for option in parameter.opts}
        used = re.findall(r"(?<=\s)--?[a-z][\w-]*", re.sub(r"\"[^\"]*\"|-s -\w+|\$\(.*\)", "", line.partition("  #")[0]))
        assert {option for option in used if option not in (".",)} <= options, line


def test_other_names_exit_codes_and_topics_are_documented() -> None:
    assert all(f"`keepsake {alias}`" in REFERENCE for alias in ALIASES)
    assert all(f"`keepsake help {topic}`" in REFERENCE for topic in TOPICS)
    plain = part("Exit codes").replace("`", "")
    assert re.findall(r"^\| (\d+) \| (.*) \|$", plain, re.MULTILINE) == [(str(code), said) for code, said in EXIT_CODES.items()]


def test_every_variable_that_is_read_is_documented() -> None:
    files = [path for path in Path(ROOT / "keepsake").rglob("*.py") if path.name != "settings.py"]
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    read = set(
        re.findall(r"[\"'](KEEPSAKE_[A-Z_]+|CI|NO_COLOR|FORCE_COLOR|CLICOLOR_FORCE|TERM|COLUMNS|XDG_[A-Z_]+)[\"']", sources)
    )
    documented = set(re.findall(r"`([A-Z][A-Z_0-9]+)`", part("Environment variables")))
    assert read <= documented
    assert set(VARIABLES) == documented


def test_every_setting_is_documented_and_nothing_else() -> None:
    assert re.findall(r"^\| `([a-z_.]+)` \|", part("Settings"), re.MULTILINE) == list(SETTINGS)


def test_every_field_is_documented() -> None:
    assert set(FIELDS) <= set(re.findall(r"`(\w+)`", part("Filters")))
    assert set(FIELDS) <= set(re.findall(r"\w+", FILTERS))


def test_every_operator_and_every_prefix_is_documented() -> None:
    for said in (part("Filters").replace("`", ""), FILTERS):
        assert {*OPERATORS, "in", "exists", "missing"} <= set(re.findall(r"[^\s|,()]+", said))
        assert {f"{prefix}." for prefix in PREFIXES} <= set(re.findall(r"[a-z]+\.", said))
