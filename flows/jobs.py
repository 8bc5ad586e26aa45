"""Jobs: the single description of work.

The same frozen value is read from a TOML file or the command line, is the parameter of a Prefect flow and the argument
in Python, and is saved beside the results. So every option is defined once; a job never contains a secret.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as value

from pipeline.errors import BadArgument
from pipeline.normalise import Normalise
from pipeline.stitch import Filters
from pipeline.store.places.address import address
from pipeline.tiling import Tiling

DEFAULT_MODEL = "nuclei"
"""The model of a job that names none."""

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)


@value(frozen=True, kw_only=True, config=STRICT)
class Execution:
    """Where and how the work runs; none of these settings changes the result."""

    executor: str = "serial"
    """serial, threads, dask (a cluster on this machine), or tcp://host:8786 / tls://host:8786 (an existing one)."""
    workers: Annotated[int | None, Field(ge=1)] = None
    """Worker processes or threads of a local executor; default: the cores this process may use."""
    device: Literal["auto", "cpu", "cuda", "openvino"] = "auto"
    """cuda: a GPU or an error, never a silent CPU run; auto: a GPU where there is one; openvino: a CPU, by way of
    the optional package."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a tile that failed is tried again before its image is set aside."""
    window: Annotated[int, Field(ge=1)] = 8
    """Tiles in flight per worker."""


@value(frozen=True, kw_only=True, config=STRICT)
class Measure:
    """Measurements of every object besides its position and shape."""

    channels: tuple[str | int, ...] = ()
    """Channels, by name or index, whose intensities are measured; default: all."""


@value(frozen=True, kw_only=True, config=STRICT)
class SegmentJob:
    """Segment an image, a plate or an archive of them."""

    source: Annotated[str, Field(min_length=1)]
    """OME-Zarr image or plate, path or URL."""
    output: str | None = None
    """Another store to write to; default: labels and tables land in the source."""
    name: str | None = None
    """Name of the labels and of the table; default: the model's name."""
    model: str | None = None
    """Shipped model, or path or URL of a checkpoint; default: nuclei."""
    segmenter: str | None = None
    """Instead of a model: threshold; the network of another package, as cellpose:cpsam, stardist:2D_versatile_fluo,
    instanseg:fluorescence_nuclei_and_cells or bioimageio:ID (name or path of weights); or module:function."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of a model's convolutions: float32, bfloat16, float16 (results differ a little), or auto: what the
    model's card chose where the device has instructions for it, else float32; a run that was begun keeps its own."""
    method: dict[str, float | int] = Field(default_factory=dict)
    """Thresholds, diameter and least area that are not the model's, such as method.foreground_threshold or, for
    Cellpose, method.diameter; the run is another."""
    channel: tuple[str | int, ...] = ()
    """Channels by name or index, in the order the model expects; default: the only one, or the one that the model's
    card names. Where that is not clear the job is refused."""
    acquisition: str | int | None = None
    """Acquisition of a plate, by id or name, or all; needed where several of them have the channels."""
    series: str | int | None = None
    """Series of a converted file (slide, label picture), by number or name, or all; needed where they differ."""
    project: Literal["none", "max"] = "none"
    """max: segment the maximum over all z planes, and write labels without z; none: every z plane by itself."""
    level: Annotated[int | None, Field(ge=0)] = None
    """Level of the image pyramid to segment, 0 is the finest; labels have that level's grid and pixel size."""
    pixel_size_um: Annotated[float | None, Field(gt=0)] = None
    """Segment on the coarsest level with pixels no larger than this, resampled to it for the segmenter."""
    scale: Annotated[float, Field(gt=0)] | Literal["auto"] | None = None
    """Resample images for the segmenter: by a factor (0.5 halves their size), or auto, to the pixel size of the model;
    labels keep the grid of the image."""
    absent_chunks: Literal["check", "zeros"] = "check"
    """zeros: chunks that are not in the store are zeros, whatever the pyramid shows; check: lost ones are an error."""
    tiling: Tiling = Tiling()
    """How images are cut."""
    normalise: Normalise = Normalise()
    """How intensities are normalised."""
    filters: Filters = Filters()
    """Which objects are kept."""
    measure: Measure = Measure()
    """What is measured."""
    overwrite: bool = False
    """Replace labels of that name, when the new ones are complete."""
    copy_images: bool = False
    """With output: copy the pixels too."""
    execution: Execution = Execution()
    """Where the work runs."""

    def __post_init__(self) -> None:
        """Check the relations between the fields."""
        if self.model and self.segmenter:
            raise BadArgument(
                f"expected a model or a segmenter, got both: {self.model!r} and {self.segmenter!r}"
            )
        sizes = {"level": self.level, "pixel_size_um": self.pixel_size_um, "scale": self.scale}
        given = [name for name, size in sizes.items() if size is not None]
        if self.pixel_size_um is not None and len(given) > 1:
            raise BadArgument(
                f"expected pixel_size_um alone, got {' and '.join(given)}; leave the others out"
            )
        if self.copy_images and (self.level or self.pixel_size_um is not None):
            raise BadArgument("copy_images copies all levels; leave it out with level and pixel_size_um")
        if self.copy_images and not self.output:
            raise BadArgument("copy_images needs an output to copy to; add --output")


