"""Seam quality: a planted seam is found, an exact stitching is not blamed, and counts agree with brute force."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadArgument
from pipeline.report.run.seam_grid import BINS, lay_grid
from pipeline.report.run.seams import seam_quality

SHAPE = (1024, 1024)


def boxes(number, seed, *, cut=None, image="a"):
    """Boxes at random places; with ``cut`` they are cut at its multiples, as a naive tiling does."""
    rng = np.random.default_rng(seed)
    centre, half = rng.uniform(0, SHAPE[0], (number, 2)), rng.uniform(4, 11, (number, 2))
    low = np.maximum(0, centre - half).astype(int)
    high = np.minimum(SHAPE[0], centre + half + 1).astype(int)
    pieces = [(*low[k], *high[k]) for k in range(number)]
    for axis in (0, 1) if cut else ():
        pieces = [piece for box in pieces for piece in split(box, axis, cut)]
    columns = ["bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1"]
    table = pd.DataFrame(pieces, columns=columns)
    height, width = table["bbox_y1"] - table["bbox_y0"], table["bbox_x1"] - table["bbox_x0"]
    return table.assign(
        image=image,
        area_px=height * width,
        centroid_y=(table["bbox_y0"] + table["bbox_y1"] - 1) / 2,
        centroid_x=(table["bbox_x0"] + table["bbox_x1"] - 1) / 2,
    )


def split(box, axis, cut):
    low, high = box[axis], box[axis + 2]
    border = (high - 1) // cut * cut
    if border <= low:
        return [box]
    first, second = list(box), list(box)
    first[axis + 2], second[axis] = border, border
    return [tuple(first), tuple(second)]


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_seam_is_found(seed):
    report = seam_quality(boxes(400, seed, cut=256), {"a": SHAPE}, core_px=256, seed=seed)
    assert report.verdict == "trace"
    ratios = {test.name: test.ratio for test in report.tests}
    assert ratios["objects near borders"] > 1.2
    assert ratios["area near borders"] < 0.8
    assert ratios["straight sides on borders"] > 4


def test_an_uncut_scene_is_rarely_blamed():
    verdicts = [
        seam_quality(boxes(600, seed), {"a": SHAPE}, core_px=256, shifts=399, seed=seed).verdict
        for seed in range(40)
    ]
    # 1 % each: more than two of forty would be a broken null (probability below 0.01)
    assert verdicts.count("trace") <= 2
    assert set(verdicts) <= {"clear", "trace"}


def test_a_gradient_over_the_field_is_no_seam():
    # one border in the middle of a field that is fullest in the middle
    rng = np.random.default_rng(0)
    parts = []
    for k in range(8):
        table = boxes(1500, k, image=str(k))
        keep = rng.random(len(table)) < np.exp(-(((table["centroid_y"] - 512) / 400) ** 2))
        parts.append(table[keep])
    report = seam_quality(pd.concat(parts), {str(k): SHAPE for k in range(8)}, core_px=512)
    assert report.verdict == "clear"


def test_one_cut_image_among_many_is_found():
    tables = [boxes(200, k, image=f"{k:02d}", cut=256 if k == 7 else None) for k in range(20)]
    report = seam_quality(pd.concat(tables), {f"{k:02d}": SHAPE for k in range(20)}, core_px=256)
    assert report.verdict == "trace"
    assert {seam.image for seam in report.worst} == {"07"}
    assert all(seam.border_px % 256 == 0 and seam.straight_sides >= 2 for seam in report.worst)


def test_the_same_seed_gives_the_same_report_whatever_the_order_of_rows():
    table = boxes(300, 1)
    first = seam_quality(table, {"a": SHAPE}, core_px=256, seed=4)
    again = seam_quality(table.sample(frac=1, random_state=2), {"a": SHAPE}, core_px=256, seed=4)
    assert first.worst == again.worst
    for one, two in zip(first.tests, again.tests):
        assert (one.ratio, one.p) == pytest.approx((two.ratio, two.p), rel=1e-9)


def test_one_tile_has_no_border():
    report = seam_quality(boxes(50, 0), {"a": SHAPE}, core_px=2048)
    assert (report.verdict, report.tests, report.worst) == ("untiled", (), ())


def test_few_objects_say_nothing():
    assert seam_quality(boxes(12, 0), {"a": SHAPE}, core_px=256).verdict == "few"


def test_no_object_at_all():
    assert seam_quality(boxes(0, 0), {"a": SHAPE}, core_px=256).verdict == "untiled"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"core_px": 0}, "at least 1"),
        ({"shifts": 0}, "at least 1"),
        ({"shapes": {}}, "no shape for image 'a'"),
        ({"objects": pd.DataFrame({"image": []})}, "lacks"),
    ],
)
def test_bad_arguments_are_named(change, says):
    given_ = {"objects": boxes(5, 0), "shapes": {"a": SHAPE}, "core_px": 256, "shifts": 9} | change
    with pytest.raises(BadArgument, match=says):
        seam_quality(given_.pop("objects"), given_.pop("shapes"), **given_)


@settings(deadline=None, max_examples=60)
@given(
    places=st.lists(st.floats(0, 599.9), min_size=1, max_size=60),
    shift=st.integers(0, 400),
    step=st.integers(1, 5),
)
def test_counts_agree_with_brute_force(places, shift, step):
    grid = lay_grid(600, 128, step)
    reach, span = BINS * step, 600 - 2 * BINS * step + 1
    table = pd.DataFrame({"centroid_y": places, "area_px": 7, "bbox_y0": np.int64(places), "bbox_y1": 600})
    totals = grid.totals(grid.marks(table, "y"), np.array([shift]))
    moved = [reach + (border - reach + shift) % span for border in grid.borders]
    for index in range(BINS):
        expected = sum(
            border + index * step <= int(place) < border + (index + 1) * step
            or border - (index + 1) * step <= int(place) < border - index * step
            for border in moved
            for place in places
        )
        assert totals.count[index, 0] == expected
        assert totals.log_area[index, 0] == pytest.approx(expected * np.log(7))
    assert totals.sides[0] == sum(int(place) == border for border in moved for place in places)


def test_shifted_grids_keep_clear_of_the_real_one():
    grid = lay_grid(1000, 128, 2)
    reach, span = BINS * 2, 1000 - 4 * BINS + 1
    for shift in grid.shifts_px:
        moved = reach + (grid.borders - reach + shift) % span
        assert np.abs(moved[:, None] - np.arange(128, 1000, 128)).min() >= 8
        assert moved.min() >= reach
        assert moved.max() <= 1000 - reach
