"""Painting and publishing: the last stages, on any worker.

paint     runs and stitching table -> labels and their pyramid, in the staging folder;
          for a large image also the object table
complete  the coarse levels of a large image that no block writes
finish    complete labels and table are published at their place
Repeating a unit of work writes the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np

from flows.execution.memory import keep_memory
from flows.segmentation.image_job import ImageJob, TileJob
from flows.segmentation.stages.joining import read_stitching
from flows.segmentation.stages.measuring import (
    find_objects,
    keep_objects,
    measure_objects,
)
from flows.segmentation.stages.tiles import read_runs
from pipeline.errors import BadStore, RunConflict
from pipeline.spans import Runs
from pipeline.spans import paint as painted
from pipeline.store.ome.groups import join, read_json
from pipeline.store.ome.label_images.layout import layout_for
from pipeline.store.ome.label_images.reading import labels_path
from pipeline.store.ome.label_images.writing import JOURNAL
from pipeline.store.ome.labels import LabelWriter, create_labels, publish
from pipeline.store.ome.tables import write_encoded


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the labels and the table of an image go."""

    work: ImageJob
    name: str
    origin: str
    """Fingerprint of the work, which the labels carry."""
    overwrite: bool
    empty: bool = False
    """Whether the limits found only noise in the image."""

    def __str__(self) -> str:
        return str(self.work)

    @property
    def journal(self) -> str:
        """Key of the publishing journal, by which a run recognises labels whose publication it had started."""
        return join(staging(self.work), labels_path(self.work.image.path), f"{self.name}.{JOURNAL}")

    @property
    def is_publishing(self) -> bool:
        """Whether everything is staged and an earlier start has begun to publish it."""
        journal = read_json(self.work.ledger.output, self.journal)
        return journal is not None and not journal.get("done")

    def writer(self, depth: int) -> LabelWriter:
        """The label stack of ``depth`` layers, in the staging place of the image."""
        work = self.work
        with work.ledger.writing():
            return create_labels(
                work.ledger.output, work.image.path, name=self.name, layers=depth, image=work.image,
                staging=staging(work), origin=self.origin,
            )  # fmt: skip


def staging(work: ImageJob) -> str:
    """Key of the place where the labels of an image are painted."""
    return f"{work.ledger.folder}/staging/{work.key}"


def image_mark(work: ImageJob) -> str:
    """Key of the mark of a complete image, which is written last."""
    return f"{work.ledger.folder}/images/{work.key}.json"


@dataclass(frozen=True)
class PaintItem:
    """A block to paint: the units that intersect it, with id and output layer of each of their pieces."""

    item: TileJob
    units: tuple[TileJob, ...]
    ids: tuple[np.ndarray, ...]
    layers: tuple[np.ndarray, ...]
    writer: LabelWriter

    def __str__(self) -> str:
        return str(self.item)


def paint_items(target: Target) -> list[PaintItem]:
    """The blocks of an image without a mark."""
    work = target.work
    stitching = read_stitching(work)
    writer = target.writer(stitching.depth)
    marks = work.ledger.marks("paint", work.key)
    if writer.fresh and marks:
        # Marks of labels that were removed since do not count.
        work.ledger.forget(f"done/paint/{work.key}")
        marks = set()
    blocks = []
    for item in work.items(work.blocks()):
        if item.key not in marks:
            units = tuple(TileJob(work, item.plane, unit) for unit in work.units_over(item.tile))
            stitched = [stitching.of(unit) for unit in units]
            ids, layers = tuple(ids for ids, _ in stitched), tuple(layers for _, layers in stitched)
            blocks.append(PaintItem(item, units, ids, layers, writer))
    return blocks


def paint_block(todo: PaintItem) -> None:
    """Write a block of every output layer that is not empty in it, and its part of the pyramids."""
    keep_memory()
    item, work = todo.item, todo.item.work
    runs, layers = _placed(todo)
    # Layer by layer: the pixels of one are still in the cache when they are encoded.
    depth = int(layers.max(initial=0)) + 1 if len(layers) else 0
    ends = np.searchsorted(layers, np.arange(depth + 1))
    for layer, (start, end) in enumerate(pairwise(ends.tolist())):
        if end > start:
            with work.ledger.writing():
                _paint_layer(todo, layer, runs.take(slice(start, end)))
    work.ledger.mark("paint", work.key, item.key)


