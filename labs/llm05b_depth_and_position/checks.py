"""Check the exercises of LLM05b against formulas, or by questions to a layer.

Those of LLM05b+ are in deeper_checks.
"""

import math
from collections.abc import Callable
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake
from labs.llm05b_depth_and_position import deeper_checks
from labs.llm05b_depth_and_position.planted_faults import planted

import torch
import torch.nn.functional as F
from torch import Tensor, nn

checks = Checks()

Mistakes = dict[str, Callable[[], Tensor]]  # by message: the result that each mistake gives


class _Scaled(nn.Module):
    """Stand in for a block: x times a matrix, plus the position's turn of x."""

    def __init__(self, factor: float):
        super().__init__()
        self.matrix = nn.Parameter(factor * draw(6, 6))

    def forward(self, x: Tensor, position: Any) -> Tensor:
        return torch.tanh(x @ self.matrix) + position.turn(x)


class _Shift(nn.Module):
    """Stand in for a position that adds to the stream and turns by a sign."""

    def embed(self, x: Tensor) -> Tensor:
        return x + draw(x.shape[1], 6, seed=3)

    def turn(self, x: Tensor) -> Tensor:
        return -x


@checks.proves("Stack.forward")
def stack_forward(module: Any) -> None:
    """Check a stack of three different stand-ins for blocks, with and without the last norm."""
    tokens = torch.tensor([[1, 4, 2, 0, 3], [3, 3, 0, 1, 2]])
    for last_norm in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            blocks = [_Scaled(factor) for factor in (1.0, 2.0, 0.5)]
            model = module.Stack(blocks, 6, last_norm, _Shift(), vocabulary=5).double()
        with torch.no_grad():
            got = model(tokens)
            name_mistake(got, _mistakes_of_stack(model, tokens))
            want = model.unembedding(model.norm(_stream(model, tokens)))
        expect_close(got, want, "embed, add positions, pass the blocks in turn, norm, unembed")


def _stream(model: Any, tokens: Tensor, positions: bool = True, backwards: bool = False) -> Tensor:
    """Return the stream after the last block, with or without a mistake."""
    x = model.embedding(tokens)
    if positions:
        x = model.position.embed(x)
    for block in reversed(model.blocks) if backwards else model.blocks:
        x = block(x, model.position)
    return x


def _mistakes_of_stack(model: Any, tokens: Tensor) -> Mistakes:
    """Return the result of each known mistake."""
    x = model.position.embed(model.embedding(tokens))
    norm = model.norm
    unembed = model.unembedding
    mistakes = {
        "the blocks run in reverse: the first block comes first": (
            lambda: unembed(norm(_stream(model, tokens, backwards=True)))
        ),
        "the positions are missing: call self.position.embed on the embeddings": (
            lambda: unembed(norm(_stream(model, tokens, positions=False)))
        ),
        "the blocks are missing": lambda: unembed(norm(x)),
        "all blocks read the embeddings: each block reads what the one before returned": (
            lambda: unembed(norm(model.blocks[-1](x, model.position)))
        ),
        "this is the stream: self.unembedding turns it into logits": (
            lambda: norm(_stream(model, tokens))
        ),
        "return the logits, not their softmax": (
            lambda: unembed(norm(_stream(model, tokens))).softmax(-1)
        ),
    }
    if not isinstance(norm, nn.Identity):
        mistakes["the last norm is missing: self.norm comes before self.unembedding"] = lambda: (
            unembed(_stream(model, tokens))
        )
        mistakes["the norm comes after the last block, not after the embedding"] = lambda: unembed(
            _after(model, norm(x))
        )
    return mistakes


def _after(model: Any, x: Tensor) -> Tensor:
    for block in model.blocks:
        x = block(x, model.position)
    return x


