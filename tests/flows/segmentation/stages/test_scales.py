"""Levels, pixel sizes and factors: objects at the scale of the segmenter, labels on the grid they belong to."""

import json
from importlib import import_module

import numpy as np
import pytest
from scipy import ndimage

from flows.cli import main
from flows.evaluation import report
from pipeline.errors import BadArgument
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import read_stack
from pipeline.store.places.address import address


def nuclei(size, *, spacing=26, number=7, seed=0):
    """Round nuclei of 8 px radius on a jittered grid, everything drawn ``size`` times as large."""
    rng = np.random.default_rng(seed)
    side = round(number * spacing * size)
    y, x = np.mgrid[:side, :side] / size
    signal = np.zeros((side, side))
    for row in range(number):
        for column in range(number):
            cy, cx = (np.array([row, column]) + 0.5) * spacing + rng.uniform(-3, 3, 2)
            radius = rng.uniform(7, 9)
            signal = np.maximum(signal, np.hypot(y - cy, x - cx) < radius)
    blurred = ndimage.gaussian_filter(signal, 0.8 * size)
    return np.rint(rng.normal(300, 8, signal.shape) + 1500 * blurred).astype(np.uint16)


@pytest.fixture
def sized(module_of):
    """A segmenter made for pixels of 0.5 um, which looks 3 px far at a stride of 8."""
    name = module_of(
        """
        from scipy import ndimage
        def sized(block):
            return ndimage.uniform_filter(block[:1], (0, 7, 7), mode="nearest") > 0.5
        sized.link, sized.layers, sized.halo_px, sized.stride, sized.min_area = "touch", 1, 3, 8, 20
        sized.pixel_size_um = 0.5
        """
    )
    return f"{name}:sized"


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.7, 2])
def test_a_factor_gives_the_same_bytes_for_every_tile(image_at, run_job, noise, sized, labels_of, scale):
    found = []
    for core in (512, 64, 40):
        store = image_at(f"{core}.zarr", noise((200, 170)))
        run_job(store, segmenter=sized, name="n", tiling={"core": core}, scale=scale)
        found.append(labels_of(store, "n"))
    assert found[0] == found[1] == found[2]
    assert read_stack(address(store), "", "n").shape[-2:] == (200, 170)


@pytest.mark.parametrize("size", [0.5, 1, 2, 3])
def test_nuclei_of_any_size_are_found_at_the_scale_of_the_model(image_at, run_job, size):
    store = image_at("a.zarr", nuclei(1.8 * size, number=5), spacing_um=(0.5 / size,) * 2)
    assert run_job(store, model="nuclei", name="n", scale=1 / size).objects == 25


@pytest.mark.parametrize("size", [0.5, 1, 2, 3])
def test_nuclei_drawn_in_any_size_are_counted_within_three_percent(image_at, run_job, size):
    """Without a scale: the shipped weights know nuclei of 8 to 50 px across."""
    store = image_at("a.zarr", nuclei(size, number=10))
    assert run_job(store, model="nuclei", name="n").objects == pytest.approx(100, abs=3)


def test_auto_resamples_to_the_pixel_size_of_the_segmenter(image_at, run_job, sized):
    for size in (1, 2):
        store = image_at(f"{size}.zarr", nuclei(size), spacing_um=(0.5 / size,) * 2)
        record = run_job(store, segmenter=sized, name="n", scale="auto")
        assert record.objects == 49
        assert record.notes == ([] if size == 1 else ["images are resampled by 0.5 for sized"])


def test_another_pixel_size_is_announced(image_at, run_job, sized, capsys):
    store = image_at("a.zarr", nuclei(2), spacing_um=(0.25,) * 2)
    with pytest.raises(SystemExit, match="0"):
        main(["segment", str(store), "--segmenter", sized, "--name", "n"])
    said = "1 image(s) have pixels of 0.25 um, sized was made for 0.5 um: --scale auto resamples them"
    assert said in capsys.readouterr().out
    near = image_at("b.zarr", nuclei(1), spacing_um=(0.4,) * 2)
    assert run_job(near, segmenter=sized, name="n").notes == []


