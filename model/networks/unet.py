"""U-Net with one head per output: S, M and L of the layering paper, and a fast one that works at half resolution.

Every output pixel is a function of the input pixels within ``halo_px`` only (no global pooling, no instance norm), so
that tiles with that halo give the same as the whole image.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from model.networks.network import Network, check_counts, glorot
from model.networks.receptive_field import ReceptiveField


@dataclass(frozen=True, kw_only=True)
class UNetShape:
    """All numbers that define a U-Net, as written in a checkpoint's card."""

    channels: int = 1
    """Input channels."""
    heads: Mapping[str, int] = field(default_factory=lambda: {"layers": 8, "foreground": 1})
    """Output maps of each head, by name."""
    width: int = 64
    """Feature maps of the first level; every level has twice as many as the one above."""
    poolings: int = 5
    """Poolings by two: 3, 4, 5 in the paper's S, M, L."""
    head_width: int = 64
    """Feature maps inside a head."""
    head_convs: int = 2
    """3x3 convolutions inside a head."""
    fold: int = 1
    """Edge of the block of pixels that is folded into channels at the input and unfolded at the output."""
    order: Literal["relu-norm", "norm-relu"] = "relu-norm"
    """Batch norm after ReLU as in the paper, or before it, where it can be folded into the convolution."""

    def __post_init__(self) -> None:
        check_counts(self, "channels", "width", "head_width", "fold")
        if self.poolings < 0 or self.head_convs < 0:
            raise ValueError(
                f"network: expected poolings and head_convs of 0 or more, "
                f"got {self.poolings!r} and {self.head_convs!r}"
            )
        if not self.heads or min(self.heads.values()) < 1:
            raise ValueError(f"network heads: expected names with at least one map each, got {self.heads!r}")
        if self.order not in ("relu-norm", "norm-relu"):
            raise ValueError(f"network order: expected 'relu-norm' or 'norm-relu', got {self.order!r}")

    @property
    def stride(self) -> int:
        """Total stride in pixels: image sizes, tile origins and halos are multiples of it."""
        return self.fold * 2**self.poolings

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a card."""
        return asdict(self) | {"heads": dict(self.heads)}


class Block(nn.Sequential):
    """One convolution with ReLU and batch norm; ``same`` zero padding."""

    def __init__(self, inputs: int, outputs: int, *, order: str, kernel: int = 3) -> None:
        norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        rest = (nn.ReLU(), norm) if order == "relu-norm" else (norm, nn.ReLU())
        super().__init__(convolution, *rest)


class UNet(Network):
    """The network of a ``UNetShape``: images ``(B, C, y, x)`` to logits ``{head: (B, maps, y, x)}``."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self.shape: UNetShape = shape
        widths = [shape.width * 2**level for level in range(shape.poolings + 1)]
        inputs = [shape.channels * shape.fold**2, *widths[:-1]]
        order = shape.order
        self.down = nn.ModuleList(_pair(i, o, order) for i, o in zip(inputs, widths, strict=True))
        steps = list(zip(widths[1:], widths[:-1], strict=True))
        self.reduce = nn.ModuleList(Block(deep, flat, order=order, kernel=1) for deep, flat in steps)
        self.up = nn.ModuleList(_pair(2 * flat, flat, order) for _, flat in steps)
        self.heads = nn.ModuleDict(
            {name: _head(shape, maps * shape.fold**2) for name, maps in shape.heads.items()}
        )
        self.apply(glorot)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits of every head; height and width must be multiples of the total stride."""
        return self.read(self.features(images)[1])

    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the deepest map of the encoder and the map that the decoder ends with."""
        self.check_images(images)
        maps, skipped = functional.pixel_unshuffle(images, self.shape.fold), []
        for level, block in enumerate(self.down):
            maps = block(maps if level == 0 else functional.max_pool2d(maps, 2))
            skipped.append(maps)
        for level in reversed(range(self.shape.poolings)):
            maps = functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
            maps = torch.cat([skipped[level], self.reduce[level](maps)], dim=1)
            maps = self.up[level](maps)
        return skipped[-1], maps

    def read(self, maps: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits of every head at full resolution, from the map that the decoder ends with."""
        return {
            name: functional.pixel_shuffle(head(maps), self.shape.fold) for name, head in self.heads.items()
        }

    @property
    def halo_px(self) -> int:
        """Largest distance between an output and an input it depends on, from the arithmetic of the layers."""
        return ReceptiveField.radius_of(self.receptive_field, stride=self.stride)

    @property
    def bytes_per_px(self) -> int:
        """Eight float maps of the widest level, and logits, probabilities and masks of every head.

        Measured peaks are 0.55 to 0.9 of it.
        """
        shape = self.shape
        inside = 8 * max(shape.width, shape.head_width) / shape.fold**2
        return int(4 * (inside + 4 * sum(shape.heads.values()) + shape.channels))

    def receptive_field(self, field: ReceptiveField) -> ReceptiveField:
        """Follow which input pixels a value depends on through the layers of ``forward``."""
        maps, skipped = field.pool(self.shape.fold), []
        for level in range(self.shape.poolings + 1):
            maps = (maps if level == 0 else maps.pool(2)).convolve(1).convolve(1)
            skipped.append(maps)
        for level in reversed(range(self.shape.poolings)):
            maps = maps.bilinear().join(skipped[level]).convolve(1).convolve(1)
        for _ in range(self.shape.head_convs):
            maps = maps.convolve(1)
        return maps.unfold(self.shape.fold)


def _pair(inputs: int, outputs: int, order: str) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, order=order), Block(outputs, outputs, order=order))


def _head(shape: UNetShape, maps: int) -> nn.Sequential:
    widths = [shape.width] + [shape.head_width] * shape.head_convs
    blocks = [Block(i, o, order=shape.order) for i, o in zip(widths[:-1], widths[1:], strict=True)]
    return nn.Sequential(*blocks, nn.Conv2d(widths[-1], maps, 1))


def house(*, channels: int = 1, layers: int = 8, width: int = 16) -> UNetShape:
    """Return the half-resolution network of the house recipe: 4 poolings, total stride 32."""
    return UNetShape(
        channels=channels,
        heads={"layers": layers, "foreground": 1},
        width=width,
        poolings=4,
        head_width=width,
        head_convs=1,
        fold=2,
        order="norm-relu",
    )
