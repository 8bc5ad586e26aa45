"""Images of other formats (CZI, LIF, ND2, OME-TIFF, ...) through the optional package bioio and its readers.

Every scene of a file is an image. Pixels are read in parts of a plane: those of TIFF files by our own reader, those of
other formats in the pieces that their readers offer, which may be whole planes.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from pipeline.datasets.files.names import read_names
from pipeline.datasets.files.places import Place
from pipeline.datasets.files.scan import Scan, store_paths
from pipeline.datasets.files.source_files import TIFF_SUFFIXES, SourceFile
from pipeline.datasets.files.tiff import STEP, TiffImage, look_into
from pipeline.datasets.files.tiff_metadata import Spacing, micrometres
from pipeline.errors import BadArgument, BadStore

READERS = {
    ".czi": "bioio-czi (GPL-3.0)",
    ".lif": "bioio-lif",
    ".nd2": "bioio-nd2",
    ".tif": "bioio-ome-tiff",
    ".tiff": "bioio-ome-tiff",
    ".oir": "bioio-bioformats",
    ".vsi": "bioio-bioformats",
    ".dv": "bioio-dv",
    ".sldy": "bioio-sldy",
}
"""Package that reads files of a suffix, for messages; bioio finds installed readers automatically."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image of a file; no pixel has been read."""

    file: str
    """Path of the file."""
    index: int
    """Number of the scene in the file."""
    path: str
    """Path in the store; empty for its root."""
    well: tuple[str, str] | None
    """Row and column, where the scenes are named after wells."""
    title: str
    """Name of the scene."""
    channels: tuple[str, ...]
    """Names of the channels."""
    axes: str
    """``cyx``, with t and z before and after c where there are any."""
    shape: tuple[int, ...]
    """Lengths of these axes."""
    dtype: np.dtype
    """Type of the pixels."""
    spacing_um: Spacing | None
    """Size of a pixel (y, x); None where the file does not say."""
    position_um: tuple[float, float] | None = None
    """Stage positions are not read from these formats."""

    def blocks(self) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yield regions and their pixels, both with one entry per axis of ``axes``.

        Parts of a plane are held, not planes, where the file is a TIFF or its reader offers smaller pieces.

        Raises:
            BadStore: pixels that cannot be read.
        """
        with _faults(self.file):
            tiff = self._as_tiff()
            yield from self._from_reader() if tiff is None else self._from_tiff(tiff)

    @property
    def _lengths(self) -> dict[str, int]:
        return dict.fromkeys("tczyx", 1) | dict(zip(self.axes, self.shape, strict=True))

    def _as_tiff(self) -> TiffImage | None:
        """Return the scene as our own TIFF reader sees it, which reads by tiles and strips; None for other formats."""
        if not self.file.lower().endswith(TIFF_SUFFIXES):
            return None
        contents = look_into(
            SourceFile(place=self.file, relative=self.file.replace("\\", "/").rpartition("/")[2])
        )
        alike = [
            image for image in contents.images if image.series == self.index and image.dtype == self.dtype
        ]
        same_size = alike and alike[0].shape == tuple(self._lengths[axis] for axis in "tczyx")
        return alike[0] if same_size else None

    def _from_tiff(self, tiff: TiffImage) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        for region, block in tiff.blocks():
            where = dict(zip("tczyx", region, strict=True))
            yield self._placed(block, where)

    def _from_reader(self) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        image, lengths = _open(self.file, self.index), self._lengths
        samples = "S" in image.dims.order and image.dims.S > 1
        channels = 1 if samples else lengths["c"]
        for t, c, z in product(range(lengths["t"]), range(channels), range(lengths["z"])):
            lazy = image.get_image_dask_data("SYX" if samples else "YX", T=t, C=c, Z=z)
            for rows, columns in product(*(_windows(pieces) for pieces in lazy.chunks[-2:])):
                part = np.asarray(lazy[..., rows, columns].compute(scheduler="synchronous"))
                channel = slice(c, c + (len(part) if samples else 1))
                where = {"t": slice(t, t + 1), "c": channel, "z": slice(z, z + 1), "x": columns}
                for top in range(rows.start, rows.stop, STEP):
                    band = slice(top, min(top + STEP, rows.stop))
                    inside = slice(band.start - rows.start, band.stop - rows.start)
                    yield self._placed(part[..., inside, :], {**where, "y": band})

    def _placed(self, block: np.ndarray, where: Mapping[str, slice]) -> tuple[tuple[slice, ...], np.ndarray]:
        """Return the region of a block along the axes of this scene, and the block with these axes alone."""
        region = tuple(where[axis] for axis in self.axes)
        return region, block.reshape([piece.stop - piece.start for piece in region])


def _windows(pieces: Sequence[int]) -> list[slice]:
    """Cut an axis into windows that begin at multiples of `STEP` and are no smaller than the pieces it is stored in."""
    length = sum(pieces)
    step = -(-max(pieces) // STEP) * STEP
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def read(files: Sequence[SourceFile]) -> Scan[Scene]:
    """Describe the scenes of files; headers are read, pixels are not.

    Scenes become fields of wells where all of their names say wells, else images named after file and scene.

    Raises:
        BadArgument: bioio or the reader of a format is not installed.
        BadStore: a file that cannot be read.
    """
    scenes_of_files: list[tuple[SourceFile, int, str, Any]] = []
    for file in files:
        with _faults(file.place):
            image = _open(file.place, 0)
            names = _scene_names(image)
            scenes_of_files += [(file, index, name, len(names)) for index, name in enumerate(names)]
    named = [
        SourceFile(place=file.place, relative=_scene_name(_base(file) if len(files) > 1 else "", name, count))
        for file, _, name, count in scenes_of_files
    ]
    places, title = _places(named)
    paths = store_paths(places) if len(scenes_of_files) > 1 else [""]
    scenes = tuple(
        _described(file.place, index, name, path, place.well)
        for (file, index, name, _), path, place in zip(scenes_of_files, paths, places, strict=True)
    )
    return Scan(fields=scenes, left_out={}, files=len(files), title=title, notes=())


def _scene_name(base: str, name: str, count: int) -> str:
    return "/".join(part for part in (base, name if count > 1 or not base else "") if part)


def _base(file: SourceFile) -> str:
    name = file.stem.rpartition("/")[2]
    return name.rpartition(".")[0] or name if name == file.name else name


def _places(named: Sequence[SourceFile]) -> tuple[list[Place], str]:
    """Return the places of scenes: in wells where every name says a well of its own, else by their names."""
    try:
        places = list(read_names(named).places.values())
    except BadArgument:
        places = []
    wells = [(place.well, place.field) for place in places if place.well]
    if len(wells) == len(named) == len(set(wells)):
        return places, "as wells and fields, by the names of the scenes"
    return [
        Place(image=item.relative, field=str(n)) for n, item in enumerate(named)
    ], "as images, one per scene"


def _open(path: str, scene: int) -> Any:
    """Open a file at a scene, so that no more than a plane is read at a time where the reader can be asked to."""
    try:
        from bioio import BioImage
        from bioio.plugins import get_plugins
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError as error:
        raise BadArgument(
            f"{path}: other formats than TIFF are read by the package bioio, which is not installed; "
            "pip install 'platelayer[formats]'"
        ) from error
    try:
        reader: Any = BioImage.determine_plugin(path).metadata.get_reader()
    except UnsupportedFileFormatError as error:
        suffix = f".{path.rpartition('.')[2].lower()}"
        if any(path.lower().endswith(extension) for extension in get_plugins(use_cache=True)):
            raise BadStore(f"{path}: the reader of {suffix} cannot read this file; is it whole?") from error
        package = READERS.get(suffix)
        advice = f"install {package}" if package else "see the list of readers of bioio"
        raise BadArgument(f"{path}: no installed reader of bioio reads this file; {advice}") from error
    asked: dict[str, Any] = {}
    if "chunk_dims" in inspect.signature(reader.__init__).parameters:
        asked["chunk_dims"] = ["Y", "X"]
    image = BioImage(path, reader=reader, **asked)
    image.set_scene(scene)
    return image


def _scene_names(image: Any) -> list[str]:
    metadata = _ome(image)
    named = [item.name for item in metadata.images] if metadata else []
    if len(named) == len(image.scenes) == len({name for name in named if name}):
        return named
    return [str(name) for name in image.scenes]


def _ome(image: Any) -> Any:
    """Return the OME metadata; None for readers that have none."""
    try:
        return image.ome_metadata
    except NotImplementedError:
        return None


def _described(path: str, index: int, name: str, store_path: str, well: tuple[str, str] | None) -> Scene:
    with _faults(path):
        image = _open(path, index)
        samples = image.dims.S if "S" in image.dims.order else 1
        if samples > 1 and image.dims.C > 1:
            raise BadArgument(f"{path}: {image.dims.C} channels of {samples} colours each; save them apart")
        lengths = {"t": image.dims.T, "c": max(image.dims.C, samples), "z": image.dims.Z,
                   "y": image.dims.Y, "x": image.dims.X}  # fmt: skip
        axes = "".join(axis for axis in "tczyx" if axis in "cyx" or lengths[axis] > 1)
        return Scene(
            file=path,
            index=index,
            path=store_path,
            well=well,
            title=name,
            channels=_channels(image, lengths["c"]),
            axes=axes,
            shape=tuple(lengths[axis] for axis in axes),
            dtype=np.dtype(image.dtype),
            spacing_um=_spacing(image, index),
        )


def _channels(image: Any, count: int) -> tuple[str, ...]:
    names = tuple(str(name) for name in image.channel_names or ())
    made_up = any(name.startswith("Channel:") for name in names)
    if len(names) == count == len(set(names)) and all(names) and not made_up:
        return names
    if "S" in image.dims.order and count in (3, 4):
        return ("red", "green", "blue", "alpha")[:count]
    return ("image",) if count == 1 else tuple(f"channel{index}" for index in range(count))


def _spacing(image: Any, index: int) -> Spacing | None:
    """Return the pixel size with the unit of the OME metadata, which readers may leave out; else in micrometres."""
    metadata = _ome(image)
    if metadata:
        pixels = metadata.images[index].pixels
        y, x = (
            micrometres(
                getattr(pixels, f"physical_size_{axis}"), _unit(getattr(pixels, f"physical_size_{axis}_unit"))
            )
            for axis in "yx"
        )
    else:
        sizes, units = image.physical_pixel_sizes, image.dimension_properties
        y, x = (micrometres(getattr(sizes, axis), str(getattr(units, axis).unit or "um")) for axis in "YX")
    return (y, x) if y and x else None


def _unit(unit: Any) -> str:
    return str(getattr(unit, "value", unit))


@contextmanager
def _faults(path: str) -> Iterator[None]:
    try:
        yield
    except (BadArgument, BadStore, GeneratorExit, KeyboardInterrupt):
        raise
    except FileNotFoundError as error:
        raise BadStore(f"{path}: there is no such file; check the spelling") from error
    except Exception as error:
        raise BadStore(f"cannot read {path}: {type(error).__name__}: {error}; is the file whole?") from error
