"""Serving: flows as deployments of a Prefect server, in this process or on a work pool.

The parameter of a deployment is the job itself, checked before anything is sent; credentials come from the environment
of the process that runs it. Plates that arrive while nothing is serving are processed by the next check.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import prefect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import EntrypointType

from flows.execution.orchestrate import reach_api
from flows.jobs import SegmentJob, WatchJob, as_table
from flows.scheduling.prefect_flows import plate_flow, segment_flow, watch_flow
from flows.scheduling.watch import open_watch
from pipeline.errors import BadArgument, RunConflict
from pipeline.store.places.address import address

PROCESSES = 3
"""Concurrent flow runs of a serving process: a long check, the next one, which ends at once, and a plate by hand."""

SERVER_LIMIT = 200
"""Runs or work pools that a Prefect server lists per request; it schedules no more runs ahead."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The schedule of a deployment; without one it runs on request."""

    cron: str | None = None
    """Five fields: minute, hour, day, month, weekday."""
    every_s: float | None = None
    """Seconds between starts."""

    def __post_init__(self) -> None:
        if self.cron and self.every_s:
            raise BadArgument("expected --cron or --every, got both")
        if self.every_s is not None and self.every_s < 1:
            raise BadArgument(f"--every: expected at least a second, got {self.every_s!r}")
        if self.cron and not re.fullmatch(r"\S+(\s+\S+){4}", self.cron.strip()):
            raise BadArgument(f"--cron: expected five fields such as '0 2 * * *', got {self.cron!r}")


def seconds(text: str) -> float:
    """Read a duration such as ``30s``, ``5m``, ``2h``, ``1d`` or plain seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match:
        raise BadArgument(f"expected a duration such as 30s, 5m, 2h or 1d, got {text!r}")
    return float(match[1]) * UNITS[match[2] or "s"]


def absolute(job: SegmentJob) -> SegmentJob:
    """Return a job that is valid in another process: addresses are checked and made absolute."""
    model = job.model
    if model is not None and "://" not in model and Path(model).exists():
        model = str(Path(model).resolve())
    output = str(address(job.output)) if job.output else None
    return replace(job, source=str(address(job.source)), output=output, model=model)


def deployments(
    job: SegmentJob | WatchJob,
    schedule: Schedule,
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
    limit: int | None = None,
) -> list[RunnerDeployment]:
    """Deployments of a job: one of the main job, or two of a watch (the check, and a single plate by hand).

    ``limit``: concurrent runs of each; further ones wait.
    """
    made = partial(_deployment, tags=tags, limit=limit)
    if isinstance(job, SegmentJob):
        job = absolute(job)
        return [made(segment_flow, {"job": as_table(job)}, name or _name(job.source), schedule)]
    job = replace(job, place=str(address(job.place)), job=absolute(job.job))
    opened = open_watch(job)
    name = name or f"{_name(job.place)}-{opened.name}"
    table = {"watch": as_table(job)}
    return [
        made(watch_flow, table, name, schedule),
        made(plate_flow, table, name, Schedule()),
    ]


def _name(place: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", address(place).name) or "place"


def _deployment(
    flow: Any,
    parameters: dict[str, Any],
    name: str,
    schedule: Schedule,
    *,
    tags: Sequence[str],
    limit: int | None,
) -> RunnerDeployment:
    try:
        return flow.to_deployment(
            name=name, cron=schedule.cron, interval=schedule.every_s, parameters=parameters,
            tags=["platelayer", *tags], concurrency_limit=limit, entrypoint_type=EntrypointType.MODULE_PATH,
        )  # fmt: skip
    except ValueError as error:
        raise BadArgument(f"--cron {schedule.cron!r}: {error}") from None


def register(
    made: Sequence[RunnerDeployment], *, pool: str | None = None, image: str | None = None
) -> list[UUID]:
    """Create or update deployments on the server, on a work pool where one is named; return their ids.

    Raises:
        RunConflict: no server answers, or it refuses them.
    """
    reach_api()
    if pool is not None:
        _check_pool(pool)
    try:
        return [UUID(str(deployment.apply(work_pool_name=pool, image=image))) for deployment in made]
    except (ValueError, ObjectNotFound, DeploymentApplyError) as error:
        raise RunConflict(f"the Prefect server refused the deployment: {error}") from None


def _check_pool(pool: str) -> None:
    """Refuse an unknown work pool, for which the server would report an internal error."""
    with get_client(sync_client=True) as client:
        names = sorted(known.name for known in client.read_work_pools(limit=SERVER_LIMIT))
    if pool not in names:
        near = difflib.get_close_matches(pool, names, n=1)
        known = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'};"
        raise RunConflict(
            f"--pool {pool}: the Prefect server has no such work pool; {known} "
            f"`prefect work-pool create {pool} --type process` makes one"
        )


def serve(made: Sequence[RunnerDeployment], *, at_once: bool) -> None:
    """Serve deployments in this process until it is stopped.

    The first of them has the schedule; with ``at_once`` its first run starts immediately.
    """
    first = register(made)[0]
    with get_client(sync_client=True) as client:
        forget_missed(client, first)
        if at_once:
            client.create_flow_run_from_deployment(first)
    # Two servers may share a deployment: when one stops, the other must continue.
    prefect.serve(*made, pause_on_shutdown=False, print_starting_message=False, limit=PROCESSES)


def forget_missed(client: SyncPrefectClient, deployment: UUID) -> int:
    """Delete runs that became due while nothing was serving, since one check does their work; return their number."""
    missed = {
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "expected_start_time": {"before_": datetime.now(UTC)},
    }
    late = client.read_flow_runs(
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=SERVER_LIMIT,
        flow_run_filter=FlowRunFilter.model_validate(missed),
        deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [deployment]}}),
    )
    for run in late:
        client.delete_flow_run(run.id)
    return len(late)
