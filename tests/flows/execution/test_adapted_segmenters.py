"""Networks of other packages through the whole pipeline: matched objects, settings, messages."""

from pathlib import Path

import numpy as np
import pytest

from flows.cli import run as command
from flows.execution.segmenters import known_traits, reference
from flows.jobs import SegmentJob
from pipeline.errors import BadArgument

TINY = Path(__file__).parents[2] / "model" / "adapters" / "stardist_tiny"


@pytest.fixture
def nuclei(image_at):
    """An image of 300 x 260 px, made of parts of the image that comes with the model."""
    image = np.load(TINY / "expected.npz")["image"].astype(np.int32) + 400
    return image_at("a.zarr", np.tile(image, (2, 2))[:300, :260].astype(np.uint16))


def test_objects_of_stardist_are_the_same_for_every_tile_size(nuclei, run_job, stack_of, objects_in):
    found = []
    for core in (128, 512):
        record = run_job(nuclei, segmenter=f"stardist:{TINY}", name=f"core{core}", tiling={"core": core})
        found.append(objects_in(stack_of(nuclei, f"core{core}")))
        assert record.objects == len(found[-1]) > 40
    assert found[0] == found[1]


def test_settings_of_a_package_are_settings_of_the_job(nuclei, run_job):
    few = run_job(nuclei, segmenter=f"stardist:{TINY}", name="few", method={"prob": 0.97})
    all_of_them = run_job(nuclei, segmenter=f"stardist:{TINY}", name="all")
    assert few.objects < all_of_them.objects
    assert few.model["thresholds"] == {"prob": 0.97}
    with pytest.raises(BadArgument, match="stardist has the settings prob, nms; got diameter"):
        run_job(nuclei, segmenter=f"stardist:{TINY}", method={"diameter": 30})


def test_what_an_adapter_cannot_do_is_said(nuclei, capsys):
    with pytest.raises(BadArgument, match="openvino runs the models of platelayer"):
        reference(SegmentJob(source="a", segmenter="stardist:x", execution={"device": "openvino"}))
    assert command(["segment", str(nuclei), "--segmenter", "stardist:nothing"]) == 1
    assert "neither a folder nor a published 2-D model" in capsys.readouterr().err
    ref = reference(SegmentJob(source="a", segmenter=f"stardist:{TINY}"))
    assert (ref.kind, known_traits(ref)) == ("adapter", None)
