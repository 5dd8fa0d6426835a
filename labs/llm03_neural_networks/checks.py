"""Check the exercises of LLM03.

References: PyTorch's operations and autograd, shapes written out for `broadcast_shape`, and
transformers' models for `parameter_count`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from labs.kit import Checks, Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor

checks = Checks()

Function = Callable[..., Any]
Shape = tuple[int, ...]
Mistakes = dict[str, Callable[[], Tensor]]


@checks.proves("broadcast_shape")
def broadcast_shape(module: Any) -> None:
    """Compare with shapes written out here; None stands for a ValueError."""
    implementation = module.broadcast_shape
    for a, b, want, mistake in (
        ((2, 3), (2, 3), (2, 3), "equal shapes stay as they are"),
        ((4, 3), (4,), None, "are they aligned at the left? The last axes must fit each other"),
        ((4, 3), (3,), (4, 3), "are they aligned at the right?"),
        ((3,), (4, 3), (4, 3), "the shorter shape may come first"),
        ((4,), (4, 1), (4, 4), "a missing axis counts as 1, and an axis of 1 is stretched"),
        ((8, 1, 6), (7, 1), (8, 7, 6), "either shape may be stretched, each axis separately"),
        ((2, 5), (), (2, 5), "a single number, of shape (), fits everything"),
        ((5, 1), (1, 0), (5, 0), "1 is stretched to 0 too: take the other size, not the larger"),
        ((0, 3), (1, 3), (0, 3), "1 is stretched to 0 too: take the other size, not the larger"),
        ((5, 2), (5, 0), None, "2 and 0 are neither equal nor 1"),
        ((2, 6), (2, 3), None, "6 is twice 3, but only 1 is stretched"),
    ):
        got = _shape_or_none(implementation, a, b)
        if got != want:
            shapes = f"{a} and {b}"
            raise Mistake(f"expected {_name(want)} for {shapes}, got {_name(got)}; {mistake}")


def _name(shape: Shape | None) -> str:
    return "a ValueError" if shape is None else str(shape)


def _shape_or_none(implementation: Function, a: Shape, b: Shape) -> Shape | None:
    """Return the result for two shapes; None for a ValueError.

    Raises:
        Mistake: if the implementation raises another error or returns something else.
    """
    try:
        got = implementation(a, b)
    except ValueError:
        return None
    except Exception as error:
        raise Mistake(
            f"your function raised {type(error).__name__} ({error}) for {a} and {b}; shapes may "
            "differ in length, and shapes that don't fit are ValueErrors"
        ) from error
    if not isinstance(got, tuple) or not all(isinstance(size, int) for size in got):
        raise Mistake(f"expected a tuple of sizes or a ValueError for {a} and {b}, got {got!r}")
    return tuple(got)


@checks.proves("diagonal")
def diagonal(module: Any) -> None:
    """Compare with `torch.diagonal`, for strides of every kind; the result must be a view."""
    implementation = module.diagonal
    base = draw(6, 8)
    for x, name in (
        (draw(4, 4), "a square matrix"),
        (draw(3, 5), "3 rows of 5"),
        (draw(5, 3), "5 rows of 3: the diagonal is as long as the shorter axis"),
        (base[::2, ::3], "a slice with steps: ask x.stride() rather than compute from the shape"),
        (draw(3, 5).T, "a transpose: ask x.stride() rather than compute from the shape"),
        (draw(3, 1).expand(3, 4), "an expanded column, whose second stride is 0"),
        (base[2:, 1:], "a slice with an offset: as_strided uses x's offset if you give none"),
    ):
        try:
            got = implementation(x)
        except RuntimeError as error:
            raise Mistake(f"{name}: {error}; does it run over the end of the storage?") from error
        expect_close(got, torch.diagonal(x), name)
        if got.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            raise Mistake("expected a view, got a copy: writing into a view changes x")


@checks.proves("linear")
def linear(module: Any) -> None:
    """Compare with `F.linear`, for square matrices first, so that the mistakes fit the shapes."""
    implementation = module.linear
    x = draw(4, 4)
    w = draw(4, 4, seed=1)
    bias = draw(4, seed=2)
    inputs = (x, w, bias)
    before = [t.clone() for t in inputs]
    got = implementation(*inputs)
    if not all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True)):
        raise Mistake("your function changed its input: += and functions with a _ work in place")
    mistakes: Mistakes = {
        "w is (m, n): is the transpose missing?": lambda: x @ w + bias,
        "is the bias missing?": lambda: x @ w.T,
        "the bias is added along the batch: each output has a bias, not each input": lambda: (
            x @ w.T + bias[:, None]
        ),
        "expected (B, m), got the transpose, (m, B)": lambda: w @ x.T + bias[:, None],
    }
    name_mistake(got, mistakes)
    expect_close(got, F.linear(x, w, bias), "y[b, i] = Σⱼ w[i, j]·x[b, j] + bias[i]")
    for shape in ((7, 5), (2, 7, 5), (5,)):
        _linear_of_shape(implementation, shape)


def _linear_of_shape(implementation: Function, shape: Shape) -> None:
    x = draw(*shape)
    w = draw(3, 5, seed=1)
    bias = draw(3, seed=2)
    try:
        got = implementation(x, w, bias)
    except (RuntimeError, IndexError, ValueError) as error:
        message = f"x {shape} and w (3, 5): {error}; any number of axes may come before n"
        raise Mistake(message) from error
    expect_close(got, F.linear(x, w, bias), f"x is {shape}, w is (3, 5)")


@checks.proves("linear_backward")
def linear_backward(module: Any) -> None:
    """Compare with autograd, for one and for two batch axes."""
    implementation = module.linear_backward
    for batch in ((7,), (2, 4)):
        g = draw(*batch, 3)
        x = draw(*batch, 5, seed=1)
        w = draw(3, 5, seed=2)
        got = _three_gradients(implementation, g, x, w)
        leaves = [t.clone().requires_grad_() for t in (x, w, w[:, 0])]
        wants = torch.autograd.grad(F.linear(*leaves), leaves, g)
        if equals(got[0], wants[1]) or equals(got[1], wants[0]):
            raise Mistake("the order is dx, dw, dbias")
        name_mistake(got[1], _mistakes_of_dw(g, x))
        name_mistake(got[2], _mistakes_of_dbias(g))
        reasons = (
            "dx = g w, of the shape of x",
            "dw = gᵀ x, of the shape of w",
            "dbias is the sum of g",
        )
        for gradient, want, reason in zip(got, wants, reasons, strict=True):
            expect_close(gradient, want, reason)


def _three_gradients(implementation: Function, g: Tensor, x: Tensor, w: Tensor) -> tuple[Any, ...]:
    try:
        got = implementation(g, x, w)
    except (RuntimeError, IndexError, ValueError) as error:
        hint = "which factor is transposed?" if g.dim() == 2 else "flatten all axes before the last"
        shapes = f"g {tuple(g.shape)}, x {tuple(x.shape)}, w {tuple(w.shape)}"
        raise Mistake(f"{shapes}: {error}; {hint}") from error
    if not isinstance(got, tuple) or len(got) != 3:
        name = f"{len(got)} values" if isinstance(got, tuple) else f"a {type(got).__name__}"
        raise Mistake(f"expected a tuple of dx, dw and dbias, got {name}")
    return got


def _mistakes_of_dw(g: Tensor, x: Tensor) -> Mistakes:
    rows = g.reshape(-1, g.shape[-1])
    inputs = x.reshape(-1, x.shape[-1])
    return {
        "is dw transposed? It has the shape of w, (m, n)": lambda: inputs.T @ rows,
        "is dw averaged over the batch? If the loss is a mean, g contains the factor already": (
            lambda: rows.T @ inputs / len(rows)
        ),
        "there is a dw for each sequence: all of them used w, so add them up": lambda: (
            g.mT @ x if g.dim() > 2 else g
        ),
    }


def _mistakes_of_dbias(g: Tensor) -> Mistakes:
    return {
        "is dbias averaged over the batch? It is summed": lambda: g.flatten(0, -2).mean(0),
        "dbias is summed over the first axis only: sum over all axes before the last": lambda: (
            g.sum(0) if g.dim() > 2 else g[0]
        ),
        "dbias has the shape of g: the bias was stretched over the batch, so sum over it": (
            lambda: g
        ),
    }


@checks.proves("attention_by_einsum")
def attention_by_einsum(module: Any) -> None:
    """Compare with PyTorch's attention, for fewer queries than keys."""
    implementation = module.attention_by_einsum
    q = draw(2, 5, 3, 4)
    k = draw(2, 7, 3, 4, seed=1)
    v = draw(2, 7, 3, 4, seed=2)
    try:
        got = implementation(q, k, v)
    except RuntimeError as error:
        raise Mistake(f"Tq = 5, Tk = 7: {error}; do q and k share a letter for T?") from error
    if isinstance(got, Tensor) and got.shape == (2, 3, 5, 4):
        raise Mistake("expected (B, Tq, H, D), got (B, H, Tq, D): check the order of the letters")
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D) each
    name_mistake(got, _mistakes_of_attention(q, k, v))
    want = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    expect_close(got, want, "softmax(QKᵀ/√D)V, for each head separately")


def _mistakes_of_attention(q: Tensor, k: Tensor, v: Tensor) -> Mistakes:
    """Return the results of mistakes, (B, T, H, D) each; q, k and v are (B, H, T, D)."""
    scores = q @ k.mT / 2  # (B, H, Tq, Tk); √D is 2

    def mixed(weights: Tensor, values: Tensor = v) -> Tensor:
        return (weights @ values).transpose(1, 2)

    return {
        "is the division by √D missing?": lambda: mixed((2 * scores).softmax(-1)),
        "is it divided by D, not by √D?": lambda: mixed((scores / 2).softmax(-1)),
        "does the softmax run over the queries? It runs over the keys, the last axis": lambda: (
            mixed(scores.softmax(-2))
        ),
        "does the softmax run over the heads? It runs over the keys, the last axis": lambda: mixed(
            scores.softmax(1)
        ),
        "is the softmax missing?": lambda: mixed(scores),
        "the weights mix keys: they must mix values": lambda: mixed(scores.softmax(-1), k),
        "all heads share one weight: the scores sum over h, so keep it in bhqk": lambda: mixed(
            scores.sum(1, keepdim=True).softmax(-1)
        ),
    }


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
