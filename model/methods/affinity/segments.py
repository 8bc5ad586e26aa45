"""From affinities to objects: mutex watershed (Wolf et al. 2018) and the merging of small segments."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from model.methods.affinity.offsets import Offset


def segmented(
    affinities: np.ndarray,
    pairs: Sequence[Offset],
    foreground: np.ndarray,
    *,
    attractive: int,
    repulsive: int,
    stride: int,
) -> np.ndarray:
    """Return the segments of the mutex watershed, int64 ``(y, x)``, 1 to n, 0 outside of ``foreground``.

    ``affinities``: ``(offsets, y, x)`` from 0 to 1. The first ``attractive`` offsets join pixels; those from number
    ``repulsive`` on keep them apart and are used at every ``stride``-th pixel along both axes, counted from the first
    pixel. An offset may be in both parts; then whichever is stronger decides.
    """
    from bioimage_cpp.segmentation import mutex_watershed

    values = affinities.astype(np.float32)
    labels = mutex_watershed(
        np.concatenate([values[:attractive], 1 - values[repulsive:]]),
        [list(pair) for pair in [*pairs[:attractive], *pairs[repulsive:]]],
        attractive,
        strides=[stride, stride],
        mask=foreground,
    )
    return renumbered(labels)


def merged(labels: np.ndarray, passes: Sequence[Sequence[int]]) -> np.ndarray:
    """Return labels ``(y, x)`` in which small segments have become part of what surrounds them.

    ``passes``: pairs of a size and an odd window in pixels. In a pass, each segment of at most that size, in the order
    of numbers, takes the most frequent label in the window around its centre; background gives way to the next, and
    nothing changes where that is the segment itself.
    """
    labels = labels.copy()
    for most, window in passes:
        sizes = np.bincount(labels.ravel())
        small = np.flatnonzero((sizes > 0) & (sizes <= most))
        small = small[small > 0]
        boxes = ndimage.find_objects(labels)
        centres = ndimage.center_of_mass(labels > 0, labels, small) if len(small) else []
        for label, centre in zip(small.tolist(), centres, strict=True):
            near = labels[
                tuple(slice(max(int(c) - window // 2, 0), int(c) + window // 2 + 1) for c in centre)
            ]
            counts = np.bincount(near.ravel())
            counts[0] = 0
            winner = int(counts.argmax())
            if counts[winner] and winner != label:
                part = labels[boxes[label - 1]]
                part[part == label] = winner
    return renumbered(labels)


def large_enough(labels: np.ndarray, least: int) -> np.ndarray:
    """Return labels 1 to n without those of fewer than ``least`` pixels."""
    sizes = np.bincount(labels.ravel())
    return renumbered(np.where(sizes[labels] >= least, labels, 0))


def renumbered(labels: np.ndarray) -> np.ndarray:
    """Return labels as int64, dense from 1 in the order of their numbers; 0 stays."""
    ids, dense = np.unique(labels, return_inverse=True)
    return dense.reshape(labels.shape).astype(np.int64) + int(ids[0] != 0)
