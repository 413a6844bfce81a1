"""The suite on disk, and what only a disk can do: permissions, full disks, and writers that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from keepsake.exceptions import ObjectNotFound, StorageError
from keepsake.storage import DiskStorage
from keepsake.storage.disk import TEMPORARY_DIRECTORY
from tests.storage.conformance import StorageTests, keys_below


class RawDisk:
    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: str) -> bytes | None:
        path = self._root / key
        return path.read_bytes() if path.is_file() else None

    def set(self, key: str, content: bytes) -> None:
        (self._root / key).parent.mkdir(parents=True, exist_ok=True)
        (self._root / key).write_bytes(content)

    def keys(self) -> list[str]:
        # All files: a temporary one that is left behind counts.
        return list(keys_below(self._root))


class TestDiskStorage(StorageTests):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> DiskStorage:
        return DiskStorage(tmp_path / "root")

    @pytest.fixture
    def raw(self, storage: DiskStorage) -> RawDisk:
        return RawDisk(storage.root)

    def test_the_constructor_touches_nothing(self, tmp_path: Path) -> None:
        storage = DiskStorage(tmp_path / "deep" / "root")
        assert list(storage.list()) == []
        with pytest.raises(ObjectNotFound):
            storage.read("a")
        storage.delete(["a"])
        assert list(tmp_path.iterdir()) == []

    def test_a_root_behind_a_link_works(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        DiskStorage(tmp_path / "link").write("a/b", b"x")
        assert [info.key for info in DiskStorage(tmp_path / "link").list()] == ["a/b"]
        assert (tmp_path / "real" / "a" / "b").read_bytes() == b"x"

    def test_another_process_sees_a_write_at_once(self, storage: DiskStorage) -> None:
        storage.write("a", b"x")
        done = in_process(f"print(DiskStorage({str(storage.root)!r}).read('a'))")
        assert done.stdout.strip() == "b'x'"

    @pytest.mark.parametrize("key", [TEMPORARY_DIRECTORY, f"{TEMPORARY_DIRECTORY}/x"])
    def test_the_place_of_temporary_files_is_reserved(self, storage: DiskStorage, key: str) -> None:
        with pytest.raises(ValueError, match="reserved"):
            storage.write(key, b"x")

    def test_temporary_files_are_never_listed(self, storage: DiskStorage, raw: RawDisk) -> None:
        raw.set(f"{TEMPORARY_DIRECTORY}/left-behind", b"half")
        storage.write("a", b"x")
        assert [info.key for info in storage.list()] == ["a"]

    def test_foreign_names_that_are_no_keys_are_left_out(self, storage: DiskStorage, raw: RawDisk) -> None:
        raw.set("fine", b"x")
        (storage.root / "new\nline").write_bytes(b"x")
        (storage.root / os.fsdecode(b"not-\xff-utf8")).write_bytes(b"x")
        assert [info.key for info in storage.list()] == ["fine"]

    def test_what_vanishes_during_a_listing_is_left_out(self, storage: DiskStorage, raw: RawDisk) -> None:
        raw.set("a/there", b"x")
        (storage.root / "a" / "dangling").symlink_to("nowhere")
        assert [info.key for info in storage.list()] == ["a/there"]

    def test_a_file_in_the_place_of_a_directory_is_a_clear_error(self, storage: DiskStorage, raw: RawDisk) -> None:
        raw.set("metadata", b"in the way")
        with pytest.raises(StorageError, match="metadata/x") as caught:
            storage.write("metadata/x", b"x")
        assert caught.value.__cause__ is not None
        with pytest.raises(StorageError):
            DiskStorage(storage.root / "metadata").write("x", b"x")
        assert raw.keys() == ["metadata"]

    def test_a_writer_that_is_killed_leaves_the_old_value(self, storage: DiskStorage, raw: RawDisk) -> None:
        storage.write("a", b"old value")
        code = f"""
        import sys
        class Body:
            def read(self, size):
                print("half", flush=True)
                return sys.stdin.buffer.read(1) and b"x" or b"y" * size
        DiskStorage({str(storage.root)!r}).write("a", Body())
        """
        process = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.write("1")
        process.stdin.flush()
        process.stdout.readline()  # one piece has been written, and the next is asked for
        process.kill()
        process.communicate()
        assert storage.read("a") == b"old value"
        assert [info.key for info in storage.list()] == ["a"]

    def test_a_disk_quota_is_a_write_error_that_leaves_nothing(self, storage: DiskStorage, raw: RawDisk) -> None:
        storage.write("old", b"old value")
        done = in_process(
            f"""
            import resource, signal
            from keepsake.exceptions import WriteError
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            storage = DiskStorage({str(storage.root)!r})
            for key in ("old", "new"):
                try:
                    storage.write(key, b"x" * 1_000_000)
                except WriteError as err:
                    print(type(err.__cause__).__name__, err.key)
            """
        )
        assert done.stdout.split() == ["OSError", "old", "OSError", "new"]
        assert storage.read("old") == b"old value"
        assert raw.keys() == ["old"]

    def test_a_place_without_permission_is_access_denied(self, storage: DiskStorage) -> None:
        storage.write("a", b"x")
        done = in_process(
            f"""
            import os
            from keepsake.exceptions import AccessDenied
            if os.geteuid() == 0:
                os.seteuid(65534)  # root may do anything
            storage = DiskStorage({str(storage.root)!r})
            for use in (lambda: storage.write("b", b"x"), lambda: storage.read("a")):
                try:
                    use()
                except AccessDenied as err:
                    print("denied", isinstance(err, PermissionError), err.__cause__ is not None)
            """,
            before=lambda: [path.chmod(0o000) for path in (storage.root / "a", storage.root / TEMPORARY_DIRECTORY)],
        )
        (storage.root / TEMPORARY_DIRECTORY).chmod(0o700)
        assert done.stdout.splitlines() == ["denied True True"] * 2, done.stderr

    def test_files_get_the_usual_mode(self, storage: DiskStorage) -> None:
        storage.write("a", b"x")
        umask = os.umask(0)
        os.umask(umask)
        assert (storage.root / "a").stat().st_mode & 0o777 == 0o666 & ~umask


PROLOGUE = "from keepsake.storage import DiskStorage\n"


def in_process(code: str, before: object = None) -> subprocess.CompletedProcess[str]:
    if callable(before):
        before()
    return subprocess.run([sys.executable, "-c", PROLOGUE + textwrap.dedent(code)], capture_output=True, text=True, check=False)