@checks.proves("gradient_norms")
def gradient_norms(module: Any) -> None:
    """Check modules of several parameters, a frozen one, and that nothing changes."""
    modules = _modules_with_gradients()
    before = [_copy(p.grad) for m in modules for p in m.parameters()]
    try:
        got = module.gradient_norms(modules)
    except (AttributeError, TypeError) as error:
        if "NoneType" in str(error):
            raise Mistake("a frozen parameter has p.grad = None: skip it") from error
        raise
    after = [p.grad for m in modules for p in m.parameters()]
    for old, new in zip(before, after, strict=True):
        same = old is new if old is None or new is None else torch.equal(old, new)
        if not same:
            raise Mistake("your function changed a gradient: a probe must not")
    numbers = _numbers(got)
    for message, rule in WRONG_NORMS.items():  # before the type: it is the easier mistake
        if len(numbers) == len(modules) and _all_close(numbers, [rule(m) for m in modules]):
            raise Mistake(message)
    if isinstance(got, Tensor) or not isinstance(got, list):
        raise Mistake(f"expected a list with a float for each module, got {type(got).__name__}")
    if len(got) != len(modules):
        raise Mistake(f"expected {len(modules)} norms, one for each module, got {len(got)}")
    if not all(isinstance(norm, float) for norm in got):
        kinds = ", ".join(sorted({type(norm).__name__ for norm in got}))
        raise Mistake(f"expected floats, got {kinds}: call item(); an empty sum() is the int 0")
    want = [_norm(m) for m in modules]
    for i, (norm, right) in enumerate(zip(got, want, strict=True)):
        if not math.isclose(norm, right, rel_tol=1e-5, abs_tol=1e-9):
            raise Mistake(f"module {i}: expected {right:.4g}, got {norm:.4g}: √ of all squares")
    if module.gradient_norms(iter(modules)) != got:
        raise Mistake("it needs a list: an iterable can be gone through only once")


