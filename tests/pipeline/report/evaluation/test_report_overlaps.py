"""Pairs that overlap are counted and shown, and plates of different models have no common headline."""

import numpy as np

from pipeline.metrics.evaluation import evaluate_dataset
from pipeline.metrics.overlap import overlap
from pipeline.report.evaluation.assessment import Assessment
from pipeline.report.evaluation.overlaps import overlap_section, shared_pixels
from pipeline.report.evaluation.page import evaluation_page


def crossing():
    """Two bars that cross, on two layers."""
    stack = np.zeros((2, 60, 60), np.uint32)
    stack[0, 28:32, 10:50], stack[1, 10:50, 28:32] = 1, 2
    return stack


def flattened(stack):
    """The same on one layer: the second object loses the pixels of the crossing."""
    return np.where(stack[0] > 0, stack[0], stack[1])[None]


TRUTH = {"worms/A/1/0": crossing(), "cells/A/1/0": crossing()}
FOUND = {"worms/A/1/0": crossing(), "cells/A/1/0": flattened(crossing())}


def evaluation():
    return evaluate_dataset(
        [(name, overlap(TRUTH[name], FOUND[name]), {"plate": name.split("/")[0]}) for name in TRUTH],
        resamples=10,
    )


def look(name):
    return np.zeros((60, 60)), TRUTH[name], FOUND[name]


def test_pixels_of_every_two_objects():
    assert shared_pixels(crossing()) == {(1, 2): 16}
    assert shared_pixels(flattened(crossing())) == {}


def test_pairs_are_counted_by_plate_and_those_that_survived_are_shown():
    plates = {name: name.split("/")[0] for name in TRUTH}
    table, gallery = overlap_section(list(TRUTH), evaluation().matches, look, plates).blocks
    assert [row.cells for row in table.rows] == [("worms", 1, 1, 1), ("cells", 1, 1, 0)]
    (picture,) = gallery.pictures
    assert picture.title.startswith("worms/A/1/0") and "share 16 px, their predictions 16" in picture.caption
    assert sorted((o.key, o.dashed) for o in picture.outlines) == [
        ("prediction", False), ("prediction", False), ("truth", True), ("truth", True),
    ]  # fmt: skip
    apart = np.stack([crossing()[0], np.zeros((60, 60), np.uint32)])
    assert overlap_section(["a"], evaluation().matches, lambda _: (apart[0], apart, apart), {}) is None


def test_plates_of_different_models_stand_in_rows_and_are_not_pooled_in_the_headline():
    models = {"worms": "worms (1a)", "cells": "nuclei (2b)"}
    pages = {
        len(set(of.values())): evaluation_page(
            Assessment(title="t", name="n", evaluation=evaluation(), models=of)
        )
        for of in (models, dict.fromkeys(models, "worms (1a)"))
    }
    kinds = {number: [block.kind for block in page.sections[0].blocks] for number, page in pages.items()}
    assert kinds[2] == ["table", "note", "note"] and kinds[1][:2] == ["numbers", "table"]
    rows = pages[2].sections[0].blocks[0].rows
    assert {row.cells[:2] for row in rows} == {("worms", "worms (1a)"), ("cells", "nuclei (2b)")}
