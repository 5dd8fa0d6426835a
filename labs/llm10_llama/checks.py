"""What proves the parts of LLM10 right. References: loops, LLM06's formula, and planted bugs."""

from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Function = Callable[..., Any]


@checks.proves("to_halves")
def to_halves(module: Any) -> None:
    implementation = module.to_halves
    heads, d = 2, 6
    rows = draw(heads * d, heads * d)
    order = [h * d + i for h in range(heads) for i in (0, 2, 4, 1, 3, 5)]
    got, want = implementation(rows.clone(), d), rows[order]
    back = torch.tensor(order).argsort()
    name_mistake(
        got,
        {
            "every row stayed where it was": lambda: rows,
            "that is the way back, from halves to neighbours": lambda: rows[back],
            "each head has pairs of its own: is the whole matrix taken for one head?": lambda: (
                torch.cat((rows[::2], rows[1::2]))
            ),
            "the columns changed places: a row of W makes one coordinate": lambda: rows[:, order],
            "in a head the even rows come first, then the odd ones": lambda: rows[
                [h * d + i for h in range(heads) for i in (1, 3, 5, 0, 2, 4)]
            ],
        },
    )
    expect_close(got, want, "in each head 0 1 2 3 4 5 become 0 2 4 1 3 5")
    message = "rows without columns, (H·D,), are reordered alike"
    expect_close(
        implementation(torch.arange(8), 4), torch.tensor([0, 2, 1, 3, 4, 6, 5, 7]), message
    )


@checks.proves("KVCache.extend")
def kv_cache(module: Any) -> None:
    implementation = module.KVCache
    kept = implementation(2, (1, 2, 6, 3), draw(1))
    k, v = draw(1, 2, 6, 3, seed=1), draw(1, 2, 6, 3, seed=2)
    rooms = kept.keys[0].data_ptr()
    first = _two(kept.extend(0, k[:, :, :4], v[:, :, :4]))
    if first[0].shape == (1, 2, 6, 3):
        raise Mistake("the empty room behind the new ones is returned, too: cut at what is filled")
    if equals(first[0], v[:, :, :4]):
        raise Mistake("keys and values are swapped")
    expect_close(first[0], k[:, :, :4], "into an empty room go 4 keys, and 4 come back")
    expect_close(first[1], v[:, :, :4], "into an empty room go 4 values, and 4 come back")
    _counts(kept.filled)
    second = _two(kept.extend(0, k[:, :, 4:5], v[:, :, 4:5]))
    name_mistake(
        second[0],
        {
            "only the new ones came back: attention needs all that the layer holds": lambda: k[
                :, :, 4:5
            ],
            "the new ones replaced the first: write from self.filled[layer] on": lambda: torch.cat(
                (k[:, :, 4:5], k[:, :, 1:4], torch.zeros_like(k[:, :, :1])), 2
            ),
        },
    )
    expect_close(second[0], k[:, :, :5], "4 keys and then one more make 5, in order")
    expect_close(second[1], v[:, :, :5], "4 values and then one more make 5, in order")
    if kept.keys[0].data_ptr() != rooms or kept.keys[0].shape[2] != 6:
        raise Mistake(
            "the room was made anew: torch.cat copies everything, write into what is there"
        )
    other = _two(kept.extend(1, v[:, :, :2], k[:, :, :2]))
    expect_close(other[0], v[:, :, :2], "each layer has keys of its own")
    _no_room(kept, k, v)


