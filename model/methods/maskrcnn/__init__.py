"""Mask R-CNN (He, Gkioxari, Dollar and Girshick 2017) in plain torch: boxes first, then a mask in each box.

Trained from scratch, because no pretrained weights come with the program. The image is never rescaled, so the
scale of objects does not depend on the tiling. Every object has a mask of its own, so objects may overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from model.method import MatchMethod, Phase
from model.methods.maskrcnn.decode import pixels_of, without_duplicates
from model.methods.maskrcnn.losses import box_losses, mask_loss, proposal_losses
from model.methods.maskrcnn.plans import InferencePlan, TrainingPlan
from model.methods.maskrcnn.proposals import Limits
from model.methods.maskrcnn.targets import Targets, encode
from model.networks.regions import RegionNetwork, RegionShape
from model.stacking import flattened, large_enough, stack_of_objects


@dataclass(frozen=True, kw_only=True)
class MaskRcnn(MatchMethod):
    """Region proposals with a box head and a mask head, and their settings."""

    kind = "maskrcnn"
    title = "a box for every object, and a mask in every box"
    paper = "He, Gkioxari, Dollar and Girshick, ICCV 2017"
    overlaps = True
    terms = ("objectness", "anchors", "classes", "boxes", "masks")
    tunable = MappingProxyType({"score": (0.5, 0.6, 0.7, 0.8, 0.9), "mask_iou": (0.2, 0.3, 0.5, 0.7)})

    shape: RegionShape = field(default_factory=RegionShape)
    """The network."""
    proposals_before: int = 1000
    """Anchors of each level that may become proposals, per 256 x 256 pixels."""
    proposals: int = 300
    """Proposals for the box head, per 256 x 256 pixels."""
    proposal_iou: float = 0.7
    """Proposals with a larger intersection over union are duplicates."""
    regions: int = 128
    """Regions of a crop that the heads learn from."""
    score: float = 0.5
    """Boxes with a larger probability are objects."""
    box_iou: float = 0.7
    """Boxes with a larger intersection over union are duplicates."""
    mask_iou: float = 0.5
    """Masks with a larger intersection over union are duplicates."""
    detections: int = 100
    """Most objects, per 256 x 256 pixels."""
    keep_overlaps: bool = True
    """Whether masks keep shared pixels, or the likeliest object takes them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("proposals_before", "proposals", "regions", "detections")
        shares = ("proposal_iou", "box_iou", "mask_iou", "score")
        wrong = [name for name in counts if getattr(self, name) < 1]
        wrong += [name for name in shares if not 0 < getattr(self, name) < 1]
        if wrong:
            raise ValueError(
                "maskrcnn: expected counts of at least 1 and thresholds between 0 and 1, got "
                + ", ".join(f"{name} {getattr(self, name)!r}" for name in wrong)
            )

    @property
    def limits(self) -> Limits:
        """Limits of the proposals."""
        return Limits(before=self.proposals_before, after=self.proposals, iou=self.proposal_iou)

    @property
    def owner(self) -> Literal["core", "centre"]:
        """The tile with the centre of an object decides, unless objects must not overlap."""
        return "centre" if self.keep_overlaps else "core"

    def network(self, channels: int) -> RegionNetwork:
        """Return the untrained network for images of that many channels."""
        return RegionNetwork(replace(self.shape, channels=channels))

    def encode(self, stacks: Sequence[np.ndarray], prepared: Sequence[Any] | None = None) -> Targets:
        """Return boxes and masks of the objects of label stacks ``(L, y, x)`` of one size."""
        return encode(stacks)

    def losses(
        self,
        network: nn.Module,
        images: torch.Tensor,
        targets: Targets,
        phase: Phase,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Return the unweighted loss terms that ``phase.weights`` names, computed in float32."""
        plan = TrainingPlan(
            self.shape, targets, size=_size(images), limits=self.limits, count=self.regions, generator=generator
        )  # fmt: skip
        values = network(images, plan)
        objectness, anchors = proposal_losses(self.shape, values["proposed"], targets, generator=generator)
        classes, boxes = box_losses(values["scores"], values["deltas"], plan.regions, targets)
        masks = mask_loss(values["masks"], plan.regions, targets)
        terms = dict(zip(self.terms, (objectness, anchors, classes, boxes, masks), strict=True))
        return {name: terms[name] for name in phase.weights}

    def outputs(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``boxes`` ``(B, D, 4)``, ``scores`` ``(B, D)`` and ``masks`` ``(B, D, 28, 28)``, best first.

        D is the number of detections of the image that has most; others are padded with scores of 0.
        """
        plan = InferencePlan(
            self.shape, size=_size(images), limits=self.limits, score=self.score, iou=self.box_iou,
            most=self.detections,
        )  # fmt: skip
        masks = network(images, plan)["masks"].sigmoid()
        parts = {
            "boxes": plan.boxes,
            "scores": plan.scores,
            "masks": masks.split([len(boxes) for boxes in plan.boxes]),
        }
        return {name: pad_sequence(list(part), batch_first=True).float() for name, part in parts.items()}

    def decode(self, outputs: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Return the label stack of one image; ids in the order of scores."""
        real = outputs["scores"] > self.score  # also where the outputs were made for a lower score
        objects = [
            pixels_of(mask, box, shape)
            for mask, box in zip(outputs["masks"][real], outputs["boxes"][real], strict=True)
        ]
        kept = without_duplicates(objects, size=shape[0] * shape[1], threshold=self.mask_iou)
        stack = stack_of_objects(kept, shape)
        return large_enough(stack if self.keep_overlaps else flattened(stack), min_area=self.min_area)

    def without_overlaps(self) -> "MaskRcnn":
        """Return the method in which a shared pixel belongs to the likeliest object."""
        return replace(self, keep_overlaps=False)


def _size(images: torch.Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
