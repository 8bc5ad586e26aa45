"""Plans: the regions that the heads of the network are applied to, in training and in inference.

A plan is made for one batch and remembers what it chose, because losses and results refer to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model.methods.maskrcnn.assignment import assign, sample
from model.methods.maskrcnn.boxes import clipped, corrected, suppress_boxes
from model.methods.maskrcnn.proposals import Limits, per_block, propose
from model.methods.maskrcnn.targets import Targets
from model.networks.regions import Proposed, RegionShape

REFINED = (10.0, 10.0, 5.0, 5.0)
"""Weights of the corrections of proposals (y, x, height, width), as in the authors' code."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The regions of one image that the heads learn from: those with an object first."""

    boxes: torch.Tensor
    """float32 ``(n, 4)``."""
    objects: torch.Tensor
    """int64 ``(p,)``: objects of the first p of them; the others show background."""


class TrainingPlan:
    """Regions drawn from the proposals and the true boxes; a quarter of them at most show an object."""

    def __init__(
        self,
        shape: RegionShape,
        targets: Targets,
        *,
        size: tuple[int, int],
        limits: Limits,
        count: int,
        generator: torch.Generator,
    ) -> None:
        self.shape, self.targets, self.size, self.limits = shape, targets, size, limits
        self.count, self.generator = count, generator
        self.regions: list[Regions] = []

    def for_boxes(self, proposed: Proposed) -> Sequence[torch.Tensor]:
        """Return the drawn regions of every image."""
        proposals = propose(self.shape, proposed, size=self.size, limits=self.limits)
        self.regions = [
            self._drawn(torch.cat([boxes, objects.boxes]), objects.boxes)
            for boxes, objects in zip(proposals, self.targets.images, strict=True)
        ]
        return [region.boxes for region in self.regions]

    def for_masks(self, scores: torch.Tensor, deltas: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return the regions that show an object."""
        return [region.boxes[: len(region.objects)] for region in self.regions]

    def _drawn(self, boxes: torch.Tensor, truth: torch.Tensor) -> Regions:
        chosen = assign(boxes, truth, low=0.5, high=0.5)
        positive, negative = sample(chosen, count=self.count, share=0.25, generator=self.generator)
        return Regions(boxes=boxes[torch.cat([positive, negative])], objects=chosen[positive])


class InferencePlan:
    """All proposals for the box head; for the mask head, those boxes that it takes for objects."""

    def __init__(
        self,
        shape: RegionShape,
        *,
        size: tuple[int, int],
        limits: Limits,
        score: float,
        iou: float,
        most: int,
    ) -> None:
        self.shape, self.size, self.limits = shape, size, limits
        self.score, self.iou, self.most = score, iou, most
        self.proposals: list[torch.Tensor] = []
        self.boxes: list[torch.Tensor] = []
        self.scores: list[torch.Tensor] = []

    def for_boxes(self, proposed: Proposed) -> Sequence[torch.Tensor]:
        """Return the proposals of every image."""
        self.proposals = propose(self.shape, proposed, size=self.size, limits=self.limits)
        return self.proposals

    def for_masks(self, scores: torch.Tensor, deltas: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return the boxes of the objects of every image, the likeliest first."""
        first = 0
        for proposals in self.proposals:
            part = slice(first, first + len(proposals))
            first += len(proposals)
            self._detect(proposals, scores[part].softmax(1)[:, 1], deltas[part])
        return self.boxes

    def _detect(self, proposals: torch.Tensor, scores: torch.Tensor, deltas: torch.Tensor) -> None:
        likely = scores > self.score
        boxes = clipped(corrected(proposals[likely], deltas[likely], REFINED), self.size)
        scores = scores[likely]
        wide = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= 1
        boxes, scores = boxes[wide], scores[wide]
        kept = suppress_boxes(boxes.double().cpu().numpy(), scores.cpu().numpy(), threshold=self.iou)
        best = torch.from_numpy(kept[: per_block(self.most, self.size)]).to(boxes.device)
        self.boxes.append(boxes[best])
        self.scores.append(scores[best])
