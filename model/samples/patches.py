"""Batches of training crops; each batch is a function of the seed and the number of its step alone.

The batch of step ``s`` does not depend on the steps before it, so a resumed training sees what an uninterrupted one
would have seen. Samples come in as arrays; no store is read.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from model.classes import CLASS_STEP, class_of
from model.errors import BadSample
from model.samples.augment import Augment, resample, sampling_grid
from model.samples.intensity import (
    Levels,
    empty_field,
    levels_of,
    mean_levels,
    standardised,
    vary_intensities,
)
from model.samples.paste import bank_of, paste

Sample = tuple[np.ndarray, np.ndarray]
"""A normalised image float32 ``(C, y, x)`` and its label stack uint32 ``(L, y, x)``."""

Crop = tuple[torch.Tensor, np.ndarray, Any, int]
"""Image ``(C, y, x)``, stack ``(L, y, x)``, what the method prepared for it, and the index of the sample."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops of one size with their stacks and what the method prepared for them."""

    images: torch.Tensor
    """float32 ``(B, C, y, x)``."""
    stacks: list[np.ndarray]
    """Label stacks ``(L, y, x)``, of possibly different depth."""
    prepared: list[Any]
    """Result of ``Method.prepare`` for the sample, or crop, of each stack."""
    samples: list[int]
    """Which sample each crop is of; -1 for a crop without objects."""

    def pin_memory(self) -> "Batch":
        """Return the batch with its images in pinned memory, from which a GPU reads without a detour."""
        return replace(self, images=self.images.pin_memory())


