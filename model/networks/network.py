"""The attributes and methods that every network of this package has.

Invariant: the outputs at a pixel depend on the input pixels within ``halo_px`` of it only, as long as tiles begin at
multiples of ``stride``.
"""

from abc import abstractmethod
from typing import Any, Protocol

from torch import nn


class Shape(Protocol):
    """The numbers that define a network: a frozen dataclass of plain values, kept as ``network`` in a card."""

    @property
    def channels(self) -> int:
        """Number of input channels."""

    @property
    def stride(self) -> int:
        """Total stride in pixels: image sizes, tile origins and halos are multiples of it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values that the class takes as keywords."""


class Network(nn.Module):
    """A torch module that is built from a `Shape` and knows its receptive field and the memory it needs."""

    shape: Any
    """The `Shape` it was built from."""

    @property
    def stride(self) -> int:
        """Total stride in pixels."""
        return int(self.shape.stride)

    @property
    @abstractmethod
    def halo_px(self) -> int:
        """Largest distance in pixels, along an axis, between an output and an input it depends on."""

    @property
    @abstractmethod
    def bytes_per_px(self) -> int:
        """Upper bound of the bytes a forward pass in float32 holds at its peak, per pixel of the block."""
