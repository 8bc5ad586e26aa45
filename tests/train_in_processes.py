"""A training in processes of their own that find each other as those of torchrun do: through the environment."""

import multiprocessing.forkserver
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional

from model.recipe import Recipe
from model.samples.patches import Sample
from model.training import curves
from model.training import loop as training

Words = tuple[int, str]
"""The number of a process, and ``done`` or the traceback of its error."""

PRELOAD = [
    "model.training.loop",
    "torch._dynamo",
    "torch.profiler",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
]
"""What a training imports, some of it at its first step: once, in the process the others are forked from."""
LIMIT_S = 60
"""Longer than any training here takes on a busy machine: who is not done by then hangs."""


def forget_forkserver() -> None:
    """Stop the process that others are forked from: who comes next wants other things imported in it."""
    server = multiprocessing.forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
    server._stop()


def in_processes(
    count: int, work: Callable[..., None], arguments: Callable[[int], Sequence[Any]]
) -> dict[int, str]:
    """Run ``work(*arguments(rank))`` in processes that train together; how each ended, by its number.

    A process that was killed has no words; one that hangs is an error, not a hang.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    said: SimpleQueue[Words] = context.SimpleQueue()
    port = free_port()
    running = [
        context.Process(target=_joined, args=(rank, count, port, said, work, arguments(rank)), daemon=True)
        for rank in range(count)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(LIMIT_S)
    hanging = [number for number, process in enumerate(running) if process.is_alive()]
    for process in running:
        process.kill()
    assert not hanging, f"processes {hanging} hang"
    words = {}
    while not said.empty():
        rank, text = said.get()
        words[rank] = text
    return words


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def _joined(
    rank: int,
    count: int,
    port: int,
    said: SimpleQueue,
    work: Callable[..., None],
    arguments: Iterable[Any],
) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    try:
        work(*arguments)
    except Exception:  # whatever it was: the test reads it, and a process that only died would tell nothing
        said.put((rank, traceback.format_exc()))
    else:
        said.put((rank, "done"))


def train_here(
    recipe: Recipe, samples: list[Sample], folder: Path, norm: str = "own", kill_after: int | None = None
) -> None:
    """Train on the CPU; after so many steps this process is killed. Pictures, which take longest, stay empty."""

    def on_step(done: int, whole: int) -> None:
        if done == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    if norm == "known":
        patch.object(nn.BatchNorm2d, "forward", _by_known_statistics).start()  # this process ends with it
    if norm == "halves":
        training.spread = lambda network, device: Halves(network)
    curves.draw = lambda folder: (folder / curves.PICTURE).touch()
    training.train(recipe, samples, samples, folder, device="cpu", on_step=on_step)


def _by_known_statistics(self: nn.BatchNorm2d, maps: torch.Tensor) -> torch.Tensor:
    """Batch norm that looks at no batch, so that a crop is learnt alike in every company."""
    return functional.batch_norm(
        maps, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
    )


class Halves(nn.Module):
    """A network that looks at the halves of a batch one after the other and keeps the statistics of the first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        first, second = images.chunk(2)
        outputs = [self.network(first)]
        norms = [part for part in self.network.modules() if isinstance(part, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        outputs.append(self.network(second))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return {name: torch.cat([half[name] for half in outputs]) for name in outputs[0]}
