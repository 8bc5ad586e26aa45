"""Pictures: a grey image as 8 bits, outlines of a label stack over it, and both as a data URI of bounded size.

Outlines are one pixel wide at the size that is shown, whatever the size of the image, and objects that overlap
are both visible. The same input gives the same bytes. Arrays only.
"""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from pipeline.errors import BadArgument
from pipeline.report.palette import LAYER_COLOURS, rgb

SMALL_PX = 256
"""Images up to this side are shown at twice their size."""

BRIGHTEST = 165
"""Grey value of the brightest pixels below outlines, so that yellow and white lines show on bright fields."""

SAMPLED_PX = 512
"""Images are thinned to about this side before their percentiles are taken."""

QUALITIES = (80, 60, 40, 25)
"""WebP qualities tried from best to worst until a picture fits."""


def eight_bit(grey: np.ndarray, *, brightest: int = 255) -> np.ndarray:
    """Stretch ``(y, x)`` from its 0.5 and 99.5 percentiles to 0 .. ``brightest``, uint8.

    A constant image comes out at half of ``brightest``; pixels that are not finite are black.
    """
    image = np.asarray(grey)
    if image.ndim != 2:
        raise BadArgument(f"expected a grey image (y, x), got shape {image.shape}; choose one channel")
    values = image.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(image.shape, np.uint8)
    step = max(1, min(image.shape) // SAMPLED_PX)  # A sample suffices for display limits.
    sample = values[::step, ::step]
    sample = sample[np.isfinite(sample)] if np.isfinite(sample).any() else values[finite]
    low, high = np.percentile(sample, (0.5, 99.5))
    if high <= low:
        low, high = float(values[finite].min()), float(values[finite].max())
    scaled = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    clean = np.where(finite, np.clip(scaled, 0, 1), 0)
    return (clean * brightest + 0.5).astype(np.uint8)


def shown_shape(shape: tuple[int, int], longest_px: int) -> tuple[int, int]:
    """Size ``(y, x)`` at which an image is shown: at most ``longest_px``, small images twice their size."""
    longest = max(shape)
    scale = min(longest_px / longest, 2.0 if longest <= SMALL_PX else 1.0)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def scaled_grey(grey: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize an 8-bit grey image, averaging when it shrinks."""
    filtering = Image.Resampling.BOX if shape[0] < grey.shape[0] else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(grey).resize((shape[1], shape[0]), filtering))


def scaled_labels(layer: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a label image by taking the nearest pixel, so that no id is invented."""
    rows = (np.arange(shape[0]) + 0.5) * layer.shape[0] / shape[0]
    columns = (np.arange(shape[1]) + 0.5) * layer.shape[1] / shape[1]
    return layer[np.ix_(rows.astype(int), columns.astype(int))]


def outline_mask(layer: np.ndarray) -> np.ndarray:
    """Boolean ``(y, x)``: pixels of objects with a 4-neighbour that is another object or background.

    One pixel wide and inside the object, so two objects that touch have two lines.
    """
    padded = np.pad(layer, 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    differs = (centre != padded[:-2, 1:-1]) | (centre != padded[2:, 1:-1])
    differs |= (centre != padded[1:-1, :-2]) | (centre != padded[1:-1, 2:])
    return differs & (centre > 0)


def line_numbers(
    stack: np.ndarray, shape: tuple[int, int], *, numbers: Mapping[int, int] | None = None
) -> np.ndarray:
    """Outlines of a label stack ``(L, y, x)`` at the size ``shape``: uint8, 0 nothing, else the number of a colour.

    ``numbers`` gives the number of every id, 0 to leave it out; without it the number is 1 + layer, and colours
    repeat. Where two lines cross, pixels alternate between them.
    """
    drawn = np.zeros(shape, np.uint8)
    chequer = np.add.outer(np.arange(shape[0]) // 2, np.arange(shape[1]) // 2) % 2 == 0
    for index, layer in enumerate(stack):
        labels = scaled_labels(layer, shape)
        colours = np.full(shape, 1 + index % len(LAYER_COLOURS), np.uint8)
        if numbers is not None:
            ids, place = np.unique(labels, return_inverse=True)
            colours = np.array([numbers.get(int(label), 0) for label in ids], np.uint8)[place].reshape(shape)
        line = outline_mask(labels) & (colours > 0) & ((drawn == 0) | chequer)
        drawn[line] = colours[line]
    return drawn


def outlined(grey: np.ndarray, stack: np.ndarray, *, longest_px: int) -> np.ndarray:
    """Draw the outlines of a label stack ``(L, y, x)`` over a grey image, one colour per layer.

    Returns uint8 ``(h, w, 3)`` with the longer side at most ``longest_px``.
    """
    if stack.ndim != 3 or stack.shape[1:] != grey.shape:
        raise BadArgument(f"expected a label stack (L, {grey.shape[0]}, {grey.shape[1]}), got {stack.shape}")
    shape = shown_shape(grey.shape, longest_px)
    base = scaled_grey(eight_bit(grey, brightest=BRIGHTEST), shape)
    numbers = line_numbers(stack, shape)
    colours = np.array([rgb(colour) for colour in LAYER_COLOURS], np.uint8)
    return np.where(numbers[..., None] > 0, colours[np.maximum(numbers, 1) - 1], base[..., None])


def encoded_lines(numbers: np.ndarray, colours: Sequence[str] = LAYER_COLOURS) -> str:
    """Write line numbers as a PNG data URI: 1 is the first of ``colours``, 0 is transparent.

    Lines are kept apart from the photograph because lossy formats wash out thin coloured lines.
    """
    image = Image.fromarray(numbers)
    image.putpalette([0, 0, 0, *(part for colour in colours for part in rgb(colour))])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, transparency=0)
    return _data_uri(buffer.getvalue(), "png")


def encoded(picture: np.ndarray, *, budget_bytes: int) -> str:
    """Write a picture ``(h, w)`` uint8 as a WebP data URI of at most about ``budget_bytes``.

    Quality is reduced first, then size; a picture below 48 pixels is kept.
    """
    image = Image.fromarray(picture)
    while True:
        for quality in QUALITIES:
            data = _webp(image, quality)
            if len(data) * 4 / 3 <= budget_bytes:
                return _data_uri(data, "webp")
        if max(image.size) < 48:
            return _data_uri(data, "webp")
        width, height = (max(1, round(side * 0.75)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")
