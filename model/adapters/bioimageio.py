"""Models of the BioImage Model Zoo (bioimage.io), by identifier, address, package or ``rdf.yaml``.

The description of a model says how its input is normalised, which sizes it takes and how far its borders are wrong;
all of it is followed. Its output has to be objects: an integer image of numbers, or probabilities of the foreground,
from which a channel named after borders is subtracted.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.adapters.adapter import Adapter, Settings, chosen, optional, padded
from model.devices import choose_device
from model.errors import BadCheckpoint

SETTINGS = {"foreground_threshold": 0.5}
"""Probability from which a pixel belongs to an object, where a model answers with probabilities."""

UNKNOWN_REACH_PX = 64
"""Margin of a tile where a description does not say how far the borders of a block are wrong."""

_BORDER = re.compile(r"bound|border|contour|edge|membrane|affinit", re.IGNORECASE)

Step = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an adapter needs of a model description."""

    name: str
    axes: tuple[str, ...]
    """Axes of the input tensor."""
    channels: int
    """Channels of the input."""
    least: int
    """Smallest size of a block in px."""
    stride: int
    """Sizes of blocks are the smallest one plus multiples of this."""
    halo: int
    """Pixels along the border of a block that are wrong."""
    normalise: dict[str, Any]
    """Statistics of the whole image, which the pipeline computes."""
    before: tuple[Step, ...]
    """Pointwise steps between normalisation and network."""
    after: tuple[Step, ...]
    """Pointwise steps on the output."""
    output_axes: tuple[str, ...]
    names: tuple[str, ...]
    """Names of the channels of the output."""
    pixel_size_um: float | None


def load(name: str, *, device: str, settings: Settings) -> Adapter:
    """Load a model by its identifier (``affable-shark``), address, or path of a package or ``rdf.yaml``."""
    core = optional("bioimageio.core", extra="bioimageio")
    backends = optional("bioimageio.core.backends", extra="bioimageio")
    given = chosen(SETTINGS, settings, name="bioimageio")
    model = _described(core, name)
    facts = describe(model)
    network = _network(backends, model, str(choose_device(device)), name)
    objects = _answers_with_objects(model)

    def answer(block: np.ndarray) -> np.ndarray:
        output = _output(core, network, model, facts, block)
        return output.astype(np.int64) if objects else _foreground(output, facts, given)

    return Adapter(
        name=f"bioimageio-{facts.name}",
        digest=_digest(model, given),
        answer=answer,
        normalise=facts.normalise,
        halo_px=-(-(facts.halo or UNKNOWN_REACH_PX) // facts.stride) * facts.stride,
        stride=facts.stride,
        channels=facts.channels,
        link="match" if objects else "touch",
        pixel_size_um=facts.pixel_size_um,
    )


def _described(core: Any, name: str) -> Any:
    """Return the description of a model, in the newest form of the specification."""
    try:
        model = core.load_model_description(name, format_version="latest", perform_io_checks=False)
    except Exception as error:  # network, cache, YAML and validation each raise their own kind
        raise BadCheckpoint(
            f"bioimageio:{name}: cannot be loaded ({_in_one_line(error)}); without a network "
            "give the path of a model package (.zip) or of its rdf.yaml"
        ) from None
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise BadCheckpoint(
            f"bioimageio:{name}: expected one input and one output, got {len(model.inputs)} and {len(model.outputs)}"
        )
    return model


def _network(backends: Any, model: Any, device: str, name: str) -> Any:
    try:
        return backends.create_model_adapter(model, devices=[device])
    except Exception as error:  # each framework raises its own kind
        raise BadCheckpoint(
            f"bioimageio:{name}: its weights cannot be loaded ({_in_one_line(error)})"
        ) from None


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.300}"


def describe(model: Any) -> Description:
    """Return what an adapter needs of a description.

    Raises:
        BadCheckpoint: no 2-D model, or steps before or after the network that are not known here.
    """
    source, target = model.inputs[0], model.outputs[0]
    axes = tuple(str(axis.id) for axis in source.axes)
    space = [axis for axis in source.axes if str(axis.id) in "yx"]
    sizes = [_size(axis.size) for axis in space]
    other = [axis for axis in axes if axis not in ("batch", "channel", "y", "x")]
    if len(space) != 2 or other:
        raise BadCheckpoint(f"bioimageio: expected a 2-D model, its input has the axes {', '.join(axes)}")
    normalise, before = _steps_before(source.preprocessing)
    named = [axis for axis in target.axes if str(axis.id) == "channel"]
    return Description(
        name=str(model.id or model.name),
        axes=axes,
        channels=next((len(axis.channel_names) for axis in source.axes if str(axis.id) == "channel"), 1),
        least=max(least for least, _ in sizes),
        stride=max(step for _, step in sizes),
        halo=max((int(getattr(axis, "halo", 0)) for axis in target.axes), default=0),
        normalise=normalise,
        before=before,
        after=tuple(_pointwise(step) for step in target.postprocessing),
        output_axes=tuple(str(axis.id) for axis in target.axes),
        names=tuple(str(channel) for axis in named for channel in axis.channel_names),
        pixel_size_um=_pixel_size(space),
    )


