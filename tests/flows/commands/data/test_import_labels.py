"""Masks of other programs find their image, keep their overlaps, and are refused with a reason where they cannot."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image as Picture

from flows.cli import run
from pipeline.store.ome.labels import list_labels, open_label, read_stack
from pipeline.store.ome.table_listing import list_tables
from pipeline.store.ome.tables import read_table, write_table
from pipeline.store.places.address import address

SIZE = (60, 70)


def squares(*corners, dtype=np.uint16, start=1):
    out = np.zeros(SIZE, dtype)
    for label, (y, x) in enumerate(corners, start=start):
        out[y : y + 8, x : x + 8] = label
    return out


@pytest.fixture
def image(image_at):
    return image_at("slide.zarr", np.zeros(SIZE, np.uint16))


@pytest.fixture
def plate(plate_at):
    blank = np.zeros(SIZE, np.uint16)
    return plate_at("p.zarr", {"A/1": [blank, blank], "B/12": [blank]})


def stack_of(store, name="n", path="", plane=(0, 0)):
    return read_stack(address(store), path, name, plane=plane)


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [
        (".tif", "u2"),
        (".tif", "u4"),
        (".tiff", "i4"),
        (".tif", "f4"),
        (".png", "u1"),
        (".png", "u2"),
        (".npy", "i8"),
    ],
)
def test_label_pictures_of_every_type(image, tmp_path, ending, dtype):
    labels = squares((3, 4), (20, 30)).astype(dtype)
    path = tmp_path / f"anything{ending}"
    if ending == ".npy":
        np.save(path, labels)
    elif ending == ".png":
        Picture.fromarray(labels).save(path)
    else:
        tifffile.imwrite(path, labels)
    assert run(["import-labels", str(path), str(image), "--name", "n"]) == 0
    np.testing.assert_array_equal(stack_of(image), labels[None])


def test_ids_that_do_not_fit_are_renumbered(image, tmp_path):
    np.save(tmp_path / "x.npy", squares((3, 4), (20, 30)).astype(np.uint64) * 2**40)
    assert run(["import-labels", str(tmp_path / "x.npy"), str(image), "--name", "n"]) == 0
    np.testing.assert_array_equal(stack_of(image), squares((3, 4), (20, 30))[None])


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (squares((3, 4)).astype("i4") - 1, "expected ids from 0, got -1"),
        (squares((3, 4)) * np.float32(0.5), "got fractions"),
        (squares((3, 4))[:50], "expected masks of 60 x 70 px"),
        (np.zeros((*SIZE, 3), "u1") + np.arange(3, dtype="u1"), "a colour picture"),
    ],
)
def test_pictures_that_are_no_labels_are_refused(image, tmp_path, capsys, array, says):
    tifffile.imwrite(tmp_path / "x.tif", array)
    assert run(["import-labels", str(tmp_path / "x.tif"), str(image), "--name", "n"]) == 1
    assert says in capsys.readouterr().err
    assert not list_labels(address(image), "")


def test_a_folder_of_cellpose_finds_the_wells(plate, tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("A01_0_cp_masks", "A_1_1_cp_masks", "B12_cp_masks", "notes_cp_masks"):
        tifffile.imwrite(masks / f"{name}.tif", squares((3, 4), (20, 30)))
    assert run(["import-labels", str(masks), str(plate), "--name", "n"]) == 3
    told = capsys.readouterr()
    assert "6 objects in 3 image(s)" in told.out and "masks without image" in told.err
    for path in ("A/1/0", "A/1/1", "B/12/0"):
        assert stack_of(plate, path=path).max() == 2


def test_what_lies_beside_masks_is_left_alone(plate, tmp_path):
    folder = tmp_path / "session"
    folder.mkdir()
    for name in ("A_1_0", "B12"):
        tifffile.imwrite(folder / f"{name}.tif", np.full(SIZE, 9, np.uint16))
        tifffile.imwrite(folder / f"{name}_cp_masks.tif", squares((3, 4), (20, 30)))
        np.save(folder / f"{name}_seg.npy", np.array({"masks": 1}, dtype=object), allow_pickle=True)
        (folder / f"{name}_cp_outlines.txt").write_text("1,1,2,1,2,2\n")
    assert run(["import-labels", str(folder), str(plate), "--name", "n"]) == 0
    assert stack_of(plate, path="A/1/0").max() == stack_of(plate, path="B/12/0").max() == 2
    geojson = tmp_path / "export"
    geojson.mkdir()
    tifffile.imwrite(geojson / "A_1_0.tif", np.full(SIZE, 9, np.uint16))
    ring = [[0, 0], [8, 0], [8, 5], [0, 5], [0, 0]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (geojson / "A_1_0.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert run(["import-labels", str(geojson), str(plate), "--name", "m"]) == 0
    assert (stack_of(plate, name="m", path="A/1/0") > 0).sum() == 40


def test_a_table_says_what_names_do_not(plate, tmp_path, capsys):
    masks = tmp_path / "masks_of_anna"
    masks.mkdir()
    for name in ("first", "second"):
        tifffile.imwrite(masks / f"{name}.tif", squares((3, 4)))
    assert run(["import-labels", str(masks), str(plate), "--name", "n"]) == 1
    assert "no name fits: masks first, second; images A/1/0" in capsys.readouterr().err
    table = tmp_path / "map.csv"
    table.write_text("file,image\nfirst.tif,A/1/1\nsecond,B/12/0\n")
    assert run(["import-labels", str(masks), str(plate), "--name", "n", "--table", str(table)]) == 0
    assert [list_labels(address(plate), p) for p in ("A/1/0", "A/1/1", "B/12/0")] == [[], ["n"], ["n"]]
    table.write_text("file,image\nthird.tif,A/1/1\n")
    assert run(["import-labels", str(masks), str(plate), "--name", "o", "--table", str(table)]) == 1
    assert "there is no file 'third.tif'" in capsys.readouterr().err


def test_binary_masks_that_overlap_share_no_layer(image, tmp_path, capsys):
    masks = tmp_path / "slide" / "masks"
    masks.mkdir(parents=True)
    for number, corner in enumerate([(3, 4), (6, 8), (30, 30)]):
        Picture.fromarray((squares(corner) > 0).astype(np.uint8) * 255).save(masks / f"{number}.png")
    for source in (masks, masks.parent, masks.parent.parent / "slide"):
        words = ["import-labels", str(source), str(image), "--name", "n", "--overwrite"]
        assert run(words) == 0
        assert "3 objects in 1 image(s)" in capsys.readouterr().out
    stack = stack_of(image)
    assert len(stack) == 2 and [(stack == label).sum() for label in (1, 2, 3)] == [64, 64, 64]
    assert (stack[1] > 0).sum() == 64


def test_folders_of_binary_masks_are_matched_by_their_names(plate, tmp_path):
    root = tmp_path / "stage1_train"
    for folder in ("A_1_0/masks", "B12"):
        place = root / folder
        place.mkdir(parents=True)
        for number, corner in enumerate([(3, 4), (6, 8)]):
            Picture.fromarray((squares(corner) > 0).astype(np.uint8) * 255).save(place / f"{number}.png")
    assert run(["import-labels", str(root), str(plate), "--name", "n"]) == 0
    for path in ("A/1/0", "B/12/0"):
        stack = stack_of(plate, path=path)
        assert len(stack) == 2 and [(stack == label).sum() for label in (1, 2)] == [64, 64]


def test_what_has_no_area_is_told(image, tmp_path, capsys):
    path = tmp_path / "points.geojson"
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 3]}, "properties": {}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert run(["import-labels", str(path), str(image), "--name", "n"]) == 0
    assert "no object with an area" in capsys.readouterr().out


def test_coco_goes_to_the_images_it_names(plate, tmp_path):
    square = [4, 3, 12, 3, 12, 11, 4, 11]
    document = {
        "images": [
            {"id": 1, "file_name": "A_1_0.tif", "height": 60, "width": 70},
            {"id": 2, "file_name": "B12.png", "height": 60, "width": 70},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "segmentation": [square]},
            {"id": 2, "image_id": 1, "segmentation": [[x + 2 for x in square]]},
            {"id": 3, "image_id": 2, "segmentation": [square]},
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(document))
    assert run(["import-labels", str(path), str(plate), "--name", "n"]) == 0
    first = stack_of(plate, path="A/1/0")
    assert len(first) == 2 and (first[0] == 1).sum() == (first[1] == 2).sum() == 64
    assert len(stack_of(plate, path="B/12/0")) == 1


def coco_of(path, *objects):
    """Write squares at (y, x) with the given keys of their annotations; two categories have names."""
    annotations = [
        {"id": number, "image_id": 1, "segmentation": [[x, y, x + 8, y, x + 8, y + 8, x, y + 8]]} | keys
        for number, (y, x, keys) in enumerate(objects, start=1)
    ]
    images = [{"id": 1, "file_name": "slide.png", "height": SIZE[0], "width": SIZE[1]}]
    categories = [{"id": 1, "name": "long"}, {"id": 2, "name": "round"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return str(path)


def test_classes_become_a_table_which_goes_with_its_labels(image, tmp_path, capsys):
    place, path = address(image), tmp_path / "coco.json"
    words = [str(image), "--name", "n"]
    objects = [(3, 4, {"category_id": 2}), (20, 30, {"category_id": 9}), (40, 50, {})]
    assert run(["import-labels", coco_of(path, *objects), *words]) == 0
    assert "2 class(es): 'round' 1, '9' 1; 1 objects without -> table 'n'" in capsys.readouterr().out
    assert read_table(place, "", "n").to_dict("list") == {"label": [1, 2], "class": ["round", "9"]}
    assert run(["import-labels", coco_of(path, (3, 4, {"category_id": 1})), *words, "--overwrite"]) == 0
    assert read_table(place, "", "n").to_dict("list") == {"label": [1], "class": ["long"]}
    assert run(["import-labels", coco_of(path, (3, 4, {})), *words, "--overwrite"]) == 0
    assert list_tables(place, "") == []


def test_parts_of_an_object_have_its_class(image, tmp_path):
    two = [[4, 3, 12, 3, 12, 11], [30, 20, 38, 20, 38, 28]]
    source = coco_of(tmp_path / "coco.json", (3, 4, {"category_id": 2, "segmentation": two}))
    assert run(["import-labels", source, str(image), "--name", "n", "--split-components"]) == 0
    assert read_table(address(image), "", "n")["class"].tolist() == ["round", "round"]


def test_a_table_of_other_labels_is_not_taken_for_that_of_new_ones(image, tmp_path, capsys):
    write_table(address(image), "", "n", pd.DataFrame({"label": [1], "class": ["old"]}))
    source = coco_of(tmp_path / "coco.json", (3, 4, {}))
    assert run(["import-labels", source, str(image), "--name", "n"]) == 1
    assert "there is a table 'n' already, of other labels" in capsys.readouterr().err
    assert list_labels(address(image), "") == []


def test_objects_beyond_the_image_are_clipped_and_said_and_all_of_them_refused(image, tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_text("label,x,y\n1,60,50\n1,80,50\n1,80,80\n1,60,80\n2,1,1\n2,1.2,1\n2,1.2,1.2\n")
    assert run(["import-labels", str(path), str(image), "--name", "n"]) == 0
    said = capsys.readouterr().out
    assert "1 object(s) reach beyond the image" in said and "1 object(s) cover no pixel" in said
    assert (stack_of(image) > 0).sum() == 100
    path.write_text("label,x,y\n1,600,500\n1,800,500\n1,800,800\n")
    assert run(["import-labels", str(path), str(image), "--name", "o"]) == 1
    assert "all 1 object(s) lie outside" in capsys.readouterr().err


def test_semantic_masks_are_told_and_split(image, tmp_path, capsys):
    tifffile.imwrite(tmp_path / "x.tif", (squares((3, 4), (20, 30), (40, 10)) > 0).astype(np.uint8) * 255)
    words = ["import-labels", str(tmp_path / "x.tif"), str(image), "--name", "n"]
    assert run(words) == 0
    assert "one object of 3 separate parts" in capsys.readouterr().out
    assert run([*words, "--overwrite", "--split-components"]) == 0
    np.testing.assert_array_equal(stack_of(image), squares((3, 4), (20, 30), (40, 10))[None])


@pytest.fixture
def deep(image_at):
    return image_at("deep.zarr", np.zeros((1, 3, *SIZE), np.uint16), axes="czyx")


def test_flat_masks_beside_a_stack_need_a_plane_or_the_projection(deep, tmp_path, capsys):
    tifffile.imwrite(tmp_path / "x.tif", squares((3, 4)))
    words = ["import-labels", str(tmp_path / "x.tif"), str(deep), "--name", "n"]
    assert run(words) == 1
    told = capsys.readouterr().err
    assert "has 3 planes; say with --plane T,Z" in told and "--project max" in told
    assert run([*words, "--plane", "0,2"]) == 0
    assert [stack_of(deep, plane=(0, z)).max() for z in range(3)] == [0, 0, 1]
    assert run([*words, "--project", "max", "--overwrite"]) == 0
    assert open_label(address(deep), "", "n").axes == ("y", "x")
    assert run([*words, "--plane", "0,9", "--overwrite"]) == 1
    assert "no plane (t, z) = (0, 9)" in capsys.readouterr().err
    assert run([*words, "--plane", "two"]) == 1


def test_pages_are_planes_where_there_are_as_many_and_layers_else(deep, image, tmp_path):
    planes = np.stack([squares((3, 4 + 9 * z)) for z in range(3)])
    tifffile.imwrite(tmp_path / "x.tif", planes, photometric="minisblack")
    assert run(["import-labels", str(tmp_path / "x.tif"), str(deep), "--name", "n"]) == 0
    found = [stack_of(deep, plane=(0, z))[0] for z in range(3)]
    np.testing.assert_array_equal([plane > 0 for plane in found], planes > 0)
    assert {plane.max() for plane in found} == {1}  # in a volume, an id is one object on all planes
    layers = np.stack([squares((3, 4), (20, 30)), squares((5, 6))])
    tifffile.imwrite(tmp_path / "y.tif", layers)
    assert run(["import-labels", str(tmp_path / "y.tif"), str(image), "--name", "n"]) == 0
    stack = stack_of(image)
    assert len(stack) == 2 and sorted(np.unique(stack)) == [0, 1, 2, 3]


def test_labels_of_that_name_are_kept_unless_told(image, tmp_path, capsys):
    tifffile.imwrite(tmp_path / "x.tif", squares((3, 4)))
    words = ["import-labels", str(tmp_path / "x.tif"), str(image), "--name", "n"]
    assert run(words) == 0 and run(words) == 1
    assert "label 'n' is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "found no masks"),
        (lambda path: path.write_bytes(b"x"), "cannot tell its format"),
    ],
)
def test_sources_that_hold_no_masks_are_told(image, tmp_path, capsys, make, says):
    make(tmp_path / "source")
    assert run(["import-labels", str(tmp_path / "source"), str(image), "--name", "n"]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.tif", "x.png", "x.json", "x.geojson", "x.zip", "x.csv", "x.npy"])
def test_damaged_files_are_told(image, tmp_path, capsys, name):
    (tmp_path / name).write_bytes(b"\x00\x01 no such thing")
    assert run(["import-labels", str(tmp_path / name), str(image), "--name", "n"]) == 1
    assert str(tmp_path / name) in capsys.readouterr().err
