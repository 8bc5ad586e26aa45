"""Objects of several classes, from the table of the truth over a training to the column of the object table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.cli import run as command
from flows.evaluation.objects import only_table
from flows.ingest.samples import ingest_samples
from flows.training.classes import coded, read_classes
from model import classes as model_classes
from model.fit import fit
from model.samples.packing import read_packed
from pipeline import segment
from pipeline.datasets.sample import Sample
from pipeline.errors import BadArgument
from pipeline.masks.formats.coco import counts_of
from pipeline.masks.objects import object_of_mask
from pipeline.masks.outlines import polygons_of
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import read_stack
from pipeline.store.ome.tables import read_table, write_table
from pipeline.store.places.address import address

RECIPE = """
batch = 2
crop_px = 64
validate_every = 200
[method]
kind = "dcme"
class_names = ["dark", "bright"]
min_area = 20
votes = 8
object_px = 24
[method.shape]
width = 6
poolings = 3
head_width = 6
head_convs = 1
order = "norm-relu"
heads = {vectors = 2, grid = 3}
[augment]
paste = 0.0
exact = 1.0
[[phases]]
name = "phase1"
steps = 60
lr = 1e-2
weights = {vectors = 1.0, grid = 4.0}
"""


def sample(seed: int) -> Sample:
    """Four discs on a grid, dark or bright by chance; well A/<seed>."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    truth, image, names = np.zeros((1, 64, 64), np.uint32), rng.normal(0, 0.03, (64, 64)), {}
    for number in range(4):
        cy, cx = np.array([16 + 32 * (number // 2), 16 + 32 * (number % 2)]) + rng.integers(-4, 5, 2)
        inside = (y - cy) ** 2 + (x - cx) ** 2 <= 81
        names[number + 1] = "bright" if rng.random() < 0.5 else "dark"
        truth[0][inside] = number + 1
        image[inside] += 1.0 if names[number + 1] == "bright" else -1.0
    return Sample(
        name=f"w{seed}", image=image[None].astype(np.float32), truth=truth, group=f"w{seed}",
        well=("A", str(seed)), classes=names,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("classes") / "plate.zarr"
    ingest_samples([sample(seed) for seed in range(1, 5)], str(place))
    return place


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same wells without truth, then two with masks from a COCO file, two with masks from files of QuPath."""
    folder = tmp_path_factory.mktemp("imported")
    place = folder / "plate.zarr"
    ingest_samples([replace(sample(seed), truth=None, classes=None) for seed in range(1, 5)], str(place))
    (folder / "coco.json").write_text(json.dumps(coco([sample(1), sample(2)])))
    (folder / "qupath").mkdir()
    for seed in (3, 4):
        (folder / "qupath" / f"A_{seed}_0.geojson").write_text(json.dumps(qupath(sample(seed))))
    for source in ("coco.json", "qupath"):
        assert command(["import-labels", str(folder / source), str(place), "--name", "truth"]) == 0
    return place


def masks(drawn: Sample) -> list[tuple[np.ndarray, str]]:
    """Mask and class of every object."""
    assert drawn.truth is not None and drawn.classes is not None
    return [(drawn.truth[0] == label, name) for label, name in drawn.classes.items()]


def coco(drawn: list[Sample]) -> dict[str, Any]:
    """Samples as a COCO file, whose ids of annotations run through all images."""
    numbers = {"dark": 7, "bright": 3}
    annotations = [
        {
            "image_id": image, "category_id": numbers[name], "iscrowd": 0,
            "segmentation": {"size": [64, 64], "counts": counts_of(object_of_mask(1, mask), (64, 64))},
        }
        for image, one in enumerate(drawn)
        for mask, name in masks(one)
    ]  # fmt: skip
    images = [
        {"id": n, "file_name": f"A_{n + 1}_0.png", "height": 64, "width": 64} for n in range(len(drawn))
    ]
    return {
        "images": images, "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": [{"id": number} | one for number, one in enumerate(annotations, start=1)],
    }  # fmt: skip


def qupath(drawn: Sample) -> dict[str, Any]:
    """A sample as the annotations that QuPath exports."""
    features = [
        {
            "type": "Feature", "id": f"3f2b-{number}",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[*ring.tolist(), ring[0].tolist()] for ring in polygons_of(object_of_mask(1, mask))[0]],
            },
            "properties": {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}},
        }
        for number, (mask, name) in enumerate(masks(drawn))
    ]  # fmt: skip
    return {"type": "FeatureCollection", "features": features}


def test_imported_classes_are_those_of_the_objects(imported: Path) -> None:
    for seed in range(1, 5):
        path, drawn = f"A/{seed}/0", sample(seed)
        table = read_table(address(imported), path, "truth")
        stack = read_stack(address(imported), path, "truth")
        found = dict(zip(table["label"], table["class"], strict=True))
        for mask, name in masks(drawn):
            assert found[int(stack[0][mask][0])] == name
        assert len(found) == 4


def test_classes_are_learnt_and_stand_in_the_table_and_the_report(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wells = imported
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text(RECIPE)
    words = [f'data=["{wells}"]', "folder=out", "recipe=recipe.toml", "device=cpu", "normalise.kind=none"]
    assert command(["train", *(word for setting in words for word in ("--set", setting))]) == 0
    words = ["--model", "out/phase1", "--name", "found", "--output", "out.zarr", "--set", "tiling.core=32"]
    assert command(["segment", str(wells), *words]) == 0
    place = address("out.zarr")
    images = open_collection(place).images
    found = [read_table(place, image.path, "found") for image in images]
    right = [of_truth(table, sample(seed)) for seed, table in enumerate(found, start=1)]
    assert sum(len(table) for table in found) >= 12
    assert np.concatenate(right).mean() > 0.8
    # Labels with such a table can be the truth of another training.
    known = read_classes(place, images[0].path, "found", ["dark", "bright"])
    assert known and len(known) == len(found[0])
    assert command(["report", "out.zarr", "--output", "report.html"]) == 0
    assert "Objects by class" in Path("report.html").read_text()


def test_a_table_of_classes_is_no_table_of_objects(wells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("report", "review"):
        assert command([name, str(wells), "--name", "truth"]) == 1
        assert "got 'truth', which holds classes of labels only" in capsys.readouterr().err
    place = address(wells)
    write_table(place, "A/1/0", "found", pd.DataFrame({"label": [1], "area_px": [9]}))
    assert only_table(place, open_collection(place)) == "found"


def test_packed_samples_keep_their_classes(
    wells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text(RECIPE)
    words = [f'data=["{wells}"]', "recipe=recipe.toml", "folder=out", "change.augment.paste=0.5"]
    settings = [word for setting in words for word in ("--set", setting)]
    assert command(["train", *settings, "--pack", "data.npz"]) == 0
    packed = read_packed("data.npz")
    known = [
        sorted(sample(seed).classes.values()) for seed in range(1, 5) if sample(seed).classes is not None
    ]
    stacks = [stack for _, stack in [*packed.samples, *packed.validation]]
    names = np.array(["", "dark", "bright"])
    found = [sorted(names[model_classes.class_of(np.unique(stack[stack > 0]))].tolist()) for stack in stacks]
    assert sorted(found) == sorted(known)
    done = fit(write_recipe(tmp_path), "data.npz", "archive", minutes=0.05, device="cpu")
    assert done.steps >= 1


def write_recipe(place: Path) -> Path:
    """The recipe with pasted objects and few steps, as a file."""
    path = place / "short.toml"
    path.write_text(RECIPE.replace("paste = 0.0", "paste = 0.5").replace("steps = 60", "steps = 2"))
    return path


def of_truth(table: pd.DataFrame, truth: Sample) -> list[bool]:
    """Whether each object has the class of the true one at its centre."""
    assert truth.truth is not None and truth.classes is not None
    centres = table[["centroid_y", "centroid_x"]].round().astype(int).to_numpy()
    ids = [int(truth.truth[0, y, x]) for y, x in centres]
    return [truth.classes.get(label) == kind for label, kind in zip(ids, table["class"], strict=True)]


def test_both_sides_agree_on_how_ids_hold_classes() -> None:
    assert model_classes.CLASS_STEP == segment.CLASS_STEP
    stack = np.array([[[0, 4, 9], [9, 9, 0]]], np.uint32)
    ids = coded(stack, {4: 2, 9: 1}, where="here")
    assert model_classes.class_of(ids).tolist() == [[[0, 2, 1], [1, 1, 0]]]
    assert model_classes.without_classes(ids).tolist() == [[[0, 2, 1], [1, 1, 0]]]
    with pytest.raises(BadArgument, match="got none for 1, first 9"):
        coded(stack, {4: 2}, where="here")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (None, "expected the table 'truth' with the columns label and class"),
        (pd.DataFrame({"label": [1]}), r"got no \['class'\]"),
        (
            pd.DataFrame({"label": [1], "class": ["odd"]}),
            r"got \['odd'\]; add them to class_names, with a map",
        ),
    ],
)
def test_classes_that_cannot_be_used_are_named(table: pd.DataFrame | None, told: str, tmp_path: Path) -> None:
    place = address(tmp_path / "s.zarr")
    ingest_samples(
        [Sample(name="w", image=np.zeros((1, 8, 8), np.float32), truth=None, group="w")], str(place.url)
    )
    if table is not None:
        write_table(place, "w", "truth", table)
    with pytest.raises(BadArgument, match=told):
        read_classes(place, "w", "truth", ["dark"])


def test_a_row_without_a_class_is_an_object_without_one(tmp_path: Path) -> None:
    place = address(tmp_path / "s.zarr")
    ingest_samples([replace(sample(1), well=None, classes={1: "dark", 2: ""})], str(place.url))
    path = open_collection(place).images[0].path
    classes = read_classes(place, path, "truth", ["dark"])
    assert classes == {1: 1}
    with pytest.raises(
        BadArgument, match=r"got none for 3, first 2; give each .* import them again with --overwrite"
    ):
        coded(read_stack(place, path, "truth"), classes, where="here")
