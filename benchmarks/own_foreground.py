"""The foreground of a method's own network, cut into plain components: what its decoding has to be better than.

Methods with a map ``foreground`` are read at the threshold whose components are best on the images that choose their
other settings; for DCME the pixels that vote are the foreground.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.method import Method
from model.methods.dcme import VECTORS, Dcme
from model.methods.dcme.decode import cast_votes
from model.methods.unet2 import UNet2
from model.stacking import components

Outputs = Mapping[str, np.ndarray]
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Foreground probabilities to try."""


@dataclass(frozen=True, kw_only=True)
class OwnForeground:
    """A foreground that is cut into 8-connected components."""

    method: Method
    threshold: float | None
    """Foreground probability; ``None`` for pixels that vote."""

    def objects(self, outputs: Outputs, shape: tuple[int, int]) -> np.ndarray:
        """Return the components of one image that have the method's ``min_area``, as a label stack ``(1, y, x)``."""
        if self.threshold is None:
            mask = _voting(outputs[VECTORS][:, : shape[0], : shape[1]])
        else:
            mask = outputs["foreground"][0, : shape[0], : shape[1]] > self.threshold
        return components(mask[None], min_area=self.method.min_area)


def own_foreground(
    method: Method,
    watched: Sequence[tuple[Outputs, np.ndarray]],
    score: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], float],
) -> OwnForeground | None:
    """Return the foreground whose components are best on some images; ``None`` where a method has none or is just that.

    ``watched``: outputs and true label stack of each image. ``score``: of predicted and true label stacks.
    """
    if isinstance(method, UNet2) or not watched:
        return None
    if not isinstance(method, Dcme) and "foreground" not in watched[0][0]:
        return None
    thresholds: tuple[float | None, ...] = (None,) if isinstance(method, Dcme) else THRESHOLDS
    truths = [truth for _, truth in watched]

    def reached(own: OwnForeground) -> float:
        return score([own.objects(outputs, truth.shape[1:]) for outputs, truth in watched], truths)

    return max((OwnForeground(method=method, threshold=one) for one in thresholds), key=reached)


def plain_scores(summary: Mapping[str, Any], owns: Sequence[OwnForeground]) -> dict[str, Any]:
    """Return the entry ``components`` of a row: its scores, and the threshold of each fold."""
    names = ("meanAP", "AJI")
    return {name: summary[name] for name in names} | {
        "author": {name: summary["author"][name] for name in names},
        "thresholds": [own.threshold for own in owns],
    }


def _voting(vectors: np.ndarray) -> np.ndarray:
    mask = np.zeros(vectors.shape[1:], bool)
    mask.flat[cast_votes(vectors).pixels] = True
    return mask
