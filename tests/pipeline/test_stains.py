"""Channels are chosen by name where a name is clear, and never guessed."""

import pytest

from pipeline.stains import choose_channels


@pytest.mark.parametrize(
    ("channels", "expected", "chosen"),
    [
        (["BF", "DAPI", "GFP"], ["fluorescent nuclei"], (1,)),
        (["TL-Brightfield", "w1-Hoechst 33342"], ["DAPI"], (1,)),
        (["BF", "DAPI", "GFP"], ["C. elegans in bright field, about 8 px wide"], (0,)),
        (["dapi", "DNA"], ["DAPI"], (0,)),
        (["GFP", "DAPI"], ["DAPI", "GFP"], (1, 0)),
        (["DAPI", "Hoechst"], ["nuclei"], None),
        (["GFP", "RFP"], ["nuclei"], None),
        (["red", "green", "blue"], ["fluorescent nuclei"], None),
        (["DAPI", "GFP"], ["DAPI", "nuclei"], None),
        (["nuclearpore", "TLR4"], ["nuclei"], None),
        (["DAPI"], [], None),
    ],
)
def test_one_channel_for_each_name_or_none_at_all(channels, expected, chosen):
    assert choose_channels(channels, expected) == chosen
