"""The plan of a segmentation: the images, their tiles and channels, and the name of the run."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from flows.execution.segmenters import (
    SegmenterRef,
    expected_channels,
    full_traits,
    known_traits,
    other_precisions,
    reference,
)
from flows.jobs import SegmentJob, as_table
from flows.segmentation.image_job import ImageJob
from flows.segmentation.stages.scaling import at_level, factor_of, least_area, scale_notes
from pipeline.errors import BadArgument, BadStore
from pipeline.normalise import Normalise, normalised
from pipeline.resample import Rescaling
from pipeline.segment import Traits
from pipeline.stains import choose_channels
from pipeline.stitch import Filters
from pipeline.store.ledger import Ledger, fingerprint, safe_name
from pipeline.store.ome.collection import Collection, Image, channel_index, open_collection
from pipeline.store.ome.label_images.reading import layer_names
from pipeline.store.ome.selection import select_images
from pipeline.store.places.address import Address, address
from pipeline.tiling import round_up

GROUP_TILES = 64
"""Least number of tiles in a group of small images: enough to keep workers busy between the stages."""

FIELDS_PER_TILE = 16
"""When groups are formed, so many tiles of fields weigh as much as one tile of a large image."""

PROBE_PX = 256
"""Side in px of the crop with which a plain function is probed for the kind of its answer."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is decided before the first pixel is segmented."""

    job: SegmentJob
    source: Collection
    output: Address
    name: str
    segmenter: SegmenterRef
    traits: Traits
    normalise: Normalise
    filters: Filters
    ledger: Ledger
    works: tuple[ImageJob, ...]
    """One per image that can be segmented."""
    refused: dict[str, str]
    """Why the job does not apply to an image (it lacks a channel), by path."""

    @cached_property
    def label_fingerprint(self) -> str:
        """Fingerprint that labels carry: a hash of the work they come from, the same for every tiling and machine."""
        facts = {
            "name": self.name,
            "segmenter": [self.traits.name, self.traits.digest],
            "channel": self.job.channel,
        }
        facts |= _projection(self.job) | _scale(self.job)
        return fingerprint(facts | {"normalise": as_table(self.normalise), "filters": as_table(self.filters)})

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that are segmented; of images that name them differently, all names."""
        names = (work.image.channels[index] for work in self.works for index in work.channels)
        return tuple(dict.fromkeys(names))

    @property
    def notes(self) -> list[str]:
        """Notes for the user on the scale of the images."""
        return scale_notes(
            tuple(work.image for work in self.works), tuple(work.factor for work in self.works), self.traits
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the channels whose intensities are measured."""
        return tuple(dict.fromkeys(name for work in self.works for name in work.measured_names))

    @property
    def in_place(self) -> bool:
        """Whether results are written into the source."""
        return self.job.output is None

    @property
    def shares_limits(self) -> bool:
        """Whether several images share their normalisation limits."""
        return self.normalise.scope != "image" and self.normalise.kind != "none"

    @property
    def is_remote(self) -> bool:
        """Whether images or results are on a server."""
        return not (self.source.address.is_local and self.output.is_local)

    def groups(self, *, least_tiles: int = GROUP_TILES) -> Iterator[list[ImageJob]]:
        """Groups of images that go through the stages together; a well is never split."""
        if self.normalise.scope == "plate" and self.normalise.kind != "none":
            yield list(self.works)
            return
        group: list[ImageJob] = []
        weight = 0.0
        for unit in _units(self.works):
            group += unit
            weight += sum(map(_weight, unit))
            if weight >= least_tiles:
                yield group
                group, weight = [], 0.0
        if group:
            yield group


def _weight(work: ImageJob) -> float:
    """Weight of an image in tiles when groups are formed; fields count less, because their stages need no barrier."""
    return work.tile_count / FIELDS_PER_TILE if work.is_field else work.tile_count


def _units(works: Iterable[ImageJob]) -> Iterator[list[ImageJob]]:
    """The images of each well together, every other image alone."""
    well: list[ImageJob] = []
    for work in works:
        if well and (work.image.well is None or work.image.well != well[-1].image.well):
            yield well
            well = []
        well.append(work)
    if well:
        yield well


