"""Which device to compute on and in which arithmetic.

The invariant: a device that was asked for by name and is not there is an error, never a silent fallback.
"""

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from model.errors import NoDevice

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        NoDevice: the device is not there.
        ValueError: no such kind of device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"device: expected 'auto', 'cpu', 'cuda', 'cuda:<n>' or 'mps', got {name!r}"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NoDevice(
            f"device {name!r}: expected a CUDA GPU, found {torch.cuda.device_count()}; use device 'cpu'"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise NoDevice(f"device {name!r}: no Metal GPU here; use device 'cpu'")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device: expected 'auto', 'cpu', 'cuda', 'cuda:<n>' or 'mps', got {name!r}")
    return device


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network on a device, its kernels in ``channels_last`` order."""
    return convert_conv2d_weight_memory_format(network.to(device), torch.channels_last)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which convolutions run at a precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {sorted(PRECISIONS)}, got {precision!r}")
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "float32")
