"""Painting and publishing: the last stages, on any worker.

paint    pieces and their place in the stitching table -> labels and their pyramid, in the staging place
complete of a large image: the object table, and the levels that no block writes
finish   labels and table of an image, complete, to their place
Doing a piece of work twice writes the same bytes.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from flows.joining import read_stitching
from flows.measuring import find_objects, keep_objects, measure_objects
from flows.memory import keep_memory
from flows.stages import pieces_keys
from flows.work import Item, Work
from pipeline.errors import BadStore, RunConflict
from pipeline.spans import Spans, below_each_other
from pipeline.spans import paint as painted
from pipeline.stitch import from_bytes
from pipeline.store.label_layout import layout_for
from pipeline.store.labels import LabelWriter, create_labels, publish
from pipeline.store.tables import write_encoded
from pipeline.tiling import Box


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the labels and the table of an image go."""

    work: Work
    name: str
    origin: str
    """What the labels say of the work they come from."""
    overwrite: bool

    def __str__(self) -> str:
        return str(self.work)

    def writer(self, depth: int) -> LabelWriter:
        """The label stack of ``depth`` layers, in the staging place of the image."""
        work = self.work
        with work.ledger.writing():
            return create_labels(
                work.ledger.output, work.image.path, name=self.name, layers=depth, image=work.image,
                staging=staging(work), origin=self.origin,
            )  # fmt: skip


def staging(work: Work) -> str:
    """Key of the place where the labels of an image are painted."""
    return f"{work.ledger.folder}/staging/{work.key}"


@dataclass(frozen=True)
class PaintItem:
    """A block to paint: the units that meet it, with id and output layer of each of their pieces."""

    item: Item
    units: tuple[Item, ...]
    ids: tuple[np.ndarray, ...]
    layers: tuple[np.ndarray, ...]
    writer: LabelWriter

    def __str__(self) -> str:
        return str(self.item)


def paint_items(target: Target) -> list[PaintItem]:
    """The blocks of an image that were not painted yet."""
    work = target.work
    stitching = read_stitching(work)
    writer = target.writer(stitching.depth)
    marks = work.ledger.marks("paint", work.key)
    if writer.fresh and marks:
        # Marks of labels that were taken away since say nothing about these.
        work.ledger.forget(f"done/paint/{work.key}")
        marks = set()
    found = []
    for item in work.items(work.blocks()):
        if item.key not in marks:
            units = tuple(Item(work, item.plane, unit) for unit in work.units_over(item.tile))
            of = [stitching.of(unit) for unit in units]
            ids, layers = tuple(ids for ids, _ in of), tuple(layers for _, layers in of)
            found.append(PaintItem(item, units, ids, layers, writer))
    return found


def paint_block(todo: PaintItem) -> None:
    """Write a block of every output layer that has something in it, and its part of the pyramids."""
    keep_memory()
    item, work = todo.item, todo.item.work
    core = item.tile.core
    spans, ids, layers = _placed(todo)
    # Layer by layer: the pixels of one are still in the cache when they are encoded.
    depth = int(layers.max(initial=0)) + 1 if len(layers) else 0
    ends = np.searchsorted(layers, np.arange(depth + 1))
    for layer, (start, end) in enumerate(pairwise(ends.tolist())):
        if end > start:
            image = painted(spans.take(slice(start, end)), ids[start:end], core.shape)
            with work.ledger.writing():
                todo.writer.write(work.image.planes[item.plane], layer, core.y0, core.x0, image)
    work.ledger.mark("paint", work.key, item.key)


def _placed(todo: PaintItem) -> tuple[Spans, np.ndarray, np.ndarray]:
    """Spans of the objects in a block, in block coordinates, with id and output layer of each; sorted by layer."""
    parts = []
    for unit, ids, layers in zip(todo.units, todo.ids, todo.layers):
        spans, piece = _clipped(unit, todo.item.tile.core)
        kept = ids[piece] > 0
        parts.append((spans.take(kept), ids[piece[kept]], layers[piece[kept]]))
    layer = np.concatenate([layers for _, _, layers in parts])
    order = np.argsort(layer, kind="stable")
    spans = below_each_other([spans for spans, _, _ in parts])
    return spans.take(order), np.concatenate([ids for _, ids, _ in parts])[order], layer[order]


def _clipped(unit: Item, box: Box) -> tuple[Spans, np.ndarray]:
    """Spans of a unit inside a block, in block coordinates, and their pieces."""
    table = from_bytes(unit.work.ledger.read(pieces_keys(unit)[1]))
    core = unit.tile.core
    y = table["y"] + np.int32(core.y0 - box.y0)
    x0 = np.maximum(table["x0"] + np.int32(core.x0 - box.x0), 0)
    x1 = np.minimum(table["x1"] + np.int32(core.x0 - box.x0), box.x1 - box.x0)
    inside = (y >= 0) & (y < box.y1 - box.y0) & (x0 < x1)
    none = np.zeros(len(y), bool)
    spans = Spans(layer=table["layer"], y=y, x0=x0, x1=x1, stretch=y, shared=none).take(inside)
    return spans, table["piece"][inside]


@dataclass(frozen=True)
class Rest:
    """What an image lacks when its blocks are painted: its object table, or the coarse levels of a layer."""

    target: Target
    writer: LabelWriter
    layer: int | None = None
    """None: the table."""

    def __str__(self) -> str:
        return f"{self.target} {'table' if self.layer is None else f'layer {self.layer}'}"


def rests(target: Target) -> list[Rest]:
    """The rest of a large image, in parts that workers do side by side; of others it is done when they are finished."""
    if not layout_for(target.work.image).has_coarse_levels:
        return []
    writer = target.writer(read_stitching(target.work).depth)
    return [Rest(target, writer), *(Rest(target, writer, layer) for layer in range(len(writer.names)))]


def complete(rest: Rest) -> None:
    """Make a part of the rest; doing it again writes the same bytes."""
    if rest.layer is None:
        keep_objects(rest.target.work)
        return
    with rest.target.work.ledger.writing():
        rest.writer.coarsen(rest.layer)


def finish_image(target: Target) -> dict[str, object]:
    """Show labels and table of an image, complete, at their place; facts of the image, kept as its last mark."""
    work, output = target.work, target.work.ledger.output
    stitching = read_stitching(work)
    # Measured first: labels are not shown when their table cannot be made.
    table = find_objects(work) or measure_objects(work)
    try:
        publish(target.writer(stitching.depth), overwrite=target.overwrite, coarsened=True)
    except RunConflict as error:
        # A deeper layer found its name taken: a matter of this image, the others go on.
        raise BadStore(str(error)) from None
    with work.ledger.writing():
        write_encoded(output, work.image.path, target.name, table, region=target.name)
    facts = {
        "image": work.image.path, "key": work.key, "objects": stitching.objects, "layers": stitching.depth,
        "tiles": len(work.items(work.tiles())), "ambiguous": stitching.ambiguous,
    }  # fmt: skip
    work.ledger.write_json(f"images/{work.key}.json", facts)
    return facts
