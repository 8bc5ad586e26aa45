"""A field: an image so small that one worker runs all stages of it in one call.

The functions are those of large images; only their state lives elsewhere, in a draft of the output in memory
(`pipeline.store.places.draft`), from which labels, table and one mark are written at the end. The results are
byte for byte the same.

Where the network has GPU workers of its own, a field is processed in two phases: GPU workers read it and run the
network on several fields at once, and CPU workers do the rest. The encoded layers travel between them in memory.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flows.execution.executors import failing_in
from flows.execution.memory import keep_memory
from flows.execution.segmenters import loaded
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
from pipeline.store.places.draft import Draft, draft_over, encoded


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


@dataclass(frozen=True)
class PredictedField:
    """A field after the network, as it is sent from a worker with a GPU to another one."""

    job: FieldJob
    layers: dict[str, bytes]
    """The scratch files of the stage `predict`, by key."""
    seconds: dict[str, float]
    """Seconds spent reading, in the network, and writing its layers."""

    @property
    def work(self) -> ImageJob:
        """The image."""
        return self.job.work


@dataclass(frozen=True)
class _Opened:
    """A field whose pixels were read."""

    job: FieldJob
    work: ImageJob
    """The image with its pixels, and the draft in place of the output."""
    limits: Limits
    draft: Draft
    read_s: float


def segment_field(job: FieldJob) -> FieldResult:
    """Segment a field and write its labels, its table and its mark; a repetition writes the same bytes."""
    keep_memory()
    if _is_publishing(job):
        return FieldResult(finish_image(job.target), {})
    field = _opened(job)
    seconds = _predict(field)
    return _finished(field.job, field.work, field.draft, seconds)


def predict_field(job: FieldJob) -> PredictedField:
    """The first half of `segment_field`, for a worker with a GPU: read, normalise, network."""
    return predict_fields([job])[0]


def predict_fields(jobs: Sequence[FieldJob]) -> list[PredictedField]:
    """Run the first half for several fields, whose tiles go through the network together.

    Blocks of one shape may form a batch. On a GPU its sums may then be rounded differently; on a CPU every block is
    computed separately, and the results are bit-identical.
    """
    keep_memory()
    going = [job for job in jobs if not _is_publishing(job)]
    fields = {job.work.key: _opened(job) for job in going}
    predicted = dict(zip(fields, _predict_together(list(fields.values()))))
    return [predicted.get(job.work.key) or PredictedField(job, {}, {}) for job in jobs]


def finish_field(predicted: PredictedField) -> FieldResult:
    """The second half of `segment_field`, on any worker: from the layers to labels, table and mark."""
    keep_memory()
    job = predicted.job
    if not predicted.layers:
        return FieldResult(finish_image(job.target), {})
    started = time.perf_counter()
    ledger = job.work.ledger
    draft = draft_over(ledger.output, scratch=ledger.folder, written=predicted.layers)
    with failing_in("describe", job.work):
        work = replace(job.work, ledger=replace(ledger, output=draft)).holding()
    read = time.perf_counter() - started
    seconds = predicted.seconds | {"read_s": predicted.seconds["read_s"] + read}
    return _finished(job, work, draft, seconds)


def _is_publishing(job: FieldJob) -> bool:
    """Whether an earlier start has begun to exchange the old labels for the new ones."""
    return job.replaces and job.target.is_publishing


def _opened(job: FieldJob) -> _Opened:
    """Read a field and find its limits."""
    started = time.perf_counter()
    ledger = job.work.ledger
    draft = draft_over(ledger.output, scratch=ledger.folder)
    work, limits = _read(replace(job.work, ledger=replace(ledger, output=draft)), job)
    job = replace(job, target=replace(job.target, empty=limits.is_empty))
    return _Opened(job, work, limits, draft, time.perf_counter() - started)


def _finished(job: FieldJob, work: ImageJob, draft: Draft, seconds: dict[str, float]) -> FieldResult:
    """Turn the layers in a draft into the results of a field."""
    started = time.perf_counter()
    _paint(work, job)
    facts = _replace(work, job, draft) if job.replaces else _publish(work, job, draft)
    return FieldResult(facts, seconds | {"after_s": time.perf_counter() - started})


def _read(work: ImageJob, job: FieldJob) -> tuple[ImageJob, Limits]:
    """Read the pixels of an image, and take its limits from the same read."""
    if not job.absent_are_zeros:
        with failing_in("check", work):
            stages.check_pixels(work)
    with failing_in("limits", work):
        work = work.holding()
        return work, job.limits or _limits_of(work, job.normalise)


def _predict(field: _Opened) -> dict[str, float]:
    """Run the network on the tiles of a field, one after the other; return the seconds."""
    total = {"read_s": field.read_s, "network_s": 0.0, "write_s": 0.0}
    for item in field.work.items(field.work.tiles()):
        with failing_in("predict", item):
            seconds = stages.predict((item, field.limits))
        total = {name: total[name] + seconds[name] for name in total}
    return total


def _predict_together(fields: Sequence[_Opened]) -> list[PredictedField]:
    """Run the network on the tiles of all fields together."""
    if not fields:
        return []
    if len(fields) == 1:
        return [_predicted(fields[0], _predict(fields[0]))]
    started = time.perf_counter()
    items = [(field, item) for field in fields for item in field.work.items(field.work.tiles())]
    blocks = [stages.network_input(item, field.limits) for field, item in items]
    begun = time.perf_counter()
    answers = loaded(fields[0].work.segmenter).many(blocks)
    answered = time.perf_counter()
    for (_, item), block, answer in zip(items, blocks, answers, strict=True):
        stages.keep_answer(item, answer, block.shape[1:])
    seconds = {
        "read_s": begun - started, "network_s": answered - begun, "write_s": time.perf_counter() - answered
    }  # fmt: skip
    shares = {name: value / len(fields) for name, value in seconds.items()}
    return [_predicted(field, shares | {"read_s": shares["read_s"] + field.read_s}) for field in fields]


def _predicted(field: _Opened, seconds: dict[str, float]) -> PredictedField:
    layers = {key: encoded(content) for key, content in field.draft.files.written.items()}
    return PredictedField(field.job, layers, seconds)


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
            draft.write_folders(
                [staging(work), *(f"{work.ledger.folder}/{key(work)}" for key in (stitching_key, table_key))]
            )
        return finish_image(job.target)


def _limits_of(work: ImageJob, normalise: Normalise) -> Limits:
    """Compute the limits of an image from its own pixels."""
    if normalise.kind == "none":
        return Limits((0.0,) * len(work.channels), (1.0,) * len(work.channels))
    planes = [work.read(plane, work.whole.core) for plane in range(len(work.image.planes))]
    return limits_of(np.stack(planes, axis=1), normalise)
