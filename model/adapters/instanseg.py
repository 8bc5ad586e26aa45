"""InstanSeg models (Goldsborough et al. 2024): TorchScript files that answer with numbered objects.

A model file needs torch alone. The package is needed to download a published model.
"""

import os
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.adapters.adapter import Adapter, Settings, chosen, digest_of, not_to_be_had, optional, padded
from model.devices import choose_device
from model.errors import BadCheckpoint

FILE = "instanseg.pt"
"""Name of the model in its folder."""

TARGETS = ("nuclei", "cells")
"""What a model with two outputs finds, in their order."""

SETTINGS: dict[str, float | int] = {
    "seed_threshold": 0.7, "mask_threshold": 0.53, "overlap_threshold": 0.3, "fg_threshold": 0.5, "peak_distance": 5,
    "min_size": 10,
}  # fmt: skip
"""Settings with the package's defaults."""

STRIDE = 16
"""Blocks are padded to multiples of this inside the model."""

HALO_PX = 128
"""Margin of a tile: 80 px of overlap and 20 px of an object, as the package has for slides, and the network's grid."""


def load(name: str, *, device: str, settings: Settings) -> Adapter:
    """Load a published model by name, or a file or folder; ``NAME@nuclei`` or ``NAME@cells`` where it finds both."""
    name, _, target = name.partition("@")
    if target and target not in TARGETS:
        raise BadCheckpoint(f"instanseg:{name}@{target}: expected @nuclei or @cells")
    given = chosen(SETTINGS, settings, name="instanseg")
    place, path = choose_device(device), _file(name)
    try:
        model = torch.jit.load(str(path), map_location=place).eval()
        both, pixel_size = bool(model.cells_and_nuclei), float(model.pixel_size)
    except (RuntimeError, AttributeError) as error:
        raise BadCheckpoint(
            f"{path}: expected a TorchScript file of InstanSeg ({str(error).splitlines()[0]:.160})"
        ) from None
    target = target or (TARGETS[1] if both else "")
    options = _options(model, settings, target if both else "")

    def answer(block: np.ndarray) -> np.ndarray:
        return _labels(model, block, place, options)[None]

    return Adapter(
        name="-".join(
            ("instanseg", path.parent.name if path.name == FILE else path.stem, *filter(None, [target]))
        ),
        digest=digest_of(path, given | {f"target {target}": 1}, torch.__version__),
        answer=answer,
        normalise={"kind": "percentile", "low": 0.1, "high": 99.9},
        halo_px=HALO_PX,
        stride=STRIDE,
        pixel_size_um=pixel_size if 0 < pixel_size < 100 else None,
        min_area=int(given["min_size"]),
    )


def _options(model: Any, settings: Settings, target: str) -> dict[str, Any]:
    """Return what is handed to the model beside the image; a setting that this model does not take is refused."""
    accepted = {argument.name for argument in model.forward.schema.arguments}
    unknown = sorted(set(settings) - accepted)
    if unknown:
        raise ValueError(f"method: this InstanSeg model does not take {', '.join(unknown)}; leave it out")
    options: dict[str, Any] = dict(settings)
    if "peak_distance" in options:
        options["peak_distance"] = int(options["peak_distance"])
    if target:
        options["target_segmentation"] = torch.tensor([int(target == one) for one in TARGETS])
    return options


@torch.inference_mode()
def _labels(model: Any, block: np.ndarray, device: torch.device, options: dict[str, Any]) -> np.ndarray:
    """Return the label image of a normalised block."""
    height, width = block.shape[1:]
    images = torch.from_numpy(padded(block, 1, least=4 * STRIDE)).to(device)[None]
    labels: np.ndarray = model(images, **options)[0, 0, :height, :width].cpu().numpy()
    return labels.astype(np.int32)


def _file(name: str) -> Path:
    """Return the TorchScript file: a path, a model in the package's cache, or a published one that is downloaded."""
    place = Path(name)
    for path in (place, place / FILE):
        if path.is_file():
            return path
    cache = _cache()
    if files := sorted(cache.glob(f"{name}/{FILE}")) or sorted(cache.glob(f"{name}/*/{FILE}")):
        return files[-1]
    package = optional("instanseg.utils.utils", extra="instanseg")
    os.environ.setdefault("INSTANSEG_BIOIMAGEIO_PATH", str(cache))
    try:
        package.download_model(name, verbose=False)
    except Exception as error:  # the package raises plain exceptions for a model that it does not know
        raise not_to_be_had(f"instanseg:{name}", cache / name, error) from None
    return sorted(cache.glob(f"{name}/**/{FILE}"))[-1]


def _cache() -> Path:
    """Return the folder in which the package keeps its models."""
    if chosen_by_user := os.environ.get("INSTANSEG_BIOIMAGEIO_PATH"):
        return Path(chosen_by_user)
    package = util.find_spec("instanseg")
    inside = Path(package.origin).parent if package and package.origin else Path.home() / ".instanseg"
    return inside / "bioimageio_models"
