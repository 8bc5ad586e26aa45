"""Links that can hold together: no object is made of two pieces of one tile."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.links import compatible


def groups(links, count):
    """Number of the group of each piece under the links."""
    ones = np.ones(len(links), bool)
    return connected_components(coo_array((ones, (links[:, 0], links[:, 1])), shape=(count, count)))[1]


@st.composite
def matches(draw):
    """Pieces of up to six tiles, and links between pieces of different tiles, some with equal scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, 30))
    tile = np.sort(rng.integers(0, draw(st.integers(2, 6)), count))
    pairs = np.unique(np.sort(rng.integers(0, count, (draw(st.integers(0, 60)), 2)), axis=1), axis=0)
    pairs = pairs[tile[pairs[:, 0]] != tile[pairs[:, 1]]]
    return pairs, rng.integers(5, 10, len(pairs)) / 10, tile, rng.permutation(len(pairs))


@settings(max_examples=200, deadline=None)
@given(matches())
def test_accepted_links_join_no_two_pieces_of_a_tile_and_refused_ones_would(case):
    links, scores, tile, order = case
    accepted = compatible(links, scores, tile)
    group = groups(links[accepted], len(tile))
    members = set(zip(group.tolist(), tile.tolist()))
    assert len(members) == len(tile)
    for a, b in links[~accepted].tolist():
        assert group[a] != group[b]
        assert set(tile[group == group[a]].tolist()) & set(tile[group == group[b]].tolist())
    assert np.array_equal(compatible(links[order], scores[order], tile), accepted[order])


def test_of_a_chain_through_three_tiles_the_weakest_link_is_refused():
    # Pieces 0 and 1 of tile 0, 2 of tile 1, 3 of tile 2; 4 and 5 are one object of tiles 1 and 2.
    tile = np.array([0, 0, 1, 2, 1, 2])
    links = np.array([(0, 2), (2, 3), (1, 3), (4, 5)])
    assert compatible(links, np.array([0.9, 0.6, 0.8, 0.5]), tile).tolist() == [True, False, True, True]
    assert compatible(links, np.array([0.9, 0.8, 0.8, 0.5]), tile).tolist() == [True, False, True, True]
