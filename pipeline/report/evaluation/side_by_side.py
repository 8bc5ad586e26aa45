"""The page of several predictions of the same images: one table, one chart, the same images under each prediction.

The predictions keep the order in which they were named. Tables and callables in, a page out; no store is opened here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from pipeline.metrics.comparison import Difference, difference
from pipeline.metrics.evaluation import Evaluation
from pipeline.metrics.resampling import FEWEST
from pipeline.report.blocks import Block, Chart, Column, Note, Page, Row, Section, Table, counted
from pipeline.report.charts import height_px, ranges
from pipeline.report.evaluation.assessment import THRESHOLDS, Assessment, definitions, interval, score
from pipeline.report.evaluation.page import curve_chart
from pipeline.report.evaluation.pictures import compared_gallery
from pipeline.report.evaluation.tables import author_table
from pipeline.report.pictures import PictureOf

MOST_PICTURES = 48
"""Pictures on the page, all predictions together; an image has one per prediction."""
MOST_IMAGES = 8
"""Images that are shown under each prediction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One prediction of the comparison."""

    evaluation: Evaluation
    """Its numbers."""
    picture: PictureOf | None = None
    """Draws an image with its truth and this prediction."""
    link: str = ""
    """Address of its own report, relative to the page."""


def side_by_side_page(
    title: str, entries: Mapping[str, Entry], *, provenance: Sequence[tuple[str, str]] = ()
) -> Page:
    """Lay out the comparison of two or more predictions, by their names.

    Raises:
        BadArgument: two predictions have no image in common, or were measured against different truths.
    """
    names = list(entries)
    first = entries[names[0]].evaluation
    everyone = Assessment(
        title=title, name=names[0], evaluation=first,
        baselines={name: entries[name].evaluation for name in names[1:]},
    )  # fmt: skip
    differences = paired_differences({name: entry.evaluation for name, entry in entries.items()})
    scores = image_scores(entries)
    shown = _shown_images(scores, len(names))
    anchors = {name: f"image-{number}" for number, name in enumerate(shown)}
    pictures = {name: entry.picture for name, entry in entries.items() if entry.picture}
    evaluations = {name: entry.evaluation for name, entry in entries.items()}
    gallery = compared_gallery(shown, anchors, evaluations, pictures)
    author = author_table(everyone)
    sections = [
        Section(name="summary", title="Summary", blocks=(_score_table(entries), *_notes(entries))),
        Section(
            name="precision",
            title="Average precision",
            blocks=(curve_chart(everyone), *filter(None, [author])),
        ),
        Section(name="differences", title="Paired differences", blocks=_difference_blocks(differences)),
        *([Section(name="pictures", title="The same images", blocks=(gallery,))] if gallery.pictures else []),
        Section(name="images", title="Image by image", blocks=(_image_table(scores, anchors),)),
    ]
    images = counted(len(first.images), "image")
    return Page(
        title=title, subtitle=f"{counted(len(names), 'prediction')} side by side, {images}",
        sections=tuple(sections), provenance=tuple(provenance),
    )  # fmt: skip


def paired_differences(evaluations: Mapping[str, Evaluation]) -> dict[tuple[str, str], Difference]:
    """Compare every two predictions on the images both have; the one with the larger meanAP comes first."""
    by_pair = {}
    for pair in combinations(evaluations, 2):
        one, other = sorted(pair, key=lambda name: -(score(evaluations[name].summary, "meanAP") or 0.0))
        by_pair[one, other] = difference(evaluations[one], evaluations[other])
    return by_pair


def mean_ap(paired: Difference) -> dict[str, float]:
    """Return the difference of meanAP with the ends of its interval: ``paired``, ``low``, ``high``."""
    row = paired.scores.astype(float).to_dict("index")["meanAP"]
    return {str(name): row[name] for name in ("difference", "low", "high")}


def image_scores(entries: Mapping[str, Entry]) -> pd.DataFrame:
    """Return meanAP by image (index) and prediction (columns), in the order of the images of the first."""
    columns = {name: entry.evaluation.images.set_index("image")["meanAP"] for name, entry in entries.items()}
    table = pd.concat(columns, axis=1)
    first = next(iter(columns.values())).index
    return table.reindex([*first, *table.index.difference(first)])


def _shown_images(scores: pd.DataFrame, predictions: int) -> list[str]:
    """Return the images on which the predictions differ most, by the range of meanAP; of equal ones the first."""
    spread = (scores.max(axis=1) - scores.min(axis=1)).sort_values(ascending=False, kind="stable")
    return [str(name) for name in spread.index[: max(min(MOST_IMAGES, MOST_PICTURES // predictions), 1)]]


def _score_table(entries: Mapping[str, Entry]) -> Table:
    """Return the table of the paper with the number of objects; the best of a column is bold."""
    columns = (
        Column(name="prediction"),
        *(Column(name=f"AP{at.removeprefix('0')}", digits=4, best="high") for at in THRESHOLDS),
        Column(name="meanAP", digits=4, best="high"),
        Column(name="from", digits=4),
        Column(name="to", digits=4),
        Column(name="AJI", digits=4, best="high"),
        Column(name="PQ", digits=4, best="high"),
        Column(name="objects", digits=0, hint="Predicted objects."),
    )
    rows = tuple(_score_row(name, entry) for name, entry in entries.items())
    summary = next(iter(entries.values())).evaluation.summary
    truth = summary.get("counts", {}).get("n_truth")
    objects = f" There are {truth:,} true objects." if truth is not None else ""
    return Table(
        name="side_by_side",
        title="",
        columns=columns,
        rows=rows,
        caption=f"{definitions(summary)}. The best of a column is bold; from and to are the 95 % interval of meanAP. "
        f"A name leads to the report of that prediction.{objects}",
    )


def _score_row(name: str, entry: Entry) -> Row:
    summary = entry.evaluation.summary
    low, high = interval(summary, "meanAP") or (None, None)
    precision = [score(summary, "AP", at) for at in THRESHOLDS]
    rest = (score(summary, "meanAP"), low, high, score(summary, "AJI"), score(summary, "PQ"))
    return Row(
        cells=(name, *precision, *rest, summary.get("counts", {}).get("n_prediction")), link=entry.link
    )


def _notes(entries: Mapping[str, Entry]) -> list[Note]:
    """Say where the predictions were not measured on the same images."""
    sets = {name: set(entry.evaluation.images["image"]) for name, entry in entries.items()}
    shared = set.intersection(*sets.values())
    lacking = [name for name, images in sets.items() if images != shared]
    if not lacking:
        return []
    text = (
        f"Only {counted(len(shared), 'image')} were measured for every prediction; the table pools all images of each, "
        f"the paired differences only those that both have. More images: {', '.join(lacking)}."
    )
    return [Note(text=text, tone="warn")]


def _difference_blocks(differences: Mapping[tuple[str, str], Difference]) -> tuple[Block, ...]:
    table = _difference_table(differences)
    if not any(paired.resamples for paired in differences.values()):
        return (table,)
    labels = [f"{one} minus {other}" for one, other in differences]
    rows = [mean_ap(paired) for paired in differences.values()]
    chart = Chart(
        title="Difference of meanAP",
        figure=ranges(
            labels, [row["difference"] for row in rows],
            np.array([[row["low"], row["high"]] for row in rows], float), x_title="difference of meanAP",
        ),
        height_px=height_px(len(labels)),
        caption="Bars are the intervals of the table. One that holds 0 leaves open which prediction is better.",
    )  # fmt: skip
    return (table, chart)


def _difference_table(differences: Mapping[tuple[str, str], Difference]) -> Table:
    columns = (
        Column(name="better"),
        Column(name="worse"),
        Column(name="meanAP", digits=4, hint="Difference of meanAP, better minus worse."),
        Column(name="from", digits=4),
        Column(name="to", digits=4),
        Column(name="AP.5", digits=4, hint="Difference of AP at IoU 0.5."),
        Column(name="AP.9", digits=4, hint="Difference of AP at IoU 0.9."),
        Column(name="AJI", digits=4, hint="Difference of AJI."),
        Column(name="images", digits=0, hint="Images that both have."),
    )
    rows = []
    for (one, other), paired in differences.items():
        change = paired.scores["difference"].astype(float).to_dict()
        others = [change[name] for name in ("AP_0.5", "AP_0.9", "AJI")]
        rows.append(Row(cells=(one, other, *mean_ap(paired).values(), *others, paired.images)))
    some = next(iter(differences.values()))
    how = (
        f"From and to: {100 * some.level:.0f} % interval from {some.resamples:,} paired bootstrap resamples of images, "
        f"seed {some.seed}."
        if some.resamples
        else f"Fewer than {FEWEST} images give no interval."
    )
    return Table(
        name="paired_differences",
        title="",
        columns=columns,
        rows=tuple(rows),
        caption=f"Better minus worse, pooled over the images that both have. {how}",
    )


def _image_table(scores: pd.DataFrame, anchors: Mapping[str, str]) -> Table:
    """Return meanAP of each image under each prediction; a name leads to the pictures of the image."""
    columns = (
        Column(name="image"),
        *(Column(name=str(name), digits=4) for name in scores.columns),
        Column(name="range", digits=4, hint="Largest minus smallest meanAP of the image."),
    )
    spread = scores.max(axis=1) - scores.min(axis=1)
    rows = tuple(
        Row(
            cells=(str(image), *(float(value) for value in scores.loc[image]), float(spread[image])),
            anchor=f"{anchors[str(image)]}-0" if str(image) in anchors else "",
        )
        for image in scores.index
    )
    return Table(
        name="side_by_side_images",
        title="",
        columns=columns,
        rows=rows,
        filterable=True,
        caption="meanAP of the image. A click on a heading sorts.",
    )
