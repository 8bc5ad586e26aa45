"""The page of an evaluation: every score with how it was made, worst images first, kinds of error in colour."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.errors import BadArgument
from pipeline.metrics.evaluation import Evaluation, evaluate_dataset
from pipeline.metrics.overlap import overlap
from pipeline.report.blocks import Gallery
from pipeline.report.evaluation.assessment import Assessment
from pipeline.report.evaluation.page import evaluation_page, evaluation_report
from pipeline.report.evaluation.pictures import kind_lines, kind_outlines, kinds_of
from pipeline.report.markdown import markdown_page
from pipeline.report.palette import KIND_COLOURS, rgb

EVIL = "<script>alert('x')</script>"


def words_of(page):
    body = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def two_stacks():
    """Truth with an overlap; a prediction that misses one object, finds two and adds one."""
    truth = np.zeros((2, 48, 48), np.uint32)
    truth[0, 2:14, 2:14], truth[1, 8:20, 8:20], truth[0, 30:44, 30:44] = 1, 2, 3
    prediction = np.zeros((2, 48, 48), np.uint32)
    prediction[0, 2:14, 2:13], prediction[1, 8:20, 8:20], prediction[0, 2:10, 36:44] = 11, 12, 13
    return truth, prediction


NAMES = ("A/1/0", "A/2/0", "B/1/0", "B/2/0", "C/1/0")


def an_evaluation(*, worse=False, names=NAMES, wells=("A01", "A02", "B01", "B02", "C01")):
    truth, prediction = two_stacks()
    items = []
    for at, (name, well) in enumerate(zip(names, wells)):
        found = prediction if at or not worse else np.zeros_like(prediction)
        items.append((name, overlap(truth, truth if at == 2 else found), {"well": well}))
    return evaluate_dataset(items, resamples=50)


def look(name):
    truth, prediction = two_stacks()
    grey = np.random.default_rng(len(name)).normal(size=(48, 48))
    return grey, truth, truth if name == "B/1/0" else prediction


def test_evaluation_page_holds_every_number():
    evaluation = an_evaluation()
    assessment = Assessment(title="Worms", name="this run", evaluation=evaluation)
    words = words_of(evaluation_report(assessment, picture=look))
    for at in ("0.5", "0.7", "0.9"):
        assert f"{evaluation.summary['AP'][at]:.4f}" in words
    low, high = evaluation.summary["confidence"]["meanAP"]
    assert f"{low:.3f} to {high:.3f}" in words
    assert "Assignment canonical" in words
    assert "AJI variant kumar" in words
    assert "sums over all images" in words
    assert "50 bootstrap resamples" in words


def test_worst_images_come_first_with_objects_in_the_colour_of_their_kind():
    assessment = Assessment(title="Worms", name="a", evaluation=an_evaluation())
    pictures = next(s for s in evaluation_page(assessment, picture=look).sections if s.name == "pictures")
    drawn = pictures.blocks[0].pictures
    assert [picture.title for picture in drawn][-1] == "B/1/0"
    kinds = sorted(outline.key for outline in drawn[0].outlines)
    assert kinds == [
        "prediction match", "prediction match", "prediction spurious", "truth match", "truth match", "truth missed",
    ]  # fmt: skip
    assert {o.colour for o in drawn[0].outlines if o.key == "truth missed"} == {KIND_COLOURS["missed"]}
    assert all(outline.dashed == outline.key.startswith("truth") for outline in drawn[0].outlines)


def test_errors_are_drawn_over_matches():
    truth, prediction = two_stacks()
    kinds = kinds_of(an_evaluation().matches.query("image == 'A/1/0'"))
    keys = [outline.key for outline in kind_outlines(truth, prediction, kinds)]
    assert [key.endswith("match") for key in keys] == [True] * 4 + [False] * 2
    assert kind_lines(truth, prediction, kinds)((48, 48)).startswith("data:image/png")


def decoded(source):
    """Pixels ``(y, x, RGBA)`` of a PNG data URI."""
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def test_lines_of_a_thumbnail_have_the_colours_that_the_table_of_matches_and_the_legend_give():
    truth, prediction = two_stacks()
    inaccurate, merged, matched = np.zeros((3, 48, 48), np.uint32)
    inaccurate[22:28, 2:12], merged[22:28, 20:28], matched[22:28, 36:46] = 4, 5, 6
    truth = np.concatenate([truth, [inaccurate, merged, matched]])
    prediction = np.concatenate([prediction, [np.where(matched, 16, 0), np.where(inaccurate, 14, 0)]])
    rows = pd.DataFrame(
        [
            ("both", 1, 11, "match"), ("both", 2, 12, "match"), ("truth", 3, 0, "missed"),
            ("truth", 4, 0, "inaccurate"), ("truth", 5, 0, "merged"), ("both", 6, 16, "match"),
            ("prediction", 0, 13, "spurious"), ("prediction", 0, 14, "inaccurate"),
        ], columns=["side", "truth_label", "prediction_label", "kind"],
    ).assign(iou=0.5)  # fmt: skip
    pixels = decoded(kind_lines(truth, prediction, kinds_of(rows))((48, 48)))
    for side, stack in (("truth", truth), ("prediction", prediction)):
        for label in (int(label) for label in np.unique(stack) if label):
            kind = rows.loc[rows[f"{side}_label"] == label, "kind"].item()
            if side == "truth" and kind == "match":
                continue  # drawn as its prediction
            y, x = (int(where[0]) for where in np.nonzero((stack == label).any(axis=0)))  # a corner
            assert tuple(pixels[y, x]) == (*rgb(KIND_COLOURS[kind]), 255), (side, label, kind)
    assert pixels[0, 0, 3] == 0


def test_thumbnails_of_an_evaluation_use_the_colours_of_its_own_table():
    names = tuple(f"A/{at}/0" for at in range(1, 26))
    evaluation = an_evaluation(names=names, wells=tuple(f"A{at:02}" for at in range(1, 26)))
    assessment = Assessment(title="t", name="run", evaluation=evaluation)
    page = evaluation_page(assessment, picture=lambda name: look("B/1/0" if name == names[2] else name))
    (gallery,) = (
        block
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Gallery) and block.pictures[0].lines
    )
    (entry,) = (entry for entry in gallery.legend if entry.label.startswith("match"))
    for picture in gallery.pictures:
        shown = {tuple(pixel[:3].tolist()) for pixel in decoded(picture.lines).reshape(-1, 4) if pixel[3]}
        kinds = set(evaluation.matches.loc[evaluation.matches["image"] == picture.title, "kind"])
        assert shown == {rgb(KIND_COLOURS[kind]) for kind in kinds} and rgb(entry.colour) in shown


def test_unknown_kinds_of_error_are_refused():
    rows = pd.DataFrame(
        {"truth_label": [1], "prediction_label": [0], "iou": [0.0], "kind": ["odd"], "side": ["truth"]}
    )
    with pytest.raises(BadArgument, match="'odd'"):
        kinds_of(rows)


def test_the_best_of_a_column_is_bold_and_ties_are_both():
    baseline = an_evaluation(worse=True)
    assessment = Assessment(
        title="Worms", name="new", evaluation=an_evaluation(), baselines={"old": baseline}
    )
    page = evaluation_page(assessment)
    table = next(table for table in page.tables if table.name == "precision")
    assert table.best_cells() >= {(0, 1), (0, 6)}
    assert all(row == 0 or (0, column) in table.best_cells() for row, column in table.best_cells())
    assert "meanAP is higher in 1 images, lower in 0 and equal in 4" in markdown_page(page)


def test_a_published_summary_is_a_baseline():
    paper = Evaluation(
        images=pd.DataFrame({"image": []}),
        matches=pd.DataFrame(),
        summary={"AP": {"0.5": 0.9357}, "meanAP": 0.7541},
    )
    assessment = Assessment(title="Worms", name="new", evaluation=an_evaluation(), baselines={"paper": paper})
    assert "| paper | **0.9357** | – |" in markdown_page(evaluation_page(assessment))


def test_images_on_one_side_only_are_named():
    facts = {
        "without_prediction": ["D/1/0"],
        "without_truth": [f"E/{k}/0" for k in range(20)],
        "truth_name": "truth",
    }
    assessment = Assessment(title="Worms", name="a", evaluation=an_evaluation(), facts=facts)
    text = markdown_page(evaluation_page(assessment))
    assert "1 image without a prediction; all of their objects count as missed: D/1/0" in text
    assert "20 images without a truth, left out: E/0/0" in text
    assert "and 12 more" in text


def test_one_image_has_no_interval():
    evaluation = an_evaluation(names=("only",), wells=("A01",))
    text = markdown_page(evaluation_page(Assessment(title="x", name="a", evaluation=evaluation)))
    assert "no confidence intervals" in text


def test_a_baseline_needs_another_name():
    with pytest.raises(BadArgument, match="another name"):
        Assessment(title="x", name="a", evaluation=an_evaluation(), baselines={"a": an_evaluation()})


def test_names_with_markup_are_escaped_everywhere():
    names = (EVIL, EVIL + "2", "c")
    evaluation = an_evaluation(names=names, wells=(EVIL, EVIL, EVIL))
    assessment = Assessment(title=EVIL, name=EVIL, evaluation=evaluation, baselines={EVIL + "b": evaluation})
    assert "<script>alert" not in evaluation_report(assessment, picture=look)


def test_every_table_has_a_name_of_its_own():
    page = evaluation_page(Assessment(title="x", name="a", evaluation=an_evaluation()))
    names = [table.name for table in page.tables]
    assert len(names) == len(set(names))
