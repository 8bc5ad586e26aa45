"""The bar that says where the time of a run went."""

import json

import pytest

from pipeline.report.run.time_section import PARTS, time_chart


def test_the_parts_are_shown_with_their_shares():
    (chart,) = time_chart({"time_s": {"read": 1.0, "network": 6.0, "after": 2.0, "waiting": 1.0}})
    bars = json.loads(chart.figure)["data"]
    assert [bar["name"] for bar in bars] == ["read 10%", "network 60%", "after 20%", "waiting 10%"]
    assert [bar["x"] for bar in bars] == [[1.0], [6.0], [2.0], [1.0]]
    assert [bar["marker"]["color"] for bar in bars] == list(PARTS.values())


@pytest.mark.parametrize("facts", [{}, {"time_s": {}}, {"time_s": {"read": 0.0, "after": -0.0001}}])
def test_records_without_times_have_no_bar(facts):
    assert time_chart(facts) == ()
