"""Checkpoints: a folder with ``weights.safetensors`` and ``card.json``. Nothing pickled is ever loaded.

Loading succeeds only if the tensors are exactly those of the network and the bytes those the card was made for.
"""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from model.card import FORMAT, WEIGHTS, digest_of, read_card, shipped, with_settings, write_card
from model.errors import BadCheckpoint
from model.kinds import method_from
from model.method import Method
from model.networks.network import Network

__all__ = ["Checkpoint", "load_checkpoint", "read_card", "save_checkpoint", "shipped"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded model: its card, its method and the network in evaluation mode, float32, on the CPU."""

    card: dict[str, Any]
    method: Method
    network: Network


def save_checkpoint(
    folder: str | Path,
    *,
    network: Network,
    method: Method,
    name: str,
    normalise: Mapping[str, Any] | None = None,
    pixel_size_um: float | None = None,
    licence: str = "",
    about: Mapping[str, Any] | None = None,
    half: bool = False,
) -> dict[str, Any]:
    """Write a checkpoint and return its card.

    ``about``: further fields such as data, citation and scores; they do not enter the digest. ``half`` stores
    float16, half the size.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    blob = save(_tensors(network, half=half))
    settings = method.as_dict()
    del settings["shape"]
    card: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "method": settings,
        "network": network.shape.as_dict(),
        "channels": network.shape.channels,
        "normalise": dict(normalise) if normalise is not None else None,
        "pixel_size_um": pixel_size_um,
        "layers": method.layers,
        "min_area": method.min_area,
        "link": method.link,
        "owner": method.owner,
        "halo_px": network.halo_px + method.margin_px,
        "stride": network.stride,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "licence": licence,
        "code_version": _version(),
        "weights_sha256": hashlib.sha256(blob).hexdigest(),
    }
    card |= {key: value for key, value in (about or {}).items() if key not in card}
    card["digest"] = digest_of(card)
    partial = target / f".{WEIGHTS}.partial"
    partial.write_bytes(blob)
    partial.replace(target / WEIGHTS)
    write_card(target, card)
    return card


def load_checkpoint(folder: str | Path, settings: Mapping[str, Any] = MappingProxyType({})) -> Checkpoint:
    """Load a checkpoint folder, or a shipped model by its name; ``settings``: other thresholds or least area.

    Raises:
        BadCheckpoint: no card or weights, a digest that does not fit, a newer format, a missing or extra
            tensor, a tensor of another shape.
    """
    path = shipped().get(str(folder), Path(folder))
    card = with_settings(read_card(path), settings)
    tensors = _read_tensors(path, card)
    try:
        method = method_from(card["method"] | {"shape": card["network"]})
    except (TypeError, ValueError) as error:
        raise BadCheckpoint(
            f"{str(path)!r}: expected a network and method of this version: {error}"
        ) from error
    with torch.device("meta"):
        network = method.network(card["channels"])
    _check_tensors(network.state_dict(), tensors, where=str(path))
    network.load_state_dict(tensors, assign=True)
    return Checkpoint(card=card, method=method, network=network.eval())


def _tensors(network: Network, *, half: bool) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        value = value.detach().cpu()
        tensors[name] = (value.half() if half and value.is_floating_point() else value).contiguous().clone()
    return tensors


def _read_tensors(path: Path, card: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    try:
        blob = (path / WEIGHTS).read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"{str(path)!r}: expected {WEIGHTS} beside the card, but {error}") from error
    digest = hashlib.sha256(blob).hexdigest()
    if digest != card["weights_sha256"]:
        raise BadCheckpoint(
            f"{str(path)!r}: expected weights with sha256 {card['weights_sha256']!r}, got {digest!r}; "
            "copy both files again"
        )
    try:
        tensors = load(blob)
    except SafetensorError as error:
        raise BadCheckpoint(f"{str(path)!r}: expected safetensors in {WEIGHTS}, but {error}") from error
    return {name: value.float() for name, value in tensors.items()}


def _check_tensors(
    expected: Mapping[str, torch.Tensor], tensors: dict[str, torch.Tensor], *, where: str
) -> None:
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            tensors.setdefault(name, torch.zeros((), dtype=torch.long))
        elif name not in tensors:
            raise BadCheckpoint(f"{where!r}: expected tensor {name!r}, but it is missing")
        elif tensors[name].shape != value.shape:
            raise BadCheckpoint(
                f"{where!r}: expected tensor {name!r} of shape {tuple(value.shape)}, got {tuple(tensors[name].shape)}"
            )
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise BadCheckpoint(f"{where!r}: expected no other tensors, got {extra!r}")


def _version() -> str:
    try:
        return importlib.metadata.version("platelayer")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
