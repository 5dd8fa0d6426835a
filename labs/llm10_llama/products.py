"""The product of rows and a matrix in other forms: the same numbers, but for rounding.

PyTorch for x86 multiplies float32 matrices by MKL and convolves by oneDNN. Which of the two is
faster depends on the processor. On an AMD EPYC with AVX-512 (Zen 5), oneDNN took half of MKL's time
for 1,024 rows and 256 × 688 numbers: 2.5 ms instead of 4.9, forward and backward on two threads.
"""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

FEW = 15  # rows, for which W·xᵀ was faster
LARGE = 2**19  # numbers in a matrix; from there two rows took less time than one
IMAGES = 16  # with fewer, PyTorch takes MKL for a 1 × 1 convolution on one thread


def few_rows(x: Tensor, w: Tensor) -> Tensor:
    """Return x·Wᵀ, (rows, d_in), (d_out, d_in) -> (rows, d_out); for 2 to 15 rows as (W·xᵀ)ᵀ.

    One row and a large matrix: the row twice.
    """
    rows = len(x)
    if rows > FEW or (rows == 1 and w.numel() < LARGE):
        return x @ w.mT
    if rows == 1:
        x = x.repeat(2, 1)
    return (w @ x.mT)[:, :rows].mT.contiguous()


def by_convolution(x: Tensor, w: Tensor) -> Tensor:
    """Return x·Wᵀ, (..., d_in), (d_out, d_in) -> (..., d_out), as a convolution of single pixels.

    A row is a pixel, and its numbers are the channels. If 16 doesn't divide the number of rows,
    return the product as usual.
    """
    rows = x.numel() // x.shape[-1]
    if rows % IMAGES:
        return F.linear(x, w)
    images = x.reshape(IMAGES, rows // IMAGES, 1, x.shape[-1]).permute(0, 3, 1, 2)
    y = F.conv2d(images, w[:, :, None, None])  # (16, d_out, rows/16, 1)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(w))


def convolve(model: Any) -> None:
    """Let a model compute the products with its matrices by convolutions from now on."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is None:
            module.forward = partial(_convolved, module)


def _convolved(layer: nn.Linear, x: Tensor) -> Tensor:
    return by_convolution(x, layer.weight)
