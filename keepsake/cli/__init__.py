"""The command line: one command a file, from options through the public API to `keepsake.display`.

A command's file is loaded when the command runs, so that none of them waits for what another one needs.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from keepsake import __version__
from keepsake.cli.options import examples, global_options

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "ls": "list experiments",
    "ps": "list running experiments",
    "show": "show everything about an experiment or a checkpoint",
    "diff": "compare experiments, checkpoints or the working directory",
    "checkout": "copy code and weights into a directory",
    "tag": "group experiments by tags",
    "name": "give an experiment a name",
    "note": "write notes about an experiment",
    "alias": "give a checkpoint an alias, such as @production",
    "rm": "delete experiments or checkpoints",
    "sync": "upload what was recorded while the repository could not be reached",
    "push": "copy experiments of this project to another repository",
    "pull": "copy experiments of another repository to this project",
    "copy": "copy experiments from one repository to another",
    "fsck": "check that everything is there and undamaged, and mend what can be",
    "config": "print what is set, and where",
    "completion": "print the script that lets a shell complete words",
    "init": "say where this project's experiments live",
    "help": "explain a command, or: environment, exit-codes, filters",
}
"""The commands with what they do; each is the object of its own name in the module ``keepsake.cli.<name>_command``."""

ALIASES = {"list": "ls", "processes": "ps", "delete": "rm"}
"""Other names of commands, those of keepsake 0.4.2."""


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
        command: click.Command = getattr(import_module(f"keepsake.cli.{name}_command"), name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name those that are spelled alike."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown_command(args[0], ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def unknown_command(name: str, ctx: click.Context) -> click.UsageError:
    """Return the error for a command that does not exist, with the nearest one that does."""
    import difflib

    close = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=1)
    return click.UsageError(f'no command "{name}"{f", did you mean {close[0]}?" if close else ""}', ctx)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "keepsake init",
        'keepsake ls -f "val_loss < 0.2" -s val_loss',
        "keepsake show 4591273",
        "keepsake checkout 4591273 -o out/",
        "keepsake help exit-codes",
    ),
)
@click.version_option(__version__, "--version", prog_name="keepsake", message="%(prog)s %(version)s")
@global_options
def cli() -> None:
    """Version control for machine learning."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; whatever goes wrong is said on standard error."""
    from keepsake.cli import completing

    if completing.VARIABLE in os.environ:
        completing.answer(os.environ[completing.VARIABLE], arguments)
        return 0
    from keepsake.cli import errors, terminal

    settings: dict[str, Any] = {}
    with terminal.prepared():
        try:
            code = _invoke(arguments, settings)
            sys.stdout.flush()
        except BaseException as err:  # noqa: BLE001 - the one place where any error becomes a message and an exit code
            return errors.exit_code_of(err, verbose=bool(settings.get("verbose")))
    return code


def _invoke(arguments: Sequence[str], settings: dict[str, Any]) -> int:
    # Not click's main(): it prints lines of its own after Ctrl-C and when the reader of a pipe is gone.
    words = _with_color_values(arguments) or ["--help"]
    try:
        with cli.make_context("keepsake", words, obj=settings) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def _with_color_values(arguments: Sequence[str]) -> list[str]:
    """Give a ``--color`` without a value, as keepsake 0.4.2 has it, the value that it means."""
    from keepsake.cli.terminal import COLOR_CHOICES

    following = [*arguments[1:], ""]
    return [
        "--color=always" if word == "--color" and after not in COLOR_CHOICES else word
        for word, after in zip(arguments, following, strict=False)
    ]
