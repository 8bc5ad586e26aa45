"""`platelayer serve`: schedules and watched folders, on a Prefect server."""

import os
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from flows.jobs import SegmentJob, WatchJob, field_comments, job, read_toml, with_settings
from flows.orchestrate import is_prefect_configured, reach_api
from pipeline.errors import BadArgument

_ABOUT = field_comments(WatchJob)

JobFile = Annotated[str, Parameter(help="Job file (.toml); with --watch its source is each plate in turn.")]
Place = Annotated[str | None, Parameter(help=_ABOUT["place"])]
Cron = Annotated[str | None, Parameter(help="When: minute, hour, day, month, weekday, such as '0 2 * * *'.")]
Every = Annotated[str | None, Parameter(help="How often: 30s, 5m, 2h, 1d.")]
Match = Annotated[str | None, Parameter(help=_ABOUT["match"])]
Marker = Annotated[str | None, Parameter(help=_ABOUT["marker"])]
Quiet = Annotated[
    str | None, Parameter(help="Without a marker: how long a plate must not change to be complete.")
]
Settings = Annotated[
    list[str] | None,
    Parameter(help="Any key of the job: tiling.core=2048; of the watch: watch.drift=0.5", negative=""),
]
Name = Annotated[
    str | None, Parameter(help="Name of the deployment; default: from the place and the labels.")
]
Tags = Annotated[list[str] | None, Parameter(name="--tag", help="Tag of the deployment.", negative="")]


def serve(
    job_file: JobFile,
    *,
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
    """Run a job by the clock, or on every plate that appears at a place, until stopped."""
    url = local_server()
    from flows import serve as serving

    work = read_work(job_file, watch, {"match": match, "marker": marker, "quiet_s": quiet}, set or [])
    schedule = serving.Schedule(cron=cron, every_s=serving.seconds(every) if every else None)
    if schedule == serving.Schedule():
        raise BadArgument("serve: expected --cron or --every; to run a job once use `platelayer segment`")
    made = serving.deployments(work, schedule, name=name, tags=tags or [])
    sys.stdout.write(f"serving {', '.join(one.full_name for one in made)} on {url}; Ctrl-C stops\n")
    sys.stdout.flush()
    serving.serve(made, at_once=isinstance(work, WatchJob) and cron is None)
    return 0


def local_server() -> str:
    """URL of the server, which answered: the configured one, else one on this machine at Prefect's own port."""
    if not is_prefect_configured():
        os.environ["PREFECT_API_URL"] = "http://127.0.0.1:4200/api"
    return reach_api()


def read_work(
    path: str, place: str | None, options: dict[str, Any], settings: list[str]
) -> SegmentJob | WatchJob:
    """The job of a file, or a watch with it as template; options before settings."""
    from flows.serve import seconds

    given = {key: value for key, value in options.items() if value is not None}
    if given.get("quiet_s"):
        given["quiet_s"] = seconds(given["quiet_s"])
    own = [setting for setting in settings if not setting.startswith("watch.")]
    table = with_settings(read_toml(path), own)
    if place is None:
        if given or len(own) < len(settings):
            raise BadArgument(f"{', '.join(given) or 'watch.*'}: expected with --watch only")
        return job(SegmentJob, table)
    table = {"place": place, "job": {**table, "source": place}} | given
    return job(WatchJob, with_settings(table, [s.removeprefix("watch.") for s in settings if s not in own]))
