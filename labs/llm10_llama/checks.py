"""Check the exercises of LLM10: those of its parts here, those of the model in model_checks.py.

References: cosines and sines for `turn`, recorded calls for `KVCache.extend`, LLM06's formula for
`Attention.forward`, and a block whose attention is a matrix for `Block.forward`.
"""

from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake
from labs.llm10_llama import deeper_checks, model_checks

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Mistakes = dict[str, Callable[[], Tensor]]


@checks.proves("turn")
def turn(module: Any) -> None:
    """Compare with cosines and sines, in float64 and in bfloat16."""
    x = draw(2, 5, 3, 8)
    angle = 3 * draw(5, 1, 4, seed=1)
    turns = torch.polar(torch.ones_like(angle), angle)
    got = module.turn(x.clone(), turns)
    want = _turned(x, angle)
    name_mistake(got, _mistakes_of_turns(x, angle))
    expect_close(got, want, "(a, b) becomes (a cos − b sin, a sin + b cos), pair by pair")
    low = x.bfloat16()
    try:
        got = module.turn(low.clone(), turns.to(torch.complex64))
    except RuntimeError as error:
        message = f"bfloat16 raised {error}: there is no complex bfloat16, so turn x.float()"
        raise Mistake(message) from error
    if got.dtype == torch.float32:
        raise Mistake("bfloat16 came back as float32: end with .to(x.dtype)")
    expect_close(got, _turned(low.double(), angle).bfloat16(), "bfloat16 x is turned in float32")


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    """Turn the pairs (2i, 2i + 1) of (B, T, H, D) by (T, 1, D/2)."""
    a = x[..., ::2]
    b = x[..., 1::2]
    turned = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
    return torch.stack(turned, -1).flatten(-2)


def _mistakes_of_turns(x: Tensor, angle: Tensor) -> Mistakes:
    def in_halves() -> Tensor:
        a, b = x.chunk(2, -1)
        turned = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
        return torch.cat(turned, -1)

    ordered = _turned(x, angle)
    return {
        "nothing is turned": lambda: x,
        "it turns backwards: multiply by turns, not by their conjugate": (
            lambda: _turned(x, -angle)
        ),
        "coordinate i is paired with i + D/2: here neighbours are a pair, (2i, 2i + 1)": in_halves,
        "the pairs are right, but real parts come first: view_as_real keeps them side by side": (
            lambda: torch.cat((ordered[..., ::2], ordered[..., 1::2]), -1)
        ),
        "every position is turned like position 0": lambda: _turned(x, angle[:1].expand(5, 1, 4)),
    }


@checks.proves("KVCache.extend")
def kv_cache(module: Any) -> None:
    """Fill two layers in several calls, then exceed the room."""
    cache = module.KVCache(2, (1, 2, 6, 3), draw(1))
    k = draw(1, 2, 6, 3, seed=1)
    v = draw(1, 2, 6, 3, seed=2)
    storage = cache.keys[0].data_ptr()
    _extend_empty(cache, k, v)
    _extend_again(cache, k, v)
    if cache.keys[0].data_ptr() != storage or cache.keys[0].shape[2] != 6:
        raise Mistake(
            "you replaced the room: torch.cat copies everything, so write into the existing tensors"
        )
    keys, _ = _two_tensors(cache.extend(1, v[:, :, :2], k[:, :, :2]))
    expect_close(keys, v[:, :, :2], "each layer has its own keys")
    _exceed_the_room(cache, k, v)


def _extend_empty(cache: Any, k: Tensor, v: Tensor) -> None:
    keys, values = _two_tensors(cache.extend(0, k[:, :, :4], v[:, :, :4]))
    if keys.shape == (1, 2, 6, 3):
        raise Mistake("the empty room behind the new tokens is returned too: cut it off")
    if equals(keys, v[:, :, :4]):
        raise Mistake("keys and values are swapped")
    expect_close(keys, k[:, :, :4], "after 4 keys in an empty room, return those 4")
    expect_close(values, v[:, :, :4], "after 4 values in an empty room, return those 4")
    filled = cache.filled
    if filled == [0, 0]:
        raise Mistake("self.filled isn't updated: the next tokens would overwrite these")
    if filled == [4, 4]:
        raise Mistake("self.filled is updated for every layer: a layer counts only its own tokens")
    if filled != [4, 0]:
        raise Mistake(f"after 4 tokens in layer 0, expected self.filled == [4, 0], got {filled}")


def _extend_again(cache: Any, k: Tensor, v: Tensor) -> None:
    keys, values = _two_tensors(cache.extend(0, k[:, :, 4:5], v[:, :, 4:5]))
    overwritten = torch.cat((k[:, :, 4:5], k[:, :, 1:4], torch.zeros_like(k[:, :, :1])), 2)
    mistakes: Mistakes = {
        "only the new tokens are returned: attention needs all that the layer holds": lambda: k[
            :, :, 4:5
        ],
        "the new tokens replaced the first: write from self.filled[layer] on": lambda: overwritten,
    }
    name_mistake(keys, mistakes)
    expect_close(keys, k[:, :, :5], "after 4 keys and 1 more, return all 5 in order")
    expect_close(values, v[:, :, :5], "after 4 values and 1 more, return all 5 in order")


