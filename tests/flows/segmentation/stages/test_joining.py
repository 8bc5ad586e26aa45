"""Joining of runs that an older version began: sums for focus and saturation are missing in their scratch."""

import pytest

from flows.segmentation import run
from flows.segmentation.stages.tiles import QUALITY
from pipeline.store.columns import from_bytes, to_bytes


def without_quality(store):
    """Remove the sums for focus and saturation from all described units of a run; return the number of units."""
    pieces = list(store.glob(".platelayer/*/pieces/*/*.rows.safetensors"))
    for path in pieces:
        columns = from_bytes(path.read_bytes())
        path.write_bytes(
            to_bytes({name: value for name, value in columns.items() if not name.startswith(QUALITY)})
        )
    return len(pieces)


def test_a_run_begun_before_focus_was_measured_is_resumed_with_the_same_bytes(
    noise, image_at, bright, run_job, files_of, monkeypatch
):
    array, table = noise((150, 140)), {"segmenter": bright, "name": "n", "tiling": {"core": 32}}
    whole, resumed = image_at("whole.zarr", array), image_at("resumed.zarr", array)
    assert run_job(whole, **table).status == "complete"

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "join", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(resumed, **table)
    assert without_quality(resumed) > 0
    record = run_job(resumed, **table)
    assert record.status == "complete" and record.objects > 1
    assert files_of(whole, "n") == files_of(resumed, "n")
    assert all(value is None for value in record.images[""]["focus"].values())
