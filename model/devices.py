"""Which device to compute on, in which arithmetic, and how much memory it has left.

A device that was asked for by name and is missing is an error, never a silent fallback. Free memory matters because
running out of it on a CPU is no error that can be caught: the system ends the process. The free memory is never
reported above the limit of the process's control group; it is known on Linux only.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from model.errors import NoDevice
from model.precision import PRECISIONS, Precision

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        NoDevice: the device is not available.
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
    return torch.autocast(device.type, dtype=DTYPES.get(precision), enabled=precision != "float32")


def has_instructions(device: torch.device, precision: Precision) -> bool:
    """Whether a device has instructions for an arithmetic, so that it is faster there than float32.

    Without them a CPU still computes bfloat16, step by step, in more than twice the time of float32.
    """
    if precision != "bfloat16":
        return precision == "float32" or device.type == "cuda"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


GROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes a device has left for this process; ``None`` where that cannot be known."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type != "cpu":
        return None
    limits = [value for value in (_available(), _left_in_group()) if value is not None]
    return min(limits, default=None)


def _available() -> int | None:
    if not MEMINFO.is_file():
        return None
    fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
    value = fields.get("MemAvailable")
    return int(value.split()[0]) * 1024 if value else None


def _left_in_group() -> int | None:
    """Memory left within the limit of the control group (version 2); cached file pages count as free."""
    try:
        limit = (GROUP / "memory.max").read_text().strip()
        used = int((GROUP / "memory.current").read_text())
        stats = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(stats.get("inactive_file", 0))
