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
    outputs = _outputs(method, network, np.asarray(image)[None], device)
    return {name: value[0] for name, value in outputs.items()}


@torch.inference_mode()
def predict(
    method: Method,
    network: nn.Module,
    images: Sequence[np.ndarray],
    *,
    device: torch.device | str = "cpu",
    together: int = 1,
) -> list[np.ndarray]:
    """Return the label stacks uint32 ``(L, y, x)`` of normalised images ``(C, y, x)``.

    Up to ``together`` images of one shape go through the network at once.
    """
    stacks: dict[int, np.ndarray] = {}
    for numbers in _batches([image.shape for image in images], together):
        outputs = _outputs(method, network, np.stack([images[number] for number in numbers]), device)
        arrays = {name: value.cpu().numpy() for name, value in outputs.items()}
        for place, number in enumerate(numbers):
            height, width = images[number].shape[-2:]
            one = {name: value[place] for name, value in arrays.items()}
            stacks[number] = method.decode(one, (height, width))
    return [stacks[number] for number in range(len(images))]


@torch.inference_mode()
def validation_loss(
    method: Method,
    network: nn.Module,
    samples: Sequence[Sample],
    phase: Phase,
    *,
    device: torch.device | str = "cpu",
    together: int = 1,
) -> float:
    """Return the weighted loss of a phase, mean over whole images; 0 without samples.

    With ``together`` images of one shape at once, terms that are a mean over the batch are means over those images.
    """
    total = 0.0
    for numbers in _batches([image.shape for image, _ in samples], together):
        height, width = (size - size % method.stride for size in samples[numbers[0]][0].shape[1:])
        window = np.s_[:, :height, :width]
        images = np.stack([samples[number][0][window] for number in numbers]).astype(np.float32, copy=False)
        targets = method.encode([samples[number][1][window] for number in numbers]).to(device)
        batch = torch.from_numpy(images).to(device)
        terms = method.losses(network, batch, targets, phase, seeded(numbers[0]))
        total += len(numbers) * float(sum(phase.weights[name] * value for name, value in terms.items()))
    return total / max(len(samples), 1)


def _batches(shapes: Sequence[tuple[int, ...]], together: int) -> list[list[int]]:
    """Return the numbers of images in lists of one shape and at most ``together``."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(number)
    return [
        numbers[start : start + together]
        for numbers in by_shape.values()
        for start in range(0, len(numbers), together)
    ]


def _outputs(
    method: Method, network: nn.Module, images: np.ndarray, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """Return the outputs for images ``(B, C, y, x)``, padded to the stride, on the device."""
    batch = torch.from_numpy(np.ascontiguousarray(images, np.float32)).to(device)
    whole = padded(batch, method.stride).contiguous(memory_format=torch.channels_last)
    return method.outputs(network, whole)
