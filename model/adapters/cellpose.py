"""Cellpose models: ``cpsam`` of Cellpose 4, and ``cyto3``, ``nuclei`` and their kin of Cellpose 3.

Both versions are called through their class ``CellposeModel``; which one is installed decides which weights it can
read. The network sees a tile in overlapping patches and, in version 3, a style vector of each patch, so that its
answer depends a little on where a tile begins.
"""

import importlib.metadata
import inspect
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from model.adapters.adapter import Adapter, Settings, chosen, digest_of, not_to_be_had, optional
from model.devices import choose_device
from model.errors import BadCheckpoint

SETTINGS = {"diameter": 0, "flow_threshold": 0.4, "cellprob_threshold": 0.0, "min_size": 15}
"""Settings with the package's defaults; diameter 0: objects have the size that the model was trained for."""

USUAL_DIAMETER_PX = 30
"""Diameter in px of the objects that models are trained for."""

LEAST_HALO_PX = 128
"""Half a patch of the network: what lies further away reaches a pixel through no patch."""

OLDER = (
    "cellpose 3: pip install --no-deps 'cellpose==3.1.1.3' numba (its numpy<2.1 is stricter than its code)"
)
"""How to install the version that reads ``cyto3``."""

NEWER = "; cpsam needs cellpose 4: pip install 'platelayer[cellpose]'"
"""How to install the version that reads ``cpsam``."""

_operators: list[torch.library.Library] = []
"""Declared operators, which last as long as this list holds them."""


def load(name: str, *, device: str, settings: Settings) -> Adapter:
    """Load a Cellpose model by its name or by the path of its weights."""
    tolerate_vision_without_operators()
    models = optional("cellpose.models", extra="cellpose")
    version = importlib.metadata.version("cellpose")
    given = chosen(SETTINGS, settings, name="cellpose")
    weights = _weights(models, name, version)
    model = _model(models, weights, device, name, version)
    diameter = given["diameter"] or USUAL_DIAMETER_PX

    def answer(block: np.ndarray) -> np.ndarray:
        return _labels(model, block, given)[None]

    return Adapter(
        name=f"cellpose-{weights.name if Path(name).exists() else name}",
        digest=digest_of(weights, given, version),
        answer=answer,
        normalise={"kind": "percentile", "low": 1.0, "high": 99.0},
        halo_px=max(LEAST_HALO_PX, ceil(3 * diameter)),
        min_area=int(given["min_size"]),
    )


def _weights(models: ModuleType, name: str, version: str) -> Path:
    """Return the file of the weights: a path, or a known model in the package's cache, downloaded if needed."""
    if Path(name).is_file():
        return Path(name)
    known = [*models.MODEL_NAMES, *models.get_user_models()]
    if name not in known:
        other = f"; cyto3 and other networks of version 3 need {OLDER}" if version >= "4" else NEWER
        raise BadCheckpoint(
            f"cellpose:{name}: neither a file nor a model of cellpose {version}, which knows {', '.join(known)}{other}"
        )
    find = getattr(models, "model_path", models.cache_model_path)
    try:
        return Path(find(name))
    except OSError as error:
        raise not_to_be_had(f"cellpose:{name}", Path(models.MODEL_DIR) / name, error) from None


def _model(models: ModuleType, weights: Path, device: str, name: str, version: str) -> Any:
    """Return the package's model with its network on a device; float32, so that CPU and GPU agree."""
    place = choose_device(device)
    options: dict[str, Any] = {"device": place, "gpu": place.type == "cuda", "pretrained_model": str(weights)}
    if "use_bfloat16" in inspect.signature(models.CellposeModel).parameters:
        options["use_bfloat16"] = False
    try:
        return models.CellposeModel(**options)
    except (AssertionError, ValueError, KeyError, RuntimeError) as error:
        raise BadCheckpoint(
            f"cellpose:{name}: cellpose {version} cannot read these weights ({str(error).splitlines()[0]:.160}); "
            f"models of version 3 and 4 need their own version. For version 3: {OLDER}"
        ) from None


def _labels(model: Any, block: np.ndarray, settings: Settings) -> np.ndarray:
    """Return the label image of a normalised block; nothing is removed for its size, which only a whole object has."""
    parameters = inspect.signature(model.eval).parameters
    options: dict[str, Any] = {
        "channel_axis": 0, "normalize": False, "diameter": settings["diameter"] or None,
        "flow_threshold": settings["flow_threshold"], "cellprob_threshold": settings["cellprob_threshold"],
        "min_size": -1, "max_size_fraction": 1.0,
    }  # fmt: skip
    if "interp" in parameters and len(block) == 1:  # version 3, where a single channel is called grey
        options |= {"channels": [0, 0], "channel_axis": None}
        block = block[0]
    masks = model.eval(block, **options)[0]
    labels: np.ndarray = np.asarray(masks).reshape(block.shape[-2:]).astype(np.int32)
    return labels


def tolerate_vision_without_operators() -> None:
    """Declare torchvision's compiled operators where its wheel was built for another torch (the CPU build of torch).

    Cellpose uses functions of torchvision that are plain Python; the import alone fails, for want of two operators.
    """
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        return  # the package says that it is missing, or does not need it
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(library)
