"""A trained network as a function from a block of an image to layer masks, as a tiled pipeline calls it.

The invariant: the answer at a pixel depends on the block within ``halo_px`` of it and on nothing else, so
blocks with that halo, at multiples of ``stride``, agree with the whole image. Images come in normalised.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from model.card import answers_digest
from model.checkpoint import Checkpoint, load_checkpoint
from model.devices import PRECISIONS, autocast, choose_device, placed
from model.inference import padded
from model.memory import bytes_per_px, free_bytes
from model.methods.layering.decode import packed, unpacked
from model.networks.folding import folded
from model.openvino import DEVICE, OpenVinoNetwork

Precision = Literal["float32", "bfloat16", "float16"]
FREE_SHARE = 0.8
"""Part of the free memory that one forward pass may take."""


class TorchSegmenter:
    """Blocks float32 ``(C, y, x)`` to layer masks bool ``(K, y, x)``; see the attributes for what it expects."""

    link: Literal["touch"] = "touch"
    """Components of a layer are objects, decided pixel by pixel."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        overlaps: bool = True,
    ) -> None:
        """Prepare a checkpoint for inference.

        ``device``: as in ``choose_device``, or ``openvino`` for a CPU with that package. ``overlaps=False``: the
        largest layer of every pixel only, so that no objects overlap.

        Raises:
            NoDevice: the device is not there.
            ValueError: no such device or precision.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {sorted(PRECISIONS)}, got {precision!r}")
        card = checkpoint.card
        self.card: dict[str, Any] = card
        self.device = choose_device("cpu" if device == DEVICE else device)
        self.precision, self.overlaps, self.method = precision, overlaps, checkpoint.method
        network = folded(checkpoint.network)
        self.network = (
            OpenVinoNetwork(
                network, channels=card["channels"], stride=checkpoint.network.stride, precision=precision
            )
            if device == DEVICE
            else placed(network, self.device)
        )
        self.name: str = card["name"]
        self.halo_px: int = checkpoint.network.halo_px
        self.stride: int = checkpoint.network.stride
        self.layers: int = checkpoint.method.layers
        self.channels: int = card["channels"]
        self.normalise: dict[str, Any] | None = card["normalise"]
        self.min_area: int = card["min_area"]
        self.licence: str = card["licence"]
        self.pixel_size_um: float | None = card["pixel_size_um"]
        self.digest = answers_digest(card["digest"], precision=precision, overlaps=overlaps)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Return the layer masks of a normalised block; memory that runs out is met by smaller pieces.

        Raises:
            ValueError: other channels than the network was trained for, or values that are not finite.
            MemoryError: not even the smallest piece fits.
        """
        if block.ndim != 3 or block.shape[0] != self.channels:
            raise ValueError(
                f"model {self.name!r}: expected a block (C, y, x) with {self.channels} channel(s), "
                f"got shape {block.shape}; choose the channels it was trained for"
            )
        if not np.isfinite(block).all():
            raise ValueError(
                f"model {self.name!r}: expected finite pixels, got NaN or infinity; clean the image"
            )
        images = torch.from_numpy(np.ascontiguousarray(block, np.float32))[None]
        return self._in_pieces(images)[0].numpy()

    def _in_pieces(self, images: torch.Tensor) -> torch.Tensor:
        """Answer in one go where that fits the free memory; else, or if it then does not, in two halves."""
        cut = self._cut(images.shape)
        if cut is None or self._fits(images):
            try:
                return self._masks(images)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        if cut is None:
            raise MemoryError(
                f"model {self.name!r}: {tuple(images.shape[2:])} pixels do not fit the memory of {self.device}; "
                "use another device"
            )
        axis, middle, halo = cut
        rest_px = images.shape[axis] - middle
        first = self._in_pieces(images.narrow(axis, 0, middle + halo)).narrow(axis, 0, middle)
        rest = self._in_pieces(images.narrow(axis, middle - halo, rest_px + halo))
        return torch.cat([first, rest.narrow(axis, halo, rest_px)], dim=axis)

    def _fits(self, images: torch.Tensor) -> bool:
        free = free_bytes(self.device)
        pixels = images.shape[0] * images.shape[2] * images.shape[3]
        return free is None or pixels * bytes_per_px(self.method.shape) <= FREE_SHARE * free

    def _cut(self, shape: torch.Size) -> tuple[int, int, int] | None:
        """Axis, place and halo of a cut into two overlapping halves; ``None`` if they would be no smaller."""
        axis = 2 if shape[2] >= shape[3] else 3
        halo = -(-self.halo_px // self.stride) * self.stride
        middle = shape[axis] // 2 // self.stride * self.stride
        return (axis, middle, halo) if halo <= middle < shape[axis] - halo else None

    @torch.inference_mode()
    def _masks(self, images: torch.Tensor) -> torch.Tensor:
        """Threshold on the device, so that one bit per layer and pixel leaves it."""
        height, width = images.shape[-2:]
        batch = padded(images.to(self.device), self.stride).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            outputs = self.method.outputs(self.network, batch)
        method = self.method if self.overlaps else self.method.without_overlaps()
        masks = method.masks(outputs)[..., :height, :width]
        return masks if self.device.type == "cpu" else unpacked(packed(masks).cpu(), self.layers)


def load_segmenter(
    folder: str | Path, *, device: str = "auto", precision: Precision = "float32", overlaps: bool = True
) -> TorchSegmenter:
    """Load a checkpoint folder, or a shipped model by its name, as a segmenter.

    Raises:
        BadCheckpoint: the folder is not a checkpoint of this version.
        NoDevice: the device is not there.
    """
    return TorchSegmenter(load_checkpoint(folder), device=device, precision=precision, overlaps=overlaps)


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "allocate memory" in text
