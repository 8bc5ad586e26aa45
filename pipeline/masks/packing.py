"""Objects that may overlap, as a label stack: each on the smallest layer that its partners leave free."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import BadArgument
from pipeline.masks.objects import MaskObject
from pipeline.spans import Runs, paint
from pipeline.stack import MAX_ID, assign_layers
from pipeline.store.ome.image import Image
from pipeline.store.ome.labels import check_free, create_labels, publish
from pipeline.store.places.address import Address


@dataclass(frozen=True)
class Written:
    """What has been written of an image."""

    layers: int
    """Layers of its label stack, at least 1."""
    classes: dict[int, str]
    """Class by id, of the objects that have one."""


@dataclass(frozen=True, eq=False)
class Packed:
    """The runs of the objects of one plane, sorted by row, and the layer of each run."""

    runs: Runs
    """Rows, columns and ids."""
    layer: np.ndarray
    """Layer of each run."""

    @property
    def layers(self) -> int:
        """Number of layers, at least 1."""
        return int(self.layer.max(initial=0)) + 1

    def block(self, layer: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray | None:
        """Ids ``(y1 - y0, x1 - x0)`` of one layer in a window; None where there is no object."""
        rows = slice(*np.searchsorted(self.runs.y, (y0, y1)))
        here = self.runs.take(rows).take(self.layer[rows] == layer).inside(y0, y1, x0, x1)
        return paint(here, (y1 - y0, x1 - x0)) if len(here) else None


def pack(objects: Sequence[MaskObject], *, ids: Sequence[int]) -> Packed:
    """Give objects, in their order, the ids and the smallest layers free of the objects they share a pixel with.

    Raises:
        BadArgument: more than 255 objects lie over each other.
    """
    count = np.array([len(item.y) for item in objects], np.int64)
    index = np.repeat(np.arange(len(objects)), count)
    y, x0, x1 = (_column(objects, name) for name in ("y", "x0", "x1"))
    order = np.lexsort((x0, y))
    y, x0, x1, index = y[order], x0[order], x1[order], index[order]
    layers = assign_layers(len(objects), sharing_pairs(y, x0, x1, index))
    value = np.asarray(ids, np.uint32)[index] if len(index) else np.zeros(0, np.uint32)
    return Packed(Runs(y, x0, x1, value), layers[index] if len(index) else np.zeros(0, np.uint8))


def sharing_pairs(y: np.ndarray, x0: np.ndarray, x1: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Pairs ``(n, 2)`` of objects that share a pixel, from runs sorted by row and column; each pair once."""
    if not len(y):
        return np.zeros((0, 2), np.int64)
    width = int(x1.max()) + 1
    starts, ends = y * width + x0, y * width + x1
    # A later run overlaps this one if it starts before this one ends.
    following = np.searchsorted(starts, ends, side="left") - np.arange(len(y)) - 1
    first = np.repeat(np.arange(len(y)), following)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(following) - following, following)
    pairs = np.stack([index[first], index[second]], axis=1)
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    return np.unique(pairs, axis=0)


def numbered(objects: Sequence[MaskObject], *, after: int = 0) -> list[int]:
    """Ids of the objects of a plane: those of the source if they are different and fit, else ``after`` + 1, ...

    Ids of the source are kept although another plane has the same: in a volume they are those of one object.
    """
    labels = [item.label for item in objects]
    if len(set(labels)) == len(labels) and min(labels, default=1) > 0 and max(labels, default=0) <= MAX_ID:
        return labels
    return list(range(after + 1, after + len(labels) + 1))


def write_objects(
    address: Address,
    image: Image,
    planes: Sequence[tuple[tuple[int, int], Sequence[MaskObject]]],
    *,
    name: str,
    overwrite: bool = False,
) -> Written:
    """Write the objects of some (t, z) planes of an image as a label stack and publish it.

    Raises:
        BadArgument: a plane that the image does not have.
        RunConflict: there is such a label and ``overwrite`` is False.
    """
    check_free(address, image.path, name, overwrite=overwrite)
    packed: list[tuple[tuple[int, int], Packed]] = []
    highest = 0
    classes: dict[int, str] = {}
    for plane, objects in planes:
        if plane not in image.planes:
            raise BadArgument(f"{image.place}: there is no plane (t, z) = {plane}")
        ids = numbered(objects, after=highest)
        highest = max([*ids, highest])
        classes |= {label: item.category for label, item in zip(ids, objects, strict=True) if item.category}
        packed.append((plane, pack(objects, ids=ids)))
    layers = max((part.layers for _, part in packed), default=1)
    writer = create_labels(address, image.path, name=name, layers=layers, image=image)
    for plane, part in packed:
        for y0, y1, x0, x1 in writer.blocks():
            for layer in range(part.layers):
                ids_of_block = part.block(layer, y0, y1, x0, x1)
                if ids_of_block is not None:
                    writer.write(plane, layer, y0, x0, ids_of_block)
    publish(writer, overwrite=overwrite)
    return Written(layers=layers, classes=classes)


def _column(objects: Sequence[MaskObject], name: str) -> np.ndarray:
    parts = [getattr(item, name) for item in objects]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
