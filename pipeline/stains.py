"""Which channel of an image a segmenter was made for, by the names of channels and stains.

Microscopes name channels freely (``DAPI``, ``w1-Hoechst 33342``, ``TL-BF``). Names are compared as words, without
regard to capitals; two names agree when they are equal or name the same kind of stain.
"""

import re
from collections.abc import Sequence

STAINS = {
    "nuclei": r"dapi|hoechst|h33342|h3342|draq ?5|sytox|nuclei|nucleus|nuclear|dna|h2b",
    "bright field": r"bright[ _-]?field|bf|transmitted|trans|tl|phase|dic|wl|white ?light",
}
"""Kinds of stain or contrast, and the words that name them."""

_WORDS = {
    stain: re.compile(rf"(?<![a-z])(?:{words})(?![a-z])", re.IGNORECASE) for stain, words in STAINS.items()
}


def stains_in(text: str) -> frozenset[str]:
    """Kinds of stain (keys of `STAINS`) that a name or a title mentions."""
    return frozenset(stain for stain, words in _WORDS.items() if words.search(text))


def choose_channels(channels: Sequence[str], expected: Sequence[str]) -> tuple[int, ...] | None:
    """Index of the channel for each expected name or title; None unless each has exactly one of its own."""
    chosen = [_only_match(channels, name) for name in expected]
    known = [index for index in chosen if index is not None]
    return tuple(known) if known and len(set(known)) == len(chosen) else None


def _only_match(channels: Sequence[str], name: str) -> int | None:
    equal = [index for index, channel in enumerate(channels) if channel.casefold() == name.casefold()]
    alike = [index for index, channel in enumerate(channels) if stains_in(channel) & stains_in(name)]
    matches = equal or alike
    return matches[0] if len(matches) == 1 else None
