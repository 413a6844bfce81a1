"""Jobs are done in their order, all of them, and waiting for them never lasts longer than they do."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.recording.worker import Worker

PATIENCE_S = 20.0
"""Long enough for what takes milliseconds; whoever waits longer hangs."""

NAME = "keepsake-test-worker"


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def wait_for_the_end_of(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class Held:
    """A job that is not done before it is let go."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.is_done = False

    def __call__(self) -> None:
        self.has_begun.set()
        assert self.may_end.wait(PATIENCE_S)
        self.is_done = True


def test_nothing_is_started_before_there_is_a_job() -> None:
    worker = Worker(NAME)
    assert workers() == []
    assert worker.drain()
    worker.close()
    assert workers() == []


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["submit", "drain", "close"]), max_size=30))
def test_all_jobs_are_done_once_and_in_their_order(steps: list[str]) -> None:
    worker, done, submitted = Worker(NAME), list[int](), 0
    for step in steps:
        if step == "submit":
            worker.submit(partial(done.append, submitted))
            submitted += 1
        elif step == "close":
            # As its user does: a close without a drain before it leaves the order open.
            assert worker.drain()
            worker.close()
        else:
            assert worker.drain()
            assert done == list(range(submitted))
    assert worker.drain()
    assert done == list(range(submitted))
    threads = workers()
    worker.close()
    wait_for_the_end_of(threads)


def test_jobs_of_several_threads_are_all_done() -> None:
    worker, done = Worker(NAME), list[int]()
    threads = [
        threading.Thread(target=lambda start=start: [worker.submit(partial(done.append, start + i)) for i in range(500)])
        for start in range(0, 2000, 500)
    ]
    for thread in threads:
        thread.start()
    wait_for_the_end_of(threads)
    assert worker.drain()
    assert sorted(done) == list(range(2000))
    assert len(workers()) == 1
    worker.close()
    wait_for_the_end_of(workers())


def test_waiting_ends_after_a_while_and_says_that_there_is_more() -> None:
    worker, held = Worker(NAME), Held()
    worker.submit(held)
    assert not worker.drain(0.01)
    assert not worker.drain(0)
    held.may_end.set()
    assert worker.drain()
    assert held.is_done
    worker.close()


def test_a_job_that_waits_for_all_jobs_is_refused_and_not_stuck() -> None:
    worker, answers = Worker(NAME), list[bool]()
    worker.submit(lambda: answers.append(worker.drain()))
    assert worker.drain(PATIENCE_S)
    assert answers == [False]
    worker.close()


def test_a_job_may_submit_another() -> None:
    worker, done = Worker(NAME), list[int]()

    def first() -> None:
        worker.submit(partial(done.append, 2))
        done.append(1)

    worker.submit(first)
    assert worker.drain(PATIENCE_S)
    assert done == [1, 2]
    worker.close()


def test_cancelling_waits_for_the_job_that_has_begun_and_forgets_the_others() -> None:
    worker, held, done = Worker(NAME), Held(), list[int]()
    worker.submit(held)
    worker.submit(partial(done.append, 1))
    assert held.has_begun.wait(PATIENCE_S)
    cancelling = threading.Thread(target=worker.cancel)
    cancelling.start()
    assert cancelling.is_alive()
    held.may_end.set()
    wait_for_the_end_of([cancelling])
    assert held.is_done
    assert done == []
    worker.close()


def test_a_closed_one_does_what_was_submitted_before_and_its_thread_ends() -> None:
    worker, held, done = Worker(NAME), Held(), list[int]()
    worker.submit(held)
    worker.submit(partial(done.append, 1))
    [thread] = workers()
    worker.close()
    held.may_end.set()
    wait_for_the_end_of([thread])
    assert held.is_done
    assert done == [1]


def test_a_closed_one_that_still_works_is_waited_for() -> None:
    worker, held = Worker(NAME), Held()
    worker.submit(held)
    assert held.has_begun.wait(PATIENCE_S)
    threads = workers()
    worker.close()
    is_over = worker.drain(0.01)
    was_done = held.is_done
    held.may_end.set()
    wait_for_the_end_of(threads)
    assert is_over == was_done, "drain() says that all is done while a job is in the middle"


def test_many_closes_leave_no_threads_behind() -> None:
    for _ in range(100):
        worker = Worker(NAME)
        for _ in range(3):
            worker.submit(lambda: None)
            assert worker.drain()
            worker.close()
    wait_for_the_end_of(workers())


def test_at_the_end_of_the_interpreter_the_jobs_are_done_by_whoever_waits() -> None:
    program = """
        import atexit
        from keepsake.recording.worker import Worker

        worker = Worker("late")

        def at_the_end():
            for number in range(3):
                worker.submit(lambda number=number: print(number, flush=True))
            print(worker.drain(), flush=True)

        atexit.register(at_the_end)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["0", "1", "2", "True"]
    assert done.stderr == ""
