"""Output layers: objects that share a pixel never share a layer, and nearly everything lands on layer 0."""

import numpy as np

from pipeline.errors import BadArgument

MOST_LAYERS = 255
"""Limit of the depth of an overlap."""


def assign_layers(count: int, pairs: np.ndarray) -> np.ndarray:
    """Give each of ``count`` objects, in the order of their ids, the smallest layer free of its partners.

    Args:
        count: number of objects.
        pairs: ``(n, 2)`` indices of objects that share at least one pixel.

    Returns:
        uint8 layer of each object.

    Raises:
        BadArgument: more than `MOST_LAYERS` would be needed.
    """
    if not len(pairs):
        return np.zeros(count, np.uint8)
    # Only pairs (earlier, later) matter: an object looks at the partners placed before it.
    low, high = np.minimum(pairs[:, 0], pairs[:, 1]), np.maximum(pairs[:, 0], pairs[:, 1])
    order = np.argsort(high, kind="stable")
    later, starts = np.unique(high[order], return_index=True)
    ends = np.append(starts[1:], len(high)).tolist()
    partners, given = low[order].tolist(), [1] * count  # layers as bits: the sets of them are cheap
    for index, start, end in zip(later.tolist(), starts.tolist(), ends):
        taken = 0
        for partner in partners[start:end]:
            taken |= given[partner]
        given[index] = ~taken & (taken + 1)  # the lowest bit that is not taken
    if max(given).bit_length() > MOST_LAYERS:
        raise BadArgument(f"expected at most {MOST_LAYERS} objects over each other, got more; raise min_area")
    return np.fromiter((bit.bit_length() - 1 for bit in given), np.uint8, count)
