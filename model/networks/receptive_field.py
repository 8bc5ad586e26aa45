"""The receptive field of a network: intervals of input pixels followed through its layers.

The receptive field of a value is the exact interval of input pixels that it depends on when no weight is zero, along
one axis (all kernels are square). Each network applies the methods that correspond to its layers in turn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MARGIN_STRIDES = 40
"""Total strides simulated to each side of the measured one; more than the receptive field of any network here."""


@dataclass(frozen=True, kw_only=True)
class ReceptiveField:
    """First and last input pixel that each cell of a map depends on, along one axis."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def radius_of(cls, follow: "Callable[[ReceptiveField], ReceptiveField]", *, stride: int) -> int:
        """Return the largest distance in px to a pixel of the receptive field, over all phases of the stride."""
        pixels = np.arange((2 * MARGIN_STRIDES + 1) * stride)
        fields = follow(cls(low=pixels, high=pixels))
        middle = slice(MARGIN_STRIDES * stride, (MARGIN_STRIDES + 1) * stride)
        return int(max((pixels - fields.low)[middle].max(), (fields.high - pixels)[middle].max()))

    def convolve(self, radius: int) -> "ReceptiveField":
        """A convolution of ``2 * radius + 1`` cells, zero padded."""
        low, high = np.pad(self.low, radius, mode="edge"), np.pad(self.high, radius, mode="edge")
        count = len(self.low)
        windows = range(2 * radius + 1)
        return ReceptiveField(
            low=np.min([low[offset : offset + count] for offset in windows], axis=0),
            high=np.max([high[offset : offset + count] for offset in windows], axis=0),
        )

    def pool(self, size: int) -> "ReceptiveField":
        """A pooling, or the folding of pixels into channels: ``size`` cells become one."""
        return ReceptiveField(low=self.low.reshape(-1, size).min(1), high=self.high.reshape(-1, size).max(1))

    def unfold(self, size: int) -> "ReceptiveField":
        """The unfolding of channels into pixels: one cell becomes ``size`` cells."""
        return ReceptiveField(low=np.repeat(self.low, size), high=np.repeat(self.high, size))

    def bilinear(self) -> "ReceptiveField":
        """Bilinear up-sampling by two with half-pixel centres: each cell depends on two cells."""
        before, after = np.maximum(np.arange(len(self.low)) - 1, 0), np.arange(len(self.low))
        later = np.minimum(after + 1, len(self.low) - 1)
        low = np.stack([self.low[before], self.low], axis=1).ravel()
        high = np.stack([self.high, self.high[later]], axis=1).ravel()
        return ReceptiveField(low=low, high=high)

    def join(self, other: "ReceptiveField") -> "ReceptiveField":
        """Two maps concatenated along channels: a value depends on both."""
        return ReceptiveField(low=np.minimum(self.low, other.low), high=np.maximum(self.high, other.high))
