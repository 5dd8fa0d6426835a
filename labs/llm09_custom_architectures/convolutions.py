"""What LLM09 checks of convolutions: they equal the library's, and they have a reach."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# kernel size, stride, padding, dilation
CASES = [(3, 1, 1, 1), (3, 2, 1, 1), (1, 1, 0, 1), (2, 3, 0, 1), (5, 1, 4, 2), (3, 4, 2, 3)]


def errors(convolution: Any, x: Tensor) -> Tensor:
    """Return the largest differences to F.conv2d: outputs, gradients of x, weight and bias.

    Args:
        convolution: a class with the arguments channels, out, size, stride, padding, dilation.
        x: images with three channels, in float64.
    """
    x = x.detach().requires_grad_()
    largest = []
    for size, stride, padding, dilation in CASES:
        layer = convolution(3, 5, size, stride, padding, dilation).double()
        ours = layer(x)
        theirs = F.conv2d(x, layer.weight, layer.bias, stride, padding, dilation)
        slope = torch.randn_like(theirs)
        inputs = (x, layer.weight, layer.bias)
        a, b = (torch.autograd.grad(y, inputs, slope) for y in (ours, theirs))
        pairs = zip((ours, *a), (theirs, *b), strict=True)
        largest += [(mine - other).abs().max() for mine, other in pairs]
    return torch.stack(largest)


def windows_by_shape(x: Tensor, size: int) -> Tensor:
    """Return windows (B, C, H′, W′, k, k) as a view that is wrong unless x is contiguous.

    It takes the strides of a contiguous tensor of that shape, whatever x has.
    """
    batch, channels, height, width = x.shape
    places = (batch, channels, height - size + 1, width - size + 1, size, size)
    strides = (channels * height * width, height * width, width, 1, width, 1)
    return x.as_strided(places, strides)


def seen_by(maps: Tensor, x: Tensor, place: int) -> Tensor:
    """Return how much each pixel of x (B, 1, H, W) moves the maps at (place, place): (H, W)."""
    (slope,) = torch.autograd.grad(maps[:, :, place, place].abs().sum(), x, retain_graph=True)
    return slope.abs().sum((0, 1))


def reach_of(cnn: Any) -> list[Tensor]:
    """Return what a pixel of a CNN's first and second map sees, (12, 12) each.

    It sums over many random images, as a ReLU or a pool hides some pixels of a single image.
    """
    x = torch.rand(256, 1, 12, 12, requires_grad=True)
    first = cnn.conv1(x)  # (B, 16, 12, 12)
    second = cnn.conv2(F.max_pool2d(first.relu(), 2))  # (B, 32, 6, 6)
    return [seen_by(first, x, 5), seen_by(second, x, 2)]


def across(slopes: Tensor) -> int:
    """Return how many columns of pixels have any influence."""
    return int((slopes > 0).any(0).sum())