def _two_tensors(got: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(got, tuple) or len(got) != 2 or not all(isinstance(x, Tensor) for x in got):
        raise Mistake(f"expected two tensors, keys and values, got {type(got).__name__}")
    return got


def _exceed_the_room(cache: Any, k: Tensor, v: Tensor) -> None:
    before = [x.clone() for x in (*cache.keys, *cache.values)]
    try:
        cache.extend(0, k[:, :, :2], v[:, :, :2])
    except ValueError:
        pass
    except Exception as error:
        message = f"for 7 tokens in room for 6, raise a ValueError, not a {type(error).__name__}"
        raise Mistake(message) from error
    else:
        raise Mistake("for 7 tokens in room for 6, raise a ValueError: a slice is cut silently")
    after = (*cache.keys, *cache.values)
    same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    if cache.filled != [5, 2] or not same:
        raise Mistake("tokens that don't fit must change nothing: compare before you write")


@checks.proves("Attention.forward")
def attention(module: Any) -> None:
    """Compare with LLM06's formula: bare, with positions, and with a cache."""
    layer = module.Attention(16, 4, 2).double()
    with torch.no_grad():
        for i, weight in enumerate(layer.parameters()):
            weight.copy_(draw(*weight.shape, seed=i) / 2)
        angle = draw(5, 1, 2, seed=9) * 3
        turns = torch.polar(torch.ones_like(angle), angle)
        x = draw(2, 5, 16, seed=8)
        _attend_without_positions(layer, x)
        _attend_with_positions(layer, x, turns)
        _attend_with_a_cache(layer, x, turns)
        _attend_with_a_mask(layer, x, turns)


def _attend_without_positions(layer: Any, x: Tensor) -> None:
    got = layer(x)
    mistakes: Mistakes = {
        "the causal mask is missing: a query must not look ahead": lambda: _attention(
            layer, x, None, causal=False
        )
    }
    name_mistake(got, {**mistakes, **_mistakes_of_merging(layer, x, None)})
    want = _attention(layer, x, None)
    expect_close(got, want, "without positions and cache: project, split into heads, attend, merge")


def _attend_with_positions(layer: Any, x: Tensor, turns: Tensor) -> None:
    got = layer(x, turns)
    mistakes = _mistakes_of_turning(layer, x, turns)
    name_mistake(got, {**mistakes, **_mistakes_of_merging(layer, x, turns)})
    want = _attention(layer, x, turns)
    expect_close(got, want, "project, split into heads, turn, attend, merge")


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate (B, T, H, D)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)


def _heads(layer: Any, x: Tensor, turns: Tensor | None, turned: str = "qk") -> list[Tensor]:
    """Return queries, keys and values, (B, H, T, D); `turned` lists those that are rotated."""
    heads: list[Tensor] = []
    for name in "qkv":
        y = getattr(layer, f"{name}_proj")(x).unflatten(-1, (-1, 4))  # (B, T, H, D)
        if turns is not None and name in turned:
            y = _turn(y, turns)
        heads.append(y.transpose(1, 2))
    return heads


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> Tensor:
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
    return F.scaled_dot_product_attention(q, k, v, mask if causal else None, enable_gqa=True)


def _merge(layer: Any, y: Tensor) -> Tensor:
    """Merge the heads of (B, H, T, D) and apply the last matrix."""
    return layer.o_proj(y.transpose(1, 2).flatten(2))


def _attention(
    layer: Any, x: Tensor, turns: Tensor | None, turned: str = "qk", causal: bool = True
) -> Tensor:
    q, k, v = _heads(layer, x, turns, turned)
    return _merge(layer, _attend(q, k, v, causal))


def _mistakes_of_turning(layer: Any, x: Tensor, turns: Tensor) -> Mistakes:
    messages = {
        "": "nothing is turned: without `turn` the model knows no order",
        "q": "the keys aren't turned: turn them, so that only the distance counts",
        "k": "the queries aren't turned: turn them, so that only the distance counts",
        "qkv": "the values are turned too: turn only queries and keys",
    }
    return {
        message: lambda turned=turned: _attention(layer, x, turns, turned)
        for turned, message in messages.items()
    }


def _mistakes_of_merging(layer: Any, x: Tensor, turns: Tensor | None) -> Mistakes:
    q, k, v = _heads(layer, x, turns)
    y = _attend(q, k, v)
    repeated = _attend(q, k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1))
    return {
        "the heads are merged without transposing back, which mixes tokens": lambda: layer.o_proj(
            y.reshape(x.shape)
        ),
        "the last matrix, o_proj, is missing": lambda: y.transpose(1, 2).flatten(2),
        "query heads 0 and 1 share key-value head 0: self.mix sees to that": lambda: _merge(
            layer, repeated
        ),
    }