def test_objects_of_other_sizes_than_a_model_knows_are_announced(image_at, run_job, sized, capsys):
    module, name = sized.split(":")
    getattr(import_module(module), name).diameters_px = (14.0, 16.0, 18.0)
    store = image_at("a.zarr", nuclei(3, number=3), spacing_um=(0.5,) * 2)
    with pytest.raises(SystemExit, match="0"):
        main(["segment", str(store), "--segmenter", sized, "--name", "n"])
    said = capsys.readouterr().out
    assert "sized was trained on 14 to 18 px: --scale 0.33 resamples the images" in said
    assert run_job(store, segmenter=sized, name="m", scale=1 / 3).sizes_note == ""


def test_a_dry_run_says_what_a_model_was_trained_on(image_at, capsys):
    store = image_at("a.zarr", nuclei(1, number=3), spacing_um=(0.5,) * 2)
    for words, said in (
        (["--dry-run"], "nuclei was trained on objects 7 to 50 px across, which is 3.65 to 25.1 um here"),
        (["--scale", "auto"], "its objects were 7 to 50 px across, 21 px in the median"),
    ):
        with pytest.raises(SystemExit):
            main(["segment", str(store), "--model", "nuclei", *words])
        assert said in "".join(capsys.readouterr())


def test_a_level_is_segmented_and_its_labels_lie_over_the_image(image_at, run_job, sized, capsys):
    store = image_at("a.zarr", nuclei(2), spacing_um=(0.25,) * 2, levels=3)
    record = run_job(store, segmenter=sized, name="n", level=1)
    assert record.objects == 49
    image = open_collection(address(store)).images[0]
    stack = read_stack(address(store), "", "n")
    assert stack.shape[-2:] == tuple(-(-extent // 2) for extent in image.size)
    attributes = json.loads((store / "labels" / "n" / "zarr.json").read_text())["attributes"]["ome"]
    first = attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
    assert first["scale"][-2:] == [0.5, 0.5] and len(attributes["multiscales"][0]["datasets"]) == 2


def test_the_report_shows_the_level_that_was_segmented(image_at, run_job, sized, monkeypatch):
    store = image_at("a.zarr", nuclei(2, number=3), spacing_um=(0.25,) * 2, levels=2)
    run_job(store, segmenter=sized, name="n", level=1)
    shown = []
    monkeypatch.setattr(report, "run_page", lambda run, **_: shown.append(run))
    report.report_page(report.ReportOn(store=str(store)))
    listing = shown[0].images
    assert (listing["height_px"][0], listing["width_px"][0]) == (78, 78)


def test_a_pixel_size_chooses_the_level_and_resamples_the_rest(image_at, run_job, sized):
    for wanted, extent in ((0.5, 182), (0.4, 364), (0.25, 364)):
        store = image_at(f"{wanted}.zarr", nuclei(2), spacing_um=(0.25,) * 2, levels=2)
        record = run_job(store, segmenter=sized, name="n", pixel_size_um=wanted)
        assert read_stack(address(store), "", "n").shape[-1] == extent
        assert bool(record.notes and "resampled by 0.625" in record.notes[0]) == (wanted == 0.4)


def test_levels_and_factors_are_different_work(image_at, run_job, sized):
    store = image_at("a.zarr", nuclei(1), spacing_um=(0.5,) * 2, levels=2)
    runs = {
        run_job(store, segmenter=sized, name=f"n{number}", **table).run
        for number, table in enumerate([{}, {"level": 1}, {"scale": 0.5}, {"scale": 2}])
    }
    assert len(runs) == 4


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"level": 7}, "expected a level from 0 to 1, got 7"),
        ({"scale": "auto"}, "does not say how large its pixels are"),
        ({"pixel_size_um": 1}, "does not say how large its pixels are"),
        ({"scale": 100}, "scale between 0.05 and 20.0, got 100"),
        ({"scale": "auto", "segmenter": "threshold"}, "does not say for which pixel size it was made"),
        ({"scale": 0}, "greater than 0"),
        ({"scale": "large"}, "scale"),
        ({"scale": 2, "pixel_size_um": 1}, "pixel_size_um alone, got pixel_size_um and scale"),
        ({"level": 1, "output": "x.zarr", "copy_images": True}, "leave it out with level"),
    ],
)
def test_scales_that_cannot_be_are_refused(image_at, run_job, sized, table, message):
    store = image_at("a.zarr", nuclei(1), levels=2)
    with pytest.raises(BadArgument, match=message):
        run_job(store, **({"segmenter": sized, "name": "n"} | table))
