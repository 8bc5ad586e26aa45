"""Empty, sparse and drawn fields through the whole job: right numbers of objects, said where nothing was found."""

import numpy as np
import pytest

PLACES = [(y, x) for y in (40, 120, 200) for x in (40, 130, 220)]


def drawn(places, shape=(260, 260), radius=9):
    """Whether a pixel is inside a disk."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return sum(((y - cy) ** 2 + (x - cx) ** 2 <= radius**2 for cy, cx in places), np.zeros(shape, bool))


def camera(signal, *, seed=0, sigma=6.0):
    """Photon and read-out noise over an offset, as 16-bit integers."""
    rng = np.random.default_rng(seed)
    return np.rint(rng.poisson(200 + signal) + rng.normal(100, sigma, signal.shape)).astype(np.uint16)


@pytest.mark.parametrize("table", [{"segmenter": "threshold"}, {"model": "nuclei"}])
def test_empty_wells_are_empty_and_say_so(plate_at, run_job, table):
    wells = {"A/1": drawn(PLACES), "A/2": drawn([]), "A/3": drawn(PLACES[:3], radius=7)}
    pixels = {well: [camera(2500 * cells)] for well, cells in wells.items()}
    record = run_job(plate_at("p.zarr", pixels), name="n", tiling={"core": 512}, **table)
    found = {path: (facts["objects"], facts["empty"]) for path, facts in record.images.items()}
    assert found == {"A/1/0": (9, False), "A/2/0": (0, True), "A/3/0": (3, False)}
    assert record.empty == ["A/2/0"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32])
def test_objects_on_one_exact_value(image_at, run_job, dtype):
    bright = np.random.default_rng(0).integers(180, 200, (260, 260))
    for number, (places, background) in enumerate([(PLACES, 100), (PLACES, 0), (PLACES[:2], 0)]):
        image = np.where(drawn(places), bright, background).astype(dtype)
        record = run_job(image_at(f"{number}.zarr", image), segmenter="threshold", name="n")
        assert record.objects == len(places)


def test_a_picture_of_two_values(image_at, run_job):
    assert run_job(image_at("a.zarr", drawn(PLACES).astype(np.uint8)), segmenter="threshold").objects == 9
    assert run_job(image_at("b.zarr", drawn(PLACES)), segmenter="threshold").objects == 9


def test_two_bright_cells_on_zeros(image_at, run_job):
    image = np.zeros((480, 480), np.uint16)
    image[drawn(PLACES[:2], image.shape, radius=8)] = 3000
    for table in ({"segmenter": "threshold"}, {"model": "nuclei"}):
        assert (
            run_job(image_at(f"{len(table)}{next(iter(table))}.zarr", image), name="n", **table).objects == 2
        )


def test_a_few_saturated_pixels(image_at, run_job):
    """As many as the dead pixels of a worn sensor, or as noise below zero that was stored as the largest value."""
    image = camera(2500 * drawn(PLACES))
    image.flat[np.random.default_rng(1).choice(image.size, 22, replace=False)] = 65535
    assert run_job(image_at("a.zarr", image), segmenter="threshold", name="n").objects == 9


def test_one_hot_pixel_of_a_float_image(image_at, run_job):
    image = camera(2500 * drawn(PLACES)).astype(np.float32)
    image[5, 5] = 1e8
    assert run_job(image_at("a.zarr", image), segmenter="threshold").objects == 9


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tiles_and_executors_see_the_same_limits(image_at, run_job, labels_of, dtype):
    image = camera(300 * drawn(PLACES[:3])).astype(dtype)
    found = []
    for number, table in enumerate([{}, {"tiling": {"core": 64}}, {"execution": {"executor": "threads"}}]):
        store = image_at(f"{number}.zarr", image)
        run_job(store, segmenter="threshold", name="n", **table)
        found.append(labels_of(store, "n"))
    assert found[0] == found[1] == found[2]


def test_the_command_names_empty_images(plate_at, capsys):
    from flows.cli import main

    store = plate_at("p.zarr", {"A/1": [camera(2500 * drawn(PLACES))], "A/2": [camera(0 * drawn([]))]})
    with pytest.raises(SystemExit, match="0"):
        main(["segment", str(store), "--segmenter", "threshold"])
    said = capsys.readouterr().out
    assert "nothing but noise in 1 image(s): A/2/0; --set normalise.scope=plate" in said
