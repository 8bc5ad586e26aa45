"""Archives: which stores belong, one summary, and an exit code that tells of holes."""

import json
import re
import shutil

import pytest

from flows.cli import run as command
from flows.jobs import SegmentJob, job
from flows.segmentation.archive import find_stores, segment_archive
from pipeline.errors import BadArgument
from pipeline.store.places.address import address


@pytest.fixture
def archive(tmp_path, image_at, noise):
    """Two images, one of them in a folder, and something that is no store."""
    place = tmp_path / "archive"
    (place / "deep").mkdir(parents=True)
    shutil.move(image_at("a.zarr", noise((40, 40), seed=1)), place / "a.zarr")
    shutil.move(image_at("b.zarr", noise((40, 40), seed=2)), place / "deep/b.zarr")
    return place


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*.zarr", ["a.zarr"]), ("*/*.zarr", ["deep/b.zarr"]), ("**/*.zarr", ["a.zarr", "deep/b.zarr"]),
     ("deep/b*", ["deep/b.zarr"]), ("*.tif", [])],
)  # fmt: skip
def test_stores_that_fit(archive, pattern, found):
    (archive / "a.zarr/inner.zarr").mkdir()
    (archive / ".platelayer").mkdir()
    assert find_stores(address(archive), pattern) == found


@pytest.mark.parametrize("pattern", ["", "/x", "../*.zarr"])
def test_patterns_that_are_none(archive, pattern):
    with pytest.raises(BadArgument, match="pattern"):
        find_stores(address(archive), pattern)


def test_one_summary_results_mirrored_and_done_stores_skipped(archive, bright, tmp_path, capsys):
    words = ["segment", str(archive), "--match", "**/*.zarr", "--segmenter", bright, "--name", "n"]
    words += ["--output", str(tmp_path / "out")]
    assert command(words) == 0
    assert (tmp_path / "out/deep/b.zarr/labels/n").is_dir()
    first = json.loads((tmp_path / "out/.platelayer/archive.json").read_text())
    assert set(first["stores"]) == {"a.zarr", "deep/b.zarr"}
    page = (tmp_path / "out/.platelayer/archive.html").read_text()
    links = re.findall(r'href="[.][.]/((?:deep/b|a)[.]zarr/[.]platelayer/[0-9a-f]+/report[.]html)"', page)
    assert len(links) == 2 and all((tmp_path / "out" / link).exists() for link in links)
    assert "Set aside" not in page
    assert f"report: {tmp_path}/out/.platelayer/archive.html" in capsys.readouterr().out
    assert not (archive / ".platelayer").exists()
    assert command(words) == 0
    assert "2 store(s), 2 of them done before" in capsys.readouterr().out


def test_a_store_that_cannot_be_used_is_set_aside_and_the_others_are_done(archive, bright, capsys):
    (archive / "0bad.zarr").mkdir()
    words = ["segment", str(archive), "--match", "*.zarr", "--segmenter", bright, "--name", "n"]
    assert command(words) == 3
    said = capsys.readouterr().out
    assert "set aside: 0bad.zarr:" in said and "1 store(s)" in said
    assert (archive / "a.zarr/labels/n").is_dir()
    page = (archive / ".platelayer/archive.html").read_text()
    assert "0bad.zarr" in page and "not a Zarr" in page and 'href="../a.zarr/.platelayer/' in page
    assert "have to be copied again first" in page


def test_no_store_that_fits_is_an_error(archive):
    with pytest.raises(BadArgument, match=r"no store fits.*a\.zarr, deep"):
        segment_archive(job(SegmentJob, {"source": str(archive)}), "*.tif")
