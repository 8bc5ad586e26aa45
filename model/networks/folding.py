"""Folding of frozen batch norm into the convolution before it, for inference.

The invariant: the folded network gives the same answers within rounding. Batch norm that follows a ReLU (the
paper's order) cannot be folded exactly at zero-padded borders and stays as it is.
"""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


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
            chain._modules[first] = fuse_conv_bn_eval(convolution, norm)
            chain._modules[second] = nn.Identity()
