"""Normalisation limits of the images of a run, from exact histograms over the scope of the job.

They are computed once and kept in the scratch, so that an image that is repaired later gets the same limits as the
others. Where images share limits and one of them cannot be read, all of them are set aside.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from flows.execution.parallel import parallel_map
from flows.segmentation.image_job import ImageJob, TileJob
from flows.segmentation.plan import Plan
from flows.segmentation.stage_runner import Run
from flows.segmentation.stages import tiles as stages
from pipeline import normalise
from pipeline.histogram import Bins, Histogram, make_bins, needs_codes
from pipeline.normalise import Limits
from pipeline.store.ledger import safe_name
from pipeline.tiling import tiles

BLOCK_PX = 2048
"""Side of the blocks over which histograms are taken, a multiple of `pipeline.histogram.CELL_PX`; they add up exactly,
so no number depends on it."""


@dataclass(frozen=True)
class Scope:
    """Images that share their limits."""

    key: str
    """Name of the file of limits in the scratch."""
    works: tuple[ImageJob, ...]

    @property
    def dtype(self) -> np.dtype:
        """The dtype that holds the pixels of all images."""
        return np.result_type(*(work.dtype for work in self.works))

    @property
    def blocks(self) -> list[TileJob]:
        """Blocks that cover all pixels of all images."""
        return [item for work in self.works for item in work.items(tiles(work.extent, core=BLOCK_PX))]


def find_limits(run: Run, group: Sequence[ImageJob], todo: Sequence[ImageJob]) -> dict[str, Limits]:
    """Return the limits by key of every image that is not set aside; ``group`` holds complete scopes of ``todo``."""
    wanted = {work.key for work in todo}
    scopes = [s for s in scopes_of(run.plan, group) if wanted & {work.key for work in s.works}]
    known: dict[str, Limits | None] = {}
    known |= zip([scope.key for scope in scopes], parallel_map(partial(_known, run.plan), scopes))
    missing = [scope for scope in scopes if known[scope.key] is None]
    _check_pixels(run, missing)
    for scope, fresh in _measured(run, _whole(run, missing)):
        run.plan.ledger.write_json(_place(scope), asdict(fresh))
        known[scope.key] = fresh
    run.empty |= {w.key for s in scopes if (limits := known[s.key]) and limits.is_empty for w in s.works}
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
    document = plan.ledger.find_json(_place(scope))
    return Limits(**{name: tuple(values) for name, values in document.items()}) if document else None


def _check_pixels(run: Run, scopes: Iterable[Scope]) -> None:
    """Set images aside whose pixels were lost."""
    if run.plan.job.absent_chunks == "zeros":
        return
    works = [work for scope in scopes for work in scope.works]
    for _ in run.each("check", stages.check_pixels, works, item=lambda work: work):
        pass


def _whole(run: Run, scopes: Iterable[Scope]) -> list[Scope]:
    """Return the scopes in which no image was set aside; in the others all images are set aside."""
    whole = []
    for scope in scopes:
        alive = run.alive(scope.works)
        if len(alive) == len(scope.works):
            whole.append(scope)
            continue
        failed = next(str(work) for work in scope.works if work.key in run.failed)
        for work in alive:
            run.set_aside(
                work, "limits", work,
                f"it shares its normalisation with {failed}, which cannot be read; mend that image, or use "
                "normalise.scope=image",
            )  # fmt: skip
    return whole


def _measured(run: Run, scopes: Sequence[Scope]) -> Iterator[tuple[Scope, Limits]]:
    if run.plan.normalise.kind == "none":
        for scope in scopes:
            channels = len(scope.works[0].channels)
            yield scope, Limits((0.0,) * channels, (1.0,) * channels)
        return
    scope_of = {work.key: scope.key for scope in scopes for work in scope.works}
    bins = _bins(run, scopes, scope_of)
    jobs = [(item, bins[scope.key]) for scope in _whole(run, scopes) for item in scope.blocks]
    total: dict[str, Histogram] = {}
    for outcome in run.each("limits", stages.count_levels, jobs, item=lambda job: job[0]):
        key = scope_of[outcome.item[0].work.key]
        total[key] = total[key] + outcome.result if key in total else outcome.result
    for scope in _whole(run, scopes):
        yield scope, normalise.limits(total[scope.key], run.plan.normalise)


def _bins(run: Run, scopes: Sequence[Scope], scope_of: Mapping[str, str]) -> dict[str, Bins]:
    """Bins of each scope; those of float and wide integer images depend on where their pixels are."""
    codes: dict[str, np.ndarray] = {}
    blocks = [item for scope in scopes if needs_codes(scope.dtype) for item in scope.blocks]
    for outcome in run.each("range", stages.count_codes, blocks, item=lambda item: item):
        key = scope_of[outcome.item.work.key]
        codes[key] = codes[key] + outcome.result if key in codes else outcome.result
    return {
        scope.key: make_bins(scope.dtype, codes.get(scope.key))
        for scope in scopes
        if scope.key in codes or not needs_codes(scope.dtype)
    }
