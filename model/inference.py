"""Predictions for whole images in memory, as validation and threshold tuning need them.

The invariant: images are padded at the bottom and right only, by repeating the edge, and cut back. Large
images are the pipeline's business.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from model.method import Phase
from model.methods.layering import Layering
from model.patches import Sample


def padded(images: torch.Tensor, stride: int) -> torch.Tensor:
    """Pad images ``(B, C, y, x)`` at the bottom and right to multiples of ``stride`` by repeating the edge."""
    height, width = images.shape[-2:]
    below, right = -height % stride, -width % stride
    if not below and not right:
        return images
    return functional.pad(images, (0, right, 0, below), mode="replicate")


@torch.inference_mode()
def outputs_of(
    method: Layering, network: nn.Module, image: np.ndarray, *, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Return the probabilities of one normalised image ``(C, y, x)``: ``{head: (maps, y, x)}`` on the device."""
    height, width = image.shape[-2:]
    batch = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].to(device)
    outputs = method.outputs(
        network, padded(batch, method.shape.stride).contiguous(memory_format=torch.channels_last)
    )
    return {name: value[0, :, :height, :width] for name, value in outputs.items()}


def predict(
    method: Layering, network: nn.Module, image: np.ndarray, *, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Return the label stack uint32 ``(N, y, x)`` of one normalised image ``(C, y, x)``."""
    outputs = outputs_of(method, network, image, device=device)
    return method.decode({name: value.cpu().numpy() for name, value in outputs.items()})


@torch.inference_mode()
def validation_loss(
    method: Layering,
    network: nn.Module,
    samples: Sequence[Sample],
    phase: Phase,
    *,
    device: torch.device | str = "cpu",
) -> float:
    """Return the weighted loss of a phase, mean over whole images; 0 without samples."""
    total = 0.0
    for image, stack in samples:
        height, width = (size - size % method.shape.stride for size in image.shape[1:])
        batch = torch.from_numpy(np.ascontiguousarray(image[None, :, :height, :width], np.float32))
        targets = method.encode([stack[:, :height, :width]]).to(device)
        terms = method.losses(network, batch.to(device), targets, phase)
        total += float(sum(phase.weights[name] * value for name, value in terms.items()))
    return total / max(len(samples), 1)
