"""``keepsake ps``: the experiments that run now."""

from __future__ import annotations

from typing import Any

import click

from keepsake.cli.ls_command import Options, list_experiments, list_options
from keepsake.cli.options import examples


@click.command(epilog=examples("keepsake ps", 'keepsake ps -f "user = ana"', "keepsake ps --json"))
@list_options
@click.pass_context
def ps(ctx: click.Context, /, repository: str | None, **options: Any) -> None:
    """List running experiments: those whose heartbeat is young."""
    list_experiments(ctx, repository, Options(**options, running=True))
