"""The residual U-Net of the pixel-embedded affinity method, with an embedding head at every resolution.

Two things differ from the authors' network: bilinear up-sampling has half-pixel centres, because with aligned corners
its weights depend on the size of the image, and tiles would not agree with the whole; and sizes must fit the stride.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from model.networks.network import Network, check_counts
from model.networks.receptive_field import ReceptiveField


@dataclass(frozen=True, kw_only=True)
class ResUNetShape:
    """All numbers that define a residual U-Net."""

    channels: int = 1
    """Input channels."""
    width: int = 16
    """Feature maps of the first level; every level has twice as many as the one above."""
    levels: int = 4
    """Poolings by two."""
    embedding: int = 16
    """Channels of the embeddings."""

    def __post_init__(self) -> None:
        check_counts(self, "channels", "width", "levels", "embedding")

    @property
    def stride(self) -> int:
        """Total stride in pixels."""
        return int(2**self.levels)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a card."""
        return asdict(self)


class Residual(nn.Module):
    """Two convolutions with batch norm beside a projection by a third: ``relu(body(x) + projection(x))``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
        )
        self.projection = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps ``(B, outputs, y, x)`` of the same size."""
        return functional.relu(self.body(maps) + self.projection(maps))


class ResUNet(Network):
    """Images ``(B, C, y, x)`` to embeddings at every resolution and foreground logits.

    Keys of the answer: ``embedding1`` at full resolution, ``embedding2`` at a half, and so on by the factor, each
    ``(B, embedding, y / factor, x / factor)``; ``foreground`` ``(B, 2, y, x)``: background and foreground.
    """

    def __init__(self, shape: ResUNetShape) -> None:
        super().__init__()
        self.shape: ResUNetShape = shape
        widths = [shape.width * 2**level for level in range(shape.levels + 1)]
        self.entry = Residual(shape.channels, widths[0])
        self.down = nn.ModuleList(Residual(i, o) for i, o in zip(widths[:-1], widths[1:], strict=True))
        outputs = list(reversed(widths[1:]))
        inputs = [widths[-1], *(out + skip for out, skip in zip(outputs[:-1], outputs[1:], strict=True))]
        self.up = nn.ModuleList(Residual(i, o) for i, o in zip(inputs, outputs, strict=True))
        self.embeddings = nn.ModuleList(nn.Conv2d(w, shape.embedding, 1) for w in (widths[-1], *outputs))
        last = outputs[-1]
        self.foreground = nn.Sequential(
            nn.Conv2d(last, last, 1), nn.BatchNorm2d(last), nn.ReLU(), nn.Conv2d(last, 2, 1)
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return embeddings and foreground logits; height and width must be multiples of the stride."""
        maps, pooled = self.entry(images), []
        for block in self.down:
            maps = functional.max_pool2d(block(maps), 2)
            pooled.append(maps)
        factor, answer = self.stride, {}
        answer[f"embedding{factor}"] = self.embeddings[0](pooled.pop())
        for block, head in zip(self.up, self.embeddings[1:], strict=True):
            maps = block(functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False))
            factor //= 2
            answer[f"embedding{factor}"] = head(maps)
            if pooled:
                maps = torch.cat([maps, pooled.pop()], dim=1)
        answer["foreground"] = self.foreground(maps)
        return answer

    @property
    def halo_px(self) -> int:
        """Largest distance between an output and an input it depends on, from the arithmetic of the layers."""
        return ReceptiveField.radius_of(self.receptive_field, stride=self.stride)

    @property
    def bytes_per_px(self) -> int:
        """Sixteen float maps of the first level's width, embeddings and their products."""
        return 4 * (16 * self.shape.width + 4 * self.shape.embedding + self.shape.channels)

    def receptive_field(self, field: ReceptiveField) -> ReceptiveField:
        """Follow which input pixels a value depends on through the layers of ``forward``."""
        maps, pooled = field.convolve(1).convolve(1), []
        for _ in range(self.shape.levels):
            maps = maps.convolve(1).convolve(1).pool(2)
            pooled.append(maps)
        pooled.pop()
        for _ in range(self.shape.levels):
            maps = maps.bilinear().convolve(1).convolve(1)
            if pooled:
                maps = maps.join(pooled.pop())
        return maps
