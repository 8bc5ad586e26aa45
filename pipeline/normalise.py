"""Normalisation limits: one offset and scale per image and channel, never per tile.

They come from a histogram that adds up exactly over any division of the image (`pipeline.histogram`), so they are the
same for every tile, worker and restart.

Limits take the noise of the image into account. Percentiles alone would stretch the noise of an empty field to the
full range; here ``scale`` is at least `NOISE_RANGE` standard deviations of the noise, and a channel without pixels
beyond the noise is flagged as empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as value

from pipeline.errors import BadArgument
from pipeline.histogram import Histogram, count_codes, histogram, make_bins, needs_codes

NOISE_RANGE = 20.0
"""Smallest ``scale`` in standard deviations of the noise. Gaussian noise spans 5.2 of them between its 1st and 99.8th
percentile, so that the noise of an empty field has a deviation of 0.05 instead of 0.19. The percentiles of annotated
fields (755 of BBBC010, M-FISH and DSB 2018) are at least 22 deviations apart: their limits are untouched."""

OUTLIER = 8.0
"""Deviations of the noise from the median beyond which a pixel belongs to an object or to a defect of the sensor."""

GAUSSIAN_RANGE = 5.2
"""Deviations between the 1st and the 99.8th percentile of Gaussian noise."""

CLASSES_APART = 4.0
"""Least distance, in deviations of the noise, between the means of Otsu's classes. The halves of Gaussian noise, which
is what Otsu's method finds in an empty field, are 1.6 apart, those of a Poisson variable of mean 0.5 about 2.7."""

LEAST_OBJECT_PX = 32
"""Fewer outliers than this (in large images: than one pixel in a million) are sensor defects and no object."""

DEFECT_SHARE = 5e-4
"""Share of the pixels, at most `LEAST_OBJECT_PX`, whose extreme values Otsu's method ignores."""

FLAT_SHARE = 0.98
"""Share of pixels with one exact value (masked, denoised or drawn background) above which percentiles are taken from
the other pixels."""

ROUNDING_NOISE = 12**-0.5
"""Deviation of the noise from rounding to integers, the least noise of an integer image of more than two values."""


