"""The assignment of boxes to objects, and the random choice of boxes for training.

All random numbers come from the generator that is passed in, so a resumed training repeats them.
"""

import torch

from model.methods.maskrcnn.boxes import iou

BACKGROUND, UNDECIDED = -1, -2
"""Instead of an object: a box that stands for none, and one that is left out of the losses."""
AT_ONCE = 16_384
"""Boxes that are compared with all objects at a time, to bound memory."""


def assign(
    boxes: torch.Tensor, truth: torch.Tensor, *, low: float, high: float, at_least_one: bool = False
) -> torch.Tensor:
    """Return the object int64 ``(n,)`` each of the ``boxes`` stands for, ``BACKGROUND`` or ``UNDECIDED``.

    A box stands for the object of its largest intersection over union where that is ``high`` or more, for the
    background where it is less than ``low``. ``at_least_one``: every object that any box meets has its best box.
    """
    chosen = boxes.new_full((len(boxes),), BACKGROUND, dtype=torch.long)
    if not len(truth):
        return chosen
    parts = [iou(part, truth) for part in boxes.split(AT_ONCE)]
    best, object_of = (torch.cat(column) for column in zip(*(part.max(1) for part in parts), strict=True))
    chosen[best >= low] = UNDECIDED
    chosen[best >= high] = object_of[best >= high]
    if at_least_one:
        tops = torch.stack([part.max(0).values for part in parts])
        within = torch.stack([part.argmax(0) for part in parts])
        top, part = tops.max(0)
        objects = torch.arange(len(truth), device=boxes.device)
        met = top > 0
        chosen[(part * AT_ONCE + within[part, objects])[met]] = objects[met]
    return chosen


def sample(
    chosen: torch.Tensor, *, count: int, share: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return indices of boxes with an object and of background boxes, together at most ``count``.

    At most ``share`` of ``count`` have an object.
    """
    positive = torch.nonzero(chosen >= 0)[:, 0]
    negative = torch.nonzero(chosen == BACKGROUND)[:, 0]
    positive = _drawn(positive, int(count * share), generator)
    return positive, _drawn(negative, count - len(positive), generator)


def _drawn(indices: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    order = torch.randperm(len(indices), generator=generator)[:most]
    return indices[order.to(indices.device)]
