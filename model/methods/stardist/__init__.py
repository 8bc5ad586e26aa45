"""StarDist (Schmidt et al. 2018): every pixel proposes the star-convex polygon of its object.

Network and targets follow the paper's baseline; rays are followed in the mask of the whole object, and the polygons
that remain are kept as a stack, so objects may overlap. Objects that no centre sees whole, such as curved worms, are
beyond it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from model.method import MatchMethod, Phase
from model.methods.stardist.losses import distance_loss, probability_loss
from model.methods.stardist.polygons import Polygons, suppress
from model.methods.stardist.targets import Targets, encode
from model.networks.star_unet import StarShape, StarUNet
from model.stacking import flattened, large_enough, stack_of_objects

LEAST_PX = 1e-3
"""Distances are at least this, as in the authors' code."""


@dataclass(frozen=True, kw_only=True)
class StarDist(MatchMethod):
    """Star-convex polygons with their settings."""

    kind = "stardist"
    title = "star-convex polygons proposed by every pixel"
    paper = "Schmidt, Weigert, Broaddus and Myers, MICCAI 2018"
    overlaps = True
    terms = ("probability", "distances")
    tunable = MappingProxyType({"probability": (0.3, 0.4, 0.5, 0.6, 0.7), "overlap": (0.3, 0.4, 0.5)})

    shape: StarShape = field(default_factory=StarShape)
    """The network."""
    probability: float = 0.5
    """Places above it propose a polygon."""
    overlap: float = 0.4
    """Of two polygons that share more than this part of the smaller one, the less probable is dropped."""
    keep_overlaps: bool = True
    """Whether polygons keep shared pixels, or the most probable takes them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.probability < 1 and 0 <= self.overlap <= 1):
            raise ValueError(
                "stardist: expected a probability between 0 and 1 and an overlap of 0 to 1, "
                f"got {self.probability!r} and {self.overlap!r}"
            )

    @property
    def owner(self) -> Literal["core", "centre"]:
        """The tile with the centre of an object decides, unless objects must not overlap."""
        return "centre" if self.keep_overlaps else "core"

    def network(self, channels: int) -> StarUNet:
        """Return the untrained network for images of that many channels."""
        return StarUNet(replace(self.shape, channels=channels))

    def encode(self, stacks: Sequence[np.ndarray], prepared: Sequence[Any] | None = None) -> Targets:
        """Return the targets of label stacks ``(L, y, x)`` of one size; see ``targets.encode``."""
        return encode(stacks, rays=self.shape.rays, grid=self.shape.grid)

    def losses(
        self,
        network: nn.Module,
        images: torch.Tensor,
        targets: Targets,
        phase: Phase,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Return the unweighted loss terms that ``phase.weights`` names, computed in float32."""
        values = {name: value.float() for name, value in network(images).items()}
        terms = {
            "probability": probability_loss(values["probability"], targets),
            "distances": distance_loss(values["distances"], targets),
        }
        return {name: terms[name] for name in phase.weights}

    def outputs(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``probability`` ``(B, 1, rows, columns)`` and ``distances`` ``(B, rays, rows, columns)``."""
        values = network(images)
        return {
            "probability": values["probability"].float().sigmoid(),
            "distances": values["distances"].float(),
        }

    def decode(self, outputs: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Return the label stack of one image; ids in the order of probability."""
        probability = outputs["probability"][0]
        row, column = np.nonzero(probability > self.probability)
        candidates = Polygons(
            centres=np.stack([row, column], axis=1) * float(self.shape.grid),
            radii=np.maximum(outputs["distances"][:, row, column].T, LEAST_PX).astype(np.float64),
        )
        kept = candidates.take(suppress(candidates, probability[row, column], overlap=self.overlap))
        stack = stack_of_objects([kept.pixels(index, shape) for index in range(len(kept))], shape)
        return large_enough(stack if self.keep_overlaps else flattened(stack), min_area=self.min_area)

    def without_overlaps(self) -> "StarDist":
        """Return the method in which a shared pixel belongs to the most probable polygon."""
        return replace(self, keep_overlaps=False)
