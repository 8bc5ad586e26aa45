"""Contours of the objects of a label stack as 3 px wide lines; objects that overlap get one line along the middle."""

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize


def contours(stack: np.ndarray) -> np.ndarray:
    """Return the contour target, bool ``(y, x)``, of a label stack ``(L, y, x)``.

    The rings of all objects (inner and outer border, by the 3 x 3 cross) and the pixels of several objects are thinned
    to lines of one pixel and dilated by the cross, as in the authors' code. The border of the image is no contour.
    """
    rings = np.zeros(stack.shape[1:], bool)
    for layer in stack:
        for axis in (0, 1):
            one, other = _neighbours(axis)
            differs = layer[one] != layer[other]
            rings[one] |= differs
            rings[other] |= differs
    shared = (stack > 0).sum(0) > 1
    lines = skeletonize(rings | shared)
    return ndimage.binary_dilation(lines, ndimage.generate_binary_structure(2, 1))


def _neighbours(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index every pixel that has a successor along an axis, and its successor."""
    one, other = [slice(None)] * 2, [slice(None)] * 2
    one[axis], other[axis] = slice(None, -1), slice(1, None)
    return tuple(one), tuple(other)
