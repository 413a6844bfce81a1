"""The command line: one command a file, from options through the public API to `keepsake.display`.

A command's file is loaded when the command runs, so that none of them waits for what another one needs.
"""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import Any

import click

from keepsake import __version__

COMMANDS = {
    "ls": "list experiments",
    "ps": "list running experiments",
    "show": "show everything about an experiment or a checkpoint",
    "diff": "compare two experiments or checkpoints",
    "checkout": "copy code and weights into a directory",
    "rm": "delete experiments or checkpoints",
    "init": "say where this project's experiments live",
}
"""The commands with what they do; each is the object of its own name in the module ``keepsake.cli.<name>_command``."""

ALIASES = {"list": "ls", "processes": "ps", "delete": "rm"}


COLOR_CHOICES = ["auto", "always", "never", "true", "false"]
"""Values of ``--color``; the last two are those of keepsake 0.4.2."""


class LazyGroup(click.Group):
    """A group whose commands are loaded when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:
        """Return a command by its name or its other name."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"keepsake.cli.{name}_command"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name those that are spelled alike."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], [*COMMANDS, *ALIASES], n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f'no command "{args[0]}".{hint}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes, environment variables and filters: docs/cli.md. Every command has --help with examples.",
)
@click.version_option(__version__, "--version", prog_name="keepsake", message="%(prog)s %(version)s")
@click.option(
    "-D", "--project-directory", metavar="DIR", help="Project directory; default: where keepsake.yaml is, from here upwards."
)
@click.option("-v", "--verbose", is_flag=True, help="Show where errors come from.")
@click.option("--color", type=click.Choice(COLOR_CHOICES), metavar="WHEN", help="When to use colours: auto, always, never.")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Version control for machine learning."""
    ctx.ensure_object(dict).update({name: value for name, value in options.items() if value})


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    from keepsake.cli.errors import exit_code_of

    arguments = _with_color_values(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(arguments, prog_name="keepsake", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as err:  # noqa: BLE001 - the one place where any error becomes a message and an exit code
        sys.exit(exit_code_of(err, verbose="-v" in arguments or "--verbose" in arguments))
    sys.exit(code if isinstance(code, int) else 0)


def _with_color_values(arguments: list[str]) -> list[str]:
    """Give a ``--color`` without a value, as keepsake 0.4.2 has it, the value that it means."""
    following = [*arguments[1:], ""]
    return [
        "--color=always" if word == "--color" and after not in COLOR_CHOICES else word
        for word, after in zip(arguments, following, strict=True)
    ]
