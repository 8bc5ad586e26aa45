"""Jobs with a shipped network: the arithmetic and the device that a job asks for are those it gets."""

import numpy as np
import pytest
import torch

from flows.cli import run as command
from flows.commands.segment import summary
from flows.execution.precision import BEGUN
from flows.execution.segmenters import loaded
from model.card import read_card, write_card
from model.checkpoint import save_checkpoint
from model.errors import BadCheckpoint
from model.methods.unet2 import UNet2
from model.networks.unet import UNetShape
from model.precision import decision
from pipeline.datasets.synthetic.scenes import scene
from pipeline.errors import BadArgument, RunConflict
from pipeline.store.ome.labels import label_origin, read_stack
from pipeline.store.places.address import address


@pytest.fixture
def cells(image_at):
    """Synthetic cells in two stores with the same pixels."""
    drawn = scene("cells", (160, 200), seed=3, density=2.0).sample("cells")
    return [image_at(name, drawn.image) for name in ("one.zarr", "two.zarr")]


@pytest.fixture
def used(monkeypatch):
    """Networks that were loaded, as their device and precision say."""
    seen = []
    monkeypatch.setattr(
        "flows.segmentation.stages.tiles.loaded",
        lambda ref: seen.append((ref.device, ref.precision)) or loaded(ref),
    )
    return seen


def stack_of(store):
    return read_stack(address(store), "", "n")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"precision": "bfloat16"}, ("cpu", "bfloat16")),
        ({"execution": {"device": "openvino"}}, ("openvino", "float32")),
    ],
    ids=["bfloat16", "openvino"],
)
def test_another_arithmetic_gives_nearly_the_same_objects(cells, used, run_job, settings, expected):
    common = {"model": "nuclei", "name": "n", "tiling": {"core": 96}}
    plain = run_job(cells[0], **common, execution={"device": "cpu"})
    assert set(used) == {("cpu", "float32")}
    used.clear()
    other = run_job(cells[1], **common, **({"execution": {"device": "cpu"}} | settings))
    assert set(used) == {expected}
    assert plain.objects > 20 and other.status == "complete"
    first, second = (stack_of(store) > 0 for store in cells)
    depth = max(len(first), len(second))
    first, second = (np.pad(one, ((0, depth - len(one)), (0, 0), (0, 0))).any(0) for one in (first, second))
    assert (first & second).sum() / (first | second).sum() > 0.98
    # Results of another precision are another run's; a device is only where the work is done.
    origins = [label_origin(address(store), "", "n", zarr_format=3) for store in cells]
    assert all(origins) and (origins[0] == origins[1]) == (expected[1] == "float32")
    again = run_job(cells[1], **common, **({"execution": {"device": "cpu"}} | settings))
    assert again.status == "unchanged"


def test_other_thresholds_are_another_run(cells, run_job):
    common = {"model": "nuclei", "name": "n", "tiling": {"core": 96}}
    run_job(cells[0], **common)
    strict = run_job(cells[1], **common, method={"foreground_threshold": 0.95, "min_area": 60})
    first, second = (stack_of(store) for store in cells)
    assert 0 < (second > 0).any(0).sum() < 0.95 * (first > 0).any(0).sum()
    assert np.bincount(second.ravel())[1:].min() >= 60
    origins = [label_origin(address(store), "", "n", zarr_format=3) for store in cells]
    assert strict.status == "complete" and origins[0] != origins[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model": "nuclei", "method": {"foreground": 0.5}},
            "method.foreground: expected one of .*threshold",
        ),
        (
            {"model": "nuclei", "method": {"foreground_threshold": 1.5}},
            "expected a number of 0 to 1, got 1.5",
        ),
        ({"model": "nuclei", "method": {"min_area": 2.5}}, "whole number of 0 or more, got 2.5"),
        ({"segmenter": "threshold", "method": {"min_area": 2}}, "only a model has settings"),
    ],
)
def test_settings_a_model_has_not(cells, run_job, settings, message):
    with pytest.raises(BadArgument, match=message):
        run_job(cells[0], **settings)


