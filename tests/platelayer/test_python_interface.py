"""`import platelayer`: the documented Python interface, whatever files the working directory has."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import platelayer
from pipeline.errors import BadArgument
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.labels import write_stack
from pipeline.store.places.address import address

ROOT = Path(platelayer.__file__).parent.parent


@pytest.fixture
def store(tmp_path):
    image = np.random.default_rng(0).integers(100, 120, (1, 60, 60)).astype(np.uint16)
    image[0, 5:25, 5:25] += 1000
    image[0, 35:50, 30:55] += 1000
    write_image(address(tmp_path / "a.zarr"), "", image, chunks=(64, 64))
    return tmp_path / "a.zarr"


def test_segment_read_and_evaluate(store, tmp_path):
    record = platelayer.segment(store, segmenter="threshold", name="found", tiling={"core": 32})
    assert record.objects == 2
    stack = platelayer.read_stack(store, "", "found")
    assert (stack[0, 10, 10], stack[0, 40, 40], stack[0, 0, 0]) == (1, 2, 0)
    assert platelayer.read_stack(str(store), "", "found", region=(0, 30, 0, 30)).shape == (1, 30, 30)
    write_stack(address(store), open_collection(address(store)).images[0], stack, name="truth")
    result = platelayer.evaluate(store, report=str(tmp_path / "e"))
    assert result.compared.evaluation.summary["meanAP"] == 1 and (tmp_path / "e/report.html").exists()


def test_a_misspelt_setting_is_named(store):
    with pytest.raises(BadArgument, match="did you mean segmenter"):
        platelayer.segment(store, segmentor="threshold")


def test_a_script_called_pipeline_in_the_working_directory_breaks_nothing(store):
    (store.parent / "pipeline.py").write_text(
        "import json\nimport platelayer\n"
        "record = platelayer.segment('a.zarr', segmenter='threshold', name='n')\nprint(json.dumps(record.objects))\n"
    )
    (store.parent / "model.py").write_text("raise SystemExit('the wrong model')\n")
    done = subprocess.run(
        [sys.executable, "pipeline.py"], cwd=store.parent, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == 2


def test_a_module_of_that_name_that_was_imported_before_is_told(tmp_path):
    (tmp_path / "pipeline.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "import pipeline, platelayer"], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1 and "import platelayer first, or rename that file" in done.stderr
