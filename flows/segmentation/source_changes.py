"""A source that changes while it is processed: looked at again at the end, by the digest of its files.

No pixel is read. What came meanwhile is left for the next run; what changed meanwhile was segmented from a mixture
of two states, and is named as a failure, so nothing is silently half-done.
"""

from flows.segmentation.plan import Plan, open_source, work_key
from flows.segmentation.record import RunRecord
from pipeline.errors import BadArgument, BadStore
from pipeline.store.places.faults import StoreLost


def report_changes(plan: Plan, record: RunRecord) -> None:
    """Add to a record what came, went or changed in the source since the plan was made."""
    now = _digests(plan)
    for work in plan.works:
        digest = now.get(work.image.path)
        if digest is None:
            _changed(record, work.image.path, "it was taken away")
        elif work.key != work_key(work.image.path, digest):
            _changed(record, work.image.path, "its pixels or metadata changed")
    known = {image.path for image in plan.source.images}
    for path in now:
        if path not in known:
            record.missing.append(
                f"{path}: came while the run was under way; the same command again segments it"
            )


def _changed(record: RunRecord, path: str, how: str) -> None:
    record.failure(
        image=path, stage="source", where=path or "image",
        reason=f"{how} while the run was under way; when it is complete, give the same command with --overwrite",
    )  # fmt: skip


def _digests(plan: Plan) -> dict[str, str]:
    try:
        return open_source(plan.job).digests()
    except StoreLost:
        raise
    except (BadArgument, BadStore):
        return {}
