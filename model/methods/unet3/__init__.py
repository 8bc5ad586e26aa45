"""UNet-3: foreground and contour; the cores between contours are grown back into the foreground.

Objects that overlap are parted along the middle of what they share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from model.losses import clipped_entropy
from model.method import Maps, Phase, TouchMethod
from model.methods.unet3.contours import contours
from model.methods.unet3.growth import grown
from model.networks.unet import UNet, UNetShape

HEADS = {"foreground": 1, "contour": 1}


@dataclass(frozen=True, kw_only=True)
class UNet3(TouchMethod):
    """Three classes: object, contour and background, as two maps."""

    kind: ClassVar[str] = "unet3"
    title: ClassVar[str] = "foreground and contours; cores grown back"
    paper: ClassVar[str] = "contour baseline of Chen, Wu and Merhof, BMVC 2022"
    overlaps: ClassVar[bool] = False
    terms: ClassVar[tuple[str, ...]] = ("foreground", "contour")
    tunable: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "foreground_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        "contour_threshold": (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6),
    }

    shape: UNetShape = field(default_factory=lambda: UNetShape(heads=HEADS))
    """The network."""
    foreground_threshold: float = 0.5
    """Pixels above it are foreground."""
    contour_threshold: float = 0.5
    """Pixels above it part objects."""
    object_threshold: float = 0.0
    """An object stays if more than half of its pixels have a foreground probability above this; 0: every one stays."""
    widen: bool = True
    """Whether contours are dilated once more (3 x 3) before they part objects, as in the authors' code."""
    growth_px: int = 4
    """Steps by which cores grow into the foreground; contours are 3 px wide, or 5 with ``widen``."""
    min_area: int = 250
    """Objects of fewer pixels are dropped."""

    def __post_init__(self) -> None:
        if dict(self.shape.heads) != HEADS:
            raise ValueError(
                f"unet3: expected a network with the heads {HEADS}, got {dict(self.shape.heads)!r}"
            )
        if not 0 <= self.growth_px <= 64:
            raise ValueError(f"unet3: expected growth_px of 0 to 64, got {self.growth_px!r}")

    @property
    def margin_px(self) -> int:
        """Each step of growth depends on pixels within 4 px, the dilation on those within 1 px."""
        return 4 * self.growth_px + int(self.widen)

    def network(self, channels: int) -> UNet:
        """Return the untrained network for images of that many channels."""
        return UNet(replace(self.shape, channels=channels))

    def encode(self, stacks: Sequence[np.ndarray], prepared: Sequence[Any] | None = None) -> Maps:
        """Return ``foreground`` and ``contour``, bool ``(B, 1, y, x)``."""
        union = np.stack([(stack > 0).any(0, keepdims=True) for stack in stacks])
        lines = np.stack([contours(stack)[None] for stack in stacks])
        return Maps({"foreground": torch.from_numpy(union), "contour": torch.from_numpy(lines)})

    def losses(
        self,
        network: nn.Module,
        images: torch.Tensor,
        targets: Maps,
        phase: Phase,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Return the cross entropies of foreground and contour."""
        logits = network(images)
        return {name: clipped_entropy(logits[name].float(), targets[name]) for name in phase.weights}

    def outputs(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the probabilities ``foreground`` and ``contour``, each ``(B, 1, y, x)``."""
        return {name: logits.float().sigmoid() for name, logits in network(images).items()}

    def masks(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return one layer, bool ``(B, 1, y, x)``, in which objects that touched are 1 px apart."""
        foreground = outputs["foreground"] > self.foreground_threshold
        lines = outputs["contour"] > self.contour_threshold
        if self.widen:
            lines = functional.max_pool2d(lines.float(), 3, stride=1, padding=1) > 0
        cores = (foreground & ~lines).cpu().numpy()
        whole = foreground.cpu().numpy()
        layers = [
            grown(core[0], within[0], self.growth_px) for core, within in zip(cores, whole, strict=True)
        ]
        return torch.from_numpy(np.stack(layers)[:, None])
