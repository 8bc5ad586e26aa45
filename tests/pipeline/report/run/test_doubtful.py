"""The objects most worth a look: each reason found by hand-made tables, and how they are shown."""

import numpy as np
import pandas as pd
import pytest

from pipeline.report.run.doubtful import doubtful_objects
from pipeline.report.run.numbers import Run
from pipeline.report.run.review_section import review_section


@pytest.fixture
def objects():
    """30 round objects of about 300 px, away from the borders of tiles of 100 px."""
    number = 30
    area = 300 + np.arange(number) % 7
    axis = np.sqrt(area * 4 / np.pi)
    return pd.DataFrame(
        {
            "image": "A/1/0", "label": np.arange(1, number + 1), "t": 0, "z": 0,
            "centroid_y": 60.0, "centroid_x": 60.0, "bbox_y0": 50, "bbox_x0": 50, "bbox_y1": 70, "bbox_x1": 70,
            "area_px": area, "major_axis_px": axis, "minor_axis_px": axis, "overlap_px": 0, "touches_edge": False,
        }
    )  # fmt: skip


def with_one(objects, **columns):
    for name, value in columns.items():
        objects.loc[4, name] = value
    return objects


def test_alike_objects_are_not_doubtful(objects):
    assert not len(doubtful_objects(objects, core_px=100))


@pytest.mark.parametrize(
    ("reason", "columns"),
    [
        ("ends at a tile border", {"bbox_x1": 100}),
        ("much overlapped", {"overlap_px": 100}),
        ("large", {"area_px": 900, "major_axis_px": 34.0, "minor_axis_px": 34.0}),
        ("small", {"area_px": 100, "major_axis_px": 11.3, "minor_axis_px": 11.3}),
        ("long", {"major_axis_px": 48.0, "minor_axis_px": 8.0}),
        ("ragged", {"major_axis_px": 30.0, "minor_axis_px": 30.0}),
    ],
)
def test_each_reason_is_found(objects, reason, columns):
    found = doubtful_objects(with_one(objects, **columns), core_px=100)
    assert found["label"].tolist() == [5]
    assert found["reason"].tolist() == [reason]
    assert found["score"][0] > 0


def test_an_object_at_the_edge_of_the_image_does_not_end_at_a_tile_border(objects):
    assert not len(doubtful_objects(with_one(objects, bbox_x0=0, touches_edge=True), core_px=100))
    assert not len(doubtful_objects(with_one(objects, bbox_x1=100), core_px=None))


def test_reasons_take_turns(objects):
    objects.loc[:9, "overlap_px"] = 100 + np.arange(10)
    objects.loc[20, "bbox_x1"] = 100
    found = doubtful_objects(objects, core_px=100, most=3)
    assert found["label"].tolist() == [21, 10, 9]
    assert found["reason"].tolist() == ["ends at a tile border", "much overlapped", "much overlapped"]


def run_of(objects):
    images = pd.DataFrame({"image": ["A/1/0"], "height_px": [200], "width_px": [150]})
    return Run(title="x", objects=objects, images=images, facts={"tiling": {"core": 100}})


def test_the_section_shows_the_object_among_its_neighbours(objects):
    asked = []

    def window(image, y0, y1, x0, x1):
        asked.append((image, y0, y1, x0, x1))
        stack = np.zeros((1, y1 - y0, x1 - x0), np.uint32)
        stack[0, 10:30, 10:30], stack[0, 40:60, 40:60] = 5, 7
        return np.zeros((y1 - y0, x1 - x0), np.uint16), stack

    section = review_section(run_of(with_one(objects, bbox_x1=100)), {"A/1/0": "image-0"}, window)
    table, gallery = section.blocks
    assert list(table.rows[0].cells[:3]) == ["A/1/0", 5, "ends at a tile border"]
    assert asked == [("A/1/0", 10, 110, 25, 125)]
    assert [outline.key for outline in gallery.pictures[0].outlines] == ["others", "object"]


def test_nothing_to_look_at_is_said(objects):
    section = review_section(run_of(objects), {}, None)
    assert "No object" in section.blocks[0].text
    assert review_section(run_of(objects.iloc[:0]), {}, None) is None
