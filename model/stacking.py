"""Label stacks from objects that may overlap, given as the pixels of each.

The invariant: an object keeps all its pixels and lies on one layer; the layers are as few as placing the
objects one after the other needs. It knows no method.
"""

from collections.abc import Sequence

import numpy as np


def stack_of_objects(objects: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Return the label stack uint32 ``(L, y, x)``, L of at least 1, of objects given as flat pixel indices.

    Object i gets the id i + 1 and the first layer on which it meets no object before it. An object without
    pixels leaves its id unused.
    """
    layers = [np.zeros(shape[0] * shape[1], np.uint32)]
    for label, pixels in enumerate(objects, start=1):
        free = next((layer for layer in layers if not layer[pixels].any()), None)
        if free is None:
            free = np.zeros_like(layers[0])
            layers.append(free)
        free[pixels] = label
    return np.stack(layers).reshape(-1, *shape)


def large_enough(stack: np.ndarray, *, min_area: int) -> np.ndarray:
    """Return a stack without the objects of fewer than ``min_area`` pixels, ids dense in their old order.

    Ids should be small numbers, such as those of ``stack_of_objects``: memory grows with the largest.
    """
    keep = np.bincount(stack.ravel()) >= max(min_area, 1)
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)
    kept = number[stack]
    first, *others = kept
    return np.stack([first, *(layer for layer in others if layer.any())])


def flattened(stack: np.ndarray) -> np.ndarray:
    """Return a stack ``(1, y, x)`` in which a pixel of several objects keeps that of the lowest id."""
    top = np.where(stack > 0, stack, np.iinfo(np.uint32).max).min(0)
    return np.where(stack.any(0), top, 0).astype(np.uint32)[None]
