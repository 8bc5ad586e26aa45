"""The network of Mask R-CNN: ResNet, feature pyramid, region proposals, box head and mask head (He et al. 2017).

The module holds weights and maps only; a `Plan` chooses the regions for the heads, so that one forward pass serves
training and inference. It uses batch norm, because group norm would depend on the whole tile.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from model.networks.network import Network, check_counts
from model.networks.roi_align import pyramid_align

BOX_CELLS, MASK_CELLS = 7, 14
"""Cells along an edge of the maps that the box head and the mask head read; masks come out at twice that."""


@dataclass(frozen=True, kw_only=True)
class RegionShape:
    """All numbers that define the network, as written in a checkpoint's card."""

    channels: int = 1
    """Input channels."""
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of each stage: (2, 2, 2, 2) is ResNet-18, (3, 4, 23, 3) with bottlenecks ResNet-101."""
    bottleneck: bool = False
    """Blocks of three convolutions whose output is four times as wide, as in ResNet-50 and ResNet-101."""
    width: int = 64
    """Feature maps of the first stage; every stage has twice as many as the one before."""
    pyramid_width: int = 256
    """Feature maps of the pyramid and of the mask head."""
    box_width: int = 1024
    """Units of the two hidden layers of the box head."""
    mask_convs: int = 4
    """3x3 convolutions of the mask head."""
    anchor_cells: tuple[float, ...] = (4.0, 8.0)
    """Edges of the square anchors of a level, in its cells."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    context_px: int = 64
    """Context that tiles read around the largest object; the receptive field is larger, but its influence fades."""

    def __post_init__(self) -> None:
        for name in ("blocks", "anchor_cells", "anchor_ratios"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists, where read from TOML or JSON
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise ValueError(f"network {name}: expected positive numbers, got {getattr(self, name)!r}")
        check_counts(self, "channels", "width", "pyramid_width", "box_width", "context_px")

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides in pixels of the levels of the pyramid, the last made by subsampling."""
        return tuple(4 * 2**level for level in range(len(self.blocks) + 1))

    @property
    def stride(self) -> int:
        """Total stride in pixels: image sizes, tile origins and halos are multiples of it."""
        return self.strides[-1]

    @property
    def anchors(self) -> int:
        """Anchors of each cell."""
        return len(self.anchor_cells) * len(self.anchor_ratios)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a card."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """What the proposal head says of every anchor, level after level, row by row, in the order of `RegionShape`."""

    objectness: torch.Tensor
    """Logits float32 ``(B, anchors)``."""
    deltas: torch.Tensor
    """Corrections of the anchors, float32 ``(B, anchors, 4)``."""
    sizes: tuple[tuple[int, int], ...]
    """Rows and columns of each level."""


class Plan(Protocol):
    """Chooses the regions that the heads look at: boxes ``(n, 4)`` in pixels for every image of the batch."""

    def for_boxes(self, proposed: Proposed) -> Sequence[torch.Tensor]:
        """Return the regions that the box head classifies and corrects."""

    def for_masks(self, scores: torch.Tensor, deltas: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return the regions that the mask head fills, from what the box head said of all its regions."""


class RegionNetwork(Network):
    """Images ``(B, C, y, x)`` and a plan to proposals, class logits, box corrections and mask logits."""

    def __init__(self, shape: RegionShape) -> None:
        super().__init__()
        self.shape: RegionShape = shape
        self.stem = nn.Sequential(*_conv(shape.channels, shape.width, 7, stride=2), nn.MaxPool2d(3, 2, 1))
        widths = [shape.width * 2**stage for stage in range(len(shape.blocks))]
        outs = [width * 4 for width in widths] if shape.bottleneck else widths
        self.stages = nn.ModuleList(
            _stage(i, width, count, bottleneck=shape.bottleneck, stride=1 if stage == 0 else 2)
            for stage, (i, width, count) in enumerate(
                zip([shape.width, *outs[:-1]], widths, shape.blocks, strict=True)
            )
        )
        deep = shape.pyramid_width
        self.lateral = nn.ModuleList(nn.Conv2d(out, deep, 1) for out in outs)
        self.smooth = nn.ModuleList(nn.Conv2d(deep, deep, 3, padding=1) for _ in outs)
        self.proposals = nn.Sequential(nn.Conv2d(deep, deep, 3, padding=1), nn.ReLU())
        self.objectness = nn.Conv2d(deep, shape.anchors, 1)
        self.deltas = nn.Conv2d(deep, shape.anchors * 4, 1)
        self.boxes = nn.Sequential(
            nn.Flatten(), nn.Linear(deep * BOX_CELLS**2, shape.box_width), nn.ReLU(),
            nn.Linear(shape.box_width, shape.box_width), nn.ReLU(),
        )  # fmt: skip
        self.scores = nn.Linear(shape.box_width, 2)
        self.corrections = nn.Linear(shape.box_width, 4)
        convs = [_relu_conv(deep, deep) for _ in range(shape.mask_convs)]
        self.masks = nn.Sequential(
            *convs, nn.ConvTranspose2d(deep, deep, 2, stride=2), nn.ReLU(), nn.Conv2d(deep, 1, 1)
        )
        self._initialise()

    def forward(self, images: torch.Tensor, plan: Plan) -> dict[str, Any]:
        """Return ``proposed``, and for the plan's regions ``scores``, ``deltas`` and ``masks``."""
        self.check_images(images)
        levels = self.pyramid(images)
        proposed = self.propose(levels)
        fine, strides = levels[:-1], self.shape.strides[:-1]
        read = self.boxes(pyramid_align(fine, strides, plan.for_boxes(proposed), size=BOX_CELLS))
        scores, deltas = self.scores(read).float(), self.corrections(read).float()
        regions = pyramid_align(fine, strides, plan.for_masks(scores, deltas), size=MASK_CELLS)
        return {
            "proposed": proposed, "scores": scores, "deltas": deltas, "masks": self.masks(regions)[:, 0].float(),
        }  # fmt: skip

    def pyramid(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of the feature pyramid, fine to coarse."""
        maps, stages = self.stem(images), []
        for stage in self.stages:
            maps = stage(maps)
            stages.append(maps)
        above = self.lateral[-1](stages[-1])
        levels = [self.smooth[-1](above)]
        for number in reversed(range(len(stages) - 1)):
            above = self.lateral[number](stages[number]) + functional.interpolate(above, scale_factor=2)
            levels.insert(0, self.smooth[number](above))
        return [*levels, functional.max_pool2d(levels[-1], 1, stride=2)]

    def propose(self, levels: Sequence[torch.Tensor]) -> Proposed:
        """Return objectness and corrections of all anchors of the levels."""
        read = [self.proposals(maps) for maps in levels]
        objectness = [self.objectness(maps).permute(0, 2, 3, 1).flatten(1) for maps in read]
        deltas = [self.deltas(maps).permute(0, 2, 3, 1).reshape(len(maps), -1, 4) for maps in read]
        return Proposed(
            objectness=torch.cat(objectness, 1).float(),
            deltas=torch.cat(deltas, 1).float(),
            sizes=tuple((maps.shape[-2], maps.shape[-1]) for maps in levels),
        )

    @property
    def halo_px(self) -> int:
        """Context around an object as its shape says; the receptive field is larger, several hundred pixels."""
        return self.shape.context_px

    @property
    def bytes_per_px(self) -> int:
        """Bytes per pixel: maps of the stem at half and of the pyramid at a quarter of the resolution."""
        shape = self.shape
        return int(4 * (8 * shape.width / 4 + 8 * shape.pyramid_width / 16 + shape.channels))

    def _initialise(self) -> None:
        """He-normal kernels; the layers that answer start small, so that the first losses are moderate."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for answering in (self.objectness, self.deltas, self.scores, self.corrections):
            nn.init.normal_(answering.weight, std=0.01)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class _Residual(nn.Module):
    """A residual block: convolutions beside a shortcut, then ReLU."""

    def __init__(self, inputs: int, width: int, *, bottleneck: bool, stride: int) -> None:
        super().__init__()
        outputs = width * 4 if bottleneck else width
        if bottleneck:
            chain = [*_conv(inputs, width, 1), *_conv(width, width, 3, stride=stride)]
        else:
            chain = _conv(inputs, width, 3, stride=stride)
        last = width if bottleneck else outputs
        self.chain = nn.Sequential(*chain, *_conv(last, outputs, 1 if bottleneck else 3)[:2])
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Sequential(*([] if same else _conv(inputs, outputs, 1, stride=stride)[:2]))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the maps of the block."""
        return functional.relu(self.chain(maps) + self.shortcut(maps))


def _stage(inputs: int, width: int, count: int, *, bottleneck: bool, stride: int) -> nn.Sequential:
    outputs = width * 4 if bottleneck else width
    first = _Residual(inputs, width, bottleneck=bottleneck, stride=stride)
    rest = [_Residual(outputs, width, bottleneck=bottleneck, stride=1) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


def _conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _relu_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())
