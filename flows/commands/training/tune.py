"""`platelayer tune`: thresholds and least area of a model, chosen on images with truth."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from model.precision import in_words
from pipeline.errors import BadArgument


def tune(
    model: Annotated[str, Parameter(help="Shipped model, or path or URL of a checkpoint.")],
    data: Annotated[list[str], Parameter(help="Stores with images and truth, not those it is judged on.")],
    *,
    folder: Annotated[str, Parameter(help="New folder for the model with the chosen settings.")],
    truth: Annotated[str, Parameter(help="Name of the true labels.")] = "truth",
    channel: Annotated[list[str] | None, Parameter(help="Channels by name; default: all.")] = None,
    folds: Annotated[int, Parameter(help="Parts of the wells (or images) for cross-validation.")] = 5,
    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="cuda: a GPU or an error.")] = "auto",
) -> int:
    """Choose thresholds and the least area of a model by cross-validation, and write it with a new card."""
    from flows.training.tune import tune as run

    try:
        tuned = run(
            model, data, folder, truth=truth, channel=tuple(channel or ()), folds=folds, device=device
        )
    except ValueError as error:
        raise BadArgument(str(error)) from None
    chosen = ", ".join(f"{name} {value}" for name, value in tuned.settings.items())
    sys.stdout.write(
        f"{tuned.groups} wells or images: meanAP {tuned.before:.4f} as it was, {tuned.after:.4f} cross-validated\n"
        f"{in_words(tuned.precision)}\n{chosen} -> {tuned.folder}\n"
    )
    return 0
