"""The suite on disk, and what only a disk can do: permissions, full disks, and writers that are killed."""

from __future__ import annotations

import errno
import io
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from keepsake.exceptions import AccessDenied, ObjectNotFound, ReadError, StorageError, WriteError
from keepsake.storage import DiskStorage
from keepsake.storage.base import PIECE_BYTES
from keepsake.storage.disk import (
    JOURNAL_DIRECTORY,
    LEFT_BEHIND_ELSEWHERE_S,
    LEFT_BEHIND_S,
    RESERVED,
    TEMPORARY_DIRECTORY,
    _sync_directory,
)
from tests.conftest import bound_by_permissions
from tests.storage.conformance import StorageTests, keys_below

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the file systems of the kernel's own, such as /proc and /dev/shm, are Linux's"
)


def backdate(path: Path, age_s: float) -> None:
    written = path.stat().st_mtime - age_s
    os.utime(path, (written, written))


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
    rig = "disk"

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

    @pytest.mark.parametrize("name", RESERVED)
    @pytest.mark.parametrize("below", ["", "/x"])
    def test_the_places_of_what_is_no_object_are_reserved(self, storage: DiskStorage, name: str, below: str) -> None:
        for use in (storage.read, storage.list, lambda key: storage.write(key, b"x"), lambda key: storage.delete([key])):
            with pytest.raises(ValueError, match="reserved"):
                use(name + below)
        storage.write(f"deeper/{name}{below}", b"x")

    @pytest.mark.parametrize("prefix", [TEMPORARY_DIRECTORY, f"{TEMPORARY_DIRECTORY}/", f"{TEMPORARY_DIRECTORY}/x"])
    def test_temporary_files_are_never_listed(self, storage: DiskStorage, raw: RawDisk, prefix: str) -> None:
        raw.set(f"{TEMPORARY_DIRECTORY}/left-behind", b"half")
        storage.write("a", b"x")
        storage.write(f"deeper/{TEMPORARY_DIRECTORY}/is a key", b"x")
        assert [info.key for info in storage.list()] == ["a", f"deeper/{TEMPORARY_DIRECTORY}/is a key"]
        with pytest.raises(ValueError, match="reserved"):
            storage.list(prefix)

    def test_a_temporary_file_lies_on_the_same_file_system_and_says_whose_it_is(self, storage: DiskStorage) -> None:
        class Body(io.RawIOBase):
            def read(self, size: int = -1) -> bytes:
                seen.extend((storage.root / TEMPORARY_DIRECTORY).iterdir())
                return b""

        seen: list[Path] = []
        storage.write("metadata/experiments/a.json", cast("BinaryIO", Body()))
        assert [path.name.split("-")[1] for path in seen] == [str(os.getpid())]
        assert list((storage.root / TEMPORARY_DIRECTORY).iterdir()) == []

    def test_foreign_names_that_are_no_keys_are_left_out(self, storage: DiskStorage, raw: RawDisk) -> None:
        raw.set("fine", b"x")
        (storage.root / "new\nline").write_bytes(b"x")
        (storage.root / os.fsdecode(b"not-\xff-utf8")).write_bytes(b"x")
        assert [info.key for info in storage.list()] == ["fine"]

    def test_only_files_are_listed(self, storage: DiskStorage, raw: RawDisk) -> None:
        raw.set("a/there", b"x")
        os.mkfifo(storage.root / "a" / "pipe")
        (storage.root / "a" / "empty").mkdir()
        (storage.root / "a" / "dangling").symlink_to("nowhere")
        (storage.root / "a" / "circle").symlink_to("circle")
        (storage.root / "a" / "up").symlink_to("..")
        (storage.root / "a" / "within").symlink_to("there")
        assert [info.key for info in storage.list()] == ["a/there", "a/within"]
        assert list(storage.list("a/pipe")) == []
        assert list(storage.list("a/dangling")) == []

    @pytest.mark.parametrize(("offset_s", "least", "most"), [(3600, 0, 0), (-3600, 3600, 7200)], ids=["future", "past"])
    def test_an_age_is_never_negative(self, storage: DiskStorage, offset_s: float, least: float, most: float) -> None:
        storage.write("a", b"x")
        written = (storage.root / "a").stat().st_mtime + offset_s
        os.utime(storage.root / "a", (written, written))
        [info] = storage.list("a")
        assert least <= info.age_s <= most

    def test_the_etag_tells_rewrites_apart_that_only_the_file_or_only_its_time_does(self, storage: DiskStorage) -> None:
        def etag_at(time_ns: int) -> str:
            os.utime(storage.root / "a", ns=(time_ns, time_ns))
            [info] = storage.list("a")
            return info.etag

        storage.write("a", b"one")
        first = etag_at(10**18)
        storage.write("a", b"two")  # another file, of the same size, in the same tick of the clock
        second = etag_at(10**18)
        (storage.root / "a").write_bytes(b"six")  # the same file, rewritten in place by another program
        assert len({first, second, etag_at(10**18 + 1)}) == 3

    def test_directories_that_vanish_during_a_listing_are_left_out(self, storage: DiskStorage) -> None:
        storage.write("stays", b"x")
        directories = [f"d{number}" for number in range(3)]

        def come_and_go(name: str) -> None:
            for _ in range(100):
                (storage.root / name / "deeper").mkdir(parents=True)
                (storage.root / name / "deeper" / "file").touch()
                shutil.rmtree(storage.root / name)

        threads = [threading.Thread(target=come_and_go, args=(name,)) for name in directories]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert "stays" in {info.key for info in storage.list()}
        for thread in threads:
            thread.join()

    def test_a_file_in_the_place_of_a_directory_is_a_clear_error(self, storage: DiskStorage, raw: RawDisk) -> None:
        raw.set("metadata", b"in the way")
        for key in ("metadata/x", "metadata/deep/er/x"):
            with pytest.raises(WriteError, match=key) as caught:
                storage.write(key, b"x")
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.key == key
        with pytest.raises(WriteError):
            DiskStorage(storage.root / "metadata").write("x", b"x")
        assert raw.keys() == ["metadata"]

    def test_a_directory_in_the_place_of_a_file_is_a_clear_error(self, storage: DiskStorage, raw: RawDisk) -> None:
        raw.set("metadata/x", b"in the way")
        with pytest.raises(WriteError, match="cannot write metadata in file://.*: Is a directory"):
            storage.write("metadata", b"x")
        assert raw.keys() == ["metadata/x"]

    @linux
    def test_a_read_that_fails_under_way_is_a_read_error(self) -> None:
        storage = DiskStorage("/proc/self")  # the start of a process's memory is mapped to nothing, and cannot be read
        with storage.open("mem") as file:
            for size in (-1, 10):
                with pytest.raises(ReadError, match="cannot read mem in file:///proc/self: Input/output error") as caught:
                    file.read(size)
                assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(ReadError):
            storage.read("mem")
        with pytest.raises(ReadError):
            storage.read_range("mem", 0, 10)

    def test_a_position_that_cannot_be_is_a_read_error(self, storage: DiskStorage) -> None:
        storage.write("a", b"0123456789")
        with storage.open("a") as file:
            with pytest.raises(ReadError, match="cannot read a in file://.*: Invalid argument") as caught:
                file.seek(-1)
            assert isinstance(caught.value.__cause__, OSError)
            assert (file.seek(3), file.read()) == (3, b"3456789")

    @linux
    def test_a_file_system_that_cannot_sync_directories_is_borne_with(self) -> None:
        with pytest.raises(OSError, match="Invalid argument"):
            sync_directory_plainly("/proc")
        _sync_directory(Path("/proc"))

    def test_bytes_that_did_not_arrive_are_noticed(self, storage: DiskStorage, raw: RawDisk) -> None:
        class LosesBytes(io.RawIOBase):
            asked = 0

            def read(self, size: int = -1) -> bytes:
                self.asked += 1
                if self.asked == 1:
                    return b"x" * size
                [temporary] = (storage.root / TEMPORARY_DIRECTORY).iterdir()
                os.truncate(temporary, 1000)
                return b""

        storage.write("a", b"old value")
        with pytest.raises(WriteError, match="1000 of 1048576 bytes arrived"):
            storage.write("a", cast("BinaryIO", LosesBytes()))
        assert storage.read("a") == b"old value"
        assert raw.keys() == ["a"]

    @pytest.mark.parametrize("key", ["old", "deep/new"])
    def test_a_writer_that_is_killed_leaves_the_old_value(self, storage: DiskStorage, raw: RawDisk, key: str) -> None:
        storage.write("old", b"old value")
        code = f"""
        import sys
        class Body:
            asked = 0
            def read(self, size):
                self.asked += 1
                if self.asked == 1:
                    return b"y" * size
                print("the first piece is written", flush=True)
                sys.stdin.read()  # never ends: we are killed here
        DiskStorage({str(storage.root)!r}).write({key!r}, Body())
        """
        program = PROLOGUE + textwrap.dedent(code)
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"the first piece is written\n"
            writer.kill()
        assert storage.read("old") == b"old value"
        assert [info.key for info in storage.list()] == ["old"]
        [leftover] = (storage.root / TEMPORARY_DIRECTORY).iterdir()
        assert leftover.name.split("-")[1] == str(writer.pid)
        assert leftover.stat().st_size == PIECE_BYTES
        storage.write(key, b"new value")
        assert storage.read(key) == b"new value"

    # --- leftovers --------------------------------------------------------------------------------------------------

    def _left_by_another(self, storage: DiskStorage, *, killed: bool) -> Path:
        """Have another process write half an object, and return the temporary file; a living one goes on until it is killed."""
        code = f"""
        import os, sys
        class Body:
            def read(self, size):
                print(flush=True)
                sys.stdin.read()
        DiskStorage({str(storage.root)!r}).write("a", Body())
        """
        writer = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._writers.append(writer)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"\n"
        [temporary] = (storage.root / TEMPORARY_DIRECTORY).iterdir()
        if killed:
            writer.kill()
            writer.wait()
        return temporary

    @pytest.fixture(autouse=True)
    def _end_writers(self) -> Iterator[None]:
        self._writers: list[subprocess.Popen[bytes]] = []
        yield
        for writer in self._writers:
            with writer:
                writer.kill()

    def test_what_a_killed_writer_has_left_is_swept_when_it_is_old_enough(self, storage: DiskStorage) -> None:
        temporary = self._left_by_another(storage, killed=True)
        storage.sweep()
        assert temporary.exists()  # it may just have been made, and not been locked yet
        backdate(temporary, LEFT_BEHIND_S + 1)
        assert storage.left_behind() == [(temporary, 0)]
        storage.sweep()
        assert not temporary.exists()

    def test_what_a_living_writer_writes_is_never_swept(self, storage: DiskStorage) -> None:
        temporary = self._left_by_another(storage, killed=False)
        backdate(temporary, 10 * LEFT_BEHIND_ELSEWHERE_S)
        storage.sweep()
        assert temporary.exists()

    def test_what_this_process_writes_is_never_swept(self, storage: DiskStorage) -> None:
        class Sweeps(io.RawIOBase):
            def read(self, size: int = -1) -> bytes:
                for path in (storage.root / TEMPORARY_DIRECTORY).iterdir():
                    backdate(path, 10 * LEFT_BEHIND_ELSEWHERE_S)
                storage.sweep()
                return b""

        storage.write("a", cast("BinaryIO", Sweeps()))
        assert storage.read("a") == b""

    def test_what_another_machine_writes_stays_for_a_day(self, storage: DiskStorage) -> None:
        storage.write("a", b"x")
        temporary = storage.root / TEMPORARY_DIRECTORY / "0badcafe-12-34"
        temporary.write_bytes(b"half")
        backdate(temporary, LEFT_BEHIND_ELSEWHERE_S - 60)
        storage.sweep()
        assert temporary.exists()
        backdate(temporary, LEFT_BEHIND_ELSEWHERE_S + 60)
        storage.sweep()
        assert not temporary.exists()

    # --- adoption ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("key", ["a", "deep/er/a"])
    def test_an_adopted_file_is_the_object(self, storage: DiskStorage, raw: RawDisk, key: str) -> None:
        storage.write("a", b"old")
        file = storage.root / JOURNAL_DIRECTORY / "file"
        file.parent.mkdir()
        file.write_bytes(b"new")
        inode = file.stat().st_ino
        storage.adopt(file, key)
        assert storage.read(key) == b"new"
        assert (storage.root / key).stat().st_ino == inode  # not a copy
        assert not file.exists()

    @linux
    def test_a_file_of_another_file_system_is_adopted_too(self, storage: DiskStorage, raw: RawDisk) -> None:
        storage.write("b", b"x")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            file = Path(directory) / "file"
            file.write_bytes(b"new")
            assert file.stat().st_dev != storage.root.parent.stat().st_dev, "this test needs a second file system"
            storage.adopt(file, "deep/a")
            assert not file.exists()
        assert storage.read("deep/a") == b"new"
        assert raw.keys() == ["b", "deep/a"]

    def test_a_file_that_cannot_be_adopted_stays(self, storage: DiskStorage, raw: RawDisk) -> None:
        storage.write("a", b"old")
        file = storage.root.parent / "file"
        file.write_bytes(b"new")
        with pytest.raises(WriteError, match="cannot write a/b"):
            storage.adopt(file, "a/b")
        assert file.read_bytes() == b"new"
        with pytest.raises(FileNotFoundError):
            storage.adopt(storage.root.parent / "nowhere", "b")
        assert raw.keys() == ["a"]

    def test_a_root_that_has_gone_is_not_made_again(self, storage: DiskStorage) -> None:
        """What came into a new directory would be hidden when the file system is mounted again."""
        storage.write("a", b"x")
        aside = storage.root.rename(storage.root.with_name("aside"))
        file = storage.root.parent / "file"
        file.write_bytes(b"new")
        for use in (lambda: storage.write("b/c", b"x"), lambda: storage.adopt(file, "b/c")):
            with pytest.raises(StorageError):
                use()
        assert not storage.root.exists()
        aside.rename(storage.root)
        storage.adopt(file, "b/c")
        assert storage.read("b/c") == b"new"

    # --- errors -----------------------------------------------------------------------------------------------------

    def test_a_limit_of_the_file_size_is_a_write_error_that_leaves_nothing(self, storage: DiskStorage, raw: RawDisk) -> None:
        storage.write("old", b"old value")
        done = in_process(
            f"""
            import io, resource, signal
            from pathlib import Path
            from keepsake.exceptions import WriteError
            Path({str(storage.root.parent / "body")!r}).write_bytes(b"x" * 1_000_000)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            storage = DiskStorage({str(storage.root)!r})
            for key in ("old", "new", "deep/new"):
                for body in (b"x" * 1_000_000, io.BytesIO(b"x" * 1_000_000), Path({str(storage.root.parent / "body")!r})):
                    try:
                        storage.write(key, body)
                    except WriteError as err:
                        print(type(err.__cause__).__name__, err.key, "file too large for" in str(err))
            storage.write("small", b"x" * 100_000)
            """
        )
        assert done.stdout.splitlines() == [f"OSError {key} True" for key in ("old", "new", "deep/new") for _ in range(3)], (
            done.stderr
        )
        assert storage.read("old") == b"old value"
        assert raw.keys() == ["old", "small"]

    def test_a_place_without_permission_is_access_denied(self, storage: DiskStorage, raw: RawDisk) -> None:
        storage.write("a", b"x")
        storage.write("d/b", b"x")
        forbidden = [storage.root / "a", storage.root / TEMPORARY_DIRECTORY, storage.root / "d"]
        uses: dict[str, Callable[[], object]] = {
            "write b": lambda: storage.write("b", b"x"),
            "read a": lambda: storage.read("a"),
            "read d/b": lambda: storage.open("d/b"),
            "delete d/b": lambda: storage.delete(["d/b"]),
            "list d": lambda: storage.list("d"),
        }
        for path in forbidden:
            path.chmod(0)
        with bound_by_permissions(storage.root):
            for name, use in uses.items():
                with pytest.raises(AccessDenied, match=f"cannot {name} in {storage.url}: Permission denied") as caught:
                    use()
                assert isinstance(caught.value, PermissionError)
                assert isinstance(caught.value.__cause__, PermissionError)
                assert caught.value.key == name.partition(" ")[2]
        for path in forbidden:
            path.chmod(0o700)
        assert raw.keys() == ["a", "d/b"]

    @pytest.mark.parametrize("verb", ["read", "write", "delete", "list"])
    def test_every_error_of_the_system_becomes_one_of_ours(self, storage: DiskStorage, verb: str) -> None:
        usual = WriteError if verb in ("write", "delete") else ReadError
        kinds: dict[int, type[StorageError]] = dict.fromkeys(errno.errorcode, usual)
        if verb in ("read", "delete"):
            kinds.update(dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), ObjectNotFound))
        kinds.update(dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), AccessDenied))
        kinds.update(dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), WriteError))
        for number, kind in kinds.items():
            with pytest.raises(StorageError) as caught, storage._errors(usual, verb, "a/b"):
                raise OSError(number, os.strerror(number))
            assert type(caught.value) is kind, errno.errorcode[number]
            assert isinstance(caught.value.__cause__, OSError)
            assert (caught.value.url, caught.value.key) == (storage.url, "a/b")

    @pytest.mark.parametrize("key", ["old", "new", "deep/er/new"])
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
    def test_whichever_step_of_a_write_fails_the_value_is_the_old_or_the_new(self, tmp_path: Path, number: int, key: str) -> None:
        """Errors that no test can cause without a file system of its own are put in the place of the system's calls."""
        for call in itertools.count():
            storage = DiskStorage(tmp_path / str(call))
            raw = RawDisk(storage.root)
            storage.write("old", b"old value")
            before = raw.get(key)
            with pytest.MonkeyPatch.context() as patch:
                steps = FailingSteps(call, number)
                for name in ("open", "mkdir", "fsync", "replace", "fstat", "stat"):
                    patch.setattr(os, name, steps.around(getattr(os, name)))
                raised: BaseException | None = None
                try:
                    storage.write(key, b"new value")
                except WriteError as err:
                    raised = err.__cause__
            assert raised is steps.failed
            assert raw.get(key) in (before, b"new value")
            assert set(raw.keys()) <= {"old", key}
            if not steps.failed:
                break
        assert call >= 6  # at least two stats, the file's sync and length, the renaming, the directory's opening and sync
        assert raw.get(key) == b"new value"

    def test_a_full_disk_says_how_much_is_missing(
        self, storage: DiskStorage, raw: RawDisk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        storage.write("a", b"old value")
        steps = FailingSteps(0, errno.ENOSPC, always=True)
        monkeypatch.setattr(os, "fsync", steps.around(os.fsync))
        (tmp_path / "body").write_bytes(b"x" * 1_500_000)
        for body in (b"x" * 1_500_000, tmp_path / "body"):
            with pytest.raises(
                WriteError, match=rf"^no space left on {storage.root} \(need 1\.5 MB, \d+(\.\d+)? [kMGT]B free\)$"
            ):
                storage.write("a", body)
        with pytest.raises(WriteError, match=rf"^no space left on {storage.root} \(\d+(\.\d+)? [kMGT]B free\)$"):
            storage.write("a", io.BytesIO(b"x" * 1_500_000))
        assert storage.read("a") == b"old value"
        assert raw.keys() == ["a"]

    def test_what_the_half_written_file_takes_counts_as_free(self, storage: DiskStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        storage.write("a", b"x")
        nothing = shutil.disk_usage(storage.root)._replace(free=0)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: nothing)
        monkeypatch.setattr(os, "fsync", FailingSteps(0, errno.ENOSPC).around(os.fsync))
        with pytest.raises(WriteError, match=r"\(need 1\.5 MB, 1\.5 MB free\)"):
            storage.write("a", b"x" * 1_500_000)

    def test_a_write_is_durable_before_and_after_it_is_seen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a power cut leaves cannot be tested; that everything is handed to the disk, in this order, can."""
        storage = DiskStorage(tmp_path / "root")
        path = storage.root / "deep" / "er" / "new"
        synced: list[tuple[int, bool]] = []

        def fsync(descriptor: int) -> None:
            synced.append((os.fstat(descriptor).st_ino, path.exists()))
            real(descriptor)

        real = os.fsync
        monkeypatch.setattr(os, "fsync", fsync)
        storage.write("deep/er/new", b"x")
        parents = [tmp_path, storage.root, storage.root, storage.root / "deep", storage.root / "deep" / "er"]
        directories = [(directory.stat().st_ino, False) for directory in parents[:-1]] + [(parents[-1].stat().st_ino, True)]
        file = (path.stat().st_ino, False)
        # The root and its place of temporary files, the file, the key's directories, and at last the file's new name.
        assert synced == [*directories[:2], file, *directories[2:]]

    def test_a_full_disk_is_said_so_where_the_root_cannot_even_be_made(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(os, "mkdir", FailingSteps(0, errno.ENOSPC).around(os.mkdir))
        with pytest.raises(WriteError, match=r"no space left on .*deep/root \(need 1 B, "):
            DiskStorage(tmp_path / "deep" / "root").write("a", b"x")
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupt_leaves_nothing(self, storage: DiskStorage, raw: RawDisk) -> None:
        class Interrupted(io.RawIOBase):
            def read(self, size: int = -1) -> bytes:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            storage.write("a", cast("BinaryIO", Interrupted()))
        assert raw.keys() == []

    def test_threads_may_make_the_same_directories_at_the_same_time(self, tmp_path: Path) -> None:
        for turn in range(10):
            storage = DiskStorage(tmp_path / f"root{turn}")
            with ThreadPoolExecutor(6) as pool:
                futures = [pool.submit(storage.write, f"a/b/c/{number}", b"x") for number in range(6)]
            assert [future.exception() for future in futures] == [None] * 6
            assert len(list(storage.list("a/b/c"))) == 6

    def test_files_get_the_usual_mode(self, storage: DiskStorage) -> None:
        storage.write("a", b"x")
        umask = os.umask(0)
        os.umask(umask)
        assert (storage.root / "a").stat().st_mode & 0o777 == 0o666 & ~umask

    def test_it_names_its_place(self, storage: DiskStorage) -> None:
        assert repr(storage) == f"DiskStorage('{storage.root}')"
        assert storage.url == f"file://{storage.root}"


class FailingSteps:
    """Calls of the operating system, one of which fails.

    Args:
        call: Which one, counted from 0.
        number: The error's number.
        always: Whether those after it fail as well.
    """

    def __init__(self, call: int, number: int, *, always: bool = False) -> None:
        self._call = call
        self._number = number
        self._always = always
        self._calls = 0
        self.failed: OSError | None = None

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            self._calls += 1
            if self._calls == self._call + 1 or (self._always and self._calls > self._call):
                self.failed = OSError(self._number, os.strerror(self._number))
                raise self.failed
            return real(*args, **kwargs)

        return step


def sync_directory_plainly(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


PROLOGUE = "from keepsake.storage import DiskStorage\n"


def in_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROLOGUE + textwrap.dedent(code)], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="the system reads into one buffer at a time")
def test_several_buffers_are_filled_at_once_or_not_at_all(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    storage.write("a/b", b"0123456789")
    buffers = [memoryview(bytearray(size)) for size in (2, 0, 5)]
    assert storage.read_into("a/b", 1, buffers)
    assert [bytes(buffer) for buffer in buffers] == [b"12", b"", b"34567"]
    assert storage.read_into("a/b", 3, buffers)
    assert not storage.read_into("a/b", 4, buffers)
    assert not storage.read_into("a/b", 100, buffers)
    # More than one call of the system takes.
    assert not storage.read_into("a/b", 0, [memoryview(bytearray(1))] * 1_025)
    for absent in ("a/c", "a"):
        with pytest.raises(ObjectNotFound):
            storage.read_into(absent, 0, buffers)
    with pytest.raises(ValueError, match=r"\.\."):
        storage.read_into("../a", 0, buffers)
