"""Losses of Mask R-CNN (He et al. 2017): two of the proposals, two of the box head, one of the masks."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from model.methods.maskrcnn.assignment import assign, sample
from model.methods.maskrcnn.boxes import corrections
from model.methods.maskrcnn.plans import REFINED, Regions
from model.methods.maskrcnn.proposals import PLAIN, anchors_of
from model.methods.maskrcnn.targets import Targets
from model.networks.regions import Proposed, RegionShape

ANCHORS = 256
"""Anchors of an image that proposals learn from, half of them with an object at most."""
TURN = 1 / 9
"""Error at which the loss of a correction turns from quadratic to linear."""


def proposal_losses(
    shape: RegionShape, proposed: Proposed, targets: Targets, *, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of objectness (cross entropy) and of the corrections of anchors, mean over drawn anchors."""
    anchors, count = anchors_of(shape, proposed), 0
    objectness, correction = proposed.objectness.sum() * 0, proposed.deltas.sum() * 0
    for logits, deltas, objects in zip(proposed.objectness, proposed.deltas, targets.images, strict=True):
        chosen = assign(anchors, objects.boxes, low=0.3, high=0.7, at_least_one=True)
        positive, negative = sample(chosen, count=ANCHORS, share=0.5, generator=generator)
        drawn = torch.cat([positive, negative])
        truth = (chosen[drawn] >= 0).float()
        objectness = objectness + functional.binary_cross_entropy_with_logits(
            logits[drawn], truth, reduction="sum"
        )
        wanted = corrections(anchors[positive], objects.boxes[chosen[positive]], PLAIN)
        correction = correction + _smooth(deltas[positive], wanted)
        count += len(drawn)
    return objectness / max(count, 1), correction / max(count, 1)


def box_losses(
    scores: torch.Tensor, deltas: torch.Tensor, regions: Sequence[Regions], targets: Targets
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of classes (cross entropy) and of the corrections of regions, mean over all regions."""
    truth = torch.cat([_classes(region) for region in regions])
    wanted = torch.cat(
        [
            corrections(
                region.boxes[: len(region.objects)],
                objects.boxes[region.objects],
                REFINED,
            )
            for region, objects in zip(regions, targets.images, strict=True)
        ]
    )
    count = max(len(truth), 1)
    classes = functional.cross_entropy(scores, truth, reduction="sum") / count
    return classes, _smooth(deltas[truth > 0], wanted) / count


def mask_loss(logits: torch.Tensor, regions: Sequence[Regions], targets: Targets) -> torch.Tensor:
    """Return the mean cross entropy of the masks ``(M, s, s)`` of all regions with an object; 0 without one."""
    wanted = torch.cat(
        [
            objects.seen_through(
                region.boxes[: len(region.objects)],
                region.objects,
                size=logits.shape[-1],
            )
            for region, objects in zip(regions, targets.images, strict=True)
        ]
    )
    loss = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
    return loss / max(logits.numel(), 1)


def _classes(regions: Regions) -> torch.Tensor:
    truth = regions.boxes.new_zeros(len(regions.boxes), dtype=torch.long)
    truth[: len(regions.objects)] = 1
    return truth


def _smooth(deltas: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return functional.smooth_l1_loss(deltas, wanted, beta=TURN, reduction="sum")
