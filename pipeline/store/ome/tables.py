"""Object tables as Parquet beside the images, and one partitioned dataset over all images of a collection.

Invariant: the same rows give the same bytes, and a table is visible only whole. Any Parquet reader opens them
(pandas, DuckDB, polars, ngio); the groups' attributes follow ngio's tables.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BadArgument, BadStore, RunConflict
from pipeline.store.ome.groups import find_group, join
from pipeline.store.ome.table_listing import FILE, add_to_list, list_tables, table_path
from pipeline.store.places.address import Address

if TYPE_CHECKING:  # Imported late: it takes a quarter of the start of commands that only list tables.
    import pandas as pd

PARTS = "platelayer_parts"
"""Attribute of a dataset: its parts, and a fingerprint of what each was made from."""

ROW_GROUP = 32_768
"""Rows per row group, which is also the unit of encoding; fixed, so that bytes depend on the rows only."""

TEXT = frozenset(
    {"plate", "row", "column", "field", "acquisition", "image", "well", "condition", "kind", "class"}
)
"""Columns of text, also in a table without rows."""

IDS = "_labels"
"""Endings of the names of columns that hold lists of ids."""

LIST_TYPE = pa.list_(pa.uint32())
"""Type of columns of ids."""


def write_table(
    address: Address,
    path: str,
    name: str,
    frame: "pd.DataFrame",
    *,
    overwrite: bool = True,
    region: str | None = None,
) -> None:
    """Write the table of one image to ``<path>/tables/<name>/table.parquet`` and list it.

    Args:
        address: the collection.
        path: the image in it.
        name: name of the table.
        frame: one row per object; an empty one keeps its columns and their types.
        overwrite: replace an older table of that name.
        region: name of the label image that the column ``label`` refers to; ``name`` when None.

    Raises:
        RunConflict: there is such a table and ``overwrite`` is False.
    """
    place = table_path(path, name)
    if not overwrite and address.exists(join(place, FILE)):
        raise RunConflict(f"{address.child(place)}: there is such a table already; choose another name")
    write_encoded(
        address, path, name, table_bytes(frame), region=(region or name) if "label" in frame.columns else None
    )


def write_encoded(address: Address, path: str, name: str, data: bytes, *, region: str | None) -> None:
    """Write the table of one image as `table_bytes` made it, replacing an older one, and list it.

    Args:
        address: the collection.
        path: the image in it.
        name: name of the table.
        data: the table, encoded.
        region: name of the label image that the column ``label`` refers to; None for a table without it.
    """
    address.write_bytes(join(table_path(path, name), FILE), data)
    add_to_list(address, path, name, region)


def read_table(address: Address, path: str, name: str, *, columns: list[str] | None = None) -> "pd.DataFrame":
    """Read the table (or the dataset) of that name at a path.

    Raises:
        BadStore: no such table, or no Parquet.
    """
    place = join(table_path(path, name), FILE)
    data = address.read_bytes_or_none(place)
    parts = [place] if data is not None else [join(place, key) for key in address.list(place)]
    if not parts:
        names = ", ".join(list_tables(address, path)) or "none"
        raise BadStore(f"{address.child(path)}: there is no table {name!r}; there are: {names}")
    tables = [_read_part(address, part, columns, data) for part in parts]
    return pa.concat_tables(tables).to_pandas()


def find_parquet(address: Address, path: str, name: str) -> pq.ParquetFile | None:
    """Open the encoded table of one image, to be read by row groups; None where there is none.

    Raises:
        BadStore: it is no Parquet.
    """
    key = join(table_path(path, name), FILE)
    data = address.read_bytes_or_none(key)
    try:
        return None if data is None else pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise _no_parquet(address, key, error) from None


def write_dataset(
    address: Address, name: str, parts: Mapping[str, str], tables: Callable[[str], Iterable[pa.Table]]
) -> list[str]:
    """Update the table over all images of a collection; return the names of the parts that were written.

    The parts are ``tables/<name>/table.parquet/<part>.parquet``; pandas, pyarrow and ngio read the folder as one table,
    DuckDB ``table.parquet/*.parquet``. Each part is replaced as a whole, and its fingerprint is listed afterwards, so
    that a killed writer repeats unfinished parts. Parts that are no longer named are removed.

    Args:
        address: the collection.
        name: name of the table.
        parts: name of each part, and a fingerprint of what it is made from; a part whose listed fingerprint is the same
            is left as it is. An empty fingerprint is never the same.
        tables: tables of a part, which are concatenated; all with the same columns.

    Raises:
        RunConflict: the collection is one image, whose own table is in this place.
    """
    outdated = outdated_parts(address, name, parts)
    for part in outdated.stale:
        write_part(address, name, part, tables(part))
    list_parts(address, name, parts, outdated)
    return outdated.stale


@dataclass(frozen=True)
class OutdatedParts:
    """What has to be done to update a dataset."""

    stale: list[str]
    """Names of the parts to write."""
    gone: list[str]
    """Keys of the files to remove, in the folder of the parts."""
    is_listed: bool
    """Whether the parts are listed as they shall be."""


def outdated_parts(address: Address, name: str, parts: Mapping[str, str]) -> OutdatedParts:
    """Find what has to be done to update a dataset, see `write_dataset`.

    Raises:
        RunConflict: as `write_dataset`.
    """
    folder = _folder(name)
    if address.read_bytes_or_none(folder) is not None:
        raise RunConflict(f"{address.child(folder)}: there is a table of one image in this place already")
    listed, present = _listed_parts(address, name), set(address.list(folder))
    stale = [
        part
        for part, fingerprint in parts.items()
        if not fingerprint or listed.get(part) != fingerprint or f"{part}.parquet" not in present
    ]
    gone = sorted(present - {f"{part}.parquet" for part in parts})
    return OutdatedParts(stale, gone, listed == parts)


def write_part(address: Address, name: str, part: str, tables: Iterable[pa.Table]) -> None:
    """Write a part of a dataset, the concatenation of some tables; several workers may write different parts."""
    encoder = TableEncoder()
    for table in tables:
        encoder.add(table)
    address.write_bytes(join(_folder(name), f"{part}.parquet"), encoder.encoded())


def list_parts(address: Address, name: str, parts: Mapping[str, str], outdated: OutdatedParts) -> None:
    """Remove the parts of a dataset that are no longer named, and list the others after all of them were written."""
    for key in outdated.gone:
        address.remove(join(_folder(name), key))
    if outdated.stale or outdated.gone or not outdated.is_listed:
        add_to_list(address, "", name, None, {PARTS: dict(parts)})


def _folder(name: str) -> str:
    """Key of the folder of the parts of a dataset."""
    return join(table_path("", name), FILE)


def _listed_parts(address: Address, name: str) -> dict[str, str]:
    """Fingerprints of the parts of the dataset of that name, as they were listed last."""
    group = find_group(address, table_path("", name))
    listed = group.attributes.get(PARTS) if group else None
    return dict(listed) if isinstance(listed, dict) else {}


class TableEncoder:
    """Encoder of a table that is added in parts, so that nothing holds it whole.

    The bytes depend on the rows only, and not on the parts: every row group but the last has `ROW_GROUP` rows.
    """

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        """Tables of fewer than `ROW_GROUP` rows in all, which are not encoded yet."""

    def add(self, rows: "pd.DataFrame | pa.Table") -> None:
        """Append rows; every part has the same columns."""
        self._waiting.append(rows if isinstance(rows, pa.Table) else to_arrow(rows))
        count = sum(map(len, self._waiting))
        if count >= ROW_GROUP:
            self._write(count // ROW_GROUP * ROW_GROUP)

    def encoded(self) -> bytes:
        """Return the Parquet file; nothing may be added after it."""
        if self._waiting:
            self._write(sum(map(len, self._waiting)))
        if self._writer is not None:
            self._writer.close()
        return self._buffer.getvalue()

    def _write(self, count: int) -> None:
        """Encode the first ``count`` of the waiting rows."""
        table = self._waiting[0]
        if len(self._waiting) > 1:
            table = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting = [table.slice(count)] if count < len(table) else []
        writer = self._opened(table.schema)
        if count:
            writer.write_table(table.slice(0, count), row_group_size=ROW_GROUP)

    def _opened(self, schema: pa.Schema) -> pq.ParquetWriter:
        if self._writer is None:
            # Dictionaries only for text: numbers hardly repeat, and a dictionary takes twice the time and more space.
            text = [field.name for field in schema if pa.types.is_string(field.type)]
            self._writer = pq.ParquetWriter(
                self._buffer, schema, compression="zstd", store_schema=False, use_dictionary=text
            )
        return self._writer


def numbers(values: np.ndarray) -> pa.Array:
    """A column of numbers or booleans ``(n,)``.

    `pa.array` gives the same, but imports pandas first, which takes longer than all tables of a well.
    """
    if values.dtype == bool:
        content, kind = np.packbits(values, bitorder="little"), pa.bool_()
    else:
        content, kind = np.ascontiguousarray(values), pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(content)])


def repeated(text: str, count: int) -> pa.StringArray:
    """A column with the same text in every row, made without pandas as `numbers` are."""
    content = text.encode()
    ends = np.arange(count + 1, dtype=np.int32) * np.int32(len(content))
    return pa.Array.from_buffers(
        pa.string(), count, [None, pa.py_buffer(ends), pa.py_buffer(content * count)]
    )


def table_bytes(frame: "pd.DataFrame") -> bytes:
    """Encode a table as Parquet, the same bytes for the same rows."""
    encoder = TableEncoder()
    encoder.add(frame)
    return encoder.encoded()


def to_arrow(frame: "pd.DataFrame") -> pa.Table:
    """Convert a table; text is string, sequences are lists of uint32, whatever the number of rows.

    Raises:
        BadArgument: two columns of one name, or a column of another kind of object.
    """
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise BadArgument(f"a table needs different column names, got {names}")
    columns = [_column(name, frame.iloc[:, index]) for index, name in enumerate(names)]
    return pa.table(columns, names=names)


def _column(name: str, series: "pd.Series[Any]") -> pa.Array:
    if not len(series) and (name in TEXT or name.endswith(IDS)):
        # An empty column may have lost its type, which is then derived from its name.
        return pa.array([], pa.string() if name in TEXT else LIST_TYPE)
    if not isinstance(series.dtype, np.dtype) or series.dtype.kind != "O":
        array = pa.array(series, from_pandas=False)
        return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array
    values = series.tolist()
    first = next((value for value in values if value is not None), None)
    if isinstance(first, list | tuple | np.ndarray) or (first is None and name.endswith(IDS)):
        return pa.array(values, LIST_TYPE)
    if first is None or isinstance(first, str):
        return pa.array(values, pa.string())
    raise BadArgument(f"column {name!r}: expected numbers, text or lists of ids, got {type(first).__name__}")


def _read_part(address: Address, key: str, columns: list[str] | None, data: bytes | None) -> pa.Table:
    content = data if data is not None else address.read_bytes(key)
    try:
        return pq.read_table(pa.BufferReader(content), columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise _no_parquet(address, key, error) from None


def _no_parquet(address: Address, key: str, error: Exception) -> BadStore:
    return BadStore(f"{address.child(key)}: expected Parquet ({error!s:.100}); write the table again")
