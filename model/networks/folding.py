"""Folding of frozen batch norm into the convolution before it, for inference.

The folded network gives the same outputs within rounding. Batch norm that follows a ReLU (the order of the layering
paper) cannot be folded exactly at zero-padded borders and is kept.
"""

import copy

import torch
from torch import nn


def folded(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode in which every batch norm is part of the convolution before it."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            _fold(module)
    return network


def _fold(chain: nn.Sequential) -> None:
    names = list(chain._modules)
    for first, second in zip(names[:-1], names[1:], strict=True):
        convolution, norm = chain._modules[first], chain._modules[second]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            _absorb(convolution, norm)
            chain._modules[second] = nn.Identity()


@torch.no_grad()
def _absorb(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Scale the kernels and shift the bias of a convolution as the batch norm after it would."""
    if norm.running_mean is None or norm.running_var is None or convolution.bias is None:
        raise ValueError("folding: expected a convolution with a bias and a batch norm with statistics")
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    convolution.weight.mul_(factor[:, None, None, None])
    convolution.bias.copy_((convolution.bias - norm.running_mean) * factor + norm.bias)
