"""What a tile costs besides its work: the time of pieces of work that do nothing, by executor.

    python benchmarks/tasks.py [--tasks 2000]

The window, the pickling and the counting of traffic are the main job's; Dask runs two worker processes.
"""

import argparse
import time

from machine import machine, write_result

from flows.execution.pools import open_pool
from flows.execution.windows import run_window
from flows.jobs import Execution

SEED = 0


def nothing(number: int) -> int:
    """The work."""
    return number


def milliseconds(executor: str, tasks: int) -> float:
    """Wall time per piece of work, workers already there."""
    with open_pool(Execution(executor=executor, workers=2)) as workers:
        list(run_window(workers, nothing, range(20), retries=0))
        started = time.perf_counter()
        done = sum(
            1 for outcome in run_window(workers, nothing, range(tasks), retries=0) if outcome.error is None
        )
        spent = time.perf_counter() - started
    if done != tasks:
        raise RuntimeError(f"expected {tasks} pieces done, got {done}")
    return round(1e3 * spent / tasks, 3)


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=2000)
    tasks = parser.parse_args().tasks
    cost = {executor: milliseconds(executor, tasks) for executor in ("serial", "threads", "dask")}
    write_result("tasks", {"what": "ms per piece of work that does nothing", "machine": machine(SEED),
                           "tasks": tasks, "ms_per_task": cost})  # fmt: skip


if __name__ == "__main__":
    main()
