"""``keepsake completion``: the script that lets a shell complete words."""

from __future__ import annotations

import click

from keepsake.cli.completing import SCRIPTS
from keepsake.cli.options import examples, global_options


@click.command(
    epilog=examples(
        "keepsake completion bash >> ~/.bashrc",
        "keepsake completion zsh > ~/.zfunc/_keepsake      # a directory of $fpath",
        "keepsake completion fish > ~/.config/fish/completions/keepsake.fish",
    )
)
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
@global_options
def completion(shell: str) -> None:
    """Print the script that lets a shell complete commands, options, IDs, names, tags and metrics.

    What is known of experiments is what the last keepsake ls has seen: nothing is asked of the repository.
    """
    click.echo(SCRIPTS[shell], nl=False)
