"""Addresses: the same behaviour on a disk and in an object store, whole files, no way out, no credentials."""

import errno
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadArgument, BadStore
from pipeline.store.places.address import Address, address, inner_key
from pipeline.store.places.faults import LeavesStore, explained
from pipeline.store.places.local import LocalFiles


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """An empty address of each kind."""
    if request.param == "local":
        return address(tmp_path / "a.zarr")
    return address(f"memory://{tmp_path.name}/a.zarr")


def test_files_are_written_listed_and_removed(place):
    assert place.list() == [] and not place.exists() and place.read_bytes_or_none("x") is None
    place.write_bytes("a/b/one", b"1")
    place.write_bytes("a/two", b"22")
    place.write_bytes("a/two", b"222")
    assert place.list() == ["a/b/one", "a/two"]
    assert place.list("a") == ["b/one", "two"]
    assert place.children("a") == ["b", "two"] and place.children("nothing") == []
    assert place.read_bytes("a/two") == b"222"
    assert place.exists("a/b") and place.exists("a/b/one") and not place.exists("a/c")
    place.remove("a/b")
    place.remove("a/never")
    assert place.list() == ["a/two"]


def test_an_address_may_be_a_file(place):
    place.write_bytes("map.csv", b"well,condition")
    file = place.child("map.csv")
    assert file.exists() and file.read_bytes("") == b"well,condition"


def test_entries_tell_size_and_change_of_content(place):
    place.write_bytes("a/x", b"1")
    (before,) = place.entries("a")
    place.write_bytes("a/x", b"2")
    (after,) = place.entries("a")
    assert before[:2] == after[:2] == ("x", 1)
    assert before[2] != after[2]


@pytest.mark.parametrize("how", ["move", "copy"])
def test_move_and_copy_take_everything_below(place, how):
    for key in ("a/zarr.json", "a/0/zarr.json", "a/0/c/0", "ab/other"):
        place.write_bytes(key, key.encode())
    getattr(place, how)("a", "deep/b")
    assert place.list("deep/b") == ["0/c/0", "0/zarr.json", "zarr.json"]
    assert place.read_bytes("deep/b/0/c/0") == b"a/0/c/0"
    assert place.exists("a/0") == (how == "copy")
    assert place.exists("ab/other")


def test_a_file_is_claimed_once(place):
    assert place.write_new("lock", b"first")
    assert not place.write_new("lock", b"second")
    assert place.read_bytes("lock") == b"first"
    assert place.list() == ["lock"]


def test_zarr_store_and_files_are_one_place(place):
    import zarr

    zarr.create_array(place.zarr_store(), name="x/0", shape=(2,), dtype="u1", fill_value=0)[:] = 7
    assert "x/0/zarr.json" in place.list()
    assert zarr.open_array(place.child("x").zarr_store(read_only=True), path="0", mode="r")[1] == 7


def test_an_address_travels_and_shows_itself(place):
    same = pickle.loads(pickle.dumps(place))
    assert same == place and hash(same) == hash(place) and str(same) == place.url
    assert place.name == "a.zarr"
    assert place.child("b/c").url == f"{place.url}/b/c"
    assert place.child("") == place


def test_relative_paths_are_resolved_at_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert address("x/../p.zarr") == address(tmp_path / "p.zarr") == address(f"file://{tmp_path}/p.zarr")
    assert address("~/p.zarr").url == str(Path.home() / "p.zarr")
    assert address(address("p.zarr")).is_local


@given(st.lists(st.sampled_from(["a", "b.zarr", ".", "", "0"]), max_size=6))
@settings(deadline=None)
def test_inner_keys_stay_inside(parts):
    key = inner_key("/".join(["x", *parts]))
    assert key.split("/") == ["x", *(part for part in parts if part not in (".", ""))]
    assert inner_key(key) == key


@pytest.mark.parametrize(
    "path",
    ["..", "../..", "a/../../b", "/etc/passwd", "s3://other/x", "a/%2e%2E/b", "a\\..\\b", "x::y", "a\0b"],
)
def test_a_path_that_leaves_the_store_is_refused(place, path):
    for use in (place.child, place.read_bytes, place.list, place.remove, lambda p: place.move("a", p)):
        with pytest.raises(LeavesStore, match="leaves the store"):
            use(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("https://user:SECRET@host/a.zarr", "must not hold"),
        ("https://host/a.zarr?X-Amz-Signature=SECRET", "must not hold"),
        ("s3://SECRET@bucket/a.zarr", "must not hold"),
        ("simplecache::s3://bucket/a", "chained"),
        ("s3:///key", "bucket or host"),
        ("https://host/a/../b", "not resolved"),
        ("  ", "empty"),
    ],
)
@pytest.mark.parametrize("make", [address, Address])
def test_bad_addresses_are_refused_without_repeating_secrets(text, what, make):
    if make is Address and "://" not in text:
        return
    with pytest.raises(BadArgument, match=what) as caught:
        make(text)
    assert "SECRET" not in str(caught.value) and "SECRET" not in repr(caught.value)


def test_unknown_schemes_say_what_is_missing():
    with pytest.raises(BadArgument, match="unknown kind of address 'nonsense'"):
        address("nonsense://x/y").exists()


def test_what_is_not_there_is_named(place):
    with pytest.raises(BadStore, match=r"a\.zarr/x: there is nothing"):
        place.read_bytes("x")


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_disk_faults_say_what_to_do_and_leave_nothing(tmp_path, monkeypatch, number, says):
    place = address(tmp_path)
    place.write_bytes("x", b"old")

    write = os.write

    def failing(file, data):
        """Take one byte, and fail at the next call."""
        if len(data) < 3:
            raise OSError(number, "as the system says")
        return write(file, data[:1])

    with monkeypatch.context() as patch, pytest.raises(BadStore, match=says):
        patch.setattr(os, "write", failing)
        place.write_bytes("x", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_unfinished_files_of_a_killed_writer_are_never_seen(tmp_path):
    place = address(tmp_path)
    place.write_bytes("a/x", b"1")
    (tmp_path / "a" / ".y.123.partial").write_bytes(b"half")
    (tmp_path / "a" / "0.123.partial").write_bytes(b"half")
    assert place.list() == ["a/x"] and place.children("a") == ["x"]
    place.sweep("a")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x"]


def test_our_own_mistakes_are_not_taken_for_faults_of_a_store():
    with pytest.raises(ZeroDivisionError), explained("x"):
        1 / 0  # noqa: B018


def test_a_racing_claim_has_one_winner(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    files = LocalFiles(str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: files.put_new("lock", b"%d" % n), range(50)))
    assert sum(won) == 1
    assert files.get("lock") == b"%d" % won.index(True)


def test_an_address_may_be_the_file_itself(tmp_path):
    page = address(tmp_path / "deep" / "page.html")
    page.write_bytes("", b"first")
    assert page.read_bytes("") == b"first" == (tmp_path / "deep" / "page.html").read_bytes()
    page.write_bytes("", b"second")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]
    assert page.read_bytes("") == b"second"
