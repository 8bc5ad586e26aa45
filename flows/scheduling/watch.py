"""Watching a place: which plates are new, complete, unclaimed or finished.

All state is beside the data, in ``.platelayer/watch/<name of the labels>/`` of the output root, in files that are
written atomically, so any number of servers may watch one place and be killed at any moment. A server claims a plate
with a lock that it renews; the lock and the ledger of the run are further safeguards. No Prefect, no pixels.
"""

import hashlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from flows.execution.parallel import parallel_map
from flows.jobs import DEFAULT_MODEL, SegmentJob, WatchJob
from flows.segmentation.archive import find_stores, jobs_of
from pipeline.errors import BadArgument
from pipeline.store.ledger import ROOT, Hold, held, safe_name
from pipeline.store.places.address import Address, address

OURS = frozenset({ROOT, "labels", "tables"})
"""Folders of results, which do not count as changes of a plate."""

State = Literal["ready", "waiting", "done", "given up"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a plate; stored beside the data."""

    plate: str
    """Path below the watched place."""
    status: str
    """complete; partial (images set aside); failed; changed (grew during the run); conflict and busy are not stored."""
    signature: str = ""
    """Digest of the listing of the plate at the start."""
    attempts: int = 0
    """Number of attempts at this state of the plate."""
    ended: str = ""
    """ISO 8601, UTC."""
    output: str = ""
    run: str = ""
    name: str = ""
    images: int = 0
    objects: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    report: str = ""
    """Address of the page; empty where there is none."""
    scores: dict[str, float] = field(default_factory=dict)
    """Scores against the truth, where there is one."""
    drift: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Further messages for the user."""


@dataclass(frozen=True, kw_only=True)
class PlateStatus:
    """Status of a plate at the latest listing of the place."""

    plate: str
    state: State
    due: float | None = None
    """Time in s since the epoch at which it counts as complete if it stays unchanged; None where unknown."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A watched place and its state."""

    job: WatchJob
    place: Address
    root: Address
    """Folder of results and state: the output root, or the place itself."""
    name: str
    """Name that distinguishes this watch from others of the same place: the name of its labels."""

    @property
    def state(self) -> Address:
        """Folder of the state."""
        return self.root.child(f"{ROOT}/watch/{self.name}")

    @property
    def history(self) -> Address:
        """Folder of the numbers of earlier plates."""
        return self.root.child(f"{ROOT}/history/{self.name}")

    def plate(self, plate: str) -> Address:
        """Folder of the state of a plate."""
        return self.state.child(f"plates/{safe_name(plate)}")

    def job_of(self, plate: str) -> SegmentJob:
        """The job of a plate: from the template, with the plate's own source and output."""
        template = replace(self.job.job, source=str(self.place))
        return next(job for _, job in jobs_of(template, [plate]))

    def outcome(self, plate: str) -> Outcome | None:
        """Read the outcome of a plate; None before the first attempt."""
        data = self.plate(plate).read_bytes_or_none("outcome.json")
        return None if data is None else Outcome(**json.loads(data))

    def write_outcome(self, outcome: Outcome) -> None:
        """Write an outcome; the last step, under the claim."""
        self.plate(outcome.plate).write_bytes("outcome.json", json.dumps(asdict(outcome), indent=1).encode())

    def claim(self, plate: str) -> AbstractContextManager[Hold]:
        """Claim a plate; RunConflict when another living process has claimed it."""
        return held(self.plate(plate), f"watch {self.name}")

    def alone(self) -> AbstractContextManager[Hold]:
        """Claim this check of the watch on this host; RunConflict when another check is in progress."""
        host = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()) or "host"
        return held(self.state.child(f"hosts/{host}"), "tick")

    def is_settled(self, outcome: Outcome | None, signature: Callable[[], str]) -> State | None:
        """``done`` or ``given up`` where nothing is left to do; None otherwise."""
        if outcome is None:
            return None
        if outcome.status == "complete":
            return "done" if not self.job.recheck or signature() == outcome.signature else None
        tried = outcome.attempts >= self.job.attempts
        return "given up" if tried and signature() == outcome.signature else None


