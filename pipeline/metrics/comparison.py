"""Two runs on the same images: how much better one is, and how sure that is.

Only images that both evaluated are compared, and only if the truth was the same. Tables only, no drawing.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.errors import BadArgument
from pipeline.metrics.evaluation import Evaluation
from pipeline.metrics.resampling import FEWEST, LEVEL, RESAMPLES, paired_bootstrap
from pipeline.metrics.sums import scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Difference:
    """Pooled scores of a run minus those of another."""

    images: int
    """How many images both have; the scores here are pooled over these."""
    level: float
    """Of the intervals."""
    resamples: int
    """Paired bootstrap resamples of images; 0 where there are too few images for an interval."""
    seed: int
    """Of the bootstrap."""
    scores: pd.DataFrame
    """By score (all but sorted AP): ``run``, ``baseline``, ``difference``, ``low``, ``high`` (NaN without interval)."""

    def as_dict(self) -> dict:
        """Plain values for JSON; no interval is null."""
        plain = self.scores.astype(object).where(self.scores.notna(), None)
        return {
            "images": self.images, "level": self.level, "resamples": self.resamples, "seed": self.seed,
            "unit": "image, paired", "scores": plain.to_dict("index"),
        }  # fmt: skip


def difference(
    run: Evaluation,
    baseline: Evaluation,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Difference:
    """Compare two runs on the images both have.

    Raises:
        BadArgument: they have no image in common, or an image has another number of true objects.
    """
    both = run.sums.set_index("image").index.intersection(baseline.sums.set_index("image").index)
    if both.empty:
        raise BadArgument("the two evaluations have no image in common; evaluate both on the same images")
    first, second = (side.sums.set_index("image").loc[both] for side in (run, baseline))
    other = both[(first["n_truth"] != second["n_truth"]) | (first["truth_pixels"] != second["truth_pixels"])]
    if len(other):
        counts = [int(side.loc[other[0], "n_truth"]) for side in (first, second)]
        raise BadArgument(
            f"{other[0]}: the truth differs, {counts[0]} objects in this run and {counts[1]} in the baseline (or other "
            "pixels); evaluate both against the same truth"
        )
    pooled = {name: scores(dict(side.sum())) for name, side in (("run", first), ("baseline", second))}
    values = pd.DataFrame(pooled).astype(float)
    values["difference"] = values["run"] - values["baseline"]
    drawn = resamples if len(both) >= FEWEST else 0
    if drawn:
        between = paired_bootstrap(first, second, resamples=drawn, seed=seed, level=level)
        values[["low", "high"]] = [between[name] for name in values.index]
    else:
        values[["low", "high"]] = np.nan
    return Difference(images=len(both), level=level, resamples=drawn, seed=seed, scores=values)
