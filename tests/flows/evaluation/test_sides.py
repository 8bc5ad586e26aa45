"""Sides that are not labels plane by plane: semantic masks, flat labels beside a stack, stacks of other writers."""

import json

import numpy as np
import pytest

from flows.cli import run
from flows.evaluation.comparing import compare
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.labels import write_stack
from pipeline.store.places.address import address

CORNERS = [(3, 4), (3, 20), (20, 4), (20, 24), (40, 10)]


def squares(corners=CORNERS, start=1, step=1):
    out = np.zeros((60, 70), np.uint32)
    for number, (y, x) in enumerate(corners):
        out[y : y + 8, x : x + 8] = start + step * number
    return out


@pytest.fixture
def scores(tmp_path, capsys):
    """Run evaluate; the exit code, the summary and what was said."""

    def evaluate(store, *words):
        report = tmp_path / "e"
        code = run(["evaluate", str(store), "--prediction-name", "found", "--report", str(report), *words])
        place = report / "summary.json"
        summary = json.loads(place.read_text()) if place.exists() else {}
        return code, summary, capsys.readouterr().err

    return evaluate


def test_a_semantic_truth_is_told_and_split(image_at, scores):
    place = address(image_at("a.zarr", np.zeros((60, 70), np.uint16)))
    (image,) = open_collection(place).images
    write_stack(place, image, squares()[None], name="found")
    write_image(place, "labels/truth", (squares() > 0).astype("u1") * 255, axes="yx")
    code, summary, told = scores(place)
    assert code == 0 and summary["meanAP"] == 0
    assert "the only object of 'truth' has 5 separate parts" in told and "--split-components" in told
    found = compare(place.url, place.url, prediction_name="found", split_components=True)
    assert found.evaluation.summary["meanAP"] == found.evaluation.summary["AJI"] == 1 and found.hints == ()


def test_flat_truth_beside_a_stack_is_compared_with_the_projection(image_at, run_job, scores, bright):
    pixels = np.zeros((1, 3, 60, 70), np.uint16)
    for z, corner in enumerate([CORNERS[:2], CORNERS[2:4], CORNERS[4:]]):
        pixels[0, z] = (squares(corner) > 0) * 1000
    store = image_at("deep.zarr", pixels, axes="czyx")
    place = address(store)
    write_image(place, "labels/truth", squares(), axes="yx")
    run_job(store, segmenter="threshold", name="found")
    code, _, told = scores(store)
    assert code == 1 and "truth on 1 and prediction on 3" in told and "--project max" in told
    found = compare(place.url, place.url, prediction_name="found", project=True)
    assert found.evaluation.summary["meanAP"] == 1
    run_job(store, segmenter="threshold", name="flat", project="max")
    assert compare(place.url, place.url, prediction_name="flat").evaluation.summary["meanAP"] == 1


@pytest.mark.parametrize("restart", [False, True])
def test_layers_of_other_writers_are_compared_whole(image_at, restart):
    place = address(image_at("a.zarr", np.zeros((60, 70), np.uint16)))
    (image,) = open_collection(place).images
    layers = [squares(), squares([(6, 7), (23, 27)], start=1 if restart else 20)]
    write_stack(place, image, np.stack([layers[0], squares([(6, 7), (23, 27)], start=90)]), name="found")
    for name, layer in zip(("truth", "truth_layer1"), layers):
        write_image(place, f"labels/{name}", layer, axes="yx")
    summary = compare(place.url, place.url, prediction_name="found").evaluation.summary
    assert summary["counts"]["n_truth"] == 7 and summary["AJI"] == 1


def test_ids_beyond_32_bit_and_floats_are_compared(image_at):
    place = address(image_at("a.zarr", np.zeros((60, 70), np.uint16)))
    write_image(place, "labels/found", squares().astype("f4"), axes="yx")
    write_image(place, "labels/truth", squares().astype("u8") << 40, axes="yx")
    assert compare(place.url, place.url, prediction_name="found").evaluation.summary["AJI"] == 1
