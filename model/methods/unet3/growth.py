"""Growth of cores into a region without ever joining two of them: thinning of what lies between.

A pixel joins the cores if it is *simple*: its eight neighbours show that it neither connects two parts of the cores nor
closes a gap between them (Yokoi, Toriwaki and Fukumura 1975). Pixels are taken in parallel, those at the upper, lower,
left and right border of the cores in turn, which keeps the topology (Rosenfeld 1975). What a step does at a pixel
depends on its neighbours only, so the result is the same in any tile that is seen 4 px further per step.
"""

import numpy as np


def _simple() -> np.ndarray:
    """Return for each set of neighbours that are not core (bit k: neighbour k) whether the pixel is simple.

    Neighbours are numbered along the circle from the right one; the rest is 4-connected and the cores are 8-connected:
    exactly one 4-connected run of the rest may meet the pixel.
    """
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    runs = sum(bits[:, k] * (1 - bits[:, k + 1] * bits[:, (k + 2) % 8]) for k in (0, 2, 4, 6))
    return np.asarray(runs == 1)


SIMPLE = _simple()


def grown(cores: np.ndarray, within: np.ndarray, steps: int) -> np.ndarray:
    """Return bool ``(y, x)``: the cores, grown by up to ``steps`` px into ``within``.

    Different 8-connected components of ``cores`` stay different: a 4-connected line of pixels remains between them.
    Outside the image there is no core.
    """
    rest = np.pad(~cores, 1, constant_values=True)
    width = rest.shape[1]
    rest, free = rest.ravel(), np.flatnonzero(np.pad(within & ~cores, 1))
    circle = np.array([1, 1 - width, -width, -1 - width, -1, width - 1, width, width + 1])
    for _ in range(steps):
        for side in (-width, width, -1, 1):
            at_border = free[~rest[free + side]]
            code = np.zeros(len(at_border), np.uint8)
            for bit, offset in enumerate(circle):
                code |= rest[at_border + offset].astype(np.uint8) << bit
            rest[at_border[SIMPLE[code]]] = False
        free = free[rest[free]]
    return ~rest.reshape(-1, width)[1:-1, 1:-1]
