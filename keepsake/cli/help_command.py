"""``keepsake help``: commands and topics explained."""

from __future__ import annotations

import click

from keepsake.cli import cli, unknown_command
from keepsake.cli.errors import EXIT_CODES
from keepsake.cli.options import examples, global_options

ENVIRONMENT = {
    "KEEPSAKE_REPOSITORY": "the repository, like -R",
    "KEEPSAKE_DIRECTORY": "the project directory, like -D",
    "KEEPSAKE_MODE": "disabled: recording calls do nothing; online (default), offline",
    "KEEPSAKE_EXPERIMENT": "the experiment that a training goes on with: its ID, or a whole ID for a new one",
    "KEEPSAKE_LIGHTNING_VERSION": "set by the Lightning logger for the processes that Lightning launches",
    "KEEPSAKE_USER, KEEPSAKE_HOST": "recorded instead of the user's and the machine's name",
    "KEEPSAKE_REDACT": "further names of params whose values are hidden, separated by commas",
    "KEEPSAKE_LOG": "least level of messages: debug, info (default), warning, error",
    "KEEPSAKE_DEBUG": "1: show where errors come from, like -v",
    "KEEPSAKE_NO_PROMPT, CI": "never ask: where an answer is needed, exit with 6",
    "KEEPSAKE_NO_ANALYTICS": "accepted; there is nothing to switch off",
    "NO_COLOR": "no colours on a terminal",
    "FORCE_COLOR, CLICOLOR_FORCE": "colours also where the answer goes into a pipe or a file",
    "TERM": "dumb: no colours",
    "COLUMNS": "width of the terminal",
}
"""Environment variables and what they do."""

FILTERS = """\
A filter is NAME OPERATOR VALUE. Several (-f repeated) must all hold.

  NAME      a field (id created ended status outcome error user host command path step
            checkpoints python_version keepsake_version), else a metric (of the best
            checkpoint, else of the latest), else a param; nested params have dotted names
  OPERATOR  = == != < <= > >=
  VALUE     a number, a text, "a quoted text", true, false, none, nan, inf, or, for
            created and ended, a date such as 2026-11-01 or 2026-11-01T12:30Z

status is running, stopped or failed; "status = stopped" finds all that do not run.
An experiment that lacks the name fulfils != only. A name that no experiment has is an error.

Sort keys are the same names: -s val_loss, and -s -val_loss or -s val_loss-desc downwards.
Experiments without a value come last in either direction."""

TOPICS = ("environment", "exit-codes", "filters")


@click.command(epilog=examples("keepsake help", "keepsake help ls", "keepsake help filters", "keepsake help exit-codes"))
@click.argument("topic", required=False)
@global_options
@click.pass_context
def help(ctx: click.Context, /, topic: str | None) -> None:
    """Explain a command, or one of: environment, exit-codes, filters."""
    if topic is None:
        click.echo(cli.get_help(ctx.find_root()))
    elif topic == "environment":
        click.echo(_table(ENVIRONMENT))
    elif topic == "exit-codes":
        click.echo(_table({str(code): meaning for code, meaning in EXIT_CODES.items()}))
    elif topic == "filters":
        click.echo(FILTERS)
    else:
        command = cli.get_command(ctx, topic)
        if command is None:
            raise unknown_command(topic, ctx)
        with click.Context(command, info_name=topic, parent=ctx.find_root()) as context:
            click.echo(command.get_help(context))


def _table(meanings: dict[str, str]) -> str:
    widest = max(len(name) for name in meanings)
    return "\n".join(f"{name:<{widest}}  {meaning}" for name, meaning in meanings.items())
