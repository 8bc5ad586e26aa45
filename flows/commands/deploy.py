"""`platelayer deploy`: the flows of `serve` on an existing work pool of Prefect."""

import sys
from typing import Annotated

from cyclopts import Parameter

from flows.commands.serve import DEFAULTS, JobFile, ServeOptions, deployments_of, read_work
from flows.execution.orchestrate import configured_api


def deploy(
    job_file: JobFile,
    *,
    pool: Annotated[str, Parameter(help="Work pool; its workers need platelayer installed.")],
    image: Annotated[
        str | None, Parameter(help="Container image with platelayer, for pools that take one.")
    ] = None,
    options: ServeOptions = DEFAULTS,
) -> int:
    """Register a job, or a watch, on a work pool, whose workers run it."""
    made = deployments_of(read_work(job_file, options), options)
    from flows.scheduling import serve as serving

    serving.register(made, pool=pool, image=image)
    sys.stdout.write(f"{', '.join(one.full_name for one in made)} on {configured_api()}, work pool {pool}\n")
    return 0
