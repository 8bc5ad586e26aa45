"""StarDist 2-D models (Schmidt et al. 2018), read from Keras weights into a torch network.

The network is ours (`model.networks.star_unet`, the same layers in the same order), so TensorFlow is not needed;
suppression of polygons and drawing are the package's own compiled functions.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import re
import tempfile
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.adapters.adapter import Adapter, Settings, chosen, digest_of, not_to_be_had, optional, padded
from model.devices import choose_device
from model.errors import BadCheckpoint
from model.networks.star_unet import StarShape, StarUNet

WEIGHTS = ("weights_best.h5", "weights_last.h5", "weights_now.h5")
"""Weights in a model's folder, in the order in which the package prefers them."""

FIXED = {
    "n_dim": 2, "backbone": "unet", "unet_kernel_size": [3, 3], "unet_pool": [2, 2], "unet_n_conv_per_depth": 2,
    "unet_activation": "relu", "unet_last_activation": "relu", "unet_batch_norm": False, "unet_prefix": "",
}  # fmt: skip
"""What the configuration of a model has to say for its layers to be those of our network."""

RELEASE = "https://github.com/stardist/stardist-models/releases/download/v0.1"
"""Where the authors keep the published models."""

PUBLISHED = {
    "2D_versatile_fluo": "4ad678d0758eed6e55625f1b5ae30771e59adb79f1239e09b9772eac8846c3dd",
    "2D_versatile_he": "f1696ef0631bd7e1c0e5c0d3017e2b4c6a95e284c6aab9c22fc2f08317817b28",
    "2D_paper_dsb2018": "4c11cf68512341d9e8ce3d1278c64ceb8ac400582739f85fcab079a2e82840d2",
}
"""The published 2-D models with the SHA-256 of their files, as the package lists them; importing its list would
import TensorFlow."""

LARGEST_PX = 96
"""Size of an object in px of the model, for which a tile is read far enough beyond its core."""


def load(name: str, *, device: str, settings: Settings) -> Adapter:
    """Load a published model by its name, or a model folder of StarDist with ``config.json`` and Keras weights."""
    optional("stardist.nms", extra="stardist")
    folder = Path(name) if Path(name).is_dir() else _cached(name)
    config, thresholds = _read(folder / "config.json"), {"prob": 0.5, "nms": 0.4}
    if (folder / "thresholds.json").exists():
        thresholds |= _read(folder / "thresholds.json")
    given = chosen(thresholds, settings, name="stardist")
    weights = next((folder / file for file in WEIGHTS if (folder / file).exists()), None)
    if weights is None:
        raise BadCheckpoint(f"{folder}: expected Keras weights, one of {', '.join(WEIGHTS)}; found none")
    network = StarUNet(shape_of(config, folder))
    network.load_state_dict(keras_state(weights, network))
    place = choose_device(device)
    network.eval().to(place)

    def answer(block: np.ndarray) -> np.ndarray:
        return _labels(network, block, place, given)[None]

    return Adapter(
        name=f"stardist-{folder.name}",
        digest=digest_of(weights, given, importlib.metadata.version("stardist")),
        answer=answer,
        normalise={"kind": "percentile", "low": 1.0, "high": 99.8},
        halo_px=network.halo_px + LARGEST_PX,
        stride=network.shape.stride,
        channels=network.shape.channels,
    )


def shape_of(config: dict[str, Any], place: Path) -> StarShape:
    """Return the shape of the network that a StarDist configuration describes.

    Raises:
        BadCheckpoint: 3-D models, and layers that our network does not have.
    """
    other = {key: config.get(key) for key, value in FIXED.items() if config.get(key, value) != value}
    grid = config.get("grid", [1, 1])
    if other or len(set(grid)) != 1:
        raise BadCheckpoint(
            f"{place}: expected a 2-D StarDist model with the U-Net of the published ones, got {other or grid}; export "
            "its labels with the package itself and bring them by `platelayer import-labels`"
        )
    return StarShape(
        channels=config["n_channel_in"],
        rays=config["n_rays"],
        grid=grid[0],
        width=config["unet_n_filter_base"],
        poolings=config["unet_n_depth"],
        head_width=config["net_conv_after_unet"],
    )


