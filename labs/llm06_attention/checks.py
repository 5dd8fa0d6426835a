"""Check the exercises of LLM06 against PyTorch's own kernels, or a loop.

Those of LLM06+ are in deeper_checks.
"""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake
from labs.llm06_attention import deeper_checks

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Function = Callable[..., Any]
Mistakes = dict[str, Callable[[], Tensor]]  # by message: the result that each mistake gives


@checks.proves("masked_softmax")
def masked_softmax(module: Any) -> None:
    """Check the weights with and without a mask, for large scores, and for fully masked rows."""
    implementation = module.masked_softmax
    scores = draw(2, 3, 4, 5)
    want = scores.softmax(-1)
    expect_close(implementation(scores), want, "without a mask it is a plain softmax")
    mask = torch.ones(4, 5, dtype=torch.bool).tril(1)
    given = scores.clone()
    got = implementation(given, mask)
    if not torch.equal(given, scores):
        raise Mistake("your function changed its input: masked_fill_ with a _ works in place")
    mistakes: Mistakes = {
        "the rows don't sum to one: does the softmax come before the mask?": (
            lambda: scores.softmax(-1) * mask
        ),
        "the masked keys get the weights: True means that a query may look at a key": (
            lambda: scores.masked_fill(mask, -math.inf).softmax(-1).nan_to_num()
        ),
        "the mask is inverted: True means that a query may look at a key, so fill where ~mask": (
            lambda: scores.masked_fill(mask, -math.inf).softmax(-1)
        ),
        "a masked score of 0 still gets weight: e⁰ = 1": lambda: (scores * mask).softmax(-1),
    }
    name_mistake(got, mistakes)
    want = scores.masked_fill(~mask, -math.inf).softmax(-1)
    expect_close(got, want, "take the softmax over the last axis, after applying the mask")
    large = 1e4 * scores
    want = large.masked_fill(~mask, -math.inf).softmax(-1)
    expect_close(implementation(large, mask), want, "the weights of large scores are wrong")
    _check_fully_masked_row(implementation, scores, mask)


def _check_fully_masked_row(implementation: Function, scores: Tensor, mask: Tensor) -> None:
    """Check weights and gradient of a query that may look at no key."""
    mask = mask.clone()
    mask[2] = False
    scores = scores.clone().requires_grad_()
    got = implementation(scores, mask)
    if got.isnan().any():
        raise Mistake(
            "the weights are NaN where a query may look at no key: the softmax of a row of -inf "
            "is NaN"
        )
    row = got[..., 2, :].detach()
    if torch.allclose(row, torch.full_like(row, 1 / row.shape[-1])):
        raise Mistake(
            "a query that may look at no key gets uniform weights: the softmax of equal scores, "
            "however low, is uniform"
        )
    if row.abs().max() > 0:
        raise Mistake("a query that may look at no key must get weights of exactly 0")
    got.square().sum().backward()
    if scores.grad is None or scores.grad.isnan().any():
        raise Mistake(
            "the gradient is NaN where a query may look at no key: do you add -inf to the scores? "
            "Fill hidden scores with masked_fill instead"
        )


@checks.proves("attention")
def attention(module: Any) -> None:
    """Check masks with and without a batch axis, and values of another width than the keys."""
    implementation = module.attention
    q = draw(2, 3, 5, 4)
    k = draw(2, 3, 7, 4, seed=1)
    v = draw(2, 3, 7, 6, seed=2)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)
    attend = F.scaled_dot_product_attention
    got = implementation(q, k, v, mask)
    mistakes: Mistakes = {
        "the division by √d is missing": lambda: attend(q, k, v, mask, scale=1.0),
        "the scores are divided by d, not by √d": lambda: attend(q, k, v, mask, scale=1 / 4),
        "the scores are multiplied with √d, not divided by it": (
            lambda: attend(q, k, v, mask, scale=2.0)
        ),
        "the mask isn't used": lambda: attend(q, k, v),
        "divide by √D, the width of a key, not by the square root of the number of keys": (
            lambda: attend(q, k, v, mask, scale=1 / math.sqrt(7))
        ),
        "divide by √D, the width of a query, not by the square root of the number of queries": (
            lambda: attend(q, k, v, mask, scale=1 / math.sqrt(5))
        ),
        "the softmax runs over the queries: each query must distribute its weight over the keys": (
            lambda: (q @ k.mT / 2).masked_fill(~mask, -math.inf).softmax(-2).nan_to_num() @ v
        ),
    }
    name_mistake(got, mistakes)
    message = "softmax(QKᵀ/√d) V: do you multiply the weights with the values?"
    expect_close(got, attend(q, k, v, mask), message)
    expect_close(implementation(q, k, v), attend(q, k, v), "without a mask every key is visible")
    _check_padded(implementation, q, k, v)


