"""The main job under Prefect: the same stages, as tasks of a flow run.

A task is one stage of one group of images, so a run has at most a few hundred; tiles go to Dask or to the local
executor inside the task. Tasks are retried by Prefect only after tiles were retried on their own.
"""

import os
from collections.abc import Callable
from typing import Any

import httpx
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL

from flows.jobs import SegmentJob
from flows.record import Progress, RunRecord, silent
from flows.segment import segment
from pipeline.errors import RunConflict

REACH_S = 10
"""A server that does not answer within this time is reported, not waited for."""


def reach_api() -> str:
    """URL of the configured API, after it answered."""
    url = os.environ.get("PREFECT_API_URL") or PREFECT_API_URL.value() or ""
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=REACH_S).raise_for_status()
    except httpx.HTTPError as error:
        raise RunConflict(
            f"no Prefect server answers at {url} ({type(error).__name__}); start it (prefect server start) or unset "
            "PREFECT_API_URL to run without one"
        ) from None
    return url


def as_task(call: Callable[..., Any], *arguments: Any, name: str) -> Any:
    """Call a stage as a Prefect task; arguments are not recorded, for they hold whole images of work."""
    # No cache key from the inputs: the ledger beside the data says what is done.
    run = task(name=name.split()[0], task_run_name=name, retries=1, cache_policy=NO_CACHE)(call)
    return run(*arguments)


def run_segment(job: SegmentJob, progress: Progress = silent) -> RunRecord:
    """Run a job as a flow of the configured server, in this process."""
    reach_api()

    @flow(
        name="segment", flow_run_name=f"segment {job.source}", persist_result=False, validate_parameters=False
    )
    def segment_here() -> RunRecord:
        record = segment(job, progress=progress, step=as_task)
        publish_artifacts(record)
        return record

    return segment_here()


@flow(name="segment", flow_run_name="segment {job.source}", persist_result=False)
def segment_flow(job: SegmentJob) -> dict[str, Any]:
    """Segment every image of a source; for deployments: the parameter is the job itself."""
    record = segment(job, step=as_task)
    publish_artifacts(record)
    if record.failures:
        raise RunConflict(
            f"{len(record.failures)} image(s) were set aside; run again to repair them: {record.failures}"
        )
    return {"run": record.run, "objects": record.objects, "images": len(record.images)}


def publish_artifacts(record: RunRecord) -> None:
    """Show what came of a run in Prefect's UI: a table of images and the facts."""
    rows = [{"image": path or "image", "objects": facts["objects"]} for path, facts in record.images.items()]
    create_table_artifact(table=rows or [{"image": "none", "objects": 0}], key="platelayer-images")
    stages = "\n".join(
        f"| {name} | {facts['seconds']:.1f} | {facts['px'] / 1e6 / max(facts['seconds'], 1e-9):.1f} |"
        for name, facts in record.stages.items()
    )
    failures = "\n".join(f"- {f['image']} in {f['stage']}: {f['reason']}" for f in record.failures) or "none"
    create_markdown_artifact(
        f"**{record.name}** in {record.output}, run {record.run}: {record.status}, {record.objects} objects\n\n"
        f"| stage | s | Mpx/s |\n|---|---|---|\n{stages}\n\nset aside: {failures}\n",
        key="platelayer-run",
    )
