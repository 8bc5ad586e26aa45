"""The tables of an evaluation: the paper's form, every score with its interval, kinds of error, images, groups."""

import pandas as pd

from pipeline.metrics.comparison import Difference
from pipeline.metrics.resampling import FEWEST
from pipeline.report.blocks import Column, Row, Table, Value
from pipeline.report.evaluation.assessment import (
    THRESHOLDS,
    Assessment,
    definitions,
    interval,
    level_text,
    score,
)
from pipeline.report.palette import KIND_MEANINGS

SCORES: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("meanAP", ("meanAP",), "high", "Mean of AP over the IoU thresholds 0.5 to 0.9 in steps of 0.1."),
    ("AP 0.5", ("AP", "0.5"), "high", "TP / (TP + FP + FN) at IoU 0.5."),
    ("AP 0.75", ("AP_dense", "0.75"), "high", "The same at IoU 0.75."),
    ("sortedAP", ("sortedAP",), "high", "Area under AP over all thresholds."),
    ("precision 0.5", ("precision", "0.5"), "high", "Share of the predictions that are matched at IoU 0.5."),
    ("recall 0.5", ("recall", "0.5"), "high", "Share of the truth objects that are matched at IoU 0.5."),
    ("F1 0.5", ("F1", "0.5"), "high", "Harmonic mean of the two."),
    ("AJI", ("AJI",), "high", "Aggregated Jaccard index."),
    ("AJI+", ("AJI_variants", "plus"), "high", "The same with one-to-one assignment."),
    ("PQ", ("PQ",), "high", "Panoptic quality, SQ times RQ, IoU above 0.5."),
    ("SQ", ("SQ",), "high", "Mean IoU of the matches."),
    ("RQ", ("RQ",), "high", "F1 at IoU above 0.5."),
    ("Dice", ("dice",), "high", "Foreground pixels, objects not told apart."),
    ("SBD", ("SBD",), "high", "Symmetric best Dice, mean over images."),
    ("DiC", ("DiC",), "", "Difference in count, prediction minus truth, mean over images."),
    ("|DiC|", ("absDiC",), "low", "Mean of its absolute value."),
    ("VOI split", ("VOI_split",), "low", "Variation of information by splitting, bits."),
    ("VOI merge", ("VOI_merge",), "low", "Variation of information by merging, bits."),
    ("ARAND", ("ARAND",), "low", "Adapted Rand error on true foreground."),
    ("ARI", ("ARI",), "high", "Adjusted Rand index, mean over images."),
)
"""Name, place in the summary, which is better, and what it means."""

IMAGE_SCORES = ("AP_0.5", "meanAP", "AJI", "PQ", "dice", "SBD")
"""Scores in the table of images; metrics.parquet has all."""

COMPARED = ("AP_0.5", "AP_0.6", "AP_0.7", "AP_0.8", "AP_0.9", "meanAP", "AJI", "PQ", "dice", "SBD")
"""Scores in the table of differences; summary.json has all but sorted AP."""

GROUP_SCORES = (
    "AP_0.5", "meanAP", "meanAP_low", "meanAP_high", "AJI", "AJI_low", "AJI_high", "PQ", "dice", "SBD",
)  # fmt: skip
"""Scores in the tables of groups, with the intervals that conditions have."""

LABELS = {f"AP_0.{at}": f"AP.{at}" for at in range(5, 10)} | {
    "dice": "Dice", "n_truth": "truth", "n_prediction": "predicted",
}  # fmt: skip
"""Headings for columns that are called otherwise in the files."""

HINTS = {
    "AP_0.5": "TP / (TP + FP + FN) at IoU 0.5.",
    "meanAP": SCORES[0][3],
    "AJI": "Aggregated Jaccard index.",
    "PQ": "Panoptic quality.",
    "dice": "Foreground pixels, objects not told apart.",
    "SBD": "Symmetric best Dice.",
}


def paper_table(assessment: Assessment) -> Table:
    """Rows are runs, columns AP at five thresholds, their mean and AJI; the best in bold."""
    columns = (
        Column(name="method"),
        *(Column(name=f"AP{at.removeprefix('0')}", digits=4, best="high") for at in THRESHOLDS),
        Column(name="meanAP", digits=4, best="high"),
        Column(name="AJI", digits=4, best="high"),
    )
    rows = tuple(
        Row(cells=(name, *(score(run.summary, "AP", at) for at in THRESHOLDS), *_last_two(run.summary)))
        for name, run in assessment.runs.items()
    )
    bold = " The best of a column is bold." if len(rows) > 1 else ""
    return Table(
        name="precision",
        title="",
        columns=columns,
        rows=rows,
        caption=f"{definitions(assessment.evaluation.summary)}.{bold}",
    )


