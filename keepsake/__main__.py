"""``python -m keepsake``: the command line."""

from keepsake.cli import main

if __name__ == "__main__":
    main()
