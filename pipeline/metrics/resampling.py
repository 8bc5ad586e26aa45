"""How far the pooled scores would move with other images of the same kind: percentile bootstrap over images.

An image is drawn as a whole, so objects of one image stay together. The same seed gives the same intervals.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.errors import BadArgument
from pipeline.metrics.precision import sorted_ap
from pipeline.metrics.sums import scores

RESAMPLES = 1000
"""Default number of bootstrap datasets."""

LEVEL = 0.95
"""Share of the drawn values that lies inside an interval."""

FEWEST = 5
"""Images below which there is no interval: of two, a percentile bootstrap gives the smaller and the larger value."""

CHUNK = 1 << 22
"""Upper limit of the numbers in memory while sorted AP is resampled; it does not change the result."""


def bootstrap(
    sums: pd.DataFrame,
    ious: list[np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, tuple[float, float]]:
    """Return the interval of each pooled score.

    Args:
        sums: one row of ``image_sums`` per image, at least `FEWEST` rows.
        ious: for each image the IoUs of ``sorted_ap_ious``.
        resamples: how many datasets of the same size are drawn with replacement.
        seed: of the random generator.
        level: share of the resampled values inside the interval.
    """
    copies = _copies(len(sums), resamples, seed)
    drawn = _drawn(copies, sums)
    values = scores(drawn)
    values["sortedAP"] = _resampled_sorted_ap(copies, ious, drawn["n_truth"], drawn["n_prediction"])
    return _intervals(values, level)


def paired_bootstrap(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, tuple[float, float]]:
    """Return the interval of the difference first minus second of each pooled score but sorted AP.

    Both hold one row of ``image_sums`` for the same images in the same order. The same images are drawn for both, so
    what is hard about an image for both cancels out.
    """
    if len(first) != len(second):
        raise BadArgument(f"expected the same images on both sides, got {len(first)} and {len(second)}")
    copies = _copies(len(first), resamples, seed)
    one, other = (scores(_drawn(copies, sums)) for sums in (first, second))
    return _intervals({name: one[name] - other[name] for name in one}, level)


def _copies(images: int, resamples: int, seed: int) -> np.ndarray:
    """How often each image is in each drawn dataset, ``(resamples, images)``."""
    if resamples < 1:
        raise BadArgument(f"resamples: expected at least 1, got {resamples!r}")
    if images < FEWEST:
        raise BadArgument(f"expected at least {FEWEST} images to resample, got {images}")
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def _drawn(copies: np.ndarray, sums: pd.DataFrame) -> dict[str, np.ndarray]:
    return dict(zip(sums.columns, (copies @ sums.to_numpy(float)).T))


def _intervals(values: Mapping[str, np.ndarray], level: float) -> dict[str, tuple[float, float]]:
    if not 0 < level < 1:
        raise BadArgument(f"level: expected a share in (0, 1), got {level!r}")
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {name: tuple(np.quantile(column, tails).tolist()) for name, column in values.items()}


def _resampled_sorted_ap(
    copies: np.ndarray, ious: list[np.ndarray], n_truth: np.ndarray, n_prediction: np.ndarray
) -> np.ndarray:
    pooled = np.concatenate(ious)
    order = np.argsort(pooled, kind="stable")
    image = np.repeat(np.arange(len(ious)), [part.size for part in ious])[order]
    step = max(1, CHUNK // max(1, pooled.size))
    return np.concatenate(
        [
            sorted_ap(
                pooled[order],
                n_truth[start : start + step],
                n_prediction[start : start + step],
                copies=copies[start : start + step, image],
            )
            for start in range(0, len(copies), step)
        ]
    )
