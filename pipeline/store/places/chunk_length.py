"""Detection of truncated chunks that a decoder would accept.

Blosc stores incompressible blocks unchanged and does not check the length of its input, so a truncated chunk would be
filled with arbitrary memory; its header holds the expected length. A shard without bytes would be read as empty.
Other truncations are detected by the codecs.
"""

import json

HEADER = 16
"""Bytes of a Blosc header; the last four are the length of the whole chunk."""


def check_length(length: int, header: bytes, *, blosc: bool) -> None:
    """Check the length of a chunk against what its first `HEADER` bytes say; ValueError when it is cut off."""
    if length == 0:
        raise ValueError("the file is empty")
    expected = max(int.from_bytes(header[12:], "little"), HEADER) if blosc else 0
    if length < expected:
        raise ValueError(f"expected {expected} bytes, got {length}: the file was cut off")


def ends_in_blosc(document: str) -> bool:
    """Whether each file of an array, by its metadata, is one Blosc frame (a shard is not)."""
    metadata = json.loads(document)
    if metadata.get("zarr_format") == 2:
        return (metadata.get("compressor") or {}).get("id") == "blosc"
    codecs = metadata.get("codecs") or [{}]
    return isinstance(codecs[-1], dict) and codecs[-1].get("name") == "blosc"
