"""Drift: a plate against the plates before it, and the history between them."""

import math

import pandas as pd
import pytest

from flows.scheduling.drift import PlateNumbers, add_to_history, drift, plate_numbers, read_history
from pipeline.store.places.address import address


def numbers(plate, count=100.0, area=50.0, ended="2026-01-01T00:00:00.000+00:00"):
    return PlateNumbers(
        plate=plate,
        ended=ended,
        images=2,
        objects=int(2 * count),
        objects_per_well=count,
        median_area_px=area,
    )


EARLIER = [numbers(f"p{i}", count) for i, count in enumerate((90.0, 100.0, 110.0))]


def test_a_change_beyond_the_threshold_is_told_with_what_is_usual():
    (found,) = drift(numbers("new", 60.0), EARLIER, threshold=0.3)
    assert (found.number, found.usual, found.plates) == ("objects_per_well", 100.0, 3)
    assert found.change == pytest.approx(-0.4)
    assert "60 against 100 in 3 earlier plates (-40%, threshold 30%)" in str(found)


def test_the_threshold_itself_is_no_drift():
    assert not drift(numbers("new", 70.0), EARLIER, threshold=0.3)


def test_too_few_earlier_plates_say_nothing_and_a_plate_is_not_its_own_past():
    assert not drift(numbers("new", 1.0), EARLIER[:2], threshold=0.3)
    assert not drift(numbers("p0", 1.0), EARLIER, threshold=0.3)


def test_objects_where_there_were_none():
    empty = [numbers(f"p{i}", 0.0, 0.0) for i in range(3)]
    found = drift(numbers("new", 5.0, 9.0), empty, threshold=0.3)
    assert [math.isinf(one.change) for one in found] == [True, True]
    assert not drift(numbers("new", 0.0, 0.0), empty, threshold=0.3)


def test_wells_without_objects_count():
    objects = pd.DataFrame({"image": ["A/1/0", "A/1/1", "A/1/1"], "area_px": [10, 20, 90]})
    found = plate_numbers("p", "now", objects, ["A/1/0", "A/1/1", "B/2/0"])
    assert (found.images, found.objects, found.objects_per_well, found.median_area_px) == (3, 3, 1.5, 20.0)


def test_the_history_keeps_order_and_the_last_word_on_a_plate(tmp_path):
    place = address(tmp_path / "history")
    add_to_history(place, numbers("b", 1.0, ended="2026-01-02T00:00:00.000+00:00"))
    add_to_history(place, numbers("a", 2.0, ended="2026-01-01T00:00:00.000+00:00"))
    add_to_history(place, numbers("b", 3.0, ended="2026-01-03T00:00:00.000+00:00"))
    assert [(one.plate, one.objects_per_well) for one in read_history(place)] == [("a", 2.0), ("b", 3.0)]
    assert read_history(address(tmp_path / "nothing")) == []
