"""The network of StarDist: a U-Net that works on a grid, with object probability and distances along rays.

Two convolutions and a pooling bring the image to the grid; a U-Net of nearest up-sampling without batch norm and
a 3x3 convolution follow, and two 1x1 heads (Schmidt et al. 2018). It knows no loss.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from model.networks.network import Network, check_counts, glorot
from model.networks.receptive_field import ReceptiveField


@dataclass(frozen=True, kw_only=True)
class StarShape:
    """All numbers that define a StarDist network, as written in a checkpoint's card."""

    channels: int = 1
    """Input channels."""
    rays: int = 32
    """Directions along which the distance to the outline is predicted."""
    grid: int = 2
    """Edge of the block of pixels that has one prediction: 1, 2, 4, ..."""
    width: int = 32
    """Feature maps of the first level; every level has twice as many as the one above."""
    poolings: int = 3
    """Poolings by two after the grid."""
    head_width: int = 128
    """Feature maps of the convolution before the heads."""

    def __post_init__(self) -> None:
        check_counts(self, "channels", "grid", "width", "head_width")
        if self.rays < 3 or self.poolings < 1 or self.grid & (self.grid - 1):
            raise ValueError(
                "network: expected 3 or more rays, 1 or more poolings and a grid that is a power of two, "
                f"got {self.rays!r}, {self.poolings!r}, {self.grid!r}"
            )

    @property
    def stride(self) -> int:
        """Total stride in pixels: image sizes, tile origins and halos are multiples of it."""
        return self.grid * 2**self.poolings

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a card."""
        return asdict(self)


class StarUNet(Network):
    """Images ``(B, C, y, x)`` to logits ``probability`` ``(B, 1, y / grid, x / grid)`` and ``distances`` (rays)."""

    def __init__(self, shape: StarShape) -> None:
        super().__init__()
        self.shape: StarShape = shape
        halvings = shape.grid.bit_length() - 1
        inputs = [shape.channels] + [shape.width] * halvings
        self.to_grid = nn.ModuleList(_convolutions(i, shape.width, shape.width) for i in inputs[:-1])
        widths = [shape.width * 2**level for level in range(shape.poolings)]
        self.down = nn.ModuleList(
            _convolutions(i, o, o) for i, o in zip([inputs[-1], *widths[:-1]], widths, strict=True)
        )
        self.middle = _convolutions(widths[-1], widths[-1] * 2, widths[-1])
        narrower = [widths[0], *widths[:-1]]
        self.up = nn.ModuleList(
            _convolutions(2 * width, width, less) for width, less in zip(widths, narrower, strict=True)
        )
        self.features = _convolutions(widths[0], shape.head_width)
        self.probability = nn.Conv2d(shape.head_width, 1, 1)
        self.distances = nn.Conv2d(shape.head_width, shape.rays, 1)
        self.apply(glorot)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the values of both heads; height and width must be multiples of the total stride."""
        self.check_images(images)
        maps, skipped = images, []
        for block in self.to_grid:
            maps = functional.max_pool2d(block(maps), 2)
        for block in self.down:
            maps = block(maps)
            skipped.append(maps)
            maps = functional.max_pool2d(maps, 2)
        maps = self.middle(maps)
        for block, skip in zip(reversed(self.up), reversed(skipped), strict=True):
            maps = block(torch.cat([functional.interpolate(maps, scale_factor=2), skip], dim=1))
        maps = self.features(maps)
        return {"probability": self.probability(maps), "distances": self.distances(maps)}

    @property
    def halo_px(self) -> int:
        """Pixels that an output depends on to each side at most, from the arithmetic of its layers."""
        return ReceptiveField.radius_of(self.receptive_field, stride=self.stride)

    @property
    def bytes_per_px(self) -> int:
        """Bytes per pixel: eight float maps of the first level at full resolution, and the heads on the grid."""
        shape = self.shape
        on_grid = 3 * shape.head_width + 3 * (shape.rays + 1)
        return int(4 * (8 * shape.width + on_grid / shape.grid**2 + shape.channels))

    def receptive_field(self, field: ReceptiveField) -> ReceptiveField:
        """Follow which input pixels a value depends on through the layers of ``forward``."""
        skipped = []
        for _ in self.to_grid:
            field = field.convolve(1).convolve(1).pool(2)
        for _ in self.down:
            field = field.convolve(1).convolve(1)
            skipped.append(field)
            field = field.pool(2)
        field = field.convolve(1).convolve(1)
        for skip in reversed(skipped):
            field = field.unfold(2).join(skip).convolve(1).convolve(1)
        return field.convolve(1).unfold(self.shape.grid)


def _convolutions(inputs: int, *widths: int) -> nn.Sequential:
    """3x3 convolutions of the given widths, each with a ReLU."""
    layers: list[nn.Module] = []
    for i, o in zip([inputs, *widths[:-1]], widths, strict=True):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)
