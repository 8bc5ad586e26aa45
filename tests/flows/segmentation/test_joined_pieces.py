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

CENTRED = f"{CROWDS}crowd.owner = 'centre'\n"

SHY = """
from scipy import ndimage

def shy(block):
    labels, count = ndimage.label(block[0] > 0.5, np.ones((3, 3)))
    height, width = labels.shape
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        y, x = (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2
        if min(y, x, height - y, width - x) < 22:
            labels[labels == number] = 0
    return labels[None]

shy.link, shy.halo_px, shy.layers, shy.owner = "match", 24, 1, "OWNER"
"""


@pytest.fixture(params=["core", "centre", "touch"])
def crowd(request, module_of):
    """A segmenter whose tiles find different objects, twelve over each other."""
    if request.param == "touch":
        touching = CROWDS.replace("return layers", "return layers > 0").replace("match", "touch")
        return f"{module_of(touching)}:crowd"
    return f"{module_of(CROWDS)}:crowd" if request.param == "core" else f"{module_of(CENTRED)}:crowd"


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


def squares(seed, size=200, edge=11):
    """Squares that do not touch, anywhere in an image."""
    image = np.zeros((size, size), np.uint8)
    for y, x in np.random.default_rng(seed).integers(0, size - edge, (200, 2)):
        if not image[max(y - 2, 0) : y + edge + 2, max(x - 2, 0) : x + edge + 2].any():
            image[y : y + edge, x : x + edge] = 255
    return image


def test_by_the_centre_rule_an_object_is_kept_whole_or_not_at_all(
    image_at, module_of, run_job, stack_of, objects_in
):
    """A tile misses objects near the border of what it reads; its neighbour, which holds their centre, finds them."""
    found = {}
    for owner, core in (("core", 4096), ("core", 40), ("centre", 40), ("centre", 60)):
        store = image_at(f"{owner}{core}.zarr", squares(1))
        segmenter = f"{module_of(SHY.replace('OWNER', owner))}:shy"
        run_job(store, segmenter=segmenter, name="n", tiling={"core": core}, normalise={"kind": "none"})
        found[owner, core] = objects_in(stack_of(store, "n"))
    whole = found["core", 4096]
    assert len(whole) > 30 and {len(pixels) for pixels in whole} == {121}
    assert found["core", 40] != whole  # halves remain
    assert found["centre", 40] == whole and found["centre", 60] == whole
