"""The overlap of two label stacks of one image, from which all metrics are computed.

The image is cut into *atoms*, the sets of pixels that the same truth objects and the same predictions hold. Ids
per atom and a pixel count are enough for areas, intersections, unions and shared parts. Atoms add up over tiles,
do not depend on the order of layers, and never hold a mask per object. Thresholds and scores are defined elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.errors import BadArgument
from pipeline.stack import check_stack
from pipeline.tiling import windows

STRIP_PX = 1 << 20
"""Pixels of a layer that are processed at a time; limits the memory and does not change the result."""

ReadBlock = Callable[[int, int, int, int], np.ndarray]
"""``(y0, y1, x0, x1) -> label stack (L, h, w)`` with ids that are global in the image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Pairs of a truth object and a prediction that share a pixel, in ascending order of the indices."""

    truth: np.ndarray
    """``(n,)`` index into ``Overlap.truth_ids``."""
    prediction: np.ndarray
    """``(n,)`` index into ``Overlap.prediction_ids``."""
    pixels: np.ndarray
    """``(n,)`` size of the intersection, int64."""
    unshared_pixels: np.ndarray
    """``(n,)`` the part of the intersection that no other truth object holds."""
    iou: np.ndarray
    """``(n,)`` intersection over union, float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlap:
    """Truth against prediction, as atoms in canonical order; made by ``overlap`` and its siblings."""

    truth_atoms: np.ndarray
    """``(K, n)`` uint32: ids of the truth objects that hold the atom, descending, 0 = none further."""
    prediction_atoms: np.ndarray
    """``(M, n)`` uint32: the same for the predictions."""
    pixels: np.ndarray
    """``(n,)`` int64: size of the atom. The background is an atom too, so the sum is the size of the image."""

    @cached_property
    def truth_ids(self) -> np.ndarray:
        """Ids of the truth objects, ascending, uint32 ``(n_truth,)``."""
        return _ids(self.truth_atoms)

    @cached_property
    def prediction_ids(self) -> np.ndarray:
        """Ids of the predictions, ascending, uint32 ``(n_prediction,)``."""
        return _ids(self.prediction_atoms)

    @property
    def n_truth(self) -> int:
        """Number of truth objects."""
        return self.truth_ids.size

    @property
    def n_prediction(self) -> int:
        """Number of predictions."""
        return self.prediction_ids.size

    @cached_property
    def truth_areas(self) -> np.ndarray:
        """Pixels of each truth object, int64."""
        return _areas(self.truth_atoms, self.truth_ids, self.pixels)

    @cached_property
    def prediction_areas(self) -> np.ndarray:
        """Pixels of each prediction, int64."""
        return _areas(self.prediction_atoms, self.prediction_ids, self.pixels)

    @cached_property
    def truth_unshared_areas(self) -> np.ndarray:
        """Pixels of each truth object that no other truth object holds, int64."""
        alone = np.where(_held(self.truth_atoms) == 1, self.pixels, 0)
        return _areas(self.truth_atoms, self.truth_ids, alone)

    @cached_property
    def truth_pixels(self) -> int:
        """Pixels that at least one truth object holds."""
        return int(self.pixels[_held(self.truth_atoms) > 0].sum())

    @cached_property
    def prediction_pixels(self) -> int:
        """Pixels that at least one prediction holds."""
        return int(self.pixels[_held(self.prediction_atoms) > 0].sum())

    @cached_property
    def both_pixels(self) -> int:
        """Pixels that a truth object and a prediction hold."""
        both = (_held(self.truth_atoms) > 0) & (_held(self.prediction_atoms) > 0)
        return int(self.pixels[both].sum())

    @cached_property
    def pairs(self) -> Pairs:
        """All pairs that share a pixel."""
        truth, prediction, atom = _meetings(self)
        key = truth * max(self.n_prediction, 1) + prediction
        values, index = np.unique(key, return_inverse=True)
        first, second = np.divmod(values, max(self.n_prediction, 1))
        pixels = _sum_by(index, self.pixels[atom], values.size)
        alone = np.where(_held(self.truth_atoms)[atom] == 1, self.pixels[atom], 0)
        union = self.truth_areas[first] + self.prediction_areas[second] - pixels
        return Pairs(
            truth=first,
            prediction=second,
            pixels=pixels,
            unshared_pixels=_sum_by(index, alone, values.size),
            iou=pixels / union,
        )

    def truth_covered(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of each truth object, unshared and shared, that the chosen pairs cover together.

        ``chosen`` is a mask over ``pairs``; a pixel that two chosen predictions hold counts once.
        """
        truth, prediction, atom = _meetings(self)
        width = max(self.n_prediction, 1)
        pair = np.searchsorted(self.pairs.truth * width + self.pairs.prediction, truth * width + prediction)
        once = np.unique((truth * self.pixels.size + atom)[chosen[pair]])
        truth, atom = np.divmod(once, max(self.pixels.size, 1))
        alone = _held(self.truth_atoms)[atom] == 1
        unshared = _sum_by(truth[alone], self.pixels[atom[alone]], self.n_truth)
        return unshared, _sum_by(truth[~alone], self.pixels[atom[~alone]], self.n_truth)


def overlap(truth: np.ndarray, prediction: np.ndarray) -> Overlap:
    """Intersect two label stacks ``(L, *space)`` of the same space; the numbers of layers may differ.

    Raises:
        BadArgument: the spaces differ, or a stack breaks its law.
    """
    return overlap_of_blocks([(truth, prediction)])


def overlap_of_blocks(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Overlap:
    """Intersect an image that comes as (truth, prediction) blocks which cover it once; ids are global."""
    strips = [_layered_atoms(*strip) for block in blocks for strip in _strips(*block)]
    truth, pixels = _joined([(part[0], part[2]) for part in strips])
    prediction, _ = _joined([(part[1], part[2]) for part in strips])
    # Inside a strip the law was checked already; an id may still change its layer from strip to strip.
    truth, prediction = check_stack(truth, name="truth"), check_stack(prediction, name="prediction")
    return _canonical(truth, prediction, pixels)


def overlap_streamed(
    read_truth: ReadBlock, read_prediction: ReadBlock, shape: tuple[int, int], *, block_px: int = 4096
) -> Overlap:
    """Intersect an image of ``shape`` (y, x) that need not fit into memory, block by block."""
    if block_px < 1:
        raise BadArgument(f"block_px: expected at least 1, got {block_px!r}")
    return overlap_of_blocks(
        (read_truth(*window), read_prediction(*window)) for window in windows(shape, block_px)
    )


def merge(overlaps: Sequence[Overlap]) -> Overlap:
    """Add up the overlaps of disjoint parts of one image; the ids are global in the image."""
    truth, pixels = _joined([(part.truth_atoms, part.pixels) for part in overlaps])
    prediction, _ = _joined([(part.prediction_atoms, part.pixels) for part in overlaps])
    return _canonical(truth, prediction, pixels)


def truth_only(truth: np.ndarray) -> Overlap:
    """Return the overlap of an image for which there is no prediction at all: every object is missed."""
    return overlap(truth, _nothing_beside(truth, "truth"))


def prediction_only(prediction: np.ndarray) -> Overlap:
    """Return the overlap of an image that has a prediction and an empty truth: every object is spurious."""
    return overlap(_nothing_beside(prediction, "prediction"), prediction)


def _nothing_beside(stack: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(stack)
    _check_axes(array, name)
    return np.broadcast_to(np.uint32(0), (1, *array.shape[1:]))


def _check_axes(stack: np.ndarray, name: str) -> None:
    if stack.ndim < 2 or not len(stack):
        raise BadArgument(
            f"{name}: expected shape (L, *space) with at least one layer, got {stack.shape};"
            " use stack[None] for one layer"
        )


def _strips(truth: np.ndarray, prediction: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut a block along its first spatial axis; each strip is (layers, pixels)."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    for stack, name in ((truth, "truth"), (prediction, "prediction")):
        _check_axes(stack, name)
    if truth.shape[1:] != prediction.shape[1:]:
        raise BadArgument(
            f"truth and prediction must cover the same pixels, got shapes {truth.shape} and {prediction.shape}"
            " (L, y, x); crop or resample one of them"
        )
    step = max(1, STRIP_PX // max(1, int(np.prod(truth.shape[2:]))))
    for start in range(0, truth.shape[1], step):
        part = slice(start, start + step)
        yield truth[:, part].reshape(len(truth), -1), prediction[:, part].reshape(len(prediction), -1)


def _layered_atoms(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct (truth ids, prediction ids, pixels) of a strip, ids still by layer."""
    changed = np.zeros(truth.shape[1], bool)
    changed[:1] = True
    for layer in (*truth, *prediction):
        changed[1:] |= layer[1:] != layer[:-1]
    starts = np.flatnonzero(changed)
    lengths = np.diff(starts, append=changed.size)
    # The runs hold every id of the strip on its layer, so the law is checked on them, not on the pixels.
    above = check_stack(truth[:, starts], name="truth")
    below = check_stack(prediction[:, starts], name="prediction")
    columns, pixels = _grouped(np.concatenate([above, below]), lengths)
    return columns[: len(above)], columns[len(above) :], pixels


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate columns of ids; parts with fewer layers get empty ones."""
    depth = max([1, *(len(columns) for columns, _ in parts)])
    padded = [np.pad(columns, ((0, depth - len(columns)), (0, 0))) for columns, _ in parts]
    columns = np.concatenate([np.zeros((depth, 0), np.uint32), *padded], axis=1)
    return columns, np.concatenate([np.zeros(0, np.int64), *[pixels for _, pixels in parts]])


def _canonical(truth: np.ndarray, prediction: np.ndarray, pixels: np.ndarray) -> Overlap:
    """Forget the layers: sort the ids of each atom, drop what is empty, count equal atoms together."""
    truth, prediction = (np.sort(side, axis=0)[::-1] for side in (truth, prediction))
    truth, prediction = (side[side.any(axis=1)] for side in (truth, prediction))
    columns, counts = _grouped(np.concatenate([truth, prediction]), pixels)
    return Overlap(truth_atoms=columns[: len(truth)], prediction_atoms=columns[len(truth) :], pixels=counts)


def _grouped(columns: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct columns in lexicographic order, and the sum of ``pixels`` over each."""
    if not pixels.size:
        return columns, pixels.astype(np.int64)
    key, span = np.zeros(pixels.size, np.int64), 1
    for row in columns:
        code, size = _codes(row)
        if span * size > 2**62:
            values, key = np.unique(key, return_inverse=True)
            span = values.size
        key, span = key * size + code, span * size
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    return columns[:, order[starts]], np.add.reduceat(pixels[order].astype(np.int64), starts)


def _codes(ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Replace ids by their rank; by a table when the ids are dense enough, since sorting costs more."""
    largest = int(ids.max())
    if largest > 8 * ids.size + 4096:
        values, code = np.unique(ids, return_inverse=True)
        return code, values.size
    present = np.zeros(largest + 1, np.int64)
    present[ids] = 1
    rank = np.cumsum(present) - 1
    return rank[ids], int(rank[-1]) + 1


def _meetings(overlap: Overlap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (truth index, prediction index, atom) for each pair of objects in each atom."""
    parts = [np.zeros((3, 0), np.int64)]
    for above in overlap.truth_atoms:
        for below in overlap.prediction_atoms:
            atom = np.flatnonzero((above > 0) & (below > 0))
            truth = np.searchsorted(overlap.truth_ids, above[atom])
            parts.append(np.stack([truth, np.searchsorted(overlap.prediction_ids, below[atom]), atom]))
    truth, prediction, atom = np.concatenate(parts, axis=1)
    return truth, prediction, atom


def _ids(atoms: np.ndarray) -> np.ndarray:
    return np.unique(atoms[atoms > 0])


def _held(atoms: np.ndarray) -> np.ndarray:
    """How many objects of one side hold each atom."""
    return np.count_nonzero(atoms, axis=0)


def _areas(atoms: np.ndarray, ids: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    areas = np.zeros(ids.size, np.int64)
    for row in atoms:
        held = row > 0
        areas += _sum_by(np.searchsorted(ids, row[held]), pixels[held], ids.size)
    return areas


def _sum_by(index: np.ndarray, pixels: np.ndarray, size: int) -> np.ndarray:
    """Sum ``pixels`` by index; exact below 2**53 pixels."""
    return np.bincount(index, weights=pixels, minlength=size).astype(np.int64)
