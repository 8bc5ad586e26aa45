"""Segmenters: callables that turn a normalised block into layers, and their traits that the pipeline needs.

A segmenter takes a float32 block ``(C, y, x)`` and returns either boolean layers ``(K, y, x)``, decided pixel by
pixel, or an integer label stack ``(L, y, x)`` with numbered objects. It may be a plain function.
"""

import hashlib
import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np

from pipeline.errors import BadArgument
from pipeline.stack import check_stack

MAX_LAYERS = 64
"""A layer mask keeps one bit per layer in one unsigned integer."""

MATCH_MARGIN = 64
"""Default halo in px of a segmenter that numbers objects and declares no ``halo_px``."""


CLASS_STEP = 1 << 24
"""Ids of objects with classes: ``class * CLASS_STEP`` plus a number from 1."""

MOST_CLASSES = 127
"""The codes of classes fit a signed integer of 32 bits."""


class Segmenter(Protocol):
    """The interface of a segmenter; it may have any of the attributes of `Traits`, but needs none."""

    def __call__(self, block: np.ndarray, /) -> np.ndarray:
        """Segment a block ``(C, y, x)`` float32 into ``(K, y, x)`` bool or ``(L, y, x)`` integers."""
        ...


@dataclass(frozen=True, kw_only=True)
class Traits:
    """The traits of a segmenter that the pipeline needs."""

    name: str
    link: Literal["touch", "match"]
    """How tiles are joined: adjacent pixels of a layer, or IoU of numbered objects."""
    halo_px: int = 0
    """Distance in px to each side within which pixels influence the answer at a pixel."""
    stride: int = 1
    """Tile origins and halos are multiples of this."""
    layers: int = 1
    """Number of layers K (touch)."""
    channels: int | None = None
    """Channels it expects; None takes any."""
    normalise: dict | None = None
    """Normalisation it was made for."""
    min_area: int | None = None
    """Smallest object it was tuned for, in px."""
    pixel_size_um: float | None = None
    """Pixel size it was made for, in micrometers."""
    diameters_px: tuple[float, ...] = ()
    """Diameters (of disks of the same area) of the objects it was trained on: 5th percentile, median and 95th
    percentile; empty where they are not known."""
    digest: str = ""
    """Digest that changes whenever the answers may change."""
    judged: bool = False
    """Whether its answer has one layer more than ``layers`` (touch): an object stays if more than half of its pixels
    lie on that layer."""
    owner: Literal["core", "centre"] = "core"
    """Which tile an object belongs to (match): every core has its own piece, or the tile with the centre decides, see
    `pipeline.ownership`; then objects may overlap."""
    classes: tuple[str, ...] = ()
    """Names of the classes of its objects (match); an id is then ``class * CLASS_STEP`` plus a number, class from 1."""

    def __post_init__(self) -> None:
        """Check the traits."""
        if self.link not in ("touch", "match"):
            raise BadArgument(f"segmenter {self.name}: expected link touch or match, got {self.link!r}")
        for field, least in (("halo_px", 0), ("stride", 1), ("layers", 1)):
            said = getattr(self, field)
            if not isinstance(said, int | np.integer) or said < least:
                raise BadArgument(
                    f"segmenter {self.name}: expected {field} to be an integer >= {least}, got {said!r}"
                )
        if self.judged and self.link != "touch":
            raise BadArgument(
                f"segmenter {self.name}: expected judged objects with link touch, got {self.link!r}"
            )
        if self.link == "touch" and self.mask_layers > MAX_LAYERS:
            raise BadArgument(
                f"segmenter {self.name}: expected at most {MAX_LAYERS} layers, got {self.mask_layers}"
            )
        if self.owner not in ("core", "centre") or (self.owner == "centre" and self.link == "touch"):
            raise BadArgument(
                f"segmenter {self.name}: expected owner core, or centre if it numbers its objects (link match), "
                f"got {self.owner!r}"
            )
        if self.classes and (self.link == "touch" or len(self.classes) > MOST_CLASSES):
            raise BadArgument(
                f"segmenter {self.name}: expected classes of a segmenter that numbers its objects (link match), at "
                f"most {MOST_CLASSES}, got {len(self.classes)} and link {self.link!r}"
            )

    @property
    def mask_layers(self) -> int:
        """Boolean layers of its answer: those of objects, and that by which objects are judged (touch)."""
        return self.layers + int(self.judged)


