"""The exponential moving average of a network's weights, which is validated and saved.

The invariant: with decay 0 the average is the network itself, always.
"""

import copy

import torch
from torch import nn


class MovingAverage:
    """A moving average of a network; batch norm statistics are averaged too."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.network = copy.deepcopy(network).requires_grad_(False).eval() if decay else network

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network; early on faster, so that the initial weights are forgotten."""
        if not self.decay:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = self.network.state_dict(), network.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], 1 - decay)

    def restart(self, network: nn.Module) -> None:
        """Set the average to the current weights of the network."""
        if self.decay:
            self.network.load_state_dict(network.state_dict())
            self.updates = 0
