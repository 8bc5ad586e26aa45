"""What the report of an evaluation is about: one evaluation, those it is compared with, and how to look numbers up.

A missing number is None and is shown as a dash, so that a baseline may be no more than a published summary.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from pipeline.errors import BadArgument
from pipeline.metrics.comparison import Difference
from pipeline.metrics.evaluation import Evaluation
from pipeline.metrics.resampling import FEWEST
from pipeline.report.wells import Places, places

THRESHOLDS = ("0.5", "0.6", "0.7", "0.8", "0.9")
"""IoU thresholds of the paper's table."""

WELL = re.compile(r"([A-Z]{1,2})[/_-]?0*([1-9][0-9]*)$")


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """An evaluation with a name, and others beside it."""

    title: str
    """Name of the dataset."""
    name: str
    """Name of the run or method, the first row of the tables."""
    evaluation: Evaluation
    """Its numbers."""
    baselines: Mapping[str, Evaluation] = field(default_factory=dict)
    """Other runs on the same images by name; differences are to the first."""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    """The run minus a baseline, by its name, where the baseline kept the sums for it."""
    provenance: tuple[tuple[str, str], ...] = ()
    """What was evaluated: name and value, in reading order."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Model of each plate, where it is known."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What else a reader has to know; ``without_prediction``, ``without_truth``, ``without_condition`` and
    ``unknown_places`` list names."""

    def __post_init__(self) -> None:
        if self.name in self.baselines:
            raise BadArgument(f"a baseline is called {self.name!r} like the run itself; give it another name")
        if lacking := {"image", "n_truth", "meanAP"} - set(self.evaluation.images.columns):
            raise BadArgument(f"the table of images lacks {sorted(lacking)}; expected that of an Evaluation")

    @property
    def runs(self) -> dict[str, Evaluation]:
        """The run and its baselines, in the order of rows and lines."""
        return {self.name: self.evaluation, **self.baselines}

    @property
    def baseline(self) -> tuple[str, Evaluation] | None:
        """The baseline that differences are to."""
        return next(iter(self.baselines.items()), None)

    def extra_columns(self) -> list[str]:
        """Columns of the table of images that are no score: well, condition and the like."""
        names = [str(name) for name in self.evaluation.images.columns]
        return [name for name in names[: names.index("n_truth")] if name != "image"]


def score(summary: Mapping[str, object], *path: str) -> float | None:
    """Look up a score by its keys, such as ``AP``, ``0.5``; None if it is missing or not a number."""
    value: object = summary
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def interval(summary: Mapping[str, object], *path: str) -> tuple[float, float] | None:
    """Confidence interval of a score; None if it has none."""
    value: object = summary.get("confidence")
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return (float(value[0]), float(value[1])) if isinstance(value, list | tuple) and len(value) == 2 else None


def level_text(summary: Mapping[str, object]) -> str:
    """One sentence on how the intervals were computed, or why the scores have none."""
    facts = summary.get("confidence")
    if not isinstance(facts, Mapping) or interval(summary, "meanAP") is None:
        return f"no confidence intervals, which need {FEWEST} images or more"
    return (
        f"{100 * float(facts['level']):.0f} % intervals from {int(facts['resamples']):,} bootstrap resamples of "
        f"images, seed {facts['seed']}"
    )


def definitions(summary: Mapping[str, object]) -> str:
    """Assignment, variant of AJI and pooling, with their names in the summary."""
    stated = (("Assignment", "assignment"), ("AJI variant", "aji"), ("pooled as", "pooling"))
    return "; ".join(f"{label} {summary[key]}" for label, key in stated if key in summary)


def image_places(images: pd.DataFrame) -> Places:
    """Where the images are on a plate, from wells such as ``B03`` or ``B/3``; no plate where one has none."""
    if "well" not in images.columns:
        return places(images[["image"]])
    matches = [WELL.match(str(well)) for well in images["well"]]
    if not all(matches):
        return places(images[["image"]])
    parts = [match.groups() for match in matches if match]
    return places(
        images[["image"]].assign(row=[row for row, _ in parts], column=[column for _, column in parts])
    )
