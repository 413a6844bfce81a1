"""Decides what can be collected: some tests run the original keepsake, which lives in an environment of its own."""

from __future__ import annotations

import os

# Not a skip: without the original there is nothing to run. `tox run -e compat` names it.
collect_ignore = [] if os.environ.get("KEEPSAKE_ORIGINAL") else ["test_original_reads_ours.py"]
