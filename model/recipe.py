"""A recipe: every setting of a training run except its samples. Read from and written to TOML or JSON.

A recipe is a frozen value of plain numbers, so that it fits into a job file and a card.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from model.kinds import made, method_from
from model.method import Method, Phase
from model.precision import PRECISIONS, Precision
from model.samples.augment import Augment

FOLDER = Path(__file__).parent / "recipes"
OPTIMISERS = ("adamw", "adam", "sgd", "rmsprop")


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """The optimiser and its constants; the learning rate belongs to the phase."""

    kind: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    """AdamW, Adam, stochastic gradient descent, or RMSprop."""
    weight_decay: float = 0.0
    """Weight decay; decoupled for AdamW, added to the gradient for Adam and SGD. RMSprop has none."""
    clip_norm: float = 0.0
    """Gradients are clipped to this norm; 0 switches it off."""
    rho: float = 0.9
    """Smoothing of RMSprop."""
    epsilon: float = 1e-7
    """Constant in the denominator of all but SGD."""
    amsgrad: bool = False
    """Whether Adam divides by the largest second moment so far (AMSGrad)."""
    momentum: float = 0.9
    """Momentum of SGD."""

    def __post_init__(self) -> None:
        if self.kind not in OPTIMISERS:
            raise ValueError(f"optimiser: expected one of {OPTIMISERS}, got {self.kind!r}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run: method, phases, augmentation, optimiser."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"arbitrary_types_allowed": True}
    """For programs that check the types of the fields with pydantic: ``method`` is any subclass of `Method`."""

    method: Method
    """The method with its network and settings."""
    phases: tuple[Phase, ...]
    """Trained one after the other."""
    augment: Augment = field(default_factory=Augment)
    """Augmentation of the samples."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    """Optimiser of the weights."""
    batch: int = 8
    """Crops per step, over all devices."""
    crop_px: int = 256
    """Edge of a crop; a multiple of the total stride."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is validated and saved; 0 switches it off."""
    precision: Precision = "float32"
    """Arithmetic of the forward pass; losses are always float32."""
    validate_every: int = 250
    """Steps between two validations."""
    validate_from: int = 0
    """First step of a phase from which a model may become its best."""
    seed: int = 0
    """Decides initial weights and every crop."""

    def __post_init__(self) -> None:
        stride = self.method.stride
        if not self.phases or self.batch < 1 or self.validate_every < 1:
            raise ValueError(
                "recipe: expected at least one phase, batch and validate_every of 1 or more, "
                f"got {len(self.phases)} phases, {self.batch!r}, {self.validate_every!r}"
            )
        if self.crop_px < stride or self.crop_px % stride:
            raise ValueError(f"recipe crop_px: expected a multiple of {stride}, got {self.crop_px!r}")
        for phase in self.phases:
            unknown = sorted(set(phase.weights) - set(self.method.terms))
            if unknown:
                raise ValueError(
                    f"phase {phase.name!r}: expected loss terms among {self.method.terms}, got {unknown}"
                )
        if not 0 <= self.ema < 1:
            raise ValueError(f"recipe ema: expected a decay of 0 to less than 1, got {self.ema!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"recipe precision: expected one of {PRECISIONS}, got {self.precision!r}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values from which ``recipe_from`` makes the same recipe."""
        values = {name: getattr(self, name) for name in _PLAIN}
        return values | {
            "method": self.method.as_dict(),
            "phases": [phase.as_dict() for phase in self.phases],
            "augment": asdict(self.augment),
            "optimiser": asdict(self.optimiser),
        }


_PLAIN = ("batch", "crop_px", "ema", "precision", "validate_every", "validate_from", "seed")


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Make a recipe from plain values, as they stand in TOML; unknown names are refused.

    Raises:
        ValueError: a name that no field has, or a value a field refuses.
    """
    values = dict(values)
    augment = {
        name: (tuple(value) or None) if isinstance(value, list) else value
        for name, value in values.pop("augment", {}).items()
    }
    return made(
        Recipe,
        values
        | {
            "method": method_from(values.pop("method", {})),
            "phases": tuple(made(Phase, phase, "phases") for phase in values.pop("phases", [])),
            "augment": made(Augment, augment, "augment"),
            "optimiser": made(Optimiser, values.pop("optimiser", {}), "optimiser"),
        },
        "recipe",
    )


def read_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by the name of a shipped one (``paper``, ``house``, ...) or the path of a TOML file."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        shipped = sorted(entry.stem for entry in FOLDER.glob("*.toml"))
        raise ValueError(f"recipe: expected a TOML file or one of {shipped}, got {str(name_or_path)!r}")
    with path.open("rb") as file:
        return recipe_from(tomllib.load(file))
