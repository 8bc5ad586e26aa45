"""Methods besides layering, from a job file to labels on a plate, tile by tile."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.cli import run as command
from flows.ingest.samples import ingest_synthetic
from model.card import read_card
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import read_stack
from pipeline.store.ome.tables import read_table
from pipeline.store.places.address import address

UNET = "{width = 6, poolings = 1, head_width = 6, head_convs = 1, fold = 2, order = 'norm-relu'}"
NARROW = {
    "layering": f"min_area = 5\nshape = {UNET}",
    "unet2": f"min_area = 5\nshape = {UNET}",
    "unet3": f"min_area = 5\nshape = {UNET}",
    "affinity": "min_area = 5\nmutex_stride = 1\nobject_px = 24\nshape = {width = 4, levels = 2, embedding = 8}",
    "dcme": "min_area = 5\nvotes = 1\nobject_px = 24\n"
    "shape = {width = 6, poolings = 2, head_width = 6, head_convs = 1, order = 'norm-relu'}",
    "stardist": "min_area = 0\nprobability = 0.001\nobject_px = 24\n"
    "shape = {width = 6, poolings = 1, head_width = 8, rays = 8}",
    "maskrcnn": "min_area = 5\nscore = 0.05\nobject_px = 24\nproposals_before = 50\nproposals = 20\nregions = 16\n"
    "shape = {blocks = [1, 1], width = 6, pyramid_width = 8, box_width = 16, mask_convs = 1, context_px = 16}",
}
WEIGHTS = {
    "layering": "{foreground = 1.0, attraction = 1.0, repulsion = 1.0}",
    "unet2": "{foreground = 1.0}",
    "unet3": "{foreground = 1.0, contour = 1.0}",
    "affinity": "{self = 1.0, cross = 1.0, pyramid = 1.0, foreground = 50.0}",
    "dcme": "{vectors = 1.0, grid = 1.0}",
    "stardist": "{probability = 1.0, distances = 0.2}",
    "maskrcnn": "{objectness = 1.0, anchors = 1.0, classes = 1.0, boxes = 1.0, masks = 1.0}",
}
RATES = {"stardist": 2e-3}
"""Its network has no batch norm."""
RECIPE = """
batch = 1
crop_px = 32
validate_every = 12
[method]
kind = "{kind}"
{settings}
[augment]
paste = 0.0
[[phases]]
name = "phase1"
steps = 12
lr = {rate}
weights = {weights}
"""


@pytest.fixture(scope="session")
def wells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells on two wells of one field; only read."""
    place = tmp_path_factory.mktemp("wells") / "plate.zarr"
    ingest_synthetic(
        str(place), kind="cells", size=(96, 96), wells=[("A", "1"), ("A", "2")], fields=1, density=1.5
    )
    return place


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Dask scheduler with two worker processes."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50, memory_limit=0
    ) as running:
        yield running.scheduler_address


@pytest.mark.parametrize("kind", NARROW)
def test_a_method_trains_and_segments_in_tiles_and_on_workers(
    kind: str, wells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str,
    run_job: Callable[..., Any], stop_after: Any, files_of: Callable[[Path, str], dict[str, bytes]],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    recipe = RECIPE.format(
        kind=kind, settings=NARROW[kind], weights=WEIGHTS[kind], rate=RATES.get(kind, 2e-2)
    )
    Path("recipe.toml").write_text(recipe)
    words = [f'data=["{wells}"]', "folder=out", "recipe=recipe.toml", "device=cpu"]
    assert command(["train", *(word for setting in words for word in ("--set", setting))]) == 0
    assert read_card("out/phase1")["method"]["kind"] == kind
    exact = read_card("out/phase1")["link"] == "touch"
    stacks = [labels(wells, f"tiles{core}.zarr", core) for core in ((24, 64) if exact else (24,))]
    assert stacks[0].max() >= 1
    assert np.array_equal(stacks[0], stacks[-1])
    # The process that made those has had other models at the same relative place: it must not have used one of them.
    # On workers, ended among the tiles and started again: the bytes of the run in one process.
    table = {"model": str(tmp_path / "out/phase1"), "name": "found", "output": str(tmp_path / "dask.zarr")}
    table |= {"tiling": {"core": 24}, "execution": {"executor": scheduler}}
    with pytest.raises(stop_after.Stop):
        run_job(wells, progress=stop_after(10), **table)
    assert run_job(wells, **table).status == "complete"
    assert files_of(tmp_path / "dask.zarr", "found") == files_of(tmp_path / "tiles24.zarr", "found")


def labels(wells: Path, output: str, core: int) -> np.ndarray:
    """The labels of the first well, segmented by the trained model in tiles of that core."""
    words = ["--model", "out/phase1", "--name", "found", "--output", output, "--set", f"tiling.core={core}"]
    assert command(["segment", str(wells), *words]) == 0
    image = open_collection(address(output)).images[0]
    stack = read_stack(address(output), image.path, "found")
    assert len(read_table(address(output), image.path, "found")) == stack.max()
    return stack


def test_a_model_of_another_method_is_not_a_start(
    wells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f'data=["{wells}"]', "folder=out", "recipe=unet2", "initial=nuclei"]
    assert command(["train", *(word for setting in words for word in ("--set", setting))]) == 1
    assert "expected one of the method 'unet2' like the recipe, got 'unet3'" in capsys.readouterr().err


def test_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["models", "--kinds"]) == 0
    said = capsys.readouterr().out
    assert all(kind in said for kind in ("layering", "unet2", "unet3", "affinity"))
    assert "touch, exact" in said and "match of whole objects" in said
    assert command(["models", "nuclei", "--kinds"]) == 1
