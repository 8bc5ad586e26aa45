"""Normalisation limits of the images of a run, from exact histograms over the scope of the job.

They are found once and kept in the scratch, so an image that is repaired later sees the same numbers as its
neighbours. Where images share limits, one that cannot be read leaves all of them without.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from flows.segmentation import stages
from flows.segmentation.image_job import ImageJob, TileJob
from flows.segmentation.plan import Plan
from flows.segmentation.stage_runner import Run, parallel_map
from flows.segmentation.stages import Grid
from pipeline import normalise
from pipeline.normalise import Histogram, Limits
from pipeline.store.ledger import safe_name
from pipeline.tiling import tiles

BLOCK_PX = 2048
"""Side of the blocks over which histograms are taken; they add up exactly, so no number depends on it."""


@dataclass(frozen=True)
class Scope:
    """Images that share their limits."""

    key: str
    """Name in the scratch."""
    works: tuple[ImageJob, ...]

    @property
    def dtype(self) -> np.dtype:
        """One type that holds the pixels of all."""
        return np.result_type(*(work.dtype for work in self.works))

    @property
    def blocks(self) -> list[TileJob]:
        """All their pixels."""
        return [item for work in self.works for item in work.items(tiles(work.extent, core=BLOCK_PX))]


def find_limits(run: Run, group: Sequence[ImageJob], todo: Sequence[ImageJob]) -> dict[str, Limits]:
    """Limits by the key of each image that is not set aside; ``group`` holds the scopes of ``todo`` whole."""
    wanted = {work.key for work in todo}
    scopes = [s for s in scopes_of(run.plan, group) if wanted & {work.key for work in s.works}]
    known: dict[str, Limits | None] = {}
    known |= zip([scope.key for scope in scopes], parallel_map(partial(_known, run.plan), scopes))
    missing = [scope for scope in scopes if known[scope.key] is None]
    _check_pixels(run, missing)
    for scope, fresh in _measured(run, _whole(run, missing)):
        run.plan.ledger.write_json(_place(scope), {"offset": fresh.offset, "scale": fresh.scale})
        known[scope.key] = fresh
    return {w.key: limits for s in scopes if (limits := known[s.key]) for w in run.alive(s.works)}


def scopes_of(plan: Plan, group: Sequence[ImageJob]) -> list[Scope]:
    """Cut a group into images that share their limits."""
    shared: dict[str, list[ImageJob]] = {}
    for work in group:
        well = safe_name("/".join(work.image.well)) if work.image.well else work.key
        alone = plan.normalise.kind == "none"
        scope = "image" if alone else plan.normalise.scope
        whose = {"image": work.key, "well": f"well-{well}", "plate": "plate"}[scope]
        shared.setdefault(whose, []).append(work)
    return [Scope(key, tuple(works)) for key, works in shared.items()]


def _place(scope: Scope) -> str:
    return f"limits/{scope.key}.json"


def _known(plan: Plan, scope: Scope) -> Limits | None:
    found = plan.ledger.find_json(_place(scope))
    return Limits(tuple(found["offset"]), tuple(found["scale"])) if found else None


def _check_pixels(run: Run, scopes: Iterable[Scope]) -> None:
    """Set images aside whose pixels were lost."""
    if run.plan.job.absent_chunks == "zeros":
        return
    works = [work for scope in scopes for work in scope.works]
    for _ in run.each("check", stages.check_pixels, works, item=lambda work: work):
        pass


def _whole(run: Run, scopes: Iterable[Scope]) -> list[Scope]:
    """Scopes without an image that was set aside; the others lose all their images."""
    whole = []
    for scope in scopes:
        alive = run.alive(scope.works)
        if len(alive) == len(scope.works):
            whole.append(scope)
            continue
        gone = next(str(work) for work in scope.works if work.key in run.failed)
        for work in alive:
            run.set_aside(
                work, "limits", work,
                f"it shares its normalisation with {gone}, which cannot be read; mend that image, or use "
                "normalise.scope=image",
            )  # fmt: skip
    return whole


def _measured(run: Run, scopes: Sequence[Scope]) -> Iterator[tuple[Scope, Limits]]:
    if run.plan.normalise.kind == "none":
        for scope in scopes:
            channels = len(scope.works[0].channels)
            yield scope, Limits((0.0,) * channels, (1.0,) * channels)
        return
    of = {work.key: scope for scope in scopes for work in scope.works}
    grids = _grids(run, scopes, of)
    jobs = [(item, grids[scope.key]) for scope in _whole(run, scopes) for item in scope.blocks]
    total: dict[str, Histogram] = {}
    for outcome in run.each("limits", stages.histogram, jobs, item=lambda job: job[0]):
        key = of[outcome.item[0].work.key].key
        total[key] = total[key] + outcome.result if key in total else outcome.result
    for scope in _whole(run, scopes):
        yield scope, normalise.limits(total[scope.key], run.plan.normalise)


def _grids(run: Run, scopes: Sequence[Scope], of: Mapping[str, Scope]) -> dict[str, Grid]:
    """Bins of each scope; float and wide integer images are looked through for their range first."""
    low: dict[str, np.ndarray] = {}
    high: dict[str, np.ndarray] = {}
    blocks = [item for scope in scopes if normalise.needs_range(scope.dtype) for item in scope.blocks]
    for outcome in run.each("range", stages.value_range, blocks, item=lambda item: item):
        key, (a, b) = of[outcome.item.work.key].key, outcome.result
        low[key] = np.minimum(low.get(key, a), a)
        high[key] = np.maximum(high.get(key, b), b)
    none = {scope.key: np.zeros(len(scope.works[0].channels)) for scope in scopes}
    return {
        scope.key: Grid(
            scope.dtype,
            *normalise.grid(
                scope.dtype, low.get(scope.key, none[scope.key]), high.get(scope.key, none[scope.key])
            ),
        )
        for scope in scopes
    }
