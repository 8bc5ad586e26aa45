"""`platelayer segment`: makes a job of the command line, runs it, and turns its record into an exit code."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from flows.commands.terminal import print_line
from flows.execution.precision import BEGUN
from flows.jobs import DEFAULT_MODEL, Execution, SegmentJob, field_comments, job, read_toml, with_settings
from flows.jobs import example as job_example
from pipeline.errors import BadArgument

if TYPE_CHECKING:
    from flows.segmentation.record import RunRecord

_ABOUT = field_comments(SegmentJob) | field_comments(Execution)


MOST_LEFT_OUT = 3
"""Images without the wanted channel that are named one by one."""


def _option(name: str) -> Parameter:
    return Parameter(help=_ABOUT[name])


def segment(
    source: Annotated[
        str | None, Parameter(help="OME-Zarr image or plate, path or URL, or a job file (.toml).")
    ] = None,
    *,
    output: Annotated[str | None, _option("output")] = None,
    channel: Annotated[list[str] | None, _option("channel")] = None,
    name: Annotated[str | None, _option("name")] = None,
    model: Annotated[str | None, _option("model")] = None,
    segmenter: Annotated[str | None, _option("segmenter")] = None,
    executor: Annotated[str | None, _option("executor")] = None,
    workers: Annotated[int | None, _option("workers")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda", "openvino"] | None, _option("device")] = None,
    acquisition: Annotated[str | None, _option("acquisition")] = None,
    series: Annotated[str | None, _option("series")] = None,
    project: Annotated[Literal["none", "max"] | None, _option("project")] = None,
    scale: Annotated[str | None, _option("scale")] = None,
    level: Annotated[int | None, _option("level")] = None,
    pixel_size: Annotated[float | None, _option("pixel_size_um")] = None,
    absent_chunks: Annotated[Literal["check", "zeros"] | None, _option("absent_chunks")] = None,
    match: Annotated[
        str | None,
        Parameter(help="The source is an archive: segment every store below it that fits '*.zarr'."),
    ] = None,
    overwrite: Annotated[bool, Parameter(help=_ABOUT["overwrite"], negative="")] = False,
    copy_images: Annotated[bool, Parameter(help=_ABOUT["copy_images"], negative="")] = False,
    set: Annotated[
        list[str] | None, Parameter(help="Any key of the job: tiling.core=2048", negative="")
    ] = None,
    dry_run: Annotated[
        bool, Parameter(help="Say what would be done and what it would cost.", negative="")
    ] = False,
    example: Annotated[bool, Parameter(help="Print a commented job file.", negative="")] = False,
) -> int:
    """Segment an image, a plate or a job file; labels and tables land beside the images."""
    if example:
        return _print_example()
    given = {
        "output": output, "channel": channel, "name": name, "model": model, "segmenter": segmenter,
        "acquisition": acquisition, "series": series, "project": project, "absent_chunks": absent_chunks,
        "scale": scale, "level": level, "pixel_size_um": pixel_size,
        "overwrite": overwrite or None, "copy_images": copy_images or None,
    }  # fmt: skip
    execution = {"executor": executor, "workers": workers, "device": device}
    work = _job(source, given, execution, set or [])
    if dry_run:
        return _estimate(work, match)
    return _run(work) if match is None else _run_archive(work, match)


def _print_example() -> int:
    sys.stdout.write(job_example(SegmentJob))
    return 0


def _estimate(work: SegmentJob, match: str | None) -> int:
    from flows.segmentation.archive import find_stores, jobs_of
    from flows.segmentation.estimate import estimate
    from pipeline.store.places.address import address

    if match is None:
        sys.stdout.write(estimate(work))
        return 0
    for key, one in jobs_of(work, find_stores(address(work.source), match)):
        print_line(f"{key}:\n{estimate(one).rstrip()}")
    return 0


def _job(
    source: str | None, given: dict[str, Any], execution: dict[str, Any], settings: list[str]
) -> SegmentJob:
    """Combine the job file, the options and --set; later ones take precedence."""
    if source is None:
        raise BadArgument(
            "segment: expected a store or a job file; `platelayer segment --example` prints a job"
        )
    table: dict[str, Any] = read_toml(source) if source.endswith(".toml") else {"source": source}
    table |= {key: value for key, value in given.items() if value is not None}
    chosen = {key: value for key, value in execution.items() if value is not None}
    if chosen:
        table["execution"] = {**table.get("execution", {}), **chosen}
    return job(SegmentJob, with_settings(table, settings))


def _run(work: SegmentJob) -> int:
    _say_model(work)
    return summary(_record(work))


def _run_archive(work: SegmentJob, match: str) -> int:
    from flows.execution.orchestrate import is_prefect_configured
    from flows.segmentation.archive import segment_archive

    _say_model(work)
    archive = segment_archive(
        work, match, run=_record, on_store=lambda key, of: print_line(f"{key} (of {of})"), on_record=_write_report
    )  # fmt: skip
    for line in archive.lines():
        print_line(line)
    if is_prefect_configured():
        from flows.scheduling.artifacts import publish_archive

        publish_archive(archive)
    return archive.exit_code


def _write_report(record: "RunRecord") -> None:
    """Write the page of a store of an archive beside the record of its run, unless it exists."""
    from flows.evaluation.report import ReportOn, report_page
    from pipeline.report.page import html_page
    from pipeline.store.ledger import Ledger
    from pipeline.store.places.address import address

    ledger = Ledger(address(record.output), record.run)
    if record.images and (record.status != "unchanged" or ledger.find("report.html") is None):
        page = report_page(ReportOn(store=record.output, name=record.name, run=record.run))
        ledger.write("report.html", html_page(page).encode())


def _say_model(work: SegmentJob) -> None:
    from model.card import shipped

    chosen = work.segmenter or work.model or f"{DEFAULT_MODEL} (the default)"
    running = work.segmenter or work.model or DEFAULT_MODEL
    others = [known for known in (*shipped(), "threshold") if known != running]
    how = f"device {_device(work)}, precision {_precision(work)}, {_scale(work)}"
    sys.stdout.write(f"model: {chosen}, {how}; others: {', '.join(others)}\n")


def _device(work: SegmentJob) -> str:
    """Where the network will run, as far as it is known before anything is imported that takes seconds."""
    from flows.execution.executors import has_gpu_driver

    execution = work.execution
    if execution.device != "auto":
        return execution.device
    if "://" in execution.executor:
        return "auto (a GPU where workers have one)"
    if not has_gpu_driver():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _precision(work: SegmentJob) -> str:
    """The arithmetic of the network, and why where the job leaves it open."""
    from flows.execution.segmenters import reference

    model = reference(work)
    return f"{model.precision} ({model.precision_reason})" if model.precision_reason else model.precision


def _scale(work: SegmentJob) -> str:
    """At which scale images are segmented, as the job says."""
    if work.pixel_size_um is not None:
        return f"pixels of {work.pixel_size_um:g} um"
    scale = "scale auto" if work.scale == "auto" else f"scale {work.scale or 1:g}"
    return f"{scale} of level {work.level}" if work.level else scale


def _record(work: SegmentJob) -> "RunRecord":
    from flows.commands.terminal import watcher
    from flows.execution.orchestrate import is_prefect_configured
    from flows.execution.pools import prepare_pool
    from flows.segmentation import WORKER_MODULES

    prepare_pool(work.execution, preload=WORKER_MODULES)  # while this process imports the rest
    watching = watcher()
    try:
        if is_prefect_configured():
            from flows.scheduling.prefect_flows import run_segment

            record = run_segment(work, watching)
        else:
            from flows.segmentation.run import segment as run

            record = run(work, progress=watching)
    finally:
        watching.close()
    return record


def summary(record: "RunRecord") -> int:
    """Print the result of a run; return the exit code."""
    for image, reason in list(record.left_out.items())[:MOST_LEFT_OUT]:
        sys.stdout.write(f"left out: {image or 'image'}: {reason}\n")
    if len(record.left_out) > MOST_LEFT_OUT:
        sys.stdout.write(f"left out: {len(record.left_out) - MOST_LEFT_OUT} more image(s)\n")
    if record.status == "unchanged":
        sys.stdout.write(
            f"nothing to do: run {record.run} finished before, {record.objects} objects in {record.output}\n"
        )
        return 0
    channels = ", ".join(record.channels)
    sys.stdout.write(
        f"{record.objects} objects in {len(record.images)} image(s), channel {channels} -> {record.output} "
        f"(labels and tables {record.name!r}, run {record.run})\n"
    )
    if record.model.get("precision_reason") == BEGUN:
        sys.stdout.write(f"precision: {record.model['precision']}, {BEGUN}\n")
    for note in [*record.notes, *filter(None, [record.sizes_note])]:
        sys.stdout.write(f"scale: {note}\n")
    if record.empty:
        names = ", ".join(path or "image" for path in record.empty[:8])
        more = ", ..." if len(record.empty) > 8 else ""
        sys.stdout.write(
            f"nothing but noise in {len(record.empty)} image(s): {names}{more}{_one_range(record)}\n"
        )
    flagged = [f"{path or 'image'}: {' and '.join(flags)}" for path, flags in record.flags.items()]
    if flagged:
        more = ", ..." if len(flagged) > 8 else ""
        sys.stdout.write(f"look at {len(flagged)} image(s): {', '.join(flagged[:8])}{more}\n")
    if record.z_planes > 1:
        sys.stdout.write(
            f"{record.z_planes} z planes were segmented one by one: an object in several planes counts in each\n"
        )
    if record.requests:
        sys.stdout.write(f"object storage: {record.requests}\n")
    for message in record.missing:
        sys.stderr.write(f"missing: {message}\n")
    first = {failure["image"]: failure for failure in reversed(record.failures)}
    for image, failure in first.items():
        sys.stderr.write(f"set aside: {image or 'image'} in {failure['stage']}: {failure['reason']}\n")
    if record.failures:
        sys.stderr.write("the same command again repairs only what is missing\n")
    return 3 if record.failures or record.missing else 0


def _one_range(record: "RunRecord") -> str:
    """How to give all images of a plate one range of intensities, where each has its own."""
    several = len(record.images) > 1 and record.normalise.get("scope") == "image"
    return "; --set normalise.scope=plate gives all images one range" if several else ""
