"""Training from a packed file with a clock: a rehearsal on the CPU with a narrow network."""

import json
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model.checkpoint import load_checkpoint
from model.errors import BadCheckpoint, BadSample
from model.fit import fit, main
from model.samples.packing import read_packed, write_packed
from model.training import archive, curves

Scene = tuple[np.ndarray, np.ndarray]

RECIPE = """
batch = 2
crop_px = 32
ema = 0.9
validate_every = 5
[method]
variant = "code"
min_area = 4
[method.shape]
heads = {layers = 3, foreground = 1}
width = 6
poolings = 1
head_width = 6
head_convs = 1
fold = 2
order = "norm-relu"
[[phases]]
name = "phase1"
steps = 100
lr = 1e-2
weights = {foreground = 1.0, attraction = 1.0, repulsion = 1.0, sparsity = 0.1}
"""


@pytest.fixture
def place(crossing: Scene, tmp_path: Path) -> Path:
    """A folder with a recipe and packed data."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    about = {"name": "bars", "normalise": {"kind": "meanstd"}, "licence": "CC0"}
    write_packed(tmp_path / "data.npz", [crossing], [crossing], about)
    return tmp_path


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 0.1 s whenever it is read: twice a step."""
    readings = count()
    monkeypatch.setattr("model.training.budget.time", SimpleNamespace(monotonic=lambda: 0.1 * next(readings)))


def test_packed_data_comes_back_small_and_with_its_overlaps(crossing: Scene, tmp_path: Path) -> None:
    image, stack = crossing
    size = write_packed(tmp_path / "d.npz", [(image, stack * 70_000)], [], {"name": "x"})
    packed = read_packed(tmp_path / "d.npz")
    assert size < 10_000 and packed.about == {"name": "x"} and packed.validation == []
    np.testing.assert_array_equal(packed.samples[0][0], image)
    np.testing.assert_array_equal(packed.samples[0][1], stack)


def test_short_calls_add_up_and_the_model_can_be_used(place: Path, ticking: None) -> None:
    calls = [place / name for name in ("recipe.toml", "data.npz", "out")]
    first = fit(*calls, minutes=0.08, all_minutes=0.15, device="cpu")
    assert not first.finished and first.steps > 15
    out = place / "out"
    assert {path.name for path in out.iterdir()} == {"training-0.part"}
    assert (out / "training-0.part").stat().st_size < archive.PART_BYTES
    second = fit(*calls, minutes=5, device="cpu")
    assert second.finished and 30 < second.steps < 45  # 9 s, nearly five steps a second, 93 % of them
    assert main(["--unpack", str(out), str(place / "model")]) == 0
    steps = [int(row["total_step"]) for row in curves.read_table(place / "model")]
    assert steps == sorted(steps) and steps[-1] == second.steps
    checkpoint = load_checkpoint(place / "model" / "phase1")
    assert (checkpoint.card["name"], checkpoint.card["licence"]) == ("bars", "CC0")


def test_an_archive_of_another_recipe_or_other_data_is_refused(
    place: Path, crossing: Scene, ticking: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(place / name) for name in ("recipe.toml", "data.npz", "out")]
    assert main([*words, "--minutes", "0.05", "--device", "cpu"]) == 0
    before = (place / "out" / "training-0.part").read_bytes()
    (place / "other.toml").write_text(RECIPE.replace("width = 6", "width = 4"))
    write_packed(place / "other.npz", [(crossing[0] * 2, crossing[1])], [], {})
    for changed, message in (("other.toml", "another recipe"), ("other.npz", "other data")):
        index = 0 if changed.endswith("toml") else 1
        wrong = [str(place / changed) if i == index else word for i, word in enumerate(words)]
        assert main([*wrong, "--minutes", "1", "--device", "cpu"]) == 1
        said = capsys.readouterr().err
        assert message in said and str(place / "out") in said and said.count("\n") == 1
    assert (place / "out" / "training-0.part").read_bytes() == before
    (place / "out" / "training-0.part").write_bytes(before[:-100])
    with pytest.raises(BadCheckpoint, match="copy them again"):
        fit(words[0], words[1], words[2], minutes=1, device="cpu")


def test_bad_files_and_no_time_are_said(place: Path, crossing: Scene) -> None:
    image, stack = crossing
    np.savez(place / "foreign.npz", image=image)
    with pytest.raises(BadSample, match="platelayer train --pack"):
        read_packed(place / "foreign.npz")
    about = np.frombuffer(json.dumps({"format": "platelayer training data 9"}).encode(), np.uint8)
    np.savez(place / "newer.npz", about=about)
    with pytest.raises(BadSample, match="pack it again"):
        read_packed(place / "newer.npz")
    write_packed(place / "cut.npz", [(image, stack)], [], {})
    with np.load(place / "cut.npz") as file:
        arrays = dict(file) | {"stack_0": stack[:, :40]}
    np.savez(place / "cut.npz", **arrays)
    with pytest.raises(BadSample, match="of one size"):
        read_packed(place / "cut.npz")
    with pytest.raises(ValueError, match="positive number"):
        fit(place / "recipe.toml", place / "data.npz", place / "out", minutes=-1)
    with pytest.raises(ValueError, match="no time for one step"):
        fit(place / "recipe.toml", place / "data.npz", place / "out", minutes=1e-9, device="cpu")


def test_large_trainings_come_in_parts_without_the_optimiser_or_not_at_all(
    place: Path, ticking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(place / "recipe.toml", place / "data.npz", place / "out", minutes=0.05, device="cpu")
    whole = (place / "out" / "training-0.part").stat().st_size
    monkeypatch.setattr(archive, "PART_BYTES", whole // 4)
    monkeypatch.setattr(archive, "MOST_BYTES", whole - 1)
    archive.read_archive(place / "out", place / "work")
    assert archive.write_archive(place / "work", place / "parts") < whole
    assert 3 <= len(list((place / "parts").iterdir())) <= 4
    assert archive.read_archive(place / "parts", place / "back")
    again = fit(place / "recipe.toml", place / "data.npz", place / "parts", minutes=0.05, device="cpu")
    assert again.steps > 0
    monkeypatch.setattr(archive, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="narrower network"):
        archive.write_archive(place / "work", place / "parts")


def test_it_needs_neither_the_pipeline_nor_its_packages() -> None:
    code = (
        "import sys; before = set(sys.modules); import model.fit; "
        "print([n for n in ('pydantic', 'zarr', 'pandas', 'pipeline', 'flows', 'dask', 'matplotlib', 'fsspec')"
        " if n in sys.modules and n not in before])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
