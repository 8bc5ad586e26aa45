"""Folding of frozen batch norm into the convolution before it, for inference.

The invariant: the folded network gives the same answers within rounding. Batch norm that follows a ReLU (the
paper's order) cannot be folded exactly at zero-padded borders and stays as it is.
"""

import copy

import torch
from torch import nn


def folded(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode in which every convolution has taken up the batch norm behind it."""
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
            _take_up(convolution, norm)
            chain._modules[second] = nn.Identity()


@torch.no_grad()
def _take_up(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Scale the kernels and move the bias of a convolution as the batch norm behind it would."""
    if norm.running_mean is None or norm.running_var is None or convolution.bias is None:
        raise ValueError("folding: expected a convolution with a bias and a batch norm with statistics")
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    convolution.weight.mul_(factor[:, None, None, None])
    convolution.bias.copy_((convolution.bias - norm.running_mean) * factor + norm.bias)
