"""One annotated image in memory: the value every dataset yields and training, ingest and evaluation take.

The invariant: the truth is a label stack over the pixels of the image, so objects that overlap survive.
Samples are independent of stores, splits and networks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.errors import BadArgument

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image with its truth, where it belongs, and how its channels are called."""

    name: str
    """Unique in its dataset and safe as the name of a file."""
    image: np.ndarray
    """Pixels ``(C, y, x)`` in the dtype they were shipped in."""
    truth: np.ndarray | None
    """Label stack uint32 ``(L, y, x)``; ``None`` where the source has no annotation."""
    group: str
    """Well, slide or image: samples of one group belong to the same side of every split."""
    well: tuple[str, str] | None = None
    """Row and column on the plate, such as ``("A", "1")``, if it comes from one."""
    channels: tuple[str, ...] = ("image",)
    """One name per channel of the image."""
    classes: Mapping[int, str] | None = None
    """Name of the class of each id of the truth; ``None`` where the source has one kind of object."""
    pixel_size_um: float | None = None
    """Edge of a pixel; ``None`` where the source does not say."""

    def __post_init__(self) -> None:
        if not _SAFE.fullmatch(self.name):
            raise BadArgument(
                f"sample name: expected letters, digits, '.', '_' and '-', got {self.name!r}; rename it"
            )
        if self.image.ndim != 3 or len(self.channels) != self.image.shape[0]:
            raise BadArgument(
                f"sample {self.name}: expected an image (C, y, x) with one name per channel, "
                f"got shape {self.image.shape} and channels {self.channels!r}"
            )
        self._check_truth()

    def _check_truth(self) -> None:
        if self.truth is None:
            return
        if self.truth.dtype != np.uint32 or self.truth.ndim != 3:
            raise BadArgument(
                f"sample {self.name}: expected a uint32 label stack (L, y, x), "
                f"got {self.truth.dtype} {self.truth.shape}; see pipeline.stack.stack_from_masks"
            )
        if self.truth.shape[1:] != self.image.shape[1:]:
            raise BadArgument(
                f"sample {self.name}: expected truth and image of one size, "
                f"got {self.truth.shape[1:]} and {self.image.shape[1:]}"
            )