def keras_state(weights: Path, network: StarUNet) -> dict[str, torch.Tensor]:
    """Return the parameters of our network from a weights file of Keras: kernels ``(y, x, in, out)`` turned around."""
    h5py = optional("h5py", extra="stardist")
    arrays: dict[tuple[str, str], np.ndarray] = {}

    def collect(path: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            *_, layer, kind = path.split("/")
            arrays[layer, kind.partition(":")[0]] = np.asarray(entry)

    with h5py.File(weights, "r") as file:
        file.visititems(collect)
    state = {}
    try:
        for layer, place in _layers(network, [layer for layer, _ in arrays]):
            state[f"{place}.weight"] = torch.from_numpy(arrays[layer, "kernel"].transpose(3, 2, 0, 1).copy())
            state[f"{place}.bias"] = torch.from_numpy(arrays[layer, "bias"])
    except (KeyError, IndexError):
        raise BadCheckpoint(
            f"{weights}: expected the layers of a StarDist U-Net, found {sorted(arrays)[:6]}"
        ) from None
    return state


def _layers(network: StarUNet, names: list[str]) -> list[tuple[str, str]]:
    """Return the Keras layers with the places of their parameters in our network."""
    shape = network.shape
    # The layers before the grid have running numbers for names: conv2d, conv2d_1, ...
    first = sorted({n for n in names if re.fullmatch(r"conv2d(_\d+)?", n)}, key=lambda n: int(n[7:] or 0))
    pairs = [
        (first[2 * step + i], f"to_grid.{step}.{2 * i}")
        for step in range(len(network.to_grid))
        for i in (0, 1)
    ]
    for level in range(shape.poolings):
        for i in (0, 1):
            pairs.append((f"down_level_{level}_no_{i}", f"down.{level}.{2 * i}"))
            pairs.append((f"up_level_{level}_no_{2 * i}", f"up.{level}.{2 * i}"))
    pairs += [("middle_0", "middle.0"), ("middle_2", "middle.2"), ("features", "features.0")]
    return [*pairs, ("prob", "probability"), ("dist", "distances")]


@torch.inference_mode()
def _labels(network: StarUNet, block: np.ndarray, device: torch.device, thresholds: Settings) -> np.ndarray:
    """Return the label image of a block, as ``StarDist2D.predict_instances`` would."""
    from stardist.geometry import polygons_to_label
    from stardist.nms import non_maximum_suppression

    images = torch.from_numpy(padded(block, network.shape.stride)).to(device)[None]
    outputs = network(images)
    grid, (height, width) = network.shape.grid, block.shape[1:]
    rows, columns = -(-height // grid), -(-width // grid)
    probability = outputs["probability"][0, 0, :rows, :columns].sigmoid().cpu().numpy()
    distances = outputs["distances"][0, :, :rows, :columns].movedim(0, -1).cpu().numpy()
    points, scores, radii = non_maximum_suppression(
        np.maximum(distances, 1e-3), probability, grid=(grid, grid), prob_thresh=thresholds["prob"],
        nms_thresh=thresholds["nms"],
    )  # fmt: skip
    labels: np.ndarray = polygons_to_label(radii, points, prob=scores, shape=(height, width))
    return labels.astype(np.int32)


def _read(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadCheckpoint(
            f"{path}: expected the JSON file of a StarDist model, cannot read it ({error})"
        ) from None
    return table


def _cached(name: str) -> Path:
    """Return the folder of a published model in the cache of Keras, where the package has it; download it if needed."""
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / "StarDist2D" / name
    for folder in (cache, cache / f"{name}_extracted", cache / name):
        if (folder / "config.json").exists():
            return folder
    if name not in PUBLISHED:
        raise BadCheckpoint(
            f"stardist:{name}: neither a folder nor a published 2-D model; published are: {', '.join(PUBLISHED)}"
        )
    return _downloaded(name, cache)


def _downloaded(name: str, cache: Path) -> Path:
    """Download a published model, check it, and unpack it into the cache: whole, or not at all."""
    url = f"{RELEASE}/python_{name}.zip"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data: bytes = answer.read()
    except OSError as error:
        raise not_to_be_had(f"stardist:{name}", cache, error) from None
    if hashlib.sha256(data).hexdigest() != PUBLISHED[name]:
        raise BadCheckpoint(
            f"{url}: the file is not the one that StarDist published (other SHA-256); try again"
        )
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(folder)
        Path(folder).rename(cache)
        Path(folder).mkdir()  # for the context to remove
    return cache