def _placed(todo: PaintItem) -> tuple[Runs, np.ndarray]:
    """Return the runs of the objects in a block, in block coordinates, with their ids, and the output layer of each."""
    parts, core = [], todo.item.tile.core
    for unit, ids, layers in zip(todo.units, todo.ids, todo.layers):
        here = unit.tile.core
        runs = read_runs(unit).inside(
            core.y0 - here.y0, core.y1 - here.y0, core.x0 - here.x0, core.x1 - here.x0
        )
        piece = runs.value
        runs, kept = replace(runs, value=ids[piece]), ids[piece] > 0
        parts.append((runs.take(kept), layers[piece[kept]]))
    layer = np.concatenate([layers for _, layers in parts])
    order = np.argsort(layer, kind="stable")
    columns = {f.name: np.concatenate([getattr(runs, f.name) for runs, _ in parts]) for f in fields(Runs)}
    return Runs(**columns).take(order), layer[order]


def _paint_layer(todo: PaintItem, layer: int, runs: Runs) -> None:
    """Paint a layer of a block on all levels that blocks write, in strips that are as wide as a chunk."""
    core, layout = todo.item.tile.core, todo.writer.layout
    plane, (height, width) = todo.item.work.image.planes[todo.item.plane], core.shape
    for level in range(layout.block_levels):
        strips = _strips(runs, (height, width), layout.chunks(level)[-1])
        todo.writer.write_level(plane, layer, level, (core.y0, core.y1, core.x0, core.x1), strips)
        # Halved as runs: taking every second pixel of what was painted costs several times as much.
        runs, height, width = runs.halved(), (height + 1) // 2, (width + 1) // 2


def _strips(runs: Runs, shape: tuple[int, int], width: int) -> Iterator[np.ndarray]:
    """Paint runs in strips of that width."""
    height, end = shape
    for x0 in range(0, end, width):
        x1 = min(x0 + width, end)
        yield painted(runs.inside(0, height, x0, x1), (height, x1 - x0))


def large(target: Target) -> bool:
    """Whether an image is so large that several workers complete its pyramid; others are completed in one call."""
    return layout_for(target.work.image).has_coarse_levels


def paint_or_measure(todo: PaintItem | Target) -> None:
    """Write a block, or measure the objects of an image, which needs no block and takes as long as several."""
    if isinstance(todo, PaintItem):
        paint_block(todo)
    else:
        keep_objects(todo.work)


@dataclass(frozen=True)
class CoarseLevels:
    """The coarse levels of one layer of a large image, made after its blocks are painted."""

    target: Target
    writer: LabelWriter
    layer: int

    def __str__(self) -> str:
        return f"{self.target} layer {self.layer}"


def coarse_levels(target: Target) -> list[CoarseLevels]:
    """The layers of a large image."""
    writer = target.writer(read_stitching(target.work).depth)
    return [CoarseLevels(target, writer, layer) for layer in range(len(writer.names))]


def coarsen(todo: CoarseLevels) -> None:
    """Make the coarse levels of a layer; a repetition writes the same bytes."""
    with todo.target.work.ledger.writing():
        todo.writer.coarsen(todo.layer)


def finish_image(target: Target) -> dict[str, object]:
    """Publish the complete labels and table of an image; return the facts that are written as its last mark."""
    work, output = target.work, target.work.ledger.output
    stitching = read_stitching(work)
    # Measured first, so that no labels are published when their table cannot be made.
    table = find_objects(work) or measure_objects(work)
    try:
        publish(target.writer(stitching.depth), overwrite=target.overwrite, coarsened=True)
    except RunConflict as error:
        # The name of a deeper layer exists already; that concerns this image only, so it is set aside.
        raise BadStore(str(error)) from None
    with work.ledger.writing():
        write_encoded(output, work.image.path, target.name, table, region=target.name)
    facts = {
        "image": work.image.path, "key": work.key, "objects": stitching.objects, "layers": stitching.depth,
        "tiles": len(work.items(work.tiles())), "ambiguous": stitching.ambiguous,
        "empty": target.empty, "focus": _by_channel(work, stitching.focus),
        "saturated": _by_channel(work, stitching.saturated),
        "diameter_px": _rounded(stitching.diameter_px * work.factor),
    }  # fmt: skip
    work.ledger.write_json(f"images/{work.key}.json", facts)
    return facts


def _rounded(diameter_px: float) -> float | None:
    return None if np.isnan(diameter_px) else round(float(diameter_px), 1)


def _by_channel(work: ImageJob, values: np.ndarray) -> dict[str, float | None]:
    """Numbers of the measured channels by name, rounded to what they mean; None for NaN."""
    return {
        name: None if np.isnan(value) else float(f"{value:.5g}")
        for name, value in zip(work.measured_names, values.tolist(), strict=True)
    }
