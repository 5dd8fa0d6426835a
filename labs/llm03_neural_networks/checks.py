"""What proves the parts of LLM03 right. References: PyTorch, its autograd, transformers' models."""

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


@checks.proves("broadcast_shape")
def broadcast_shape(module: Any) -> None:
    implementation = module.broadcast_shape
    for a, b, want, mistake in (
        ((2, 3), (2, 3), (2, 3), "equal shapes stay as they are"),
        ((4, 3), (4,), None, "are they aligned at the left? The last axes meet each other"),
        ((4, 3), (3,), (4, 3), "are they aligned at the right?"),
        ((3,), (4, 3), (4, 3), "the shorter shape may come first"),
        ((4,), (4, 1), (4, 4), "a missing axis counts as 1, and what is 1 is stretched"),
        ((8, 1, 6), (7, 1), (8, 7, 6), "either side may be stretched, each axis by itself"),
        ((2, 5), (), (2, 5), "a single number, of shape (), fits everything"),
        ((5, 1), (1, 0), (5, 0), "1 is stretched to 0 too: the other's size, not the larger"),
        ((0, 3), (1, 3), (0, 3), "1 is stretched to 0 too: the other's size, not the larger"),
        ((5, 2), (5, 0), None, "2 and 0 are neither equal nor 1"),
        ((2, 6), (2, 3), None, "6 is twice 3, but only 1 is stretched"),
    ):
        got = _shape_or_none(implementation, a, b)
        if got != want:
            told = ["a ValueError" if shape is None else shape for shape in (want, got)]
            raise Mistake(f"{a} and {b} give {told[0]}, not {told[1]}; {mistake}")


def _shape_or_none(implementation: Function, a: Shape, b: Shape) -> Shape | None:
    """What it says of two shapes; None for the ValueError of shapes that don't fit."""
    try:
        got = implementation(a, b)
    except ValueError:
        return None
    except Exception as error:
        told = f"{type(error).__name__} ({error}) came for {a} and {b}"
        raise Mistake(
            f"{told}; shapes may differ in length, and misfits are ValueErrors"
        ) from error
    if not isinstance(got, tuple) or not all(isinstance(size, int) for size in got):
        raise Mistake(f"{a} and {b}: a tuple of sizes or a ValueError was expected, {got!r} came")
    return tuple(got)


@checks.proves("diagonal")
def diagonal(module: Any) -> None:
    implementation = module.diagonal
    base = draw(6, 8)
    for x, what in (
        (draw(4, 4), "a square"),
        (draw(3, 5), "3 rows of 5"),
        (draw(5, 3), "5 rows of 3: it is as long as the shorter axis"),
        (base[::2, ::3], "a slice with steps: ask x.stride(), don't work it out from the shape"),
        (draw(3, 5).T, "a transpose: ask x.stride(), don't work it out from the shape"),
        (draw(3, 1).expand(3, 4), "an expanded column, whose second stride is 0"),
        (base[2:, 1:], "a slice, with an offset: as_strided keeps x's own if none is given"),
    ):
        try:
            got = implementation(x)
        except RuntimeError as error:
            raise Mistake(f"{what}: {error}; does it run over the end of the storage?") from error
        expect_close(got, torch.diagonal(x), what)
        if got.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            raise Mistake("it is a copy: a view shares x's storage, so writing in it changes x")


@checks.proves("linear")
def linear(module: Any) -> None:
    implementation = module.linear
    x, w, bias = draw(4, 4), draw(4, 4, seed=1), draw(4, seed=2)  # square: all mistakes fit
    given = [t.clone() for t in (x, w, bias)]
    got = implementation(x, w, bias)
    if not all(torch.equal(a, b) for a, b in zip(given, (x, w, bias), strict=True)):
        raise Mistake("your function changed its input: += and functions with a _ work in place")
    name_mistake(
        got,
        {
            "w is (m, n): is the transpose missing?": lambda: x @ w + bias,
            "is the bias missing?": lambda: x @ w.T,
            "a bias belongs to an answer, not to an input: it's stretched over the batch": (
                lambda: x @ w.T + bias[:, None]
            ),
            "the answer is transposed: (m, B) came for (B, m)": lambda: w @ x.T + bias[:, None],
        },
    )
    expect_close(got, F.linear(x, w, bias), "y[b, i] = Σⱼ w[i, j]·x[b, j] + bias[i]")
    for shape in ((7, 5), (2, 7, 5), (5,)):
        x, w, bias = draw(*shape), draw(3, 5, seed=1), draw(3, seed=2)
        try:
            got = implementation(x, w, bias)
        except (RuntimeError, IndexError, ValueError) as error:
            message = f"x {shape} and w (3, 5): {error}; any number of axes may come before n"
            raise Mistake(message) from error
        expect_close(got, F.linear(x, w, bias), f"x is {shape}, w is (3, 5)")