@value(frozen=True, kw_only=True, config=STRICT)
class Source:
    """Facts on the training data for the card of a model."""

    title: str = ""
    """Name of the dataset."""
    citation: str = ""
    """What to cite."""
    licence: str = ""
    """Licence of the data, and of the weights made from them."""


@value(frozen=True, kw_only=True, config=STRICT)
class TrainJob:
    """Train a model from ingested images and their true label stacks."""

    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Stores with images and truth to learn from."""
    validation: tuple[str, ...] = ()
    """Stores to choose the best model by; default: a tenth of the wells (or images) of data, never a part of one."""
    folder: Annotated[str, Field(min_length=1)]
    """Where checkpoints, curves and the state to resume from go."""
    name: str = "model"
    """Name of the model."""
    recipe: str = "house"
    """Shipped recipe (house, house-knots, house-long, house-small, house-gpu, robust, robust-small, paper; for other
    methods their name, see platelayer models --kinds, or unet3-robust), or path of a TOML file."""
    initial: str = ""
    """Model to start from, a shipped one by name or a folder or URL; it brings its network. Empty: random weights."""
    change: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe to change, such as change.batch or change.method.layers."""
    truth: str = "truth"
    """Name of the true labels."""
    channel: tuple[str | int, ...] = ()
    """Channels by name or index; default: all."""
    project: Literal["none", "max"] = "none"
    """max: learn from the maximum over all z planes, which flat truth beside a z stack belongs to; none: from every
    plane with its truth."""
    normalise: Normalise = Normalise()
    """How intensities are normalised; kept in the card, so that segmenting does the same."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cuda: a GPU or an error."""
    source: Source = Source()
    """What the card says of the data."""


Job = TypeVar("Job")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a job file from a path or a URL."""
    data = address(str(path)).read_bytes_or_none()
    if data is None:
        raise BadArgument(f"{path}: no such job file; the command's --example prints one")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadArgument(f"{path}: not valid TOML ({error})") from None


def with_settings(table: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply ``key.subkey=value`` settings; values are TOML, anything else is a string."""
    result = {key: dict(v) if isinstance(v, Mapping) else v for key, v in table.items()}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise BadArgument(f"--set: expected key=value such as tiling.core=2048, got {setting!r}")
        *parents, leaf = key.strip().split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise BadArgument(f"--set {setting}: {parent!r} is a single value, not a table")
        place[leaf] = _parsed(text.strip())
    return result


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def job(kind: type[Job], table: Mapping[str, Any]) -> Job:
    """Build a job from plain values; unknown keys are named with the nearest known one."""
    _check_keys(kind, table, "")
    try:
        return TypeAdapter(kind).validate_python(dict(table))
    except ValidationError as error:
        missing = [e["loc"] for e in error.errors() if e["type"] == "missing"]
        if missing:
            raise BadArgument(" ".join(_missing(kind, loc) for loc in missing)) from None
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or kind.__name__
        message = first["msg"].removeprefix("Value error, ")
        raise BadArgument(f"{place}: {message}, got {first.get('input')!r}") from None


