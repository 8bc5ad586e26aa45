"""Semantic masks: one value for all objects of a kind, split into connected parts."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from scipy import ndimage

from pipeline.masks.objects import MaskObject, object_of_mask
from pipeline.masks.packing import Packed, pack
from pipeline.masks.sweep import objects_of

EIGHT = np.ones((3, 3), bool)
"""Pixels that touch at a corner are of one part."""


def parts_of(item: MaskObject) -> list[MaskObject]:
    """The 8-connected parts of an object, in raster order, without ids."""
    top, _, left, _ = item.box
    labels, count = ndimage.label(item.crop(), EIGHT)
    if count == 1:
        return [item]
    boxes = ndimage.find_objects(labels)
    return [
        object_of_mask(0, labels[box] == number, top=top + box[0].start, left=left + box[1].start)
        for number, box in enumerate(boxes, start=1)
    ]


def split(objects: Iterable[MaskObject]) -> Iterator[MaskObject]:
    """Yield the parts of all objects as separate objects with new ids, each with the class of its object."""
    for item in objects:
        for part in parts_of(item):
            yield MaskObject(0, part.y, part.x0, part.x1, item.category)


def split_stack(read: Callable[[int, int, int, int], np.ndarray], size: tuple[int, int]) -> Packed:
    """A label stack with every connected part as an object of its own, numbered 1, 2, ..."""
    objects = list(split(objects_of(read, size)))
    return pack(objects, ids=range(1, len(objects) + 1))
