"""The main job: images in, label stacks and object tables out; stage after stage, group after group.

Every stage is "list what is there, subtract the marks, run the rest", so a run that was killed goes on where it
was. The stages are plain functions: `segment` runs them directly or, where a Prefect API is configured, as
Prefect tasks (`flows.execution.orchestrate`), with the same result.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from flows.execution.executors import Pool, describe_error, pool, run_window
from flows.execution.orchestrate import Step, direct
from flows.jobs import SegmentJob, as_table
from flows.segmentation import stages
from flows.segmentation.growth import report_changes
from flows.segmentation.joining import is_joined, join_image
from flows.segmentation.limits import find_limits
from flows.segmentation.measuring import find_objects
from flows.segmentation.painting import (
    PaintItem,
    Target,
    coarse_levels,
    coarsen,
    finish_image,
    large,
    paint_items,
    paint_or_measure,
    staging,
)
from flows.segmentation.plan import GROUP_TILES, Plan, make_plan
from flows.segmentation.record import Progress, RunRecord, silent
from flows.segmentation.stage_runner import Run, parallel_map, tile_pixels
from flows.segmentation.stages import ImageJob, TileJob
from pipeline.errors import RunConflict
from pipeline.normalise import Limits
from pipeline.store.ledger import held
from pipeline.store.ome.label_writing import JOURNAL
from pipeline.store.ome.labels import label_origin
from pipeline.store.ome.mirror import list_published, mirror
from pipeline.store.ome.tables import list_tables
from pipeline.store.places.traffic import take_counts


def segment(job: SegmentJob, *, progress: Progress = silent, step: Step = direct) -> RunRecord:
    """Segment every image of a source; the record says what was done, skipped and set aside.

    Raises:
        BadArgument, BadStore: the job or the source as a whole cannot be used; nothing was written.
        BadOutput: the output cannot be written; what is finished is kept.
        RunConflict: the output is held by another run, or labels of that name are there already.
    """
    take_counts()  # what this process did before is none of this run's
    plan = make_plan(job)
    record = RunRecord.begin(plan)
    todo = unfinished(plan, record)
    if not todo:
        return record.finished_before(plan)
    _check_names(plan, todo)
    with ExitStack() as stack:
        workers = stack.enter_context(pool(job.execution, remote=plan.is_remote))
        record.moved("plan", take_counts())
        _check_segmenter(plan, workers, record)
        hold = stack.enter_context(held(plan.output, plan.ledger.run))
        if not plan.in_place:
            mirror(plan.source, plan.output, copy_images=job.copy_images)
        plan.ledger.write_json("job.json", as_table(job))
        run = Run(plan, workers, record, progress, hold)
        record.moved("plan", take_counts())
        _segment_groups(run, todo, step)
        report_changes(plan, record)
        if (record.failures or record.left_out) and not plan.in_place:
            list_published(plan.source, plan.output)
        record.moved("finish", take_counts())
        record.finish(plan)
    return record


def _segment_groups(run: Run, todo: Iterable[ImageJob], step: Step) -> None:
    wanted = {work.key for work in todo}
    least = max(GROUP_TILES, 2 * run.pool.window)
    for number, group in enumerate(run.plan.groups(least_tiles=least)):
        own = [work for work in group if work.key in wanted]
        if own:
            _segment_group(run, group, own, f"group {number}", step)
            run.record.write(run.plan)


def _segment_group(
    run: Run, group: Sequence[ImageJob], todo: Sequence[ImageJob], name: str, step: Step
) -> None:
    """Take the images of a group that are not done through all stages."""
    limits = step(find_limits, run, group, todo, name=f"limits {name}")
    step(predict, run, run.alive(todo), limits, name=f"predict {name}")
    for stage in (describe, join, paint, finish):
        step(stage, run, run.alive(todo), name=f"{stage.__name__} {name}")


def unfinished(plan: Plan, record: RunRecord) -> list[ImageJob]:
    """Images whose labels this run has not published, or whose labels were taken away or replaced since."""
    there = set(plan.output.list(f"{plan.ledger.folder}/images"))
    marked = [work for work in plan.works if f"{work.key}.json" in there]
    waits = not plan.output.is_local
    origins = parallel_map(partial(_origin, plan), marked, waits=waits)
    done = [work for work, origin in zip(marked, origins) if origin == plan.label_fingerprint]
    for facts in parallel_map(lambda work: _facts(plan, record, work), done, waits=waits):
        record.image(facts)
    keys = {work.key for work in done}
    return [work for work in plan.works if work.key not in keys]


def _origin(plan: Plan, work: ImageJob) -> str | None:
    return label_origin(plan.output, work.image.path, plan.name, zarr_format=work.image.zarr_format)


def _facts(plan: Plan, record: RunRecord, work: ImageJob) -> dict[str, Any]:
    known = record.images.get(work.image.path, {})
    return known if known.get("key") == work.key else plan.ledger.find_json(f"images/{work.key}.json")


def _check_names(plan: Plan, todo: Sequence[ImageJob]) -> None:
    """Labels and tables of that name that are not this run's are refused before any work is done."""
    if plan.job.overwrite:
        return
    conflicts = [
        reason
        for reason in parallel_map(partial(_conflict, plan), todo, waits=not plan.output.is_local)
        if reason
    ]
    if conflicts:
        more = f" (and {len(conflicts) - 1} more images)" if len(conflicts) > 1 else ""
        raise RunConflict(
            f"{conflicts[0]}{more}; give another --name, or --overwrite to replace them when the new ones are complete"
        )


