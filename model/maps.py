"""Target maps: tensors by name that move to a device together."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Maps:
    """Tensors of a batch by name, the batch first."""

    by_name: Mapping[str, torch.Tensor]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.by_name[name]

    def to(self, device: torch.device | str) -> "Maps":
        """Return the same maps on a device."""
        return Maps({name: value.to(device) for name, value in self.by_name.items()})
