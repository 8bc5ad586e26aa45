"""Algorithm 1 of the paper: from foreground and layer probabilities to layer masks.

Layers are decided pixel by pixel, so that the masks of tiles are those of the whole image.
"""

import torch


def layer_masks(
    foreground: torch.Tensor,
    layers: torch.Tensor,
    *,
    foreground_threshold: float = 0.5,
    layer_threshold: float | None = 0.5,
) -> torch.Tensor:
    """Return bool ``(B, N, y, x)``: per foreground pixel the largest layer and all above the threshold.

    ``foreground``: probabilities ``(B, 1, y, x)``; ``layers``: ``(B, N, y, x)``. The first of equal layers is
    the largest. ``layer_threshold=None``: the largest layer only, so that no objects overlap.
    """
    largest = torch.zeros_like(layers, dtype=torch.bool)
    largest.scatter_(1, layers.argmax(1, keepdim=True), True)
    if layer_threshold is not None:
        largest |= layers > layer_threshold
    return largest & (foreground > foreground_threshold)
