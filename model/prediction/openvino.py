"""A network compiled by OpenVINO, called like the torch module it was made from; an optional extra for CPUs.

It gives the same outputs by name, within float rounding, for any height and width in multiples of the total stride, so
that halo and thresholds stay the same. OpenVINO is imported only when that device was chosen.
"""

import warnings

import numpy as np
import torch
from torch import nn

from model.errors import NoDevice

DEVICE = "openvino"
"""The name of the device."""
HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""Arithmetic by precision; float16 is for GPUs."""


class OpenVinoNetwork(nn.Module):
    """Images ``(B, C, y, x)`` to logits ``{head: (B, maps, y, x)}`` on as many threads as torch uses."""

    def __init__(self, network: nn.Module, *, channels: int, stride: int, precision: str = "float32") -> None:
        """Compile a folded network in evaluation mode.

        Raises:
            NoDevice: the package is not installed, the CPU does not compute at that precision, or OpenVINO cannot
                convert the network.
        """
        super().__init__()
        try:
            import openvino
        except ImportError as error:
            raise NoDevice(
                f"device {DEVICE!r}: expected the package openvino, but {error}; "
                "install platelayer[openvino] or use device 'cpu'"
            ) from error
        core = openvino.Core()
        _check_precision(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        example = torch.zeros(1, channels, 2 * stride, 2 * stride)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # tracing warns that it is deprecated and skips checks of shapes
            try:
                graph = openvino.convert_model(
                    network, example_input=example, input=[openvino.PartialShape([-1, channels, -1, -1])]
                )
            except (RuntimeError, TypeError, ValueError) as error:
                raise NoDevice(
                    f"device {DEVICE!r}: OpenVINO cannot convert this network ({error}); use device 'cpu'"
                ) from error
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compiled = core.compile_model(graph, "CPU", settings)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits of every head as torch tensors of their own."""
        outputs = self._compiled(np.ascontiguousarray(images.numpy()))
        return {port.get_any_name(): torch.from_numpy(value.copy()) for port, value in outputs.items()}


def _check_precision(precision: str, offered: list[str]) -> None:
    if precision not in HINTS or (precision != "float32" and HINTS[precision].upper() not in offered):
        raise NoDevice(
            f"device {DEVICE!r}: this CPU does not compute in {precision!r} (it offers {', '.join(offered)}); "
            "use precision 'float32'"
        )
