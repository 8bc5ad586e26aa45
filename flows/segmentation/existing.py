"""The results that an output already holds of each image: finished, partly written, or from other work.

Labels carry a fingerprint of the work they come from. Labels of this run are finished if the image also has its
mark. Labels of other work are kept unless the job allows them to be overwritten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from flows.execution.parallel import parallel_map
from flows.segmentation.image_job import ImageJob
from flows.segmentation.plan import Plan
from flows.segmentation.record import RunRecord
from flows.segmentation.stages.painting import Target
from pipeline.errors import RunConflict
from pipeline.store.ome.label_images.reading import label_origin, labels_path
from pipeline.store.ome.table_listing import list_tables

MANY = 16
"""Number of images from which a server is sent one listing of the output in place of requests per image."""

BEGUN = "begun.json"
"""Lists the fields that this run may have begun to write, by their keys."""


@dataclass(frozen=True)
class Existing:
    """The results in an output at the start of a run."""

    plan: Plan
    origins: dict[str, str | None]
    """Fingerprint of the work that the labels of each image come from, by key; None where there are no labels."""
    marked: frozenset[str]
    """Keys of the images that have the mark of a finished image."""
    keys: frozenset[str] | None = None
    """All files of the output, where one listing of them was made."""

    @property
    def todo(self) -> list[ImageJob]:
        """Images without results, or whose labels were removed or replaced since."""
        return [work for work in self.plan.works if not self._is_done(work)]

    @property
    def done(self) -> list[ImageJob]:
        """Images with complete results."""
        return [work for work in self.plan.works if self._is_done(work)]

    @cached_property
    def begun(self) -> frozenset[str]:
        """Keys of the fields that an earlier start of this run may have written in part."""
        return frozenset(self.plan.ledger.find_json(BEGUN) or ())

    def has_labels(self, work: ImageJob) -> bool:
        """Whether there are labels of the run's name, of this or of other work."""
        return self.origins[work.key] is not None

    def claim(self, works: Sequence[ImageJob]) -> None:
        """List the fields that are about to be written in one file, so that a killed run recognises its own labels."""
        keys = self.begun | {work.key for work in works if work.is_field}
        if keys != self.begun:
            self.plan.ledger.write_json(BEGUN, sorted(keys))

    def check_names(self, works: Sequence[ImageJob]) -> None:
        """Refuse labels and tables of the run's name that come from other work, before any work is done.

        Raises:
            RunConflict: there are such labels or tables, and the job does not allow them to be overwritten.
        """
        if self.plan.job.overwrite:
            return
        answers = parallel_map(self._conflict, works, waits=not self.plan.output.is_local)
        conflicts = [reason for reason in answers if reason]
        if conflicts:
            more = f" (and {len(conflicts) - 1} more images)" if len(conflicts) > 1 else ""
            raise RunConflict(
                f"{conflicts[0]}{more}; give another --name, or --overwrite to replace them when the new ones "
                "are complete"
            )

    def facts(self, record: RunRecord) -> list[dict[str, Any]]:
        """Facts of the finished images, from the record or from their marks."""
        read = partial(_facts, self.plan, record)
        return parallel_map(read, self.done, waits=not self.plan.output.is_local)

    def _is_done(self, work: ImageJob) -> bool:
        return work.key in self.marked and self.origins[work.key] == self.plan.label_fingerprint

    def _conflict(self, work: ImageJob) -> str | None:
        plan, origin = self.plan, self.origins[work.key]
        place = f"{plan.output.child(work.image.path)}"
        if work.key in self.begun and origin in (None, plan.label_fingerprint):
            return None
        if origin is None:
            if not _may_have(self.keys, f"{work.image.path}/tables"):
                return None
            if plan.name not in list_tables(plan.output, work.image.path, zarr_format=work.image.zarr_format):
                return None
            if work.key in self.marked or plan.ledger.marks("predict", work.key):
                return None
            return f"{place}: a table {plan.name!r} is there already"
        if origin != plan.label_fingerprint:
            return f"{place}: labels {plan.name!r} are there already and come from other work"
        if plan.output.exists(target_of(plan, work).journal):
            return None
        return f"{place}: labels {plan.name!r} are there already, from other tiles or an earlier state of the image"


def find_existing(plan: Plan) -> Existing:
    """Find the results that an output holds of the images of a plan."""
    several_requests = not plan.output.is_local and len(plan.works) >= MANY
    keys = frozenset(plan.output.list()) if several_requests else None
    marks = set(plan.output.list(f"{plan.ledger.folder}/images")) if keys is None else keys
    prefix = f"{plan.ledger.folder}/images/" if keys is not None else ""
    origins = parallel_map(partial(_origin, plan, keys), plan.works, waits=not plan.output.is_local)
    return Existing(
        plan,
        {work.key: origin for work, origin in zip(plan.works, origins, strict=True)},
        frozenset(work.key for work in plan.works if f"{prefix}{work.key}.json" in marks),
        keys,
    )


def _origin(plan: Plan, keys: frozenset[str] | None, work: ImageJob) -> str | None:
    path, zarr_format = work.image.path, work.image.zarr_format
    if not _may_have(keys, labels_path(path, plan.name)):
        return None
    return label_origin(plan.output, path, plan.name, zarr_format=zarr_format)


def _may_have(keys: frozenset[str] | None, group: str) -> bool:
    """Whether an output may have a zarr group: not where a listing shows none of its documents."""
    group = group.lstrip("/")
    return keys is None or any(f"{group}/{name}" in keys for name in ("zarr.json", ".zgroup", ".zattrs"))


def target_of(plan: Plan, work: ImageJob) -> Target:
    """Where the labels of an image go."""
    origin, overwrite = plan.label_fingerprint, plan.job.overwrite
    return Target(work=work, name=plan.name, origin=origin, overwrite=overwrite)


def _facts(plan: Plan, record: RunRecord, work: ImageJob) -> dict[str, Any]:
    known = record.images.get(work.image.path, {})
    return known if known.get("key") == work.key else plan.ledger.find_json(f"images/{work.key}.json")
