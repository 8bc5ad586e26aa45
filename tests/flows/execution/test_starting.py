"""Workers that are still starting: this process works until they are there, and reports why they did not start."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from flows.execution.executors import ALONE, Pool
from flows.execution.starting import opened_meanwhile
from flows.execution.windows import run_window
from pipeline.errors import RunConflict


def thread_name(_):
    return threading.current_thread().name


@pytest.fixture
def workers():
    """A context manager that opens a pool of one thread when it is allowed to, and notes that it was closed."""
    allowed, closed = threading.Event(), threading.Event()

    @contextmanager
    def opening():
        allowed.wait(timeout=30)
        with ThreadPoolExecutor(1, thread_name_prefix="worker") as threads:
            yield Pool(cpu=threads, gpu=threads, workers=1, window=1)
        closed.set()

    opening.allowed, opening.closed = allowed, closed
    return opening


def test_this_thread_works_until_the_workers_have_started(workers):
    here = threading.current_thread().name
    with opened_meanwhile(ALONE, workers()) as pool:
        assert [outcome.result for outcome in run_window(pool, thread_name, [0, 1], retries=0)] == [
            here,
            here,
        ]
        workers.allowed.set()
        deadline = threading.Event()
        while pool.cpu.submit(thread_name, 0).result() == here:
            assert not deadline.wait(0.01)
        names = {outcome.result for outcome in run_window(pool, thread_name, range(5), retries=0)}
        assert names == {"worker_0"}
        pool.check(False)
    assert workers.closed.is_set()


def test_a_run_that_ends_first_closes_the_workers_too(workers):
    with opened_meanwhile(ALONE, workers()):
        threading.Timer(0.1, workers.allowed.set).start()
    assert workers.closed.is_set()


def test_workers_that_cannot_start_end_the_run():
    @contextmanager
    def broken():
        raise RunConflict("no workers")
        yield

    with opened_meanwhile(ALONE, broken()) as pool, pytest.raises(RunConflict, match="no workers"):
        for _ in range(10_000):
            list(run_window(pool, thread_name, [0], retries=0))
