"""The record of a run: finished images, seconds per stage, retries, and what was set aside.

It is written beside the results, and reports are made from it. Times of a resumed run are summed over its starts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from flows.execution.segmenters import described
from flows.execution.versions import now, versions
from flows.jobs import as_table
from flows.segmentation.stages.scaling import OTHER_SCALE
from pipeline.focus import flags
from pipeline.store.places.traffic import Traffic, traffic_of

if TYPE_CHECKING:
    from flows.segmentation.image_job import TileJob
    from flows.segmentation.plan import Plan


class Progress(Protocol):
    """Observer of a run; called in the driving process only."""

    def start(self, stage: str, total: int) -> None:
        """A stage with ``total`` units of work begins."""

    def advance(self, stage: str, item: "TileJob | None") -> None:
        """A unit of work ended."""

    def finish(self, stage: str) -> None:
        """The stage ended."""


class Silent:
    """An observer that ignores everything."""

    def start(self, stage: str, total: int) -> None:
        """Do nothing."""

    def advance(self, stage: str, item: "TileJob | None") -> None:
        """Do nothing."""

    def finish(self, stage: str) -> None:
        """Do nothing."""


silent = Silent()


READING = frozenset({"check", "limits"})
"""Stages in which workers read pixels and do little else."""


@dataclass
class RunRecord:
    """Facts of a run, JSON-ready."""

    run: str
    output: str
    name: str
    segmenter: str
    job: dict[str, Any]
    versions: dict[str, str] = field(default_factory=versions)
    started: str = ""
    """When the run was first started, ISO 8601 in UTC."""
    ended: str = ""
    """When it last ended."""
    model: dict[str, Any] = field(default_factory=dict)
    """Name, digest and thresholds of the segmenter; a model's arithmetic, and why it was taken."""
    normalise: dict[str, Any] = field(default_factory=dict)
    """How intensities were normalised, as settled from the job and the model's card."""
    filters: dict[str, Any] = field(default_factory=dict)
    """Filters of the objects, as settled from the job and the model's card."""
    origin: str = ""
    """Fingerprint that the labels of this run carry."""
    z_planes: int = 1
    """Largest number of z planes of an image; each plane is segmented separately."""
    tiling: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Notes on resampled images and on pixel sizes far from those of the model."""
    channels: list[str] = field(default_factory=list)
    """Names of the channels that were segmented."""
    measured: list[str] = field(default_factory=list)
    """Names of the channels whose intensities were measured."""
    status: str = "running"
    """running, complete, partial (images were set aside), or unchanged (nothing was left to do)."""
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    network_s: dict[str, float] = field(default_factory=dict)
    """Seconds of the stage predict spent reading, in the network and writing, summed over workers."""
    time_s: dict[str, float] = field(default_factory=dict)
    """Seconds of all workers by what they did: read, network, after (it), waiting."""
    traffic: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Requests to servers by stage (`Traffic`), of this process and of all workers; empty for local files."""
    failures: list[dict[str, str]] = field(default_factory=list)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)
    """Images that are out of focus or saturated in some channel, and which (`pipeline.focus.flags`)."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Images that the job does not apply to (they lack its channel), with the reason; these are no failures."""
    missing: list[str] = field(default_factory=list)
    """Wells and fields that the plate lists but that cannot be read."""

    @classmethod
    def begin(cls, plan: "Plan") -> "RunRecord":
        """Start the record of a plan; results of earlier starts of the same run are kept, their failures dropped."""
        record = cls(
            run=plan.ledger.run, output=str(plan.output), name=plan.name, segmenter=plan.traits.name,
            job=as_table(plan.job), missing=list(plan.source.missing), notes=list(plan.notes),
            channels=list(plan.channels), measured=list(plan.measured), model=described(plan.segmenter, plan.traits),
            normalise=as_table(plan.normalise), filters=as_table(plan.filters), origin=plan.label_fingerprint,
        )  # fmt: skip
        before = plan.ledger.find_json("record.json") or {}
        for name in ("stages", "retries", "network_s", "time_s", "traffic", "images", "flags"):
            setattr(record, name, before.get(name, {}))
        record.started = before.get("started") or now()
        if plan.works:
            record.z_planes = max(len({z for _, z in work.image.planes}) for work in plan.works)
            record.tiling = {name: getattr(plan.works[0], name) for name in ("core", "halo")}
        if plan.job.channel:
            record.left_out = dict(plan.refused)
            return record
        # The job names no channel, so an image whose channel is ambiguous is a failure.
        for path, reason in plan.refused.items():
            record.failure(image=path, stage="plan", where=path or "image", reason=reason)
        return record

    @property
    def objects(self) -> int:
        """Objects found over all images."""
        return sum(int(facts["objects"]) for facts in self.images.values())

    @property
    def sizes_note(self) -> str:
        """Note on objects much smaller or larger than those the model was trained on; empty if there are none."""
        known = self.model.get("diameters_px")
        sizes = [float(f["diameter_px"]) for f in self.images.values() if f.get("diameter_px")]
        if not known or not sizes:
            return ""
        typical = median(sizes)
        if known[0] / OTHER_SCALE <= typical <= known[-1] * OTHER_SCALE:
            return ""
        return (
            f"objects are {typical:.0f} px across (median), {self.model['name']} was trained on {known[0]:.0f} to "
            f"{known[-1]:.0f} px: --scale {known[1] / typical:.2g} resamples the images, if these are its objects"
        )

    @property
    def empty(self) -> list[str]:
        """Paths of the images in which only noise was found."""
        return [path for path, facts in self.images.items() if facts.get("empty")]

    def spent(self, stage: str, seconds: float, px: int, pieces: int) -> None:
        """Add the time of a stage."""
        total = self.stages.setdefault(stage, {"seconds": 0.0, "px": 0, "pieces": 0})
        total["seconds"] = round(total["seconds"] + seconds, 4)
        total["px"] += px
        total["pieces"] += pieces

    def network(self, seconds: Mapping[str, float]) -> None:
        """Add what a tile spent reading, in the network and writing."""
        for name, value in seconds.items():
            self.network_s[name] = round(self.network_s.get(name, 0.0) + value, 4)
        read, network = (seconds.get(name, 0.0) for name in ("read_s", "network_s"))
        self._add_time(read=read, network=network, after=-read - network)

    def worked(self, stage: str, busy_s: float, *, of_s: float) -> None:
        """Add what workers did in a stage: seconds of work, of the seconds in which they could have worked.

        What a stage of the network took beside reading and the network (`network`) counts as after it.
        """
        part = "read" if stage in READING else "after"
        self._add_time(**{part: busy_s}, waiting=max(of_s - busy_s, 0.0))

    def _add_time(self, **seconds: float) -> None:
        for part, value in seconds.items():
            self.time_s[part] = round(self.time_s.get(part, 0.0) + value, 4)

    def retried(self, stage: str, times: int) -> None:
        """Count retries."""
        if times:
            self.retries[stage] = self.retries.get(stage, 0) + times

    def moved(self, stage: str, traffic: Traffic) -> None:
        """Add requests to servers."""
        if traffic:
            before = self.traffic.get(stage)
            self.traffic[stage] = asdict(traffic_of(before) + traffic if before else traffic)

    @property
    def requests(self) -> Traffic:
        """Requests to servers over all stages."""
        return sum((traffic_of(facts) for facts in self.traffic.values()), Traffic())

    def failure(self, *, image: str, stage: str, where: str, reason: str) -> None:
        """Add a unit of work that failed after all retries."""
        self.failures.append({"image": image, "stage": stage, "where": where, "reason": reason})

    def image(self, facts: dict[str, Any]) -> None:
        """Add a finished image."""
        self.images[facts["image"]] = facts

    def write(self, plan: "Plan") -> None:
        """Write the current state of the record."""
        plan.ledger.write_json("record.json", {f.name: getattr(self, f.name) for f in fields(self)})

    def finish(self, plan: "Plan") -> None:
        """Close the record and write it."""
        self.status = "partial" if self.failures or self.missing else "complete"
        focus, saturated = (
            {path: facts.get(key, {}) for path, facts in self.images.items()}
            for key in ("focus", "saturated")
        )
        self.flags = flags(focus, saturated)
        self.ended = now()
        self.write(plan)

    def finished_before(self, plan: "Plan") -> "RunRecord":
        """Close the record of a run in which every image was finished before."""
        self.status = "partial" if self.failures or self.missing else "unchanged"
        return self
