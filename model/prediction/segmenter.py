"""A trained model as a function of a block of an image, as a tiled pipeline calls it.

The layer masks of a `TouchMethod` at a pixel depend on the block within ``halo_px`` of it only, so that blocks with
that halo, at multiples of ``stride``, agree with the whole image. A `MatchMethod` numbers the objects of each block
itself. Images come in normalised.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np
import torch

from model.card import answers_digest
from model.checkpoint import Checkpoint, load_checkpoint
from model.devices import autocast, choose_device, free_bytes, placed
from model.method import MatchMethod, TouchMethod
from model.networks.folding import folded
from model.precision import PRECISIONS, Precision
from model.prediction.inference import padded
from model.prediction.openvino import DEVICE, OpenVinoNetwork
from model.stacking import packed, unpacked

FREE_SHARE = 0.8
"""Part of the free memory that one forward pass may take."""
BATCH_PX = 2**24
"""Pixels that go through the network of a GPU at once: three fields of 2,160 x 2,160, which fill any chip."""
EXTREME = 100.0
"""Normalised values beyond this, up and down, are those of defective pixels and are cut to it: a network answers an
input of 10^5 with false objects all over its field of view."""


class TorchSegmenter:
    """Blocks float32 ``(C, y, x)`` to layer masks bool ``(K, y, x)`` (link touch) or label stacks (link match).

    The attributes describe its input.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        overlaps: bool = True,
    ) -> None:
        """Prepare a checkpoint for inference.

        ``device``: as in ``choose_device``, or ``openvino`` for a CPU with that package. ``overlaps=False``: no
        objects overlap.

        Raises:
            NoDevice: the device is not available.
            ValueError: no such device or precision.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {sorted(PRECISIONS)}, got {precision!r}")
        card = checkpoint.card
        self.card: dict[str, Any] = card
        self.device = choose_device("cpu" if device == DEVICE else device)
        method = checkpoint.method
        self.precision, self.method = precision, method if overlaps else method.without_overlaps()
        network = folded(checkpoint.network)
        self.network = (
            OpenVinoNetwork(network, channels=card["channels"], stride=method.stride, precision=precision)
            if device == DEVICE
            else placed(network, self.device)
        )
        self.name: str = card["name"]
        self.link: Literal["touch", "match"] = method.link
        self.owner: Literal["core", "centre"] = self.method.owner
        self.halo_px: int = checkpoint.network.halo_px + method.margin_px
        self.stride: int = method.stride
        self.layers: int = method.layers
        self.judged: bool = isinstance(method, TouchMethod) and method.judges
        self.classes: tuple[str, ...] = tuple(method.classes)
        self.bytes_per_px: int = checkpoint.network.bytes_per_px
        self.channels: int = card["channels"]
        self.normalise: dict[str, Any] | None = card["normalise"]
        self.min_area: int = card["min_area"]
        self.licence: str = card["licence"]
        self.pixel_size_um: float | None = card["pixel_size_um"]
        self.digest = answers_digest(card["digest"], precision=precision, overlaps=overlaps)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Return the layer masks or the label stack of a normalised block.

        Where memory does not suffice, layer masks are computed in overlapping pieces.

        Raises:
            ValueError: other channels than the network was trained for, or values that are not finite.
            MemoryError: the block, or the smallest piece of it, does not fit.
        """
        images = self._checked(block)
        return self._in_pieces(images, self._masks if self.link == "touch" else self._stack)[0].numpy()

    def many(self, blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Answer several blocks; on a GPU, layer masks of blocks of one shape come from one pass of the network.

        Sums of a batch may be rounded in another order than those of one block, so that single pixels at the
        threshold may differ. On a CPU, where a batch is no faster, every block is computed by itself.
        """
        if self.device.type == "cpu" or self.link == "match":
            return [self(block) for block in blocks]
        return self._at_once(blocks)

    def _at_once(self, blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Layer masks of several blocks, those of one shape in batches of at most `BATCH_PX`."""
        answers: dict[int, np.ndarray] = {}
        shapes = [block.shape for block in blocks]
        for shape in dict.fromkeys(shapes):
            alike = [index for index, other in enumerate(shapes) if other == shape]
            for part in self._batches(alike, int(np.prod(shape[1:]))):
                images = torch.cat([self._checked(blocks[index]) for index in part])
                masks = self._in_pieces(images, self._masks).numpy()
                answers |= dict(zip(part, masks, strict=True))
        return [answers[index] for index in range(len(blocks))]

    def _batches(self, indices: Sequence[int], pixels: int) -> Iterator[Sequence[int]]:
        """Cut a list of blocks of so many pixels into batches of at most `BATCH_PX`."""
        step = max(BATCH_PX // pixels, 1)
        yield from (indices[start : start + step] for start in range(0, len(indices), step))

    def _checked(self, block: np.ndarray) -> torch.Tensor:
        """A block as a batch of one ``(1, C, y, x)``, without extreme values."""
        if block.ndim != 3 or block.shape[0] != self.channels:
            raise ValueError(
                f"model {self.name!r}: expected a block (C, y, x) with {self.channels} channel(s), "
                f"got shape {block.shape}; choose the channels it was trained for"
            )
        if not np.isfinite(block).all():
            raise ValueError(
                f"model {self.name!r}: expected finite pixels, got NaN or infinity; clean the image"
            )
        return torch.from_numpy(np.clip(block, -EXTREME, EXTREME).astype(np.float32))[None]

    def _in_pieces(
        self, images: torch.Tensor, answer: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Answer in one go where that fits the free memory; else, or if it then does not, in two halves.

        Label stacks have numbers of their own and are not cut.
        """
        cut = self._cut(images.shape) if self.link == "touch" else None
        if cut is None or self._fits(images):
            try:
                return answer(images)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        if cut is None:
            raise MemoryError(
                f"model {self.name!r}: {tuple(images.shape[2:])} pixels do not fit the memory of {self.device}; "
                "use smaller tiles or another device"
            )
        axis, middle, halo = cut
        rest_px = images.shape[axis] - middle
        first = self._in_pieces(images.narrow(axis, 0, middle + halo), answer).narrow(axis, 0, middle)
        rest = self._in_pieces(images.narrow(axis, middle - halo, rest_px + halo), answer)
        return torch.cat([first, rest.narrow(axis, halo, rest_px)], dim=axis)

    def _fits(self, images: torch.Tensor) -> bool:
        free = free_bytes(self.device)
        pixels = images.shape[0] * images.shape[2] * images.shape[3]
        return free is None or pixels * self.bytes_per_px <= FREE_SHARE * free

    def _cut(self, shape: torch.Size) -> tuple[int, int, int] | None:
        """Axis, place and halo of a cut into two overlapping halves; ``None`` if they would be no smaller."""
        axis = 2 if shape[2] >= shape[3] else 3
        halo = -(-self.halo_px // self.stride) * self.stride
        middle = shape[axis] // 2 // self.stride * self.stride
        return (axis, middle, halo) if halo <= middle < shape[axis] - halo else None

    @torch.inference_mode()
    def _outputs(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = padded(images.to(self.device), self.stride).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            return self.method.outputs(self.network, batch)

    def _masks(self, images: torch.Tensor) -> torch.Tensor:
        """Layer masks ``(B, K, y, x)``, one more where objects are judged.

        They leave the device as one bit per layer and pixel.
        """
        method = cast(TouchMethod, self.method)
        height, width = images.shape[-2:]
        masks = method.answer(self._outputs(images))[..., :height, :width]
        return masks if masks.device.type == "cpu" else unpacked(packed(masks).cpu(), masks.shape[1])

    def _stack(self, images: torch.Tensor) -> torch.Tensor:
        """Label stack ``(1, L, y, x)`` of one image, with ids that fit int64."""
        outputs = {name: value[0].cpu().numpy() for name, value in self._outputs(images).items()}
        method = cast(MatchMethod, self.method)
        stack = method.decode_classes(outputs, (images.shape[2], images.shape[3]))
        return torch.from_numpy(stack.astype(np.int64))[None]


def load_segmenter(
    folder: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "float32",
    overlaps: bool = True,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> TorchSegmenter:
    """Load a checkpoint folder, or a shipped model by its name, as a segmenter.

    ``settings``: thresholds and the least area, where they are not those of the card.

    Raises:
        BadCheckpoint: the folder is not a checkpoint of this version.
        NoDevice: the device is not available.
    """
    checkpoint = load_checkpoint(folder, settings)
    return TorchSegmenter(checkpoint, device=device, precision=precision, overlaps=overlaps)


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "allocate memory" in text
