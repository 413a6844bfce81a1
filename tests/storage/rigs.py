"""A rig is a store with its surroundings (a server, credentials) that the suite runs on. Here: which rigs may not be missing.

``KEEPSAKE_REQUIRE_RIGS=s3,gcs pytest tests/storage`` fails where a test of these rigs is skipped, and where none was found at all, as
when a whole file is skipped because a package is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and rig_of(item) in required_rigs():
        report.outcome = "failed"
        report.longrepr = f"rig {rig_of(item)} is in KEEPSAKE_REQUIRE_RIGS and may not be skipped: {report.longrepr}"
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    missing = required_rigs() - {rig_of(item) for item in session.items}
    if missing:
        raise pytest.UsageError(f"KEEPSAKE_REQUIRE_RIGS: no test found for {', '.join(sorted(missing))}")


def required_rigs() -> set[str]:
    return set(os.environ.get("KEEPSAKE_REQUIRE_RIGS", "").replace(",", " ").split())


def rig_of(item: pytest.Item) -> str:
    return str(getattr(getattr(item, "cls", None), "rig", ""))
