"""``python -m keepsake``: the command line."""

from keepsake.cli import main

main()
