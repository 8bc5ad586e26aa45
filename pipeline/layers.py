"""Output layers: objects that share a pixel never share a layer, and nearly everything lands on layer 0."""

import numpy as np


def assign_layers(count: int, pairs: np.ndarray) -> np.ndarray:
    """Give each of ``count`` objects, in the order of their ids, the smallest layer free of its partners.

    Args:
        count: number of objects.
        pairs: ``(n, 2)`` indices of objects that share at least one pixel.

    Returns:
        uint8 layer of each object; 255 layers are the limit of the depth of an overlap.
    """
    layers = np.zeros(count, np.uint8)
    if not len(pairs):
        return layers
    # Only pairs (earlier, later) matter: an object looks at the partners placed before it.
    low, high = np.minimum(pairs[:, 0], pairs[:, 1]), np.maximum(pairs[:, 0], pairs[:, 1])
    order = np.argsort(high, kind="stable")
    later, starts = np.unique(high[order], return_index=True)
    ends = np.append(starts[1:], len(high)).tolist()
    partners, given = low[order].tolist(), [0] * count
    for index, start, end in zip(later.tolist(), starts.tolist(), ends):
        taken = 0
        for partner in partners[start:end]:
            taken |= 1 << given[partner]
        given[index] = (~taken & (taken + 1)).bit_length() - 1  # the lowest layer that is not taken
    return np.array(given, np.uint8)
