"""One table over all objects of a plate: a Parquet dataset with a part per well, which every run updates.

``tables/<name>/table.parquet`` of the plate opens as one table: the concatenated tables of the images, preceded by the
columns plate, well, field and acquisition. A collection without wells has a part per image. A store of a single image
has no such dataset, because the table of the image is at the same path.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.execution.executors import ALONE, Pool, cause_of
from flows.execution.parallel import parallel_map
from flows.execution.windows import run_window
from flows.segmentation.plan import Plan
from flows.segmentation.record import RunRecord
from pipeline.report.wells import well_name
from pipeline.store.ledger import fingerprint, safe_name
from pipeline.store.ome.collection import Collection, Image
from pipeline.store.ome.tables import find_parquet, list_parts, numbers, outdated_parts, repeated, write_part
from pipeline.store.places.address import Address

Parts = dict[str, list[Image]]
"""Images by the part of the dataset that holds their objects."""


def update_plate_table(plan: Plan, record: RunRecord, pool: Pool = ALONE) -> list[str]:
    """Write the outdated parts of the images that this run finished, on the workers; return their names."""
    images = [work.image for work in plan.works if work.image.path in record.images]
    if not images or not all(image.path for image in images):
        return []
    parts = parts_of(images)
    keys = {path: facts["key"] for path, facts in record.images.items()}
    made_from = {
        part: fingerprint(
            {"labels": plan.label_fingerprint, "images": {image.path: keys[image.path] for image in images}}
        )
        for part, images in parts.items()
    }
    outdated = outdated_parts(plan.output, plan.name, made_from)
    jobs = [
        PartJob(PlateTables(plan.source, plan.output, plan.name, {part: parts[part]}), part)
        for part in outdated.stale
    ]
    retries = plan.job.execution.retries
    for outcome in run_window(pool, write_plate_part, jobs, retries=retries, together=pool.together):
        record.moved("finish", outcome.traffic)
        if outcome.error is not None:
            raise cause_of(outcome.error)
    list_parts(plan.output, plan.name, made_from, outdated)
    return outdated.stale


@dataclass(frozen=True)
class PartJob:
    """A part of the table of a plate, to be written by a worker."""

    tables: "PlateTables"
    """The tables of the images of this part."""
    part: str


def write_plate_part(job: PartJob) -> None:
    """Write a part of the table of a plate."""
    job.tables.write(job.part)


def parts_of(images: Sequence[Image]) -> Parts:
    """Cut the images of a collection into the parts of its table: one per well, or one per image without a well."""
    parts: Parts = {}
    for image in images:
        name = well_name(*image.well) if image.well else safe_name(image.path)
        parts.setdefault(name, []).append(image)
    return parts


class PlateTables:
    """The object tables of the images of a collection, each with columns for plate, well, field and acquisition."""

    def __init__(self, source: Collection, output: Address, name: str, parts: Parts) -> None:
        self._plate = source.address.name.removesuffix(".zarr")
        self._output, self._name, self._parts = output, name, parts

    def write(self, part: str) -> None:
        """Write a part of the dataset."""
        write_part(self._output, self._name, part, self.of(part))

    @property
    def parts(self) -> list[str]:
        """Names of the parts, in the order of their first images."""
        return list(self._parts)

    def of(self, part: str) -> Iterator[pa.Table]:
        """Tables of a part, in the order of its images; those without a table are left out.

        Images of one well may have different channels; columns that an image lacks are null.
        """

        def find(image: Image) -> pq.ParquetFile | None:
            return find_parquet(self._output, image.path, self._name)

        images = self._parts[part]
        files = parallel_map(find, images, waits=not self._output.is_local)
        tables = [(image, file) for image, file in zip(images, files, strict=True) if file is not None]
        schemas = [file.schema_arrow for _, file in tables]
        alike = all(schema.equals(schemas[0]) for schema in schemas)
        kinds = schemas[:1] if alike else schemas
        empty = [placed(_without_rows(s), self._plate, image) for s, (image, _) in zip(kinds, tables)]
        schema = pa.unify_schemas([table.schema for table in empty], promote_options="permissive")
        yield _without_rows(schema)
        for image, file in tables:
            for group in range(file.num_row_groups):
                # One thread: the tables of fields are small.
                rows = file.read_row_group(group, use_threads=False)
                table = placed(rows, self._plate, image)
                yield table if alike else _fitted(table, schema)


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast a table to the columns and types of a schema; columns that it lacks are null."""
    known = set(table.column_names)
    columns = [
        table[f.name].cast(f.type) if f.name in known else pa.nulls(len(table), f.type) for f in schema
    ]
    return pa.table(columns, schema=schema)


def placed(table: pa.Table, plate: str, image: Image) -> pa.Table:
    """The object table of an image with plate, well, field and acquisition (null without one) in front."""
    count, well = len(table), well_name(*image.well) if image.well else ""
    front = {
        "plate": repeated(plate, count), "well": repeated(well, count), "field": repeated(image.field or "", count),
        "acquisition": _acquisitions(image.acquisition, count),
    }  # fmt: skip
    rest = [name for name in table.column_names if name not in front]
    return pa.Table.from_arrays([*front.values(), *(table[name] for name in rest)], names=[*front, *rest])


def _acquisitions(number: int | None, count: int) -> pa.Array:
    """A column with the id of an acquisition in every row, or with nulls."""
    return pa.nulls(count, pa.int64()) if number is None else numbers(np.full(count, number, np.int64))


def _without_rows(schema: pa.Schema) -> pa.Table:
    """A table without rows; `pyarrow.Schema.empty_table` makes the same, but imports pandas first."""
    return pa.Table.from_batches([], schema=schema)
