"""Checks of the small attention lab. References: PyTorch's own kernels."""

import math
from typing import Any

from labs.kit import Checks, Mistake, draw, expect_close

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()


@checks.proves("masked_softmax")
def masked_softmax(module: Any) -> None:
    scores = draw(2, 3, 4, 5)
    expect_close(module.masked_softmax(scores), scores.softmax(-1), "without a mask: a softmax")
    mask = torch.ones(4, 5, dtype=torch.bool).tril(1)
    want = scores.masked_fill(~mask, -math.inf).softmax(-1)
    expect_close(module.masked_softmax(scores, mask), want, "is the mask before the softmax?")
    mask[2] = False
    row = module.masked_softmax(scores, mask)[..., 2, :]
    if row.isnan().any() or row.abs().max() > 0:
        raise Mistake("a row without keys has weights of exactly 0")


@checks.proves("cross_attention_mask")
def cross_attention_mask(module: Any) -> None:
    want = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])[:, None, None].expand(2, 1, 3, 5)
    got = module.cross_attention_mask(torch.tensor([5, 2]), 3, 5)
    expect_close(got, want, "does each length hide exactly its padding?")


@checks.proves("grouped_query_attention")
def grouped_query_attention(module: Any) -> None:
    q = draw(2, 6, 5, 8)
    k = draw(2, 3, 7, 8, seed=1)
    v = draw(2, 3, 7, 8, seed=2)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)
    want = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    expect_close(module.grouped_query_attention(q, k, v, mask), want, "which heads share?")


@checks.proves("MultiHeadAttention.forward")
def multi_head_attention(module: Any) -> None:
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    mine = module.MultiHeadAttention(12, 3).double()
    weights = theirs.in_proj_weight.chunk(3)
    biases = theirs.in_proj_bias.chunk(3)
    for layer, weight, bias in zip((mine.q, mine.k, mine.v), weights, biases, strict=True):
        layer.load_state_dict({"weight": weight, "bias": bias})
    mine.out.load_state_dict(theirs.out_proj.state_dict())
    x = draw(2, 5, 12)
    with torch.no_grad():
        expect_close(mine(x), theirs(x, x, x)[0], "are the heads split and merged?")


@checks.proves("sliding_window_mask")
def sliding_window_mask(module: Any) -> None:
    for tq, tk, window in ((6, 6, 3), (3, 7, 3)):
        rows = [[0 <= t + tk - tq - j < window for j in range(tk)] for t in range(tq)]
        got = module.sliding_window_mask(tq, tk, window)
        expect_close(got, torch.tensor(rows), f"Tq = {tq}, Tk = {tk}, window = {window}")


@checks.proves("tiled_attention")
def tiled_attention(module: Any) -> None:
    q = draw(2, 3, 10, 4)
    k = draw(2, 3, 10, 4, seed=1)
    v = draw(2, 3, 10, 6, seed=2)
    want = F.scaled_dot_product_attention(q, k, v)
    for block in (10, 4, 3, 16, 1):
        expect_close(module.tiled_attention(q, k, v, block=block), want, f"blocks of {block}")
    _holds_no_row(module)


def _holds_no_row(module: Any) -> None:
    """Import torch's dispatch mode while the check runs, as a lab's check may."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            nonlocal largest
            out = function(*arguments, **(named or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        module.tiled_attention(draw(64, 1), draw(512, 1), draw(512, 1), block=4)
    if largest > 512:
        raise Mistake(f"a tensor of {largest} numbers: are all scores of a row computed at once?")
