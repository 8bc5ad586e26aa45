"""The main job: images in, label stacks and object tables out; stage after stage, group after group.

Every stage is "list what is there, subtract the marks, run the rest", so a run that was killed goes on where it
was. The stages are plain functions: `segment` runs them directly or, where a Prefect API is configured, as
Prefect tasks (`flows.orchestrate`), with the same result.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from pipeline.store.mirror import mirror
from pipeline.store.tables import write_table

from flows import stages
from flows.executors import Outcome, Pool, pool, run_window
from flows.jobs import SegmentJob, as_table
from flows.joining import is_joined, join_image, read_objects, read_stitching
from flows.orchestrate import Step, direct
from flows.plan import Plan, count_tiles, make_plan
from flows.record import Progress, RunRecord, silent
from flows.stages import Item, PaintItem, Work
from pipeline import normalise
from pipeline.errors import BadStore, RunConflict
from pipeline.normalise import Histogram, Limits
from pipeline.store.labels import LabelWriter, create_labels, label_origin, publish
from pipeline.store.ledger import held

LIMITS_PX = 2048
"""Side of the blocks over which histograms are taken; they add up exactly, so no number depends on it."""


@dataclass
class Run:
    """A plan under way."""

    plan: Plan
    pool: Pool
    record: RunRecord
    progress: Progress
    failed: dict[str, str] = field(default_factory=dict)
    """Why an image was set aside, by its key in the scratch."""

    def alive(self, works: Iterable[Work]) -> list[Work]:
        """Images that were not set aside."""
        return [work for work in works if work.key not in self.failed]

    def set_aside(self, work: Work, stage: str, where: object, error: BaseException) -> None:
        """Name an image that cannot be finished; it is never written as zeros."""
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, BadStore) else str(error)
        self.failed.setdefault(work.key, reason)
        self.record.failure(image=work.image.path, stage=stage, where=str(where), reason=reason)

    def each(
        self,
        stage: str,
        call: Callable[[Any], Any],
        todo: Sequence[Any],
        *,
        gpu: bool = False,
        item: Callable[[Any], Item] = lambda it: it,
        px: Callable[[Item], int] | None = None,
    ) -> Iterable[Outcome]:
        """Run ``call`` on every piece of work in a bounded window; failures set their image aside."""  # fmt: skip
        executor = self.pool.gpu if gpu else self.pool.cpu
        execution = self.plan.job.execution
        started = time.perf_counter()
        self.progress.start(stage, len(todo))
        done_px = 0
        for outcome in run_window(
            executor, call, todo, window=execution.window * self.pool.workers, retries=execution.retries
        ):
            one = item(outcome.item)
            self.record.retried(stage, outcome.retries)
            if outcome.error is not None:
                self.set_aside(one.work, stage, outcome.item, outcome.error)
            else:
                done_px += int(np.prod(one.tile.core.shape))
                yield outcome
            self.progress.advance(stage, one)
        self.progress.finish(stage)
        self.record.spent(stage, time.perf_counter() - started, done_px, len(todo))


def segment(job: SegmentJob, *, progress: Progress = silent, step: Step = direct) -> RunRecord:
    """Segment every image of a source; the record says what was done, skipped and set aside.

    Raises:
        BadArgument, BadStore: the job or the source as a whole cannot be used; nothing was written.
        RunConflict: the output is held by another run, or labels of that name are there already.
    """
    plan = make_plan(job)
    record = RunRecord.begin(plan)
    todo = [work for work in plan.works if not is_done(plan, work)]
    if not todo and plan.works:
        return record.finished_before(plan)
    _check_names(plan, todo)
    with ExitStack() as stack:
        stack.enter_context(held(plan.output, plan.ledger.run))
        if not plan.in_place:
            mirror(plan.source, plan.output, copy_images=job.copy_images)
        plan.ledger.write_json("job.json", as_table(job))
        run = Run(plan, stack.enter_context(pool(job.execution)), record, progress)
        for number, group in enumerate(plan.groups()):
            segment_group(run, [work for work in group if work in todo], f"group {number}", step)
        record.finish(plan)
    return record


def segment_group(run: Run, group: Sequence[Work], name: str, step: Step) -> None:
    """Take a group of images through all stages."""
    if not group:
        return
    limits = step(find_limits, run, group, name=f"limits {name}")
    for stage in (predict, describe, join, paint):
        arguments = (limits,) if stage is predict else ()
        step(stage, run, run.alive(group), *arguments, name=f"{stage.__name__} {name}")
    step(finish, run, run.alive(group), name=f"finish {name}")


def is_done(plan: Plan, work: Work) -> bool:
    """Whether this run has published the labels of an image, and they are still its own."""
    if plan.ledger.find_json(f"images/{work.key}.json") is None:
        return False
    return label_origin(plan.output, work.image.path, plan.name) == plan.label_fingerprint


def _check_names(plan: Plan, todo: Sequence[Work]) -> None:
    """Labels of that name that are not ours are refused before any work is done."""
    if plan.job.overwrite:
        return
    for work in todo:
        there = label_origin(plan.output, work.image.path, plan.name)
        if there is not None and there != plan.label_fingerprint:
            raise RunConflict(
                f"{plan.output}/{work.image.path}: labels {plan.name!r} are there already and come from other work; "
                "give another --name, or --overwrite to replace them when the new ones are complete"
            )


def find_limits(run: Run, group: Sequence[Work]) -> dict[str, Limits]:
    """Normalisation limits of each image, from exact histograms over the scope of the job."""
    plan = run.plan
    if plan.normalise.kind == "none":
        return {work.key: Limits((0.0,) * len(work.channels), (1.0,) * len(work.channels)) for work in group}
    found: dict[str, Limits] = {}
    for scope in _scopes(plan, group):
        known = plan.ledger.find_json(f"limits/{scope[0].key}.json")
        if known is None:
            known = _measure_limits(run, scope)
            if known is None:
                continue
            plan.ledger.write_json(f"limits/{scope[0].key}.json", known)
        limits = Limits(tuple(known["offset"]), tuple(known["scale"]))
        found |= {work.key: limits for work in scope}
    return found


def _scopes(plan: Plan, group: Sequence[Work]) -> Iterable[list[Work]]:
    """Images that share their limits."""
    shared: dict[Any, list[Work]] = {}
    for work in group:
        whose = {"image": work.key, "well": work.image.well or work.key, "plate": ""}[plan.normalise.scope]
        shared.setdefault(whose, []).append(work)
    return shared.values()


def _measure_limits(run: Run, scope: Sequence[Work]) -> dict[str, Any] | None:
    """Limits of images that share them; None where all of them were set aside."""
    dtype = scope[0].image.dtype
    channels = len(scope[0].channels)
    low, high = np.zeros(channels), np.zeros(channels)
    if normalise.needs_range(dtype):
        ends = [o.result for o in run.each("limits", stages.value_range, _limit_items(run.alive(scope)))]
        if not run.alive(scope) or not ends:
            return None
        low, high = np.min([a for a, _ in ends], axis=0), np.max([b for _, b in ends], axis=0)
    low, width, bins = normalise.grid(dtype, low, high)
    total: Histogram | None = None
    count = partial(stages.histogram, low=low, width=width, bins=bins)
    for outcome in run.each("limits", count, _limit_items(run.alive(scope))):
        total = outcome.result if total is None else total + outcome.result
    if total is None or not run.alive(scope):
        return None
    limits = normalise.limits(total, run.plan.normalise)
    return {"offset": limits.offset, "scale": limits.scale}


def _limit_items(works: Iterable[Work]) -> list[Item]:
    return [
        Item(work, plane, tile)
        for work in works
        for plane in range(len(work.image.planes))
        for tile in stages.tiles(work.extent, core=LIMITS_PX)
    ]


def predict(run: Run, group: Sequence[Work], limits: dict[str, Limits]) -> None:
    """Run the network over every tile that has no mark yet."""
    todo: list[Item] = []
    for work in group:
        marks = run.plan.ledger.marks("predict", work.key)
        if not marks and work.traits.link == "touch":
            stages.create_mask(work)
        todo += [item for item in _items(work, work.tiles()) if item.key not in marks]
    todo_limits = [(item, limits[item.work.key]) for item in todo]
    for outcome in run.each("predict", _predict, todo_limits, gpu=True, item=lambda pair: pair[0]):
        run.record.network(outcome.result)


def _predict(pair: tuple[Item, Limits]) -> dict[str, Any]:
    return stages.predict(*pair)


def _items(work: Work, tiles: Iterable[Any]) -> list[Item]:
    return [Item(work, plane, tile) for plane in range(len(work.image.planes)) for tile in tiles]


def describe(run: Run, group: Sequence[Work]) -> None:
    """Find the pieces of every block that was not described yet."""
    todo: list[Item] = []
    for work in group:
        there = set(run.plan.output.list(f"{run.plan.ledger.folder}/pieces/{work.key}"))
        todo += [i for i in _items(work, list(work.units())) if f"{i.key}.rows.npz" not in there]
    for _ in run.each("describe", stages.describe_unit, todo):
        pass


def join(run: Run, group: Sequence[Work]) -> None:
    """Reduce the pieces of each image to objects, in this process."""
    started = time.perf_counter()
    run.progress.start("join", len(group))
    for work in group:
        try:
            if not is_joined(work):
                join_image(work, run.plan.filters, run.plan.channels(work))
        except (BadStore, ValueError, OSError) as error:
            run.set_aside(work, "join", work.image.path, error)
        run.progress.advance("join", None)
    run.progress.finish("join")
    run.record.spent(
        "join", time.perf_counter() - started, sum(int(np.prod(w.extent)) for w in group), len(group)
    )


def paint(run: Run, group: Sequence[Work]) -> None:
    """Write every block of the labels that was not painted yet."""
    todo: list[PaintItem] = []
    for work in group:
        todo += _paint_items(run.plan, work)
    for _ in run.each("paint", stages.paint_block, todo, item=lambda it: it.item):
        pass


def _writer(plan: Plan, work: Work, depth: int) -> LabelWriter:
    staging = f"{plan.ledger.folder}/staging/{work.key}"
    return create_labels(
        plan.output, work.image.path, name=plan.name, layers=depth, image=work.image, staging=staging,
        origin=plan.label_fingerprint,
    )  # fmt: skip


def _paint_items(plan: Plan, work: Work) -> list[PaintItem]:
    stitching = read_stitching(work)
    writer = _writer(plan, work, stitching.depth)
    marks = plan.ledger.marks("paint", work.key)
    found = []
    for item in _items(work, list(work.blocks())):
        if item.key in marks:
            continue
        units = tuple(
            Item(work, item.plane, unit) for unit in work.units() if _meet(unit.core, item.tile.core)
        )
        of = [stitching.of(unit) for unit in units]
        found.append(PaintItem(item, units, tuple(ids for ids, _ in of), tuple(ls for _, ls in of), writer))
    return found


def _meet(a: stages.Box, b: stages.Box) -> bool:
    return a.y0 < b.y1 and b.y0 < a.y1 and a.x0 < b.x1 and b.x0 < a.x1


def finish(run: Run, group: Sequence[Work]) -> None:
    """Show the labels and the table of each image, complete, at their place."""
    plan = run.plan
    for work in group:
        try:
            table = read_objects(work)
            write_table(plan.output, work.image.path, plan.name, table)
            publish(_writer(plan, work, read_stitching(work).depth), overwrite=plan.job.overwrite)
        except (BadStore, OSError) as error:
            run.set_aside(work, "finish", work.image.path, error)
            continue
        facts = {"image": work.image.path, "objects": len(table), "tiles": count_tiles(work)}
        plan.ledger.write_json(f"images/{work.key}.json", facts)
        run.record.image(facts)
