"""The interface between a segmentation method and the rest: training, checkpoints, recipes, inference, tiling.

A method is one folder in ``model/methods/`` with a frozen dataclass that subclasses `TouchMethod` or `MatchMethod`, and
one line in `model.kinds.KINDS`. Nothing else knows a method by name. The dataclass has

- class variables ``kind``, ``title``, ``paper``, ``overlaps`` and ``terms`` (`link` comes with the base class), and
  ``packages`` where it needs optional ones;
- a field ``shape``, annotated with a frozen dataclass of plain values that satisfies `model.networks.network.Shape`
  (UNetShape, for example): the table ``[method.shape]`` of a recipe and ``network`` of a card;
- a field ``min_area`` and, for a `MatchMethod`, ``object_px``; all other fields are settings of plain values: the table
  ``[method]`` of a recipe and ``method`` of a card, and so part of the digest of a model;
- the functions below. ``network`` returns a `model.networks.network.Network`; ``encode`` and ``decode`` run in threads
  and processes, so they keep no state.

How they are called::

    prepared = method.prepare(stack)                     # once per sample, optional
    targets = method.encode(stacks, prepared).to(device)  # per batch, ahead of the step, on the CPU
    terms = method.losses(network, images, targets, phase, generator)
    loss = sum(phase.weights[name] * value for name, value in terms.items())

    outputs = method.outputs(network, images)            # per image or tile, padded to the stride
    stack = method.decode(outputs[0], image.shape)       # match, and validation of every method
    masks = method.masks(outputs)                        # touch: layers of a tile

A tile of the pipeline is read with a halo of ``network.halo_px + method.margin_px`` pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
import torch
from torch import nn

from model.networks.network import Network
from model.stacking import components


@dataclass(frozen=True)
class Maps:
    """Tensors of a batch by name, the batch first."""

    by_name: Mapping[str, torch.Tensor]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.by_name[name]

    def to(self, device: torch.device | str) -> "Maps":
        """Return the same maps on a device."""
        return Maps({name: value.to(device, non_blocking=True) for name, value in self.by_name.items()})

    def pin_memory(self) -> "Maps":
        """Return the same maps in pinned memory, from which a GPU copies directly."""
        return Maps({name: value.pin_memory() for name, value in self.by_name.items()})


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a training with its own length, learning rate and weights of the loss terms."""

    name: str
    """Name of the phase in curves and cards."""
    steps: int
    """Optimiser steps."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of every loss term that is used; other terms are not computed."""
    lr: float = 1e-3
    """Learning rate at the top of the schedule."""
    schedule: Literal["cosine", "staircase"] = "cosine"
    """``cosine``: linear warm-up, then half a cosine down to ``lr * lr_end``; ``staircase``: x decay."""
    warmup: int = 0
    """Steps of linear warm-up of the cosine schedule."""
    lr_end: float = 0.01
    """Fraction of ``lr`` that the cosine schedule ends at."""
    decay: float = 0.9
    """Factor of the staircase."""
    decay_every: int = 10_000
    """Steps between two stairs."""
    start: Literal["last", "best"] = "best"
    """Continue from the last weights of the phase before, or from its best."""
    best: Literal["score", "loss"] = "score"
    """Criterion of the best model: the validation score where there is one, or the validation loss."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.decay_every < 1:
            raise ValueError(
                f"phase {self.name!r}: expected steps and decay_every of at least 1 and a positive lr, "
                f"got {self.steps!r}, {self.decay_every!r}, {self.lr!r}"
            )
        if self.best not in ("score", "loss"):
            raise ValueError(f"phase {self.name!r}: expected best 'score' or 'loss', got {self.best!r}")
        if self.schedule not in ("cosine", "staircase") or self.start not in ("last", "best"):
            raise ValueError(
                f"phase {self.name!r}: expected schedule 'cosine' or 'staircase' and start 'last' or 'best', "
                f"got {self.schedule!r} and {self.start!r}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a card."""
        return asdict(self) | {"weights": dict(self.weights)}


class Targets(Protocol):
    """What ``encode`` returns: any value that can be moved to a device."""

    def to(self, device: torch.device | str) -> Any:
        """Return the same targets on a device."""


