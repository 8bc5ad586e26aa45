"""A zarr store that refuses cut-off chunks which the decoders would take for something.

Blosc stores incompressible blocks as they are and does not check the length of its input, so a cut-off chunk is
filled with whatever lies in memory; its header says how long the chunk must be. A shard of no bytes counts as
empty. Other cuts are noticed by the codecs themselves.
"""

import json
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

HEADER = 16
"""Bytes of a Blosc header; the last four are the length of the whole chunk."""


class WholeChunks(WrapperStore[Any]):
    """Passes everything on, but checks the length of what is read."""

    def __init__(self, store: Store, *, blosc: bool) -> None:
        super().__init__(store)
        self.blosc = blosc

    def _with_store(self, store: Store) -> "WholeChunks":
        return type(self)(store, blosc=self.blosc)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a chunk or a part of one; ValueError when it is shorter than it must be."""
        buffer = await self._store.get(key, prototype, byte_range)
        if buffer is not None and len(buffer) == 0:
            raise ValueError("the file is empty")
        if buffer is not None and self.blosc and byte_range is None:
            length = int.from_bytes(buffer[:HEADER].to_bytes()[12:], "little") or HEADER
            if len(buffer) < max(length, HEADER):
                raise ValueError(f"expected {length} bytes, got {len(buffer)}: the file was cut off")
        return buffer


def ends_in_blosc(document: str) -> bool:
    """Whether each file of an array, by its metadata, is one Blosc frame (a shard is not)."""
    found = json.loads(document)
    if found.get("zarr_format") == 2:
        return (found.get("compressor") or {}).get("id") == "blosc"
    codecs = found.get("codecs") or [{}]
    return isinstance(codecs[-1], dict) and codecs[-1].get("name") == "blosc"
