"""Several GPUs by torch's distributed data parallel; a single process without it.

The invariant: the processes together use the crops that one process would use and take one step with the mean of their
gradients; the first one validates and writes. They are started by ``torchrun``, whose environment variables give
their number.

Two things make that step another than one process would take. On CPUs batch norm sees the crops of its process
only, and the statistics that are kept are the first one's; on GPUs it sees the whole batch. And loss terms that are
a mean over the batch, not over its images (``balance``, the boundary-weighted foreground, the entropy completion),
are taken per process and averaged.
"""

import os

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def join() -> None:
    """Join the other processes if ``torchrun`` started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group()  # torch chooses the backend of each device


def world() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if world() > 1 else 0


def is_first() -> bool:
    """Return whether this process validates and writes."""
    return rank() == 0


def own_device(name: str) -> str:
    """Return the device of this process: its own GPU where ``name`` leaves it open and there are several."""
    if world() == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def share_of(batch: int) -> int:
    """Return how many crops of a batch are this process's.

    Raises:
        ValueError: the batch cannot be divided evenly.
    """
    if batch % world():
        raise ValueError(f"recipe batch: expected a multiple of the {world()} processes, got {batch!r}")
    return batch // world()


def wait() -> None:
    """Wait until all processes are here, so that what the first one wrote can be read."""
    if world() > 1:
        distributed.barrier()


def spread(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network, wrapped so that gradients are averaged where several processes train.

    On GPUs its batch norm is replaced in place by one over all processes; parameters and their names stay.
    """
    if world() == 1:
        return network
    if device.type == "cuda":  # torch has it for GPUs only
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(network, device_ids=[device.index or 0] if device.type == "cuda" else None)
