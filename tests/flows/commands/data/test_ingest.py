"""`platelayer ingest` as a user types it: what is shown, exit codes, and one line for every fault."""

import numpy as np
import pytest
import tifffile

from flows.cli import run
from pipeline.store.ome.collection import open_collection
from pipeline.store.places.address import address


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """Write files of one value each: `scan("a_A01.tif", ...)`; the folder is `scan`."""
    monkeypatch.chdir(tmp_path)

    def write(*names, shape=(20, 30)):
        for number, name in enumerate(names, 1):
            path = tmp_path / "scan" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, np.full(shape, number, np.uint16), photometric="minisblack")
        return "scan"

    return write


def values(store):
    return {
        image.path: int(image.read((0, 0), (0,), 0, 20, 0, 30).max())
        for image in open_collection(address(store)).images
    }


def test_what_was_understood_is_shown_and_a_dry_run_shows_only_that(scan, capsys, tmp_path):
    scan(
        "exp_A01_s1_w1.tif",
        "exp_A01_s1_w2.tif",
        "exp_B02_s1_w1.tif",
        "exp_B02_s1_w2.tif",
        "exp_A01_s7_w1.tif",
    )
    assert run(["ingest", "tiff", "scan", "p.zarr", "--dry-run"]) == 3
    shown = capsys.readouterr().out
    for line in (
        "understood: 5 file(s), read by the parts of their names", "plate: 2 well(s): A1, B2",
        "fields: 2 of 3, numbered 1", "channels: w1, w2", "images: 20 x 30 px, uint16, 1 plane(s), 1 time(s)",
        "pixel size: not known; --pixel-size-um gives it", "LEFT OUT A/1/7: 1 of 2 files are missing",
    ):  # fmt: skip
        assert line in shown
    assert not (tmp_path / "p.zarr").exists()
    assert (
        run(["ingest", "tiff", "scan", "p.zarr", "--channel-names", "w1=DAPI", "--pixel-size-um", "0.5"]) == 3
    )
    shown = capsys.readouterr().out
    assert (
        "2 of 3 image(s) -> p.zarr" in shown and "channels: DAPI, w2" in shown and "0.5 um, as given" in shown
    )
    assert run(["ingest", "tiff", "scan", "q.zarr", "--incomplete", "stop"]) == 1


def test_names_decide_what_a_folder_becomes(scan, capsys):
    scan("cells_001.tif", "cells_002.tif")
    assert run(["ingest", "tiff", "scan", "c.zarr"]) == 0
    assert "no plate, 2 of 2 image(s): cells_001, cells_002" in capsys.readouterr().out
    assert values("c.zarr") == {"cells_001": 1, "cells_002": 2}
    assert run(["ingest", "tiff", "scan/cells_002.tif", "one.zarr"]) == 0
    assert values("one.zarr") == {"": 2}


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["exp_A01_a.tif", "exp_A01_b.tif"], [], "scan/exp_A01_a.tif, scan/exp_A01_b.tif"),
        (["exp_A01_a.tif"], ["--pattern", "("], "no regular expression"),
        (["exp_A01_a.tif"], ["--channel-names", "w1"], "pairs such as w1=DAPI"),
        (["exp_A01_a.tif"], ["--pages", "q"], "--pages: expected one of t, c, z"),
        (["notes.png"], [], "1 other file(s) (notes.png)"),
    ],
)
def test_a_fault_is_one_line(scan, capsys, tmp_path, names, options, words):
    scan(*names)
    assert run(["ingest", "tiff", "scan", "p.zarr", *options]) == 1
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "p.zarr").exists()


def test_other_formats(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tifffile.TiffWriter("scan.ome.tif", ome=True) as file:
        for number in (1, 2):
            file.write(np.full((20, 30), number, np.uint16), metadata={"axes": "YX", "Name": f"Pos{number}"})
    assert run(["ingest", "any", "scan.ome.tif", "a.zarr"]) == 0
    assert "as images, one per scene" in capsys.readouterr().out
    assert values("a.zarr") == {"Pos1": 1, "Pos2": 2}
    assert run(["ingest", "any", "nothing.czi", "b.zarr"]) == 1
    assert "found none; check the spelling" in capsys.readouterr().err


def test_a_published_dataset_at_a_url_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["ingest", "bbbc039", "s3://bucket/BBBC039", "p.zarr"]) == 1
    assert (
        "s3://bucket/BBBC039: published datasets are read from a folder on a disk" in capsys.readouterr().err
    )