def author_table(assessment: Assessment) -> Table | None:
    """The same table with the assignment of the paper's own code; None where no summary has it."""
    runs = {name: run.summary["author"] for name, run in assessment.runs.items() if "author" in run.summary}
    if not runs:
        return None
    plain = paper_table(assessment)
    rows = tuple(
        Row(cells=(name, *(score(author, "AP", at) for at in THRESHOLDS), *_last_two(author)))
        for name, author in runs.items()
    )
    return Table(
        name="precision_author",
        title="By the assignment of the paper's code",
        columns=plain.columns,
        rows=rows,
        caption="Each truth object takes the prediction of largest intersection, and a prediction may be taken more "
        "than once: comparable with published numbers, not a strict measure.",
    )


def difference_tables(assessment: Assessment) -> list[Table]:
    """Run against each baseline on the images both have, with the interval of the difference."""
    return [
        Table(
            name=f"difference_{number}",
            title=f"{assessment.name} against {name}",
            columns=(
                Column(name="score"),
                Column(name=assessment.name, digits=4),
                Column(name=name, digits=4),
                Column(name="difference", digits=4),
                Column(name="from", digits=4),
                Column(name="to", digits=4),
            ),
            rows=tuple(
                Row(cells=(LABELS.get(key, key), *(_value(value) for value in difference.scores.loc[key])))
                for key in COMPARED
            ),
            caption=_difference_caption(difference),
        )
        for number, (name, difference) in enumerate(assessment.differences.items(), start=1)
    ]


def _difference_caption(paired: Difference) -> str:
    pooled = f"Pooled over the {paired.images:,} images that both have."
    if not paired.resamples:
        return f"{pooled} Fewer than {FEWEST} images give no interval."
    return (
        f"{pooled} From and to: {100 * paired.level:.0f} % interval of the difference, from {paired.resamples:,} "
        f"paired bootstrap resamples of these images, seed {paired.seed}. In an interval without 0 the sign of the "
        "difference does not depend on a few of these images; it says nothing about other plates or days."
    )


def score_table(assessment: Assessment) -> Table:
    """Every score, pooled, with its interval, its mean over images and the baselines' values."""
    summary = assessment.evaluation.summary
    columns = [
        Column(name="score"),
        Column(name="pooled", digits=4),
        Column(name="from", digits=4),
        Column(name="to", digits=4),
        Column(name="mean over images", digits=4),
        *(Column(name=name, digits=4, hint="The baseline's pooled score.") for name in assessment.baselines),
        Column(name="better when"),
        Column(name="meaning"),
    ]
    rows = []
    for label, path, better, meaning in SCORES:
        low, high = interval(summary, *path) or (None, None)
        others = [score(run.summary, *path) for run in assessment.baselines.values()]
        mean = score(summary, "image_mean", *path)
        rows.append(
            Row(cells=(label, score(summary, *path), low, high, mean, *others, better or "near 0", meaning))
        )
    return Table(
        name="scores",
        title="",
        columns=tuple(columns),
        rows=tuple(rows),
        caption=f"{definitions(summary)}. From and to: {level_text(summary)}.",
    )


def error_table(assessment: Assessment) -> Table:
    """Kinds of error, counted for truth objects and for predictions."""
    errors = assessment.evaluation.summary.get("errors", {})
    truth, prediction = errors.get("truth", {}), errors.get("prediction", {})
    rows = tuple(
        Row(cells=(kind, *_share(truth, kind), *_share(prediction, kind), meaning))
        for kind, meaning in KIND_MEANINGS.items()
    )
    columns = (
        Column(name="kind"),
        Column(name="truth objects"),
        Column(name="share of truth", digits=3),
        Column(name="predictions"),
        Column(name="share of predictions", digits=3),
        Column(name="meaning"),
    )
    return Table(
        name="errors",
        title="",
        columns=columns,
        rows=rows,
        caption="Every truth object and every prediction has exactly one kind; a match has an IoU of at least 0.5.",
    )


