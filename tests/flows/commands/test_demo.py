"""The demo, on wells smaller than those of `make demo`."""

import json

from flows.cli import run
from flows.commands import demo


def test_the_demo_ends_with_a_report_over_both_plates(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SIZE", (160, 192))
    folder = tmp_path / "demo"
    folder.mkdir()
    for name in (".platelayer-demo", "old.html"):  # of an earlier demo
        (folder / name).touch()
    assert run(["demo", str(folder)]) == 0
    assert f"look at {folder / 'report.html'}" in capsys.readouterr().out
    assert (folder / "report.html").stat().st_size > 100_000
    assert len(json.loads((folder / "summary.json").read_text())["AP"]) == 5
    assert not (folder / "old.html").exists()


def test_the_demo_keeps_away_from_folders_of_others(tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("mine")
    assert run(["demo", str(tmp_path)]) == 1
    assert "give another place" in capsys.readouterr().err
    assert (tmp_path / "kept.txt").read_text() == "mine"