@pytest.fixture
def fast_model(tmp_path):
    """A small network of random weights whose card chose bfloat16; its masks differ in some pixels by arithmetic."""
    shape = UNetShape(heads={"foreground": 1}, width=4, poolings=1, head_width=4, head_convs=1, fold=2)
    method, folder = UNet2(shape=shape, min_area=4), tmp_path / "fast"
    torch.manual_seed(1)
    save_checkpoint(
        folder, network=method.network(1), method=method, name="fast", normalise={"kind": "percentile"}
    )
    scores = {"meanAP": 0.5, "AJI": 0.7}
    card = read_card(folder)
    write_card(folder, card | {"precision": decision({"float32": scores, "bfloat16": scores})})
    assert read_card(folder)["digest"] == card["digest"]
    return folder


@pytest.fixture
def machine_with(monkeypatch):
    """Go to a machine with or without instructions for bfloat16: `machine_with(bfloat16=True)`."""
    return lambda *, bfloat16: monkeypatch.setattr(
        "flows.execution.precision._has_instructions", lambda device, precision: bfloat16
    )


@pytest.mark.parametrize("bfloat16", [True, False])
def test_a_run_on_another_machine_goes_on_in_its_arithmetic(
    cells, used, run_job, fast_model, machine_with, stop_after, files_of, bfloat16, capsys
):
    common = {"model": str(fast_model), "name": "n", "tiling": {"core": 64}, "execution": {"device": "cpu"}}
    first, reason = ("bfloat16", "as its card chose") if bfloat16 else ("float32", "no instructions for")
    machine_with(bfloat16=bfloat16)
    with pytest.raises(stop_after.Stop):
        run_job(cells[0], progress=stop_after(2), **common)
    machine_with(bfloat16=not bfloat16)
    resumed = run_job(cells[0], **common)
    assert set(used) == {("cpu", first)}
    assert resumed.status == "complete" and resumed.job["precision"] == "auto"
    assert resumed.model["precision"] == first and resumed.model["precision_reason"] == BEGUN
    assert summary(resumed) == 0 and f"precision: {first}, {BEGUN}\n" in capsys.readouterr().out
    assert run_job(cells[0], **common).status == "unchanged"

    machine_with(bfloat16=bfloat16)
    whole = run_job(cells[1], **common)
    assert whole.objects > 5 and whole.model["precision_reason"].startswith(reason)
    assert files_of(cells[0], "n") == files_of(cells[1], "n")
    other = run_job(cells[1], **common, precision="float32" if bfloat16 else "bfloat16", overwrite=True)
    assert other.run != whole.run and files_of(cells[0], "n") != files_of(cells[1], "n")


def test_a_named_arithmetic_is_the_same_run_as_the_one_that_was_chosen(
    cells, run_job, fast_model, machine_with, capsys
):
    common = {"model": str(fast_model), "name": "n", "execution": {"device": "cpu"}}
    machine_with(bfloat16=True)
    assert command(["segment", str(cells[0]), "--model", str(fast_model), "--name", "n"]) == 0
    assert ", precision bfloat16 (as its card chose), " in capsys.readouterr().out.splitlines()[0]
    chosen = run_job(cells[0], **common)
    assert chosen.status == "unchanged"
    assert run_job(cells[0], **common, precision="bfloat16").run == chosen.run
    with pytest.raises(RunConflict, match="come from other work"):
        run_job(cells[0], **common, precision="float32")


def test_an_unknown_arithmetic_in_a_card_matters_only_where_the_card_decides(cells, run_job, fast_model):
    write_card(fast_model, read_card(fast_model) | {"precision": {"chosen": "int8"}})
    with pytest.raises(BadCheckpoint, match=r"precision\.chosen"):
        run_job(cells[0], model=str(fast_model))
    named = run_job(cells[0], model=str(fast_model), precision="float32")
    assert named.status == "complete" and named.model["precision_reason"] == ""