def traits(segmenter: Segmenter, *, probe: np.ndarray) -> Traits:
    """Return the traits of a segmenter; undeclared ones are derived from its answer to ``probe`` ``(C, y, x)``.

    A plain function that returns booleans is taken to decide per pixel (halo 0); one that returns integers is matched
    by overlap, with a margin of `MATCH_MARGIN`.
    """
    name = str(getattr(segmenter, "name", None) or getattr(segmenter, "__name__", type(segmenter).__name__))
    said = {
        field: getattr(segmenter, field)
        for field in (
            "link",
            "halo_px",
            "stride",
            "layers",
            "channels",
            "normalise",
            "min_area",
            "pixel_size_um",
            "diameters_px",
            "judged",
            "owner",
            "classes",
        )
        if getattr(segmenter, field, None) is not None
    }
    digest = str(getattr(segmenter, "digest", "") or source_digest(segmenter))
    if not {"link", "layers"} <= said.keys():
        answer = _asked(segmenter, probe, name)
        said = {"link": "touch" if answer.dtype == bool else "match", "layers": len(answer)} | said
    halo = 0 if said["link"] == "touch" else MATCH_MARGIN
    return Traits(**{"halo_px": halo, **said, "name": name, "digest": digest})


def _asked(segmenter: Segmenter, probe: np.ndarray, name: str) -> np.ndarray:
    """Call a segmenter with the probe; any exception is an error of the segmenter, not of the data."""
    try:
        answer = segmenter(probe)
    except Exception as error:
        raise BadArgument(
            f"segmenter {name}: expected layers for a float32 block of shape {probe.shape}, but it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    return checked_answer(answer, probe.shape[1:], name)


def checked_answer(layers: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return the answer of a segmenter as ``(K, y, x)`` after checking its shape and type."""
    layers = np.asarray(layers)
    if layers.ndim == 2:
        layers = layers[None]
    if layers.ndim != 3 or layers.shape[1:] != tuple(shape):
        raise BadArgument(
            f"segmenter {name}: expected layers of shape (K, {shape[0]}, {shape[1]}), got {layers.shape}"
        )
    return layers if layers.dtype == bool else check_stack(layers, name=f"segmenter {name}")


def bits(layers: np.ndarray) -> np.ndarray:
    """Pack boolean layers ``(K, y, x)`` into one unsigned integer per pixel, bit k for layer k."""
    dtype = bits_dtype(len(layers))
    packed = np.zeros(layers.shape[1:], dtype)
    for k, layer in enumerate(layers):
        packed |= layer.astype(dtype) << dtype.type(k)
    return packed


def bits_dtype(layers: int) -> np.dtype:
    """Smallest unsigned integer that has a bit for each layer."""
    return np.dtype(next(f"u{size}" for size in (1, 2, 4, 8) if layers <= 8 * size))


def source_digest(segmenter: object) -> str:
    """Hash of the source file of a callable, so that edited code counts as other work."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(segmenter) if callable(segmenter) else type(segmenter))
    except TypeError:
        path = inspect.getsourcefile(type(segmenter))
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path and Path(path).exists() else ""


def imported(reference: str) -> Segmenter:
    """Import a segmenter given as ``module:name``; modules in the working directory are found too."""
    module, _, name = reference.partition(":")
    if not module or not name:
        raise BadArgument(f"segmenter: expected module:function, got {reference!r}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        value: Any = getattr(importlib.import_module(module), name)
        made: Any = value() if inspect.isclass(value) else value
    except Exception as error:
        raise BadArgument(
            f"segmenter {reference!r} cannot be imported ({type(error).__name__}: {error}); "
            "is the module on the path, also of the workers?"
        ) from error
    if not callable(made):
        raise BadArgument(f"segmenter {reference!r}: expected a function of a block, got {made!r:.80}")
    return cast(Segmenter, made)
