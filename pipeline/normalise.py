"""Normalisation limits: one offset and scale per image and channel, never per tile.

They come from a histogram that adds up exactly over any cut of the image, so every tile of it, every worker and
every restart sees the same numbers. Integer images have one bin per value; float images 65,536 bins between
their exact minimum and maximum. Pure numpy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as value
from skimage.filters import threshold_otsu

from pipeline.errors import BadArgument, BadStore

BINS = 65536
"""Bins of a histogram of float or 32-bit values."""


@value(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
class Normalise:
    """How raw intensities become the numbers a network sees."""

    kind: Literal["percentile", "meanstd", "otsu", "none"] | None = None
    """Default: what the model was made for. percentile: ``low`` to 0 and ``high`` to 1, not clipped; meanstd: zero
    mean, unit deviation; otsu: percentile ``low`` to 0 and Otsu's threshold to 0.5; none: raw values."""
    low: Annotated[float | None, Field(ge=0, le=100)] = None
    """Lower percentile; default: the model's, else 1."""
    high: Annotated[float | None, Field(ge=0, le=100)] = None
    """Upper percentile; default: the model's, else 99.8."""
    scope: Literal["image", "well", "plate"] = "image"
    """Whose histogram counts: the image's own, that of all fields of its well, or of the whole plate."""

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise BadArgument(f"normalise: expected low < high, got {self.low} and {self.high}")

    def filled(self, model: Mapping[str, Any] | None) -> "Normalise":
        """What the job leaves open, filled in from the model's card, then from the general defaults."""
        defaults = {"kind": "percentile", "low": 1.0, "high": 99.8} | dict(model or {})
        said = {
            name: getattr(self, name) for name in ("kind", "low", "high") if getattr(self, name) is not None
        }
        return Normalise(**{**defaults, **said, "scope": self.scope})


@dataclass(frozen=True)
class Limits:
    """``normalised = (raw - offset) / scale``, per channel."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, block: np.ndarray) -> np.ndarray:
        """Normalise a block ``(C, y, x)`` to float32; a constant channel (scale 0) becomes zeros."""
        offset = np.asarray(self.offset, np.float32)[:, None, None]
        scale = np.asarray(self.scale, np.float32)[:, None, None]
        safe = np.where(scale > 0, scale, np.float32(1))
        return np.where(scale > 0, (block.astype(np.float32) - offset) / safe, np.float32(0))


@dataclass(frozen=True)
class Histogram:
    """Counts ``(C, bins)`` over equal bins from ``low`` (C,) of ``width`` (C,); equal grids add up exactly."""

    counts: np.ndarray
    low: np.ndarray
    width: np.ndarray

    def __add__(self, other: "Histogram") -> "Histogram":
        """Histogram of both."""
        if not (np.array_equal(self.low, other.low) and np.array_equal(self.width, other.width)):
            raise BadArgument("histograms of different grids cannot be added; take both from the same range")
        return Histogram(self.counts + other.counts, self.low, self.width)

    @property
    def centres(self) -> np.ndarray:
        """Value of each bin, ``(C, bins)``: exact for integers up to 16 bit."""
        middle = np.where(self.width == 1, 0.0, 0.5)
        return self.low[:, None] + (np.arange(self.counts.shape[1]) + middle[:, None]) * self.width[:, None]


def check_finite(block: np.ndarray, *, origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Return a block ``(C, y, x)`` whose values are finite; BadStore says where one is not (``origin``: y, x)."""
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        channel, y, x = (int(i[0]) for i in np.nonzero(~np.isfinite(block)))
        raise BadStore(
            f"expected finite intensities, got {block[channel, y, x]} in channel {channel} at y={y + origin[0]}, "
            f"x={x + origin[1]}; replace NaN and infinity in the image before segmenting it"
        )
    return block


def value_range(block: np.ndarray, *, origin: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum of each channel of a block ``(C, y, x)``; BadStore where a value is not finite."""
    check_finite(block, origin=origin)
    return block.min(axis=(1, 2)).astype(np.float64), block.max(axis=(1, 2)).astype(np.float64)


def needs_range(dtype: np.dtype) -> bool:
    """Whether a histogram of this dtype has to know the range of the image first."""
    return dtype.kind == "f" or dtype.itemsize > 2


def grid(dtype: np.dtype, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Bin grid (low, width, bins) for an image of ``dtype`` whose channels run from ``low`` to ``high``."""
    if not needs_range(dtype):
        info = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
        channels = len(low)
        return np.full(channels, float(info.min)), np.ones(channels), int(info.max) - int(info.min) + 1
    return low, np.maximum((high - low) / BINS, np.finfo(np.float64).tiny), BINS


def histogram(block: np.ndarray, low: np.ndarray, width: np.ndarray, bins: int) -> Histogram:
    """Histogram of a block ``(C, y, x)`` on a given grid."""
    counts = np.zeros((len(block), bins), np.int64)
    for channel, values in enumerate(block):
        if needs_range(block.dtype):
            index = np.minimum(
                ((values.astype(np.float64) - low[channel]) / width[channel]).astype(np.int64), bins - 1
            )
        else:
            index = values.astype(np.int64) - int(low[channel])
        counts[channel] = np.bincount(index.reshape(-1), minlength=bins)
    return Histogram(counts, low, width)


def limits(histogram: Histogram, normalise: Normalise) -> Limits:
    """Offset and scale of each channel; percentiles and kind must be filled in."""
    normalise = normalise.filled(None)
    if normalise.kind == "none":
        channels = len(histogram.counts)
        return Limits((0.0,) * channels, (1.0,) * channels)
    rows = [_channel_limits(c, v, normalise) for c, v in zip(histogram.counts, histogram.centres)]
    return Limits(tuple(offset for offset, _ in rows), tuple(scale for _, scale in rows))


def _channel_limits(counts: np.ndarray, centres: np.ndarray, normalise: Normalise) -> tuple[float, float]:
    total = counts.sum()
    if not total or np.count_nonzero(counts) == 1:
        return 0.0, 0.0
    if normalise.kind == "meanstd":
        mean = float((counts * centres).sum() / total)
        return mean, float(np.sqrt((counts * (centres - mean) ** 2).sum() / total))
    low = _percentile(counts, centres, normalise.low or 0)
    if normalise.kind == "percentile":
        return low, _percentile(counts, centres, normalise.high or 100) - low
    used = slice(*(np.flatnonzero(counts)[[0, -1]] + (0, 1)))
    return low, 2 * max(float(threshold_otsu(hist=(counts[used], centres[used]))) - low, 0.0)


def _percentile(counts: np.ndarray, centres: np.ndarray, percent: float) -> float:
    """Smallest value below or at which at least ``percent`` of the pixels lie."""
    cumulated = np.cumsum(counts)
    return float(centres[np.searchsorted(cumulated, percent / 100 * cumulated[-1])])


def normalised(image: np.ndarray, normalise: Normalise) -> np.ndarray:
    """Normalise a whole image ``(C, y, x)`` in memory, as the pipeline would; float32."""
    low, high = value_range(image)
    return limits(histogram(image, *grid(image.dtype, low, high)), normalise).apply(image)