def _missing(kind: Any, location: tuple[int | str, ...]) -> str:
    """Message about a required key that is missing."""
    *parents, key = (str(part) for part in location)
    for parent in parents:
        hint = get_type_hints(kind)[parent]
        kind = next(t for t in (hint, *get_args(hint)) if is_dataclass(t))
    about = field_comments(kind).get(key, "").split("\n")[0].rstrip(".")
    return f"{'.'.join((*parents, key))}: the job needs this key and has none ({about})."


def _check_keys(kind: Any, table: Mapping[str, Any], prefix: str) -> None:
    known = get_type_hints(kind)
    for key, entry in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise BadArgument(f"{prefix}{key}: no such key; {hint}")
        inner = next((t for t in (known[key], *get_args(known[key])) if is_dataclass(t)), None)
        if inner is not None and isinstance(entry, Mapping):
            _check_keys(inner, entry, f"{prefix}{key}.")


def as_table(job: Any) -> dict[str, Any]:
    """A job as plain values, ready for JSON, including defaults."""
    return TypeAdapter(type(job)).dump_python(job, mode="json")


def example(kind: type) -> str:
    """A commented TOML file with every key at its default."""
    return "\n".join(_example_lines(kind, ())) + "\n"


def _example_lines(kind: type, path: tuple[str, ...]) -> Iterable[str]:
    inner = []
    comments = field_comments(kind)
    hints = get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            inner.append(field)
            continue
        default = _default(field)
        yield from (f"# {line}" for line in comments.get(field.name, "").splitlines())
        if field.default is MISSING and field.default_factory is MISSING:
            yield "# Required."
        yield f"{field.name} = {_toml(default)}" if default is not None else f"# {field.name} ="
    for field in inner:
        yield ""
        yield from (f"# {line}" for line in comments.get(field.name, "").splitlines())
        yield f"[{'.'.join((*path, field.name))}]"
        yield from _example_lines(hints[field.name], (*path, field.name))


def _default(field: Any) -> Any:
    return field.default if isinstance(field.default, bool | int | float | str | tuple) else None


def _toml(entry: Any) -> str:
    if isinstance(entry, bool):
        return str(entry).lower()
    if isinstance(entry, tuple | list):
        return "[" + ", ".join(_toml(e) for e in entry) + "]"
    return f'"{entry}"' if isinstance(entry, str) else str(entry)


def field_comments(kind: type) -> dict[str, str]:
    """The docstrings below the fields of a value, from which all documentation of options is made."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    nodes = body.body if isinstance(body, ast.ClassDef) else []
    return {
        a.target.id: inspect.cleandoc(b.value.value)
        for a, b in zip(nodes, nodes[1:])
        if isinstance(a, ast.AnnAssign)
        and isinstance(a.target, ast.Name)
        and isinstance(b, ast.Expr)
        and isinstance(b.value, ast.Constant)
        and isinstance(b.value.value, str)
    }


@value(frozen=True, kw_only=True, config=STRICT)
class WatchJob:
    """Segment every plate that appears at a place, once it is complete."""

    place: Annotated[str, Field(min_length=1)]
    """Folder or URL where plates appear."""
    job: SegmentJob
    """What is done with a plate: its source is replaced by the plate; its output is a root for all of them."""
    match: str = "*.zarr"
    """Which stores are plates: a pattern of paths below the place."""
    marker: str | None = None
    """File that says a plate is complete, inside it, or beside it as {plate}.done; default: a quiet period."""
    quiet_s: Annotated[float, Field(ge=0)] = 60
    """Without a marker: a plate is complete when its listing did not change for so long."""
    truth: str = "truth"
    """Name of true labels; where a plate has them, the result is evaluated."""
    drift: Annotated[float, Field(gt=0)] = 0.3
    """A plate that differs so much (relative) from the median of earlier ones is reported."""
    attempts: Annotated[int, Field(ge=1)] = 3
    """How often a plate that fails is tried before it is given up, until it changes."""
    recheck: bool = False
    """Look at finished plates too, and do those again that changed since: one more listing per plate and look."""
