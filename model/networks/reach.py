"""The receptive field of a network: intervals of input pixels followed through its layers.

A span is the exact interval of input pixels that a value depends on when no weight is zero, along one axis (all kernels
are square). Each network calls the functions of its layers in turn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MARGIN_STRIDES = 40
"""Total strides simulated to each side of the measured one; more than the reach of any network here."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """First and last input pixel that each cell of a map depends on, along one axis."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def reach(cls, follow: "Callable[[Span], Span]", *, stride: int) -> int:
        """Return the farthest pixel to either side that any phase of the total stride depends on."""
        pixels = np.arange((2 * MARGIN_STRIDES + 1) * stride)
        seen = follow(cls(low=pixels, high=pixels))
        middle = slice(MARGIN_STRIDES * stride, (MARGIN_STRIDES + 1) * stride)
        return int(max((pixels - seen.low)[middle].max(), (seen.high - pixels)[middle].max()))

    def convolve(self, radius: int) -> "Span":
        """A convolution of ``2 * radius + 1`` cells, zero padded."""
        low, high = np.pad(self.low, radius, mode="edge"), np.pad(self.high, radius, mode="edge")
        count = len(self.low)
        windows = range(2 * radius + 1)
        return Span(
            low=np.min([low[offset : offset + count] for offset in windows], axis=0),
            high=np.max([high[offset : offset + count] for offset in windows], axis=0),
        )

    def pool(self, size: int) -> "Span":
        """A pooling, or the folding of pixels into channels: ``size`` cells become one."""
        return Span(low=self.low.reshape(-1, size).min(1), high=self.high.reshape(-1, size).max(1))

    def unfold(self, size: int) -> "Span":
        """The unfolding of channels into pixels: one cell becomes ``size`` cells."""
        return Span(low=np.repeat(self.low, size), high=np.repeat(self.high, size))

    def bilinear(self) -> "Span":
        """Bilinear up-sampling by two with half-pixel centres: each cell reads its own and one neighbour."""
        before, after = np.maximum(np.arange(len(self.low)) - 1, 0), np.arange(len(self.low))
        later = np.minimum(after + 1, len(self.low) - 1)
        low = np.stack([self.low[before], self.low], axis=1).ravel()
        high = np.stack([self.high, self.high[later]], axis=1).ravel()
        return Span(low=low, high=high)

    def join(self, other: "Span") -> "Span":
        """Two maps side by side: a value depends on both."""
        return Span(low=np.minimum(self.low, other.low), high=np.maximum(self.high, other.high))