def _size(size: Any) -> tuple[int, int]:
    """Return the smallest size of an axis and the step between sizes; a fixed size is a step of its own."""
    if isinstance(size, int):
        return size, size
    return (int(size.min), int(size.step)) if hasattr(size, "step") else (1, 1)


def _pixel_size(space: Sequence[Any]) -> float | None:
    sizes = {float(axis.scale) for axis in space if axis.unit == "micrometer"}
    return sizes.pop() if len(sizes) == 1 and sizes != {1.0} else None


def _steps_before(steps: Sequence[Any]) -> tuple[dict[str, Any], tuple[Step, ...]]:
    """Return the normalisation that needs the whole image, and the pointwise steps after it."""
    whole: dict[str, Any] = {"kind": "none"}
    pointwise: list[Step] = []
    for step in steps:
        normalisation = _of_whole_image(step)
        if _keeps_values(step):
            continue
        if normalisation is None:
            pointwise.append(_pointwise(step))
        elif whole["kind"] == "none" and not pointwise:
            whole = normalisation
        else:
            raise BadCheckpoint(
                f"bioimageio: {step.id} after other steps is not known here; run the model elsewhere"
            )
    return whole, tuple(pointwise)


def _keeps_values(step: Any) -> bool:
    return step.id == "ensure_dtype" and step.kwargs.dtype.startswith("float")


def _of_whole_image(step: Any) -> dict[str, Any] | None:
    if step.id == "scale_range":
        return {"kind": "percentile", "low": step.kwargs.min_percentile, "high": step.kwargs.max_percentile}
    return {"kind": "meanstd"} if step.id == "zero_mean_unit_variance" else None


def _pointwise(step: Any) -> Step:
    """Return a step of a description as a function of every pixel.

    Raises:
        BadCheckpoint: a step that is not known here.
    """
    kwargs: Any = getattr(step, "kwargs", None)
    if step.id == "ensure_dtype":
        return lambda values: values if _keeps_values(step) else values.astype(step.kwargs.dtype)
    if step.id == "clip" and getattr(kwargs, "min_percentile", None) is getattr(
        kwargs, "max_percentile", None
    ):
        return lambda values: np.clip(values, kwargs.min, kwargs.max)
    if step.id == "sigmoid":
        return lambda values: 1 / (1 + np.exp(-values))
    if step.id == "binarize" and isinstance(getattr(kwargs, "threshold", None), float | int):
        return lambda values: (values > kwargs.threshold).astype(np.float32)
    scalar = step.id == "scale_linear" and not isinstance(kwargs.gain, list | tuple)
    if scalar and not isinstance(kwargs.offset, list | tuple):
        return lambda values: (values * kwargs.gain + kwargs.offset).astype(np.float32)
    raise BadCheckpoint(
        f"bioimageio: the step {step.id} of this model is not known here; for StarDist and Cellpose networks use "
        "stardist:... and cellpose:..., else bring the model's labels by `platelayer import-labels`"
    )


def _output(core: Any, network: Any, model: Any, facts: Description, block: np.ndarray) -> np.ndarray:
    """Return the output ``(C, y, x)`` of a network for a normalised block."""
    height, width = block.shape[1:]
    for step in facts.before:
        block = step(block)
    grown = padded(block, facts.stride, least=facts.least).astype(np.float32)
    present = {"batch": 1, "channel": facts.channels, "y": grown.shape[1], "x": grown.shape[2]}
    order = [axis for axis in ("batch", "channel", "y", "x") if axis in facts.axes]
    tensor = core.Tensor(grown.reshape([present[axis] for axis in order]), dims=tuple(order))
    answers = network.forward({model.inputs[0].id: tensor})
    output = answers[model.outputs[0].id]
    axes = [axis for axis in ("channel", "y", "x") if axis in facts.output_axes]
    kept = output.transpose(("batch", *axes) if "batch" in facts.output_axes else tuple(axes)).to_numpy()
    values: np.ndarray = kept.reshape(-1, *kept.shape[-2:])[:, :height, :width]
    if values.shape[1:] != (height, width):
        raise BadCheckpoint(
            f"bioimageio-{facts.name}: expected an output as large as the input, got {kept.shape}"
        )
    for step in facts.after:
        values = step(values)
    return values


def _answers_with_objects(model: Any) -> bool:
    """Whether the output is an image of numbers, one per object."""
    dtype = str(getattr(model.outputs[0].data, "type", ""))
    return dtype.startswith(("int", "uint"))


def _foreground(output: np.ndarray, facts: Description, settings: Settings) -> np.ndarray:
    """Return one boolean layer: the probability of objects less that of their borders, above the threshold."""
    borders = [index for index, name in enumerate(facts.names) if _BORDER.search(name)]
    inside = next((index for index in range(len(output)) if index not in borders), 0)
    value = output[inside] - sum((output[index] for index in borders), np.zeros_like(output[inside]))
    layer: np.ndarray = value > settings["foreground_threshold"]
    return layer[None]


def _digest(model: Any, settings: Settings) -> str:
    """Return a hash of the description, which holds those of its weights, and of the settings."""
    text = model.model_dump_json() + str(sorted(settings.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
