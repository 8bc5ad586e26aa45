"""The layering method: neighbouring objects are put on different layers, in which they are connected components.

Decoding the perfect outputs of a label stack gives the stack back, as long as objects on one layer are not 8-connected
and no smaller than the area filter.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from model.method import Phase, TouchMethod
from model.methods.layering.adjacency import adjacent_pairs
from model.methods.layering.decode import layer_masks
from model.methods.layering.losses import (
    VARIANTS,
    Assignment,
    Variant,
    boundary_foreground_loss,
    foreground_loss,
    layering_losses,
    overlap_entropy,
    overlap_loss,
)
from model.methods.layering.targets import Targets, encode
from model.networks.unet import UNet, UNetShape


@dataclass(frozen=True, kw_only=True)
class Layering(TouchMethod):
    """The layering method (Chen, Wu and Merhof 2022) with its settings."""

    kind: ClassVar[str] = "layering"
    title: ClassVar[str] = "pixel embeddings that sort objects into layers"
    paper: ClassVar[str] = "Chen, Wu and Merhof, BMVC 2022"
    overlaps: ClassVar[bool] = True
    terms: ClassVar[tuple[str, ...]] = (
        "foreground",
        "attraction",
        "repulsion",
        "sparsity",
        "overlap",
        "balance",
    )

    tunable: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "foreground_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        "layer_threshold": (None, 0.3, 0.4, 0.5, 0.6, 0.7),
    }

    shape: UNetShape = field(default_factory=UNetShape)
    """The network; its head ``layers`` says how many layers there are."""
    variant: Variant = "paper"
    """Losses as in the paper's equations or as in the authors' code."""
    foreground: Literal["entropy", "boundary"] = "entropy"
    """Foreground loss: plain cross entropy, or boundary-weighted with a soft Dice."""
    completion: Literal["dice", "entropy"] = "dice"
    """Overlap loss of phase 2: the paper's Dice, or a cross entropy in which shared pixels weigh as much as others."""
    assignment: Assignment = "largest"
    """Layer that phase 2 asks of an object: the one it prefers, or of those that no neighbour has (``apart``)."""
    adjacency_px: float = 15.0
    """Objects nearer than this are pushed to different layers."""
    foreground_threshold: float = 0.5
    """Pixels above it are foreground."""
    layer_threshold: float | None = 0.5
    """Further layers of a pixel above it are on; ``None``: the largest layer only."""
    object_threshold: float = 0.0
    """An object stays if more than half of its pixels have a foreground probability above this; 0: every one stays."""
    min_area: int = 250
    """Components of fewer pixels are dropped."""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS or self.foreground not in ("entropy", "boundary"):
            raise ValueError(
                f"layering: expected variant in {VARIANTS} and foreground 'entropy' or 'boundary', "
                f"got {self.variant!r} and {self.foreground!r}"
            )
        if self.completion not in ("dice", "entropy"):
            raise ValueError(f"layering: expected completion 'dice' or 'entropy', got {self.completion!r}")
        if self.assignment not in ("largest", "apart"):
            raise ValueError(f"layering: expected assignment 'largest' or 'apart', got {self.assignment!r}")
        if set(self.shape.heads) != {"layers", "foreground"} or self.shape.heads["foreground"] != 1:
            raise ValueError(
                "layering: expected a network with the heads 'layers' and 'foreground' (1 map), "
                f"got {dict(self.shape.heads)!r}"
            )

    @property
    def layers(self) -> int:
        """Number of layers, N."""
        return self.shape.heads["layers"]

    def network(self, channels: int) -> UNet:
        """Return the untrained network for images of that many channels."""
        return UNet(replace(self.shape, channels=channels))

    @property
    def max_depth(self) -> int:
        """One object per layer."""
        return self.layers

    def prepare(
        self, stack: np.ndarray, *, known: np.ndarray | None = None, pasted: Collection[int] = ()
    ) -> np.ndarray:
        """Return the ordered pairs of neighbours ``(P, 2)`` by id; pasted objects bring pairs of their own."""
        if known is None:
            return adjacent_pairs(stack, distance_px=self.adjacency_px)
        return np.concatenate([known, adjacent_pairs(stack, distance_px=self.adjacency_px, of=pasted)])

    def encode(self, stacks: Sequence[np.ndarray], prepared: Sequence[np.ndarray] | None = None) -> Targets:
        """Return the targets of label stacks ``(L, y, x)`` of one size; see ``targets.encode``."""
        return encode(stacks, pairs=prepared, distance_px=self.adjacency_px)

    def losses(
        self,
        network: nn.Module,
        images: torch.Tensor,
        targets: Targets,
        phase: Phase,
        generator: torch.Generator | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the unweighted loss terms that ``phase.weights`` names, computed in float32; nothing is random."""
        logits = {name: value.float() for name, value in network(images).items()}
        embeddings = logits["layers"].sigmoid()
        foreground = foreground_loss if self.foreground == "entropy" else boundary_foreground_loss
        terms = {"foreground": foreground(logits["foreground"], targets)}
        terms |= layering_losses(embeddings, targets, variant=self.variant)
        if "overlap" in phase.weights:
            terms["overlap"] = (
                overlap_loss(embeddings, targets, variant=self.variant, assignment=self.assignment)
                if self.completion == "dice"
                else overlap_entropy(logits["layers"], targets, assignment=self.assignment)
            )
        return {name: terms[name] for name in phase.weights}

    def outputs(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return probabilities: ``foreground`` ``(B, 1, y, x)`` and ``layers`` ``(B, N, y, x)``."""
        return {name: logits.float().sigmoid() for name, logits in network(images).items()}

    def masks(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the layer masks, bool ``(B, N, y, x)``, of probabilities on any device."""
        return layer_masks(
            outputs["foreground"],
            outputs["layers"],
            foreground_threshold=self.foreground_threshold,
            layer_threshold=self.layer_threshold,
        )

    def without_overlaps(self) -> "Layering":
        """Return the method with the largest layer of every pixel only."""
        return replace(self, layer_threshold=None)