def make_plan(job: SegmentJob) -> Plan:
    """Open the source and the segmenter once, and decide everything that the result depends on."""
    source = open_source(job)
    output = _output(job, source)
    segmenter = reference(job)
    expected = expected_channels(segmenter)
    channels, refused = _channels(job, source.images, expected)
    first = next((image for image in source.images if image.path in channels), None)
    if first is None:
        raise BadArgument(next(iter(refused.values())))
    traits = full_traits(segmenter, _probe(first, channels[first.path]))
    _check_channels(traits, channels[first.path])
    normalise = job.normalise.filled(traits.normalise)
    factors = {image.path: factor_of(image, job, traits) for image in source.images if image.path in channels}
    filters = replace(job.filters, min_area=_min_area(job, traits, factors[first.path]))
    halo = _halo(job, traits)
    name = layer_names(job.name or _name(traits), 1)[0]
    digests = source.digests()

    def ledger_of(traits: Traits) -> Ledger:
        facts = _facts(job, source, name, traits, normalise, filters, halo, digests, expected)
        return Ledger(output, fingerprint(facts))

    segmenter, traits = _as_begun(segmenter, traits, ledger_of)
    ledger = ledger_of(traits)
    works = tuple(
        ImageJob(
            ledger=ledger, image=image, key=work_key(image.path, digests[image.path]),
            segmenter=segmenter, traits=traits, channels=channels[image.path], measured=_measured(job, image),
            core=round_up(job.tiling.core, traits.stride),
            halo=round_up(_image_halo(job, halo, factors[image.path]), traits.stride), factor=factors[image.path],
        )
        for image in source.images if image.path in channels
    )  # fmt: skip
    return Plan(
        job=job, source=source, output=output, name=name, segmenter=segmenter, traits=traits, normalise=normalise,
        filters=filters, ledger=ledger, works=works, refused=refused,
    )  # fmt: skip


def _as_begun(
    segmenter: SegmenterRef, traits: Traits, ledger_of: Callable[[Traits], Ledger]
) -> tuple[SegmenterRef, Traits]:
    """The segmenter with its digest; in another arithmetic if only a run in that one was begun in this output.

    So a run is never continued in an arithmetic that is not its own, and what it finished is not done again.
    """
    chosen = replace(segmenter, digest=traits.digest), traits
    others = list(other_precisions(segmenter))
    if not others or ledger_of(traits).is_begun:
        return chosen
    for other in others:
        known = known_traits(other)
        if known is not None and ledger_of(known).is_begun:
            return replace(other, digest=known.digest), known
    return chosen


def open_source(job: SegmentJob) -> Collection:
    """Open the source of a job; select its images, their pyramid level and, if asked for, their projection."""
    source = open_collection(address(job.source))
    if any(image.is_stand_in for image in source.images):
        raise BadArgument(
            f"{source.address}: expected images, got a store of results without pixels; give its source"
        )
    source = select_images(source, acquisition=job.acquisition, series=job.series, channels=job.channel)
    source = at_level(source, job.level, job.pixel_size_um)
    if job.project == "none":
        return source
    return replace(source, images=tuple(image.projected(job.project) for image in source.images))


def _output(job: SegmentJob, source: Collection) -> Address:
    """The address of the results; one that cannot be written is refused before anything is written."""
    output = address(job.output) if job.output else source.address
    if not output.is_writable_kind:
        raise BadArgument(
            f"{output}: this kind of address cannot be written; name another store with --output"
        )
    if job.output and f"{output.url}/".startswith(f"{source.address.url}/"):
        raise BadArgument(f"--output {output}: expected another place than the source {source.address}")
    return output


def _halo(job: SegmentJob, traits: Traits) -> int:
    halo = traits.halo_px if job.tiling.halo is None else job.tiling.halo
    if traits.link == "match" and halo == 0:
        raise BadArgument(
            f"segmenter {traits.name} numbers its objects, so tiles are joined where they overlap: expected a "
            "tiling.halo > 0, got 0; leave it out, or give the size of an object"
        )
    return halo


def _image_halo(job: SegmentJob, halo: int, factor: float) -> int:
    """The halo in pixels of the image; a halo from the job is given in these already."""
    return halo if factor == 1 or job.tiling.halo is not None else Rescaling(factor, (1, 1)).halo(halo)


