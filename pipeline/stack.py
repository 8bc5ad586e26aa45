"""The label stack: the value that the network side and the pipeline side exchange.

A stack is an integer array of shape ``(L, *space)``; 0 is background. An id occurs in exactly one layer, so objects
that overlap are in different layers, and nearly all objects are on layer 0. ``L = 1`` is an ordinary label image.
Stacks are checked once, where they enter the pipeline.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.errors import BadArgument

MAX_ID = np.iinfo(np.uint32).max
"""Largest id a label image holds."""


def check_stack(stack: np.ndarray, *, name: str = "label stack") -> np.ndarray:
    """Return ``stack`` as uint32 after checking that it is a label stack.

    Args:
        stack: integer array ``(L, *space)``, at least one layer and one spatial axis.
        name: name of the stack in error messages.

    Raises:
        BadArgument: not an integer array, too few axes, a negative id, an id beyond uint32, an id on two layers.
    """
    array = np.asarray(stack)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.integer):
        raise BadArgument(f"{name}: expected integer ids, got dtype {array.dtype}; convert to uint32 first")
    if array.ndim < 2:
        raise BadArgument(
            f"{name}: expected shape (L, *space), got {array.shape}; use stack[None] for one layer"
        )
    if array.size and int(array.min()) < 0:
        raise BadArgument(f"{name}: ids must be 0 (empty) or positive, got {int(array.min())}")
    if array.size and int(array.max()) > MAX_ID:
        raise BadArgument(f"{name}: ids must fit uint32, got {int(array.max())}; renumber the objects")
    present = [np.unique(layer[layer > 0]) for layer in array]
    ids, counts = np.unique(np.concatenate(present), return_counts=True)
    if (counts > 1).any():
        twice = int(ids[counts > 1][0])
        raise BadArgument(f"{name}: an id must live in one layer only, but id {twice} is on {counts.max()}")
    return array.astype(np.uint32, copy=False)


def stack_from_masks(masks: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Stack boolean masks into as few layers as greedy placement in the given order needs.

    Mask ``i`` gets id ``i + 1`` on the first layer where it meets no other object; empty masks keep their
    number but leave no pixel. Returns uint32 ``(L, *shape)`` with ``L >= 1``.
    """
    layers = [np.zeros(shape, np.uint32)]
    for label, mask in enumerate(masks, start=1):
        if mask.shape != tuple(shape):
            raise BadArgument(f"mask {label}: expected shape {tuple(shape)}, got {mask.shape}")
        free = next((layer for layer in layers if not layer[mask].any()), None)
        if free is None:
            free = np.zeros(shape, np.uint32)
            layers.append(free)
        free[mask] = label
    return np.stack(layers)


def masks_of(stack: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield ``(id, boolean mask)`` of every object, in ascending order of id (for small images)."""
    places = {int(label): layer for layer in stack for label in np.unique(layer) if label}
    for label in sorted(places):
        yield label, places[label] == label


MOST_LAYERS = 255
"""Upper limit of the objects that may overlap at a pixel."""


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
    # Pairs are ordered (earlier, later): an object avoids the layers of the partners placed before it.
    low, high = np.minimum(pairs[:, 0], pairs[:, 1]), np.maximum(pairs[:, 0], pairs[:, 1])
    order = np.argsort(high, kind="stable")
    later, starts = np.unique(high[order], return_index=True)
    ends = np.append(starts[1:], len(high)).tolist()
    partners, given = low[order].tolist(), [1] * count  # A set of layers is an integer with a bit per layer.
    for index, start, end in zip(later.tolist(), starts.tolist(), ends):
        occupied = 0
        for partner in partners[start:end]:
            occupied |= given[partner]
        given[index] = ~occupied & (occupied + 1)  # The lowest free bit.
    if max(given).bit_length() > MOST_LAYERS:
        raise BadArgument(f"expected at most {MOST_LAYERS} objects over each other, got more; raise min_area")
    return np.fromiter((bit.bit_length() - 1 for bit in given), np.uint8, count)
