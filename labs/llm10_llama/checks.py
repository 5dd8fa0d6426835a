"""Check the exercises of LLM10.

References: an explicit order of rows for `to_halves`, recorded calls for `KVCache.extend`, LLM06's
formula for `Attention.forward`, the shares of a softmax for `choose`, a module with misleading
names for `decay_groups`, and the lab's planted bugs for `diagnose`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Function = Callable[..., Any]
Mistakes = dict[str, Callable[[], Tensor]]
DRAWS = 4000
# At temperature 4, the tokens of `choose` have probabilities 0.33, 0.25 and 0.42: all three stay,
# then two, then two.
CUTS = (0.999, 0.6, 0.7)


@checks.proves("to_halves")
def to_halves(module: Any) -> None:
    """Compare with an explicit order, for two heads of six rows and for rows without columns."""
    implementation = module.to_halves
    heads = 2
    d = 6
    rows = draw(heads * d, heads * d)
    got = implementation(rows.clone(), d)
    name_mistake(got, _mistakes_of_halves(rows, heads, d))
    want = rows[_order(heads, d, (0, 2, 4, 1, 3, 5))]
    expect_close(got, want, "in each head, rows 0 1 2 3 4 5 become 0 2 4 1 3 5")
    got = implementation(torch.arange(8), 4)
    want = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7])
    expect_close(got, want, "rows without columns, (H·D,), change places in the same way")


def _order(heads: int, d: int, within: tuple[int, ...]) -> list[int]:
    """Return the order of all rows, from the order within a head."""
    return [head * d + i for head in range(heads) for i in within]


def _mistakes_of_halves(rows: Tensor, heads: int, d: int) -> Mistakes:
    order = _order(heads, d, (0, 2, 4, 1, 3, 5))
    inverse = torch.tensor(order).argsort()
    odd_first = _order(heads, d, (1, 3, 5, 0, 2, 4))
    return {
        "every row stayed where it was": lambda: rows,
        "this is the inverse, from halves to neighbours": lambda: rows[inverse],
        "each head has its own pairs: did you take all rows for one head?": lambda: torch.cat(
            (rows[::2], rows[1::2])
        ),
        "the columns changed places: a row of W makes one coordinate": lambda: rows[:, order],
        "in each head the even rows come first, then the odd rows": lambda: rows[odd_first],
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


@checks.proves("choose")
def choose(module: Any) -> None:
    """Compare the shares of 4,000 draws with a softmax; exactly where nothing is left to chance."""
    implementation = module.choose
    torch.manual_seed(0)
    logits = draw(2, 3, 9)
    got = implementation(logits.clone(), 0)
    expect_close(got, logits.argmax(-1), "at temperature 0, return the likeliest token of each")
    three = torch.tensor([1.0, 0.0, 2.0])
    _compare_shares(implementation, three)
    rows = three.expand(DRAWS, 3)
    if (_tokens(implementation(rows, 1.0, 1e-9), rows) != 2).any():
        raise Mistake("with p near 0, only the likeliest stays: top p holds at least one token")
    _try_other_axes(implementation, logits)


def _compare_shares(implementation: Function, logits: Tensor) -> None:
    """Compare how often each token comes at temperature 4; single draws need not agree."""
    rows = logits.expand(DRAWS, 3)
    shares = [_shares(implementation(rows.clone(), 4.0, p), rows) for p in CUTS]
    expected = [_top(logits / 4, p) for p in CUTS]
    for p, share, want in zip(CUTS, shares, expected, strict=True):
        if not _plausible(share, want):
            raise _wrong_shares(_cause(logits, shares), share, want, f", p = {p}")
    share = _shares(implementation(rows.clone(), 4.0), rows)
    want = (logits / 4).softmax(-1)
    if not _plausible(share, want):
        raise _wrong_shares("without p, every token stays", share, want, "")


def _cause(logits: Tensor, shares: list[Tensor]) -> str:
    """Return the message of the only mistake that explains the shares at every p."""
    explanations = [
        message
        for message, probabilities in _mistakes_of_choosing(logits).items()
        if all(_plausible(share, probabilities(p)) for share, p in zip(shares, CUTS, strict=True))
    ]
    if len(explanations) == 1:
        return explanations[0]
    return "the shares of the tokens differ from the softmax of the logits that stay"


def _shares(got: Any, logits: Tensor) -> Tensor:
    """Return how often each token was drawn, (V,)."""
    tokens = _tokens(got, logits)
    count = logits.shape[-1]
    unknown = sorted({*tokens.tolist()} - {*range(count)})
    if unknown:
        raise Mistake(f"expected tokens from 0 to {count - 1}, got {unknown[0]}")
    return tokens.bincount(minlength=count).double() / len(tokens)


def _plausible(shares: Tensor, probabilities: Tensor) -> bool:
    """Return whether shares are within 5 standard deviations; correct ones are not once in 10⁶."""
    variance = (probabilities * (1 - probabilities)).clamp(min=0) / DRAWS
    return bool(((shares - probabilities).abs() <= 5 * variance.sqrt() + 1e-6).all())


def _wrong_shares(message: str, shares: Tensor, want: Tensor, p: str) -> Mistake:
    expected = ", ".join(f"{x:.2f}" for x in want.tolist())
    got = ", ".join(f"{x:.2f}" for x in shares.tolist())
    return Mistake(
        f"{message}; of {DRAWS:,} draws at temperature 4{p}, expected shares of {expected}, got "
        f"{got}",
        message=message,
        arguments=f"{DRAWS:,} times the logits 1, 0, 2, temperature 4{p}",
        expected=f"shares of the tokens near {expected}",
        got=got,
    )


def _top(logits: Tensor, p: float, mistake: str = "") -> Tensor:
    """Return the probabilities (V,) within the top p.

    Args:
        logits: (V,).
        p: the share to keep.
        mistake: "no crossing" drops the token that crosses p, "sorted" applies the cut to the
            tokens in sorted order.
    """
    ordered, where = logits.softmax(-1).sort(-1, descending=True)
    up_to = ordered.cumsum(-1)
    stays = up_to <= p if mistake == "no crossing" else up_to - ordered < p
    if mistake != "sorted":
        stays = stays[where.argsort()]
    return logits.masked_fill(~stays, -torch.inf).softmax(-1)


def _mistakes_of_choosing(logits: Tensor) -> dict[str, Callable[[float], Tensor]]:
    """Return the probabilities at temperature 4 that each mistake gives, as functions of p."""
    soft = logits / 4

    def cut(other: Tensor, p: float, rest: Tensor) -> Tensor:
        """Draw from `rest` what is in the top p of `other`."""
        return rest.masked_fill(_top(other, p) == 0, -torch.inf).softmax(-1)

    return {
        "the token that crosses p is missing: it belongs to the nucleus": (
            lambda p: _top(soft, p, "no crossing")
        ),
        "the cut comes before the temperature: at 4, top 0.6 holds two tokens here": (
            lambda p: cut(logits, p, soft)
        ),
        "a token outside the top p was drawn: is the cut missing?": lambda _: soft.softmax(-1),
        "the logits are multiplied by the temperature: divide them": lambda p: _top(logits * 4, p),
        "the temperature isn't used": lambda p: _top(logits, p),
        "the draw doesn't use the temperature: are its logits undivided?": (
            lambda p: cut(soft, p, logits)
        ),
        "all tokens are equally frequent: are the logits used?": lambda _: torch.full((3,), 1 / 3),
        "the likeliest token came every time: is anything drawn?": (
            lambda _: torch.tensor([0.0, 0, 1])
        ),
        "the cut is in sorted order: put it back to the tokens' own places": (
            lambda p: _top(soft, p, "sorted")
        ),
        "expected tokens, got ranks: rank 0 is the likeliest token only in sorted order": (
            lambda p: _top(soft, p).sort(-1, descending=True).values
        ),
    }


def _try_other_axes(implementation: Function, logits: Tensor) -> None:
    """Try (V,) and (B, T, V), with so small a p that nothing is left to chance."""
    for batch in (logits[0, 0], logits):
        try:
            got = implementation(batch.clone(), 1.0, 1e-9)
        except Exception as error:
            raise Mistake(
                f"logits {tuple(batch.shape)} raised {type(error).__name__} ({error}), but "
                f"({DRAWS}, 3) passed: allow any axes before the last",
                arguments=f"logits {tuple(batch.shape)}, temperature 1, p = 1e-9",
            ) from error
        expect_close(_tokens(got, batch), batch.argmax(-1), "the likeliest of each, for any axes")


def _tokens(got: Any, logits: Tensor) -> Tensor:
    if not isinstance(got, Tensor):
        raise Mistake(f"expected a tensor of tokens, got {type(got).__name__}")
    if got.shape == (*logits.shape[:-1], 1):
        raise Mistake("draw returns (..., 1): take [..., 0]")
    if got.shape != logits.shape[:-1] or got.dtype != torch.int64:
        want = tuple(logits.shape[:-1])
        raise Mistake(f"expected token ids {want} int64, got {tuple(got.shape)} {got.dtype}")
    return got


class _Tied(nn.Module):
    """Misleading names: a gain called weight, a matrix called norm, a frozen and a tied matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embed.weight
        self.weight = nn.Parameter(torch.ones(4))
        self.norm = nn.Linear(4, 4, bias=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


@checks.proves("decay_groups")
def decay_groups(module: Any) -> None:
    """Check form and content of the groups of a module with misleading names."""
    model = _Tied()
    got = module.decay_groups(model, 0.3)
    _require_two_groups(got)
    matrices, others = ([id(p) for p in group["params"]] for group in got)
    both = [*matrices, *others]
    if len(both) > len(set(both)):
        raise Mistake("a parameter is listed twice: the tied matrix has two names, list it once")
    if set(both) & {id(p) for p in model.frozen.parameters()}:
        raise Mistake("an untrained parameter (requires_grad False) is listed: leave it out")
    if id(model.embed.weight) not in matrices:
        raise Mistake("the tied matrix must decay: an embedding is a matrix too")
    if {id(model.weight), id(model.head.bias)} & set(matrices):
        raise Mistake("gains and biases decay: spare every parameter with one axis")
    if id(model.norm.weight) not in matrices:
        raise Mistake("a matrix is spared because of its name: decide by its axes, p.dim()")
    missing = {id(p) for p in model.parameters() if p.requires_grad} - set(both)
    if missing:
        raise Mistake(f"{len(missing)} trained parameters are in neither group")


def _require_two_groups(got: Any) -> None:
    if not isinstance(got, list) or len(got) != 2 or not all(isinstance(one, dict) for one in got):
        raise Mistake("expected a list of two dicts, each with `params` and `weight_decay`")
    if any(not {"params", "weight_decay"} <= group.keys() for group in got):
        raise Mistake("each group needs `params` and `weight_decay`")
    decays = [group["weight_decay"] for group in got]
    if decays == [0.0, 0.3]:
        raise Mistake("the groups are swapped: first the matrices with the decay, then the rest")
    if decays != [0.3, 0.0]:
        raise Mistake(f"expected decays of 0.3 and 0, got {decays}")
    if not all(isinstance(group["params"], list) for group in got):
        raise Mistake("each group's `params` must be a list of parameters")


@checks.proves("diagnose")
def diagnose(module: Any) -> None:
    """Let it diagnose a correct model and each planted bug, with two seeds."""
    for seed in (0, 1):
        for name, plant in {"": None, **module.BUGS}.items():
            torch.manual_seed(seed)
            model = module.Llama(module.Config(40, 32, 1, 4, 2, 88, std=0.15))
            if plant is not None:
                plant(model)
            before = [p.detach().clone() for p in model.parameters()]
            got = module.diagnose(model)
            if not isinstance(got, str) or (got and got not in module.BUGS):
                raise Mistake(f"expected a name of BUGS or an empty string, got {got!r}")
            after = model.parameters()
            if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
                raise Mistake("your function changed the model: leave the weights as they are")
            if got != name:
                raise Mistake(_wrong_diagnosis(name, got))


def _wrong_diagnosis(bug: str, found: str) -> str:
    if not bug:
        return (
            f"expected no bug in a correct model, got “{found}”: is it rounding, or a test that "
            "always fails?"
        )
    return f"expected “{bug}”, got “{found}”" if found else f"expected “{bug}”, got no bug"


@checks.proves("parameter_count")
def parameter_count(module: Any) -> None:
    """Compare with the tensors of transformers' models, of a Llama, a tied Llama and a GPT-2."""
    implementation = module.parameter_count
    transformer = module.Transformer
    llama = transformer(50, 24, 3, 6, 2, 8, 28)  # heads · head_dim isn't the width
    tied = replace(llama, tied=True)
    gpt2 = transformer(50, 24, 2, 4, 4, 6, 40, tied=True, gated=False, biases=True, positions=16)
    for s in (llama, tied, gpt2):
        want = _counted(module, s)
        got = implementation(s)
        if not isinstance(got, dict) or set(got) != set(want):
            raise Mistake(f"expected a dictionary with the keys {', '.join(want)}, got {got!r}")
        if not all(isinstance(number, int) for number in got.values()):
            raise Mistake(f"expected integers, got {got!r}: is there a / in place of //?")
        mistakes = _mistakes_of_counts(s)
        for part, number in want.items():
            if got[part] != number:
                message = mistakes.get((part, got[part]), "read the list of a layer's parts again")
                raise Mistake(f"{part}: expected {number} for {s}, got {got[part]}; {message}")


def _counted(module: Any, s: Any) -> dict[str, int]:
    """Return the parameters of transformers' model of this shape, by the names of its tensors."""
    with torch.device("meta"):
        model = module.library_model(s)
    part_of = {
        "embed_tokens": "embedding",
        "wte": "embedding",
        "wpe": "positions",
        "ln_": "norms",
        "attn": "attention",
        "mlp": "ffn",
        "norm": "norms",
        "lm_head": "output",
    }
    parts = ("embedding", "positions", "attention", "ffn", "norms", "output")
    counts: dict[str, int] = dict.fromkeys(parts, 0)
    for name, parameter in model.named_parameters():  # a tied tensor comes once
        part = next(part for word, part in part_of.items() if word in name)
        counts[part] += parameter.numel()
    return counts


def _mistakes_of_counts(s: Any) -> dict[tuple[str, int], str]:
    """Return the message for each (part, number) that a known mistake results in."""
    d = s.width
    return {
        **_mistakes_of_attention_counts(s),
        **_mistakes_of_ffn_counts(s),
        ("norms", 2 * s.layers * d * (1 + s.biases)): "the last norm, after all layers, is missing",
        ("norms", (s.layers + 1) * d * (1 + s.biases)): "a layer has two norms",
        ("norms", (2 * s.layers + 1) * d): "GPT-2's norms have shifts as well as gains",
        ("norms", 2 * (2 * s.layers + 1) * d): "Llama's norms have gains and no shifts",
        ("output", s.vocabulary * d): "tied, the output is the embedding, which is already counted",
        ("output", 0): "untied, the output has a separate matrix",
        ("positions", 0): "GPT-2 learns a vector for each position",
    }


ONE_LAYER = "that is one layer: multiply by the number of layers"


def _mistakes_of_attention_counts(s: Any) -> dict[tuple[str, int], str]:
    d = s.width
    queries = s.heads * s.head_dim
    keys = s.kv_heads * s.head_dim
    biases = s.biases * (queries + 2 * keys + d)
    matrices = 2 * d * (queries + keys)
    shared = "k and v have kv_heads heads, fewer than q"
    wide = "heads · head_dim may differ from the width: q maps from width to heads · head_dim"
    no_output = "the output matrix of attention is missing"
    keys_of_width = s.kv_heads * d // s.heads
    of_a_layer = {
        4 * d * queries + biases: shared,
        4 * d * d + biases: wide,
        2 * d * (d + keys_of_width) + biases: wide,
        3 * d * queries + biases: no_output,
        d * (queries + 2 * keys) + biases: no_output,
        matrices: "are the biases missing?",
    }
    mistakes = {("attention", s.layers * number): text for number, text in of_a_layer.items()}
    return mistakes | {("attention", matrices + biases): ONE_LAYER}


def _mistakes_of_ffn_counts(s: Any) -> dict[tuple[str, int], str]:
    d = s.width
    f = s.ffn
    ways_up = 2 if s.gated else 1
    matrices = (ways_up + 1) * d * f
    two_matrices = "with a gate, it goes up twice" if s.gated else "are the biases missing?"
    return {
        ("ffn", s.layers * 2 * d * f): two_matrices,
        ("ffn", s.layers * 3 * d * f): "without a gate, it goes up once, and down",
        ("ffn", s.layers * (matrices + f)): "the bias on the way down, `width` long, is missing",
        ("ffn", matrices + s.biases * (ways_up * f + d)): ONE_LAYER,
    }
