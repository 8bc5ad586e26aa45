"""The second view of a batch for the cross loss: other intensities, cut-outs, flips; and the way back.

Every random number comes from the generator that is passed in.
"""

from dataclasses import dataclass

import torch

INTENSITY = 0.1
"""Range of the relative change of contrast, and of the change of brightness relative to the range of an image."""
MOST_SQUARES = 20
"""Most squares that are cut out of a view, and their largest side in pixels."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A batch of second views with the flips that made it."""

    images: torch.Tensor
    """float32 ``(B, C, y, x)``."""
    flips: tuple[tuple[bool, bool, bool], ...]
    """Whether the rows, the columns and the axes of each image were turned round, in that order."""

    def undone(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps ``(B, D, y, x)`` of the views, turned back to lie on the first views."""
        return torch.stack([_unflipped(one, flip) for one, flip in zip(maps, self.flips, strict=True)])


def second_view(images: torch.Tensor, foreground: torch.Tensor, generator: torch.Generator) -> View:
    """Return the second view of images ``(B, C, y, x)`` with foreground ``(B, y, x)``, as in section 4.1 of the paper.

    Axes are exchanged in square images only.
    """
    square = images.shape[2] == images.shape[3]
    views, flips = [], []
    for image, inside in zip(images, foreground, strict=True):
        varied = _cut(_varied(image, generator), inside, generator)
        rows, columns, axes = (torch.rand(3, generator=generator) < 0.5).tolist()
        flip = (rows, columns, axes and square)
        views.append(_flipped(varied, flip))
        flips.append(flip)
    return View(images=torch.stack(views), flips=tuple(flips))


def _varied(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    contrast, brightness = ((torch.rand(2, generator=generator) - 0.5) * INTENSITY).tolist()
    return image * (1 + contrast) + brightness * (image.max() - image.min())


def _cut(image: torch.Tensor, inside: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Fill squares around the objects with the mean of the objects."""
    count, side = torch.randint(MOST_SQUARES + 1, (2,), generator=generator).tolist()
    places = torch.nonzero(inside)
    if not count or not side or not len(places):
        return image
    low, high = places.min(0).values.tolist(), places.max(0).values.tolist()
    mean = image[:, inside].mean(1)[:, None, None]
    image = image.clone()
    corners = torch.rand(count, 2, generator=generator).tolist()
    for down, right in corners:
        y, x = (int(a + share * max(b - a - side, 0)) for a, b, share in zip(low, high, (down, right)))
        image[:, y : y + side, x : x + side] = mean
    return image


def _flipped(maps: torch.Tensor, flip: tuple[bool, bool, bool]) -> torch.Tensor:
    dims = [axis for axis, turned in zip((-2, -1), flip) if turned]
    maps = torch.flip(maps, dims)
    return maps.transpose(-2, -1) if flip[2] else maps


def _unflipped(maps: torch.Tensor, flip: tuple[bool, bool, bool]) -> torch.Tensor:
    maps = maps.transpose(-2, -1) if flip[2] else maps
    return torch.flip(maps, [axis for axis, turned in zip((-2, -1), flip) if turned])
