"""From detections to a label stack: masks are laid into their boxes, duplicates dropped by mask overlap.

Objects keep the pixels they share. It knows no network.
"""

import numpy as np
from scipy.sparse import csr_array, triu

from model.methods.maskrcnn.boxes import survivors

THRESHOLD = 0.5
"""Pixels whose mask probability is larger belong to the object."""


def pixels_of(mask: np.ndarray, box: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the flat indices of the pixels of an image of ``shape`` that a detection covers.

    ``mask``: probabilities ``(s, s)`` of equal cells of the ``box`` (y0, x0, y1, x1), interpolated bilinearly at the
    centres of the pixels.
    """
    rows, down = _axis(box[0], box[2], mask.shape[0], shape[0])
    columns, across = _axis(box[1], box[3], mask.shape[1], shape[1])
    inside = down @ mask @ across.T > THRESHOLD
    flat: np.ndarray = (rows[:, None] * shape[1] + columns)[inside]
    return flat


def _axis(low: float, high: float, cells: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels whose centres lie between low and high, and their weights ``(pixels, cells)``."""
    first, last = max(int(np.ceil(low - 0.5)), 0), min(int(np.floor(high - 0.5)), size - 1)
    pixels = np.arange(first, last + 1)
    place = np.clip((pixels + 0.5 - low) / max(high - low, 1e-6) * cells - 0.5, 0, cells - 1)
    return pixels, np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, None)


def without_duplicates(objects: list[np.ndarray], *, size: int, threshold: float) -> list[np.ndarray]:
    """Return the objects, best first, of which no two overlap by more than ``threshold`` (IoU of their pixels).

    ``objects``: flat indices of pixels of an image of ``size`` pixels, best first; empty ones are dropped.
    """
    objects = [pixels for pixels in objects if len(pixels)]
    areas = np.array([len(pixels) for pixels in objects], np.int64)
    ends = np.concatenate([[0], np.cumsum(areas)])
    pixels = np.concatenate([np.zeros(0, np.int64), *objects])
    cover = csr_array((np.ones(len(pixels), np.int32), pixels, ends), shape=(len(objects), size))
    shared = triu(cover @ cover.T, k=1).tocoo()
    first, second = shared.coords
    alike = shared.data > threshold * (areas[first] + areas[second] - shared.data)
    return [objects[index] for index in survivors(len(objects), first[alike], second[alike])]
