"""The window: every piece of work ends in one outcome, whatever fails and however many travel together."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.execution.executors import Pool, Serial, calls_of, run_window
from pipeline.errors import BadArgument, RunConflict
from pipeline.store.places.faults import StoreLost


class ImageJob:
    """Counts calls, and fails where it is told to, so often as it is told to."""

    def __init__(self, fails=None):
        self.fails, self.calls, self.lock = dict(fails or {}), Counter(), threading.Lock()
        self.open = self.most = 0

    def __call__(self, number):
        with self.lock:
            self.calls[number] += 1
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            time.sleep(0.001)
            error, times = self.fails.get(number, (None, 0))
            if self.calls[number] <= times:
                raise error
            return number * number
        finally:
            with self.lock:
                self.open -= 1


@pytest.fixture(params=["serial", "threads"])
def pool_of(request):
    """Make a pool of that kind with a window."""
    if request.param == "serial":
        yield lambda window: Pool(cpu=Serial(), gpu=Serial(), workers=1, window=window)
        return
    with ThreadPoolExecutor(4) as threads:
        yield lambda window: Pool(cpu=threads, gpu=threads, workers=4, window=window)


@pytest.mark.parametrize("together", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("window", [1, 4, 16])
def test_every_piece_ends_once_and_what_fails_fails_alone(pool_of, window, together):
    work = ImageJob({3: (OSError("flaky"), 1), 5: (OSError("broken"), 99), 11: (BadArgument("wrong"), 99)})
    found = {}
    for outcome in run_window(pool_of(window), work, range(20), retries=2, together=together):
        assert outcome.item not in found
        found[outcome.item] = outcome
    assert sorted(found) == list(range(20))
    assert {number: str(one.error) for number, one in found.items() if one.error} == {
        5: "broken",
        11: "wrong",
    }
    assert all(one.result == number**2 for number, one in found.items() if not one.error)
    # A call for several pieces is no try of any of them: alone, each has its retries.
    once = int(together > 1)
    assert found[5].retries == 2 and 3 <= work.calls[5] <= 3 + once
    assert found[11].retries == 0 and 1 <= work.calls[11] <= 1 + once
    assert found[3].retries <= 1 and 2 <= work.calls[3] <= 2 + once


@pytest.mark.parametrize("together", [1, 2, 4])
def test_no_more_pieces_are_in_flight_than_the_window_holds(together):
    work = ImageJob()
    with ThreadPoolExecutor(32) as threads:
        pool = Pool(cpu=threads, gpu=threads, workers=32, window=4)
        assert len(list(run_window(pool, work, range(60), retries=0, together=together))) == 60
    assert work.most <= 4


@given(count=st.integers(0, 300), together=st.integers(1, 9), workers=st.integers(1, 40))
def test_calls_hold_every_piece_once_and_shrink_towards_the_end(count, together, workers):
    calls = list(calls_of(range(count), together=together, workers=workers))
    assert [number for call in calls for number in call] == list(range(count))
    sizes = [len(call) for call in calls]
    assert sizes == sorted(sizes, reverse=True) and max(sizes, default=1) <= together
    assert sizes[-workers:] == [1] * min(workers, len(sizes))


@pytest.mark.parametrize("together", [1, 4])
def test_what_puts_the_run_in_doubt_ends_it(pool_of, together):
    with pytest.raises(RunConflict, match="taken"):
        list(
            run_window(
                pool_of(4), ImageJob({2: (RunConflict("taken"), 99)}), range(9), retries=2, together=together
            )
        )
    lost = ImageJob({2: (StoreLost("gone"), 99)})
    with pytest.raises(StoreLost, match="gone"):
        list(run_window(pool_of(4), lost, range(9), retries=2, together=together))
    assert 3 <= lost.calls[2] <= 3 + (together > 1)
