"""From overlaps to tables: one row per image, one row per match or unmatched object, pooled summary and groups.

Pooled means: sums over all images first, the formula once. The assignment is `canonical` and AJI is `kumar` wherever
a name says nothing else. Takes overlaps and names; knows no stores and draws nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadArgument
from pipeline.metrics.overlap import Overlap
from pipeline.metrics.precision import DENSE_THRESHOLDS, THRESHOLDS, sorted_ap, sorted_ap_ious
from pipeline.metrics.resampling import FEWEST, LEVEL, RESAMPLES, bootstrap
from pipeline.metrics.sums import AJI_COLUMNS, image_sums, scores
from pipeline.metrics.taxonomy import PREDICTION_KINDS, TRUTH_KINDS, Taxonomy, classify

PLAIN = (
    "PQ",
    "SQ",
    "RQ",
    "dice",
    "SBD",
    "DiC",
    "absDiC",
    "sortedAP",
    "VOI_split",
    "VOI_merge",
    "ARAND",
    "ARI",
)
"""Scores that are in the summary under their column name."""

MATCH_COLUMNS = ("image", "truth_label", "prediction_label", "iou", "kind", "side")
"""Columns of the matches table; ``side`` says whose row it is: both (a match), truth, or prediction."""


CONDITION = "condition"
"""The grouping whose scores get intervals: a well has too few images for one."""

WITH_INTERVAL = {"AP_0.5": ("AP", "0.5"), "meanAP": ("meanAP",), "AJI": ("AJI",), "PQ": ("PQ",)}
"""Scores of a condition whose intervals stand in its table too, with their place in the summary."""

_STATED = {
    "assignment": "canonical",
    "aji": "kumar",
    "pooling": "sums over all images, then the formula; SBD, DiC, absDiC and ARI are means over images",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What an evaluation found; tables in the order in which the images came."""

    images: pd.DataFrame
    """One row per image: image, the extra columns, counts, every score, kinds of errors."""
    matches: pd.DataFrame
    """One row per match, per unmatched truth object and per unmatched prediction (MATCH_COLUMNS)."""
    summary: dict[str, Any]
    """Pooled scores in plain Python types, ready for JSON."""
    groups: dict[str, pd.DataFrame] = field(default_factory=dict)
    """For each grouping column that was there: one row of pooled scores per group."""
    sums: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row per image: the sums every score is a formula of; two runs are compared by them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What is kept of an image once its overlap has gone."""

    name: str
    """Of the image."""
    extra: Mapping[str, Any]
    """Columns that are no score: well, condition and the like."""
    sums: dict[str, float]
    """As ``image_sums`` gives them."""
    ious: np.ndarray
    """As ``sorted_ap_ious`` gives them."""
    matches: pd.DataFrame
    """Its rows of the table of matches."""


def measure(name: str, overlap: Overlap, extra: Mapping[str, Any] | None = None) -> Measured:
    """Measure one image; ``assemble`` puts images together."""
    taxonomy = classify(overlap)
    return Measured(
        name=name, extra=dict(extra or {}), sums=image_sums(overlap, taxonomy), ious=sorted_ap_ious(overlap),
        matches=_match_rows(name, overlap, taxonomy),
    )  # fmt: skip


def evaluate_image(overlap: Overlap) -> dict[str, float]:
    """Return counts, every score and the kinds of errors of one image, by column name."""
    return _row(measure("image", overlap))


def evaluate_dataset(
    items: Iterable[tuple[str, Overlap, Mapping[str, Any]]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Evaluation:
    """Evaluate (name, overlap, extra columns) of each image; the overlaps are taken one at a time."""
    return assemble([measure(*item) for item in items], resamples=resamples, seed=seed, level=level)


def assemble(
    measured: Sequence[Measured], *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Evaluation:
    """Pool measured images.

    Extra columns stand in the images table; ``plate``, ``well`` and ``condition`` also make groups. Images that lack
    the column or hold None are in no group.

    Args:
        measured: the images, each name once.
        resamples: bootstrap resamples over images; 0 for no intervals, nor are there any of fewer than `FEWEST` images.
        seed: of the bootstrap.
        level: of the confidence intervals.
    """
    _check_names([image.name for image in measured])
    images = pd.DataFrame([{"image": image.name, **image.extra, **_row(image)} for image in measured])
    draw = partial(_confidence, resamples=resamples, seed=seed, level=level)
    summary = _STATED | _numbers(measured)
    summary["image_mean"] = _nested({name: float(images[name].mean()) for name in _pooled(measured)})
    summary["confidence"] = draw(measured)
    groups = {name: members for name in ("plate", "well", CONDITION) if (members := _members(name, measured))}
    conditions = {
        str(value): _numbers(members) | {"confidence": draw(members)}
        for value, members in groups.get(CONDITION, {}).items()
    }
    return Evaluation(
        images=images,
        matches=pd.concat([image.matches for image in measured], ignore_index=True),
        summary=summary | ({"conditions": conditions} if conditions else {}),
        groups={name: _group_table(name, members, conditions) for name, members in groups.items()},
        sums=pd.DataFrame([{"image": image.name, **image.sums} for image in measured]),
    )


def _check_names(names: list[str]) -> None:
    if not names:
        raise BadArgument("expected at least one image to evaluate, got none")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise BadArgument(f"image names must be unique, but {twice[0]!r} comes up more than once; rename it")


def _total(measured: Sequence[Measured]) -> dict[str, float]:
    return {key: sum(image.sums[key] for image in measured) for key in measured[0].sums}


def _pooled(measured: Sequence[Measured]) -> dict[str, float]:
    """Return every score of the images taken together, by column name."""
    total = _total(measured)
    ious = np.sort(np.concatenate([image.ious for image in measured]))
    values = {**scores(total), "sortedAP": sorted_ap(ious, total["n_truth"], total["n_prediction"])}
    return {name: float(value) for name, value in values.items()}


def _counts(total: Mapping[str, float]) -> dict[str, int]:
    """Return the object counts and the kinds of errors, by column name."""
    kinds = [f"truth_{kind}" for kind in TRUTH_KINDS] + [f"prediction_{kind}" for kind in PREDICTION_KINDS]
    return {name: int(total[name]) for name in ("n_truth", "n_prediction", *kinds)}


def _row(image: Measured) -> dict[str, float]:
    counts = _counts(image.sums)
    objects = {name: counts.pop(name) for name in ("n_truth", "n_prediction")}
    return {**objects, **_pooled([image]), **counts}


def _numbers(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the counts, pooled scores and kinds of errors in the form of the summary."""
    total = _total(measured)
    sides = (("truth", TRUTH_KINDS), ("prediction", PREDICTION_KINDS))
    return {
        "counts": {key: int(total[key]) for key in ("images", "n_truth", "n_prediction")},
        **_nested(_pooled(measured)),
        "errors": {side: {kind: int(total[f"{side}_{kind}"]) for kind in kinds} for side, kinds in sides},
    }


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Put scores by column name into the form of the summary; the author's assignment stands apart."""

    def by_threshold(prefix: str, thresholds: tuple[float, ...]) -> dict[str, Any]:
        return {str(t): flat[f"{prefix}_{t}"] for t in thresholds}

    return {
        "AP": by_threshold("AP", THRESHOLDS),
        "meanAP": flat["meanAP"],
        "AP_dense": by_threshold("AP", DENSE_THRESHOLDS),
        "meanAP_dense": flat["meanAP_dense"],
        "AJI": flat["AJI"],
        "AJI_variants": {variant: flat[column] for variant, column in AJI_COLUMNS.items()},
        **{name: flat[name] for name in PLAIN},
        **{name: by_threshold(name, DENSE_THRESHOLDS) for name in ("precision", "recall", "F1")},
        "author": {
            "AP": by_threshold("AP_author", THRESHOLDS),
            "meanAP": flat["meanAP_author"],
            "AP_dense": by_threshold("AP_author", DENSE_THRESHOLDS),
            "meanAP_dense": flat["meanAP_dense_author"],
            "AJI": flat["AJI_author"],
        },
    }


