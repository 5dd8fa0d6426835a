"""What proves the parts of LLM06 right. References: PyTorch's own kernels, or a loop."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Function = Callable[..., Any]


@checks.proves("masked_softmax")
def masked_softmax(module: Any) -> None:
    implementation = module.masked_softmax
    scores = draw(2, 3, 4, 5)
    expect_close(implementation(scores), scores.softmax(-1), "without a mask it's a softmax")
    mask = torch.ones(4, 5, dtype=torch.bool).tril(1)
    given = scores.clone()
    got, want = implementation(given, mask), scores.masked_fill(~mask, -math.inf).softmax(-1)
    if not torch.equal(given, scores):
        raise Mistake("your function changed its input: masked_fill_ with a _ works in place")
    name_mistake(
        got,
        {
            "the rows don't sum to one: is the softmax before the mask?": lambda: (
                scores.softmax(-1) * mask
            ),
            "it looks where it must not: True means that a query may look": lambda: (
                scores.masked_fill(mask, -math.inf).softmax(-1).nan_to_num()
            ),
            "a hidden score of 0 still has weight: e⁰ = 1": lambda: (scores * mask).softmax(-1),
        },
    )
    expect_close(got, want, "is the softmax over the last axis, and after the mask?")
    large = implementation(scores * 1e4, mask)
    expect_close(large, (scores * 1e4).masked_fill(~mask, -math.inf).softmax(-1), "large scores")
    _softmax_of_nothing(implementation, scores, mask)


def _softmax_of_nothing(implementation: Function, scores: Tensor, mask: Tensor) -> None:
    mask = mask.clone()
    mask[2] = False
    scores = scores.clone().requires_grad_()
    got = implementation(scores, mask)
    if got.isnan().any():
        raise Mistake(
            "NaN where a query may look at nothing: a row of -inf alone has no softmax, it is 0/0"
        )
    row = got[..., 2, :].detach()
    if torch.allclose(row, torch.full_like(row, 1 / row.shape[-1])):
        raise Mistake(
            "a query that may look at nothing looks at everything alike: one low number all along "
            "leaves the row uniform"
        )
    if row.abs().max() > 0:
        raise Mistake("a query that may look at nothing should have weights of exactly 0")
    got.square().sum().backward()
    if scores.grad is None or scores.grad.isnan().any():
        raise Mistake(
            "NaN in the gradient of a row without keys: nan_to_num hides the NaN of the answer, "
            "not that of its gradient"
        )


@checks.proves("cross_attention_mask")
def cross_attention_mask(module: Any) -> None:
    implementation = module.cross_attention_mask
    lengths, tq, tk = torch.tensor([5, 2, 0]), 3, 5
    want = torch.tensor(
        [[[[key < length for key in range(tk)] for _ in range(tq)]] for length in lengths.tolist()]
    )  # (B, 1, Tq, Tk)
    got = implementation(lengths, tq, tk)
    if isinstance(got, Tensor) and got.shape == (3, 1, tk, tq):
        raise Mistake("the mask is (B, 1, Tk, Tq): are queries and keys swapped?")
    if isinstance(got, Tensor) and got.shape == (3, tq, tk):
        raise Mistake("the mask is (B, Tq, Tk): against scores (B, H, Tq, Tk) B would meet H")
    lower = [torch.ones(tq, tk, dtype=torch.bool).tril(shift) for shift in (0, tk - tq)]
    if any(equals(got, want & triangle) for triangle in lower):
        raise Mistake("is it causal? A source has no future: every query may see all of it")
    keys, shape = torch.arange(tk), (3, 1, tq, tk)
    name_mistake(
        got,
        {
            "True and False are swapped: True means that a query may look": lambda: ~want,
            "one key too many: the first padding has the index `length`": lambda: (
                keys <= lengths[:, None, None, None]
            ).expand(shape),
            "padding on the left? These sources are padded on the right": lambda: (
                keys >= tk - lengths[:, None, None, None]
            ).expand(shape),
        },
    )
    expect_close(got, want, "does each source's length hide exactly its padding?")


@checks.proves("grouped_query_attention")
def grouped_query_attention(module: Any) -> None:
    implementation = module.grouped_query_attention
    q, k, v = draw(2, 6, 5, 8), draw(2, 3, 7, 8, seed=1), draw(2, 3, 7, 8, seed=2)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)
    got = implementation(q, k, v, mask)
    want = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)

    def library(k: Tensor, v: Tensor, mask: Tensor | None = mask, **how: Any) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask, **how)

    twice = [x.repeat_interleave(2, 1) for x in (k, v)]
    name_mistake(
        got,
        {
            "heads 0 and 1 must share key-value head 0: here they are dealt out in turn": (
                lambda: library(k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1))
            ),
            "the mask isn't used": lambda: library(*twice, mask=None),
            "True and False of the mask are swapped": lambda: library(*twice, mask=~mask),
            "the keys are shared one way and the values another": (
                lambda: library(twice[0], v.repeat(1, 2, 1, 1))
            ),
            "is it divided by d, not by √d?": lambda: library(*twice, scale=1 / 8),
            "is the division by √d missing?": lambda: library(*twice, scale=1.0),
            "is the triangle aligned top-left? The mask says bottom-right": lambda: library(
                *twice, mask=torch.ones(5, 7, dtype=torch.bool).tril()
            ),
        },
    )
    expect_close(got, want, "do query heads 0, 1 share key-value head 0, and 2, 3 the next?")
    one = [x[:, :1] for x in (k, v)]
    want = library(*(x.expand(-1, 6, -1, -1) for x in one), None)
    got = implementation(q, *one)
    causal = torch.ones(5, 7, dtype=torch.bool).tril(2)
    alone = {
        "without a mask every query sees all keys: is a causal mask always on?": (
            lambda: library(*(x.expand(-1, 6, -1, -1) for x in one), causal)
        )
    }
    name_mistake(got, alone)
    expect_close(got, want, "one key-value head serves all query heads")
    message = "as many key-value heads as query heads: each has its own"
    expect_close(implementation(q, *twice), library(*twice, None), message)


@checks.proves("MultiHeadAttention.forward")
def multi_head_attention(module: Any) -> None:
    implementation = module.MultiHeadAttention
    torch_module = nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        for i, parameter in enumerate(torch_module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=10 + i) / 2)
    module = _with_weights_of(implementation, torch_module)
    x, context = draw(2, 5, 12), draw(2, 7, 12, seed=1)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)
    with torch.no_grad():
        got = module(x)
        want = torch_module(x, x, x)[0]
        name_mistake(got, _mistakes_of_heads(module, x))
        expect_close(got, want, "are the way into heads and the way back both right?")
        want = torch_module(x, context, context, attn_mask=~mask)[0]
        got = module(x, mask, context)
        alone = {"the mask isn't used": lambda: torch_module(x, context, context)[0]}
        name_mistake(got, alone)
        expect_close(got, want, "keys and values come from the context, queries from x")
    _positions_are_applied(implementation)


def _with_weights_of(implementation: type, theirs: nn.MultiheadAttention) -> nn.Module:
    module = implementation(12, 3, bias=True).double()
    weights, biases = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
    for mine, weight, bias in zip((module.q, module.k, module.v), weights, biases, strict=True):
        mine.load_state_dict({"weight": weight, "bias": bias})
    module.out.load_state_dict(theirs.out_proj.state_dict())
    return module


def _mistakes_of_heads(module: Any, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What forward gives for each way to go wrong: how heads are split, scaled and merged."""
    b, t, d = x.shape
    raw = [layer(x) for layer in (module.q, module.k, module.v)]  # (B, T, d)
    split = [y.view(b, t, 3, d // 3).transpose(1, 2) for y in raw]  # (B, H, T, D)
    attend = F.scaled_dot_product_attention
    jumbled = [y.view(b, 3, t, d // 3) for y in raw]
    strided = [y.view(b, t, d // 3, 3).permute(0, 3, 1, 2) for y in raw]

    def merged(y: Tensor) -> Tensor:
        return module.out(y.transpose(1, 2).flatten(2))

    return {
        "heads and tokens are jumbled: a bare view or reshape instead of a transpose?": (
            lambda: merged(attend(*jumbled))
        ),
        "a bare view or reshape splits and merges the heads: where is the transpose?": (
            lambda: module.out(attend(*jumbled).reshape(b, t, d))
        ),
        "the heads are merged without a transpose back, so that tokens are jumbled": (
            lambda: module.out(attend(*split).reshape(b, t, d))
        ),
        "a head is D neighbouring coordinates: here it takes every H-th one": (
            lambda: module.out(attend(*strided).permute(0, 2, 3, 1).flatten(2))
        ),
        "is it divided by √d_model? Each head's width is head_dim": (
            lambda: merged(attend(*split, scale=1 / math.sqrt(d)))
        ),
        "is it divided by d, not by √d?": lambda: merged(attend(*split, scale=3 / d)),
        "the heads' answers aren't mixed: the last matrix, self.out, is missing": (
            lambda: attend(*split).transpose(1, 2).flatten(2)
        ),
        "is there one head only?": lambda: module.out(attend(*raw)),
    }


def _positions_are_applied(implementation: type) -> None:
    """`position` acts on queries and keys, split into heads, and not on values."""
    seen: list[tuple[int, ...]] = []

    def position(y: Tensor) -> Tensor:
        seen.append(tuple(y.shape))
        return y * torch.arange(1, 1 + y.shape[-2], dtype=y.dtype)[:, None]  # tells them apart

    module = implementation(12, 6, kv_heads=2, position=position).double()
    x = draw(2, 5, 12)
    got = module(x).detach()
    shape = (2, 5, -1, 2)
    q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (module.q, module.k, module.v))
    turned = F.scaled_dot_product_attention(position(q), position(k), v, enable_gqa=True)
    want = module.out(turned.transpose(1, 2).flatten(2)).detach()
    del seen[-2:]  # our own two calls
    if sorted(seen) != [(2, 2, 5, 2), (2, 6, 5, 2)]:
        raise Mistake(
            "self.position must act once on the queries, (B, H, T, D), and once on the keys, "
            f"(B, Hkv, T, D), and not on the values; it was given {seen or 'nothing'}"
        )
    expect_close(got, want, "what self.position returns must be what the scores are made of")


@checks.proves("sliding_window_mask")
def sliding_window_mask(module: Any) -> None:
    implementation = module.sliding_window_mask
    for tq, tk, window in ((6, 6, 3), (3, 7, 3), (6, 6, 1), (4, 4, 9)):
        want = torch.tensor(
            [[0 <= t + tk - tq - j < window for j in range(tk)] for t in range(tq)]
        )  # (Tq, Tk)
        got = implementation(tq, tk, window)
        distance = torch.arange(tq)[:, None] + tk - tq - torch.arange(tk)
        top_left = torch.arange(tq)[:, None] - torch.arange(tk)
        name_mistake(got, _mistakes_of_windows(distance, top_left, window, want))
        expect_close(got, want, f"Tq = {tq}, Tk = {tk}, window = {window}")


def _mistakes_of_windows(
    distance: Tensor, top_left: Tensor, window: int, want: Tensor
) -> dict[str, Callable[[], Tensor]]:
    candidates = {
        "one key too many: `window` keys count the query's own": (
            (distance >= 0) & (distance <= window)
        ),
        "one key too few: `window` keys count the query's own": (
            (distance >= 0) & (distance < window - 1)
        ),
        "the future is visible: every key ahead of the query": distance < window,
        "the window reaches ahead, too, as far as it reaches back": distance.abs() < window,
        "a query's own key is left out: distance 0 is its own": (
            (distance > 0) & (distance <= window)
        ),
        "the window lies ahead of the query: the distance has the wrong sign": (
            (distance <= 0) & (distance > -window)
        ),
        "is the triangle aligned top-left? The last query stands at the last key": (
            (top_left >= 0) & (top_left < window)
        ),
        "True and False are swapped: True means that a query may look": ~want,
    }
    # For some sizes a mistake makes no difference; the others will tell it.
    return {
        message: lambda wrong=wrong: wrong
        for message, wrong in candidates.items()
        if not torch.equal(wrong, want)
    }


@checks.proves("tiled_attention")
def tiled_attention(module: Any) -> None:
    implementation = module.tiled_attention
    q, k, v = draw(2, 3, 10, 4), draw(2, 3, 10, 4, seed=1), draw(2, 3, 10, 6, seed=2)
    attend, scores = F.scaled_dot_product_attention, q @ k.mT / math.sqrt(q.shape[-1])
    for block in (10, 4, 3, 16, 1):
        got, want = implementation(q, k, v, block=block), attend(q, k, v)
        name_mistake(got, _mistakes_of_tiles(q, k, v, block) if block < 10 else {})
        scales = {
            "is it divided by d, not by √d?": lambda: attend(q, k, v, scale=1 / 4),
            "is the division by √d missing?": lambda: attend(q, k, v, scale=1.0),
            "the division by the sum, at the end, is missing": lambda: (
                (scores - scores.amax(-1, keepdim=True)).exp() @ v
            ),
        }
        name_mistake(got, scales)
        expect_close(got, want, f"10 keys in blocks of {block}: is what was kept rescaled?")
    large = [500 * q, k, v]
    message = "large scores: does exp overflow?"
    expect_close(implementation(*large, block=4), attend(*large), message)
    low = [torch.ones_like(q), -2000 * torch.ones_like(k), v]
    message = "all scores far below 0: does the maximum start above them, so that every exp is 0?"
    expect_close(implementation(*low, block=4), attend(*low), message)
    _holds_no_row(implementation)


def _mistakes_of_tiles(
    q: Tensor, k: Tensor, v: Tensor, block: int
) -> dict[str, Callable[[], Tensor]]:
    """What comes out if something isn't put right when the maximum grows."""

    def online(rescale_total: bool, rescale_mixed: bool) -> Tensor:
        top = q.new_full((*q.shape[:-1], 1), -math.inf)
        total, mixed = torch.zeros_like(top), q.new_zeros(*q.shape[:-1], v.shape[-1])
        for keys, values in zip(k.split(block, -2), v.split(block, -2), strict=True):
            scores = q @ keys.mT / math.sqrt(q.shape[-1])
            new = torch.maximum(top, scores.amax(-1, keepdim=True))
            shrink, weights = (top - new).exp(), (scores - new).exp()
            total = (total * shrink if rescale_total else total) + weights.sum(-1, keepdim=True)
            mixed = (mixed * shrink if rescale_mixed else mixed) + weights @ values
            top = new
        return mixed / total

    def each_tile_alone() -> Tensor:
        tiles = zip(k.split(block, -2), v.split(block, -2), strict=True)
        answers = [F.scaled_dot_product_attention(q, keys, values) for keys, values in tiles]
        return torch.stack(answers).mean(0)

    return {
        "the sum and the values kept so far aren't rescaled when the maximum grows": (
            lambda: online(False, False)
        ),
        "the sum kept so far isn't rescaled when the maximum grows": lambda: online(False, True),
        "the values kept so far aren't rescaled when the maximum grows": (
            lambda: online(True, False)
        ),
        "each tile has a softmax of its own: they need one denominator together": each_tile_alone,
    }


def _holds_no_row(implementation: Function) -> None:
    """No tensor on the way may have a whole row of scores."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            nonlocal largest
            out = function(*arguments, **(named or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    # Tiles of the keys need 64 · 4 numbers; tiles of the queries alone need 4 · 512.
    q, k, v = (draw(n, 1, seed=seed) for seed, n in enumerate((64, 512, 512)))
    with Watch():
        implementation(q, k, v, block=4)
    if largest > 512:
        raise Mistake(
            f"a tensor of {largest:,} numbers came up for 64 queries on 512 keys in blocks of 4: "
            "whole rows of scores are held; are the queries tiled, and not the keys?"
        )