def _conflict(plan: Plan, work: ImageJob) -> str | None:
    there = _origin(plan, work)
    place = f"{plan.output.child(work.image.path)}"
    if there is None:
        if plan.name not in list_tables(plan.output, work.image.path, zarr_format=work.image.zarr_format):
            return None
        done = plan.output.exists(f"{plan.ledger.folder}/images/{work.key}.json")
        if done or plan.ledger.marks("predict", work.key):
            return None
        return f"{place}: a table {plan.name!r} is there already"
    if there != plan.label_fingerprint:
        return f"{place}: labels {plan.name!r} are there already and come from other work"
    if plan.output.exists(f"{staging(work)}/{_journal(plan, work)}"):
        return None
    return (
        f"{place}: labels {plan.name!r} are there already, from other tiles or an earlier state of the image"
    )


def _journal(plan: Plan, work: ImageJob) -> str:
    """What this run leaves where it publishes, so it knows its own labels."""
    return "/".join(part for part in (work.image.path, "labels", f"{plan.name}.{JOURNAL}") if part)


def _check_segmenter(plan: Plan, workers: Pool, record: RunRecord) -> None:
    """Load the segmenter where it will run: a missing GPU, file or module ends the run before it begins."""
    for outcome in run_window(workers, stages.ready, [plan.segmenter], retries=0, gpu=True):
        record.moved("plan", outcome.traffic)
        if isinstance(outcome.error, ValueError | RuntimeError):
            raise outcome.error
        if outcome.error is not None:
            raise RunConflict(f"the segmenter cannot be loaded: {describe_error(outcome.error)}")


def predict(run: Run, todo: Sequence[ImageJob], limits: dict[str, Limits]) -> None:
    """Run the network over every tile that has no mark yet."""
    jobs = [
        (item, limits[work.key])
        for work, marks in zip(todo, parallel_map(_begin, todo))
        for item in work.items(work.tiles())
        if item.key not in marks
    ]
    for outcome in run.each("predict", stages.predict, jobs, gpu=True, item=lambda job: job[0]):
        run.record.network(outcome.result)


def _begin(work: ImageJob) -> set[str]:
    """Tiles of an image that were predicted; makes the mask where there are none."""
    marks = work.ledger.marks("predict", work.key)
    if not marks and work.traits.link == "touch":
        stages.create_mask(work)
    return marks


def describe(run: Run, todo: Sequence[ImageJob]) -> None:
    """Find the pieces of every block that was not described yet."""
    there = parallel_map(
        lambda work: set(run.plan.output.list(f"{work.ledger.folder}/pieces/{work.key}")), todo
    )
    jobs = [
        item
        for work, keys in zip(todo, there)
        for item in work.items(work.units())
        if f"{item.key}{stages.RUNS}" not in keys
    ]
    for _ in run.each("describe", stages.describe_unit, jobs, item=lambda item: item):
        pass


def join(run: Run, todo: Sequence[ImageJob]) -> None:
    """Reduce the pieces of each image to objects, one image at a time on a worker."""
    jobs = [work for work, done in zip(todo, parallel_map(is_joined, todo)) if not done]
    call = partial(join_image, filters=run.plan.filters)
    for _ in run.each("join", call, jobs, item=lambda work: work):
        pass


def targets(plan: Plan, works: Iterable[ImageJob]) -> list[Target]:
    """Where the labels of some images go."""
    name, origin, overwrite = plan.name, plan.label_fingerprint, plan.job.overwrite
    return [Target(work=work, name=name, origin=origin, overwrite=overwrite) for work in works]


def paint(run: Run, todo: Sequence[ImageJob]) -> None:
    """Write every block of the labels that was not painted yet, then what is left of each image."""
    _forget_removed(run.plan, todo)
    images = targets(run.plan, todo)
    tables = [image for image in images if large(image) and find_objects(image.work) is None]
    blocks = [item for found in parallel_map(paint_items, images) for item in found]
    # Tables first: each takes as long as several blocks.
    jobs: list[PaintItem | Target] = [*tables, *blocks]
    for _ in run.each("paint", paint_or_measure, jobs, item=_about, pixels=tile_pixels):
        pass
    painted = [image for image in targets(run.plan, run.alive(todo)) if large(image)]
    layers = [layer for found in parallel_map(coarse_levels, painted) for layer in found]
    for _ in run.each("complete", coarsen, layers, item=lambda job: job.target.work, pixels=tile_pixels):
        pass


def _about(job: PaintItem | Target) -> TileJob | ImageJob:
    return job.item if isinstance(job, PaintItem) else job.work


def _forget_removed(plan: Plan, todo: Sequence[ImageJob]) -> None:
    """What was published and taken away since is painted again: its marks go first, then the fact."""
    there = set(plan.output.list(f"{plan.ledger.folder}/images"))
    for work in todo:
        if f"{work.key}.json" in there:
            plan.ledger.forget(f"done/paint/{work.key}")
            plan.output.remove(staging(work))
            plan.ledger.forget(f"images/{work.key}.json")


def finish(run: Run, todo: Sequence[ImageJob]) -> None:
    """Show the labels and the table of each image, complete, at their place."""
    jobs = [replace(target, empty=target.work.key in run.empty) for target in targets(run.plan, todo)]
    for outcome in run.each("finish", finish_image, jobs, item=lambda job: job.work):
        run.record.image(outcome.result)
