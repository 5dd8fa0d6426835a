"""Check the exercises of LLM06+ against PyTorch's own kernels, or a loop."""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, draw, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[..., Any]
Mistakes = dict[str, Callable[[], Tensor]]  # by message: the result that each mistake gives


def attend_with_cache(module: Any) -> None:
    """Check a prompt of three tokens, then two at once, then one, against the text at once."""
    q = draw(2, 3, 6, 4)
    k = draw(2, 3, 6, 4, seed=1)
    v = draw(2, 3, 6, 5, seed=2)
    want = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    cache = None
    for start, end in ((0, 3), (3, 5), (5, 6)):
        new = slice(start, end)
        returned = module.attend_with_cache(q[..., new, :], k[..., new, :], v[..., new, :], cache)
        if not isinstance(returned, tuple) or len(returned) != 2 or len(returned[1]) != 2:
            raise Mistake("return two things: the outputs, and the cache, (keys, values)")
        got, cache = returned
        name_mistake(got, _mistakes_of_caches(q, k, v, new))
        expect_close(got, want[..., new, :], f"tokens {start} to {end - 1}, {start} in the cache")
        for part, given, stored in (("keys", k, cache[0]), ("values", v, cache[1])):
            if stored.shape[-2] == end - start < end:
                raise Mistake(f"the cache has only the new {part}: return those before them, too")
            expect_close(stored, given[..., :end, :], f"all {part} so far, the oldest first")


def _mistakes_of_caches(q: Tensor, k: Tensor, v: Tensor, new: slice) -> Mistakes:
    """Return the result of each known mistake for the new tokens, where it differs."""
    attend = F.scaled_dot_product_attention
    queries = q[..., new, :]
    seen = slice(0, new.stop)
    both = (k[..., seen, :], v[..., seen, :])
    want = attend(q, k, v, is_causal=True)[..., new, :]
    candidates: Mistakes = {
        "a new token sees later new tokens: mask them with causal_mask": (
            lambda: attend(queries, *both)
        ),
        "the mask is aligned top-left, but the new queries are the last positions": (
            lambda: attend(queries, *both, is_causal=True)
        ),
        "the new tokens don't see the cache": (
            lambda: attend(queries, k[..., new, :], v[..., new, :], is_causal=True)
        ),
    }
    return {message: f for message, f in candidates.items() if not torch.allclose(f(), want)}


def tiled_attention(module: Any) -> None:
    """Check block sizes from 1 to more than all keys, extreme scores, and the memory."""
    implementation = module.tiled_attention
    attend = F.scaled_dot_product_attention
    q = draw(2, 3, 10, 4)
    k = draw(2, 3, 10, 4, seed=1)
    v = draw(2, 3, 10, 6, seed=2)
    want = attend(q, k, v)
    for block in (10, 4, 3, 16, 1):
        got = implementation(q, k, v, block=block)
        name_mistake(got, _mistakes_of_tiles(q, k, v, block) if block < 10 else {})
        name_mistake(got, _mistakes_of_scale(q, k, v))
        expect_close(got, want, f"10 keys in blocks of {block}: do you rescale the sum and values?")
    large = 500 * q
    got = implementation(large, k, v, block=4)
    expect_close(got, attend(large, k, v), "large scores: does exp overflow?")
    ones = torch.ones_like(q)
    low = -2000 * torch.ones_like(k)
    got = implementation(ones, low, v, block=4)
    message = "all scores far below 0: does the maximum start above them, so that every exp is 0?"
    expect_close(got, attend(ones, low, v), message)
    _check_largest_tensor(implementation)


def _mistakes_of_scale(q: Tensor, k: Tensor, v: Tensor) -> Mistakes:
    """Return the result of each known mistake in dividing scores and weights."""
    attend = F.scaled_dot_product_attention
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return {
        "the scores are divided by d, not by √d": lambda: attend(q, k, v, scale=1 / q.shape[-1]),
        "the division by √d is missing": lambda: attend(q, k, v, scale=1.0),
        "the division by the sum, at the end, is missing": (
            lambda: (scores - scores.amax(-1, keepdim=True)).exp() @ v
        ),
    }


