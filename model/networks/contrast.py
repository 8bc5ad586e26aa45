"""Local contrast of an image: each pixel relative to the mean and the deviation of its surroundings.

A dim object beside a bright one, which limits for the whole image leave dark, is as clear there as the bright one.
The statistics are those of a window of bounded size on a fixed grid, so tiles give the same as the whole image.
"""

import torch
from torch.nn import functional

from model.networks.reach import Span

FLOOR = 0.03
"""Added to the deviation, in units of the normalised image, so that the noise of an empty field is not stretched."""


def local_contrast(images: torch.Tensor, *, cell: int, radius: int) -> torch.Tensor:
    """Return ``(image - mean) / (deviation + FLOOR)`` of images ``(B, C, y, x)``, of the same shape and type.

    Mean and deviation are those of the cells of ``cell`` x ``cell`` pixels up to ``radius`` cells away, fewer at the
    edge of the image, interpolated between the centres of the cells. Height and width are multiples of ``cell``.
    """
    values = images.float()
    mean, square = (_window_mean(power, cell, radius) for power in (values, values.square()))
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    mean, deviation = (_interpolated(part, cell) for part in (mean, deviation))
    return ((values - mean) / (deviation + FLOOR)).to(images.dtype)


def contrast_span(span: Span, *, cell: int, radius: int) -> Span:
    """Follow which input pixels a value of the image and its local contrast depend on."""
    return span.pool(cell).convolve(radius).bilinear(cell).join(span)


def _window_mean(values: torch.Tensor, cell: int, radius: int) -> torch.Tensor:
    cells = functional.avg_pool2d(values, cell)
    return functional.avg_pool2d(cells, 2 * radius + 1, 1, radius, count_include_pad=False)


def _interpolated(cells: torch.Tensor, cell: int) -> torch.Tensor:
    return functional.interpolate(cells, scale_factor=cell, mode="bilinear", align_corners=False)