def _numbers(values: Any) -> list[float]:
    """Return values as floats; none if they aren't numbers."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, RuntimeError):
        return []


def _all_close(got: list[float], want: list[float]) -> bool:
    pairs = zip(got, want, strict=True)
    return all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9) for a, b in pairs)


def _copy(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.clone()


def _modules_with_gradients() -> list[nn.Module]:
    """Return a deep module, a module with a frozen part, and a frozen module."""
    deep = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    half = nn.Linear(3, 3)
    frozen = nn.Linear(2, 2)
    half.bias.requires_grad_(False)
    frozen.requires_grad_(False)
    for seed, p in enumerate([*deep.parameters(), half.weight]):
        p.grad = draw(*p.shape, seed=seed).float()
    return [deep, half, frozen]


def _gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad.double() for p in module.parameters() if p.grad is not None]


def _norm(module: nn.Module) -> float:
    return math.sqrt(sum(g.square().sum().item() for g in _gradients(module)))


WRONG_NORMS: dict[str, Callable[[nn.Module], float]] = {
    "those are the squares: take the root of each module's sum": lambda m: _norm(m) ** 2,
    "those are sums of norms: add the squares of all parameters, and take one root": (
        lambda m: sum(g.norm().item() for g in _gradients(m))
    ),
    "those are norms of the weights: read p.grad": (
        lambda m: math.sqrt(sum(p.double().square().sum().item() for p in m.parameters()))
    ),
    "those are root mean squares: a norm is the root of the sum": lambda m: (
        _norm(m) / math.sqrt(max(1, sum(g.numel() for g in _gradients(m))))
    ),
    "only the last parameter of each module counts: add up the squares of all": lambda m: (
        _gradients(m)[-1].norm().item() if _gradients(m) else 0.0
    ),
    "only the first parameter of each module counts: add up the squares of all": lambda m: (
        _gradients(m)[0].norm().item() if _gradients(m) else 0.0
    ),
}


@checks.proves("diagnose")
def diagnose(module: Any) -> None:
    """Check three layers with each fault, for streams of the sizes 1, 3 and 9."""
    for fault, question in QUESTIONS.items():
        for seed in range(3):
            x = 3**seed * draw(2, 9, 16, seed=seed)
            given = x.clone()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                layer = planted(fault, 16)
            got = module.diagnose(layer, x)
            if not torch.equal(given, x):
                raise Mistake("your function changed x: make new tensors to ask the layer with")
            if not isinstance(got, str):
                raise Mistake(f"expected a name, one of {', '.join(QUESTIONS)}; got {got!r}")
            if got not in QUESTIONS:
                raise Mistake(f"{got!r} isn't a key of FAULTS: {', '.join(QUESTIONS)}")
            if got != fault:
                raise Mistake(f"expected {fault!r}, got {got!r}. {question}")


QUESTIONS = {  # by fault: what distinguishes it
    "looks ahead": "Does an earlier output change with the last token? A norm forgets a shift "
    "and a scale, so try other random numbers there.",
    "dead branch": "Is the output x itself?",
    "norm on the sum": "What is the size of the output, token by token?",
    "no residual": "Is the output for 1000 x the output for x, and is its size not 1?",
    "no norm": "Does what the layer adds to x grow with x?",
    "sound": "Does the layer add to 1000 x what it adds to x?",
}


@checks.proves("gemma_norm")
def gemma_norm(module: Any) -> None:
    """Check float64, then that bfloat16 is computed in float32 and rounded once."""
    implementation = module.gemma_norm
    x = draw(3, 5, 16)
    g = draw(16, seed=1) / 4
    got = implementation(x, g)
    normalized = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    mistakes: Mistakes = {
        "the gain is g, which starts at 0: it must be 1 + g": lambda: normalized * g,
        "g is added to the result: multiply by 1 + g": lambda: normalized + g,
        "x isn't normalized": lambda: x * (1 + g),
        "that is LayerNorm: RMSNorm subtracts no mean": (
            lambda: F.layer_norm(x, (16,), eps=1e-5) * (1 + g)
        ),
        "the gain is missing": lambda: normalized,
    }
    name_mistake(got, mistakes)
    expect_close(got, normalized * (1 + g), "x / √(mean(x²) + 1e-5), times 1 + g")
    x = draw(64, 256, seed=2).bfloat16()
    g = (draw(256, seed=3) / 50).bfloat16()
    got = implementation(x, g)
    if isinstance(got, Tensor) and got.dtype != x.dtype:
        raise Mistake(f"expected the dtype of x, {x.dtype}, got {got.dtype}")
    wide_x = x.double()
    normalized = wide_x / (wide_x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    want = normalized * (1 + g.double())
    error = ((got.double() - want).abs() / want.abs()).max().item()
    if error > 1.01 * 2**-8:
        short = ((got.double() - normalized * (1 + g).double()).abs() / want.abs()).max().item()
        if short <= 1.01 * 2**-8:
            raise Mistake("1 + g is rounded to bfloat16: use `wide` to add in float32")
        raise Mistake("more than one rounding: multiply by the gain in float32, then round once")


@checks.proves("rope")
def rope(module: Any) -> None:
    """Check the values, the input, the dtype, and that bfloat16 is rotated in float32."""
    implementation = module.rope
    x = draw(2, 3, 5, 8)
    angle = 3 * draw(5, 4, seed=1)
    given = x.clone()
    got = implementation(x, angle)
    if not torch.equal(given, x):
        raise Mistake("your function changed its input: make a new tensor")
    name_mistake(got, _mistakes_of_rope(x, angle))
    want = _rotated(x, angle)
    expect_close(got, want, "(a cos − b sin, a sin + b cos) for the neighbours a and b")
    short = draw(2, 3, 5, 8, seed=2).bfloat16()
    got = implementation(short, angle)
    if isinstance(got, Tensor) and got.dtype != short.dtype:
        raise Mistake(f"expected the dtype of x, {short.dtype}, got {got.dtype}")
    want = _rotated(short.double(), angle)
    message = "is it computed in bfloat16? Use `wide`, which gives float32; round only the result"
    rounding = 1.01 * want.abs().max().item() * 2**-8
    expect_close(got.double() if isinstance(got, Tensor) else got, want, message, rounding)
    relative = (got.double() - want).abs() / want.abs()
    if relative.max() > 1.01 * 2**-8:
        raise Mistake(message)


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    """Return a tensor with the entries of two in turn, (..., D/2) twice -> (..., D)."""
    return torch.stack((first, second), -1).flatten(-2)


def _rotated(x: Tensor, angle: Tensor) -> Tensor:
    a = x[..., ::2]
    b = x[..., 1::2]
    cos = angle.cos()
    sin = angle.sin()
    return _pairs(a * cos - b * sin, a * sin + b * cos)


def _mistakes_of_rope(x: Tensor, angle: Tensor) -> Mistakes:
    """Return the result of each known mistake."""
    cos = angle.cos()
    sin = angle.sin()
    a = x[..., ::2]
    b = x[..., 1::2]
    first, second = x.chunk(2, -1)
    return {
        "that rotates backwards: a cos − b sin, and a sin + b cos": lambda: _rotated(x, -angle),
        "those are halves, entries i and i + D/2: rotate the neighbours 2i and 2i + 1": (
            lambda: torch.cat((first * cos - second * sin, first * sin + second * cos), -1)
        ),
        "the pairs are rotated, but they aren't neighbours any more: stack and flatten, not cat": (
            lambda: torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
        ),
        "both signs are the same: a rotation has one minus": (
            lambda: _pairs(a * cos + b * sin, a * sin + b * cos)
        ),
        "sine and cosine are swapped": lambda: _pairs(a * sin - b * cos, a * cos + b * sin),
        "a and b are multiplied by the cosine alone: the sine is missing": (
            lambda: _pairs(a * cos, b * cos)
        ),
    }


@checks.proves("to_halves")
def to_halves(module: Any) -> None:
    """Check matrices with D = 4, then a vector with D = 8, where the way back differs."""
    implementation = module.to_halves
    rows = draw(24, 5)  # 6 heads of 4
    got = implementation(rows, 4)
    heads = rows.unflatten(0, (6, 4))
    mistakes: Mistakes = {
        "the rows of all heads are mixed: convert each head's D rows separately": (
            lambda: torch.cat((rows[::2], rows[1::2]))
        ),
        "nothing is changed": lambda: rows,
        "the odd rows come first: put the even ones first": (
            lambda: heads[:, [1, 3, 0, 2]].flatten(0, 1)
        ),
        "the argument is head_dim, the rows of a head, not the number of heads": (
            lambda: rows.unflatten(0, (4, 3, 2)).transpose(1, 2).flatten(0, 2)
        ),
    }
    name_mistake(got, mistakes)
    want = heads[:, [0, 2, 1, 3]].flatten(0, 1)
    expect_close(got, want, "for each head, first its even rows, then its odd rows")
    got = implementation(torch.arange(16), 8)
    back = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    if equals(got, torch.cat((back, back + 8))):
        raise Mistake("that is the way back, from halves to neighbours")
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    expect_close(got, torch.cat((order, order + 8)), "D = 8: rows 0, 2, 4, 6, then 1, 3, 5, 7")


@checks.proves("Alibi.bias")
def alibi_bias(module: Any) -> None:
    """Check powers of 2, and that queries come before keys."""
    position = module.Alibi()
    cases = ((8, 5), (1, 4), (2, 7), (4, 1))
    results = [position.bias(*case) for case in cases]
    for got in results:
        deeper_checks.require_float64(got)
    for message, rule in WRONG_BIASES.items():
        if all(equals(got, rule(*case)) for got, case in zip(results, cases, strict=True)):
            raise Mistake(message)
    for got, (heads, length) in zip(results, cases, strict=True):
        message = f"{heads} heads, {length} tokens: −m(t − s), with m = {_slopes(heads)[0]:.3g} …"
        expect_close(got, _bias(heads, length), message)


def _slopes(heads: int, start: int = 1) -> Tensor:
    exponents = torch.arange(start, start + heads, dtype=torch.float64)
    return 2 ** (-8 * exponents / heads)


def _distance(length: int) -> Tensor:
    """Return the query's position minus the key's, (T, T)."""
    return torch.arange(length)[:, None] - torch.arange(length)


def _bias(heads: int, length: int) -> Tensor:
    return -_slopes(heads)[:, None, None] * _distance(length)


WRONG_BIASES: dict[str, Callable[[int, int], Tensor]] = {
    "the sign is wrong, or queries and keys are swapped: an earlier key gets a negative bias": (
        lambda heads, length: -_bias(heads, length)
    ),
    "that is the absolute distance: t − s is negative for later keys, though the mask hides them": (
        lambda heads, length: -_slopes(heads)[:, None, None] * _distance(length).abs()
    ),
    "the first slope isn't 1: i starts at 1": (
        lambda heads, length: -_slopes(heads, 0)[:, None, None] * _distance(length)
    ),
    "the minus in the exponent is missing: tokens that are far away must weigh less": (
        lambda heads, length: -(1 / _slopes(heads))[:, None, None] * _distance(length)
    ),
    "the slopes are in reverse: the first head has the steepest": (
        lambda heads, length: _bias(heads, length).flip(0)
    ),
    "that is one table: each head has a slope, (H, T, T)": (
        lambda heads, length: _bias(heads, length)[0]
    ),
    "those are the slopes: multiply them by the distance": lambda heads, _: _slopes(heads),
}


checks.proves("QKNormAttention.queries_and_keys")(deeper_checks.queries_and_keys)
for _check in (deeper_checks.interpolated, deeper_checks.yarn_frequencies):
    checks.proves(_check.__name__)(_check)
