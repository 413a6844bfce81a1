"""Makes the rigs' guard known to pytest."""

from __future__ import annotations

from tests.storage.rigs import pytest_collection_finish, pytest_runtest_makereport

__all__ = ["pytest_collection_finish", "pytest_runtest_makereport"]
