"""DCME: instance segmentation as image annotation (Watanabe and Wolf 2018, 2019).

Every pixel of an object points to the centre of its object, and the encoder of the same network classifies the
blocks of a grid; an object has the class of the block that holds its centre. A pixel has one vector, so shared
pixels belong to one object only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from model.classes import class_of, with_classes
from model.method import MatchMethod, Phase
from model.methods.dcme.decode import (
    cast_votes,
    classes_at,
    fill_small_holes,
    find_centres,
    gather,
)
from model.methods.dcme.losses import grid_loss, vector_loss
from model.methods.dcme.targets import Targets, encode
from model.networks.grid_unet import GRID, GridUNet
from model.networks.unet import UNetShape
from model.stacking import large_enough

VECTORS = "vectors"
"""Head with the vectors to the centres, in pixels: x component, y component."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of one image: object k has the id k + 1 in the stack."""

    stack: np.ndarray
    """Label stack uint32 ``(L, y, x)``."""
    classes: np.ndarray
    """Class of each object, int64, 1 to K."""
    scores: np.ndarray
    """Probability of that class at the block of the centre."""


@dataclass(frozen=True, kw_only=True)
class Dcme(MatchMethod):
    """Distance to centre of mass encoding with grid classes, and its settings."""

    kind = "dcme"
    title = "votes for the centre of an object, classes from a grid"
    paper = "Watanabe and Wolf, ITSC 2018 and arXiv:1902.05498"
    overlaps = False
    terms = (VECTORS, GRID)
    tunable = MappingProxyType(
        {"votes": (5, 10, 20, 40), "gap_px": (2, 4, 8, 12), "radius_px": (4.0, 8.0, 12.0, 20.0, 30.0)}
    )

    shape: UNetShape = field(default_factory=lambda: UNetShape(heads={VECTORS: 2, GRID: 2}, poolings=4))
    """The network; its head ``grid`` has one map more than there are classes, its stride is the edge of a block."""
    amplitude: float = 4.0
    """A of the gradients' clipping; no vector component pulls with more than A / 2."""
    votes: int = 10
    """A place with more votes than this may be a centre."""
    spread_px: int = 1
    """Votes within this distance (along y and x) are counted for a place."""
    gap_px: int = 2
    """Places at most this far apart (along y and x) belong to one centre."""
    radius_px: float = 6.0
    """A pixel belongs to an object if its vote lies nearer to the centre than this."""
    exclusive: bool = True
    """Whether a pixel belongs to the nearest centre only, or to every centre its vote is near to."""
    hole_px: int = 9
    """Enclosed holes of at most this many pixels are filled: pixels near a centre have vectors near 0."""
    class_names: tuple[str, ...] = ()
    """Names of the classes that the maps of the head ``grid`` after the first stand for; empty: one kind of object."""

    def __post_init__(self) -> None:
        super().__post_init__()
        heads = self.shape.heads
        if set(heads) != {VECTORS, GRID} or heads[VECTORS] != 2 or heads[GRID] < 2:
            raise ValueError(
                f"DCME: expected a network with the heads {VECTORS!r} (2 maps) and {GRID!r} (background and at least "
                f"one class), got {dict(heads)!r}"
            )
        # A list from TOML and JSON becomes a tuple, and numbers become the names that tables hold.
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        if len(self.class_names) not in (0, self.class_count) or (
            self.class_count > 1 and not self.class_names
        ):
            raise ValueError(
                f"DCME: expected class_names for each of the {self.class_count} classes of the head {GRID!r} (one map "
                f"more than there are classes), got {list(self.class_names)!r}"
            )
        if min(self.votes, self.spread_px, self.gap_px, self.hole_px) < 0:
            raise ValueError(
                "DCME: expected votes, spread_px, gap_px and hole_px of 0 or more, got "
                f"{self.votes!r}, {self.spread_px!r}, {self.gap_px!r}, {self.hole_px!r}"
            )
        if self.amplitude <= 0 or self.radius_px <= 0:
            raise ValueError(
                f"DCME: expected a positive amplitude and radius_px, got {self.amplitude!r} and {self.radius_px!r}"
            )

    @property
    def class_count(self) -> int:
        """Number of classes of objects, K."""
        return self.shape.heads[GRID] - 1

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, where there are several."""
        return self.class_names

    def network(self, channels: int) -> GridUNet:
        """Return the untrained network for images of that many channels."""
        return GridUNet(replace(self.shape, channels=channels))

    def encode(self, stacks: Sequence[np.ndarray], prepared: Sequence[Any] | None = None) -> Targets:
        """Return the targets of label stacks ``(L, y, x)`` of one size; see ``targets.encode``.

        Where the method has names of classes, the ids hold the classes; else all objects are of class 1.
        """
        class_of_id = [_classes_of(stack) for stack in stacks] if self.class_names else None
        return encode(stacks, block=self.shape.stride, classes=self.class_count, class_of=class_of_id)

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
            VECTORS: vector_loss(values[VECTORS], targets, amplitude=self.amplitude),
            GRID: grid_loss(values[GRID], targets),
        }
        return {name: terms[name] for name in phase.weights}

    def outputs(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``vectors`` ``(B, 2, y, x)`` in pixels and probabilities ``grid`` ``(B, K + 1, rows, columns)``."""
        values = network(images)
        return {VECTORS: values[VECTORS].float(), GRID: values[GRID].float().softmax(1)}

    def decode(self, outputs: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Return the label stack of one image; ids in raster order of the centres."""
        return self.decode_objects(outputs, shape).stack

    def decode_objects(self, outputs: Mapping[str, np.ndarray], shape: tuple[int, int]) -> Objects:
        """Return the objects of one image with their classes and scores."""
        votes = cast_votes(outputs[VECTORS][:, : shape[0], : shape[1]])
        centres = find_centres(votes, least=self.votes, spread_px=self.spread_px, gap_px=self.gap_px)
        classes, scores = classes_at(centres, outputs[GRID], block=self.shape.stride)
        real = classes > 0
        layers = gather(votes, centres[real], radius_px=self.radius_px, exclusive=self.exclusive)
        stack = np.stack([fill_small_holes(layer, hole_px=self.hole_px) for layer in layers])
        areas = np.bincount(stack.ravel(), minlength=int(real.sum()) + 1)[1:]
        kept = areas >= max(self.min_area, 1)
        return Objects(
            stack=large_enough(stack, min_area=self.min_area),
            classes=classes[real][kept],
            scores=scores[real][kept],
        )

    def decode_classes(self, outputs: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Return the label stack of one image with the classes of the objects in their ids, where they have names."""
        objects = self.decode_objects(outputs, shape)
        return with_classes(objects.stack, objects.classes) if self.class_names else objects.stack

    def without_overlaps(self) -> "Dcme":
        """Return the method in which a pixel belongs to the nearest centre only."""
        return replace(self, exclusive=True)


def _classes_of(stack: np.ndarray) -> dict[int, int]:
    ids = np.unique(stack[stack > 0])
    return dict(zip(ids.tolist(), class_of(ids).tolist(), strict=True))