def _confidence(measured: Sequence[Measured], resamples: int, seed: int, level: float) -> dict[str, Any]:
    """Return [low, high] for each score in the form of the summary, or only the facts if there is nothing to draw."""
    facts = {"level": level, "resamples": resamples, "seed": seed, "unit": "image"}
    if resamples == 0 or len(measured) < FEWEST:
        return facts
    sums = pd.DataFrame([image.sums for image in measured])
    ious = [image.ious for image in measured]
    intervals = bootstrap(sums, ious, resamples=resamples, seed=seed, level=level)
    return {**facts, **_nested({name: list(pair) for name, pair in intervals.items()})}


def _members(column: str, measured: Sequence[Measured]) -> dict[Any, list[Measured]]:
    """Return the images of each value of a column, the values as numbers where all are, else by their text."""
    members: dict[Any, list[Measured]] = {}
    for image in measured:
        if image.extra.get(column) is not None:
            members.setdefault(image.extra[column], []).append(image)
    try:
        ordered = sorted(members, key=float)
    except ValueError:
        ordered = sorted(members, key=str)
    return {value: members[value] for value in ordered}


def _group_table(
    column: str, groups: Mapping[Any, Sequence[Measured]], intervals: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """Return one row of pooled scores per group; conditions also with the ends of their intervals."""
    rows = []
    for value, members in groups.items():
        counts, pooled = _counts(_total(members)), _pooled(members)
        ends: dict[str, float] = {}
        if column == CONDITION:
            between = intervals[str(value)]["confidence"]
            for name, path in WITH_INTERVAL.items():
                pair = reduce(lambda place, key: place.get(key, {}), path, between) or (np.nan, np.nan)
                ends |= {f"{name}_low": pair[0], f"{name}_high": pair[1]}
        rows.append({column: value, "images": len(members), **counts, **pooled, **ends})
    return pd.DataFrame(rows)


def _match_rows(name: str, overlap: Overlap, taxonomy: Taxonomy) -> pd.DataFrame:
    """Return the rows of one image: truth objects in order of their ids, then predictions without a match."""
    unmatched = taxonomy.prediction_kind != "match"
    truth_labels = np.append(overlap.truth_ids, np.uint32(0))  # partner -1 takes the 0 at the end
    prediction_labels = np.append(overlap.prediction_ids, np.uint32(0))
    truth = pd.DataFrame(
        {
            "truth_label": overlap.truth_ids,
            "prediction_label": prediction_labels[taxonomy.truth_partner],
            "iou": taxonomy.truth_iou,
            "kind": taxonomy.truth_kind,
            "side": np.where(taxonomy.truth_kind == "match", "both", "truth"),
        }
    )
    prediction = pd.DataFrame(
        {
            "truth_label": truth_labels[taxonomy.prediction_partner[unmatched]],
            "prediction_label": overlap.prediction_ids[unmatched],
            "iou": taxonomy.prediction_iou[unmatched],
            "kind": taxonomy.prediction_kind[unmatched],
            "side": "prediction",
        }
    )
    rows = pd.concat([truth, prediction], ignore_index=True)
    rows.insert(0, "image", name)
    return rows