def image_table(assessment: Assessment, anchors: dict[str, str], wells: dict[str, str]) -> Table:
    """One row per image, worst meanAP first, with the difference to the first baseline."""
    images = worst_first(assessment.evaluation.images)
    change = changes(assessment)
    extras = assessment.extra_columns()
    errors = [name for name in images.columns if name in ("truth_missed", "prediction_spurious")]
    columns = [
        Column(name="image"),
        *(Column(name=name) for name in extras),
        *(
            Column(name=LABELS.get(name, name), digits=4, hint=HINTS[name])
            for name in IMAGE_SCORES
            if name in images.columns
        ),
        *([Column(name="Δ meanAP", digits=4, hint=_change_hint(assessment))] if change is not None else []),
        Column(name="truth", digits=0),
        Column(name="predicted", digits=0),
        *(Column(name=name.removeprefix("truth_").removeprefix("prediction_"), digits=0) for name in errors),
    ]
    rows = []
    for record in images.to_dict("records"):
        name = str(record["image"])
        cells: list[Value] = [name, *(_text(record[extra]) for extra in extras)]
        cells += [_value(record[metric]) for metric in IMAGE_SCORES if metric in images.columns]
        cells += [change.get(name)] if change is not None else []
        cells += [_value(record[count]) for count in ("n_truth", "n_prediction", *errors)]
        rows.append(Row(cells=tuple(cells), anchor=anchors.get(name, ""), group=wells.get(name, "")))
    return Table(
        name="images",
        title="",
        columns=tuple(columns),
        rows=tuple(rows),
        filterable=True,
        caption="A click on a heading sorts; the name leads to the picture. An image with neither truth nor "
        "prediction scores 1.",
    )


def group_tables(assessment: Assessment) -> list[Table]:
    """Pooled scores per condition, per well and so on."""
    tables = []
    for name, table in assessment.evaluation.groups.items():
        wanted = ("images", "n_truth", "n_prediction", *GROUP_SCORES)
        shown = [column for column in wanted if column in table.columns and table[column].notna().any()]
        digits = {"images": 0, "n_truth": 0, "n_prediction": 0}
        rows = tuple(
            Row(
                cells=(_text(record[name]), *(_value(record[column]) for column in shown)),
                group=str(record[name]) if name == "well" else "",
            )
            for record in table.to_dict("records")
        )
        columns = [
            Column(name=_heading(column), digits=digits.get(column, 4), hint=HINTS.get(column, ""))
            for column in shown
        ]
        tables.append(
            Table(
                name=f"by_{name}",
                title=f"By {name}",
                columns=(Column(name=name), *columns),
                rows=rows,
                filterable=len(rows) > 12,
                caption=f"From and to: intervals, of conditions with at least {FEWEST} images; "
                "metrics_by_condition.parquet has more scores."
                if "meanAP_low" in shown
                else "",
            )
        )
    return tables


def _heading(column: str) -> str:
    for end, word in (("_low", "from"), ("_high", "to")):
        if column.endswith(end):
            return f"{_heading(column.removesuffix(end))} {word}"
    return LABELS.get(column, column)


def worst_first(images: pd.DataFrame) -> pd.DataFrame:
    """Images by meanAP, then AJI, then name; ascending."""
    keys = [key for key in ("meanAP", "AJI", "image") if key in images.columns]
    return images.sort_values(keys, kind="stable")


def changes(assessment: Assessment) -> dict[str, Value] | None:
    """meanAP minus the first baseline's, per image that both have; None without such a baseline."""
    if assessment.baseline is None or "meanAP" not in assessment.baseline[1].images.columns:
        return None
    old = assessment.baseline[1].images.set_index("image")["meanAP"]
    new = assessment.evaluation.images.set_index("image")["meanAP"]
    return {str(name): float(change) for name, change in (new - old).dropna().items()}


def _change_hint(assessment: Assessment) -> str:
    name = assessment.baseline[0] if assessment.baseline else ""
    return f"meanAP of the image minus that of {name}; positive is better."


def _last_two(summary: dict) -> tuple[float | None, float | None]:
    return score(summary, "meanAP"), score(summary, "AJI")


def _share(counts: dict[str, int], kind: str) -> tuple[Value, Value]:
    if kind not in counts:
        return None, None
    total = sum(counts.values())
    return counts[kind], counts[kind] / total if total else None


def _value(value: object) -> Value:
    return float(value) if isinstance(value, int | float) else None


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)
