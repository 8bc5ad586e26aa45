"""The arithmetic of a run: the one that its job names or, with ``auto``, the one that the card of its model chose.

``auto`` is settled before the run is named, and once for all of its workers. A network on this machine runs in the
arithmetic its card chose where the device has instructions for it; everything else is float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from flows.execution.executors import has_gpu_driver
from flows.jobs import Execution
from model.precision import Precision, chosen_precision

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Names of the CPU's instructions for bfloat16 on Linux."""

BEGUN = "in which this run was begun"
"""Reason for the arithmetic of a run that goes on, possibly on another machine."""


@dataclass(frozen=True)
class Arithmetic:
    """An arithmetic, and why it was taken."""

    precision: Precision
    reason: str = ""
    """Why; empty where the job names the arithmetic."""


def settled(
    precision: Precision | Literal["auto"], card: Mapping[str, Any], execution: Execution
) -> Arithmetic:
    """Return the arithmetic in which a model runs.

    Raises:
        BadCheckpoint: the card names an arithmetic that does not exist.
    """
    if precision != "auto":
        return Arithmetic(precision)
    chosen = chosen_precision(card)
    if chosen is None:
        return Arithmetic("float32", "its card names no other")
    if chosen == "float32":
        return Arithmetic("float32", "as its card chose")
    if "://" in execution.executor:
        return Arithmetic("float32", "workers elsewhere may lack other instructions")
    if execution.device == "openvino":
        return Arithmetic("float32", f"its card chose {chosen} for torch, not for OpenVINO")
    if not _has_instructions(execution.device, chosen):
        return Arithmetic("float32", f"no instructions for {chosen} here")
    return Arithmetic(chosen, "as its card chose")


@lru_cache
def _has_instructions(device: str, precision: Precision) -> bool:
    """Ask torch whether the device has instructions for an arithmetic, unless a file of Linux denies it at once."""
    if not (device == "auto" and has_gpu_driver()) and device != "cuda" and _cpu_lacks_bfloat16():
        return False
    from model.devices import choose_device, has_instructions  # imports torch, which takes a second
    from model.errors import NoDevice

    try:
        return has_instructions(choose_device(device), precision)
    except NoDevice:
        return False  # The run itself says that the device is missing.


def _cpu_lacks_bfloat16() -> bool:
    """Whether Linux lists the instructions of the CPU and those for bfloat16 are not among them."""
    return CPUINFO.is_file() and not BFLOAT16_FLAGS.intersection(CPUINFO.read_text().split())
