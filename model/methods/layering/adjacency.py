"""Neighbours: pairs of objects that are near each other and therefore belong on different layers.

Adjacency is symmetric, and no object is adjacent to itself.
"""

from collections.abc import Collection

import numpy as np
from scipy import ndimage

DISTANCE_PX = 15.0
"""The paper's threshold: objects nearer than this are neighbours."""
MOST_BOXES = 1 << 16
"""Labels below this are looked up without sorting them first."""


def adjacent_pairs(
    stack: np.ndarray,
    *,
    distance_px: float = DISTANCE_PX,
    of: Collection[int] | None = None,
) -> np.ndarray:
    """Return the ordered pairs of ids ``(P, 2)`` of neighbours in a label stack ``(L, y, x)``, sorted.

    Neighbours have pixels less than ``distance_px`` apart (overlap counts as 0). With ``of``: only pairs in which at
    least one of those ids is.
    """
    pairs: set[tuple[int, int]] = set()
    for label, layer, box in _objects(stack):
        if of is None or label in of:
            for other in _ids_within(stack, label, layer, box, distance_px):
                pairs.update(((label, other), (other, label)))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _objects(stack: np.ndarray) -> list[tuple[int, int, tuple[slice, ...]]]:
    """Return ``(label, layer, bounding box)`` of every object."""
    objects = []
    for layer, labels in enumerate(stack):
        names, dense = _dense(labels)
        boxes = ndimage.find_objects(dense)
        objects += [(int(names[i]), layer, box) for i, box in enumerate(boxes) if box is not None]
    return objects


def _dense(labels: np.ndarray) -> tuple[np.ndarray | range, np.ndarray]:
    """Return the labels that ``i + 1`` stands for in the second array; small labels stand for themselves."""
    largest = int(labels.max(initial=0))
    if largest < MOST_BOXES:
        return range(1, largest + 1), labels.astype(np.int32)
    names = np.unique(labels)
    names = names[names > 0]
    return names, np.where(labels > 0, np.searchsorted(names, labels) + 1, 0).astype(np.int32)


def _ids_within(
    stack: np.ndarray, label: int, layer: int, box: tuple[slice, ...], distance_px: float
) -> list[int]:
    window = _widened(box, int(np.ceil(distance_px)), stack.shape[1:])
    part = stack[(slice(None), *window)]
    near = ndimage.distance_transform_edt(part[layer] != label) < distance_px
    return [int(other) for other in np.unique(part[:, near]) if other not in (0, label)]


def _widened(box: tuple[slice, ...], by: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(max(s.start - by, 0), min(s.stop + by, size)) for s, size in zip(box, shape))
