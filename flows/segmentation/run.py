"""The main job: images to label stacks and object tables, group after group, stage after stage.

Every stage lists its units of work, drops those that have a mark, and runs the rest, so a killed run is resumed by
the same command. The stages are plain functions: `segment` calls them directly or, where a Prefect API is
configured, as Prefect tasks (`flows.execution.orchestrate`), with the same results.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from flows.execution.executors import Pool, describe_error
from flows.execution.orchestrate import Step, direct
from flows.execution.parallel import parallel_map
from flows.execution.pools import open_pool, prepare_pool
from flows.execution.windows import Phase, run_window
from flows.jobs import SegmentJob, as_table
from flows.segmentation import WORKER_MODULES
from flows.segmentation.existing import Existing, find_existing, target_of
from flows.segmentation.plan import GROUP_TILES, Plan, make_plan
from flows.segmentation.plate_table import update_plate_table
from flows.segmentation.record import Progress, RunRecord, silent
from flows.segmentation.source_changes import digests_now, report_changes
from flows.segmentation.stage_runner import Run, tile_pixels
from flows.segmentation.stages import tiles as stages
from flows.segmentation.stages.field import (
    FieldJob,
    finish_field,
    predict_field,
    predict_fields,
    segment_field,
)
from flows.segmentation.stages.joining import is_joined, join_image
from flows.segmentation.stages.limits import find_limits
from flows.segmentation.stages.measuring import find_objects
from flows.segmentation.stages.painting import (
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
from flows.segmentation.stages.tiles import ImageJob, TileJob
from pipeline.errors import RunConflict
from pipeline.normalise import Limits
from pipeline.store.ledger import JOB, held
from pipeline.store.ome.mirror import list_published, mirror
from pipeline.store.places.traffic import take_counts

EARLY_FIELDS = 100
"""Number of fields from which this process begins before its worker processes have started."""

FIELDS_AT_ONCE = 8
"""Fields per call of a worker with a GPU: enough small ones to fill it."""


def segment(job: SegmentJob, *, progress: Progress = silent, step: Step = direct) -> RunRecord:
    """Segment every image of a source; the record says what was done, skipped and set aside.

    Raises:
        BadArgument, BadStore: the job or the source as a whole cannot be used; nothing was written.
        BadOutput: the output cannot be written; what is finished is kept.
        RunConflict: the output is locked by another run, or labels of that name exist already.
    """
    prepare_pool(job.execution, preload=WORKER_MODULES)
    take_counts()  # Requests made before this run do not belong to it.
    plan = make_plan(job)
    record = RunRecord.begin(plan)
    existing = find_existing(plan)
    for facts in existing.facts(record):
        record.image(facts)
    todo = existing.todo
    if not todo:
        update_plate_table(plan, record)
        return record.finished_before(plan)
    existing.check_names(todo)
    with ExitStack() as stack:
        pool = stack.enter_context(
            open_pool(
                job.execution,
                remote=plan.is_remote,
                preload=WORKER_MODULES,
                early=_works_early(plan, existing),
            )
        )
        record.moved("plan", take_counts())
        _check_segmenter(plan, pool, record)
        hold = stack.enter_context(held(plan.output, plan.ledger.run))
        if not plan.in_place:
            mirror(plan.source, plan.output, copy_images=job.copy_images, present=existing.keys)
        plan.ledger.write_json(JOB, as_table(job))
        existing.claim(todo)
        run = Run(plan, pool, record, progress, hold)
        record.moved("plan", take_counts())
        _segment_groups(run, existing, todo, step)
        with ThreadPoolExecutor(1) as beside:
            now = beside.submit(
                digests_now, plan
            )  # Mostly waits for the store, while workers write the table.
            update_plate_table(plan, record, pool)
        report_changes(plan, record, now.result())
        if (record.failures or record.left_out) and not plan.in_place:
            list_published(plan.source, plan.output)
        record.moved("finish", take_counts())
        record.finish(plan)
    return record


def _works_early(plan: Plan, existing: Existing) -> bool:
    """Whether this process segments fields while its worker processes start.

    Not a model, whose libraries take as long to import as workers to start. And only at the first start of a run: a
    segmenter that crashes its process then crashes a worker at the second start, and its image is set aside.
    """
    fields = sum(work.is_field for work in existing.todo)
    return plan.segmenter.kind in ("import", "threshold") and fields >= EARLY_FIELDS and not existing.begun


def _segment_groups(run: Run, existing: Existing, todo: Iterable[ImageJob], step: Step) -> None:
    wanted = {work.key for work in todo}
    least = max(GROUP_TILES, 2 * run.pool.window)
    for number, group in enumerate(run.plan.groups(least_tiles=least)):
        unfinished = [work for work in group if work.key in wanted]
        if unfinished:
            _segment_group(run, existing, group, unfinished, f"group {number}", step)
            run.record.write(run.plan)


def _segment_group(
    run: Run, existing: Existing, group: Sequence[ImageJob], todo: Sequence[ImageJob], name: str, step: Step
) -> None:
    """Process the unfinished images of a group: fields in one call each, larger images stage by stage."""
    fields = [work for work in todo if work.is_field]
    large = [work for work in todo if not work.is_field]
    limits: dict[str, Limits] = {}
    if large or run.plan.shares_limits:
        limits = step(
            find_limits, run, group, todo if run.plan.shares_limits else large, name=f"limits {name}"
        )
    if fields:
        step(segment_fields, run, existing, run.alive(fields), limits, name=f"fields {name}")
    if large:
        step(predict, run, run.alive(large), limits, name=f"predict {name}")
        for stage in (describe, join, paint, finish):
            step(stage, run, run.alive(large), name=f"{stage.__name__} {name}")


def segment_fields(run: Run, existing: Existing, todo: Sequence[ImageJob], limits: dict[str, Limits]) -> None:
    """Segment small images, each in one call on a worker."""
    jobs = [
        FieldJob(
            target=target, normalise=run.plan.normalise, filters=run.plan.filters,
            limits=limits.get(target.work.key), replaces=existing.has_labels(target.work),
            absent_are_zeros=run.plan.job.absent_chunks == "zeros",
        )
        for target in _targets(run, todo)
    ]  # fmt: skip
    jobs = [replace(job, target=replace(job.target, overwrite=True)) if job.replaces else job for job in jobs]
    for outcome in run.through("fields", _field_phases(run.pool), jobs, item=lambda job: job.work.whole_item):
        run.record.network(outcome.result.seconds)
        run.record.image(outcome.result.facts)


def _field_phases(pool: Pool) -> list[Phase]:
    """Return the phases of a field: one, or two where the network has workers of its own."""
    together = pool.together
    if not pool.apart:
        return [Phase(call=segment_field, gpu=True, together=together)]
    return [
        Phase(call=predict_field, many=predict_fields, gpu=True, together=min(together, FIELDS_AT_ONCE)),
        Phase(call=finish_field, together=together),
    ]


def _check_segmenter(plan: Plan, workers: Pool, record: RunRecord) -> None:
    """Load the segmenter on a worker, so that a missing GPU, file or module ends the run before it writes anything."""
    for outcome in run_window(workers, stages.ready, [plan.segmenter], retries=0, gpu=True):
        record.moved("plan", outcome.traffic)
        if isinstance(outcome.error, ValueError | RuntimeError):
            raise outcome.error
        if outcome.error is not None:
            raise RunConflict(f"the segmenter cannot be loaded: {describe_error(outcome.error)}")


def predict(run: Run, todo: Sequence[ImageJob], limits: dict[str, Limits]) -> None:
    """Run the network on every tile without a mark."""
    marks = parallel_map(lambda work: work.ledger.marks("predict", work.key), todo)
    jobs = [
        (item, limits[work.key])
        for work, done in zip(todo, marks, strict=True)
        for item in work.items(work.tiles())
        if item.key not in done
    ]
    for outcome in run.each("predict", stages.predict, jobs, gpu=True, item=lambda job: job[0]):
        run.record.network(outcome.result)


def describe(run: Run, todo: Sequence[ImageJob]) -> None:
    """Find and measure the pieces of every block that has not been described yet."""
    described = parallel_map(
        lambda work: set(run.plan.output.list(f"{work.ledger.folder}/pieces/{work.key}")), todo
    )
    jobs = [
        item
        for work, keys in zip(todo, described)
        for item in work.items(work.units())
        if f"{item.key}{stages.RUNS}" not in keys
    ]
    for _ in run.each("describe", stages.describe_unit, jobs, item=lambda item: item):
        pass


def join(run: Run, todo: Sequence[ImageJob]) -> None:
    """Join the pieces of each image into objects, one worker per image."""
    jobs = [work for work, done in zip(todo, parallel_map(is_joined, todo)) if not done]
    call = partial(join_image, filters=run.plan.filters)
    for _ in run.each("join", call, jobs, item=lambda work: work):
        pass


def paint(run: Run, todo: Sequence[ImageJob]) -> None:
    """Write every block of the labels without a mark, then the coarse levels of large images."""
    _forget_removed(run.plan, todo)
    images = _targets(run, todo)
    tables = [image for image in images if large(image) and find_objects(image.work) is None]
    blocks = [item for group in parallel_map(paint_items, images) for item in group]
    # Tables first: each takes as long as several blocks.
    jobs: list[PaintItem | Target] = [*tables, *blocks]
    for _ in run.each("paint", paint_or_measure, jobs, item=_about, pixels=tile_pixels):
        pass
    painted = [image for image in _targets(run, run.alive(todo)) if large(image)]
    layers = [layer for group in parallel_map(coarse_levels, painted) for layer in group]
    for _ in run.each("complete", coarsen, layers, item=lambda job: job.target.work, pixels=tile_pixels):
        pass


def _targets(run: Run, works: Iterable[ImageJob]) -> list[Target]:
    return [target_of(run.plan, work) for work in works]


def _about(job: PaintItem | Target) -> TileJob | ImageJob:
    return job.item if isinstance(job, PaintItem) else job.work


def _forget_removed(plan: Plan, todo: Sequence[ImageJob]) -> None:
    """Reset images whose published labels were removed since: their marks go first, then the mark of the image."""
    published = set(plan.output.list(f"{plan.ledger.folder}/images"))
    for work in todo:
        if f"{work.key}.json" in published:
            plan.ledger.forget(f"done/paint/{work.key}")
            plan.output.remove(staging(work))
            plan.ledger.forget(f"images/{work.key}.json")


def finish(run: Run, todo: Sequence[ImageJob]) -> None:
    """Publish the complete labels and table of each image."""
    jobs = [replace(target, empty=target.work.key in run.empty) for target in _targets(run, todo)]
    for outcome in run.each("finish", finish_image, jobs, item=lambda job: job.work):
        run.record.image(outcome.result)
