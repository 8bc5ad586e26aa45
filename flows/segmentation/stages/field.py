"""A field: an image so small that one worker runs all stages of it in one call.

The functions are those of large images; only their state lives elsewhere, in a draft of the output in memory
(`pipeline.store.places.draft`), from which labels, table and one mark are written at the end. The results are
byte for byte the same.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flows.execution.executors import failing_in
from flows.execution.memory import keep_memory
from flows.segmentation.image_job import ImageJob
from flows.segmentation.stages import tiles as stages
from flows.segmentation.stages.joining import join_image, read_stitching, stitching_key
from flows.segmentation.stages.measuring import keep_objects, table_key
from flows.segmentation.stages.painting import (
    Target,
    finish_image,
    image_mark,
    paint_block,
    paint_items,
    staging,
)
from pipeline.normalise import Limits, Normalise, limits_of
from pipeline.stitch import Filters
from pipeline.store.ome.label_images.reading import label_origin, labels_path, layer_names
from pipeline.store.places.draft import Draft, draft_over


@dataclass(frozen=True, kw_only=True)
class FieldJob:
    """Everything that a worker needs to segment a field."""

    target: Target
    normalise: Normalise
    filters: Filters
    limits: Limits | None
    """Limits that the field shares with others; None where they come from its own pixels."""
    absent_are_zeros: bool
    """Whether the user declared absent chunks to be empty, so that they are not checked."""
    replaces: bool
    """Whether labels of that name exist; they are kept until the new ones are complete."""

    @property
    def work(self) -> ImageJob:
        """The image."""
        return self.target.work


@dataclass(frozen=True)
class FieldResult:
    """The result of a field."""

    facts: dict[str, object]
    """Facts of the image, as its mark keeps them."""
    seconds: dict[str, float]
    """Seconds spent reading, in the network, and after it."""


def segment_field(job: FieldJob) -> FieldResult:
    """Segment a field and write its labels, its table and its mark; a repetition writes the same bytes."""
    keep_memory()
    if job.replaces and job.target.is_publishing:
        return FieldResult(finish_image(job.target), {})
    started = time.perf_counter()
    ledger = job.work.ledger
    draft = draft_over(ledger.output, scratch=ledger.folder)
    work, limits = _read(replace(job.work, ledger=replace(ledger, output=draft)), job)
    job = replace(job, target=replace(job.target, empty=limits.is_empty))
    read = time.perf_counter()
    network = _predict(work, limits)
    predicted = time.perf_counter()
    _paint(work, job)
    facts = _replace(work, job, draft) if job.replaces else _publish(work, job, draft)
    seconds = {
        "read_s": read - started,
        "network_s": network,
        "write_s": predicted - read - network,
        "after_s": time.perf_counter() - predicted,
    }
    return FieldResult(facts, seconds)


def _read(work: ImageJob, job: FieldJob) -> tuple[ImageJob, Limits]:
    """Read the pixels of an image, and take its limits from the same read."""
    if not job.absent_are_zeros:
        with failing_in("check", work):
            stages.check_pixels(work)
    with failing_in("limits", work):
        work = work.holding()
        return work, job.limits or _limits_of(work, job.normalise)


def _predict(work: ImageJob, limits: Limits) -> float:
    """Run the network on the tiles; return the seconds spent in the network."""
    seconds = 0.0
    for item in work.items(work.tiles()):
        with failing_in("predict", item):
            seconds += stages.predict((item, limits))["network_s"]
    return seconds


def _paint(work: ImageJob, job: FieldJob) -> None:
    """Turn the layers into labels, staged in the draft."""
    for item in work.items(work.units()):
        with failing_in("describe", item):
            stages.describe_unit(item)
    with failing_in("join", work):
        join_image(work, job.filters)
    for block in paint_items(replace(job.target, work=work)):
        with failing_in("paint", block):
            paint_block(block)


def _publish(work: ImageJob, job: FieldJob, draft: Draft) -> dict[str, Any]:
    """Publish labels and table inside the draft, then write the draft to the output."""
    with failing_in("finish", work):
        _remove_begun(work, job.target, draft)
        facts = finish_image(replace(job.target, work=work))
        with job.work.ledger.writing():
            draft.settle(last=image_mark(work))
        return facts


def _remove_begun(work: ImageJob, target: Target, draft: Draft) -> None:
    """Remove partly written labels of the same work, left by a failed attempt or a killed run."""
    path, zarr_format = work.image.path, work.image.zarr_format
    for name in layer_names(target.name, read_stitching(work).depth):
        if label_origin(draft, path, name, zarr_format=zarr_format) == target.origin:
            draft.remove(labels_path(path, name))


def _replace(work: ImageJob, job: FieldJob, draft: Draft) -> dict[str, Any]:
    """Write the staged labels beside the old ones, and exchange them by means of the publishing journal."""
    with failing_in("finish", work):
        keep_objects(work)
        job.target.writer(read_stitching(work).depth)
        with job.work.ledger.writing():
            draft.keep(
                [staging(work), *(f"{work.ledger.folder}/{key(work)}" for key in (stitching_key, table_key))]
            )
        return finish_image(job.target)


def _limits_of(work: ImageJob, normalise: Normalise) -> Limits:
    """Compute the limits of an image from its own pixels."""
    if normalise.kind == "none":
        return Limits((0.0,) * len(work.channels), (1.0,) * len(work.channels))
    planes = [work.read(plane, work.whole.core) for plane in range(len(work.image.planes))]
    return limits_of(np.stack(planes, axis=1), normalise)
