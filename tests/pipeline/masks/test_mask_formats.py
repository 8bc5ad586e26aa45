"""Objects survive every format pixel for pixel, and independent readers see the same pixels."""

import json
import tracemalloc

import numpy as np
import pytest
import roifile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_masks

from pipeline.errors import BadStore
from pipeline.masks.formats.coco import CocoWriter, counts_of, decode_counts, encode_counts, read_coco
from pipeline.masks.formats.geojson import GeoJsonWriter, read_geojson
from pipeline.masks.formats.imagej import RoiWriter, read_rois
from pipeline.masks.formats.polygon_table import PolygonTableWriter, read_polygon_table
from pipeline.masks.objects import object_of_mask, object_of_runs, union
from pipeline.masks.outlines import object_of_rings, polygons_of
from pipeline.masks.packing import pack
from pipeline.masks.sweep import objects_of

SIZE = (40, 50)

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=30)

masks = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any)


def full(item, size=SIZE):
    out = np.zeros(size, bool)
    for y, x0, x1 in zip(item.y, item.x0, item.x1):
        out[y, x0:x1] = True
    return out


@pytest.fixture(scope="module")
def objects():
    """Objects of many shapes: several parts, holes, corners that touch, overlaps."""
    rng = np.random.default_rng(0)
    made = []
    while len(made) < 80:
        mask = rng.random(rng.integers(1, 10, 2)) < rng.uniform(0.2, 1)
        if mask.any():
            top, left = (int(n) for n in rng.integers(0, 30, 2))
            made.append(object_of_mask(len(made) + 1, mask, top=top, left=left))
    return made


def assert_same(found, expected):
    assert [item.label for item in found] == [item.label for item in expected]
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(full(one), full(other))


@SLOW
@given(masks)
def test_outlines_are_valid_and_give_back_the_pixels(mask):
    shapely = pytest.importorskip("shapely")
    item = object_of_mask(7, mask, top=3, left=5)
    polygons = polygons_of(item)
    shapes = [shapely.Polygon(polygon[0], polygon[1:]) for polygon in polygons]
    assert all(shape.is_valid for shape in shapes) and sum(shape.area for shape in shapes) == item.area
    back = union(7, [object_of_rings(0, polygon) for polygon in polygons])
    np.testing.assert_array_equal(full(back), full(item))


@SLOW
@given(hnp.arrays(np.uint8, (3, 23, 17), elements=st.integers(0, 12)), st.integers(1, 400))
def test_a_sweep_gives_every_object_once_whatever_the_strips(ids, strip_px):
    stack = ids.astype(np.uint32) + np.arange(3, dtype=np.uint32)[:, None, None] * 100 * (ids > 0)
    found = list(objects_of(lambda y0, y1, x0, x1: stack[:, y0:y1, x0:x1], (23, 17), strip_px=strip_px))
    assert sorted(item.label for item in found) == sorted(np.unique(stack[stack > 0]).tolist())
    for item in found:
        np.testing.assert_array_equal(full(item, (23, 17)), (stack == item.label).any(axis=0))


