"""Whole objects belong to the tile that holds their centre, where that tile has seen them whole.

Tiles that number their objects may disagree at their borders: one finds an object that the other misses, or sees it a
little differently. Joined piece by piece, half of the object would remain, or a patchwork. By the centre rule the tile
with the centre of an object decides: other tiles show its object in their cores (they *adopt* it), and drop what they
found there themselves. Objects that no tile saw whole are left to matching (`pipeline.links`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from pipeline.links import MATCH_IOU, alike
from pipeline.tiling import Box, Tile


@dataclass(frozen=True)
class Sight:
    """What a tile found."""

    tile: Tile
    stack: np.ndarray
    """Label stack ``(L, y, x)`` of what the tile read, objects numbered 1, 2, ..., n."""
    extent: tuple[int, int]
    """Height and width of the image."""

    @cached_property
    def boxes(self) -> np.ndarray:
        """Bounding boxes ``(n, 4)`` of the objects in image coordinates: y0, y1, x0, x1."""
        read = self.tile.read
        corners = [
            (rows.start + read.y0, rows.stop + read.y0, columns.start + read.x0, columns.stop + read.x0)
            for _, rows, columns in ndimage.find_objects(self.stack)
        ]
        return np.array(corners, np.int64).reshape(-1, 4)

    @cached_property
    def whole(self) -> np.ndarray:
        """Which objects do not reach the border of what was read, unless it is that of the image; bool ``(n,)``."""
        read, (height, width) = self.tile.read, self.extent
        y0, y1, x0, x1 = self.boxes.T
        inside_rows = ((y0 > read.y0) | (read.y0 == 0)) & ((y1 < read.y1) | (read.y1 == height))
        inside_columns = ((x0 > read.x0) | (read.x0 == 0)) & ((x1 < read.x1) | (read.x1 == width))
        return inside_rows & inside_columns

    @cached_property
    def claimed(self) -> np.ndarray:
        """Which objects the tile saw whole and with their centre in its core; bool ``(n,)``."""
        return self.whole_in(self.tile.core)

    def whole_in(self, box: Box) -> np.ndarray:
        """Which objects are whole and have the centre of their bounding box in a box of the image; bool ``(n,)``."""
        y, x = (self.boxes[:, 0] + self.boxes[:, 1]) // 2, (self.boxes[:, 2] + self.boxes[:, 3]) // 2
        return self.whole & (y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1)

    def over(self, box: Box) -> np.ndarray:
        """The part of the stack ``(L, y, x)`` over a box inside what was read."""
        return self.stack[(slice(None), *box.within(self.tile.read))]


@dataclass(frozen=True)
class Adopted:
    """The part of an object of another tile that lies in a core."""

    source: Tile
    label: int
    """Its number in that tile."""
    box: Box
    """The part of the core that holds it."""
    mask: np.ndarray
    """Its pixels in that box."""


@dataclass(frozen=True)
class Ruling:
    """The objects of the core of a tile after the centre rule."""

    stack: np.ndarray
    """Label stack ``(L, y, x)`` of the core."""
    adopted: Mapping[int, Adopted]
    """Adopted objects by their numbers in the stack, which follow those of the tile's own."""


def ruled(own: Sight, neighbours: Sequence[Sight]) -> Ruling:
    """Apply the centre rule to the core of a tile, from what it and its neighbours (in raster order) found.

    Of two objects that are alike and claimed by both tiles, that of the tile before in raster order remains.
    """
    dropped = np.zeros(len(own.boxes), bool)
    adopted: list[Adopted] = []
    for other in neighbours:
        band = own.tile.read.intersection(other.tile.read)
        mine, theirs = alike(own.over(band), other.over(band))
        is_before = (other.tile.row, other.tile.column) < (own.tile.row, own.tile.column)
        yields = other.claimed[theirs - 1] & (is_before | ~own.claimed[mine - 1])
        dropped[mine[yields] - 1] = True
        missed = own.whole_in(other.tile.core)
        missed[mine - 1] = False
        dropped |= missed
        taken = other.claimed.copy()
        taken[theirs[~yields] - 1] = False
        for part in _parts(other, np.flatnonzero(taken) + 1, own.tile.core):
            if not any(_is_same(part, earlier) for earlier in adopted):
                adopted.append(part)
    kept = np.append(0, np.where(dropped, 0, np.arange(1, len(dropped) + 1))).astype(own.stack.dtype)
    stack = kept[own.over(own.tile.core)]
    numbered = dict(enumerate(adopted, start=len(dropped) + 1))
    for number, part in numbered.items():
        stack = _with_object(stack, own.tile.core, part, number)
    return Ruling(stack, numbered)


def _parts(sight: Sight, labels: np.ndarray, core: Box) -> list[Adopted]:
    """The parts in a core of some objects of another tile; objects without a pixel there are left out."""
    parts = []
    for label in labels.tolist():
        box = core.intersection(Box(*sight.boxes[label - 1].tolist()))
        mask = (sight.over(box) == label).any(0)
        if mask.any():
            parts.append(Adopted(sight.tile, label, box, mask))
    return parts


def _is_same(first: Adopted, second: Adopted) -> bool:
    """Whether two adopted objects show the same pixels of the core, by their IoU."""
    band = first.box.intersection(second.box)
    shared = np.count_nonzero(first.mask[band.within(first.box)] & second.mask[band.within(second.box)])
    both = np.count_nonzero(first.mask) + np.count_nonzero(second.mask)
    return bool(shared >= MATCH_IOU * (both - shared))


def _with_object(stack: np.ndarray, core: Box, part: Adopted, number: int) -> np.ndarray:
    """The stack of a core with one more object, on the first layer where it meets no other, or on a new one."""
    window = (slice(None), *part.box.within(core))
    free = np.flatnonzero(~stack[window][:, part.mask].any(1))
    if not len(free):
        stack, free = np.concatenate([stack, np.zeros_like(stack[:1])]), np.array([len(stack)])
    stack[window][free[0]][part.mask] = number
    return stack
