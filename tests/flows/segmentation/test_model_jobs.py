"""Jobs with a shipped network: the arithmetic and the device that a job asks for are those it gets."""

import numpy as np
import pytest

from flows.execution.segmenters import loaded
from pipeline.datasets.synthetic.scenes import scene
from pipeline.errors import BadArgument
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
