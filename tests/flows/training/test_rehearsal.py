"""Minutes on another machine, rehearsed: pack here, train there in two calls, bring back, tune and segment."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.cli import run as command
from flows.ingest.samples import ingest_synthetic
from model.card import read_card
from model.fit import main as fit

RECIPE = """
batch = 1
crop_px = 32
ema = 0.5
validate_every = 100
[method]
kind = "unet3"
min_area = 4
[method.shape]
heads = {foreground = 1, contour = 1}
width = 4
poolings = 1
head_width = 4
head_convs = 0
fold = 1
order = "norm-relu"
[[phases]]
name = "only"
steps = 60
lr = 1e-2
weights = {foreground = 1.0, contour = 1.0}
"""


def test_a_training_elsewhere_becomes_a_model_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    readings = count()  # A clock that goes on by 0.1 s whenever it is read, so that no machine is too slow.
    monkeypatch.setattr("model.training.budget.time", SimpleNamespace(monotonic=lambda: 0.1 * next(readings)))
    wells = [("A", "1"), ("A", "2"), ("B", "1")]
    ingest_synthetic("plate.zarr", kind="cells", size=(64, 64), wells=wells, density=0.5)
    Path("recipe.toml").write_text(RECIPE)
    Path("job.toml").write_text(
        'data = ["plate.zarr"]\nfolder = "unused"\nname = "mine"\nrecipe = "recipe.toml"\n'
    )
    assert command(["train", "job.toml", "--pack", "cells.npz"]) == 0
    words = ["recipe.toml", "cells.npz", "OUT", "--device", "cpu"]
    for minutes in ("0.06", "5"):
        assert fit([*words, "--minutes", minutes, "--all-minutes", "0.15"]) == 0
    assert sum(path.stat().st_size for path in Path("OUT").iterdir()) < 60 * 2**20
    assert fit(["--unpack", "OUT", "back"]) == 0
    assert read_card("back/only")["name"] == "mine"
    assert command(["tune", "back/only", "plate.zarr", "--folder", "tuned"]) == 0
    assert command(["segment", "plate.zarr", "--model", "tuned", "--name", "mine"]) == 0
    assert "3 image(s)" in capsys.readouterr().out
