"""Resampling of an image to the scale of a network, and of the network's layers back to the image.

Every resampled pixel is a function of its position in the whole image, never of the tile it is computed in, so that
tiles agree bit by bit. Image pixels are averaged over the area of a network pixel (``factor < 1``) or interpolated
linearly between pixel centres (``factor > 1``); on the way back each image pixel takes the value of the network pixel
that contains its centre. Pure numpy.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from pipeline.tiling import Box, round_up


@dataclass(frozen=True)
class Rescaling:
    """``factor`` network pixels per image pixel, over an image of ``extent`` (y, x)."""

    factor: float
    extent: tuple[int, int]
    stride: int = 1
    """Boxes on the network's grid start at multiples of this."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole image on the network's grid."""
        height, width = (max(ceil(extent * self.factor - 1e-6), 1) for extent in self.extent)
        return height, width

    def halo(self, halo_px: int) -> int:
        """Image pixels that cover a halo of ``halo_px`` network pixels."""
        return ceil((halo_px + 1) / self.factor) + 1

    def outer(self, box: Box) -> Box:
        """Smallest box on the network's grid, at multiples of the stride, that covers a box of image pixels."""
        (y0, y1), (x0, x1) = (
            (
                floor(start * self.factor) // self.stride * self.stride,
                min(round_up(ceil(stop * self.factor), self.stride), size),
            )
            for start, stop, size in ((box.y0, box.y1, self.size[0]), (box.x0, box.x1, self.size[1]))
        )
        return Box(y0, y1, x0, x1)

    def support(self, box: Box) -> Box:
        """Image pixels from which a box on the network's grid is resampled."""
        ys, xs = self._taps(box.y0, box.y1, 0)[0], self._taps(box.x0, box.x1, 1)[0]
        return Box(int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1)

    def resample(self, block: np.ndarray, box: Box) -> np.ndarray:
        """Pixels ``(C, y, x)`` of a box on the network's grid from the image pixels of its `support`; float32."""
        support = self.support(box)
        rows, row_weights = self._taps(box.y0, box.y1, 0)
        columns, column_weights = self._taps(box.x0, box.x1, 1)
        # Summed over taps one at a time: the same additions in the same order for every pixel of every tile.
        tall = np.zeros((len(block), box.shape[0], block.shape[2]), np.float32)
        for tap, weight in zip(rows.T - support.y0, row_weights.T):
            tall += block[:, tap, :] * weight[None, :, None]
        result = np.zeros((len(block), *box.shape), np.float32)
        for tap, weight in zip(columns.T - support.x0, column_weights.T):
            result += tall[:, :, tap] * weight
        return result

    def back(self, layers: np.ndarray, box: Box, target: Box) -> np.ndarray:
        """Sample layers ``(K, y, x)`` of a box on the network's grid at the image pixels of ``target`` within it."""
        ys = self._nearest(target.y0, target.y1, 0) - box.y0
        xs = self._nearest(target.x0, target.x1, 1) - box.x0
        return layers[:, ys][:, :, xs]

    def _nearest(self, start: int, stop: int, axis: int) -> np.ndarray:
        """Index of the network pixel that contains the centre of each image pixel."""
        index = np.floor((np.arange(start, stop) + 0.5) * self.factor).astype(np.int64)
        return np.minimum(index, self.size[axis] - 1)

    def _taps(self, start: int, stop: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Image pixels and their weights, ``(n, taps)``, for the network pixels from ``start`` to ``stop``."""
        place = np.arange(start, stop, dtype=np.float64)[:, None]
        if self.factor < 1:
            low, high = place / self.factor, (place + 1) / self.factor
            index = np.floor(low) + np.arange(ceil(1 / self.factor) + 1)
            weights = np.clip(np.minimum(index + 1, high) - np.maximum(index, low), 0, None) * self.factor
        else:
            centre = (place + 0.5) / self.factor - 0.5
            index = np.floor(centre) + np.arange(2)
            weights = 1 - np.abs(index - centre)
        inside = np.clip(index, 0, self.extent[axis] - 1).astype(np.int64)
        return inside, weights.astype(np.float32)
