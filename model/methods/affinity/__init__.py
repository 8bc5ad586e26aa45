"""Pixel-embedded affinity: embeddings of equal pixels agree, and a mutex watershed cuts where they do not.

The answer is a partition: where objects overlap, a pixel belongs to one of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from model.method import Maps, MatchMethod, Phase
from model.methods.affinity.losses import Scale, affinity_loss, foreground_loss
from model.methods.affinity.offsets import Offset, affinities, offsets, unit
from model.methods.affinity.second_view import second_view
from model.methods.affinity.segments import large_enough, merged, segmented
from model.networks.resunet import ResUNet, ResUNetShape


@dataclass(frozen=True, kw_only=True)
class Affinity(MatchMethod):
    """Pixel-embedded affinity with its settings.

    The loss terms ``self``, ``cross`` and ``pyramid`` are the SCM, CCM and EPM of the paper; a phase that does not name
    one trains without it.
    """

    kind: ClassVar[str] = "affinity"
    title: ClassVar[str] = "pixel embeddings, affinities and mutex watershed"
    paper: ClassVar[str] = "Huang, Liu, Chen et al., AAAI 2022"
    overlaps: ClassVar[bool] = False
    terms: ClassVar[tuple[str, ...]] = ("self", "cross", "pyramid", "foreground")
    tunable: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "foreground_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    }
    packages: ClassVar[Mapping[str, str]] = {"bioimage_cpp": "affinity"}

    shape: ResUNetShape = field(default_factory=ResUNetShape)
    """The network: 4.7 million parameters at the usual width of 16."""
    ranges: tuple[int, ...] = (1, 3, 5, 9, 11)
    """Distances of the pairs of pixels in training, ascending from 1; in pixels of each resolution."""
    neighbours: Literal[4, 8] = 4
    """4: pairs along the axes; 8: along the diagonals too."""
    decoding_ranges: tuple[int, ...] = ()
    """Distances in decoding where they differ from those in training."""
    decoding_neighbours: Literal[0, 4, 8] = 0
    """Neighbours in decoding where they differ from those in training."""
    loss_scale: Scale = "author"
    """Affinity losses as in the authors' code, which divides by the width and not the height, or as means."""
    foreground_threshold: float = 0.5
    """Pixels above it are foreground."""
    joining_ranges: int = 1
    """So many of the ranges, from the shortest, join pixels; 1 as in the paper. With all of them and a ``mutex_stride``
    of 1, an object that another one crosses stays one object where a range reaches across the crossing."""
    mutex_stride: int = 4
    """Pairs that forbid are used at every so many pixels; a divisor of the network's stride, or tiles would differ."""
    merge: tuple[tuple[int, int], ...] = ((5, 5), (25, 11))
    """Passes of the merging of small segments: largest size and window in pixels.

    The paper adds (50, 11) and (100, 21) for nuclei of some hundred pixels; objects of that size must not be there.
    """
    min_area: int = 25
    """Objects of fewer pixels are dropped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Lists, as they come from TOML and JSON, become tuples, so that equal settings are equal.
        for name in ("ranges", "decoding_ranges"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "merge", tuple(tuple(one) for one in self.merge))
        for ranges in (self.ranges, self.decoding_ranges or self.ranges):
            if not ranges or ranges[0] != 1 or list(ranges) != sorted(set(ranges)):
                raise ValueError(f"affinity: expected ranges that ascend from 1, got {ranges!r}")
        if self.neighbours not in (4, 8) or self.decoding_neighbours not in (0, 4, 8):
            raise ValueError(
                f"affinity: expected 4 or 8 neighbours, got {self.neighbours!r} and {self.decoding_neighbours!r}"
            )
        if self.loss_scale not in ("author", "mean"):
            raise ValueError(f"affinity: expected loss_scale 'author' or 'mean', got {self.loss_scale!r}")
        if not 1 <= self.joining_ranges <= len(self.decoding_ranges or self.ranges):
            raise ValueError(
                f"affinity: expected joining_ranges of 1 to the number of ranges, got {self.joining_ranges!r}"
            )
        if self.mutex_stride < 1 or self.stride % self.mutex_stride:
            raise ValueError(
                f"affinity: expected a mutex_stride that divides the stride {self.stride}, got {self.mutex_stride!r}"
            )

    @property
    def pairs(self) -> list[Offset]:
        """Offsets of the pairs in decoding."""
        return offsets(self.decoding_ranges or self.ranges, self.decoding_neighbours or self.neighbours)

    def network(self, channels: int) -> ResUNet:
        """Return the untrained network for images of that many channels."""
        return ResUNet(replace(self.shape, channels=channels))

    def encode(self, stacks: Sequence[np.ndarray], prepared: Sequence[Any] | None = None) -> Maps:
        """Return ``ids``, int64 ``(B, y, x)``: the smallest object at each pixel, 0 for background."""
        return Maps({"ids": torch.from_numpy(np.stack([flattened(stack) for stack in stacks]))})

    def losses(
        self,
        network: nn.Module,
        images: torch.Tensor,
        targets: Maps,
        phase: Phase,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Return the terms the phase asks for; no gradient flows through the second view of ``cross``."""
        ids, answer = targets["ids"], network(images)
        pairs = offsets(self.ranges, self.neighbours)
        full = unit(answer["embedding1"])
        terms = {}
        if "self" in phase.weights:
            terms["self"] = affinity_loss(full, full, ids, pairs, scale=self.loss_scale)
        if "pyramid" in phase.weights:
            terms["pyramid"] = self._pyramid(answer, ids)
        if "cross" in phase.weights:
            view = second_view(images, ids > 0, generator)
            with torch.no_grad():
                other = view.undone(unit(network(view.images)["embedding1"]))
            terms["cross"] = affinity_loss(full, other, ids, pairs, scale=self.loss_scale)
        if "foreground" in phase.weights:
            terms["foreground"] = foreground_loss(answer["foreground"], ids > 0)
        return terms

    def _pyramid(self, answer: Mapping[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
        """Sum of the affinity losses of the coarse embeddings: one range fewer at each halving, at least one."""
        total = ids.new_zeros((), dtype=torch.float32)
        for level in range(1, self.shape.levels + 1):
            factor = 2**level
            coarse = unit(answer[f"embedding{factor}"])
            pairs = offsets(self.ranges[: max(len(self.ranges) - level, 1)], self.neighbours)
            labels = ids[:, ::factor, ::factor]
            total = total + affinity_loss(coarse, coarse, labels, pairs, scale=self.loss_scale)
        return total

    def outputs(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``affinity`` ``(B, pairs, y, x)`` from 0 to 1 and ``foreground`` ``(B, 1, y, x)``."""
        answer = network(images)
        embeddings = unit(answer["embedding1"].float())
        foreground = answer["foreground"].float().softmax(1)[:, 1:]
        return {
            "affinity": affinities(embeddings, embeddings, self.pairs).clamp(0, 1),
            "foreground": foreground,
        }

    def decode(self, outputs: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Return the label image ``(1, y, x)``: mutex watershed in the foreground, small segments merged."""
        height, width = shape
        affinity = outputs["affinity"][:, :height, :width]
        foreground = outputs["foreground"][0, :height, :width] > self.foreground_threshold
        per_range = len(self.pairs) // len(self.decoding_ranges or self.ranges)
        labels = segmented(
            affinity, self.pairs, foreground, attractive=self.joining_ranges * per_range, repulsive=per_range,
            stride=self.mutex_stride,
        )  # fmt: skip
        labels = large_enough(merged(labels, self.merge), self.min_area)
        return labels[None].astype(np.uint32)


def flattened(stack: np.ndarray) -> np.ndarray:
    """Return a label stack ``(L, y, x)`` as one label image int64 ``(y, x)``; the smallest object is on top."""
    ids, dense = np.unique(stack, return_inverse=True)
    areas = np.bincount(dense.ravel(), minlength=len(ids))
    areas[ids == 0] = stack.size + 1
    top = areas[dense.reshape(stack.shape)].argmin(0)
    return np.take_along_axis(stack, top[None], 0)[0].astype(np.int64)