@checks.proves("linear_backward")
def linear_backward(module: Any) -> None:
    implementation = module.linear_backward
    for batch in ((7,), (2, 4)):
        g, x, w = draw(*batch, 3), draw(*batch, 5, seed=1), draw(3, 5, seed=2)
        try:
            got = implementation(g, x, w)
        except (RuntimeError, IndexError, ValueError) as error:
            told = f"g {tuple(g.shape)}, x {tuple(x.shape)}, w (3, 5): {error}"
            flat, deep = "which factor is transposed?", "flatten all axes before the last"
            raise Mistake(f"{told}; {flat if len(batch) == 1 else deep}") from error
        if not isinstance(got, tuple) or len(got) != 3:
            told = f"{len(got)} of them" if isinstance(got, tuple) else f"a {type(got).__name__}"
            raise Mistake(f"a tuple of dx, dw and dbias was expected, {told} came")
        leaves = [t.clone().requires_grad_() for t in (x, w, w[:, 0])]
        wants = torch.autograd.grad(F.linear(*leaves), leaves, g)
        if equals(got[0], wants[1]) or equals(got[1], wants[0]):
            raise Mistake("the order is dx, dw, dbias")
        name_mistake(got[1], _mistakes_of_dw(g, x))
        name_mistake(got[2], _mistakes_of_dbias(g))
        messages = "dx = g w, as large as x", "dw = gᵀ x, as large as w", "dbias is the sum of g"
        for one, want, message in zip(got, wants, messages, strict=True):
            expect_close(one, want, message)


def _mistakes_of_dw(g: Tensor, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    rows, inputs = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])
    return {
        "is dw transposed? It is as large as w, (m, n)": lambda: inputs.T @ rows,
        "is dw averaged over the batch? If the loss is a mean, g holds that already": (
            lambda: rows.T @ inputs / len(rows)
        ),
        "dw is left for each sequence: w was used in all of them, so it's the sum": (
            lambda: g.mT @ x if g.dim() > 2 else g
        ),
    }


def _mistakes_of_dbias(g: Tensor) -> dict[str, Callable[[], Tensor]]:
    return {
        "is dbias averaged over the batch? It is summed": lambda: g.flatten(0, -2).mean(0),
        "dbias is summed over the first axis only: sum all before the last": (
            lambda: g.sum(0) if g.dim() > 2 else g[0]
        ),
        "dbias is as large as g: what was stretched over the batch is summed over it": lambda: g,
    }


@checks.proves("attention_by_einsum")
def attention_by_einsum(module: Any) -> None:
    implementation = module.attention_by_einsum
    q, k, v = draw(2, 5, 3, 4), draw(2, 7, 3, 4, seed=1), draw(2, 7, 3, 4, seed=2)
    heads = [x.transpose(1, 2) for x in (q, k, v)]  # (B, H, T, D)
    scores = heads[0] @ heads[1].mT  # (B, H, Tq, Tk)

    def library(**how: Any) -> Tensor:
        return F.scaled_dot_product_attention(*heads, **how).transpose(1, 2)

    try:
        got = implementation(q, k, v)
    except RuntimeError as error:
        raise Mistake(f"Tq = 5, Tk = 7: {error}; do q and k share a letter for T?") from error
    if isinstance(got, Tensor) and got.shape == (2, 3, 5, 4):
        raise Mistake("the answer is (B, H, Tq, D): which order do its letters ask for?")
    name_mistake(
        got,
        {
            "is the division by √D missing?": lambda: library(scale=1.0),
            "is it divided by D, not by √D?": lambda: library(scale=1 / 4),
            "does the softmax run over the queries? It runs over the keys, the last axis": (
                lambda: ((scores / 2).softmax(-2) @ heads[2]).transpose(1, 2)
            ),
            "does the softmax run over the heads? It runs over the keys, the last axis": (
                lambda: ((scores / 2).softmax(1) @ heads[2]).transpose(1, 2)
            ),
            "is the softmax missing?": lambda: (scores / 2 @ heads[2]).transpose(1, 2),
            "keys are mixed, not values": lambda: ((scores / 2).softmax(-1) @ heads[1]).transpose(
                1, 2
            ),
            "one weight for all heads: h is summed over in the scores, so keep it in bhqk": (
                lambda: ((scores / 2).sum(1, keepdim=True).softmax(-1) @ heads[2]).transpose(1, 2)
            ),
        },
    )
    expect_close(got, library(), "softmax(QKᵀ/√D)V, for each head by itself")