def test_a_sweep_holds_a_few_strips_however_many_objects_there_are():
    def read(y0, y1, x0, x1):
        y, x = np.mgrid[y0:y1, x0:x1]
        return np.where((y % 4 < 3) & (x % 4 < 3), (y // 4) * 100 + x // 4 + 1, 0).astype(np.uint32)[None]

    peaks = []
    for height in (400, 1600):
        tracemalloc.start()
        assert sum(1 for _ in objects_of(read, (height, 200), strip_px=8000)) == height // 4 * 50
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    ids = 3 * 8 * (1600 - 400) // 4 * 50  # the table of last rows grows, by a few numbers per object
    assert peaks[1] < 1.2 * peaks[0] + 3 * ids


@SLOW
@given(st.lists(st.tuples(masks, st.integers(0, 20), st.integers(0, 20)), max_size=12))
def test_packed_objects_keep_their_overlaps_on_as_few_layers_as_greed_needs(parts):
    objects = [
        object_of_mask(n, mask, top=top, left=left) for n, (mask, top, left) in enumerate(parts, start=1)
    ]
    packed = pack(objects, ids=[item.label for item in objects])
    blocks = [packed.block(layer, 0, *SIZE[:1], 0, SIZE[1]) for layer in range(packed.layers)]
    stack = np.stack([np.zeros(SIZE, np.uint32) if block is None else block for block in blocks])
    for item in objects:
        np.testing.assert_array_equal((stack == item.label).any(axis=0), full(item))
    depth = sum((full(item).astype(int) for item in objects), np.zeros(SIZE, int)).max(initial=1)
    assert packed.layers >= depth


def test_runs_that_overlap_or_touch_are_joined():
    item = object_of_runs(1, [4, 4, 4, 5], [3, 5, 9, 0], [6, 8, 10, 2])
    assert (item.y.tolist(), item.x0.tolist(), item.x1.tolist()) == ([4, 4, 5], [3, 9, 0], [8, 10, 2])


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 0.25)])
def test_geojson_comes_back_and_opens_in_geopandas(objects, tmp_path, scale):
    geopandas = pytest.importorskip("geopandas")
    path = tmp_path / "a.geojson"
    with path.open("w") as file:
        writer = GeoJsonWriter(file, name="nuclei", scale=scale)
        for item in objects:
            writer.add(item)
        writer.close()
    assert_same(list(read_geojson(path, scale=scale)), objects)
    table = geopandas.read_file(path).set_crs(None, allow_override=True)
    assert table.geometry.is_valid.all() and table["label"].tolist() == [item.label for item in objects]
    areas = table.geometry.area / (scale[0] * scale[1])
    np.testing.assert_allclose(areas, [item.area for item in objects])


def test_geojson_of_qupath_is_read(tmp_path):
    ring = [[10.5, 4.5], [14.5, 4.5], [14.5, 8.5], [10.5, 8.5], [10.5, 4.5]]
    hole = [[11.5, 5.5], [13.5, 5.5], [13.5, 7.5], [11.5, 7.5], [11.5, 5.5]]
    features = [
        {
            "type": "Feature", "id": "0b2e", "geometry": {"type": "Polygon", "coordinates": [ring, hole]},
            "properties": {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
        },
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 3]}, "properties": {}},
        {
            "type": "Feature",
            "properties": {"objectType": "cell", "classification": {"names": ["Tumor", "Positive"]}},
            "geometry": {"type": "MultiPolygon", "coordinates": [[ring], [[[0, 0], [2, 0], [2, 2]]]]},
        },
    ]  # fmt: skip
    path = tmp_path / "q.geojson"
    for document in ({"type": "FeatureCollection", "features": features}, features):
        path.write_text(json.dumps(document))
        first, second = read_geojson(path)
        assert first.area == 16 - 4 and second.area == 16 + 3 and first.label == 0
        assert (first.category, second.category) == ("Tumor", "Tumor: Positive")
    path.write_text('{"type": "FeatureCollection", "features": [{"geometry": {"type": "Polygon"}}]}')
    with pytest.raises(BadStore, match="feature 1: expected a Polygon"):
        list(read_geojson(path))


def test_run_lengths_are_those_of_pycocotools(objects):
    for item in objects:
        encoded = coco_masks.encode(np.asfortranarray(full(item).astype(np.uint8)))["counts"]
        assert encode_counts(counts_of(item, SIZE)) == encoded.decode()
        assert decode_counts(encoded) == counts_of(item, SIZE)


def test_coco_comes_back_and_opens_in_pycocotools(objects, tmp_path, capsys):
    from pycocotools.coco import COCO

    path = tmp_path / "a.json"
    with path.open("w") as file:
        writer = CocoWriter(file, category="nuclei")
        for name in ("one.tif", "two.tif"):
            writer.begin(name, SIZE)
            for item in objects:
                writer.add(item)
        writer.close()
    for image in read_coco(path):
        assert image.size == SIZE
        assert_same(list(image.objects()), objects)
    loaded = COCO(str(path))
    capsys.readouterr()
    for annotation, item in zip(loaded.loadAnns(loaded.getAnnIds(imgIds=[2])), objects, strict=True):
        np.testing.assert_array_equal(loaded.annToMask(annotation), full(item))
        assert annotation["area"] == item.area


