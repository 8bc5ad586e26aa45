"""Objects to look at, listed; and what view says and shows, with napari and without."""

import sys
import types

import numpy as np
import pandas as pd
import pytest

from flows.cli import run as command


@pytest.fixture
def segmented(image_at, noise, bright, run_job):
    store = image_at("a.zarr", noise((150, 200), sigma=3.0), spacing_um=(0.5, 0.25), levels=2)
    run_job(store, segmenter=bright, name="cells", tiling={"core": 64})
    return store


def test_review_lists_objects_and_writes_them(segmented, capsys, tmp_path):
    assert command(["review", str(segmented), "--csv", str(tmp_path / "look.csv"), "--most", "5"]) == 0
    said = capsys.readouterr().out
    written = pd.read_csv(tmp_path / "look.csv")
    assert len(written) == 5 and {"label", "reason", "score", "bbox_y0"} <= set(written)
    assert "platelayer view opens the store in napari" in said


def test_view_without_napari_says_how_to_see_the_store(segmented, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    assert command(["view", str(segmented)]) == 1
    said = capsys.readouterr().err
    assert "pip install 'platelayer[view]'" in said and "Traceback" not in said


def test_view_shows_channels_and_label_layers_at_their_scale(segmented, monkeypatch, stack_of):
    shown, modes = {}, []

    class Viewer:
        def __init__(self, title):
            self.layers = shown

        def add_image(self, data, **options):
            shown[options["name"]] = (data, options)

        def add_labels(self, data, **options):
            shown[options["name"]] = (data, options)

    napari = types.ModuleType("napari")
    napari.Viewer, napari.run = Viewer, lambda: modes.append("run")
    monkeypatch.setitem(sys.modules, "napari", napari)
    assert command(["view", str(segmented)]) == 0
    assert modes == ["run"] and list(shown) == ["channel_0", "cells", "cells_layer1"]
    data, options = shown["channel_0"]
    assert [level.shape for level in data] == [(150, 200), (75, 100)]
    assert (options["multiscale"], options["scale"]) == (True, [0.5, 0.25])
    labels = np.stack([np.asarray(shown[name][0][0]) for name in ("cells", "cells_layer1")])
    np.testing.assert_array_equal(labels, stack_of(segmented, "cells"))
    assert command(["view", str(segmented), "--image", "A/9/0"]) == 1