@checks.proves("parameter_count")
def parameter_count(module: Any) -> None:
    implementation = module.parameter_count
    shape_of = module.Transformer
    llama = shape_of(50, 24, 3, 6, 2, 8, 28)  # heads · head_dim isn't the width
    small = {"tied": True, "gated": False, "biases": True, "positions": 16}
    tied, gpt2 = replace(llama, tied=True), shape_of(50, 24, 2, 4, 4, 6, 40, **small)
    for s in (llama, tied, gpt2):
        got, want = implementation(s), _counted(module, s)
        if not isinstance(got, dict) or set(got) != set(want):
            raise Mistake(
                f"a dictionary with the keys {', '.join(want)} was expected, {got!r} came"
            )
        if not all(isinstance(number, int) for number in got.values()):
            raise Mistake(f"whole numbers were expected, {got!r} came: is there a / for a //?")
        mistakes = _mistakes_of_counts(s)
        for part, number in want.items():
            if got[part] != number:
                message = mistakes.get((part, got[part]), "read the list of a layer's parts again")
                raise Mistake(f"{part}: {got[part]} came, {number} is right for {s}; {message}")


def _counted(module: Any, s: Any) -> dict[str, int]:
    """What transformers' own model of this shape has, by the names of its tensors."""
    with torch.device("meta"):
        model = module.library_model(s)
    words = {"embed_tokens": "embedding", "wte": "embedding", "wpe": "positions", "ln_": "norms"}
    words |= {"attn": "attention", "mlp": "ffn", "norm": "norms", "lm_head": "output"}
    found = dict.fromkeys(("embedding", "positions", "attention", "ffn", "norms", "output"), 0)
    for name, parameter in model.named_parameters():  # a tied tensor comes once
        part = next(part for word, part in words.items() if word in name)
        found[part] += parameter.numel()
    return found


def _mistakes_of_counts(s: Any) -> dict[tuple[str, int], str]:
    """(part, number) that each way to go wrong comes to, where it isn't the right number."""
    d, f, queries, keys = s.width, s.ffn, s.heads * s.head_dim, s.kv_heads * s.head_dim
    ways_up = 2 if s.gated else 1
    attention, ffn = 2 * d * (queries + keys), (ways_up + 1) * d * f
    shared = "k and v have kv_heads heads, fewer than q"
    wide = "heads · head_dim needn't be the width: q goes from width to heads · head_dim"
    layers = "there are as many as layers: multiply"
    biases, norms = s.biases * (queries + 2 * keys + d), (2 * s.layers + 1) * d
    return {
        ("attention", s.layers * (4 * d * queries + biases)): shared,
        ("attention", s.layers * (4 * d * d + biases)): wide,
        ("attention", s.layers * (2 * d * (d + s.kv_heads * d // s.heads) + biases)): wide,
        (
            "attention",
            s.layers * (3 * d * queries + biases),
        ): "the answer's matrix, out, is missing",
        ("attention", s.layers * (d * (queries + 2 * keys) + biases)): (
            "the answer's matrix, out, is missing"
        ),
        ("attention", s.layers * attention): "are the biases missing?",
        ("attention", attention + biases): layers,
        ("ffn", s.layers * (2 * d * f)): "gated, it goes up twice" if s.gated else "no biases?",
        ("ffn", s.layers * 3 * d * f): "without a gate it goes up once, and down",
        ("ffn", s.layers * (ffn + f)): "the bias on the way down is missing: width long",
        ("ffn", ffn + s.biases * (ways_up * f + d)): layers,
        ("norms", 2 * s.layers * d * (1 + s.biases)): "the last norm, after all layers, is missing",
        ("norms", (s.layers + 1) * d * (1 + s.biases)): "a layer has two norms",
        ("norms", norms): "GPT-2's norms have shifts beside their gains",
        ("norms", 2 * norms): "Llama's norms have gains and no shifts",
        ("output", s.vocabulary * d): "tied, the output is the embedding, which is counted already",
        ("output", 0): "untied, the output has a matrix of its own",
        ("positions", 0): "GPT-2 learns a vector for each position",
    }
