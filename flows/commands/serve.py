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
class Wishes:
    """What is run when; the options of `serve` and `deploy`."""

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


NONE = Wishes()


def serve(job_file: JobFile, *, wishes: Wishes = NONE) -> int:
    """Run a job by the clock, or on every plate that appears at a place, until stopped."""
    if not wishes.cron and not wishes.every:
        raise BadArgument("serve: expected --cron or --every; to run a job once use `platelayer segment`")
    work = read_work(job_file, wishes)
    made = deployments_of(work, wishes)
    sys.stdout.write(
        f"serving {', '.join(one.full_name for one in made)} on {configured_api()}; Ctrl-C stops\n"
    )
    sys.stdout.flush()
    from flows.scheduling import serve as serving

    serving.serve(made, at_once=isinstance(work, WatchJob) and not wishes.cron)
    return 0


def deployments_of(work: SegmentJob | WatchJob, wishes: Wishes) -> list[Any]:
    """Deployments as they were wished for; Prefect is imported here and not before."""
    from flows.scheduling import serve as serving

    schedule = serving.Schedule(
        cron=wishes.cron, every_s=serving.seconds(wishes.every) if wishes.every else None
    )
    return serving.deployments(work, schedule, name=wishes.name, tags=wishes.tag, limit=wishes.limit)


def read_work(path: str, wishes: Wishes) -> SegmentJob | WatchJob:
    """The job of a file, or a watch with it as template; options before settings."""
    from flows.scheduling.serve import seconds

    quiet_s = seconds(wishes.quiet) if wishes.quiet else None
    options = {"match": wishes.match, "marker": wishes.marker, "quiet_s": quiet_s}
    given = {key: value for key, value in options.items() if value is not None}
    own = [setting for setting in wishes.set if not setting.startswith("watch.")]
    others = [setting.removeprefix("watch.") for setting in wishes.set if setting.startswith("watch.")]
    table = with_settings(read_toml(path), own)
    if wishes.watch is None:
        if given or others:
            raise BadArgument(f"{', '.join(given) or 'watch.*'}: expected with --watch only")
        return job(SegmentJob, table)
    table = {"place": wishes.watch, "job": {**table, "source": wishes.watch}} | given
    return job(WatchJob, with_settings(table, others))
