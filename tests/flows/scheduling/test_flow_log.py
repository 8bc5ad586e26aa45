"""The log of a flow run: failures with a message for the user take one line, all others keep their stack."""

import io
import logging

import pytest
from prefect.exceptions import FailedRun

from flows.scheduling import prefect_flows
from pipeline.errors import BadStore


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.engine"])
@pytest.mark.parametrize(
    ("error", "stack"),
    [
        (FailedRun("1 of 2 plate(s) failed: a.zarr"), False),
        (BadStore("a.zarr: not JSON"), False),
        (ZeroDivisionError("by zero"), True),
    ],
)
def test_a_failure_that_is_explained_takes_one_line(name, error, stack, monkeypatch):
    assert any(isinstance(one, prefect_flows.OneLine) for one in logging.getLogger(name).filters)
    printed = io.StringIO()
    logger = logging.getLogger(name)
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(printed)])
    try:
        raise error
    except Exception:
        logger.error("Execution of %s exited with unexpected exception", "a run", exc_info=True)
    lines = printed.getvalue().splitlines()
    assert ("Traceback" in printed.getvalue()) is stack
    assert lines == [str(error)] if not stack else lines[-1] == "ZeroDivisionError: by zero"
