"""The window: every piece of work ends in one outcome, whatever fails and however many travel together."""

import pickle
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.execution.executors import Pool, Serial, StageFailed, failing_in
from flows.execution.windows import CALL_S, Batches, run_window
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


@given(
    count=st.integers(0, 300),
    most=st.integers(1, 50),
    workers=st.integers(1, 40),
    times=st.lists(st.floats(0, 2), max_size=20),
)
@settings(deadline=None)
def test_calls_hold_every_piece_once_and_shrink_towards_the_end(count, most, workers, times):
    batches, calls, times = Batches(range(count), most=most, workers=workers), [], iter(times)
    while call := batches.following():
        calls.append(call)
        batches.learn(len(call), next(times, 0.01))
    assert [number for call in calls for number in call] == list(range(count))
    assert max(map(len, calls), default=1) <= most
    assert [len(call) for call in calls[-workers:]] == [1] * min(workers, len(calls))


def test_calls_are_as_long_as_the_time_says():
    batches = Batches(range(1000), most=1000, workers=1)
    assert len(batches.following()) == 1  # nothing is known of them yet
    batches.learn(1, CALL_S / 20)
    assert len(batches.following()) == 20
    batches.learn(20, 39 * CALL_S)  # half a second, half of what was known before
    assert len(batches.following()) == 1
    for _ in range(12):
        batches.learn(20, CALL_S)
    assert len(batches.following()) == 20


def test_what_was_done_before_a_failure_is_not_done_again():
    work = ImageJob({7: (OSError("broken"), 99)})
    answers = []
    with ThreadPoolExecutor(1) as threads:
        pool = Pool(cpu=threads, gpu=threads, workers=1, window=16)
        answers += run_window(pool, work, range(40), retries=0, together=8)
    assert [number for number, times in work.calls.items() if times > 1] in ([], [7])
    assert [answer.item for answer in answers if answer.error] == [7]


def fails_in_a_stage(number):
    with failing_in("paint", "plane 0"):
        raise OSError("torn")


def test_a_failure_says_in_which_stage(pool_of):
    (outcome,) = run_window(pool_of(1), fails_in_a_stage, [1], retries=1)
    assert (outcome.stage, outcome.where, str(outcome.error), outcome.retries) == (
        "paint",
        "plane 0",
        "torn",
        1,
    )
    lost = pickle.loads(pickle.dumps(StageFailed("a", "b", BadArgument("c"))))
    assert isinstance(lost.cause, BadArgument) and str(lost.cause) == "c"


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
