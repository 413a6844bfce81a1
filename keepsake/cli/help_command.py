"""``keepsake help``: commands and topics explained."""

from __future__ import annotations

import click

from keepsake.cli import cli, unknown_command
from keepsake.cli.errors import EXIT_CODES
from keepsake.cli.options import examples, global_options
from keepsake.settings import VARIABLES

FILTERS = """\
A filter is NAME OPERATOR VALUE. Filters are joined by and, or, not and parentheses:
not binds closest, then and, then or. Several -f must all hold.

  keepsake ls -f "val_loss < 0.2 and (optimizer = adam or tag = prod)"
  keepsake ls -f "created > 2d" -f "not status = running"
  keepsake ls -f "command ~ resnet.*--amp and max.val_acc >= 0.9"

OPERATOR
  = (==) !=              equal as a whole; a text in upper and lower case as it stands
  < <= > >=              order: numbers with numbers, "quoted" or plain texts with texts
  ~ !~                   a regular expression is found in the text, in any case, or is not
  in (a, b)  not in (a)  equal to one of them, or to none
  exists  missing        the experiment has the name, or has not

NAME is looked up among the fields, then the metrics (of the best checkpoint, else of the
latest), then the params; nested params have dotted names: optim.lr. A name with signs or
keywords in it stands in quotes.
  texts     name notes user host command path error
  sets      tag (tags) alias (aliases): "tag = prod" asks whether it is among them
  words     status (running stopped failed), outcome (finished failed interrupted);
            "status = stopped" finds all that do not run, the failed ones too
  times     created (started) ended        lengths  age duration
  numbers   checkpoints, step (of the latest checkpoint, 0 before the first)
  others    id (any start of it), size, uploaded, python_version, keepsake_version
A prefix says where to look: param.X, metric.X, best.X and latest.X (that checkpoint),
max.X and min.X (over all checkpoints), git.commit git.branch git.dirty git.remote,
env.torch (a package, compared as a version) env.python.

VALUE is a number, a text, a "quoted text" (a quote in it is written twice), true, false,
none, nan, inf, or JSON: [1, 2]. Where the field asks for it:
  times     2026-11-01, 2026-11-01T12:30Z, local without a zone; 30m 3h 2d 1w mean so long
            ago: "created > 2d" is less than 2 days old, "created = 2026-11-01" that day
  lengths   45s 30m 3h 2d 1w 1h30m, or seconds          sizes  500MB 1GB 1GiB, or bytes

An experiment that lacks the name fulfils only what is negative (!= !~ not missing) and
"= none". A name that no experiment has is an error, and so is a value of another kind than
all of theirs.

Sort keys are the same names: -s val_loss; -s -val_loss or val_loss-desc downwards; several
with commas. Experiments without a value, and NaN, come last in either direction."""
"""What ``keepsake help filters`` says."""

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
        click.echo(_table({name: variable.meaning for name, variable in VARIABLES.items()}))
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