def _attend_with_a_cache(layer: Any, x: Tensor, turns: Tensor) -> None:
    """Pass the last two of five tokens; a stand-in for the cache holds the first three."""
    q, k, v = _heads(layer, x, turns)
    calls: list[tuple[Any, Any]] = []

    def extend(new_k: Tensor, new_v: Tensor) -> tuple[Tensor, Tensor]:
        calls.append((new_k, new_v))
        return torch.cat((k[:, :, :3], new_k), 2), torch.cat((v[:, :, :3], new_v), 2)

    got = layer(x[:, 3:], turns[3:], extend)
    if len(calls) != 1:
        raise Mistake(
            f"call `extend` once, with the new keys and values; you called it {len(calls)} times"
        )
    new_k, new_v = calls[0]
    if not isinstance(new_k, Tensor) or new_k.shape != (2, 2, 2, 4):
        raise Mistake("`extend` takes keys of shape (B, H_kv, T, D): transpose before")
    if equals(new_k, _heads(layer, x[:, 3:], None)[1]):
        raise Mistake("keys go into the cache before they are turned: turn them first")
    expect_close(new_k, k[:, :, 3:], "the keys that go into the cache")
    expect_close(new_v, v[:, :, 3:], "the values that go into the cache")
    alone = _merge(layer, _attend(q[:, :, 3:], k[:, :, 3:], v[:, :, 3:]))
    mistake = "the result of `extend` isn't used: the new queries see only the new keys"
    name_mistake(got, {mistake: lambda: alone})
    want = _attention(layer, x, turns)[:, 3:]
    expect_close(got, want, "the new queries see all keys that `extend` returns")


def _attend_with_a_mask(layer: Any, x: Tensor, turns: Tensor) -> None:
    """Let the second text of the batch begin with two tokens of padding."""
    mask = torch.ones(5, 5, dtype=torch.bool).tril().repeat(2, 1, 1, 1)  # (B, 1, T, T)
    mask[1, 0, 2:, :2] = False
    got = layer(x, turns, None, mask)
    mistake = "the mask isn't passed to self.mix: padding is seen"
    name_mistake(got, {mistake: lambda: _attention(layer, x, turns)})
    q, k, v = _heads(layer, x, turns)
    seen = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    expect_close(got, _merge(layer, seen), "self.mix gets the mask as its fourth argument")


class _Stub(nn.Module):
    """In place of attention: a matrix; it records its other arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = draw(8, 8, seed=3)
        self.calls: list[tuple[Any, Any, Any]] = []

    def forward(self, x: Tensor, turns: Any = None, extend: Any = None, mask: Any = None) -> Tensor:
        """Multiply by the matrix."""
        self.calls.append((turns, extend, mask))
        return x @ self.weight


@checks.proves("Block.forward")
def block(module: Any) -> None:
    """Compare with both branches written out; attention is a stand-in."""
    layer = module.Block(module.Config(9, 8, 1, 2, 1, 12)).double()
    layer.self_attn = _Stub()
    with torch.no_grad():
        layer.input_layernorm.weight.copy_(1 + draw(8, seed=5).abs())
        layer.post_attention_layernorm.weight.copy_(1 + draw(8, seed=6).abs())
        for matrix in layer.mlp.parameters():
            matrix.copy_(draw(*matrix.shape, seed=7))
        x = draw(2, 3, 8)
        arguments = ("the turns", "the cache", "the mask")
        got = layer(x.clone(), *arguments)
        if layer.self_attn.calls[-1:] != [arguments]:
            raise Mistake("pass turns, extend and mask on to self.self_attn, in this order")
        name_mistake(got, _mistakes_of_blocks(layer, x))
        first = x + layer.self_attn(layer.input_layernorm(x))
        want = first + layer.mlp(layer.post_attention_layernorm(first))
        expect_close(got, want, "x + attention(norm(x)), then x + mlp(norm(x))")


def _mistakes_of_blocks(layer: Any, x: Tensor) -> Mistakes:
    attend = layer.self_attn
    norm = layer.input_layernorm
    second = layer.post_attention_layernorm
    first = x + attend(norm(x))
    return {
        "the second branch starts from the old x: use what the first one returned": (
            lambda: first + layer.mlp(second(x))
        ),
        "this is Post-Norm: norm what goes into a branch, not the sum": (
            lambda: second(norm(x + attend(x)) + layer.mlp(norm(x + attend(x))))
        ),
        "a branch is added to its normed input: add it to x itself": (
            lambda: second(norm(x) + attend(norm(x))) + layer.mlp(second(norm(x) + attend(norm(x))))
        ),
        "the second branch isn't added to x: its output alone is returned": (
            lambda: layer.mlp(second(first))
        ),
        "the first branch isn't added to x": (
            lambda: attend(norm(x)) + layer.mlp(second(attend(norm(x))))
        ),
        "the two norms are swapped": lambda: (
            x + attend(second(x)) + layer.mlp(norm(x + attend(second(x))))
        ),
        "the second norm is missing": lambda: first + layer.mlp(first),
    }


for _part, _check in {
    "Llama.tie": model_checks.tie,
    "Llama.forward": model_checks.forward,
    "generate": model_checks.generate,
    "training_step": model_checks.training_step,
    "diagnose": deeper_checks.diagnose,
    "parameter_count": deeper_checks.parameter_count,
}.items():
    checks.proves(_part)(_check)
