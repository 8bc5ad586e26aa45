"""The classical segmenter: smooth, threshold, split touching objects. Suited to sparse nuclei.

Every step depends on pixels within a bounded distance, so tiles stitch exactly: the distance transform is capped,
objects are split where the nearest centre changes, and centres beyond the cap are ignored.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

BRIGHTEST = 4.0
"""Upper limit of pixels before smoothing, in normalised units, so that one defective pixel becomes no object."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Segment bright objects of the first channel on one layer.

    ``method="otsu"`` expects blocks in which 0.5 is Otsu's threshold of the image (its own normalisation);
    ``"local"`` compares with a Gaussian mean of ``window_px`` plus ``offset``.
    """

    method: Literal["otsu", "local"] = "otsu"
    sigma_px: float = 1.5
    """Smoothing before the threshold."""
    window_px: float = 24.0
    """Standard deviation of the local mean."""
    offset: float = 0.05
    """Least difference of a pixel to the local mean, in normalised units."""
    split_px: int = 24
    """Cap of the distance transform: centres of touching objects are sought within it; 0 does not split."""
    spacing_px: int = 7
    """Half the smallest distance between two centres."""

    name = "threshold"
    link = "touch"
    stride = 1
    layers = 1

    @property
    def normalise(self) -> dict:
        """The image-wide statistic this method needs."""
        return {"kind": "otsu"} if self.method == "otsu" else {"kind": "percentile"}

    @property
    def min_area(self) -> int:
        """Default of the least area of an object in px."""
        return 30

    @property
    def halo_px(self) -> int:
        """Sum of the radii of the steps."""
        smooth = _radius(self.sigma_px) + (_radius(self.window_px) if self.method == "local" else 0)
        split = 2 * self.split_px + _radius(2.0) + self.spacing_px + 2 if self.split_px else 0
        return smooth + split

    @property
    def digest(self) -> str:
        """Changes with every parameter."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Segment a block ``(C, y, x)``; boolean ``(1, y, x)``."""
        smooth = ndimage.gaussian_filter(
            np.minimum(block[0], BRIGHTEST), self.sigma_px, mode="nearest", radius=_radius(self.sigma_px)
        )
        level = np.float32(0.5)
        if self.method == "local":
            radius = _radius(self.window_px)
            level = (
                ndimage.gaussian_filter(smooth, self.window_px, mode="nearest", radius=radius) + self.offset
            )
        foreground = smooth > level
        return (foreground & ~self._cuts(foreground))[None] if self.split_px else foreground[None]

    def _cuts(self, foreground: np.ndarray) -> np.ndarray:
        """Pixels on the lines between the regions nearest to different centres."""
        # The border is padded by repetition: padding with background would make the distance, and so the cuts,
        # depend on the tile.
        depth = np.minimum(
            ndimage.distance_transform_edt(np.pad(foreground, 1, mode="edge"))[1:-1, 1:-1], self.split_px
        )
        depth = ndimage.gaussian_filter(depth.astype(np.float32), 2.0, mode="nearest", radius=_radius(2.0))
        window = 2 * self.spacing_px + 1
        centres = (depth == ndimage.maximum_filter(depth, window, mode="nearest")) & foreground & (depth > 1)
        if not centres.any():
            return np.zeros_like(foreground)
        distance, (y, x) = ndimage.distance_transform_edt(~centres, return_indices=True)
        near = foreground & (distance <= self.split_px)
        cuts = np.zeros_like(foreground)
        # Centres closer than the spacing are one plateau, not two objects.
        for axis in (0, 1):
            one, other = _shifted(axis)
            apart = np.maximum(abs(y[one] - y[other]), abs(x[one] - x[other])) > self.spacing_px
            cuts[one] |= apart & near[one] & near[other]
        return cuts


def _radius(sigma: float) -> int:
    return int(4 * sigma + 0.5)


def _shifted(axis: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Index of every pixel with a successor along ``axis``, and of that successor."""
    one, other = [slice(None), slice(None)], [slice(None), slice(None)]
    one[axis], other[axis] = slice(None, -1), slice(1, None)
    return (one[0], one[1]), (other[0], other[1])
