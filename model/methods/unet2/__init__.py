"""UNet-2: a foreground map whose connected components are the objects; the simplest baseline.

Objects that touch or overlap become one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from model.losses import clipped_entropy
from model.method import Maps, Phase, TouchMethod
from model.networks.unet import UNet, UNetShape


@dataclass(frozen=True, kw_only=True)
class UNet2(TouchMethod):
    """Two classes, object and background."""

    kind: ClassVar[str] = "unet2"
    title: ClassVar[str] = "foreground and its connected components"
    paper: ClassVar[str] = "Ronneberger, Fischer and Brox, MICCAI 2015; baseline of Chen, Wu and Merhof 2022"
    overlaps: ClassVar[bool] = False
    terms: ClassVar[tuple[str, ...]] = ("foreground",)
    tunable: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "foreground_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    }

    shape: UNetShape = field(default_factory=lambda: UNetShape(heads={"foreground": 1}))
    """The network."""
    foreground_threshold: float = 0.5
    """Pixels above it are foreground."""
    min_area: int = 250
    """Components of fewer pixels are dropped."""

    def __post_init__(self) -> None:
        if dict(self.shape.heads) != {"foreground": 1}:
            raise ValueError(
                f"unet2: expected a network with the head foreground = 1, got {dict(self.shape.heads)!r}"
            )

    def network(self, channels: int) -> UNet:
        """Return the untrained network for images of that many channels."""
        return UNet(replace(self.shape, channels=channels))

    def encode(self, stacks: Sequence[np.ndarray], prepared: Sequence[Any] | None = None) -> Maps:
        """Return ``foreground``, bool ``(B, 1, y, x)``: the union of all objects."""
        union = np.stack([(stack > 0).any(0, keepdims=True) for stack in stacks])
        return Maps({"foreground": torch.from_numpy(union)})

    def losses(
        self,
        network: nn.Module,
        images: torch.Tensor,
        targets: Maps,
        phase: Phase,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Return the cross entropy of the foreground."""
        logits = network(images)["foreground"].float()
        return {name: clipped_entropy(logits, targets[name]) for name in phase.weights}

    def outputs(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the probability ``foreground`` ``(B, 1, y, x)``."""
        return {"foreground": network(images)["foreground"].float().sigmoid()}

    def masks(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return one layer, bool ``(B, 1, y, x)``: the foreground."""
        return outputs["foreground"] > self.foreground_threshold