def _check_padded(implementation: Function, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Check a mask that hides the padding of two texts of 7 and 4 tokens."""
    padded = _real_tokens()[:, None, None]  # (B, 1, 1, Tk)
    want = F.scaled_dot_product_attention(q, k, v, padded, enable_gqa=True)
    message = (
        "a mask may differ by text: (B, 1, Tq, Tk) must broadcast to the scores, (B, H, Tq, Tk)"
    )
    try:
        got = implementation(q, k, v, padded)
    except RuntimeError as error:
        raise Mistake(message) from error
    expect_close(got, want, message)


def _real_tokens() -> Tensor:
    """Return (B, Tk), True for the tokens of two texts, False for the padding of the second."""
    return torch.arange(7) < torch.tensor([7, 4])[:, None]


@checks.proves("causal_mask")
def causal_mask(module: Any) -> None:
    """Check a square, and new queries after cached keys."""
    for tq, tk in ((4, 4), (2, 5), (1, 3)):
        want = torch.tensor([[key <= tk - tq + query for key in range(tk)] for query in range(tq)])
        got = module.causal_mask(tq, tk)
        everything = torch.ones(tq, tk, dtype=torch.bool)
        candidates = {
            "True and False are swapped: True means that a query may look at a key": ~want,
            "the query's own key must be visible, too": everything.tril(tk - tq - 1),
            "one key of the future is visible": everything.tril(tk - tq + 1),
            "the triangle is aligned top-left, but the last query belongs to the last key": (
                everything.tril()
            ),
            "the triangle is turned over: queries must see earlier keys, not later ones": (
                everything.triu(tk - tq)
            ),
        }
        name_mistake(
            got,
            {
                message: lambda wrong=wrong: wrong
                for message, wrong in candidates.items()
                if not torch.equal(wrong, want)
            },
        )
        expect_close(got, want, f"Tq = {tq}, Tk = {tk}")


@checks.proves("padding_mask")
def padding_mask(module: Any) -> None:
    """Check the mask of three sources: full, padded and empty."""
    lengths = torch.tensor([5, 2, 0])
    tq = 3
    tk = 5
    want = torch.tensor(
        [[[[key < length for key in range(tk)] for _ in range(tq)]] for length in lengths.tolist()]
    )  # (B, 1, Tq, Tk)
    got = module.padding_mask(lengths, tq, tk)
    if isinstance(got, Tensor) and got.shape == (3, 1, tk, tq):
        raise Mistake("expected (B, 1, Tq, Tk), got (B, 1, Tk, Tq): are queries and keys swapped?")
    if isinstance(got, Tensor) and got.shape == (3, tq, tk):
        raise Mistake(
            "expected (B, 1, Tq, Tk), got (B, Tq, Tk): with scores (B, H, Tq, Tk), "
            "B would broadcast against H"
        )
    if isinstance(got, Tensor) and got.shape == (3, 1, 1, tk):
        raise Mistake(
            "expected (B, 1, Tq, Tk), got (B, 1, 1, Tk): the 1 is for the heads; expand the mask, "
            "so that each query has a row"
        )
    triangles = [torch.ones(tq, tk, dtype=torch.bool).tril(shift) for shift in (0, tk - tq)]
    if any(equals(got, want & triangle) for triangle in triangles):
        raise Mistake("the mask is causal, but every query may look at the entire source")
    keys = torch.arange(tk)
    shape = (3, 1, tq, tk)
    column = lengths[:, None, None, None]
    mistakes: Mistakes = {
        "True and False are swapped: True means that a query may look at a key": lambda: ~want,
        "one key too many: the first padded key has the index `length`": (
            lambda: (keys <= column).expand(shape)
        ),
        "the padding is expected on the left, but these sources are padded on the right": (
            lambda: (keys >= tk - column).expand(shape)
        ),
    }
    name_mistake(got, mistakes)
    expect_close(got, want, "the mask must hide the padding of each source, and nothing else")


@checks.proves("grouped_query_attention")
def grouped_query_attention(module: Any) -> None:
    """Check 6 query heads with 3, 1 and 6 key-value heads, and a mask for each text."""
    implementation = module.grouped_query_attention
    q = draw(2, 6, 5, 8)
    k = draw(2, 3, 7, 8, seed=1)
    v = draw(2, 3, 7, 8, seed=2)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)
    got = implementation(q, k, v, mask)
    want = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    name_mistake(got, _mistakes_of_groups(q, k, v, mask))
    message = "query heads 0 and 1 share key-value head 0, query heads 2 and 3 share head 1"
    expect_close(got, want, message)
    _check_padded(implementation, q, k, v)
    one_k = k[:, :1].expand(-1, 6, -1, -1)
    one_v = v[:, :1].expand(-1, 6, -1, -1)
    want = F.scaled_dot_product_attention(q, one_k, one_v)
    got = implementation(q, k[:, :1], v[:, :1])
    mistakes: Mistakes = {
        "without a mask every query sees all keys: do you always apply a causal mask?": (
            lambda: F.scaled_dot_product_attention(q, one_k, one_v, mask)
        )
    }
    name_mistake(got, mistakes)
    expect_close(got, want, "all query heads share the one key-value head")
    k = k.repeat_interleave(2, 1)
    v = v.repeat_interleave(2, 1)
    want = F.scaled_dot_product_attention(q, k, v)
    message = "with equally many heads, each query head has its own key-value head"
    expect_close(implementation(q, k, v), want, message)


def _mistakes_of_groups(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Mistakes:
    """Return the result of each known mistake; q has twice as many heads as k and v."""
    attend = F.scaled_dot_product_attention
    keys = k.repeat_interleave(2, 1)
    values = v.repeat_interleave(2, 1)
    values_in_turn = v.repeat(1, 2, 1, 1)
    top_left = torch.ones(mask.shape, dtype=torch.bool).tril()
    return {
        "query heads 0 and 1 must share key-value head 0, but the heads are assigned in turn": (
            lambda: attend(q, k.repeat(1, 2, 1, 1), values_in_turn, mask)
        ),
        "the mask isn't used": lambda: attend(q, keys, values),
        "True and False of the mask are swapped": lambda: attend(q, keys, values, ~mask),
        "keys and values are shared in different ways": (
            lambda: attend(q, keys, values_in_turn, mask)
        ),
        "the scores are divided by d, not by √d": (
            lambda: attend(q, keys, values, mask, scale=1 / q.shape[-1])
        ),
        "the division by √d is missing": lambda: attend(q, keys, values, mask, scale=1.0),
        "the triangle is aligned top-left, but the mask is aligned bottom-right": (
            lambda: attend(q, keys, values, top_left)
        ),
    }


@checks.proves("MultiHeadAttention.forward")
def multi_head_attention(module: Any) -> None:
    """Check self-attention and cross-attention against torch's module, then the positions."""
    implementation = module.MultiHeadAttention
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        for i, parameter in enumerate(theirs.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=10 + i) / 2)
    ours = _with_weights_of(implementation, theirs)
    x = draw(2, 5, 12)
    context = draw(2, 7, 12, seed=1)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)
    with torch.no_grad():
        got = ours(x)
        name_mistake(got, _mistakes_of_heads(ours, x))
        expect_close(got, theirs(x, x, x)[0], "check how you split and how you merge the heads")
        got = ours(x, mask, context)
        mistakes: Mistakes = {"the mask isn't used": lambda: theirs(x, context, context)[0]}
        name_mistake(got, mistakes)
        want = theirs(x, context, context, attn_mask=~mask)[0]
        expect_close(got, want, "keys and values come from the context, queries from x")
        real = _real_tokens()
        got = ours(x, real[:, None, None], context)
        want = theirs(x, context, context, key_padding_mask=~real)[0]
        expect_close(got, want, "a mask may differ by text: (B, 1, Tq, Tk), for all heads")
        _check_leading_axes(ours, x[0], theirs(x, x, x)[0][0])
    _check_positions(implementation)


