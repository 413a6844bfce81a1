"""The publisher calls for one rewriting at a time, misses no change, and its thread can always be ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from keepsake.recording import publisher
from keepsake.recording.publisher import Publisher

PATIENCE_S = 20.0
"""Long enough for what takes milliseconds; whoever waits longer hangs."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "MIN_INTERVAL_S", 0.0)
    monkeypatch.setattr(publisher, "MIN_PAUSE_FACTOR", 0)
    monkeypatch.setattr(publisher, "RETRY_INTERVAL_S", 0.01)


class Record:
    """What is published: the number of changes, as far as they are known at that moment."""

    def __init__(self) -> None:
        self.changes = 0
        self.published = 0
        self.most_at_once = 0
        self.failures = 0
        self.reached = threading.Condition()
        self._at_once = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.has_begun = threading.Event()

    def publish(self) -> bool:
        with self.reached:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            seen = self.changes
        self.has_begun.set()
        self.may_go_on.wait(PATIENCE_S)
        with self.reached:
            self._at_once -= 1
            if self.failures:
                self.failures -= 1
                return False
            self.published = seen
            self.reached.notify_all()
        return True

    def wait_until_all_is_published(self) -> bool:
        with self.reached:
            return self.reached.wait_for(lambda: self.published == self.changes, PATIENCE_S)


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def published(record: Record) -> Iterator[Publisher]:
    made = Publisher(record.publish, lambda: None)
    yield made
    record.may_go_on.set()
    made.close()


def publishers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "keepsake-publisher"]


def in_a_thread(work: object) -> threading.Thread:
    assert callable(work)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_each_change_is_published(record: Record, published: Publisher) -> None:
    for _ in range(200):
        record.changes += 1
        published.notify()
    assert record.wait_until_all_is_published()


def test_what_changes_during_a_rewriting_is_published_by_one_more(record: Record, published: Publisher) -> None:
    record.may_go_on.clear()
    record.changes = 1
    published.notify()
    assert record.has_begun.wait(PATIENCE_S)
    for _ in range(100):
        record.changes += 1
        published.notify()
    record.may_go_on.set()
    assert record.wait_until_all_is_published()
    assert record.most_at_once == 1


def test_a_rewriting_that_failed_is_tried_again(record: Record, published: Publisher) -> None:
    record.failures = 3
    record.changes = 1
    published.notify()
    assert record.wait_until_all_is_published()
    assert record.failures == 0


def test_the_journal_is_synced_in_a_long_pause(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "MIN_INTERVAL_S", 3600.0)
    monkeypatch.setattr(publisher, "SYNC_INTERVAL_S", 0.01)
    synced = threading.Semaphore(0)
    made = Publisher(record.publish, synced.release)
    made.notify()
    for _ in range(3):
        assert synced.acquire(timeout=PATIENCE_S)
    # Closing does not wait for the pause.
    closing = in_a_thread(made.close)
    closing.join(PATIENCE_S)
    assert not closing.is_alive()


def test_closing_waits_for_the_rewriting_in_flight_and_ends_the_thread(record: Record, published: Publisher) -> None:
    before = len(publishers())
    record.may_go_on.clear()
    record.changes = 1
    published.notify()
    assert record.has_begun.wait(PATIENCE_S)
    closing = in_a_thread(published.close)
    assert closing.is_alive()
    record.may_go_on.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert record.published == 1
    assert len(publishers()) == before


def test_a_closed_one_begins_again_with_the_next_change(record: Record, published: Publisher) -> None:
    for _ in range(20):
        record.changes += 1
        published.notify()
        assert record.wait_until_all_is_published()
        published.close()
        published.close()


def test_closing_from_its_own_thread_waits_for_nobody() -> None:
    is_done = threading.Event()

    def publish() -> bool:
        made.close()
        is_done.set()
        return True

    made = Publisher(publish, lambda: None)
    made.notify()
    assert is_done.wait(PATIENCE_S)


def test_changes_by_several_threads_start_one_thread(record: Record) -> None:
    before = set(publishers())
    for _ in range(200):
        made = Publisher(record.publish, lambda: None)
        together = threading.Barrier(4)

        def notify(made: Publisher = made, together: threading.Barrier = together) -> None:
            together.wait(PATIENCE_S)
            made.notify()

        threads = [in_a_thread(notify) for _ in range(4)]
        for thread in threads:
            thread.join(PATIENCE_S)
        made.close()
    assert set(publishers()) <= before


def test_closing_comes_to_an_end_while_others_say_that_something_changed(record: Record) -> None:
    before = set(publishers())
    made = Publisher(record.publish, lambda: None)
    is_over = threading.Event()

    def notify() -> None:
        while not is_over.is_set():
            made.notify()

    def close_many_times() -> None:
        for _ in range(2000):
            made.close()

    threads = [in_a_thread(notify) for _ in range(2)]
    closing = in_a_thread(close_many_times)
    closing.join(PATIENCE_S)
    hangs = closing.is_alive()
    is_over.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    # Let whoever hangs go before anything is said, for the sake of the tests that follow.
    for _ in range(20):
        in_a_thread(made.close).join(1)
        closing.join(0.05)
    assert not hangs, "close() waits for a thread that goes on"
    assert set(publishers()) <= before