class Method(ABC):
    """A segmentation method with its settings; subclasses are frozen dataclasses of plain values.

    Subclass `TouchMethod` or `MatchMethod`, which define how the answers of neighbouring tiles are joined.
    """

    kind: ClassVar[str]
    """Name in recipes, cards and the table `model.kinds.KINDS`."""
    title: ClassVar[str]
    """Short description."""
    paper: ClassVar[str]
    """Publication of the method."""
    overlaps: ClassVar[bool]
    """Whether several objects can share a pixel of the answer."""
    link: ClassVar[Literal["touch", "match"]]
    """How tiles are joined."""
    terms: ClassVar[tuple[str, ...]]
    """Loss terms that a phase may weight."""
    packages: ClassVar[Mapping[str, str]] = {}
    """Optional packages it cannot work without: module and the extra of platelayer that installs it."""
    tunable: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Settings of decoding that can be chosen after training, with the values to try; ``min_area`` always is one. They
    are kept when a training goes on from a model."""

    shape: Any
    """The `model.networks.network.Shape` of its network; its class is read from the annotation of this field."""
    min_area: int
    """Objects of fewer pixels are dropped."""

    @property
    def stride(self) -> int:
        """Total stride of the network in pixels."""
        return int(self.shape.stride)

    @property
    def layers(self) -> int:
        """Number of boolean layers of the answer (`TouchMethod`); 1 for a `MatchMethod`."""
        return 1

    @property
    def margin_px(self) -> int:
        """Pixels that decoding needs beyond the receptive field of the network; the halo of tiles grows by them."""
        return 0

    @property
    def owner(self) -> Literal["core", "centre"]:
        """Whether every tile answers for its core, or for the whole objects that have their centre there.

        The latter is for a `MatchMethod` that detects objects one by one, and whose objects may overlap.
        """
        return "core"

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes of objects where it tells several; the ids of its training stacks then hold classes."""
        return ()

    @property
    def max_depth(self) -> int | None:
        """Upper limit of the objects that share a pixel of a training sample; ``None``: no limit."""
        return None

    @abstractmethod
    def network(self, channels: int) -> Network:
        """Return the untrained network for images of that many channels; also built on torch's meta device."""

    def prepare(self, stack: np.ndarray, *, known: Any = None, pasted: Collection[int] = ()) -> Any:
        """Return data on a sample that ``encode`` needs and augmentation does not change; called once per sample.

        For a crop onto which objects were pasted it is called again with the crop's ``stack``, what was ``known`` of
        its sample and the ids that were ``pasted``.
        """
        return None

    @abstractmethod
    def encode(self, stacks: Sequence[np.ndarray], prepared: Sequence[Any] | None = None) -> Targets:
        """Return the targets of a batch of label stacks ``(L, y, x)`` of one size, on the CPU.

        Depths L may differ, ids are unique in a stack, stacks may be empty. ``prepared``: the result of `prepare` for
        the sample of each stack; ``None`` where it was not called (validation).
        """

    @abstractmethod
    def losses(
        self,
        network: nn.Module,
        images: torch.Tensor,
        targets: Any,
        phase: Phase,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Return the unweighted scalar loss terms that ``phase.weights`` names, finite for any stack.

        ``images``: float32 ``(B, C, y, x)`` on the device of ``network`` and ``targets``. ``generator`` (on the CPU) is
        the only source of random numbers; it is a function of seed, step and process, so that a resumed training
        repeats it.
        """

    @abstractmethod
    def outputs(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the maps for decoding, float32, the batch first; sizes of ``images`` are multiples of the stride.

        Maps may have a resolution of their own, an integer fraction of that of the images.
        """

    @abstractmethod
    def decode(self, outputs: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Return the label stack uint32 ``(L, *shape)`` of one image from its outputs without the batch axis.

        The outputs are those of the image padded at the bottom and right; ids are 1 to n.
        """

    def without_overlaps(self) -> "Method":
        """Return the method with settings under which no objects overlap; itself where they never do."""
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return plain values from which `model.kinds.method_from` makes the same method."""
        settings = {entry.name: getattr(self, entry.name) for entry in fields(cast(Any, self))}
        return {"kind": self.kind} | settings | {"shape": self.shape.as_dict()}


class TouchMethod(Method):
    """A method that returns boolean layers, decided within a bounded distance: 8-connected pixels are one object.

    The answer of tiles is exactly that of the whole image.
    """

    link = "touch"

    object_threshold: float = 0.0
    """An object stays if more than half of its pixels have a foreground probability above this; 0: every object stays.
    A field of the methods that can set it, whose outputs have a map ``foreground``."""

    @property
    def judges(self) -> bool:
        """Whether objects are judged by their foreground probability, so that ``answer`` has one more layer."""
        return self.object_threshold > 0

    def answer(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the layer masks of a tile, and after them the pixels above ``object_threshold`` if it is set.

        Half of an object is known only where all of its tiles are joined, so the pipeline counts these pixels.
        """
        masks = self.masks(outputs)
        if not self.judges:
            return masks
        return torch.cat([masks, (outputs["foreground"] > self.object_threshold).to(masks.device)], dim=1)

    @abstractmethod
    def masks(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the layer masks, bool ``(B, layers, y, x)``, of outputs on any device."""

    def decode(self, outputs: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Return the 8-connected components of the layer masks that have ``min_area`` pixels and are certain enough."""
        batch = {name: torch.as_tensor(value)[None] for name, value in outputs.items()}
        answer = self.answer(batch)[0, :, : shape[0], : shape[1]].numpy()
        masks, certain = (answer[:-1], answer[-1]) if self.judges else (answer, None)
        return components(masks, min_area=self.min_area, certain=certain)


@dataclass(frozen=True, kw_only=True)
class MatchMethod(Method):
    """A method that numbers the objects of a tile: tiles are joined where objects agree on shared pixels.

    Tiles overlap by the receptive field and by the largest object, so that an object is seen whole in the tile that
    holds it.
    """

    link = "match"

    min_area: int = 20
    """Objects of fewer pixels are dropped."""
    object_px: int = 64
    """Height or width in pixels that hardly any object exceeds."""

    def __post_init__(self) -> None:
        if self.min_area < 0 or self.object_px < 1:
            raise ValueError(
                f"{self.kind}: expected min_area of 0 or more and object_px of 1 or more, "
                f"got {self.min_area!r} and {self.object_px!r}"
            )

    @property
    def margin_px(self) -> int:
        """The size of the largest object."""
        return self.object_px

    def decode_classes(self, outputs: Mapping[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """Return what ``decode`` does; where it tells classes, they are in the ids (`model.classes`)."""
        return self.decode(outputs, shape)
