"""The product of rows and a matrix in other forms: the same numbers, but for rounding.

PyTorch for x86 multiplies float32 matrices by MKL and convolves by oneDNN. On an AMD EPYC with
AVX-512 (Zen 5, two threads), 1,024 rows and 256 × 688 numbers, forward and backward, took 4.9 ms as
products and 2.5 ms as convolutions. The matrices of 21 million parameters took 5.1 ms for one row,
as x·Wᵀ and as W·xᵀ, and 2.2 ms for two rows as W·xᵀ.
"""

import torch.nn.functional as F
from torch import Tensor, nn

FEW = 15  # rows on a CPU, for which (W·xᵀ)ᵀ took 0.3 to 0.9 times as long
LARGE = 2**19  # numbers in a matrix; from there two rows took less time than one
IMAGES = 16  # on one thread, PyTorch takes oneDNN for such a convolution from there on


def product(x: Tensor, w: Tensor) -> Tensor:
    """Return x·Wᵀ, (rows, d_in), (d_out, d_in) -> (rows, d_out)."""
    rows = len(x)
    if x.device.type != "cpu" or rows > FEW:
        return x @ w.mT
    if rows > 1:
        return (w @ x.mT).mT.contiguous()
    if w.numel() < LARGE:
        return x @ w.mT
    twice = w @ x.repeat(2, 1).mT  # (d_out, 2)
    return twice[:, :1].mT.contiguous()


def by_convolution(x: Tensor, w: Tensor) -> Tensor:
    """Return x·Wᵀ, (..., d_in), (d_out, d_in) -> (..., d_out), as a convolution.

    The kernel is one pixel. A row is a pixel of one of 16 images, and its numbers are the channels.
    If 16 doesn't divide the number of rows, return the product as usual.
    """
    rows = x.numel() // x.shape[-1]
    if rows % IMAGES:
        return F.linear(x, w)
    images = x.reshape(IMAGES, rows // IMAGES, 1, x.shape[-1]).permute(0, 3, 1, 2)
    y = F.conv2d(images, w[:, :, None, None])  # (16, d_out, rows/16, 1)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(w))


class Convolved(nn.Linear):
    """A layer without bias, its product computed by a convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """Return x·Wᵀ, (..., d_in) -> (..., d_out)."""
        return by_convolution(input, self.weight)


def convolve(model: nn.Module) -> None:
    """Replace a model's layers without bias by convolved ones with the same weights."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer.bias is None:
                convolved = Convolved(layer.in_features, layer.out_features, False, device="meta")
                convolved.weight = layer.weight
                setattr(parent, name, convolved)
