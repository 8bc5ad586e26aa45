"""Classes of objects, kept in their ids: the id of an object is its class times ``CLASS_STEP`` plus a number.

Only methods that tell classes apart see such ids: in the stacks they learn from, and in what they answer to a tile.
"""

import numpy as np

CLASS_STEP = 1 << 24
"""More than the objects of any image in memory; 127 classes fit a signed integer of 32 bits."""


def class_of(ids: np.ndarray) -> np.ndarray:
    """Return the class of each id, from 1; 0 for ids without a class."""
    return np.asarray(ids, np.int64) // CLASS_STEP


def with_classes(stack: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return a label stack with the classes in its ids, uint32; ``classes``: int of the objects 1, 2, ..., from 1."""
    offsets = np.concatenate([[0], np.asarray(classes, np.int64) * CLASS_STEP])
    coded: np.ndarray = (stack + offsets[stack]).astype(np.uint32)
    return coded


def without_classes(stack: np.ndarray) -> np.ndarray:
    """Return a label stack with ids 1, 2, ... and no classes, in the order of its ids."""
    ids, dense = np.unique(stack, return_inverse=True)
    plain: np.ndarray = (dense.reshape(stack.shape) + int(ids[0] != 0)).astype(np.uint32)
    return plain
