"""Objects of overlapping tiles that disagree: no object is made of two objects of one tile, and areas are exact."""

import numpy as np
import pytest

CROWDS = """
import numpy as np

def crowd(block):
    rng = np.random.default_rng(int(block.sum() * 1000) % 2**32)
    height, width = block.shape[1:]
    layers = np.zeros((12, height, width), np.uint32)
    for number, layer in enumerate(layers, start=1):
        middle = rng.integers(0, (height, width))
        half = rng.integers(8, 40, 2)
        top, left = np.maximum(middle - half, 0)
        layer[top : middle[0] + half[0], left : middle[1] + half[1]] = number
    return layers

crowd.link, crowd.halo_px, crowd.layers = "match", 24, 12
"""


@pytest.fixture(params=["match", "touch"])
def crowd(request, module_of):
    """A segmenter whose tiles find different objects, twelve over each other."""
    if request.param == "match":
        return f"{module_of(CROWDS)}:crowd"
    touching = CROWDS.replace("return layers", "return layers > 0").replace("match", "touch")
    return f"{module_of(touching)}:crowd"


@pytest.mark.parametrize("seed", range(4))
def test_the_area_of_an_object_is_the_number_of_its_pixels(
    seed, crowd, image_at, run_job, stack_of, table_of
):
    image = np.random.default_rng(seed).integers(0, 255, (120, 130)).astype(np.uint8)
    store = image_at("a.zarr", image)
    record = run_job(store, segmenter=crowd, name="n", tiling={"core": 32}, normalise={"kind": "none"})
    stack, table = stack_of(store, "n"), table_of(store, "n")
    assert record.status == "complete" and len(table) > 20
    assert table.area_px.tolist() == np.bincount(stack.ravel())[1:].tolist()
