"""The contract of `keepsake.storage.base.Storage`, as tests: one suite for every store and every wrapper of one.

A test class derives from `StorageTests`, names its ``rig`` (`tests.storage.rigs`), and gives two fixtures: ``storage``, an empty store,
and ``raw``, which reaches the same place around our code. A suite test that cannot hold for a store is overridden with
`overrides_suite` and a reason, never silently. What only one kind of store can do, or fail at, stands in its own test file.
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol, cast

import pytest

from keepsake.exceptions import ObjectNotFound
from keepsake.storage import Body, ObjectInfo, Storage

LARGE = 9 * 1024 * 1024 + 17
"""More than the size from which S3 clients upload in parts."""

LONGEST_KEY = f"{('k' * 200 + '/') * 5}{'k' * 19}"
"""1024 bytes, in segments of 200 at most."""

BAD_KEYS = (
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "../a",
    "a/./b",
    "a\\b",
    "a\nb",
    "a\0b",
    "a\x1fb",
    "a\x7fb",
    "\ud800",
    "x" * 201,
    "é" * 101,
    f"{LONGEST_KEY}k",
)


class Raw(Protocol):
    """A way to the bytes that does not go through the code under test."""

    def get(self, key: str) -> bytes | None: ...
    def set(self, key: str, content: bytes) -> None: ...
    def keys(self) -> list[str]: ...


def overrides_suite(reason: str) -> Callable[[Any], Any]:
    """Mark a method that replaces a test of the suite, and say why it may."""
    if not reason.strip():
        raise ValueError("a reason must be given")

    def mark(method: Any) -> Any:
        method.overrides_suite = reason
        return method

    return mark


class Unseekable(io.RawIOBase):
    """A stream that can only be read forwards, such as a pipe."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._inner = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._inner.readinto(buffer)


