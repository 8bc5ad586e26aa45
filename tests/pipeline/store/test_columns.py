"""Columns and arrays in the scratch: encoded on a store, kept as they are in a draft; read back equal, read-only."""

import numpy as np
import pytest

from pipeline.store.ledger import Ledger
from pipeline.store.places.address import address
from pipeline.store.places.draft import draft_over

COLUMNS = {
    "area": np.arange(3),
    "mean": np.array([0.5, np.nan, 2]),
    "every second": np.arange(9, dtype=np.uint8)[::2],
    "turned": np.arange(6).reshape(2, 3).T,
    "none": np.zeros((0, 2), np.int64),
    "one": np.array(7),
}


@pytest.fixture(params=["store", "draft"])
def ledger(request, tmp_path):
    place = address(tmp_path)
    return Ledger(place if request.param == "store" else draft_over(place, scratch=".platelayer"), "run")


def test_columns_survive_the_scratch(ledger):
    ledger.write_columns("pieces/0", COLUMNS)
    again = ledger.read_columns("pieces/0")
    assert again.keys() == COLUMNS.keys()
    for name, column in COLUMNS.items():
        assert again[name].dtype == column.dtype and again[name].shape == column.shape
        assert np.array_equal(again[name], column, equal_nan=column.dtype.kind == "f")
        assert again[name].flags.c_contiguous and not again[name].flags.writeable
    again.pop("area")
    assert "area" in ledger.read_columns("pieces/0")


def test_columns_of_a_draft_are_files_for_everyone_else(tmp_path):
    draft = draft_over(address(tmp_path), scratch=".platelayer")
    draft.write_columns("x/columns", COLUMNS)
    address(tmp_path / "other").write_columns("x/columns", COLUMNS)
    expected = address(tmp_path / "other").read_bytes("x/columns")
    assert draft.read_bytes("x/columns") == expected
    assert draft.entries("x") == [("columns", len(expected), "")]
    draft.move("x", "y")
    draft.write_folders(["y"])
    assert address(tmp_path).read_bytes("y/columns") == expected


def test_packed_arrays_survive_the_scratch_and_leave_a_draft_as_files(ledger, tmp_path):
    mask = np.arange(12, dtype=np.uint16).reshape(3, 4)
    ledger.write_packed("mask/0", mask.copy())
    again = ledger.read_packed("mask/0", mask.dtype, mask.shape)
    assert np.array_equal(again, mask) and again.dtype == mask.dtype and not again.flags.writeable
    address(tmp_path / "other").write_packed("mask/0", mask)
    assert ledger.read("mask/0") == address(tmp_path / "other").read_bytes("mask/0")


@pytest.mark.parametrize("damaged", [b"", b"no zstd", b"\x28\xb5\x2f\xfd"])
def test_damaged_packed_arrays_are_refused(ledger, damaged):
    ledger.write("mask/0", damaged)
    with pytest.raises(ValueError):
        ledger.read_packed("mask/0", np.dtype("u1"), (2, 2))
