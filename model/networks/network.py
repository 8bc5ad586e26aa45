"""The attributes and methods that every network of this package has.

Invariant: the outputs at a pixel depend on the input pixels within ``halo_px`` of it only, as long as tiles begin at
multiples of ``stride``.
"""

from abc import abstractmethod
from typing import Any, Protocol

import torch
from torch import nn


def check_counts(shape: Any, *names: str) -> None:
    """Raise ``ValueError`` unless the named fields of a `Shape` are at least 1."""
    for name in names:
        if getattr(shape, name) < 1:
            raise ValueError(f"network {name}: expected at least 1, got {getattr(shape, name)!r}")


def glorot(module: nn.Module) -> None:
    """Set Glorot-uniform kernels and zero biases in a convolution, the defaults of the framework the paper used."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


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

    def check_images(self, images: torch.Tensor) -> None:
        """Raise ``ValueError`` unless images ``(B, C, y, x)`` have the channels of the network and fit its stride."""
        if images.ndim != 4 or images.shape[1] != self.shape.channels:
            raise ValueError(
                f"network: expected images (B, {self.shape.channels}, y, x), got {tuple(images.shape)}; "
                "choose the channels the network was built for"
            )
        if images.shape[2] % self.stride or images.shape[3] % self.stride:
            raise ValueError(
                f"network: expected height and width in multiples of {self.stride}, got {tuple(images.shape[2:])}; "
                "pad at the bottom and right"
            )
