"""Synthetic microscopy with exact, overlapping truth: worms, cells or filaments, from a seed, at any size.

The invariant: a pixel of image and truth depends on the scene and its place alone, so windows of any size agree
and a scene of any size needs the memory of one window.

How: the plane is a grid of cells with their own random generators. An object reaches at most half a cell beyond
its own, so two cells of one colour (2 x 2 colouring) never meet. Cells are settled in the order of their colours:
an object takes the smallest layer on which it meets no object settled before, and does not exist if there is
none. What is settled before lies at most three cells away, so the rule is local.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.datasets.sample import Sample
from pipeline.datasets.synthetic.backdrop import clouds, generator, noise
from pipeline.datasets.synthetic.shapes import (
    CELL_REACH_PX,
    FILAMENT_REACH_PX,
    WORM_REACH_PX,
    Shape,
    cell,
    filament,
    smudge,
    worm,
)
from pipeline.errors import BadArgument
from pipeline.stack import MAX_ID

MAX_PER_CELL = 64
"""Objects a cell can hold; an id is the number of the cell times this, plus the place in the cell, plus one."""
_OBJECTS = 0
_CACHED_CELLS = 512


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a scene is made of and how it is lit."""

    channel: str
    """Name of the one channel."""
    draw: Callable[[np.random.Generator], Shape]
    """Draws one object around the origin."""
    halo_px: int
    """Farthest a shape goes from its place; the edge of a grid cell is twice this."""
    per_cell: float
    """Objects tried per grid cell at density 1."""
    layers: int
    """Layers of the truth."""
    shared_max: float
    """An object may share at most this part of itself, and of any other, with others."""
    patchy: float
    """0: spread evenly; 1: crowds and empty places."""
    dirt: float
    """Smudges per grid cell."""
    bright_field: bool
    """Objects take light away (bright field) or give light (fluorescence)."""

    @property
    def cell_px(self) -> int:
        """Edge of a grid cell."""
        return 2 * self.halo_px


KINDS = {
    "worms": Kind(
        channel="brightfield",
        draw=worm,
        halo_px=WORM_REACH_PX,
        per_cell=2.0,
        layers=4,
        shared_max=0.4,
        patchy=0.5,
        dirt=4,
        bright_field=True,
    ),
    "cells": Kind(
        channel="nuclei",
        draw=cell,
        halo_px=CELL_REACH_PX,
        per_cell=1.0,
        layers=4,
        shared_max=0.4,
        patchy=1.0,
        dirt=0,
        bright_field=False,
    ),
    "filaments": Kind(
        channel="fibres",
        draw=filament,
        halo_px=FILAMENT_REACH_PX,
        per_cell=6.0,
        layers=6,
        shared_max=0.6,
        patchy=0.8,
        dirt=0,
        bright_field=False,
    ),
}