def _mistakes_of_tiles(q: Tensor, k: Tensor, v: Tensor, block: int) -> Mistakes:
    """Return the result of each known mistake in rescaling when the maximum grows."""

    def online(rescale_total: bool, rescale_mixed: bool) -> Tensor:
        top = q.new_full((*q.shape[:-1], 1), -math.inf)
        total = torch.zeros_like(top)
        mixed = q.new_zeros(*q.shape[:-1], v.shape[-1])
        for keys, values in zip(k.split(block, -2), v.split(block, -2), strict=True):
            scores = q @ keys.mT / math.sqrt(q.shape[-1])
            new_top = torch.maximum(top, scores.amax(-1, keepdim=True))
            shrink = (top - new_top).exp()
            weights = (scores - new_top).exp()
            total = (total * shrink if rescale_total else total) + weights.sum(-1, keepdim=True)
            mixed = (mixed * shrink if rescale_mixed else mixed) + weights @ values
            top = new_top
        return mixed / total

    def each_tile_alone() -> Tensor:
        tiles = zip(k.split(block, -2), v.split(block, -2), strict=True)
        mixed = [F.scaled_dot_product_attention(q, keys, values) for keys, values in tiles]
        return torch.stack(mixed).mean(0)

    return {
        "the sum and the values so far aren't rescaled when the maximum grows": (
            lambda: online(False, False)
        ),
        "the sum so far isn't rescaled when the maximum grows": lambda: online(False, True),
        "the values so far aren't rescaled when the maximum grows": lambda: online(True, False),
        "each tile has a separate softmax: all tiles need one common denominator": each_tile_alone,
    }


def _check_largest_tensor(implementation: Function) -> None:
    """Check that no intermediate tensor holds entire rows of scores."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            del types
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    # Tiles of the keys need 64 · 4 numbers; tiles of the queries alone need 4 · 512.
    q = draw(64, 1)
    k = draw(512, 1, seed=1)
    v = draw(512, 1, seed=2)
    with Watch():
        implementation(q, k, v, block=4)
    if largest > 512:
        raise Mistake(
            f"for 64 queries and 512 keys in blocks of 4, your code makes a tensor of {largest:,} "
            "numbers, which holds entire rows of scores: split the keys, not the queries"
        )


def silence(module: Any) -> None:
    """Check the first and the last of three heads, one hook alone and two, and their removal."""
    projection = nn.Linear(12, 7).double()
    with torch.no_grad():
        projection.weight.copy_(draw(7, 12, seed=1))
        projection.bias.copy_(draw(7, seed=2))
    weights = projection.weight.clone()
    x = draw(2, 5, 12)
    given = x.clone()
    full = projection(x).detach()
    for head in (0, 2):
        handle = module.silence(projection, head, 4)
        if not hasattr(handle, "remove"):
            raise Mistake("return the handle of the hook: without it nobody can remove the hook")
        got = projection(x).detach()
        if not torch.equal(projection.weight, weights):
            raise Mistake("the weights have changed: change the hook's input instead")
        if not torch.equal(x, given):
            raise Mistake("your hook changes the input tensor itself: clone it first")
        name_mistake(got, _mistakes_of_silence(projection, x, head))
        want = projection.forward(_without(x, head)).detach()
        expect_close(got, want, "set the `width` coordinates of the head to 0, and no others")
        handle.remove()
        after = projection(x).detach()
        expect_close(after, full, "after remove() the head must be back")
    handles = [module.silence(projection, head, 4) for head in (0, 2)]
    got = projection(x).detach()
    want = projection.forward(_without(_without(x, 0), 2)).detach()
    expect_close(got, want, "with two hooks, both heads must be silent")
    for handle in handles:
        handle.remove()


def _without(x: Tensor, head: int) -> Tensor:
    """Return (..., 3 · 4) with one of the three heads set to 0."""
    heads = x.unflatten(-1, (3, 4)).clone()
    heads[..., head, :] = 0
    return heads.flatten(-2)


def _mistakes_of_silence(projection: nn.Linear, x: Tensor, head: int) -> Mistakes:
    """Return the result of each known mistake, for heads of width 4."""

    def with_zeros(at: slice) -> Tensor:
        changed = x.clone()
        changed[..., at] = 0
        return projection.forward(changed).detach()

    def with_zero_outputs() -> Tensor:
        output = projection.forward(x).detach().clone()
        output[..., 4 * head : 4 * head + 4] = 0
        return output

    mistakes: Mistakes = {
        "the output doesn't change: does the hook return the changed input?": (
            lambda: projection.forward(x).detach()
        ),
        "a head is `width` neighbouring coordinates, but here it is every H-th one": (
            lambda: with_zeros(slice(head, None, 3))
        ),
        "the slice must start at head · width": lambda: with_zeros(slice(head, head + 4)),
        "all other heads are silenced, and this one isn't": (
            lambda: projection.forward(x - _without(x, head)).detach()
        ),
        "all heads are silenced": lambda: with_zeros(slice(None)),
        "you silence outputs of the projection: a pre-hook changes its input": with_zero_outputs,
    }
    if head:
        mistakes["heads are counted from 0, but you silence the one before"] = lambda: with_zeros(
            slice(4 * head - 4, 4 * head)
        )
    else:
        del mistakes["the slice must start at head · width"]  # it does, for the first head
    return mistakes
