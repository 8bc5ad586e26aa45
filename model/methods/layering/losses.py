"""The losses of the layering method (Chen, Wu and Merhof 2022, equations 2 to 6), as printed and as coded.

Every term is finite with a finite gradient for any label stack, and its cost does not depend on the number of objects.
Variant ``paper`` follows the equations, ``code`` the authors' program.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from model.losses import clipped_entropy
from model.methods.layering.targets import Pixels, Targets

Variant = Literal["paper", "code"]
VARIANTS = ("paper", "code")
Assignment = Literal["largest", "apart"]
ROUNDS = 12
"""Longest chain of ever surer neighbours in which each object knows what the one before it chose."""


def foreground_loss(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Binary cross entropy of logits ``(B, 1, y, x)`` with the union of all objects, mean over pixels.

    Probabilities are clipped to 1e-7, so that a certain and wrong pixel costs 16.1 and no more.
    """
    return clipped_entropy(logits[:, 0], targets.depth > 0)


def boundary_foreground_loss(
    logits: torch.Tensor, targets: Targets, *, weight: float = 3.0, radius: int = 2
) -> torch.Tensor:
    """Cross entropy with pixels near the edge of an object weighted up, plus a soft Dice per image.

    Edges are the rims of the union and of every overlap. An image without objects has a Dice term near 0
    as soon as nothing is predicted.
    """
    depth = targets.depth.to(logits.dtype)[:, None]
    truth = depth.clamp(max=1)
    size = 2 * radius + 1
    high = functional.max_pool2d(depth, size, stride=1, padding=radius)
    low = -functional.max_pool2d(-depth, size, stride=1, padding=radius)
    weights = 1 + weight * (high != low).to(logits.dtype)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = logits.sigmoid()
    shared = (probability * truth).sum((1, 2, 3))
    dice = 1 - (2 * shared + 1) / (probability.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)
    return (weights * entropy).sum() / weights.sum() + dice.mean()


@dataclass(frozen=True, kw_only=True)
class Exclusive:
    """The embeddings of the pixels that belong to exactly one object, in the order of ``targets.exclusive``."""

    values: torch.Tensor
    """Embeddings ``(P, N)``."""
    unit: torch.Tensor
    """The same, normalised; a zero vector stays zero."""


def exclusive_pixels(embeddings: torch.Tensor, targets: Targets) -> Exclusive:
    """Gather the exclusive pixels of embeddings ``(B, N, y, x)``."""
    values = _gathered(embeddings, targets.exclusive)
    return Exclusive(values=values, unit=unit(values))


def _gathered(embeddings: torch.Tensor, pixels: Pixels) -> torch.Tensor:
    """Return the embeddings ``(P, N)`` of some pixels."""
    return embeddings.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, pixels.index)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Normalise along the last axis; squared norms below 1e-12 count as 1e-12, so zero stays zero."""
    return vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True).clamp(min=1e-12))


def layering_losses(
    embeddings: torch.Tensor, targets: Targets, *, variant: Variant
) -> dict[str, torch.Tensor]:
    """Return ``attraction``, ``repulsion``, ``sparsity`` and ``balance`` of embeddings in 0..1, ``(B, N, y, x)``.

    Each is a mean over images, but for ``balance``, which looks at all objects of the batch. Objects without an
    exclusive pixel are left out; an image without any contributes 0. An object without a neighbour contributes
    0 to the repulsion; ``paper`` divides by all objects that have an exclusive pixel, ``code`` by the number of
    ordered pairs.
    """
    pixels = exclusive_pixels(embeddings, targets)
    images, owner = embeddings.shape[0], targets.exclusive.owner
    means = unit(_mean_by_object(pixels.values if variant == "paper" else pixels.unit, targets))
    cosine = (pixels.unit * means.index_select(0, owner)).sum(-1)
    image_of = targets.image_of.index_select(0, owner)
    size = _sum_by(torch.ones_like(cosine), image_of, images)
    attraction = _sum_by(1 - cosine.square(), image_of, images) / size.clamp(min=1)
    return {
        "attraction": attraction.mean(),
        "repulsion": _repulsion(means, targets, images, variant).mean(),
        "sparsity": _sparsity(pixels, image_of, size, embeddings, variant).mean(),
        "balance": _balance(means, targets.counts),
    }


def _balance(means: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """How unevenly the objects of a batch use the layers: 0 for evenly, 1 if all are on the same; not in the paper.

    Together with sparsity it makes objects spread over the layers; alone it would blur each over all of them.
    """
    layers = means.shape[1]
    used = means.square() * (counts > 0)[:, None]
    share = used.sum(0) / used.sum().clamp(min=1e-6)
    return torch.where(used.sum() > 0, (layers * share.square().sum() - 1) / max(layers - 1, 1), 0)


def _mean_by_object(values: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the means ``(C, N)`` of the objects over values ``(P, N)`` of their exclusive pixels."""
    sums = values.new_zeros(len(targets.counts), values.shape[1])
    return sums.index_add(0, targets.exclusive.owner, values) / targets.counts.clamp(min=1)[:, None]


def _sum_by(values: torch.Tensor, index: torch.Tensor, size: int) -> torch.Tensor:
    return values.new_zeros(size).index_add(0, index, values)


