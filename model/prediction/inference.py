"""Predictions for whole images in memory, as validation and threshold tuning need them.

Images are padded at the bottom and right only, by repeating the edge, and the results are cropped to the image.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from model.method import Method, Phase
from model.samples.patches import Sample


def padded(images: torch.Tensor, stride: int) -> torch.Tensor:
    """Pad images ``(B, C, y, x)`` at the bottom and right to multiples of ``stride`` by repeating the edge."""
    height, width = images.shape[-2:]
    below, right = -height % stride, -width % stride
    if not below and not right:
        return images
    return functional.pad(images, (0, right, 0, below), mode="replicate")


def seeded(*numbers: int) -> torch.Generator:
    """Return a generator of random numbers on the CPU that is a function of some numbers."""
    state = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


@torch.inference_mode()
def outputs_of(
    method: Method, network: nn.Module, image: np.ndarray, *, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Return the method's outputs for one normalised image ``(C, y, x)``, padded to the stride, on the device.

    They have no batch axis.
    """
    batch = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].to(device)
    outputs = method.outputs(
        network, padded(batch, method.stride).contiguous(memory_format=torch.channels_last)
    )
    return {name: value[0] for name, value in outputs.items()}


def predict(
    method: Method, network: nn.Module, image: np.ndarray, *, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Return the label stack uint32 ``(L, y, x)`` of one normalised image ``(C, y, x)``."""
    outputs = outputs_of(method, network, image, device=device)
    height, width = image.shape[-2:]
    return method.decode({name: value.cpu().numpy() for name, value in outputs.items()}, (height, width))


@torch.inference_mode()
def validation_loss(
    method: Method,
    network: nn.Module,
    samples: Sequence[Sample],
    phase: Phase,
    *,
    device: torch.device | str = "cpu",
) -> float:
    """Return the weighted loss of a phase, mean over whole images; 0 without samples."""
    total = 0.0
    for index, (image, stack) in enumerate(samples):
        height, width = (size - size % method.stride for size in image.shape[1:])
        batch = torch.from_numpy(np.ascontiguousarray(image[None, :, :height, :width], np.float32))
        targets = method.encode([stack[:, :height, :width]]).to(device)
        terms = method.losses(network, batch.to(device), targets, phase, seeded(index))
        total += float(sum(phase.weights[name] * value for name, value in terms.items()))
    return total / max(len(samples), 1)