class Patches:
    """Draws augmented crops from samples, which are resampled and varied on the CPU.

    Labels are renumbered 1, 2, ... per sample; where they hold classes (`model.classes`), crops have the ids of the
    sample. ``prepare`` is that of the method: it is called once per sample, before augmentation, and for every crop
    onto which objects were pasted or that has none.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        crop_px: int,
        augment: Augment,
        prepare: Callable[..., Any],
        seed: int,
    ) -> None:
        check_samples(samples)
        self.crop_px, self.augment, self.seed = crop_px, augment, seed
        stacks = [_dense(stack) for _, stack in samples]
        self._ids = [_ids(stack) for _, stack in samples]
        self._classified = any(class_of(ids).any() for ids in self._ids)
        boxes = [_boxes(stack) for stack in stacks]
        images = [np.ascontiguousarray(image, np.float32) for image, _ in samples]
        self._images = [torch.from_numpy(image) for image in images]
        self._stacks = [torch.from_numpy(stack) for stack in stacks]
        self._centres = [_centres(sample_boxes) for sample_boxes in boxes]
        self._prepare = prepare
        self._prepared = [prepare(stack) for stack in stacks]
        levels = [levels_of(*pair) for pair in zip(self._images, self._stacks, strict=True)]
        self._level = mean_levels(levels)
        self._levels = [self._level if level is None else level for level in levels]
        used = zip(images, stacks, strict=True) if augment.paste else ()
        kinds = [class_of(ids) for ids in self._ids]
        self._bank = bank_of(list(used), boxes if augment.paste else [], kinds=kinds, seed=seed)
        self._weights = np.array([np.sqrt(image[0].size) for image in images])
        self._weights /= self._weights.sum()

    def batch(self, step: int, size: int, *, first: int = 0) -> Batch:
        """Return ``size`` crops of a step, from the one numbered ``first``."""
        numbers = range(first, first + size)
        crops = [self._crop(np.random.default_rng([self.seed, step, number])) for number in numbers]
        images, stacks, prepared, chosen = zip(*crops, strict=True)
        return Batch(
            images=torch.stack(images), stacks=list(stacks), prepared=list(prepared), samples=list(chosen)
        )

    def _crop(self, rng: np.random.Generator) -> Crop:
        if self.augment.empty and rng.random() < self.augment.empty:
            image = empty_field(rng, self.augment, self._level, self.crop_px)
            image = standardised(image) if self.augment.standardise else image
            nothing = np.zeros((1, self.crop_px, self.crop_px), np.int32)
            return image, nothing, self._prepare(nothing), -1
        chosen = int(rng.choice(len(self._images), p=self._weights))
        image, stack, levels = self._images[chosen], self._stacks[chosen], self._levels[chosen]
        centre = self._centre(rng, image.shape[-2:])
        geometry = sampling_grid(rng, self.augment, centre=centre, size=self.crop_px)
        outside = levels.background if self.augment.outside == "background" else 0.0
        image, stack = resample(image, stack, geometry.grid, outside=outside)
        prepared, places = self._prepared[chosen], geometry.in_crop(self._centres[chosen])
        kinds: list[int] = []
        if self._bank and rng.random() < self.augment.paste:
            stack, kinds = self._paste(rng, image, stack, places, levels)
            first = len(places) + 1
            pasted = range(first, first + len(kinds))
            prepared = self._prepare(stack.numpy(), known=prepared, pasted=pasted)
        image = vary_intensities(rng, self.augment, image, stack, levels, places=places)
        labels = self._with_classes(stack.numpy(), chosen, kinds)
        return image, labels, prepared, chosen

    def _with_classes(self, labels: np.ndarray, sample: int, pasted: Sequence[int]) -> np.ndarray:
        """Return the stack of a crop with the ids of its sample, where they hold classes.

        ``pasted``: classes of the objects that were pasted, whose labels follow those of the sample.
        """
        if not self._classified:
            return labels
        ids = self._ids[sample]
        added = [kind * CLASS_STEP + label for label, kind in enumerate(pasted, start=len(ids) + 1)]
        coded: np.ndarray = np.array([0, *ids.tolist(), *added], np.uint32)[labels]
        return coded

    def _centre(self, rng: np.random.Generator, shape: Sequence[int]) -> tuple[float, float]:
        """Return a place from which the crop stays inside the image, give or take an eighth of its edge.

        Where shifts are asked for: the centre of the image, shifted.
        """
        if self.augment.shift_px:
            return _shifted(rng, self.augment, shape)
        most = self.crop_px * 0.375
        places = [
            rng.uniform(min(most, size / 2), max(size - most, size / 2)) + rng.uniform(-0.5, 0.5)
            for size in shape
        ]
        return places[0], places[1]

    def _paste(
        self,
        rng: np.random.Generator,
        image: torch.Tensor,
        stack: torch.Tensor,
        places: np.ndarray,
        levels: Levels,
    ) -> tuple[torch.Tensor, list[int]]:
        """Lay banked objects over a crop whose objects have their centres at ``places``.

        Changes the image in place; returns the stack, one layer deeper, and the classes of the pasted objects, whose
        labels follow those of the sample.
        """
        stack = functional.pad(stack, (0, 0, 0, 0, 0, 1))
        first, kinds = len(places) + 1, []
        for label in range(first, first + int(rng.integers(1, self.augment.paste_most + 1))):
            cut = self._bank[int(rng.integers(len(self._bank)))]
            if self.augment.paste_contrast is not None:
                cut = cut.scaled_to(levels.contrast * float(rng.uniform(*self.augment.paste_contrast)))
            cut = cut.turned(int(rng.integers(4)), flipped=bool(rng.random() < 0.5))
            paste(image, stack, cut, centre=self._target(rng, places, max(cut.mask.shape)), label=label)
            kinds.append(cut.kind)
        return stack, kinds

    def _target(self, rng: np.random.Generator, places: np.ndarray, length: int) -> tuple[int, int]:
        """Return a pixel near the centre of an object three times out of four, else any pixel."""
        inside = places[((places >= 0) & (places < self.crop_px)).all(1)]
        if not len(inside) or rng.random() < 0.25:
            return int(rng.integers(self.crop_px)), int(rng.integers(self.crop_px))
        y, x = inside[int(rng.integers(len(inside)))] + rng.uniform(-0.6, 0.6, 2) * length
        return int(y), int(x)


def _shifted(rng: np.random.Generator, settings: Augment, shape: Sequence[int]) -> tuple[float, float]:
    """Return the centre of an image of ``shape`` (y, x), shifted at random."""
    most = settings.shift_px if rng.random() < settings.shift else 0
    least = -most if settings.shift_both else 0
    y, x = ((size - 1) / 2 + rng.uniform(least, most) for size in shape)
    return y, x


def _dense(stack: np.ndarray) -> np.ndarray:
    """Return a stack with its labels renumbered 1, 2, ... in their order, int32."""
    labels = np.unique(stack)
    labels = labels[labels > 0]
    return np.where(stack > 0, np.searchsorted(labels, stack) + 1, 0).astype(np.int32)


def _ids(stack: np.ndarray) -> np.ndarray:
    """Return the ids of the objects of a stack, ascending."""
    ids: np.ndarray = np.unique(stack[stack > 0])
    return ids


def _boxes(stack: np.ndarray) -> list[tuple[slice, slice]]:
    """Return the bounding boxes (y, x) of the objects 1, 2, ... of a stack with dense labels."""
    return [(box[1], box[2]) for box in ndimage.find_objects(stack) if box is not None]


def _centres(boxes: Sequence[tuple[slice, slice]]) -> np.ndarray:
    """Return the centres ``(n, 2)`` of bounding boxes."""
    return np.array([[(s.start + s.stop - 1) / 2 for s in box] for box in boxes]).reshape(-1, 2)


def check_samples(samples: Sequence[Sample], *, name: str = "training", least_px: int = 1) -> int:
    """Return the number of channels after checking that images and stacks fit each other.

    Raises:
        BadSample: no sample, shapes that do not fit, an image with an edge under ``least_px`` or with a pixel that is
            not a number, different numbers of channels, or not one object in all of them.
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
        if not np.isfinite(image).all():
            channel, y, x = (int(place[0]) for place in np.nonzero(~np.isfinite(image)))
            raise BadSample(
                f"{name} sample {index}: expected finite pixels, got {image[channel, y, x]} in channel {channel} "
                f"at y={y}, x={x}; replace it or leave the image out"
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


def digest_of_samples(samples: Sequence[Sample]) -> str:
    """Return a digest of the pixels and labels of samples, 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for image, stack in samples:
        for array in (np.ascontiguousarray(image, np.float32), np.ascontiguousarray(stack, np.uint32)):
            digest.update(str(array.shape).encode())
            digest.update(array.data)
    return digest.hexdigest()[:32]
