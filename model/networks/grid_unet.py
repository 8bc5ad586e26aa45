"""U-Net whose encoder also classifies the blocks of a grid: one network for DCME's vectors and classes.

The head ``grid`` reads the deepest map of the encoder, one cell per block of ``stride`` x ``stride`` pixels
(Watanabe and Wolf 2019, equations 1 and 2); every other head reads the decoder at full resolution.
"""

from dataclasses import replace

import torch
from torch import nn

from model.networks.network import Network
from model.networks.receptive_field import ReceptiveField
from model.networks.unet import Block, UNet, UNetShape

GRID = "grid"
"""Name of the head that reads the encoder."""


class GridUNet(Network):
    """Images ``(B, C, y, x)`` to ``grid`` ``(B, classes, y / stride, x / stride)`` and full-resolution heads."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self.shape: UNetShape = shape
        pixel_heads = {name: maps for name, maps in shape.heads.items() if name != GRID}
        self.unet = UNet(replace(shape, heads=pixel_heads))
        deepest = shape.width * 2**shape.poolings
        self.grid = nn.Sequential(
            Block(deepest, shape.head_width, order=shape.order, kernel=1),
            nn.Conv2d(shape.head_width, shape.heads[GRID], 1),
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the values of every head; height and width must be multiples of the total stride."""
        deepest, maps = self.unet.features(images)
        return self.unet.read(maps) | {GRID: self.grid(deepest)}

    @property
    def halo_px(self) -> int:
        """Pixels that any output depends on to each side at most."""
        return ReceptiveField.radius_of(self.receptive_field, stride=self.stride)

    @property
    def bytes_per_px(self) -> int:
        """Bytes per pixel: those of the U-Net; the grid has a cell per block and adds less than a map."""
        return self.unet.bytes_per_px + 4

    def receptive_field(self, field: ReceptiveField) -> ReceptiveField:
        """Follow which input pixels the outputs depend on; a cell of the grid counts for each of its pixels."""
        deepest = field.pool(self.shape.fold)
        for level in range(self.shape.poolings + 1):
            deepest = (deepest if level == 0 else deepest.pool(2)).convolve(1).convolve(1)
        return self.unet.receptive_field(field).join(deepest.unfold(self.stride))
