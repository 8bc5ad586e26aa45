"""The promise: the result does not depend on tiles, workers, their order, or a restart."""

import shutil

import numpy as np
import pandas as pd
import pytest

WAYS = [
    {"tiling": {"core": 64}},
    {"tiling": {"core": 64}, "execution": {"executor": "threads", "workers": 3}},
    {"tiling": {"core": 37}, "execution": {"executor": "threads", "workers": 2, "window": 1}},
    {"tiling": {"core": 100, "halo": 9}},
]


@pytest.mark.parametrize("way", WAYS)
def test_labels_and_tables_are_the_same_for_any_way_to_run(
    way, image_at, noise, bright, run_job, labels_of, table_of, tmp_path
):
    whole = image_at("whole.zarr", noise((150, 210)))
    shutil.copytree(whole, tmp_path / "cut.zarr")
    run_job(whole, segmenter=bright, name="n", tiling={"core": 4096})
    run_job(tmp_path / "cut.zarr", segmenter=bright, name="n", **way)
    assert labels_of(tmp_path / "cut.zarr", "n") == labels_of(whole, "n")
    pd.testing.assert_frame_equal(
        table_of(tmp_path / "cut.zarr", "n"), table_of(whole, "n"), check_exact=True
    )


def test_objects_are_the_components_of_the_whole_image(
    image_at, noise, bright, run_job, stack_of, oracle, objects_in, table_of
):
    image = noise((150, 210), sigma=3)
    store = image_at("a.zarr", image)
    run_job(store, segmenter=bright, name="n", tiling={"core": 64}, filters={"min_area": 12},
            normalise={"kind": "none"})  # fmt: skip
    # Raw values reach the segmenter: nearly everything is above a half.
    assert len(table_of(store, "n")) == len(oracle([image > 0.5], 12))
    run_job(store, segmenter=bright, name="m", tiling={"core": 64}, filters={"min_area": 12})
    low, high = (np.sort(image.ravel())[int(np.ceil(q / 100 * image.size)) - 1] for q in (1.0, 99.8))
    scaled = (image.astype(np.float32) - np.float32(low)) / np.float32(high - float(low))
    layers = [scaled > 0.5, (scaled > 0.3) & (scaled < 0.6)]
    assert objects_in(stack_of(store, "m")) == oracle(layers, 12)
    assert table_of(store, "m").overlap_px.sum() > 0


def test_an_object_may_cross_many_blocks_and_meet_them_at_a_corner(
    image_at, module_of, run_job, table_of, stack_of
):
    image = np.zeros((2060, 2070), np.uint8)
    np.fill_diagonal(image, 255)
    image[5, 5:2069] = 255
    image[1000:1010, 100:110] = 255
    store = image_at("a.zarr", image, chunks=(1024, 1024))
    name = module_of("def f(block):\n    return block[:1] > 0.5\n")
    run_job(store, segmenter=f"{name}:f", name="n", tiling={"core": 512}, normalise={"kind": "none"})
    table = table_of(store, "n")
    assert sorted(table.area_px) == [100, 2060 + 2063]
    assert np.array_equal(stack_of(store, "n")[0] > 0, image > 0)


def test_a_margin_of_the_reach_gives_the_numbers_of_the_whole_image(
    image_at, noise, module_of, run_job, stack_of
):
    image = noise((130, 170), sigma=2)
    name = module_of(
        """
        from scipy import ndimage
        def blurred(block):
            return ndimage.gaussian_filter(block, (0, 3, 3), mode="nearest", radius=(0, 12, 12)) > 0.5
        blurred.halo_px = 12
        """
    )
    source = f"{name}:blurred"
    stacks = []
    for number, core in enumerate((48, 71, 4096)):
        store = image_at(f"{number}.zarr", image)
        run_job(store, segmenter=source, name="n", tiling={"core": core})
        stacks.append(stack_of(store, "n"))
    assert stacks[0].max() > 1
    assert np.array_equal(stacks[0], stacks[2])
    assert np.array_equal(stacks[1], stacks[2])