def _repulsion(means: torch.Tensor, targets: Targets, images: int, variant: Variant) -> torch.Tensor:
    """Mean squared cosine between neighbours, per image."""
    first, second = targets.compared.unbind(1)
    cosine = (means.index_select(0, first) * means.index_select(0, second)).sum(-1).square()
    image_of, counts = targets.image_of, targets.counts
    if variant == "code":
        image = image_of.index_select(0, first)
        pairs = _sum_by(torch.ones_like(cosine), image, images)
        return _sum_by(cosine, image, images) / (pairs + 1e-7)
    neighbours = _sum_by(torch.ones_like(cosine), first, len(counts))
    per_object = _sum_by(cosine, first, len(counts)) / neighbours.clamp(min=1)
    objects = _sum_by((counts > 0).to(cosine.dtype), image_of, images)
    return _sum_by(per_object, image_of, images) / objects.clamp(min=1)


def _sparsity(
    pixels: Exclusive, image_of: torch.Tensor, size: torch.Tensor, embeddings: torch.Tensor, variant: Variant
) -> torch.Tensor:
    largest = pixels.unit.max(-1).values if len(pixels.unit) else pixels.unit.sum(-1)
    images = embeddings.shape[0]
    if variant == "code":
        everything = embeddings.shape[2] * embeddings.shape[3]
        return _sum_by(1 - largest.square(), image_of, images) / everything
    return _sum_by(1 - largest, image_of, images) / size.clamp(min=1)


@torch.no_grad()
def pseudo_truth(
    embeddings: torch.Tensor, targets: Targets, *, assignment: Assignment = "largest"
) -> torch.Tensor:
    """Return what the layers should hold: each full object on the layer its own part prefers, ``(B, N, y, x)``.

    The preference is the largest channel of the mean unit embedding over the exclusive pixels, over the full
    mask where there are none; the first channel wins ties. ``assignment="apart"`` is not in the paper: the surest
    objects choose first, and none takes the layer of a neighbour while another is free.
    """
    batch, layers = embeddings.shape[:2]
    pixels = exclusive_pixels(embeddings, targets)
    means = _mean_by_object(pixels.unit, targets)
    if len(targets.covered):
        means = means.index_copy(0, targets.covered, _hidden_means(embeddings, targets))
    nowhere = targets.image_of.new_full((1,), layers)
    chosen = means.argmax(1) if assignment == "largest" else apart(means, targets.pairs)
    layer_of = torch.cat([nowhere, chosen])
    truth = embeddings.new_zeros(batch, layers + 1, *embeddings.shape[2:])
    truth.scatter_(1, layer_of[targets.objects], 1.0)
    return truth[:, :layers]


def apart(means: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Return the layer of each object: the largest channel of its mean that no surer neighbour has taken.

    In each round those objects choose whose surer neighbours have all chosen, which is what one object after the
    other would do, without waiting for the device; after `ROUNDS` rounds the remaining ones choose at once.
    """
    objects, layers = means.shape
    first, second = pairs.unbind(1)
    order = torch.argsort(-means.amax(1), stable=True)
    rank = torch.empty_like(order).index_copy(0, order, torch.arange(objects, device=order.device))
    surer = rank.index_select(0, second) < rank.index_select(0, first)
    chosen, decided = torch.zeros_like(order), torch.zeros_like(order, dtype=torch.bool)
    for number in range(ROUNDS + 1):
        done = decided.index_select(0, second)
        waits = _sum_by((surer & ~done).float(), first, objects)
        place = first * layers + chosen.index_select(0, second)
        occupied = _sum_by(done.float(), place, objects * layers).view(objects, layers) > 0
        free = torch.where(occupied & ~occupied.all(1, keepdim=True), -1.0, means).argmax(1)
        ready = ~decided & ((waits == 0) | (number == ROUNDS))
        chosen, decided = torch.where(ready, free, chosen), decided | ready
    return chosen


def _hidden_means(embeddings: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the sums of unit embeddings over the full masks of the covered objects, which point where means do."""
    values = unit(_gathered(embeddings, targets.hidden))
    sums = values.new_zeros(len(targets.counts), values.shape[1]).index_add(0, targets.hidden.owner, values)
    return sums.index_select(0, targets.covered)


def overlap_loss(
    embeddings: torch.Tensor, targets: Targets, *, variant: Variant, assignment: Assignment = "largest"
) -> torch.Tensor:
    """Return 1 - Dice between embeddings and pseudo truth inside the objects, mean over images (equation 6).

    ``paper`` counts a pixel once per object it belongs to; ``code`` counts it once and adds 1 to numerator and
    denominator. An image without objects gives 0.
    """
    truth = pseudo_truth(embeddings, targets, assignment=assignment)
    depth = targets.depth
    weight = (depth if variant == "paper" else depth.clamp(max=1)).to(embeddings.dtype)[:, None]
    shared = (weight * embeddings * truth).sum((1, 2, 3))
    total = (weight * (embeddings + truth)).sum((1, 2, 3))
    if variant == "code":
        return (1 - (2 * shared + 1) / (total + 1)).mean()
    present = total > 0
    return torch.where(present, 1 - 2 * shared / torch.where(present, total, 1), 0).mean()


def overlap_entropy(
    logits: torch.Tensor, targets: Targets, *, assignment: Assignment = "largest"
) -> torch.Tensor:
    """Return the cross entropy of layer logits ``(B, N, y, x)`` with the pseudo truth inside the objects.

    Not in the paper. Exclusive pixels and shared ones weigh the same, each a mean over the batch; an absent kind
    adds 0. Phase 1 says nothing about shared pixels and leaves their further layers surely off; there the gradient
    of the Dice vanishes with that of the sigmoid, and this one does not.
    """
    truth = pseudo_truth(logits.sigmoid(), targets, assignment=assignment)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
    depth = targets.depth
    means = [(entropy * part).sum() / part.sum().clamp(min=1) for part in (depth == 1, depth > 1)]
    return torch.stack(means).sum()
