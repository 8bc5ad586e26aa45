"""Label stacks: blocks in any order make the same bytes, publication is whole or repaired, nobody else's is lost."""

import os
import pickle
import shutil

import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadArgument, BadStore, RunConflict
from pipeline.store.ome.arrays import level_count, read_region
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.groups import find_group, write_group
from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.label_images.layout import LabelLayout
from pipeline.store.ome.label_images.reading import layer_names, listed_labels
from pipeline.store.ome.labels import (
    check_free,
    create_labels,
    label_origin,
    list_labels,
    open_label,
    publish,
    read_stack,
    stack_layers,
    write_stack,
)
from pipeline.store.places.address import address
from pipeline.store.places.local import LocalFiles


def some_stack(shape, seed=0, density=0.01):
    """Ids scattered over layers, each on one layer only."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1, np.prod(shape) + 1, dtype=np.uint32)).reshape(shape)
    return ids * (rng.random(shape) < density)


def an_image(place, shape=(1, 300, 520), axes=("c", "y", "x"), ngff="0.5"):
    write_image(place, "", np.ones(shape, "u1"), axes=axes, ngff=ngff, spacing_um=(0.5, 0.25))
    return open_collection(place).images[0]


def contents(place, rel=""):
    return {key: place.read_bytes(f"{rel}/{key}" if rel else key) for key in place.list(rel)}


def staged(place, image, stack, *, staging=".platelayer/run/staging", name="nuclei", origin="", block=256):
    writer = create_labels(
        place,
        image.path,
        name=name,
        layers=len(stack),
        image=image,
        staging=staging,
        origin=origin,
        block=block,
    )
    for layer, ids in enumerate(stack):
        for y0, y1, x0, x1 in writer.blocks():
            writer.write((0, 0), layer, y0, x0, ids[y0:y1, x0:x1])
    return writer


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    return address(tmp_path / "i.zarr" if request.param == "local" else f"memory://{tmp_path.name}/i.zarr")


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_a_stack_comes_back_with_its_pyramids(place, ngff):
    image = an_image(place, ngff=ngff)
    stack = some_stack((3, 300, 520))
    write_stack(place, image, stack, name="nuclei")
    np.testing.assert_array_equal(read_stack(place, "", "nuclei"), stack)
    np.testing.assert_array_equal(
        read_stack(place, "", "nuclei", region=(7, 290, 100, 513)), stack[:, 7:290, 100:513]
    )
    assert list_labels(place, "") == ["nuclei"]
    assert stack_layers(place, "", "nuclei") == ["nuclei", "nuclei_layer1", "nuclei_layer2"]
    assert listed_labels(place, "") == stack_layers(place, "", "nuclei")
    label = open_label(place, "", "nuclei_layer1")
    assert (label.axes, label.dtype, label.ngff, label.spacing_um) == (
        ("y", "x"),
        np.uint32,
        ngff,
        (0.5, 0.25),
    )
    assert place.list(".platelayer") == []


@settings(max_examples=8, deadline=None)
@given(
    size=st.tuples(st.integers(1, 1100), st.integers(1, 1100)),
    layers=st.integers(1, 2),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_blocks_in_any_order_and_twice_make_the_same_bytes_and_halvings(
    tmp_path_factory, size, layers, seed, data
):
    base = address(tmp_path_factory.mktemp("law"))
    image = an_image(base.child("source"), (1, *size))
    stack = some_stack((layers, *size), seed, density=0.0005)
    write_stack(base.child("whole"), image, stack, name="n")
    writer = create_labels(base.child("parts"), "", name="n", layers=layers, image=image, block=2048)
    small = create_labels(base.child("small"), "", name="n", layers=layers, image=image, block=256)
    for target in (writer, small):
        todo = [(layer, box) for layer in range(layers) for box in target.blocks()]
        order = data.draw(st.permutations(todo + todo[: len(todo) // 2]))
        for layer, (y0, y1, x0, x1) in order:
            pickle.loads(pickle.dumps(target)).write((0, 0), layer, y0, x0, stack[layer, y0:y1, x0:x1])
        publish(target)
    assert contents(base.child("parts")) == contents(base.child("whole"))
    for store in ("whole", "small"):
        for layer, name in enumerate(layer_names("n", layers)):
            for level, document in enumerate(writer.documents if store == "whole" else small.documents):
                extent = tuple(slice(0, -(-n // 2**level)) for n in size)
                got = read_region(base.child(store), f"labels/{name}/{level}", document, extent)
                np.testing.assert_array_equal(got, stack[layer, :: 2**level, :: 2**level])


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_the_bytes_are_those_that_zarr_writes(tmp_path, ngff):
    place = address(tmp_path)
    image = an_image(place, (1, 700, 520), ngff=ngff)
    stack = some_stack((1, 700, 520))
    stack[:, 256:512, :256] = 0
    write_stack(place, image, stack, name="n")
    store = place.child("labels/n/0")
    before = contents(store)
    zarr.open_array(store.zarr_store(), mode="r+")[:] = stack[0]
    assert contents(store) == before


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40_000), st.integers(1, 40_000)),
    exponents=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
def test_no_two_blocks_share_a_chunk_on_any_level_they_write(size, exponents):
    block, chunk = 2 ** max(exponents), 2 ** min(exponents)
    layout = LabelLayout(
        axes=("y", "x"), units=(None,) * 2, scale=(1.0,) * 2, translation=(0.0,) * 2,
        shape=size, levels=level_count(size), ngff="0.5", chunk=chunk, block=block,
    )  # fmt: skip
    for level in range(layout.block_levels):
        for chunk_px, extent in zip(layout.chunks(level), layout.shapes[level], strict=True):
            alone = extent * 2**level <= block or chunk_px == extent
            assert alone or (block >> level) % chunk_px == 0


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_labels_keep_time_and_depth_but_not_channels(tmp_path, ngff):
    place = address(tmp_path)
    image = an_image(place, (2, 3, 2, 40, 30), ("t", "c", "z", "y", "x"), ngff)
    writer = create_labels(place, "", name="n", layers=1, image=image)
    planes = {plane: some_stack((1, 40, 30), seed) for seed, plane in enumerate(image.planes)}
    for plane, stack in planes.items():
        writer.write(plane, 0, 0, 0, stack[0])
    publish(writer)
    label = open_label(place, "", "n")
    assert label.axes == ("t", "z", "y", "x") and label.shape == (2, 2, 40, 30)
    for plane, stack in planes.items():
        np.testing.assert_array_equal(read_stack(place, "", "n", plane=plane), stack)


def test_an_empty_label_is_a_label(place):
    image = an_image(place)
    write_stack(place, image, np.zeros((1, 300, 520), np.uint32), name="none")
    assert list_labels(place, "") == ["none"]
    assert not read_stack(place, "", "none").any()


def test_labels_of_others_are_kept_and_read(place):
    image = an_image(place)
    write_image(place, "labels/theirs", np.full((300, 520), 3, "u2"), axes=("y", "x"))
    write_group(place, "labels", {"ome": {"version": "0.5", "labels": ["theirs"]}, "more": 1}, zarr_format=3)
    write_stack(place, image, some_stack((2, 300, 520)), name="nuclei")
    assert list_labels(place, "") == ["theirs", "nuclei"]
    assert find_group(place, "labels").attributes["more"] == 1
    assert stack_layers(place, "", "theirs") == ["theirs"]
    assert (read_stack(place, "", "theirs") == 3).all()
    assert (label_origin(place, "", "theirs"), label_origin(place, "", "no")) == ("", None)


def test_a_taken_name_is_refused_and_left_alone(place):
    image = an_image(place)
    write_stack(place, image, some_stack((2, 300, 520)), name="nuclei")
    before = contents(place)
    with pytest.raises(RunConflict, match=r"'nuclei' is there already.*--overwrite"):
        write_stack(place, image, some_stack((1, 300, 520), 1), name="nuclei")
    with pytest.raises(RunConflict):
        check_free(place, "", "nuclei")
    check_free(place, "", "nuclei", overwrite=True)
    check_free(place, "", "other")
    assert contents(place) == before


def test_a_new_layer_never_takes_the_place_of_somebody_elses_label(place):
    image = an_image(place)
    write_stack(place, image, some_stack((1, 300, 520)), name="nuclei_layer1")
    before = contents(place, "labels")
    with pytest.raises(RunConflict, match="needs the label name 'nuclei_layer1'"):
        write_stack(place, image, some_stack((2, 300, 520)), name="nuclei", overwrite=True)
    assert contents(place, "labels") == before
    assert list_labels(place, "") == ["nuclei_layer1"]


@pytest.mark.parametrize(("old", "new"), [(1, 1), (3, 1), (1, 3)])
def test_overwriting_replaces_the_whole_stack_in_its_place_of_the_list(place, old, new):
    image = an_image(place)
    for name, layers in (("first", 1), ("nuclei", old), ("last", 2)):
        write_stack(place, image, some_stack((layers, 300, 520)), name=name)
    stack = some_stack((new, 300, 520), 5)
    write_stack(place, image, stack, name="nuclei", overwrite=True)
    np.testing.assert_array_equal(read_stack(place, "", "nuclei"), stack)
    assert list_labels(place, "") == ["first", "nuclei", "last"]
    here = {name for name in place.children("labels") if name != "zarr.json"}
    assert here == set(listed_labels(place, ""))


class Killed(BaseException):
    """The end of a process."""


class Countdown:
    """Kills the process before its n-th change of a store."""

    def __init__(self, left):
        self.left = left

    def tick(self):
        self.left -= 1
        if self.left < 0:
            raise Killed


def interrupted(monkeypatch, countdown):
    """Make every change of a disk or of memory an instant at which the process may be killed."""

    def before(cls, name):
        real = getattr(cls, name)

        def call(*args, **kwargs):
            countdown.tick()
            return real(*args, **kwargs)

        monkeypatch.setattr(cls, name, call)

    for name in ("put", "move"):
        before(LocalFiles, name)
    before(os, "unlink")  # inside shutil.rmtree
    monkeypatch.setattr(shutil, "_use_fd_functions", False, raising=False)
    for name in ("pipe_file", "rm_file", "_rm", "rm"):
        if hasattr(MemoryFileSystem, name):
            before(MemoryFileSystem, name)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_kill_at_any_instant_of_publishing_is_repaired_by_publishing_again(kind, tmp_path, monkeypatch):
    """The instants are the single changes of files: writes, renames, copies, removals."""
    old, new = some_stack((3, 90, 80)), some_stack((2, 90, 80), 1)

    def begin(name):
        place = address(tmp_path / name if kind == "local" else f"memory://{tmp_path.name}/{name}").child("i")
        image = an_image(place, (1, 90, 80))
        write_stack(place, image, old[:1], name="other")
        write_stack(place, image, old, name="nuclei")
        return place, staged(place, image, new)

    whole, writer = begin("whole")
    publish(writer, overwrite=True)
    expected = contents(whole)
    for instant in range(1000):
        place, writer = begin(f"k{instant}")
        with monkeypatch.context() as patch:
            interrupted(patch, Countdown(instant))
            try:
                publish(writer, overwrite=True)
                break
            except Killed:
                pass
        for name in listed_labels(place, ""):
            assert find_group(place, f"labels/{name}") is not None, (instant, name)
        assert (read_stack(place, "", "other") == old[:1]).all()
        again = staged(place, open_collection(place).images[0], new) if not_begun(writer) else writer
        publish(again, overwrite=True)
        publish(again, overwrite=True)
        assert contents(place) == expected, instant
    assert instant > 15


def not_begun(writer):
    """Whether a run that goes on would paint again: nothing of the stack is being moved yet."""
    return not writer.address.exists(writer.journal)


def test_the_old_stack_stays_until_the_new_one_is_complete(place, monkeypatch):
    image = an_image(place)
    old = some_stack((2, 300, 520))
    write_stack(place, image, old, name="nuclei")
    writer = staged(place, image, some_stack((1, 300, 520), 2))
    monkeypatch.setattr(type(writer), "finish", lambda self: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        publish(writer, overwrite=True)
    np.testing.assert_array_equal(read_stack(place, "", "nuclei"), old)


def test_a_writer_is_fresh_once_and_keeps_what_is_staged(place):
    image = an_image(place)
    stack = some_stack((1, 300, 520))
    first = staged(place, image, stack, origin="o1")
    again = create_labels(
        place, "", name="nuclei", layers=1, image=image, staging=first.staging, origin="o1", block=256
    )
    assert first.fresh and not again.fresh
    publish(again)
    np.testing.assert_array_equal(read_stack(place, "", "nuclei"), stack)
    assert label_origin(place, "", "nuclei") == "o1"
    done = create_labels(
        place, "", name="nuclei", layers=1, image=image, staging=first.staging, origin="o1", block=256
    )
    assert done.is_published and not done.fresh
    publish(done)
    np.testing.assert_array_equal(read_stack(place, "", "nuclei"), stack)


def test_what_was_replaced_by_others_is_painted_afresh(place):
    image = an_image(place)
    stack = some_stack((1, 300, 520))
    first = staged(place, image, stack, origin="o1")
    publish(first)
    publish(
        staged(place, image, some_stack((2, 300, 520), 3), staging=".platelayer/b", origin="o2"),
        overwrite=True,
    )
    with pytest.raises(BadStore, match="replaced by other work"):
        publish(first, overwrite=True)
    again = staged(place, image, stack, origin="o1")
    assert again.fresh
    publish(again, overwrite=True)
    np.testing.assert_array_equal(read_stack(place, "", "nuclei"), stack)
    assert stack_layers(place, "", "nuclei") == ["nuclei"]


def test_publishing_without_anything_staged_is_an_error(place):
    image = an_image(place)
    writer = staged(place, image, some_stack((1, 300, 520)))
    place.remove(".platelayer")
    with pytest.raises(BadStore, match="nothing is staged for label 'nuclei'"):
        publish(writer)


@pytest.mark.parametrize(
    ("y0", "x0", "shape"), [(1, 0, (10, 10)), (0, 0, (100, 256)), (0, 256, (300, 300)), (256, 512, (45, 8))]
)
def test_blocks_that_are_not_blocks_are_refused(tmp_path, y0, x0, shape):
    place = address(tmp_path)
    writer = create_labels(place, "", name="n", layers=1, image=an_image(place), block=256)
    with pytest.raises(BadArgument, match="a block must start and end at multiples of 256"):
        writer.write((0, 0), 0, y0, x0, np.ones(shape, np.uint32))


def in_strips(ids, width):
    return [ids[:, x : x + width] for x in range(0, ids.shape[1], width)]


@pytest.mark.parametrize("width", [64, 128, 192])
def test_blocks_in_strips_give_the_same_files(tmp_path, width):
    stack = some_stack((1, 300, 520))
    places = [address(tmp_path / name) for name in ("whole", "strips")]
    for place, cut in zip(places, (False, True), strict=True):
        image = an_image(place)
        writer = create_labels(place, "", name="n", layers=1, image=image, block=256, chunk=64)
        for y0, y1, x0, x1 in writer.blocks():
            ids = stack[0, y0:y1, x0:x1]
            if cut:
                for level in range(writer.layout.block_levels):
                    strips = in_strips(ids[:: 2**level, :: 2**level], width)
                    writer.write_level((0, 0), 0, level, (y0, y1, x0, x1), strips)
            else:
                writer.write((0, 0), 0, y0, x0, ids)
        publish(writer)
    whole, strips = (tmp_path / name / "labels" for name in ("whole", "strips"))
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert len(files) > 20 and files == sorted(
        p.relative_to(strips) for p in strips.rglob("*") if p.is_file()
    )
    assert all((whole / file).read_bytes() == (strips / file).read_bytes() for file in files)


@pytest.mark.parametrize("widths", [[100, 156], [128, 64], [128, 192], [256, 256]])
def test_strips_that_do_not_fill_a_block_are_refused(tmp_path, widths):
    place = address(tmp_path)
    writer = create_labels(place, "", name="n", layers=1, image=an_image(place), block=256, chunk=64)
    strips = [np.ones((256, width), np.uint32) for width in widths]
    with pytest.raises(BadArgument, match="expected strips"):
        writer.write_level((0, 0), 0, 0, (0, 256, 0, 256), strips)


@pytest.mark.parametrize("bad", [-1, 2**32])
def test_ids_beyond_uint32_are_refused_and_the_largest_is_kept(tmp_path, bad):
    place = address(tmp_path)
    image = an_image(place)
    writer = create_labels(place, "", name="n", layers=1, image=image)
    block = np.zeros((300, 520), np.int64)
    block[3, 4] = bad
    with pytest.raises(BadArgument, match="ids must be from 0 to 4294967295"):
        writer.write((0, 0), 0, 0, 0, block)
    block[3, 4] = 2**32 - 1
    writer.write((0, 0), 0, 0, 0, block)
    publish(writer)
    assert read_stack(place, "", "n").max() == 2**32 - 1


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "ä", "a b"])
def test_bad_names_are_refused(tmp_path, name):
    place = address(tmp_path)
    with pytest.raises(BadArgument, match="label name"):
        write_stack(place, an_image(place), np.zeros((1, 300, 520), int), name=name)


def test_stacks_of_another_size_are_refused(tmp_path):
    place = address(tmp_path)
    with pytest.raises(BadArgument, match=r"expected a stack \(L, \(300, 520\)\)"):
        write_stack(place, an_image(place), np.zeros((1, 300, 519), int), name="n")


def test_a_label_that_is_not_there_is_named_with_those_that_are(place):
    image = an_image(place)
    write_stack(place, image, some_stack((1, 300, 520)), name="nuclei")
    with pytest.raises(BadStore, match="no label 'worms'; there are: nuclei"):
        read_stack(place, "", "worms")


def test_images_that_are_no_labels_are_refused(tmp_path):
    place = address(tmp_path)
    an_image(place)
    write_image(place, "labels/odd", np.full((9, 9), True), axes=("y", "x"))
    with pytest.raises(BadStore, match="integer labels"):
        read_stack(place, "", "odd")
