"""What everything after the network cannot do without: library calls on the same chunks and pixels, no more.

Decoding of image and mask; four reductions over the pixels of objects (sum, sum of squares, minimum, maximum); labels
expanded from their runs by `numpy.repeat`, and encoded. Finding objects, moments, overlaps, links, the table and all
files are left out.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numcodecs import Zstd

from pipeline.spans import spans_of_bits

Read = Callable[[], np.ndarray]


class Clock:
    """Processor seconds of calls by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, call: Callable[..., Any], *words: Any) -> Any:
        """Return the result of a call."""
        started = time.process_time()
        result = call(*words)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started
        return result


def floor(tiles: Iterable[tuple[Read, Read]], labels: Sequence[bytes]) -> dict[str, float]:
    """Processor seconds of the library calls, by what they do, and their sum.

    Args:
        tiles: for each tile, how to read its image ``(1, y, x)`` and its mask of layers ``(y, x)``.
        labels: encoded chunks of all label images and their pyramids.
    """
    clock = Clock()
    for read_image, read_mask in tiles:
        image, mask = clock.timed("decode", read_image)[0], clock.timed("decode", read_mask)
        _reduce(clock, image, mask)
    for chunk in labels:
        _expand(clock, np.frombuffer(Zstd().decode(chunk), "<u4"))
    seconds = {name: round(value, 2) for name, value in clock.seconds.items()}
    return seconds | {"sum": round(sum(clock.seconds.values()), 2)}


def _reduce(clock: Clock, image: np.ndarray, mask: np.ndarray) -> None:
    """Reduce the covered pixels of a tile, packed beforehand, over stretches without a change of layers."""
    spans, stretches = spans_of_bits(mask)
    covered = np.zeros(len(stretches.starts), bool)
    covered[spans.stretch] = True
    packed = image.reshape(-1)[np.repeat(covered, stretches.lengths)]
    starts = np.append(0, np.cumsum(stretches.lengths[covered]))[:-1]
    wide = packed.astype(np.int64)
    for reducer, values in ((np.add, wide), (np.add, wide), (np.minimum, packed), (np.maximum, packed)):
        clock.timed("reduce", reducer.reduceat, values, starts)


def _expand(clock: Clock, ids: np.ndarray) -> None:
    """Expand the runs of a chunk of labels into pixels and encode them."""
    first = np.append(0, np.flatnonzero(ids[1:] != ids[:-1]) + 1)
    painted = clock.timed("expand", np.repeat, ids[first], np.diff(first, append=len(ids)))
    clock.timed("encode", Zstd(level=0).encode, painted)
