"""Changes of the source during a run, found at its end by comparing the digests of the files; no pixel is read.

New images are left for the next run. A changed image was segmented from a mixture of two states, so it is reported
as a failure.
"""

from flows.segmentation.plan import Plan, open_source, work_key
from flows.segmentation.record import RunRecord
from pipeline.errors import BadArgument, BadStore
from pipeline.store.places.faults import StoreLost


def report_changes(plan: Plan, record: RunRecord, now: dict[str, str]) -> None:
    """Add to a record the images of the source that are new, gone or changed since the plan was made.

    ``now``: the digests after the last pixel was read, see `digests_now`.
    """
    for work in plan.works:
        digest = now.get(work.image.path)
        if digest is None:
            _changed(record, work.image.path, "it was removed")
        elif work.key != work_key(work.image.path, digest):
            _changed(record, work.image.path, "its pixels or metadata changed")
    known = {image.path for image in plan.source.images}
    for path in now:
        if path not in known:
            record.missing.append(
                f"{path}: appeared during the run; give the same command again to segment it"
            )


def _changed(record: RunRecord, path: str, how: str) -> None:
    record.failure(
        image=path, stage="source", where=path or "image",
        reason=f"{how} while the run was under way; once it is complete, give the same command with --overwrite",
    )  # fmt: skip


def digests_now(plan: Plan) -> dict[str, str]:
    """Read the digests of the images that the source has now, by path; none where it cannot be read any more."""
    try:
        return open_source(plan.job).digests()
    except StoreLost:
        raise
    except (BadArgument, BadStore):
        return {}
