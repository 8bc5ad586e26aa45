"""Draw one synthetic object: a worm, a cell or a filament, as a mask and as what it does to the light.

The invariant: a shape depends on its generator alone and stays within the reach of its kind, measured from its
place, so that whoever paints a window knows how far to look. Where it lies and what it meets is not known here.
"""

from dataclasses import dataclass, replace
from math import cos, sin

import numpy as np
from scipy import ndimage

WORM_REACH_PX = 84
CELL_REACH_PX = 22
FILAMENT_REACH_PX = 92
_FINE = 1 << 10
"""Steps per pixel to which distances are rounded when the nearest point of a curve is sought."""
_POINTS = 1 << 8
"""More points than any curve has: distance and point share one integer, so one minimum finds both."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An object on its bounding box."""

    y0: int
    """Top of the box."""
    x0: int
    """Left of the box."""
    mask: np.ndarray
    """Pixels of the object ``(h, w)``, boolean."""
    light: np.ndarray
    """Optical density (bright field) or emission (fluorescence) ``(h, w)``, float32, beyond the mask too."""

    def moved(self, y: int, x: int) -> "Shape":
        """Return the shape shifted by whole pixels."""
        return replace(self, y0=self.y0 + y, x0=self.x0 + x)

    def shared_px(self, other: "Shape") -> int:
        """Count the pixels two shapes share."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        y1 = min(self.y0 + self.mask.shape[0], other.y0 + other.mask.shape[0])
        x1 = min(self.x0 + self.mask.shape[1], other.x0 + other.mask.shape[1])
        if y1 <= y0 or x1 <= x0:
            return 0
        return int(np.count_nonzero(self._part(y0, y1, x0, x1) & other._part(y0, y1, x0, x1)))

    def _part(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return self.mask[y0 - self.y0 : y1 - self.y0, x0 - self.x0 : x1 - self.x0]


def worm(rng: np.random.Generator) -> Shape:
    """Draw a nematode in bright field: 8 to 10 px wide, a bent one with dark edges or a straight granular one."""
    length, half_width = rng.uniform(104, 144), rng.uniform(4.0, 4.9)
    straight = rng.random() < 0.35
    points = _curve(rng, length, bend=0.4 if straight else 2.6, wave=0.15 if straight else 0.7)
    position = np.linspace(0, 1, len(points))
    taper = np.minimum(1, (position / 0.16) ** 0.55) * np.minimum(1, ((1 - position) / 0.3) ** 0.75)
    y0, x0, depth, nearest = _ribbon(points, half_width * taper, margin_px=4)
    granules = _grain(rng, depth.shape, 0.9)
    across = np.clip(1 - depth / half_width, 0, 1)
    body = 0.75 + 0.3 * across**3 - (0 if straight else 0.35) * np.exp(-(((across - 0.45) / 0.16) ** 2))
    along = 0.45 + 0.55 * np.sin(np.pi * np.clip(position[nearest], 0.04, 0.96)) ** 0.6
    opaque = _soft(depth, 0.55) * body * along * (1 + (0.28 if straight else 0.13) * granules)
    halo = -0.03 * np.exp(-(((depth + 1.8) / 1.1) ** 2))
    density = ndimage.gaussian_filter(rng.uniform(0.85, 1.25) * opaque + halo, rng.uniform(0.6, 1.1))
    return Shape(y0=y0, x0=x0, mask=depth >= 0, light=density.astype(np.float32))


def filament(rng: np.random.Generator) -> Shape:
    """Draw a thin glowing fibre, about 4 px wide and 60 to 165 px long."""
    points = _curve(rng, rng.uniform(60, 165), bend=1.1, wave=0.35)
    half_width = np.full(len(points), rng.uniform(1.6, 2.3))
    y0, x0, depth, nearest = _ribbon(points, half_width, margin_px=4)
    beads = ndimage.gaussian_filter1d(rng.standard_normal(len(points)), 4, mode="nearest") * 0.7
    glow = _soft(depth - 0.2, 0.6) * np.clip(1 + beads[nearest], 0.45, 1.8)
    light = ndimage.gaussian_filter(rng.lognormal(0, 0.25) * glow, 0.7)
    return Shape(y0=y0, x0=x0, mask=depth >= 0, light=light.astype(np.float32))


def cell(rng: np.random.Generator) -> Shape:
    """Draw a stained nucleus: an uneven ellipse of 6 to 17 px radius with grainy chromatin."""
    long_px = float(np.clip(rng.lognormal(np.log(11), 0.22), 7, 17))
    short_px = long_px * rng.uniform(0.62, 0.98)
    half = min(int(1.1 * long_px) + 4, CELL_REACH_PX)
    y, x = _square(half) + rng.uniform(-0.5, 0.5, (2, 1, 1)).astype(np.float32)
    turn = rng.uniform(0, np.pi)
    v, u = (cos(turn) * y - sin(turn) * x) / short_px, (sin(turn) * y + cos(turn) * x) / long_px
    around = np.arctan2(v, u)
    waves = (rng.uniform(0, 0.07) * np.cos(k * around + rng.uniform(0, 2 * np.pi)) for k in (2, 3))
    ratio = np.sqrt(v * v + u * u) / (1 + sum(waves))
    depth = (1 - ratio) * short_px
    chromatin = 1 + rng.uniform(0.1, 0.3) * _grain(rng, depth.shape, rng.uniform(1.2, 2.0))
    dome = 0.7 + 0.3 * np.sqrt(np.clip(1 - ratio**2, 0, None))
    light = rng.lognormal(0, 0.4) * _soft(depth, rng.uniform(0.6, 1.1)) * dome * np.clip(chromatin, 0.4, None)
    return Shape(y0=-half, x0=-half, mask=depth >= 0, light=light.astype(np.float32))


def smudge(rng: np.random.Generator) -> Shape:
    """Draw dirt that is out of focus or small: light without an object (the mask is empty)."""
    radius = float(rng.choice([0.9, 1.3, 2.6, 4.0], p=[0.35, 0.25, 0.25, 0.15]))
    half = int(np.ceil(4 * radius))
    y, x = _square(half)
    stretch = rng.uniform(0.6, 1.4)
    blob = np.exp(-((y * stretch) ** 2 + (x / stretch) ** 2) / (2 * radius**2))
    strength = rng.uniform(0.05, 0.4) / radius**1.2
    return Shape(y0=-half, x0=-half, mask=np.zeros(y.shape, bool), light=(strength * blob).astype(np.float32))


def _curve(rng: np.random.Generator, length_px: float, *, bend: float, wave: float) -> np.ndarray:
    """Return points ``(n, 2)`` one pixel apart along a smooth curve whose middle is the origin."""
    n = round(length_px)
    s = np.linspace(-0.5, 0.5, n)
    turn = rng.normal(0, bend / 2)
    heading = rng.uniform(0, 2 * np.pi) + np.clip(turn, -5.5, 5.5) * s
    heading += wave * rng.uniform(0.3, 1.6) * np.sin(2 * np.pi * (rng.uniform(0.7, 1.6) * s + rng.random()))
    points = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0)
    return points - points[n // 2] + rng.uniform(-0.5, 0.5, 2)


def _ribbon(
    points: np.ndarray, half_width_px: np.ndarray, *, margin_px: int
) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Return top, left, depth below the edge ``(h, w)`` in px and the index of the nearest point ``(h, w)``.

    The ribbon is the union of discs around the points; the depth is negative outside and is known up to
    ``margin_px`` beyond the edge.
    """
    radius = int(np.ceil(half_width_px.max())) + margin_px
    top, left = np.floor(points.min(axis=0)).astype(int) - radius
    shape = np.floor(points.max(axis=0)).astype(int) + radius + 1 - (top, left)
    centre = np.floor(points)
    dy, dx = _square(radius).reshape(2, 1, -1)
    within = (points - centre).astype(np.float32)
    squares = (dy - within[:, :1]) ** 2 + (dx - within[:, 1:]) ** 2
    outside = np.sqrt(squares) - half_width_px[:, None].astype(np.float32)
    order = np.arange(len(points), dtype=np.int32)[:, None]
    key = ((outside + radius) * _FINE).astype(np.int32) * _POINTS + order
    pixel = ((centre - (top, left)) @ (shape[1], 1)).astype(np.int32)[:, None] + (dy * shape[1] + dx).astype(
        np.int32
    )
    best = np.full(int(shape.prod()), 2 * radius * _FINE * _POINTS, np.int32)
    np.minimum.at(best, pixel.ravel(), key.ravel())
    best = best.reshape(shape)
    depth = radius - (best // _POINTS).astype(np.float32) / _FINE
    return int(top), int(left), depth, best % _POINTS


def _square(half: int) -> np.ndarray:
    """Return the offsets ``(2, n, n)`` of the pixels around a centre, float32."""
    return np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)


def _soft(depth_px: np.ndarray, blur_px: float) -> np.ndarray:
    """Return 1 inside, 0 outside and one half at the edge."""
    return 1 / (1 + np.exp(np.clip(-depth_px / (0.6 * blur_px), -50, 50)))


def _grain(rng: np.random.Generator, shape: tuple[int, ...], size_px: float) -> np.ndarray:
    """Return smooth noise of about unit variance whose grains have the given size."""
    rough = rng.standard_normal(shape, np.float32)
    return ndimage.gaussian_filter(rough, size_px, mode="wrap") * (2 * np.sqrt(np.pi) * size_px)
