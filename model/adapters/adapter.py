"""A network of another package as a segmenter: one function, and what the pipeline has to know of it.

Intensities are normalised by the pipeline, once for the whole image and as the package would normalise it; the
package's own normalisation would see one tile at a time and give the same cell other values in every tile.
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from model.errors import BadCheckpoint

Settings = Mapping[str, float | int]
"""Thresholds and diameters of a package, by name."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A segmenter that calls the network of another package."""

    name: str
    """Name of the labels."""
    digest: str
    """Changes with the weights, the settings and the version of the package."""
    answer: Callable[[np.ndarray], np.ndarray]
    """From a normalised block ``(C, y, x)`` float32 to a label stack ``(L, y, x)`` or to boolean layers."""
    normalise: dict[str, Any]
    """How the pipeline normalises intensities for this network."""
    halo_px: int
    """Margin in px that a tile is read with."""
    link: Literal["touch", "match"] = "match"
    """How tiles are joined."""
    stride: int = 1
    """Tile origins are multiples of this."""
    layers: int = 1
    """Number of layers."""
    channels: int | None = None
    """Channels that the network expects; None: one to three."""
    pixel_size_um: float | None = None
    """Pixel size that the network was trained for, in micrometres."""
    min_area: int | None = None
    """Smallest object in px."""

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Segment a normalised block ``(C, y, x)``."""
        return self.answer(block)


def optional(module: str, *, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Raises:
        BadCheckpoint: the package is not installed, or cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadCheckpoint(
            f"{module.partition('.')[0]} cannot be imported ({error}); install it: "
            f"pip install 'platelayer[{extra}]'"
        ) from None


def chosen(defaults: Settings, given: Settings, *, name: str) -> dict[str, float | int]:
    """Return the settings of an adapter: the defaults of the package, and what the user gave.

    Raises:
        ValueError: the adapter has no setting of that name.
    """
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ValueError(f"method: {name} has the settings {', '.join(defaults)}; got {', '.join(unknown)}")
    return {**defaults, **given}


def digest_of(path: Path, settings: Settings, version: str) -> str:
    """Return a hash of a weights file, the settings it is used with and the version of the package."""
    with path.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    facts = f"{weights} {sorted(settings.items())} {version}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def not_to_be_had(name: str, cached: Path, error: Exception) -> BadCheckpoint:
    """Return the error for weights that are neither on this machine nor to be downloaded."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return BadCheckpoint(
        f"{name}: the weights are not at {cached} and cannot be downloaded ({reason:.200}); run the command once on "
        "a machine with a network and copy the file there, or give the path of the weights in place of the name"
    )


def padded(block: np.ndarray, multiple: int, *, least: int = 0) -> np.ndarray:
    """Extend a block ``(C, y, x)`` at its end to multiples of a number by mirroring its pixels."""
    rows, columns = (max(-(-size // multiple) * multiple, least) - size for size in block.shape[1:])
    # A block smaller than what is added has nothing to mirror; np.pad then repeats the mirror image.
    return np.pad(
        block, ((0, 0), (0, rows), (0, columns)), mode="symmetric" if 1 in block.shape[1:] else "reflect"
    )
