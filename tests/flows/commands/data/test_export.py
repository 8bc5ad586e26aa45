"""Labels that are exported, imported again and evaluated are the same; what a format cannot hold is said."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from flows.cli import run
from flows.evaluation.comparing import compare
from pipeline.masks import sweep
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.labels import read_stack, write_stack
from pipeline.store.ome.tables import read_table, write_table
from pipeline.store.places.address import address

SIZE = (150, 170)


def overlapping(seed):
    """Disks that overlap, on two layers or more, each id on one of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    layers = np.zeros((4, *SIZE), np.uint32)
    for label in range(1, 15):
        cy, cx, radius = rng.integers(0, 150), rng.integers(0, 170), rng.integers(6, 20)
        disk = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        disk &= (y - cy) ** 2 + (x - cx) ** 2 > (radius // 3) ** 2  # a hole
        free = next(layer for layer in layers if not layer[disk].any())
        free[disk] = label
    return layers[: int(np.flatnonzero(layers.any(axis=(1, 2))).max()) + 1]


@pytest.fixture
def plate(plate_at):
    """A plate of two fields with labels that overlap."""
    blank = np.zeros(SIZE, np.uint16)
    place = address(plate_at("p.zarr", {"A/1": [blank], "B/2": [blank]}, spacing_um=(0.5, 0.25)))
    for seed, image in enumerate(open_collection(place).images):
        write_stack(place, image, overlapping(seed), name="truth")
    return place


ROUND_TRIPS = [
    ("geojson", [], "folder"),
    ("geojson", ["--unit", "um"], "folder"),
    ("coco", [], "all.json"),
    ("csv", [], "all.csv"),
    ("csv", ["--unit", "um"], "all.csv"),
    ("roi-zip", [], "folder"),
    ("labels-tiff", [], "folder"),
    ("ome-tiff", [], "folder"),
]


@pytest.mark.parametrize(("kind", "unit", "name"), ROUND_TRIPS)
def test_a_round_trip_is_exact(plate, tmp_path, monkeypatch, capsys, kind, unit, name):
    monkeypatch.setattr(sweep, "STRIP_PX", 3000)
    out = str(tmp_path / name)
    assert run(["export", plate.url, "--name", "truth", "--format", kind, "--output", out, *unit]) == 0
    said = capsys.readouterr().out
    assert said.startswith("28 objects -> ") and ("layers are" in said) == ("tiff" in kind)
    assert run(["import-labels", out, plate.url, "--name", "back", *unit]) == 0
    assert "28 objects in 2 image(s)" in capsys.readouterr().out
    summary = compare(plate.url, plate.url, prediction_name="back").evaluation.summary
    assert summary["AJI"] == summary["meanAP"] == 1.0


def test_tiffs_open_with_their_size_type_and_layers(plate, tmp_path):
    expected = read_stack(plate, "A/1/0", "truth")
    for kind, ending in (("labels-tiff", "tif"), ("ome-tiff", "ome.tif")):
        folder = tmp_path / kind
        assert run(["export", plate.url, "--name", "truth", "--format", kind, "--output", str(folder)]) == 0
        with tifffile.TiffFile(folder / f"A_1_0.{ending}") as file:
            np.testing.assert_array_equal(file.asarray(), expected)
            assert file.pages[0].dtype == np.uint16 and file.pages[0].is_tiled
            if kind == "ome-tiff":
                assert file.series[0].axes == "CYX" and 'PhysicalSizeX="0.25"' in file.ome_metadata


def test_ids_beyond_16_bit_make_32_bit_tiffs(image_at, tmp_path):
    store = image_at("a.zarr", np.zeros(SIZE, np.uint16))
    ids = np.zeros((1, *SIZE), np.uint32)
    ids[0, 3:9, 4:8] = 70_000
    write_stack(address(store), open_collection(address(store)).images[0], ids, name="n")
    out = tmp_path / "n.tif"
    assert run(["export", str(store), "--format", "labels-tiff", "--output", str(out)]) == 0
    np.testing.assert_array_equal(tifffile.imread(out), ids[0])


def test_a_table_becomes_anndata_in_pixels_or_micrometres(plate, tmp_path):
    anndata = pytest.importorskip("anndata")
    positions = {}
    for unit in ("px", "um"):
        out = tmp_path / f"{unit}.h5ad"
        words = [
            "export",
            plate.url,
            "--name",
            "truth",
            "--format",
            "anndata",
            "--output",
            str(out),
            "--unit",
            unit,
        ]
        assert run(words) == 0
        found = anndata.read_h5ad(out)
        assert found.n_obs == 28 and "area_px" in found.var_names
        positions[unit] = found.obsm["spatial"]
    np.testing.assert_allclose(positions["um"], positions["px"] * [0.25, 0.5])
    stack = read_stack(plate, "A/1/0", "truth")
    label = int(found.obs_names[0].rpartition(":")[2])
    y, x = np.nonzero((stack == label).any(axis=0))
    np.testing.assert_allclose(positions["px"][0], [x.mean(), y.mean()])


@pytest.mark.parametrize("ending", [".json", ".geojson"])
def test_classes_leave_and_come_back(ending, image_at, tmp_path):
    store = image_at("a.zarr", np.zeros(SIZE, np.uint16))
    place, target = address(store), str(tmp_path / f"a{ending}")
    write_stack(place, open_collection(place).images[0], overlapping(0), name="n")
    ids = np.unique(overlapping(0))[1:]
    classes = pd.DataFrame({"label": ids, "class": [f"kind {label % 3}" for label in ids]})
    write_table(place, "", "n", classes)
    words = ["--name", "n", "--format", "coco" if ending == ".json" else "geojson", "--output", target]
    assert run(["export", str(store), *words]) == 0
    assert run(["import-labels", target, str(store), "--name", "back"]) == 0
    assert read_table(place, "", "back").to_dict() == classes.to_dict()
    anndata = pytest.importorskip("anndata")
    words = ["--name", "n", "--format", "anndata", "--output", str(tmp_path / "n.h5ad")]
    assert run(["export", str(store), *words]) == 0
    described = anndata.read_h5ad(tmp_path / "n.h5ad").obs
    assert sorted(described["class"]) == sorted(classes["class"])


def test_the_table_of_a_run_is_taken_with_its_measures(image_at, noise, run_job, bright, tmp_path):
    anndata = pytest.importorskip("anndata")
    store = image_at("a.zarr", noise((60, 60)), channels=("DAPI",))
    record = run_job(store, segmenter=bright, name="n")
    assert run(["export", str(store), "--format", "anndata", "--output", str(tmp_path / "n.h5ad")]) == 0
    found = anndata.read_h5ad(tmp_path / "n.h5ad")
    assert found.n_obs == record.objects and "intensity_mean_DAPI" in found.var_names
    assert "overlap_labels" in found.obs.columns


def test_planes_are_files_of_their_own(image_at, tmp_path):
    store = image_at("a.zarr", np.zeros((1, 3, 40, 50), np.uint16), axes="czyx")
    place = address(store)
    stack = np.zeros((1, 40, 50), np.uint32)
    stack[0, 3:9, 4:8] = 5
    write_stack(place, open_collection(place).images[0], stack, name="n", plane=(0, 1))
    out = tmp_path / "out"
    assert run(["export", str(store), "--format", "geojson", "--output", str(out)]) == 0
    counts = {path.name: len(json.loads(path.read_text())["features"]) for path in out.iterdir()}
    assert counts == {"a_t0z0.geojson": 0, "a_t0z1.geojson": 1, "a_t0z2.geojson": 0}


def test_a_url_gets_the_same_file(plate, tmp_path):
    words = ["export", plate.url, "--name", "truth", "--format", "coco", "--output"]
    assert run([*words, str(tmp_path / "all.json")]) == 0 and run([*words, "memory://exports/all.json"]) == 0
    assert address("memory://exports/all.json").read_bytes() == (tmp_path / "all.json").read_bytes()


def test_what_is_there_is_kept_and_a_failure_leaves_nothing(plate, tmp_path, capsys, monkeypatch):
    out = tmp_path / "all.csv"
    out.write_text("mine")
    words = ["export", plate.url, "--name", "truth", "--format", "csv", "--output", str(out)]
    assert run(words) == 1 and out.read_text() == "mine"
    assert "choose another --output, or --overwrite" in capsys.readouterr().err
    assert run([*words, "--overwrite"]) == 0
    assert set(pd.read_csv(out)["image"]) == {"A_1_0", "B_2_0"}
    (plate.child("B/2/0/labels/truth/0/c/0/0")).write_bytes("", b"damaged")
    out.unlink()
    assert run(words) == 1 and not list(tmp_path.glob("*.csv")) and not list(tmp_path.glob(".export*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format", "csv", "--name", "worms"], "no image has labels 'worms'"),
        (["--format", "csv"], "expected one kind of labels, got none"),
        (["--format", "geojson", "--unit", "um", "--name", "n"], "it has no pixel size"),
    ],
)
def test_what_cannot_be_exported_is_told(tmp_path, capsys, words, says):
    place = address(tmp_path / "a.zarr")
    write_image(place, "", np.zeros((1, 9, 9), "u1"))
    if "n" in words:
        write_stack(place, open_collection(place).images[0], np.ones((1, 9, 9), int), name="n")
    assert run(["export", place.url, *words]) == 1
    assert says in capsys.readouterr().err
