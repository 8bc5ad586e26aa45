"""A zarr store that refuses cut-off Blosc chunks, which the decoder would fill with whatever lies in memory.

Blosc stores incompressible blocks as they are and does not check the length of its input; its header says how
long the chunk must be. Other codecs notice a cut by themselves.
"""

import json
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

HEADER = 16
"""Bytes of a Blosc header; the last four are the length of the whole chunk."""


class WholeBloscChunks(WrapperStore[Any]):
    """Passes everything on, but checks the length of each Blosc chunk that is read whole."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a chunk; ValueError when it is shorter than its header says."""
        buffer = await self._store.get(key, prototype, byte_range)
        if buffer is not None and byte_range is None:
            length = (
                int.from_bytes(buffer[:HEADER][12:].to_bytes(), "little") if len(buffer) >= HEADER else HEADER
            )
            if len(buffer) < length:
                raise ValueError(f"expected {length} bytes, got {len(buffer)}: the file was cut off")
        return buffer


def ends_in_blosc(document: str) -> bool:
    """Whether a chunk of an array, by its metadata, is one Blosc frame (also with a shard around it: no)."""
    found = json.loads(document)
    if found.get("zarr_format") == 2:
        return (found.get("compressor") or {}).get("id") == "blosc"
    codecs = found.get("codecs") or [{}]
    return isinstance(codecs[-1], dict) and codecs[-1].get("name") == "blosc"