class BreaksOff(io.RawIOBase):
    """A stream that fails after some bytes."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            raise RuntimeError("the source broke off")
        count = min(self._left, len(buffer))
        buffer[:count] = b"x" * count
        self._left -= count
        return count


class StorageTests:
    """The suite; see the module's docstring."""

    rig: ClassVar[str]
    """The rig's name, as in ``KEEPSAKE_REQUIRE_RIGS``."""

    secrets: ClassVar[tuple[str, ...]] = ()
    """What the store was given and must never show."""

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError

    @pytest.fixture
    def raw(self, storage: Storage) -> Raw:
        raise NotImplementedError

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not getattr(cls, "rig", ""):
            raise TypeError(f"{cls.__name__} does not say its rig")
        for name in (name for name in vars(StorageTests) if name.startswith("test_")):
            method = getattr(cls, name)
            if method is not getattr(StorageTests, name) and not getattr(method, "overrides_suite", ""):
                raise TypeError(f"{cls.__name__}.{name} replaces a test of the suite: say why with @overrides_suite")

    # --- round trips ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("content", [b"", b"x", b"\0\xff" * 1000], ids=["empty", "one", "binary"])
    def test_what_is_written_is_read(self, storage: Storage, raw: Raw, content: bytes) -> None:
        storage.write("a/b.json", content)
        assert storage.read("a/b.json") == content
        assert raw.get("a/b.json") == content
        with storage.open("a/b.json") as file:
            assert file.read() == content

    @pytest.mark.parametrize("form", ["bytes", "stream", "unseekable", "path"])
    def test_a_large_object_comes_from_any_form(self, storage: Storage, form: str, tmp_path: Path) -> None:
        content = os.urandom(LARGE)
        forms: dict[str, Callable[[], Body]] = {
            "bytes": lambda: content,
            "stream": lambda: io.BytesIO(content),
            "unseekable": lambda: io.BufferedReader(Unseekable(content)),
            "path": lambda: _file(tmp_path / "body", content),
        }
        storage.write("large", forms[form]())
        assert storage.read("large") == content
        assert storage.read_range("large", LARGE - 5, 10) == content[-5:]

    def test_what_somebody_else_wrote_is_read(self, storage: Storage, raw: Raw) -> None:
        raw.set("a/b", b"theirs")
        assert storage.read("a/b") == b"theirs"
        assert [info.key for info in storage.list()] == ["a/b"]

    def test_a_stream_is_read_from_its_position_and_left_open(self, storage: Storage) -> None:
        body = io.BytesIO(b"skipped, kept")
        body.seek(9)
        storage.write("a", body)
        assert storage.read("a") == b"kept"
        assert not body.closed

    def test_a_file_that_is_written_stays_where_it_is(self, storage: Storage, tmp_path: Path) -> None:
        body = _file(tmp_path / "model.pth", b"weights")
        storage.write("a", body)
        assert body.read_bytes() == b"weights"
        body.write_bytes(b"trained further")
        assert storage.read("a") == b"weights"

    def test_a_raw_stream_that_gives_little_at_a_time_is_read_whole(self, storage: Storage) -> None:
        class Drip(Unseekable):
            def readinto(self, buffer: Any) -> int:
                return super().readinto(memoryview(buffer)[:3])

        storage.write("a", cast("BinaryIO", Drip(b"0123456789")))
        assert storage.read("a") == b"0123456789"

    def test_open_gives_a_stream(self, storage: Storage) -> None:
        storage.write("a", b"0123456789")
        with storage.open("a") as file:
            assert (file.read(3), file.read(3), file.read(), file.read()) == (b"012", b"345", b"6789", b"")
        assert file.closed

    def test_a_stream_of_one_key_is_the_body_of_another(self, storage: Storage) -> None:
        storage.write("a", b"0123456789" * 300_000)
        with storage.open("a") as file:
            storage.write("b", file)
        assert storage.read("b") == b"0123456789" * 300_000

    # --- ranges -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [(0, 10, b"0123456789"), (3, 4, b"3456"), (8, 10, b"89"), (10, 5, b""), (50, 5, b""), (4, 0, b"")],
    )
    def test_a_range_ends_where_the_object_does(self, storage: Storage, start: int, length: int, expected: bytes) -> None:
        storage.write("a", b"0123456789")
        assert storage.read_range("a", start, length) == expected

    @pytest.mark.parametrize("huge", [1 << 40, 1 << 45, 1 << 62, 1 << 63, 1 << 70])
    def test_a_range_may_reach_beyond_all_bounds(self, storage: Storage, huge: int) -> None:
        storage.write("a", b"0123456789")
        assert storage.read_range("a", 4, huge) == b"456789"
        assert storage.read_range("a", huge, 1) == b""
        assert storage.read_range("a", huge, huge) == b""

    def test_a_long_range_of_a_large_object_is_whole(self, storage: Storage) -> None:
        content = os.urandom(LARGE)
        storage.write("large", content)
        assert storage.read_range("large", 5, LARGE) == content[5:]

    @pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1)])
    def test_a_negative_range_is_a_mistake(self, storage: Storage, start: int, length: int) -> None:
        storage.write("a", b"0123456789")
        with pytest.raises(ValueError, match="negative"):
            storage.read_range("a", start, length)

    # --- overwriting ------------------------------------------------------------------------------------------------

    def test_a_second_write_replaces_the_first(self, storage: Storage) -> None:
        storage.write("a", b"a long first value")
        storage.write("a", b"second")
        assert storage.read("a") == b"second"
        assert len(list(storage.list())) == 1

    def test_a_reader_keeps_the_value_it_opened(self, storage: Storage) -> None:
        storage.write("a", b"first")
        with storage.open("a") as file:
            storage.write("a", b"second")
            assert file.read() in (b"first", b"second")

    def test_the_etag_changes_with_every_rewrite(self, storage: Storage) -> None:
        etags = set()
        for content in (b"one", b"two", b"three", b"one!"):
            storage.write("a", content)
            [info] = storage.list("a")
            etags.add(info.etag)
        assert len(etags) == 4
        [again] = storage.list("a")
        assert again.etag in etags

    # --- what is missing --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("verb", ["read", "open", "read_range"])
    @pytest.mark.parametrize("key", ["missing", "there/deeper", "the", "there.json"])
    def test_a_missing_object_is_named(self, storage: Storage, verb: str, key: str) -> None:
        storage.write("there", b"x")
        with pytest.raises(ObjectNotFound) as caught:
            getattr(storage, verb)(key, *((0, 1) if verb == "read_range" else ()))
        assert caught.value.key == key
        assert caught.value.url == storage.url
        assert isinstance(caught.value, FileNotFoundError)

    def test_a_directory_is_no_object(self, storage: Storage) -> None:
        storage.write("a/b/c", b"x")
        with pytest.raises(ObjectNotFound):
            storage.read("a/b")

    def test_what_was_deleted_is_missing(self, storage: Storage) -> None:
        storage.write("a", b"x")
        storage.delete(["a"])
        for use in (lambda: storage.read("a"), lambda: storage.open("a"), lambda: storage.read_range("a", 0, 1)):
            with pytest.raises(ObjectNotFound):
                use()
        storage.write("a", b"y")
        assert storage.read("a") == b"y"

    # --- deleting ---------------------------------------------------------------------------------------------------

    def test_a_deleted_object_is_gone(self, storage: Storage, raw: Raw) -> None:
        storage.write("a/b", b"x")
        storage.delete(["a/b"])
        assert raw.get("a/b") is None
        assert list(storage.list()) == []

    def test_deleting_what_is_missing_is_silent(self, storage: Storage) -> None:
        storage.write("there", b"x")
        storage.delete(["missing", "deep/missing", "there/deeper"])
        storage.delete([])
        assert storage.read("there") == b"x"

    def test_deleting_takes_whole_names_only(self, storage: Storage) -> None:
        for key in ("abc", "abcd", "abc.json", "abc0/x"):
            storage.write(key, b"x")
        storage.delete(["abc"])
        assert [info.key for info in storage.list()] == ["abc.json", "abc0/x", "abcd"]

    def test_many_are_deleted_at_once(self, storage: Storage, raw: Raw) -> None:
        for number in range(30):
            raw.set(f"d/{number:04}", b"")
        storage.delete(f"d/{number:04}" for number in range(29))
        assert [info.key for info in storage.list("d")] == ["d/0029"]

    # --- listing ----------------------------------------------------------------------------------------------------

    def test_an_empty_store_lists_nothing(self, storage: Storage) -> None:
        assert list(storage.list()) == []
        assert list(storage.list("a/b")) == []

    def test_a_listing_is_recursive_and_sorted_by_bytes(self, storage: Storage) -> None:
        keys = ["b", "a/c", "a/b/d", "a.json", "a-b", "Z", "é", "a/é", "模型/权重"]
        for key in keys:
            storage.write(key, key.encode())
        listed = list(storage.list())
        assert [info.key for info in listed] == sorted(keys, key=str.encode)
        assert {info.key: info.size_bytes for info in listed} == {key: len(key.encode()) for key in keys}

    @pytest.mark.parametrize("prefix", ["e/abc", "e/abc/"])
    def test_a_prefix_is_made_of_whole_segments(self, storage: Storage, prefix: str) -> None:
        for key in ("e/abc", "e/abcd", "e/abc.json", "f/e/abc"):
            storage.write(key, b"")
        assert [info.key for info in storage.list(prefix)] == ["e/abc"]
        assert list(storage.list("e/ab")) == []

    def test_a_prefix_lists_what_lies_below(self, storage: Storage) -> None:
        for key in ("e/abc/x", "e/abc/y/z", "e/abcd/x"):
            storage.write(key, b"")
        assert [info.key for info in storage.list("e/abc")] == ["e/abc/x", "e/abc/y/z"]

    @pytest.mark.parametrize("prefix", ["there/deeper", "there/deeper/still", "ther", "missing/deeper"])
    def test_nothing_lies_below_an_object(self, storage: Storage, prefix: str) -> None:
        storage.write("there", b"x")
        assert list(storage.list(prefix)) == []

    def test_more_than_a_page_is_listed(self, storage: Storage, raw: Raw) -> None:
        # tests/stores/conftest.py has stores list 100 objects by one request.
        for number in range(250):
            raw.set(f"many/{number:05}", b"")
        assert [info.key for info in storage.list("many")] == [f"many/{number:05}" for number in range(250)]

    def test_the_stores_own_name_may_stand_inside_a_key(self, storage: Storage) -> None:
        name = storage.url.rstrip("/").rpartition("/")[2] or "root"
        key = f"{name}/x/{name}/{name}"
        storage.write(key, b"x")
        assert [info.key for info in storage.list()] == [key]
        assert [info.key for info in storage.list(name)] == [key]

    def test_what_is_listed_can_be_changed_meanwhile(self, storage: Storage) -> None:
        for number in range(5):
            storage.write(f"d/{number}", b"x")
        for info in storage.list("d"):
            storage.delete([info.key])
            storage.write(f"e/{info.key}", b"x")
        assert [info.key for info in storage.list()] == [f"e/d/{number}" for number in range(5)]

    def test_ages_are_counted_from_the_last_write(self, storage: Storage) -> None:
        storage.write("a", b"x")
        [info] = storage.list("a")
        assert isinstance(info, ObjectInfo)
        assert 0 <= info.age_s < 60

    # --- keys -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "key",
        [
            "with space",
            "per%20cent",
            "plus+and&",
            "üñí/模型",
            "a=b,c;d",
            "#hash?query",
            "x" * 200,
            "é" * 100,
            LONGEST_KEY,
            "/".join("abcdefghij" * 9),
            "~",
            "...",
        ],
    )
    def test_odd_keys_are_keys(self, storage: Storage, raw: Raw, key: str) -> None:
        storage.write(key, b"odd")
        assert storage.read(key) == b"odd"
        assert raw.get(key) == b"odd"
        assert [info.key for info in storage.list()] == [key]
        storage.delete([key])
        assert list(storage.list()) == []

    @pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: repr(key)[:20])
    def test_bad_keys_are_refused_by_every_verb(self, storage: Storage, raw: Raw, key: str) -> None:
        for use in (
            lambda: storage.read(key),
            lambda: storage.open(key),
            lambda: storage.read_range(key, 0, 1),
            lambda: storage.write(key, b"x"),
            lambda: storage.delete(["fine", key]),
        ):
            with pytest.raises(ValueError, match="bad storage key"):
                use()
        assert raw.keys() == []

    @pytest.mark.parametrize("key", ["", "../a", "a\\b"])
    def test_a_bad_key_is_refused_before_the_body_is_read(self, storage: Storage, tmp_path: Path, key: str) -> None:
        body = io.BytesIO(b"the whole body")
        for refused in (body, io.BufferedReader(BreaksOff(0)), tmp_path / "missing"):
            with pytest.raises(ValueError, match="bad storage key"):
                storage.write(key, refused)
        assert body.tell() == 0

    def test_one_bad_key_saves_all_from_deletion(self, storage: Storage) -> None:
        storage.write("fine", b"x")
        with pytest.raises(ValueError, match="bad storage key"):
            storage.delete(["fine", "../a"])
        assert storage.read("fine") == b"x"

    @pytest.mark.parametrize("prefix", ["/", "..", "a/../b", "/a", "a//b", "a//"])
    def test_bad_prefixes_are_refused_at_once(self, storage: Storage, prefix: str) -> None:
        with pytest.raises(ValueError, match="bad storage key"):
            storage.list(prefix)

    # --- failures ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("length", [0, 1, 3_000_000])
    def test_a_body_that_breaks_off_changes_nothing(self, storage: Storage, raw: Raw, length: int) -> None:
        storage.write("old", b"old value")
        for key in ("old", "new", "deep/new"):
            with pytest.raises(RuntimeError, match="broke off"):
                storage.write(key, io.BufferedReader(BreaksOff(length)))
        assert storage.read("old") == b"old value"
        assert raw.keys() == ["old"]

    def test_a_body_that_is_no_file_changes_nothing(self, storage: Storage, raw: Raw, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            storage.write("new", tmp_path / "missing")
        assert raw.keys() == []

    def test_what_is_no_body_changes_nothing(self, storage: Storage, raw: Raw) -> None:
        bodies: list[Any] = ["text", io.StringIO("text"), io.StringIO(""), None, 5, ["x"]]
        for body in bodies:
            with pytest.raises(TypeError, match="expected"):
                storage.write("new", body)
        assert raw.keys() == []

    def test_a_stream_that_has_nothing_at_the_moment_has_not_ended(self, storage: Storage, raw: Raw) -> None:
        source, sink = os.pipe()
        os.set_blocking(source, False)
        os.write(sink, b"the first half")
        with os.fdopen(source, "rb", buffering=0) as body, pytest.raises(BlockingIOError):
            storage.write("new", body)
        os.close(sink)
        assert raw.keys() == []

    # --- threads, processes, copies ---------------------------------------------------------------------------------

    def test_concurrent_writes_of_one_key_leave_one_whole_value(self, storage: Storage) -> None:
        values = [bytes([number]) * 200_000 for number in range(8)]
        _in_threads(lambda value: storage.write("same", value), values)
        assert storage.read("same") in values

    def test_concurrent_writes_of_many_keys_all_arrive(self, storage: Storage) -> None:
        keys = [f"k{number % 7}/{number}" for number in range(50)]
        _in_threads(lambda key: storage.write(key, key.encode()), keys)
        assert {info.key for info in storage.list()} == set(keys)
        assert all(storage.read(key) == key.encode() for key in keys)

    def test_a_reader_never_sees_a_part(self, storage: Storage) -> None:
        values = [b"a" * 300_000, b"b" * 300_000]
        storage.write("k", values[0])
        stop = threading.Event()
        seen: list[bytes] = []

        def read() -> None:
            while not stop.is_set():
                seen.append(storage.read("k"))

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(20):
            storage.write("k", values[number % 2])
        stop.set()
        reader.join()
        assert set(seen) <= set(values)

    def test_listings_bear_with_writers_and_deleters(self, storage: Storage) -> None:
        storage.write("d/stays", b"x")

        def work(number: int) -> None:
            for turn in range(10):
                key = f"d/{number}/{turn}"
                storage.write(key, b"x")
                assert {"d/stays", key} <= {info.key for info in storage.list("d")}
                storage.delete([key])

        _in_threads(work, list(range(6)))
        assert [info.key for info in storage.list()] == ["d/stays"]

    def test_another_process_reads_what_is_written(self, storage: Storage) -> None:
        storage.write("a/b", b"from here")
        assert in_another_process(storage, "print(storage.read('a/b').decode())") == "from here"

    def test_what_another_process_writes_is_read(self, storage: Storage) -> None:
        storage.write("a", b"old")
        in_another_process(storage, "storage.write('a', b'new'); storage.write('b', b'more')")
        assert (storage.read("a"), storage.read("b")) == (b"new", b"more")

    def test_a_pickled_store_is_the_same_place(self, storage: Storage) -> None:
        storage.write("a", b"x")
        copy = pickle.loads(pickle.dumps(storage))
        assert copy.url == storage.url
        assert copy.read("a") == b"x"
        copy.write("b", b"y")
        assert copy.read("b") == b"y"

    def test_it_shows_where_it_is_and_no_secret(self, storage: Storage) -> None:
        assert "://" in storage.url
        assert type(storage).__name__ in repr(storage)
        with pytest.raises(ObjectNotFound) as caught:
            storage.read("missing")
        for shown in (storage.url, repr(storage), str(caught.value), repr(caught.value)):
            assert not any(secret in shown for secret in self.secrets)

    def test_it_is_a_storage(self, storage: Storage) -> None:
        assert isinstance(storage, Storage)


def in_another_process(storage: Storage, code: str) -> str:
    """Run code on a pickled copy of a store in a process of its own, and return what it prints."""
    program = f"import pickle, sys\nstorage = pickle.load(sys.stdin.buffer)\n{code}"
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(storage), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _in_threads(work: Callable[[Any], Any], items: list[Any]) -> None:
    errors: list[BaseException] = []

    def run(item: Any) -> None:
        try:
            work(item)
        except BaseException as err:  # carried to the test's own thread
            errors.append(err)

    threads = [threading.Thread(target=run, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def keys_below(directory: Path) -> Iterator[str]:
    """Yield the names of all files below a directory."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.relative_to(directory).as_posix()
