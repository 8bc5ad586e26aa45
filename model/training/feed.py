"""Batches with their targets, prepared ahead of their steps.

Beside a CPU's network one thread makes them, which leaves the cores to the network. Beside a GPU's, processes do, as
many as there are cores, in pinned memory: cutting and encoding a batch takes one core longer than a GPU needs for its
step. A batch is a function of its step alone, so both give the same.
"""

import os
import sys
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from model.method import Method, Targets
from model.samples.patches import Batch, Patches

AHEAD = 3
"""Batches that are made before they are needed, by the thread or by each process."""
MOST_PROCESSES = 12
Item = tuple[Batch, Targets]


@dataclass(frozen=True)
class Batches(Dataset[Item]):
    """The batch and targets of each step."""

    patches: Patches
    method: Method
    size: int
    """Number of crops of a batch that belong to this process."""
    first: int
    """Number of the first of them in the batch."""

    def __getitem__(self, step: int) -> Item:
        batch = self.patches.batch(step, self.size, first=self.first)
        return batch, self.method.encode(batch.stacks, batch.prepared)


def processes_for(device: torch.device) -> int:
    """Return how many processes should feed a device; 0 for a thread of this one."""
    return min(max((os.cpu_count() or 1) - 1, 1), MOST_PROCESSES) if device.type == "cuda" else 0


def feed(batches: Batches, start: int, *, processes: int) -> Generator[Item, None, None]:
    """Yield the batch and targets of step ``start`` and of all that follow, until the generator is closed."""
    steps = range(start, sys.maxsize)
    return _by_processes(batches, steps, processes) if processes else _by_thread(batches, steps)


def _by_thread(batches: Batches, steps: range) -> Generator[Item, None, None]:
    coming: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            for step in steps:
                coming.append(pool.submit(batches.__getitem__, step))
                if len(coming) > AHEAD:
                    yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def _by_processes(batches: Batches, steps: range, processes: int) -> Generator[Item, None, None]:
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=processes,
        prefetch_factor=AHEAD,
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader
