"""Batches of training crops, each a function of the seed and the number of the step alone.

The invariant: the batch of step ``s`` does not depend on the steps before it, so a resumed training sees what
an uninterrupted one would have seen. It reads no store; samples come in as arrays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from model.augment import Augment, resample, sampling_grid, vary_intensities
from model.errors import BadSample
from model.paste import cut_out, paste

Sample = tuple[np.ndarray, np.ndarray]
"""A normalised image float32 ``(C, y, x)`` and its label stack uint32 ``(L, y, x)``."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops of one size with their stacks and what the method prepared for their samples."""

    images: torch.Tensor
    """float32 ``(B, C, y, x)``."""
    stacks: list[np.ndarray]
    """Label stacks ``(L, y, x)``, of possibly different depth."""
    prepared: list[Any]
    """Result of ``Method.prepare`` for the sample, or crop, of each stack."""


class Patches:
    """Draws augmented crops from samples, which lie on ``device`` and are resampled and varied there.

    ``prepare`` is that of the method: it is called once per sample, before augmentation, and for every crop onto which
    objects were pasted.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        crop_px: int,
        augment: Augment,
        prepare: Callable[..., Any],
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        check_samples(samples)
        self.crop_px, self.augment, self.seed = crop_px, augment, seed
        self._samples = samples
        self._images = [
            torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(device) for image, _ in samples
        ]
        self._stacks = [torch.from_numpy(stack.astype(np.int32)).to(device) for _, stack in samples]
        self._ids = [np.unique(stack[stack > 0]) for _, stack in samples]
        self._prepare = prepare
        self._prepared = [prepare(stack) for _, stack in samples]
        self._weights = np.array([np.sqrt(image[0].size) for image, _ in samples])
        self._weights /= self._weights.sum()

    def batch(self, step: int, size: int, *, first: int = 0) -> Batch:
        """Return ``size`` crops of a step, from the one numbered ``first``."""
        numbers = range(first, first + size)
        crops = [self._crop(np.random.default_rng([self.seed, step, number])) for number in numbers]
        images, stacks, prepared = zip(*crops, strict=True)
        return Batch(images=torch.stack(images), stacks=list(stacks), prepared=list(prepared))

    def _crop(self, rng: np.random.Generator) -> tuple[torch.Tensor, np.ndarray, Any]:
        chosen = int(rng.choice(len(self._images), p=self._weights))
        image, stack = self._images[chosen], self._stacks[chosen]
        centre = self._centre(rng, image.shape[-2:])
        grid = sampling_grid(rng, self.augment, centre=centre, size=self.crop_px)
        image, stack = resample(image, stack, grid.to(image.device))
        prepared = self._prepared[chosen]
        if rng.random() < self.augment.paste:
            image, stack, new = self._paste(rng, image, stack)
            prepared = self._prepare(stack.cpu().numpy(), known=prepared, pasted=new)
        return vary_intensities(rng, self.augment, image), stack.cpu().numpy(), prepared

    def _centre(self, rng: np.random.Generator, shape: Sequence[int]) -> tuple[float, float]:
        """A place from which the crop stays inside the image, give or take an eighth of its edge."""
        most = self.crop_px * 0.375
        places = [
            rng.uniform(min(most, size / 2), max(size - most, size / 2)) + rng.uniform(-0.5, 0.5)
            for size in shape
        ]
        if self.augment.shift_px:
            shift = self.augment.shift_px
            places = [size / 2 + rng.uniform(-shift, shift) for size in shape]
        return places[0], places[1]

    def _paste(
        self, rng: np.random.Generator, image: torch.Tensor, stack: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, set[int]]:
        """Lay objects of another sample over the crop, on top of what is there if there is anything."""
        label = int(max(int(stack.max()), max((int(ids[-1]) for ids in self._ids if len(ids)), default=0)))
        new: set[int] = set()
        for _ in range(int(rng.integers(1, self.augment.paste_most + 1))):
            other = int(rng.integers(len(self._ids)))
            if not len(self._ids[other]):
                continue
            chosen = int(rng.choice(self._ids[other]))
            contrast, mask = cut_out(*self._samples[other], chosen)
            contrast, mask = _turned(rng, contrast, mask)
            label += 1
            image, stack = paste(
                image, stack, contrast=contrast, mask=mask, centre=self._target(rng, stack, mask), label=label
            )
            new.add(label)
        return image, stack, new

    def _target(self, rng: np.random.Generator, stack: torch.Tensor, mask: np.ndarray) -> tuple[int, int]:
        """A pixel near an object three times out of four, else any pixel."""
        ys, xs = np.nonzero(stack.any(0).cpu().numpy())
        if not len(ys) or rng.random() < 0.25:
            return int(rng.integers(self.crop_px)), int(rng.integers(self.crop_px))
        index = int(rng.integers(len(ys)))
        jitter = max(mask.shape) * 0.4
        return int(ys[index] + rng.uniform(-jitter, jitter)), int(xs[index] + rng.uniform(-jitter, jitter))


def _turned(
    rng: np.random.Generator, contrast: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
    contrast, mask = np.rot90(contrast, turns, axes=(1, 2)), np.rot90(mask, turns)
    return (contrast[:, ::-1], mask[::-1]) if flip else (contrast, mask)


def check_samples(samples: Sequence[Sample], *, name: str = "training", least_px: int = 1) -> int:
    """Return the number of channels after checking that images and stacks fit each other.

    Raises:
        BadSample: no sample, shapes that do not fit, an image with an edge under ``least_px``, different numbers
            of channels, or not one object in all of them.
    """
    if not samples:
        raise BadSample(f"{name} samples: expected at least one image with its stack, got none")
    channels = samples[0][0].shape[0] if samples[0][0].ndim == 3 else 0
    for index, (image, stack) in enumerate(samples):
        if image.ndim != 3 or stack.ndim != 3 or image.shape[1:] != stack.shape[1:]:
            raise BadSample(
                f"{name} sample {index}: expected an image (C, y, x) and a stack (L, y, x) of one size, "
                f"got {image.shape} and {stack.shape}"
            )
        if min(image.shape[1:]) < least_px:
            raise BadSample(
                f"{name} sample {index}: expected at least {least_px} x {least_px} px, got {image.shape[1:]}; "
                "leave it out"
            )
        if image.shape[0] != channels:
            raise BadSample(
                f"{name} sample {index}: expected {channels} channels like the first image, "
                f"got {image.shape[0]}; choose the same channels of every image"
            )
    if not any(stack.any() for _, stack in samples):
        raise BadSample(f"{name} samples: expected objects, but all {len(samples)} stacks are empty")
    return channels


def check_depth(samples: Sequence[Sample], *, layers: int | None) -> None:
    """Refuse samples in which more objects share a pixel than the network has layers; ``None`` allows any.

    Raises:
        BadSample: names the first such sample and its depth.
    """
    if layers is None:
        return
    for index, (_, stack) in enumerate(samples):
        depth = int((stack > 0).sum(0).max(initial=0))
        if depth > layers:
            raise BadSample(
                f"sample {index}: expected at most {layers} objects on a pixel, one per layer, got {depth}; "
                "choose a method with more layers"
            )
