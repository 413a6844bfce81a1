"""The guards of the suite guard: a rig that must run cannot be skipped, and no test of the suite be replaced in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage.conformance import StorageTests, overrides_suite

RIG = """
import pytest

class TestS3:
    rig = "s3"

    def test_that_runs(self): ...

    def test_that_needs_a_server(self):
        pytest.skip("no server")
"""

WHOLE_FILE = """
import pytest
pytest.importorskip("a_package_that_nobody_has")

class TestS3:
    rig = "s3"

    def test_that_runs(self): ...
"""


def run(directory: Path, code: str, required: str) -> tuple[int, str]:
    (directory / "test_rig.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.storage.rigs", "-p", "no:cacheprovider", "test_rig.py"]
    env = {**os.environ, "KEEPSAKE_REQUIRE_RIGS": required}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_rig_may_be_skipped_where_nobody_requires_it(tmp_path: Path) -> None:
    code, out = run(tmp_path, RIG, required="")
    assert (code, "1 passed, 1 skipped" in out) == (0, True), out


def test_a_required_rig_may_not_be_skipped(tmp_path: Path) -> None:
    code, out = run(tmp_path, RIG, required="s3")
    assert (code, "1 failed, 1 passed" in out) == (1, True), out
    assert "may not be skipped" in out
    assert "no server" in out


def test_a_required_rig_may_not_be_missing(tmp_path: Path) -> None:
    code, out = run(tmp_path, WHOLE_FILE, required="gcs, s3")
    assert code == pytest.ExitCode.USAGE_ERROR, out
    assert "no test found for gcs, s3" in out


def test_a_test_of_the_suite_cannot_be_replaced_in_silence() -> None:
    with pytest.raises(TypeError, match="say why with @overrides_suite"):

        class Quiet(StorageTests):
            rig = "quiet"

            def test_a_directory_is_no_object(self) -> None: ...  # type: ignore[override]


def test_nor_through_a_class_in_between() -> None:
    class Between:
        def test_a_directory_is_no_object(self) -> None: ...

    with pytest.raises(TypeError, match="say why with @overrides_suite"):

        class Quiet(Between, StorageTests):  # type: ignore[misc]
            rig = "quiet"


def test_a_reason_must_be_given() -> None:
    with pytest.raises(ValueError, match="reason"):
        overrides_suite("")

    class Spoken(StorageTests):
        rig = "spoken"

        @overrides_suite("objects of this store have no directories")
        def test_a_directory_is_no_object(self) -> None: ...


def test_a_rig_has_a_name() -> None:
    with pytest.raises(TypeError, match="rig"):

        class Nameless(StorageTests): ...
