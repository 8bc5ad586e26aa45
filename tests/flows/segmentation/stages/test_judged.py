"""Objects are judged as wholes: by the share of their pixels that a segmenter is sure of, however they are cut."""

import numpy as np
import pytest

from model.stacking import components
from pipeline.errors import BadArgument
from pipeline.store.ome.labels import read_stack
from pipeline.store.places.address import address

SOURCE = """
def judged(block):
    return np.stack([block[0] > 0.4, block[0] > 0.7])
judged.link, judged.layers, judged.judged, judged.halo_px, judged.min_area = "touch", 1, True, 0, 5
judged.normalise = {"kind": "none"}
"""


@pytest.fixture
def image(noise):
    return (noise((200, 170)) / 65535).astype(np.float32)


@pytest.mark.parametrize("execution", [{"executor": "serial"}, {"executor": "threads", "workers": 2}])
def test_objects_that_are_mostly_uncertain_are_dropped_whatever_the_tiles(
    image_at, run_job, module_of, labels_of, image, execution
):
    name = module_of(SOURCE)
    expected = components((image > 0.4)[None], min_area=5, certain=image > 0.7)
    found = []
    for core in (512, 64, 40):
        store = image_at(f"{core}.zarr", image)
        record = run_job(
            store, segmenter=f"{name}:judged", name="n", tiling={"core": core}, execution=execution
        )
        assert record.objects == expected.max() < components((image > 0.4)[None], min_area=5).max()
        found.append(labels_of(store, "n"))
    assert found[0] == found[1] == found[2]
    stack = read_stack(address(store), "", "n")
    np.testing.assert_array_equal(stack > 0, expected > 0)


def test_an_answer_without_the_judging_layer_is_an_error(image_at, run_job, module_of, image):
    name = module_of(SOURCE.replace("[block[0] > 0.4, block[0] > 0.7]", "[block[0] > 0.4]"))
    record = run_job(image_at("a.zarr", image), segmenter=f"{name}:judged", name="n")
    assert record.status == "partial"
    assert "returns 2 boolean layers, got 1" in record.failures[0]["reason"]


def test_objects_of_numbered_stacks_are_not_judged(image_at, run_job, module_of, image):
    name = module_of(SOURCE.replace('"touch"', '"match"'))
    with pytest.raises(BadArgument, match="expected judged objects with link touch"):
        run_job(image_at("a.zarr", image), segmenter=f"{name}:judged", name="n")
