"""Noise and uneven light of a synthetic scene, as functions of a pixel's place.

The invariant: the value at a pixel depends on the seed and its position only, never on the requested window.
"""

from functools import lru_cache

import numpy as np

NOISE_TILE_PX = 256
_NOISE, _CLOUDS = 1, 2
_ORIGIN = 1 << 20
"""Added to grid indices, because a seed must not be negative."""


def generator(seed: int, stream: int, row: int, column: int) -> np.random.Generator:
    """Return the generator of one cell of one grid; ``row`` and ``column`` may be negative."""
    return np.random.default_rng([seed, stream, row + _ORIGIN, column + _ORIGIN])


def noise(seed: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """Return independent standard normal values ``(y1 - y0, x1 - x0)``, float32."""
    window = np.empty((y1 - y0, x1 - x0), np.float32)
    size = NOISE_TILE_PX
    for row in range(y0 // size, -(-y1 // size)):
        for column in range(x0 // size, -(-x1 // size)):
            tile = generator(seed, _NOISE, row, column).standard_normal((size, size), np.float32)
            top, left = row * size, column * size
            a, b, c, d = max(top, y0), min(top + size, y1), max(left, x0), min(left + size, x1)
            window[a - y0 : b - y0, c - x0 : d - x0] = tile[a - top : b - top, c - left : d - left]
    return window


def clouds(seed: int, y0: int, y1: int, x0: int, x1: int, *, spacing_px: int, stream: int = 0) -> np.ndarray:
    """Return a smooth field in 0..1, float32, whose hills are about ``spacing_px`` wide."""
    rows, top, down = _lattice_weights(y0, y1, spacing_px)
    columns, left, across = _lattice_weights(x0, x1, spacing_px)
    knots = np.array([[_knot(seed, stream, row, column) for column in columns] for row in rows], np.float32)
    strips = knots[top] + (knots[top + 1] - knots[top]) * down[:, None]
    return strips[:, left] + (strips[:, left + 1] - strips[:, left]) * across


@lru_cache(maxsize=4096)
def _knot(seed: int, stream: int, row: int, column: int) -> float:
    return float(generator(seed, _CLOUDS + stream, row, column).random())


def _lattice_weights(start: int, stop: int, spacing_px: int) -> tuple[range, np.ndarray, np.ndarray]:
    """Return the knots a window needs and, per pixel, the knot before it and the smooth way to the next."""
    place = np.arange(start, stop) / spacing_px
    before = np.floor(place).astype(int)
    way = (place - before).astype(np.float32)
    return range(before[0], before[-1] + 2), before - before[0], way * way * (3 - 2 * way)
