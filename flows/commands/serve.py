"""`platelayer serve`: schedules and watched folders, on a Prefect server."""

import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

from cyclopts import Parameter

from flows.execution.orchestrate import configured_api
from flows.jobs import SegmentJob, WatchJob, field_comments, job, read_toml, with_settings
from pipeline.errors import BadArgument

_ABOUT = field_comments(WatchJob)

JobFile = Annotated[str, Parameter(help="Job file (.toml); with --watch its source is each plate in turn.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of `serve` and `deploy`: the plates, the schedule, and the name of the deployment."""

    watch: Annotated[str | None, Parameter(help=_ABOUT["place"])] = None
    cron: Annotated[
        str | None, Parameter(help="When: minute, hour, day, month, weekday, such as '0 2 * * *'.")
    ] = None
    every: Annotated[str | None, Parameter(help="How often: 30s, 5m, 2h, 1d.")] = None
    match: Annotated[str | None, Parameter(help=_ABOUT["match"])] = None
    marker: Annotated[str | None, Parameter(help=_ABOUT["marker"])] = None
    quiet: Annotated[
        str | None, Parameter(help="Without a marker: how long a plate must not change to be complete.")
    ] = None
    set: Annotated[
        list[str],
        Parameter(help="Any key of the job: tiling.core=2048; of the watch: watch.drift=0.5", negative=""),
    ] = field(default_factory=list)
    name: Annotated[
        str | None, Parameter(help="Name of the deployment; default: from the place and the labels.")
    ] = None
    tag: Annotated[list[str], Parameter(help="Tag of the deployment.", negative="")] = field(
        default_factory=list
    )
    limit: Annotated[
        int | None, Parameter(help="Runs of a deployment at once; more of them wait. Default: no limit.")
    ] = None


DEFAULTS = ServeOptions()


def serve(job_file: JobFile, *, options: ServeOptions = DEFAULTS) -> int:
    """Run a job by the clock, or on every plate that appears at a place, until stopped."""
    if not options.cron and not options.every:
        raise BadArgument("serve: expected --cron or --every; to run a job once use `platelayer segment`")
    work = read_work(job_file, options)
    made = deployments_of(work, options)
    sys.stdout.write(
        f"serving {', '.join(one.full_name for one in made)} on {configured_api()}; Ctrl-C stops\n"
    )
    sys.stdout.flush()
    from flows.scheduling import serve as serving

    serving.serve(made, at_once=isinstance(work, WatchJob) and not options.cron)
    return 0


def deployments_of(work: SegmentJob | WatchJob, options: ServeOptions) -> list[Any]:
    """Make the Prefect deployments of a job or a watch; imports Prefect, which takes seconds."""
    from flows.scheduling import serve as serving

    schedule = serving.Schedule(
        cron=options.cron, every_s=serving.seconds(options.every) if options.every else None
    )
    return serving.deployments(work, schedule, name=options.name, tags=options.tag, limit=options.limit)


def read_work(path: str, options: ServeOptions) -> SegmentJob | WatchJob:
    """Read a job file; with --watch the result is a watch with the job as template. --set wins over other options."""
    from flows.scheduling.serve import seconds

    quiet_s = seconds(options.quiet) if options.quiet else None
    given_options = {"match": options.match, "marker": options.marker, "quiet_s": quiet_s}
    given = {key: value for key, value in given_options.items() if value is not None}
    for_job = [setting for setting in options.set if not setting.startswith("watch.")]
    for_watch = [setting.removeprefix("watch.") for setting in options.set if setting.startswith("watch.")]
    table = with_settings(read_toml(path), for_job)
    if options.watch is None:
        if given or for_watch:
            raise BadArgument(f"{', '.join(given) or 'watch.*'}: expected with --watch only")
        return job(SegmentJob, table)
    table = {"place": options.watch, "job": {**table, "source": options.watch}} | given
    return job(WatchJob, with_settings(table, for_watch))
