"""The report of a run: written to a path or a URL, with what was run on top."""

import pytest

from flows.cli import run as command
from pipeline.store.places.address import address


@pytest.fixture
def segmented(plate_at, noise, bright, run_job):
    store = plate_at("p.zarr", {"A/1": [noise((60, 60), seed=1)], "B/12": [noise((60, 60), seed=2)]})
    run_job(store, segmenter=bright, name="n", filters={"min_area": 5})
    return store


def test_a_report_is_written_to_a_url(segmented, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert command(["report", str(segmented), "--output", "memory://pages/run.html", "--markdown"]) == 0
    assert address("memory://pages").children() == ["run.html", "run.md"]
    assert "memory://pages/run.html" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before


def test_a_place_that_cannot_be_written_is_refused(segmented, capsys):
    assert command(["report", str(segmented), "--output", "https://example.org/run.html"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_page_begins_with_what_was_run(segmented, tmp_path):
    words = ["report", str(segmented), "--output", str(tmp_path / "deep/r.html"), "--markdown"]
    assert command(words) == 0
    text = (tmp_path / "deep/r.md").read_text().replace("\\", "").partition("## Summary")[0]
    for line in (
        "- Date: 2",
        f"- Images: {segmented}",
        "- Channel: channel_0",
        "- Model: bright (",
        "- Filters: area at least 5 px",
        "- Code: platelayer 0",
    ):
        assert line in text, line
