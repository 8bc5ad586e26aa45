"""What it costs to feed a training: processor time to cut a batch, to encode its targets, and of the step itself.

    OMP_NUM_THREADS=1 python benchmarks/feed.py [--recipes house house-gpu unet3-robust] [--batches 6]

Generated worms, one thread; the step is that of one crop, times the crops of a batch. A GPU's step takes a small part
of a CPU's; the processes that feed it (`model/training/feed.py`) keep up as long as (cut + encode) / processes stays
below its step. The result goes to results/feed.json.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import machine, write_result

from model.recipe import Recipe, read_recipe
from model.samples.patches import Patches, Sample
from model.training.feed import MOST_PROCESSES
from model.training.run import Run
from pipeline.datasets.synthetic.scenes import scene
from pipeline.normalise import Normalise, normalised

IMAGES = 4
SIDE_PX = 520
SEED = 0


def main() -> None:
    """Measure each recipe and keep the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=["house", "house-gpu", "unet3-robust"])
    parser.add_argument("--batches", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = list(drawn())
    rows = {name: measured(read_recipe(name), samples, options.batches) for name in options.recipes}
    write_result(
        "feed",
        {
            "what": "median seconds of processor time, one thread, generated worms",
            "machine": machine(SEED),
            "recipes": rows,
        },
    )


def drawn() -> list[Sample]:
    """Generated images of worms, normalised, with their truth."""
    scenes = [
        scene("worms", (SIDE_PX, SIDE_PX), seed=seed, density=1.0).sample(str(seed)) for seed in range(IMAGES)
    ]
    settings = Normalise(kind="percentile", low=1.0, high=99.8)
    return [(normalised(one.image, settings), one.truth) for one in scenes if one.truth is not None]


def measured(recipe: Recipe, samples: list[Sample], batches: int) -> dict[str, Any]:
    """Return the median seconds of a recipe's parts."""
    method = recipe.method
    patches = Patches(
        samples, crop_px=recipe.crop_px, augment=recipe.augment, prepare=method.prepare, seed=recipe.seed
    )
    run = Run(recipe, channels=1, device=torch.device("cpu"))
    cut, encode, step = [], [], []
    for number in range(batches):
        batch, seconds = timed(lambda number=number: patches.batch(number, recipe.batch))
        cut.append(seconds)
        _, seconds = timed(lambda batch=batch: method.encode(batch.stacks, batch.prepared))
        encode.append(seconds)
        one = method.encode(batch.stacks[:1], batch.prepared[:1])
        seconds = timed(lambda batch=batch, one=one: learn(run, batch.images[:1], one))[1]
        step.append(recipe.batch * seconds)
    parts = {name: float(np.median(v)) for name, v in (("cut", cut), ("encode", encode), ("step", step))}
    fed = parts["cut"] + parts["encode"]
    return {
        "batch": recipe.batch,
        "crop_px": recipe.crop_px,
        **{f"{name}_s": round(value, 4) for name, value in parts.items()},
        "feed_share_of_a_cpu_step": round(fed / parts["step"], 3),
        "least_gpu_step_ms_that_is_fed": round(1000 * fed / MOST_PROCESSES, 1),
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and the processor time it took."""
    started = time.process_time()
    return work(), time.process_time() - started


def learn(run: Run, images: torch.Tensor, targets: Any) -> None:
    """Take a step of the first phase, without the optimiser's."""
    crops = images.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(SEED)
    terms = run.recipe.method.losses(run.network, crops, targets, run.phase, generator)
    torch.stack([run.phase.weights[name] * value for name, value in terms.items()]).sum().backward()


if __name__ == "__main__":
    main()