def _name(traits: Traits) -> str:
    """Default name of the labels, derived from the name of the segmenter."""
    return re.sub(r"[^a-z0-9_.-]+", "_", traits.name.lower()).lstrip("_.-") or "labels"


def _facts(
    job: SegmentJob, source: Collection, name: str, traits: Traits, normalise: Normalise, filters: Filters,
    halo: int, digests: dict[str, str], expected: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    """Everything that the result depends on except the images, which have keys of their own; so a plate may grow."""
    return (
        {
            "source": str(source.address),
            "name": name,
            "segmenter": [traits.name, traits.digest],
            "channel": job.channel or expected,
            "tiling": as_table(job.tiling) | {"halo": halo},
            "normalise": as_table(normalise),
            "filters": as_table(filters),
            "measure": as_table(job.measure),
            "plate": digests if normalise.scope != "image" and normalise.kind != "none" else None,
        }
        | _projection(job)
        | _scale(job)
    )


def _scale(job: SegmentJob) -> dict[str, Any]:
    """Level and scale as facts of the result; absent at their defaults, so that older runs keep their names."""
    facts = {"level": job.level or None, "pixel_size_um": job.pixel_size_um, "scale": job.scale}
    return {name: fact for name, fact in facts.items() if fact is not None}


def _projection(job: SegmentJob) -> dict[str, Any]:
    """The projection as a fact of the result; absent without one, so that older runs keep their names."""
    return {} if job.project == "none" else {"project": job.project}


def _channels(
    job: SegmentJob, images: Iterable[Image], expected: tuple[str, ...]
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Channel indices by image, and why an image has none."""
    chosen_by_path, refused = {}, {}
    for image in images:
        try:
            chosen = tuple(channel_index(image, channel) for channel in job.channel)
            chosen_by_path[image.path] = chosen or _only_channels(image, expected)
            _measured(job, image)
        except BadArgument as error:
            chosen_by_path.pop(image.path, None)
            refused[image.path] = str(error)
    return chosen_by_path, refused


def _only_channels(image: Image, expected: tuple[str, ...]) -> tuple[int, ...]:
    """The channels of an image to segment when the job names none; ambiguity is an error, never a guess."""
    if len(image.channels) == 1:
        return (0,)
    chosen = choose_channels(image.channels, expected)
    if chosen is None:
        names = ", ".join(repr(name) for name in image.channels)
        known = f"the model expects {' and '.join(map(repr, expected))}, which fits none or several of them; "
        raise BadArgument(
            f"{image.place}: expected one channel, or a choice, got {len(image.channels)} channels: {names}; "
            f"{known if expected else ''}name the one to segment with --channel {image.channels[0]!r}"
        )
    return chosen


def _measured(job: SegmentJob, image: Image) -> tuple[int, ...]:
    """Channels of an image whose intensities are measured."""
    chosen = tuple(dict.fromkeys(channel_index(image, channel) for channel in job.measure.channels))
    return chosen or tuple(range(len(image.channels)))


def _check_channels(traits: Traits, channels: tuple[int, ...]) -> None:
    if traits.channels is not None and traits.channels != len(channels):
        raise BadArgument(
            f"model {traits.name} expects {traits.channels} channel(s), got {len(channels)}; "
            "name them in the model's order with --channel"
        )


def _min_area(job: SegmentJob, traits: Traits, factor: float) -> int:
    chosen = job.filters.min_area
    return chosen if chosen is not None else least_area(factor, traits)


def _probe(image: Image, channels: tuple[int, ...]) -> np.ndarray:
    """A normalised crop from the middle of an image."""
    height, width = image.shape[-2:]
    y, x = max((height - PROBE_PX) // 2, 0), max((width - PROBE_PX) // 2, 0)
    try:
        crop = image.read(
            image.planes[0], channels, y, min(y + PROBE_PX, height), x, min(x + PROBE_PX, width)
        )
        return normalised(crop, Normalise())
    except BadStore:
        # The image will be set aside by its own stage; zeros suffice to probe the segmenter.
        return np.zeros((len(channels), min(PROBE_PX, height), min(PROBE_PX, width)), np.float32)


def work_key(path: str, digest: str) -> str:
    """Name of an image in the scratch; it changes with the digest of the pixels."""
    return f"{safe_name(path)}-{digest[:8]}"