@dataclass(frozen=True)
class _Placed:
    """A shape at its place in the scene."""

    shape: Shape
    index: int
    layer: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A synthetic image that exists window by window; see ``scene``."""

    kind: str
    """``worms``, ``cells`` or ``filaments``."""
    shape: tuple[int, int]
    """Height and width in px."""
    seed: int = 0
    """Another seed is another scene; the same seed in a larger shape starts with the same pixels."""
    density: float = 1.0
    """How crowded, as a multiple of what the kind usually has; 0 is an empty scene."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadArgument(f"scene: expected a kind out of {', '.join(KINDS)}, got {self.kind!r}")
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise BadArgument(f"scene: expected a shape (height, width) of at least 1 px, got {self.shape!r}")
        if self.seed < 0 or not 0 <= self.density < float("inf"):
            raise BadArgument(
                f"scene: expected seed >= 0 and density >= 0, got seed {self.seed!r} and density {self.density!r}"
            )
        rows, columns = self._grid()
        if rows * columns * MAX_PER_CELL > MAX_ID:
            raise BadArgument(
                f"scene: {self.shape!r} px need more ids than uint32 has; ask for a smaller scene"
            )

    @property
    def layers(self) -> int:
        """Layers of the truth, the same for every window."""
        return KINDS[self.kind].layers

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of the image."""
        return (KINDS[self.kind].channel,)

    def render(self, y0: int, y1: int, x0: int, x1: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image uint16 ``(1, h, w)`` and truth uint32 ``(layers, h, w)`` of rows y0:y1, columns x0:x1."""
        height, width = self.shape
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise BadArgument(
                f"scene: expected a window inside {height} x {width} px, got rows {y0}:{y1}, columns {x0}:{x1}"
            )
        truth = np.zeros((self.layers, y1 - y0, x1 - x0), np.uint32)
        light = np.zeros(truth.shape[1:], np.float32)
        for row, column in self._cells_near(y0, y1, x0, x1):
            for placed in _settled(self.kind, self.seed, self.density, row, column):
                _paint(placed, self._label(row, column, placed.index), light, truth, y0, x0)
        return self._exposed(light, y0, y1, x0, x1)[None], truth

    def sample(self, name: str) -> Sample:
        """Render the whole scene as a sample, with ids 1..n in the order of the scene's ids."""
        image, truth = self.render(0, self.shape[0], 0, self.shape[1])
        ids = np.unique(truth[truth > 0])
        dense = np.where(truth > 0, np.searchsorted(ids, truth) + 1, 0).astype(np.uint32)
        return Sample(name=name, image=image, truth=dense, group=name, channels=self.channels)

    def _grid(self) -> tuple[int, int]:
        """Return the number of grid cells, those around the image included."""
        edge = KINDS[self.kind].cell_px
        return -(-self.shape[0] // edge) + 2, -(-self.shape[1] // edge) + 2

    def _label(self, row: int, column: int, index: int) -> int:
        return ((row + 1) * self._grid()[1] + column + 1) * MAX_PER_CELL + index + 1

    def _cells_near(self, y0: int, y1: int, x0: int, x1: int) -> Iterator[tuple[int, int]]:
        """Yield the grid cells whose objects can reach a window, in the order of the ids."""
        kind = KINDS[self.kind]
        edge, reach = kind.cell_px, kind.halo_px
        for row in range((y0 - reach) // edge, (y1 - 1 + reach) // edge + 1):
            for column in range((x0 - reach) // edge, (x1 - 1 + reach) // edge + 1):
                yield row, column

    def _exposed(self, light: np.ndarray, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Return what the camera records of the summed light of the objects, uint16."""
        uneven = clouds(self.seed, y0, y1, x0, x1, spacing_px=600)
        if KINDS[self.kind].bright_field:
            signal = (2000 + 800 * uneven) * np.exp(-light)
        else:
            signal = 260 + 120 * uneven + 2600 * light
        spread = np.sqrt(np.maximum(signal, 0) * 0.16 + 36)
        recorded = signal + spread * noise(self.seed, y0, y1, x0, x1)
        return np.clip(np.rint(recorded), 0, 65535).astype(np.uint16)


def scene(kind: str, shape: tuple[int, int], *, seed: int = 0, density: float = 1.0) -> Scene:
    """Describe a scene of ``worms``, ``cells`` or ``filaments``; nothing is drawn before ``render``."""
    return Scene(kind=kind, shape=(int(shape[0]), int(shape[1])), seed=seed, density=density)


def _paint(placed: _Placed, label: int, light: np.ndarray, truth: np.ndarray, y0: int, x0: int) -> None:
    """Add an object to a window whose first pixel is at y0, x0."""
    shape = placed.shape
    top, left = shape.y0 - y0, shape.x0 - x0
    bottom, right = top + shape.mask.shape[0], left + shape.mask.shape[1]
    rows = slice(max(top, 0), min(bottom, light.shape[0]))
    columns = slice(max(left, 0), min(right, light.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    light[rows, columns] += shape.light[part]
    truth[placed.layer, rows, columns][shape.mask[part]] = label


@lru_cache(maxsize=_CACHED_CELLS)
def _settled(kind: str, seed: int, density: float, row: int, column: int) -> tuple[_Placed, ...]:
    """Return the objects of a grid cell with their layers, after the neighbours that come before it."""
    label = _colour(row, column)
    before = [
        placed
        for r in (row - 1, row, row + 1)
        for c in (column - 1, column, column + 1)
        if _colour(r, c) < label
        for placed in _settled(kind, seed, density, r, c)
    ]
    here: list[_Placed] = []
    for index, shape in enumerate(_tried(kind, seed, density, row, column)):
        layer = _free_layer(shape, before + here, KINDS[kind])
        if layer is not None:
            here.append(_Placed(shape, index, layer))
    return tuple(here)


def _colour(row: int, column: int) -> int:
    return row % 2 * 2 + column % 2


def _free_layer(shape: Shape, others: list[_Placed], kind: Kind) -> int | None:
    """Return the smallest layer free of others; ``None`` if there is none or too much would be shared."""
    used: set[int] = set()
    area, shared = int(shape.mask.sum()), 0
    for other in others:
        common = shape.shared_px(other.shape)
        if common:
            used.add(other.layer)
            shared += common
            if common > kind.shared_max * other.shape.mask.sum():
                return None
    if area and shared > kind.shared_max * area:
        return None
    return next((layer for layer in range(kind.layers) if layer not in used), None)


def _tried(name: str, seed: int, density: float, row: int, column: int) -> Iterator[Shape]:
    """Yield the shapes of a grid cell at their places, before it is known which of them can stay."""
    kind = KINDS[name]
    rng = generator(seed, _OBJECTS, row, column)
    y0, x0 = row * kind.cell_px, column * kind.cell_px
    crowd = float(clouds(seed, y0, y0 + 1, x0, x0 + 1, spacing_px=3 * kind.cell_px, stream=1)[0, 0])
    expected = density * kind.per_cell * (1 - kind.patchy + 2 * kind.patchy * crowd)
    wanted = [kind.draw] * int(rng.poisson(expected)) + [smudge] * int(rng.poisson(kind.dirt))
    for draw in wanted[:MAX_PER_CELL]:
        y, x = rng.integers(0, kind.cell_px, 2)
        yield draw(rng).moved(y0 + int(y), x0 + int(x))
