"""Star-convex polygons: which points they hold, which pixels they cover, and non-maximum suppression.

A polygon has a centre and the distance of its outline at equal angles, ray k at the angle 2 pi k / rays (cosine
along x, sine along y), with straight edges between the rays. It knows no network and no image.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

POINTS = 200
"""Points of a lattice by which the area that two polygons share is measured."""
AT_ONCE = 256
"""Polygons that are compared with one polygon at a time, to bound memory."""


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """n polygons in pixels."""

    centres: np.ndarray
    """float64 ``(n, 2)``: y and x."""
    radii: np.ndarray
    """float64 ``(n, rays)``, positive."""

    def __len__(self) -> int:
        return len(self.centres)

    def take(self, index: np.ndarray) -> "Polygons":
        """Return the polygons of an index."""
        return Polygons(centres=self.centres[index], radii=self.radii[index])

    @property
    def areas(self) -> np.ndarray:
        """Area of each polygon in square pixels: the triangles between neighbouring rays."""
        angle = 2 * np.pi / self.radii.shape[1]
        areas: np.ndarray = np.sin(angle) / 2 * (self.radii * np.roll(self.radii, -1, axis=1)).sum(1)
        return areas

    def hold(self, points: np.ndarray) -> np.ndarray:
        """Return bool ``(n, p)``: whether each polygon holds each of the points ``(p, 2)``."""
        rays = self.radii.shape[1]
        angle = 2 * np.pi / rays
        dy, dx = ((points[None, :, axis] - self.centres[:, None, axis]).astype(np.float32) for axis in (0, 1))
        before = (np.arctan2(dy, dx) * np.float32(1 / angle)).astype(np.int32)
        before = np.where(dy < 0, before - 1, before) % rays  # towards zero becomes down
        y, x = (turn(angle * np.arange(rays)).astype(np.float32) for turn in (np.sin, np.cos))
        # The point is seen from ray k at the angle a and from ray k + 1 at b - a, where b lies between rays; the edge
        # from ray to ray in polar coordinates is r (r0 sin a + r1 sin(b - a)) = r0 r1 sin b.
        after = (before + 1) % rays
        from_first = dy * x[before] - dx * y[before]
        to_second = dx * y[after] - dy * x[after]
        radii, row = self.radii.astype(np.float32), np.arange(len(self))[:, None]
        r0, r1 = radii[row, before], radii[row, after]
        held: np.ndarray = r0 * from_first + r1 * to_second <= r0 * r1 * np.float32(np.sin(angle))
        return held

    def pixels(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        """Return the flat indices of the pixels of an image of ``shape`` whose centres lie in a polygon."""
        centre, reach = self.centres[index], self.radii[index].max()
        low = np.maximum(np.ceil(centre - reach), 0).astype(np.int64)
        high = np.minimum(np.floor(centre + reach) + 1, shape).astype(np.int64)
        points = _lattice(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        inside = points[self.take(np.array([index])).hold(points)[0]]
        flat: np.ndarray = inside[:, 0] * shape[1] + inside[:, 1]
        return flat

    def points(self, index: int) -> np.ndarray:
        """Return about ``POINTS`` evenly spaced points ``(p, 2)`` inside a polygon, or one per pixel if it is small."""
        centre, reach = self.centres[index], self.radii[index].max()
        step = max(np.sqrt(self.take(np.array([index])).areas[0] / POINTS), 1.0)
        offsets = np.arange(-np.floor(reach / step), np.floor(reach / step) + 1) * step
        points = centre + _lattice(offsets, offsets)
        inside: np.ndarray = points[self.take(np.array([index])).hold(points)[0]]
        return inside


def suppress(polygons: Polygons, scores: np.ndarray, *, overlap: float) -> np.ndarray:
    """Return the indices of the polygons that remain after non-maximum suppression, best score first.

    In the order of their scores (ties: the lower index), a polygon that remains removes all others of which it
    shares more than ``overlap`` of the smaller area.
    """
    order = np.argsort(-scores, kind="stable")
    polygons = polygons.take(order)
    areas, reaches = polygons.areas, polygons.radii.max(1, initial=0)
    alive, kept = np.ones(len(polygons), bool), []
    tree = cKDTree(polygons.centres) if len(polygons) else None
    for index in range(len(polygons)):
        if tree is None or not alive[index]:
            continue
        kept.append(index)
        near = np.array(tree.query_ball_point(polygons.centres[index], reaches[index] + reaches.max()))
        near = near[(near > index) & alive[near]]
        shared = _shared(polygons, index, near, areas[index])
        alive[near[shared > overlap * np.minimum(areas[index], areas[near])]] = False
    return order[kept]


def _shared(polygons: Polygons, index: int, others: np.ndarray, area: float) -> np.ndarray:
    """Return the area that a polygon of ``area`` shares with each of some others."""
    points = polygons.points(index)
    parts = [
        polygons.take(others[first : first + AT_ONCE]).hold(points).sum(1)
        for first in range(0, len(others), AT_ONCE)
    ]
    held: np.ndarray = np.concatenate([np.zeros(0), *parts]) * (area / max(len(points), 1))
    return held


def _lattice(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