def _two(got: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(got, tuple) or len(got) != 2 or not all(isinstance(x, Tensor) for x in got):
        raise Mistake(f"two tensors were expected, keys and values; {type(got).__name__} came")
    return got


def _counts(filled: Any) -> None:
    if filled == [0, 0]:
        raise Mistake("self.filled isn't counted up: the next tokens would overwrite these")
    if filled == [4, 4]:
        raise Mistake("every layer was counted up: a layer counts its own tokens alone")
    if filled != [4, 0]:
        raise Mistake(f"4 tokens in layer 0 make self.filled [4, 0], not {filled}")


def _no_room(kept: Any, k: Tensor, v: Tensor) -> None:
    before = [x.clone() for x in (*kept.keys, *kept.values)]
    try:
        kept.extend(0, k[:, :, :2], v[:, :, :2])
    except ValueError:
        pass
    except Exception as error:
        raise Mistake(
            f"7 tokens in room for 6: a ValueError, not {type(error).__name__}"
        ) from error
    else:
        raise Mistake("7 tokens in room for 6 must be a ValueError: a slice is cut off silently")
    after = (*kept.keys, *kept.values)
    if kept.filled != [5, 2] or any(
        not torch.equal(a, b) for a, b in zip(before, after, strict=True)
    ):
        raise Mistake("what didn't fit must change nothing: look before you write")


@checks.proves("Attention.forward")
def attention(module: Any) -> None:
    implementation = module.Attention
    module = implementation(16, 4, 2).double()
    with torch.no_grad():
        for i, weight in enumerate(module.parameters()):
            weight.copy_(draw(*weight.shape, seed=i) / 2)
    angle = draw(5, 1, 2, seed=9) * 3
    turns, x = torch.polar(torch.ones_like(angle), angle), draw(2, 5, 16, seed=8)
    with torch.no_grad():
        bare = {"a triangle is missing: a query must not look ahead": lambda: (
            _attention(module, x, None, causal=False))}  # fmt: skip
        got = module(x)
        name_mistake(got, {**bare, **_merges(module, x, None)})
        expect_close(got, _attention(module, x, None), "without positions and without a cache")
        got = module(x, turns)
        name_mistake(got, {**_turnings(module, x, turns), **_merges(module, x, turns)})
        expect_close(
            got, _attention(module, x, turns), "project, name the heads, turn, attend, mix"
        )
        _with_a_cache(module, x, turns)


def _turn(x: Tensor, turns: Tensor) -> Tensor:  # (B, T, H, D)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)


def _heads(module: Any, x: Tensor, turns: Tensor | None, turned: str = "qk") -> list[Tensor]:
    """Queries, keys and values, (B, H, T, D); `turned` says which of them are turned."""
    found: list[Tensor] = []
    for name in "qkv":
        y = getattr(module, f"{name}_proj")(x).unflatten(-1, (-1, 4))  # (B, T, H, D)
        y = _turn(y, turns) if turns is not None and name in turned else y
        found.append(y.transpose(1, 2))
    return found


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> Tensor:
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
    return F.scaled_dot_product_attention(q, k, v, mask if causal else None, enable_gqa=True)


def _attention(
    module: Any, x: Tensor, turns: Tensor | None, turned: str = "qk", causal: bool = True
) -> Tensor:
    mixed = _attend(*_heads(module, x, turns, turned), causal=causal)
    return module.o_proj(mixed.transpose(1, 2).flatten(2))


def _turnings(module: Any, x: Tensor, turns: Tensor) -> dict[str, Callable[[], Tensor]]:
    names = {
        "": "nothing is turned: without `turn` the model knows no order",
        "q": "the keys aren't turned: only the distance should count",
        "k": "the queries aren't turned: only the distance should count",
        "qkv": "values are turned, too: a value is handed over as it is",
    }
    return {
        message: lambda turned=turned: _attention(module, x, turns, turned)
        for turned, message in names.items()
    }


def _merges(module: Any, x: Tensor, turns: Tensor | None) -> dict[str, Callable[[], Tensor]]:
    def mixed() -> Tensor:
        return _attend(*_heads(module, x, turns))  # (B, H, T, D)

    def dealt_out() -> Tensor:
        q, k, v = _heads(module, x, turns)
        k, v = (y.repeat(1, 2, 1, 1) for y in (k, v))
        return module.o_proj(_attend(q, k, v).transpose(1, 2).flatten(2))

    return {
        "the heads are merged without a transpose back: tokens are jumbled": lambda: module.o_proj(
            mixed().reshape(x.shape)
        ),
        "the last matrix, o_proj, is missing": lambda: mixed().transpose(1, 2).flatten(2),
        "query heads 0 and 1 share key-value head 0: self.mix sees to that": dealt_out,
    }


def _with_a_cache(module: Any, x: Tensor, turns: Tensor) -> None:
    """Three tokens are kept; the last two come with their own turns."""
    q, k, v = _heads(module, x, turns)
    given: list[Any] = []

    def extend(new_k: Tensor, new_v: Tensor) -> tuple[Tensor, Tensor]:
        given.append((new_k, new_v))
        return torch.cat((k[:, :, :3], new_k), 2), torch.cat((v[:, :, :3], new_v), 2)

    got = module(x[:, 3:], turns[3:], extend)
    if len(given) != 1:
        raise Mistake(f"`extend` must be called once, with the new keys and values: {len(given)}×")
    new_k = given[0][0]
    if not isinstance(new_k, Tensor) or new_k.shape != (2, 2, 2, 4):
        raise Mistake("`extend` takes keys of shape (B, H_kv, T, D): transpose before")
    if equals(new_k, _heads(module, x[:, 3:], None)[1]):
        raise Mistake("keys go into the cache before they are turned: turn them first")
    expect_close(new_k, k[:, :, 3:], "the keys that are kept")
    expect_close(given[0][1], v[:, :, 3:], "the values that are kept")
    alone = module.o_proj(_attend(q[:, :, 3:], k[:, :, 3:], v[:, :, 3:]).transpose(1, 2).flatten(2))
    name_mistake(got, {"what `extend` returns isn't used: the new look only at the new": (
        lambda: alone)})  # fmt: skip
    want = _attention(module, x, turns)[:, 3:]
    expect_close(got, want, "the new queries look at all that `extend` returns")


class _Tied(nn.Module):
    """Misleading names: a gain called weight, a matrix called norm, a frozen one, a shared one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.head.weight = self.embed.weight
        self.weight = nn.Parameter(torch.ones(4))
        self.norm = nn.Linear(4, 4, bias=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


@checks.proves("decay_groups")
def decay_groups(module: Any) -> None:
    implementation = module.decay_groups
    model = _Tied()
    got = implementation(model, 0.3)
    if not isinstance(got, list) or len(got) != 2 or not all(isinstance(one, dict) for one in got):
        raise Mistake("a list of two dicts was expected, with `params` and `weight_decay` each")
    if any(not {"params", "weight_decay"} <= one.keys() for one in got):
        raise Mistake("each group needs `params` and `weight_decay`")
    decays = [one["weight_decay"] for one in got]
    if decays == [0.0, 0.3]:
        raise Mistake("the matrices come first, with the decay, then the rest, with 0")
    if decays != [0.3, 0.0]:
        raise Mistake(f"the decays should be 0.3 and 0, not {decays}")
    if not all(isinstance(one["params"], list) for one in got):
        raise Mistake("each group's `params` should be a list of parameters")
    groups = [[id(p) for p in one["params"]] for one in got]
    found = [one for group in groups for one in group]
    if len(found) > len(set(found)):
        raise Mistake("a parameter comes twice: the shared matrix has two names, and is one")
    if found and set(found) & {id(p) for p in model.frozen.parameters()}:
        raise Mistake("what isn't trained (requires_grad False) has no place in an optimizer")
    if id(model.embed.weight) not in groups[0]:
        raise Mistake("the shared matrix must decay: an embedding is a matrix, too")
    if {id(model.weight), id(model.head.bias)} & set(groups[0]):
        raise Mistake("gains and biases are pulled to 0: what has one axis is spared")
    if id(model.norm.weight) not in groups[0]:
        raise Mistake("a matrix is spared for its name: its axes tell, p.dim()")
    missing = {id(p) for p in model.parameters() if p.requires_grad} - set(found)
    if missing:
        raise Mistake(f"{len(missing)} trained parameters are in neither group")


@checks.proves("choose")
def choose(module: Any) -> None:
    implementation = module.choose
    torch.manual_seed(0)
    likely = draw(2, 3, 9)
    got = implementation(likely.clone(), 0)
    expect_close(got, likely.argmax(-1), "at temperature 0, the likeliest of each")
    logits = torch.tensor([1.0, 0.0, 2.0])
    _shares_are_those_of_softmax(implementation, logits)
    many = logits.expand(DRAWS, 3)
    if (_drawn(implementation(many, 1.0, 1e-9), many) != 2).any():
        raise Mistake("p near 0 leaves the likeliest: top p holds at least one token")
    _takes_any_axes(implementation, likely)


DRAWS = 4000
CUTS = (0.999, 0.6, 0.7)  # at temperature 4, of 0.33, 0.25 and 0.42: all, two, and two stay


def _shares_are_those_of_softmax(implementation: Function, logits: Tensor) -> None:
    """How often each token comes, at temperature 4: the draws themselves need not agree."""
    many = logits.expand(DRAWS, 3)
    shares = [_shares(implementation(many.clone(), 4.0, p), many) for p in CUTS]
    right = [_top(logits / 4, p) for p in CUTS]
    wrong = [n for n in range(len(CUTS)) if not _may_come(shares[n], right[n])]
    if wrong:
        n = wrong[0]
        raise _of_shares(_cause(logits, shares), shares[n], right[n], f", p = {CUTS[n]}")
    whole = _shares(implementation(many.clone(), 4.0), many)
    if not _may_come(whole, (logits / 4).softmax(-1)):
        raise _of_shares("without p nothing is cut", whole, (logits / 4).softmax(-1), "")


def _cause(logits: Tensor, shares: list[Tensor]) -> str:
    """The one mistake that explains the shares at every p; where several do, or none, no cause."""
    named = [
        message
        for message, way in _ways_to_choose_wrong(logits).items()
        if all(_may_come(one, way(p)) for one, p in zip(shares, CUTS, strict=True))
    ]
    unknown = "the shares of the tokens aren't those of the softmax of what is left"
    return named[0] if len(named) == 1 else unknown


def _shares(got: Any, logits: Tensor) -> Tensor:
    tokens = _drawn(got, logits)
    if not ((tokens >= 0) & (tokens < logits.shape[-1])).all():
        found = sorted({*tokens.tolist()} - {*range(logits.shape[-1])})
        raise Mistake(f"token {found[0]} was drawn, and there are 0 to {logits.shape[-1] - 1}")
    return tokens.bincount(minlength=logits.shape[-1]).double() / len(tokens)


def _may_come(shares: Tensor, probabilities: Tensor) -> bool:
    """Within five standard deviations of the binomial: once in 10⁶ a right share is outside."""
    spread = (probabilities * (1 - probabilities)).clamp(min=0) / DRAWS
    return bool(((shares - probabilities).abs() <= 5 * spread.sqrt() + 1e-6).all())


def _of_shares(message: str, shares: Tensor, right: Tensor, p: str) -> Mistake:
    ours, theirs = (", ".join(f"{x:.2f}" for x in one.tolist()) for one in (right, shares))
    return Mistake(
        f"{message}; of {DRAWS:,} draws at temperature 4{p} the shares should be {ours}, not "
        f"{theirs}",
        message=message,
        arguments=f"{DRAWS:,} times the logits 1, 0, 2, temperature 4{p}",
        expected=f"shares of the tokens near {ours}",
        got=theirs,
    )


def _top(logits: Tensor, p: float, way: str = "") -> Tensor:
    """Probabilities (V,) within the top p; `way` is how the cut goes wrong."""
    ordered, where = logits.softmax(-1).sort(-1, descending=True)
    up_to, rank = ordered.cumsum(-1), where.argsort()
    kept = up_to <= p if way == "without what crosses" else up_to - ordered < p
    kept = kept if way == "in sorted order" else kept[rank]
    return logits.masked_fill(~kept, -torch.inf).softmax(-1)


def _ways_to_choose_wrong(logits: Tensor) -> dict[str, Callable[[float], Tensor]]:
    """What each mistake makes of p: probabilities at temperature 4."""
    soft = logits / 4

    def cut_by(other: Tensor, p: float) -> Tensor:
        return soft.masked_fill(_top(other, p) == 0, -torch.inf).softmax(-1)

    return {
        "the token that crosses p is missing: it belongs to the nucleus": (
            lambda p: _top(soft, p, "without what crosses")
        ),
        "the cut comes before the temperature: at 4, top 0.6 holds two tokens here": (
            lambda p: cut_by(logits, p)
        ),
        "a token outside the top p was drawn: is the cut missing?": lambda _: soft.softmax(-1),
        "is it multiplied by the temperature? Divide the logits": lambda p: _top(logits * 4, p),
        "the temperature isn't used": lambda p: _top(logits, p),
        "the draw itself isn't at the temperature: are logits undivided?": lambda p: (
            logits.masked_fill(_top(soft, p) == 0, -torch.inf).softmax(-1)
        ),
        "all tokens come alike: are the logits used?": lambda _: torch.full((3,), 1 / 3),
        "the likeliest came each time: is anything drawn?": lambda _: torch.tensor([0.0, 0, 1]),
        "the cut is in sorted order: each token has a place of its own": (
            lambda p: _top(soft, p, "in sorted order")
        ),
        "ranks came, not tokens: 0 is the likeliest in sorted order alone": lambda p: (
            _top(soft, p).sort(-1, descending=True).values
        ),
    }


def _takes_any_axes(implementation: Function, logits: Tensor) -> None:
    """(V,) and (B, T, V), where so small a p leaves nothing to chance."""
    for one in (logits[0, 0], logits):
        try:
            got = implementation(one.clone(), 1.0, 1e-9)
        except Exception as error:
            raise Mistake(
                f"logits {tuple(one.shape)} raised {type(error).__name__} ({error}), though "
                f"({DRAWS}, 3) passed: any axes may stand before the last",
                arguments=f"logits {tuple(one.shape)}, temperature 1, p = 1e-9",
            ) from error
        expect_close(_drawn(got, one), one.argmax(-1), "the likeliest of each, for any axes")


def _drawn(got: Any, logits: Tensor) -> Tensor:
    if not isinstance(got, Tensor):
        raise Mistake(f"a tensor of tokens was expected, {type(got).__name__} came")
    if got.shape == (*logits.shape[:-1], 1):
        raise Mistake("draw gives (..., 1): take [..., 0]")
    if got.shape != logits.shape[:-1] or got.dtype != torch.int64:
        want = tuple(logits.shape[:-1])
        raise Mistake(f"token ids {want} int64 were expected; {tuple(got.shape)} {got.dtype} came")
    return got


@checks.proves("diagnose")
def diagnose(module: Any) -> None:
    implementation = module.diagnose
    for seed in (0, 1):
        for name, plant in {"": None, **module.BUGS}.items():
            torch.manual_seed(seed)
            model = module.Llama(module.Config(40, 32, 1, 4, 2, 88, std=0.15))
            if plant is not None:
                plant(model)
            before = [p.detach().clone() for p in model.parameters()]
            got = implementation(model)
            if not isinstance(got, str) or (got and got not in module.BUGS):
                raise Mistake(f"a name of BUGS or an empty string was expected, {got!r} came")
            after = model.parameters()
            if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
                raise Mistake("the model was changed: a diagnosis leaves the weights as they are")
            if got != name:
                raise Mistake(_misread(name, got))


def _misread(bug: str, found: str) -> str:
    if not bug:
        return f"a sound model was told that {found}: is it rounding, or a test that always fails?"
    if not found:
        return f"a model was taken for sound, but {bug}"
    return f"“{bug}” was taken for “{found}”"