def _check_leading_axes(module: Any, x: Tensor, want: Tensor) -> None:
    """Check one text, (T, d_model), without an axis for the batch."""
    message = (
        "x may be (T, d_model), too, without a batch: count the axes from the last, -1, -2, -3"
    )
    try:
        got = module(x)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise Mistake(message) from error
    expect_close(got, want, message)


def _with_weights_of(implementation: type, theirs: nn.MultiheadAttention) -> Any:
    """Return a module of the learner's class with the weights of torch's module."""
    ours: Any = implementation(12, 3, bias=True).double()
    weights = theirs.in_proj_weight.chunk(3)
    biases = theirs.in_proj_bias.chunk(3)
    for linear, weight, bias in zip(
        (ours.q_proj, ours.k_proj, ours.v_proj), weights, biases, strict=True
    ):
        linear.load_state_dict({"weight": weight, "bias": bias})
    ours.o_proj.load_state_dict(theirs.out_proj.state_dict())
    return ours


def _mistakes_of_heads(module: Any, x: Tensor) -> Mistakes:
    """Return the result of each known mistake in splitting, scaling and merging the heads."""
    b, t, d = x.shape
    attend = F.scaled_dot_product_attention
    projected = [
        layer(x) for layer in (module.q_proj, module.k_proj, module.v_proj)
    ]  # (B, T, d) each
    q, k, v = (y.view(b, t, 3, d // 3).transpose(1, 2) for y in projected)  # (B, H, T, D) each
    jumbled_q, jumbled_k, jumbled_v = (y.view(b, 3, t, d // 3) for y in projected)
    every_q, every_k, every_v = (
        y.view(b, t, d // 3, 3).permute(0, 3, 1, 2) for y in projected
    )  # head h takes the coordinates h, h + H, h + 2H, …

    def merged(y: Tensor) -> Tensor:
        return module.o_proj(y.transpose(1, 2).flatten(2))

    return {
        "heads and tokens are jumbled: use a transpose, not a bare view or reshape": (
            lambda: merged(attend(jumbled_q, jumbled_k, jumbled_v))
        ),
        "a bare view or reshape splits and merges the heads: the transposes are missing": (
            lambda: module.o_proj(attend(jumbled_q, jumbled_k, jumbled_v).reshape(b, t, d))
        ),
        "the heads are merged without a transpose back, so the tokens are jumbled": (
            lambda: module.o_proj(attend(q, k, v).reshape(b, t, d))
        ),
        "a head is D neighbouring coordinates, but here it takes every H-th one": (
            lambda: module.o_proj(attend(every_q, every_k, every_v).permute(0, 2, 3, 1).flatten(2))
        ),
        "the scores are divided by √d_model: divide by √head_dim, the width of one head": (
            lambda: merged(attend(q, k, v, scale=1 / math.sqrt(d)))
        ),
        "the scores are divided by d, not by √d": lambda: merged(attend(q, k, v, scale=3 / d)),
        "the last matrix, self.o_proj, is missing: it mixes the heads": (
            lambda: attend(q, k, v).transpose(1, 2).flatten(2)
        ),
        "there is only one head, as wide as the model": lambda: module.o_proj(attend(*projected)),
    }


def _check_positions(implementation: type) -> None:
    """Check that `position` acts on queries and keys, split into heads, and not on values."""
    seen: list[tuple[int, ...]] = []

    def position(y: Tensor) -> Tensor:
        """Multiply the token at position t by t + 1, so that no two positions are equal."""
        seen.append(tuple(y.shape))
        return y * torch.arange(1, 1 + y.shape[-2], dtype=y.dtype)[:, None]

    module: Any = implementation(12, 6, kv_heads=2, position=position)
    module = module.double()
    x = draw(2, 5, 12)
    got = module(x).detach()
    if sorted(seen) != [(2, 2, 5, 2), (2, 6, 5, 2)]:
        raise Mistake(
            "self.position must act once on the queries, (B, H, T, D), and once on the keys, "
            f"(B, Hkv, T, D), but not on the values; it was called with {seen or 'nothing'}"
        )
    shape = (2, 5, -1, 2)
    q, k, v = (
        layer(x).view(shape).transpose(1, 2)
        for layer in (module.q_proj, module.k_proj, module.v_proj)
    )
    mixed = F.scaled_dot_product_attention(position(q), position(k), v, enable_gqa=True)
    want = module.o_proj(mixed.transpose(1, 2).flatten(2)).detach()
    expect_close(got, want, "compute the scores from what self.position returns")


@checks.proves("head_scores")
def head_scores(module: Any) -> None:
    """Check three heads on pairs of which some queries have none, and one has two."""
    weights = draw(2, 3, 5, 5).softmax(-1)
    pairs = torch.zeros(2, 5, 5, dtype=torch.bool)
    pairs[0, 1, 0] = pairs[0, 3, 1] = pairs[0, 3, 2] = pairs[1, 4, 2] = True
    on_pairs = (weights * pairs[:, None]).sum((0, 2, 3))  # (H,)
    want = on_pairs / 3
    got = module.head_scores(weights, pairs)
    if isinstance(got, Tensor) and got.shape == (2, 3):
        raise Mistake("expected (H,), got (B, H): average over the texts, too")
    mistakes: Mistakes = {
        "queries without a pair count in your average": lambda: on_pairs / 10,
        "you divide by the number of pairs, but a query with two pairs counts once": (
            lambda: on_pairs / 4
        ),
        "the sum isn't divided by the number of queries with a pair": lambda: on_pairs,
        "queries and keys are swapped": (
            lambda: (weights * pairs.mT[:, None]).sum((0, 2, 3)) / pairs.mT.any(-1).sum()
        ),
        "you divide by the number of texts and positions, B·T·T": lambda: on_pairs / 50,
    }
    name_mistake(got, mistakes)
    expect_close(got, want, "average the weight on the pairs over the queries that have one")


for _check in (
    deeper_checks.attend_with_cache,
    deeper_checks.tiled_attention,
    deeper_checks.silence,
):
    checks.proves(_check.__name__)(_check)
