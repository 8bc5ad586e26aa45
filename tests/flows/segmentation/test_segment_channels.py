"""Which channel is segmented: the one that is named, or that the model's card fits; otherwise none."""

import numpy as np
import pytest

from flows.cli import run as command
from flows.jobs import SegmentJob, job
from flows.segmentation.estimate import estimate
from flows.segmentation.plan import make_plan
from pipeline.errors import BadArgument
from pipeline.store.ome.image_writing import write_image
from pipeline.store.places.address import address


@pytest.fixture
def plate_of_three(plate_at, noise):
    """A plate of one field with the channels that are given."""

    def make(*channels):
        place = plate_at("p.zarr", {"A/1": [None]})
        image = np.stack([noise((60, 60), seed=seed) for seed in range(len(channels))])
        write_image(address(place), "A/1/0", image, chunks=(64, 64), channels=channels)
        return place

    return make


def test_the_model_finds_its_stain_among_several_channels_and_run_and_dry_run_name_it(
    plate_of_three, run_job
):
    store = plate_of_three("BF", "DAPI", "GFP")
    said = estimate(job(SegmentJob, {"source": str(store), "model": "nuclei"}))
    assert "channel     DAPI (chosen by the model's card); intensities of BF, DAPI, GFP are measured" in said
    record = run_job(store, model="nuclei")
    assert (record.channels, record.measured) == (["DAPI"], ["BF", "DAPI", "GFP"])
    plan = make_plan(job(SegmentJob, {"source": str(store), "model": "worms"}))
    assert plan.channels == ("BF",)


@pytest.mark.parametrize(
    "channels", [("GFP", "RFP", "Cy5"), ("red", "green", "blue"), ("DAPI", "Hoechst", "GFP")]
)
def test_several_channels_and_no_clear_one_are_refused_with_the_list(plate_of_three, channels, capsys):
    store = plate_of_three(*channels)
    for segmenter in ({"model": "nuclei"}, {"segmenter": "threshold"}):
        with pytest.raises(BadArgument, match=", ".join(map(repr, channels))):
            make_plan(job(SegmentJob, {"source": str(store), **segmenter}))
    assert command(["segment", str(store), "--model", "nuclei", "--dry-run"]) == 1
    assert f"--channel {channels[0]!r}" in capsys.readouterr().err


def test_the_named_channel_is_segmented(plate_of_three, bright, run_job):
    store = plate_of_three("BF", "DAPI", "GFP")
    assert run_job(store, segmenter=bright, name="n", channel=["GFP"]).channels == ["GFP"]


def test_the_summary_of_a_run_names_the_channel(plate_of_three, capsys):
    store = plate_of_three("BF", "DAPI", "GFP")
    assert command(["segment", str(store), "--segmenter", "threshold", "--channel", "GFP"]) == 0
    assert "1 image(s), channel GFP -> " in capsys.readouterr().out
