"""Decisions from control wells: Z', SSMD and effects against values computed by hand and by scipy."""

import io

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from pipeline.errors import BadArgument
from pipeline.report.layout import Spot, assign, layout_of
from pipeline.report.markdown import csv_tables, markdown_page
from pipeline.report.run.controls import effect, quality
from pipeline.report.run.numbers import Run
from pipeline.report.run.page import run_page

NEGATIVE, POSITIVE = np.array([10.0, 12.0, 14.0]), np.array([50.0, 53.0, 56.0])


def test_z_prime_and_ssmd_by_hand():
    found = quality(NEGATIVE, POSITIVE)
    assert found.z_prime == pytest.approx(1 - 3 * (2 + 3) / 41)
    assert found.ssmd == pytest.approx(41 / np.sqrt(2**2 + 3**2))
    assert (found.low, found.high) == (12 - 6, 53 + 9)


def test_few_or_equal_controls_have_no_quality():
    assert quality(NEGATIVE[:1], POSITIVE) is None
    assert quality(np.zeros(3), np.zeros(4)) is None


def test_the_interval_of_an_effect_is_welchs():
    found = effect(NEGATIVE, POSITIVE)
    interval = ttest_ind(POSITIVE, NEGATIVE, equal_var=False).confidence_interval(0.95)
    assert (found.difference, found.low, found.high) == pytest.approx((41, interval.low, interval.high))
    assert np.isnan(effect(NEGATIVE, POSITIVE[:1]).low) and effect(NEGATIVE, POSITIVE[:0]) is None


def a_plate():
    """Objects per well: negative 10, 12, 14 (column 1), positive 50, 53, 56 (column 2), a drug at two doses."""
    counts = dict(
        zip(
            ("A01", "B01", "C01", "A02", "B02", "C02", "A03", "B03", "C03"),
            (10, 12, 14, 50, 53, 56, 20, 30, 90),
        )
    )
    images = [{"image": f"{w[0]}/{int(w[1:])}/0", "row": w[0], "column": str(int(w[1:]))} for w in counts]
    objects = pd.DataFrame(
        {"image": [row["image"] for row, n in zip(images, counts.values()) for _ in range(n)]}
    ).assign(area_px=100)
    rows = [(w, "DMSO", "neg", "") for w in ("A1", "B1", "C1")] + [
        (w, "taxol", "Positive", "") for w in ("A2", "B2", "C2")
    ]
    rows += [("A3", "drug", "", "1"), ("B3", "drug", "", "10"), ("C3", "drug", "", "10")]
    layout = layout_of(pd.DataFrame(rows, columns=["well", "condition", "role", "dose (uM)"]), name="map.csv")
    listing = pd.DataFrame(images)
    found = assign(
        layout, [Spot(image=row["image"], well=w) for w, row in zip(counts, images)], name="map.csv"
    )
    listing["condition"] = [found.conditions[image] for image in listing["image"]]
    listing["role"] = [found.roles[image] for image in listing["image"]]
    listing["dose"] = [found.doses.get(image, np.nan) for image in listing["image"]]
    return Run(title="p", objects=objects, images=listing, facts={})


def test_a_layout_with_roles_gives_decisions_on_the_page():
    page = run_page(a_plate())
    tables = csv_tables(page)
    quality_row = (
        pd.read_csv(io.StringIO(tables["control_quality"])).set_index("measure").loc["objects per image"]
    )
    assert quality_row["Z'"] == pytest.approx(1 - 15 / 41) and quality_row["negative wells"] == 3
    effects = pd.read_csv(io.StringIO(tables["effects"]))
    rows = effects[effects["measure"] == "objects per image"].set_index(["condition", "dose"])["difference"]
    assert rows["drug", 1] == 8 and rows["drug", 10] == 48
    outside = pd.read_csv(io.StringIO(tables["outside"]))
    assert outside[["well", "value"]].to_numpy().tolist() == [["C03", 90.0]]
    assert "- Z' of the controls: **0.63** (by objects per image)" in markdown_page(page)


def test_a_role_column_without_a_known_role_is_refused():
    table = pd.DataFrame({"well": ["A1"], "condition": ["x"], "role": ["sample"]})
    with pytest.raises(BadArgument, match="positive or negative in some rows"):
        layout_of(table, name="map.csv")
