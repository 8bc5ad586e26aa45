"""Workers of this machine come from one process that has imported what they need."""

import os
import sys

import pytest

from flows.execution import forkserver
from flows.execution.pools import open_pool, prepare_pool
from flows.jobs import Execution


def state_of_worker(names):
    """The parent of this process, some of its environment, and which libraries it has."""
    libraries = {"torch", "distributed", "flows.segmentation.stages.field"} & set(sys.modules)
    return os.getppid(), {name: os.environ.get(name) for name in names}, libraries


def test_workers_are_forked_with_the_environment_of_the_run(monkeypatch):
    execution = Execution(executor="dask", workers=2)
    prepare_pool(execution, preload=["flows.segmentation.stages.field"])
    monkeypatch.setenv("PLATELAYER_TEST", "set after the forkserver began")
    names = ["PLATELAYER_TEST", *forkserver.ENVIRONMENT]
    with open_pool(execution, preload=["flows.segmentation.stages.field"]) as pool:
        told = list(pool.cpu.map(state_of_worker, [names] * 8))
    parents = {parent for parent, _, _ in told}
    assert len(parents) == 1 and parents != {os.getpid()}
    expected = {"PLATELAYER_TEST": "set after the forkserver began", **forkserver.ENVIRONMENT}
    assert all(variables == expected for _, variables, _ in told)
    assert all(libraries == {"distributed", "flows.segmentation.stages.field"} for _, _, libraries in told)
    assert not forkserver.ENVIRONMENT.keys() & os.environ.keys()


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_other_executors_start_no_process(executor, monkeypatch):
    monkeypatch.setattr(forkserver, "begin", lambda preload: pytest.fail("a forkserver was started"))
    prepare_pool(Execution(executor=executor), preload=["flows"])