def test_origins_and_margins_are_multiples_of_the_stride(image_at, noise, module_of, run_job, stack_of):
    name = module_of(
        """
        def pooled(block):
            c, h, w = block.shape
            block = np.pad(block, ((0, 0), (0, -h % 8), (0, -w % 8)), mode="edge")
            small = block.reshape(c, block.shape[1] // 8, 8, block.shape[2] // 8, 8).mean((2, 4))
            return np.kron(small > 0.5, np.ones((1, 8, 8), bool))[:, :h, :w]
        pooled.stride, pooled.halo_px = 8, 8
        """
    )
    stacks = []
    for number, core in enumerate((30, 50, 4096)):
        store = image_at(f"{number}.zarr", noise((131, 173)))
        run_job(store, segmenter=f"{name}:pooled", name="n", tiling={"core": core})
        stacks.append(stack_of(store, "n"))
    assert stacks[2].max() > 0
    assert np.array_equal(stacks[0], stacks[2])
    assert np.array_equal(stacks[1], stacks[2])


@pytest.fixture
def numbered(module_of):
    """Numbers its objects itself, in an order that differs from tile to tile, on two layers."""
    name = module_of(
        """
        from scipy import ndimage
        def numbered(block):
            labels, count = ndimage.label(block[0] > 0.5, np.ones((3, 3)))
            order = np.random.default_rng(block.shape[1] + count).permutation(count) + 1
            labels = np.concatenate([[0], order])[labels]
            odd = labels % 2 == 1
            return np.stack([np.where(odd, labels, 0), np.where(odd, 0, labels)]) * 3
        """
    )
    return f"{name}:numbered"


def test_numbered_objects_are_matched_where_tiles_overlap(
    image_at, numbered, run_job, stack_of, oracle, objects_in, table_of
):
    image = np.zeros((200, 230), np.uint8)
    rng = np.random.default_rng(3)
    for y, x in rng.integers(0, 190, (60, 2)):
        image[y : y + rng.integers(3, 20), x : x + rng.integers(3, 20)] = 1
    store = image_at("a.zarr", image)
    record = run_job(store, segmenter=numbered, name="n", tiling={"core": 64}, normalise={"kind": "none"})
    objects = oracle([image > 0])
    # A cluster wider than the margin may stay cut; nothing smaller may, and no pixel may be lost.
    assert np.array_equal((stack_of(store, "n") > 0).any(axis=0), image > 0)
    small = [o for o in objects if np.ptp(np.unravel_index(sorted(o), image.shape), axis=1).max() < 60]
    assert len(small) > 10 and set(small) <= set(objects_in(stack_of(store, "n")))
    assert record.images[""]["ambiguous"] == 0


def test_numbered_objects_do_not_depend_on_workers(image_at, noise, numbered, run_job, files_of):
    image = noise((150, 140), sigma=2)
    stores = [image_at(f"{i}.zarr", image) for i in range(2)]
    run_job(stores[0], segmenter=numbered, name="n", tiling={"core": 50})
    run_job(stores[1], segmenter=numbered, name="n", tiling={"core": 50},
            execution={"executor": "threads", "workers": 4})  # fmt: skip
    assert files_of(stores[0], "n") == files_of(stores[1], "n")


@pytest.mark.parametrize("pieces", [0, 1, 3, 9, 14, 17, 18, 19, 20])
def test_a_run_that_was_stopped_goes_on_where_it_was(
    pieces, image_at, noise, counted, run_job, files_of, stop_after, tmp_path
):
    segmenter, calls = counted
    store = image_at("a.zarr", noise((150, 200)))
    shutil.copytree(store, tmp_path / "b.zarr")
    table = {"segmenter": segmenter, "name": "n", "tiling": {"core": 50}}
    run_job(tmp_path / "b.zarr", **table)
    before = calls()
    assert before == 12
    try:
        run_job(store, progress=stop_after(pieces), **table)
    except stop_after.Stop:
        assert not (store / "labels" / "zarr.json").exists() or pieces > 16
    record = run_job(store, **table)
    assert files_of(store, "n") == files_of(tmp_path / "b.zarr", "n")
    # One tile may have been computed and its outcome not yet seen: no more than that.
    assert calls() - before == 12
    assert record.status in ("complete", "unchanged")
    assert record.objects == run_job(tmp_path / "b.zarr", **table).objects