@value(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
class Normalise:
    """How raw intensities are normalised for a network."""

    kind: Literal["percentile", "meanstd", "otsu", "none"] | None = None
    """Default: the normalisation of the model. percentile: ``low`` to 0 and ``high`` to 1, not clipped; meanstd: zero
    mean, unit deviation; otsu: percentile ``low`` to 0 and Otsu's threshold to 0.5; none: raw values."""
    low: Annotated[float | None, Field(ge=0, le=100)] = None
    """Lower percentile; default: the model's, else 1."""
    high: Annotated[float | None, Field(ge=0, le=100)] = None
    """Upper percentile; default: the model's, else 99.8."""
    scope: Literal["image", "well", "plate"] = "image"
    """Images whose histogram is used: the image itself, all fields of its well, or the whole plate."""

    def __post_init__(self) -> None:
        """Check the relation between the fields."""
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise BadArgument(f"normalise: expected low < high, got {self.low} and {self.high}")

    def filled(self, model: Mapping[str, Any] | None) -> "Normalise":
        """Fill open settings from the model's card, then from the general defaults."""
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
    empty: tuple[bool, ...] = ()
    """Whether a channel holds only noise, by channel; no entries for the kind ``none``."""

    @property
    def is_empty(self) -> bool:
        """Whether no channel holds more than noise."""
        return bool(self.empty) and all(self.empty)

    def apply(self, block: np.ndarray) -> np.ndarray:
        """Normalise a block ``(C, ..., y, x)`` to float32; a constant channel (scale 0) becomes zeros."""
        exact = np.dtype(np.float64 if needs_codes(block.dtype) and block.dtype != np.float32 else np.float32)
        result = np.zeros(block.shape, np.float32)
        for channel, (offset, scale) in enumerate(zip(self.offset, self.scale, strict=True)):
            if scale > 0:
                result[channel] = (block[channel].astype(exact) - exact.type(offset)) / exact.type(scale)
        return result


@dataclass(frozen=True)
class Levels:
    """The occupied values of a channel, ascending, with the number of pixels of each and the noise."""

    values: np.ndarray
    counts: np.ndarray
    noise: float

    @property
    def mode(self) -> int:
        """Index of the commonest value."""
        return int(self.counts.argmax())

    @cached_property
    def cumulated(self) -> np.ndarray:
        """Number of pixels up to and with each value."""
        return np.cumsum(self.counts)

    def percentile(self, percent: float) -> float:
        """Smallest value below or at which at least ``percent`` of the pixels lie."""
        return float(self.values[np.searchsorted(self.cumulated, percent / 100 * self.cumulated[-1])])

    def chosen(self, keep: np.ndarray | slice) -> "Levels":
        """Some of the values."""
        return Levels(self.values[keep], self.counts[keep], self.noise)

    def clipped(self) -> "Levels":
        """Clip the extremes of a few pixels to the nearest value that more pixels have."""
        few = min(LEAST_OBJECT_PX, DEFECT_SHARE * self.counts.sum())
        from_below, from_above = np.cumsum(self.counts), np.cumsum(self.counts[::-1])[::-1]
        low, high = (
            int(np.argmax(from_below > few)),
            len(self.counts) - 1 - int(np.argmax(from_above[::-1] > few)),
        )
        if low >= high:
            return self
        counts = self.counts[low : high + 1].copy()
        counts[0], counts[-1] = from_below[low], from_above[high]
        return Levels(self.values[low : high + 1], counts, self.noise)

    def outliers(self, side: Literal[-1, 1]) -> "Levels | None":
        """The values below (-1) or above (1) the noise around the median, if there are enough for an object."""
        # The values ascend, so that those beyond a limit are the first or the last ones.
        distance, limit = self.values - self.percentile(50), OUTLIER * self.noise
        if side < 0:
            away = slice(0, int(np.searchsorted(distance, -limit, side="left")))
        else:
            away = slice(int(np.searchsorted(distance, limit, side="right")), None)
        least = max(LEAST_OBJECT_PX, 1e-6 * self.cumulated[-1])
        return self.chosen(away) if self.counts[away].sum() >= least else None


def limits(histogram: Histogram, normalise: Normalise) -> Limits:
    """Offset and scale of each channel; percentiles and kind must be filled in."""
    normalise = normalise.filled(None)
    channels = range(len(histogram.counts))
    if normalise.kind == "none":
        return Limits((0.0,) * len(channels), (1.0,) * len(channels))
    per_channel = [_channel_limits(_levels(histogram, channel), normalise) for channel in channels]
    offset, scale, empty = zip(*per_channel)
    return Limits(offset, scale, empty)


def _levels(histogram: Histogram, channel: int) -> Levels:
    counts = histogram.counts[channel]
    occupied = np.flatnonzero(counts)
    least = ROUNDING_NOISE if histogram.bins.dtype.kind in "iu" and len(occupied) > 2 else 0.0
    values = histogram.bins.centres(channel, occupied)
    return Levels(values, counts[occupied], max(histogram.noise(channel), least))


def _channel_limits(levels: Levels, normalise: Normalise) -> tuple[float, float, bool]:
    """Offset, scale and whether the channel is empty."""
    if len(levels.values) < 2:
        return 0.0, 0.0, True
    low, high = _percentiles(levels, normalise.low or 0, 100 if normalise.high is None else normalise.high)
    dark, bright = levels.outliers(-1), levels.outliers(1)
    within_noise = high - low < NOISE_RANGE * levels.noise
    empty = within_noise and dark is None and bright is None
    if normalise.kind == "meanstd":
        return *_mean_and_deviation(levels), empty
    if normalise.kind == "otsu":
        return _around_threshold(levels, low)
    if within_noise:  # objects may be too few for the percentiles
        low = min(low, dark.percentile(50)) if dark else low
        high = max(high, bright.percentile(50)) if bright else high
    return low, max(high - low, NOISE_RANGE * levels.noise), empty


def _percentiles(levels: Levels, low: float, high: float) -> tuple[float, float]:
    """Lower and upper percentile; where almost all pixels have one value, those of the other pixels."""
    common = levels.mode
    if levels.counts[common] <= FLAT_SHARE * levels.counts.sum():
        ends = levels.percentile(low), levels.percentile(high)
        if ends[0] < ends[1]:
            return ends
    value = float(levels.values[common])
    others = levels.chosen(np.arange(len(levels.values)) != common)
    return min(value, others.percentile(low)), max(value, others.percentile(high))


def _mean_and_deviation(levels: Levels) -> tuple[float, float]:
    """Mean and standard deviation; the deviation has the same lower limit as the range of percentiles."""
    mean = float(np.average(levels.values, weights=levels.counts))
    deviation = float(np.sqrt(np.average((levels.values - mean) ** 2, weights=levels.counts)))
    return mean, max(deviation, NOISE_RANGE / GAUSSIAN_RANGE * levels.noise)


def _around_threshold(levels: Levels, low: float) -> tuple[float, float, bool]:
    """Limits that map ``low`` to 0 and the threshold to 0.5; of pure noise no pixel reaches the threshold."""
    threshold = _threshold(levels)
    if threshold is None:
        return float(levels.values[0]), 4 * float(levels.values[-1] - levels.values[0]), True
    if low >= threshold:
        low = float(levels.values[0])
    return low, 2 * (threshold - low), False


def _threshold(levels: Levels) -> float | None:
    """Otsu's threshold if it separates objects from noise, else one between noise and outliers, if there are any."""
    from skimage.filters import threshold_otsu  # slow to import, and few models need it

    clipped = levels.clipped()
    values, counts = clipped.values, clipped.counts
    last = int(np.searchsorted(values, threshold_otsu(hist=(counts, values))))
    last = min(last, len(values) - 2)
    below, above = (
        np.average(values[s], weights=counts[s]) for s in (slice(last + 1), slice(last + 1, None))
    )
    if above - below >= CLASSES_APART * levels.noise:
        return float(values[last] + values[last + 1]) / 2
    bright = levels.outliers(1)
    return (levels.percentile(50) + bright.percentile(50)) / 2 if bright else None


def limits_of(block: np.ndarray, normalise: Normalise) -> Limits:
    """Limits of an image ``(C, ..., y, x)`` in memory; planes before y and x share them, as in the pipeline."""
    codes = count_codes(block) if needs_codes(block.dtype) else None
    bins = make_bins(block.dtype, codes)
    planes = block.reshape(len(block), -1, *block.shape[-2:])
    parts = [histogram(planes[:, plane], bins) for plane in range(planes.shape[1])]
    return limits(sum(parts[1:], parts[0]), normalise)


def normalised(image: np.ndarray, normalise: Normalise) -> np.ndarray:
    """Normalise a whole image ``(C, ..., y, x)`` in memory, as the pipeline would; float32."""
    return limits_of(image, normalise).apply(image)
