"""A blurred and a clipped field of a plate are flagged in the record, on the terminal and in the report; others not."""

import shutil

import numpy as np
import pytest
from scipy import ndimage

from flows.cli import run as command
from flows.evaluation.report import ReportOn, report_page
from flows.segmentation import image_job


def field(seed, sigma=1.0):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :144]
    image = np.zeros(y.shape)
    for cy, cx in random.random((14, 2)) * y.shape:
        image[(y - cy) ** 2 + (x - cx) ** 2 < 49] += 3000
    return np.round(ndimage.gaussian_filter(image, sigma) + 500 + random.normal(0, 25, y.shape)).astype(
        np.uint16
    )


@pytest.fixture
def plate(plate_at):
    fields = [field(seed) for seed in range(6)] + [field(6, sigma=5.0), np.minimum(field(7), 2600)]
    return plate_at("p.zarr", {f"A/{at + 1}": [image] for at, image in enumerate(fields)})


def test_blurred_and_clipped_fields_are_flagged(plate, bright, run_job, monkeypatch, tmp_path):
    shutil.copytree(plate, tmp_path / "staged.zarr")
    record = run_job(plate, segmenter=bright, name="n")
    assert record.flags == {"A/7/0": ["out of focus (channel_0)"], "A/8/0": ["saturated (channel_0)"]}
    monkeypatch.setattr(image_job, "FIELD_TILES", 0)
    staged = run_job(tmp_path / "staged.zarr", segmenter=bright, name="n", tiling={"core": 100})
    assert (staged.flags, staged.images["A/1/0"]["focus"]) == (record.flags, record.images["A/1/0"]["focus"])

    page = report_page(ReportOn(store=str(plate)))
    tables = {table.name: table for table in page.tables}
    attention = [(row.cells[1], row.cells[2]) for row in tables["attention"].rows]
    assert attention == [("A07", "out of focus (channel_0)"), ("A08", "saturated (channel_0)")]
    headings = [column.name for column in tables["images"].columns]
    focus = [row.cells[headings.index("focus channel_0")] for row in tables["images"].rows]
    assert focus[6] < 0.4 * min(focus[:6]) and "saturated channel_0" in headings


def test_the_terminal_names_them(plate, capsys):
    assert command(["segment", str(plate), "--segmenter", "threshold"]) == 0
    assert (
        "look at 2 image(s): A/7/0: out of focus (channel_0), A/8/0: saturated (channel_0)"
        in capsys.readouterr().out
    )