def test_polygons_and_plain_counts_of_coco_are_read(tmp_path):
    square = [2, 3, 6, 3, 6, 8, 2, 8]
    counts = [2 * 40 + 3, 5, 35, 5, 35, 5, 35, 5]
    document = {
        "images": [{"id": 5, "file_name": "x.png", "height": 40, "width": 50}],
        "annotations": [
            {"id": 1, "image_id": 5, "segmentation": [square, [10, 10, 12, 10, 12, 12, 10, 12]]},
            {"id": 2, "image_id": 5, "segmentation": {"size": [40, 50], "counts": counts}},
            {"id": 3, "image_id": 5, "bbox": [1, 2, 3, 4]},
        ],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    polygons, runs = read_coco(path)[0].objects()
    assert polygons.area == 20 + 4
    expected = np.zeros(SIZE, bool)
    expected[3:8, 2:6] = True
    np.testing.assert_array_equal(full(runs), expected)
    path.write_text('{"images": []}')
    with pytest.raises(BadStore, match="expected COCO JSON"):
        read_coco(path)


def test_rois_come_back(objects, tmp_path):
    path = tmp_path / "RoiSet.zip"
    writer = RoiWriter(path)
    for item in objects:
        writer.add(item)
    writer.close()
    assert_same(list(read_rois(path)), objects)
    assert len(roifile.roiread(path)) == len(objects)


def test_rectangles_and_ovals_of_imagej_are_read_and_points_are_not(tmp_path):
    path = tmp_path / "set.zip"
    for kind in ("RECT", "OVAL", "POINT"):
        roi = roifile.ImagejRoi()
        roi.roitype, roi.name = roifile.ROI_TYPE[kind], kind
        roi.top, roi.left, roi.bottom, roi.right = 5, 7, 25, 37
        roi.tofile(path, mode="a") if path.exists() else roi.tofile(path)
    rectangle, oval = read_rois(path)
    assert rectangle.area == 20 * 30 and abs(oval.area - np.pi * 10 * 15) < 10


def test_tables_of_vertices_come_back(objects, tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = PolygonTableWriter(file, scale=(0.5, 0.25))
        writer.begin("A/1/0", SIZE)
        for item in objects:
            writer.add(item)
        writer.close()
    found = list(read_polygon_table(path, scale=(0.5, 0.25)))
    assert {image for image, _ in found} == {"A/1/0"}
    assert_same([item for _, item in found], objects)


def test_shapes_of_napari_are_read(tmp_path):
    path = tmp_path / "shapes.csv"
    rows = ["index,shape-type,vertex-index,axis-0,axis-1"]
    for index, (y, x) in enumerate([(2, 3), (2, 7), (9, 7), (9, 3)]):
        rows.append(f"0,polygon,{index},{y - 0.5},{x - 0.5}")
    path.write_text("\n".join(rows))
    ((_, item),) = read_polygon_table(path)
    assert item.area == 7 * 4 and item.box == (2, 9, 3, 7)


def test_outlines_of_cellpose_are_read(tmp_path):
    path = tmp_path / "x_cp_outlines.txt"
    border = [(x, y) for x, y in [(3, 2), (4, 2), (5, 2), (5, 3), (5, 4), (4, 4), (3, 4), (3, 3)]]
    path.write_text(",".join(f"{x},{y}" for x, y in border) + "\n")
    ((_, item),) = read_polygon_table(path)
    assert item.area == 9 and item.box == (2, 5, 3, 6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "expected columns x, y"),
        ("label,x,y\n1,a,2\n", "expected numbers"),
        ("", "expected a CSV"),
    ],
)
def test_tables_that_hold_no_vertices_are_refused(tmp_path, text, says):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(BadStore, match=says):
        list(read_polygon_table(path))


def test_a_polygon_covers_the_pixels_whose_centre_it_covers():
    triangle = np.array([[0, 0], [10, 0], [0, 10]])
    neighbour = np.array([[10, 0], [10, 10], [0, 10]])
    one, other = (full(object_of_rings(1, [ring]), (10, 10)) for ring in (triangle, neighbour))
    assert not (one & other).any() and (one | other).all()
    assert object_of_rings(1, [triangle - 5]).box == (-5, 4, -5, 4)