def open_watch(job: WatchJob) -> Watch:
    """Check a watch and resolve its addresses; nothing is read yet.

    Raises:
        BadArgument: results cannot be written at their address.
    """
    place = address(job.place)
    root = address(job.job.output) if job.job.output else place
    if not root.is_writable_kind:
        raise BadArgument(f"{root}: this kind of address cannot be written; give the job an output root")
    chosen = job.job.name or job.job.model or job.job.segmenter or DEFAULT_MODEL
    name = re.sub(r"[^a-z0-9_-]+", "_", chosen.rstrip("/").rpartition("/")[2].lower()).strip("_") or "labels"
    return Watch(job=job, place=place, root=root, name=name)


def signature(watch: Watch, plate: str) -> str:
    """Hash of names, sizes and tokens of all files of a plate except results: one listing, no content."""
    digest = hashlib.sha256()
    for key, size, token in watch.place.child(plate).entries():
        if not OURS.intersection(key.split("/")):
            digest.update(f"{key}\0{size}\0{token}\n".encode())
    return digest.hexdigest()[:16]


def look(watch: Watch, now: float) -> list[PlateStatus]:
    """Find the status of every plate of the place, in the order of their names."""
    plates = find_stores(watch.place, watch.job.match, output=watch.root)
    return parallel_map(partial(plate_status, watch, now=now), plates)


def plate_status(watch: Watch, plate: str, *, now: float) -> PlateStatus:
    """Find out whether a plate is done, complete, or still being written."""
    outcome = watch.outcome(plate)
    settled = watch.is_settled(outcome, partial(signature, watch, plate))
    if settled is not None:
        return PlateStatus(plate=plate, state=settled)
    if watch.job.marker is not None:
        return PlateStatus(plate=plate, state="ready" if _has_marker(watch, plate) else "waiting")
    since = _unchanged_since(watch, plate, now)
    if now - since >= watch.job.quiet_s:
        return PlateStatus(plate=plate, state="ready")
    return PlateStatus(plate=plate, state="waiting", due=since + watch.job.quiet_s)


def _has_marker(watch: Watch, plate: str) -> bool:
    marker = watch.job.marker or ""
    beside = marker.replace("{plate}", plate)
    return watch.place.exists(beside if beside != marker else f"{plate}/{marker}")


def _unchanged_since(watch: Watch, plate: str, now: float) -> float:
    """Time at which the current listing was first seen; stored beside the data, so that a restart does not reset it."""
    current = signature(watch, plate)
    seen: dict[str, Any] = json.loads(watch.plate(plate).read_bytes_or_none("seen.json") or b"{}")
    if seen.get("signature") == current:
        return float(seen["since"])
    watch.plate(plate).write_bytes("seen.json", json.dumps({"signature": current, "since": now}).encode())
    return now


def tick(
    watch: Watch,
    process: Callable[[str], Outcome],
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Outcome]:
    """Check a place once: process the plates that are ready, one after the other, and yield their outcomes.

    Plates whose quiet period ends soon are waited for; each plate is tried at most once.
    """
    tried: set[str] = set()
    now = clock()
    deadline = now + watch.job.quiet_s
    while True:
        statuses = look(watch, now)
        ready = [plate.plate for plate in statuses if plate.state == "ready" and plate.plate not in tried]
        for plate in ready:
            tried.add(plate)
            yield process(plate)
        due = [plate.due for plate in statuses if plate.due is not None and plate.due <= deadline]
        if not ready and not due:
            return
        if not ready:
            sleep(max(min(due) - clock(), 0.0))
        now = clock()


def changed(watch: Watch, outcome: Outcome) -> Outcome:
    """Return the outcome, or ``changed`` if the plate changed during the run and has to be processed again."""
    if signature(watch, outcome.plate) == outcome.signature:
        return outcome
    problem = "the plate changed while it was processed; it is done again when it is complete"
    return replace(outcome, status="changed", attempts=0, problems=[*outcome.problems, problem])
