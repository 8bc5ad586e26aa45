"""Decoding of DCME: every object pixel votes for a centre; clusters of votes are objects.

The steps are those of Watanabe and Wolf (2018): votes, a threshold on the votes of a place, clusters of places,
pixels whose vote lies near a centre. Each pixel votes once, votes outside of the image are discarded, and
clusters do not depend on the order in which places are visited. It knows no network.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from model.stacking import stack_of_objects

SHARED = 4
"""Most objects that a pixel may belong to."""
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Pixels that vote, and the places they vote for; all int64 of one length."""

    pixels: np.ndarray
    """Flat indices of the pixels whose vector is at least 1 px long along y or x."""
    places: np.ndarray
    """Flat index of the place each of them points to."""
    shape: tuple[int, int]

    def counts(self, spread_px: int) -> np.ndarray:
        """Return the votes of every place, int64 ``(y, x)``, with those within ``spread_px``."""
        height, width = self.shape
        counts = np.bincount(self.places, minlength=height * width).reshape(height, width)
        ones = np.ones(2 * spread_px + 1, np.int64)
        for axis in (0, 1):
            counts = ndimage.convolve1d(counts, ones, axis=axis, mode="constant")
        return counts


def cast_votes(vectors: np.ndarray) -> Votes:
    """Return the votes of vectors ``(2, y, x)``, x component first; votes outside of the image are discarded."""
    height, width = vectors.shape[1:]
    y, x = np.nonzero((np.abs(vectors) >= 1).any(0))
    to_x = x + np.rint(vectors[0, y, x]).astype(np.int64)
    to_y = y + np.rint(vectors[1, y, x]).astype(np.int64)
    inside = (to_y >= 0) & (to_y < height) & (to_x >= 0) & (to_x < width)
    return Votes(pixels=(y * width + x)[inside], places=(to_y * width + to_x)[inside], shape=(height, width))


def find_centres(votes: Votes, *, least: int, spread_px: int, gap_px: int) -> np.ndarray:
    """Return float64 ``(n, 2)``: y and x of every cluster of votes, weighted by votes, in raster order.

    A cluster holds the places with more than ``least`` votes within ``spread_px`` that are linked by gaps of at
    most ``gap_px`` along y and x.
    """
    counts = votes.counts(spread_px)
    places = np.argwhere(counts > least)
    if not len(places):
        return np.zeros((0, 2))
    pairs = cKDTree(places).query_pairs(gap_px + 0.5, p=np.inf, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(places),) * 2)
    number, cluster = connected_components(links, directed=False)
    weights = counts[places[:, 0], places[:, 1]].astype(float)
    totals = np.bincount(cluster, weights, number)
    return np.stack(
        [np.bincount(cluster, weights * places[:, axis], number) / totals for axis in (0, 1)], axis=1
    )


def gather(votes: Votes, centres: np.ndarray, *, radius_px: float, exclusive: bool) -> np.ndarray:
    """Return the label stack uint32 ``(L, y, x)``: the pixels of object k + 1 voted within ``radius_px`` of centre k.

    ``exclusive``: a pixel belongs to the nearest centre, so there is one layer; else to as many as ``SHARED``.
    """
    if not len(centres) or not len(votes.pixels):
        return np.zeros((1, *votes.shape), np.uint32)
    places, of_pixel = np.unique(votes.places, return_inverse=True)
    at = np.stack(np.divmod(places, votes.shape[1]), axis=1)
    ranks = 1 if exclusive else min(len(centres), SHARED)
    _, nearest = cKDTree(centres).query(at, k=[*range(1, ranks + 1)], distance_upper_bound=radius_px)
    centre, pixels = nearest[of_pixel].T.ravel(), np.tile(votes.pixels, ranks)
    near = centre < len(centres)  # the tree answers len(centres) where no centre is near enough
    order = np.argsort(centre[near], kind="stable")
    ends = np.cumsum(np.bincount(centre[near], minlength=len(centres)))
    return stack_of_objects(np.split(pixels[near][order], ends[:-1]), votes.shape)


def fill_small_holes(labels: np.ndarray, *, hole_px: int) -> np.ndarray:
    """Return a label image ``(y, x)`` in which holes of at most ``hole_px`` pixels take the object around them.

    A hole is an 8-connected piece of background whose neighbours are all of one object.
    """
    holes, _ = ndimage.label(labels == 0, _EIGHT)
    small = np.bincount(holes.ravel()) <= hole_px
    small[0] = False
    numbers = np.flatnonzero(small)
    if not len(numbers):
        return labels
    around = ndimage.maximum_filter(labels, size=3, mode="constant")
    least = ndimage.minimum_filter(np.where(labels > 0, labels, labels.max() + 1), size=3, mode="nearest")
    largest = np.asarray(ndimage.maximum(around, holes, numbers)).astype(labels.dtype)
    smallest = np.asarray(ndimage.minimum(least, holes, numbers)).astype(labels.dtype)
    filler = np.zeros(len(small), labels.dtype)
    filler[numbers] = np.where(largest == smallest, largest, 0)
    filled: np.ndarray = np.where(labels == 0, filler[holes], labels)
    return filled


def classes_at(centres: np.ndarray, grid: np.ndarray, *, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the class int64 of each centre and its probability, from probabilities ``(K + 1, rows, columns)``.

    The class is that of the block of ``block`` pixels in which the centre lies; 0 is background.
    """
    row, column = np.floor(centres / block).astype(np.int64).T
    here = grid[:, row, column]
    return here.argmax(0), here.max(0)
