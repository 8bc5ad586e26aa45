"""Several GPUs through torch's own distributed data parallel; one process without it.

The invariant: the processes together see the batch one process would see; the first one writes.
"""

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def world() -> int:
    """Return the number of processes that train together; start them with ``torchrun``."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if world() > 1 else 0


def is_first() -> bool:
    """Return whether this process writes."""
    return rank() == 0


def spread(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network, wrapped so that gradients are averaged where several processes train."""
    if world() == 1:
        return network
    ids = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, find_unused_parameters=False)
