"""`platelayer deploy`: the same flows on a work pool, for those who run Prefect already."""

import sys
from typing import Annotated

from cyclopts import Parameter

from flows.commands.serve import (
    Cron,
    Every,
    JobFile,
    Marker,
    Match,
    Name,
    Place,
    Quiet,
    Settings,
    Tags,
    local_server,
    read_work,
)  # fmt: skip


def deploy(
    job_file: JobFile,
    *,
    pool: Annotated[str, Parameter(help="Work pool; its workers need platelayer installed.")],
    image: Annotated[
        str | None, Parameter(help="Container image with platelayer, for pools that take one.")
    ] = None,
    watch: Place = None,
    cron: Cron = None,
    every: Every = None,
    match: Match = None,
    marker: Marker = None,
    quiet: Quiet = None,
    set: Settings = None,
    name: Name = None,
    tags: Tags = None,
) -> int:
    """Register a job, or a watch, on a work pool; its workers do the runs."""
    url = local_server()
    from flows import serve as serving

    work = read_work(job_file, watch, {"match": match, "marker": marker, "quiet_s": quiet}, set or [])
    schedule = serving.Schedule(cron=cron, every_s=serving.seconds(every) if every else None)
    made = serving.deployments(work, schedule, name=name, tags=tags or [])
    serving.register(made, pool=pool, image=image)
    sys.stdout.write(f"{', '.join(one.full_name for one in made)} on {url}, work pool {pool}\n")
    return 0
