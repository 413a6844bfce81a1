"""Help: every command ends with examples, and asking for it loads nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from keepsake.cli import COMMANDS
from tests.cli.conftest import Result


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_ends_with_three_to_five_examples(here: Callable[..., Result], command: list[str]) -> None:
    result = here(*command, "--help")
    shown = result.out.split("  Examples:\n")
    assert (result.code, result.err, len(shown)) == (0, "", 2)
    examples = shown[1].splitlines()
    assert 3 <= len(examples) <= 5
    assert all("keepsake" in line for line in examples)
    assert here(*command, "-h").out == result.out


def test_help_loads_no_command_and_no_yaml() -> None:
    code = """
import sys
from keepsake.__main__ import main
try:
    main(["--help"])
finally:
    print(sorted(n for n in sys.modules if n == "yaml" or (n.startswith("keepsake.cli.") and n.endswith("_command"))), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_the_version(here: Callable[..., Result]) -> None:
    from keepsake import __version__

    assert here("--version").out == f"keepsake {__version__}\n"
