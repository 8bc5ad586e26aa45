"""How far the pooled scores would move with other images of the same kind: percentile bootstrap over images.

An image is drawn as a whole, so objects of one image stay together. The same seed gives the same intervals.
"""

import numpy as np
import pandas as pd

from pipeline.errors import BadArgument
from pipeline.metrics.precision import sorted_ap
from pipeline.metrics.sums import scores

CHUNK = 1 << 22
"""Most numbers held at once while sorted AP is resampled; bounds the memory, not the result."""


def bootstrap(
    sums: pd.DataFrame, ious: list[np.ndarray], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Return the interval of each pooled score.

    Args:
        sums: one row of ``image_sums`` per image, at least two rows.
        ious: for each image the IoUs of ``sorted_ap_ious``.
        resamples: how many datasets of the same size are drawn with replacement.
        seed: of the random generator.
        level: share of the resampled values inside the interval.
    """
    if resamples < 1:
        raise BadArgument(f"resamples: expected at least 1, got {resamples!r}")
    if not 0 < level < 1:
        raise BadArgument(f"level: expected a share in (0, 1), got {level!r}")
    if len(sums) < 2:
        raise BadArgument(f"expected at least two images to resample, got {len(sums)}")
    rng = np.random.default_rng(seed)
    copies = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    drawn = dict(zip(sums.columns, (copies @ sums.to_numpy(float)).T))
    values = scores(drawn)
    values["sortedAP"] = _resampled_sorted_ap(copies, ious, drawn["n_truth"], drawn["n_prediction"])
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
