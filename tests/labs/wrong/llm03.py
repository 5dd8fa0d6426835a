"""Plausible wrong solutions of LLM03's exercises, each with the message that names its mistake."""

import math
from dataclasses import replace

from labs.llm03_neural_networks import lesson as lab

import torch


def padded(a, b):
    """Align two shapes at the right."""
    axes = max(len(a), len(b))
    return (1,) * (axes - len(a)) + a, (1,) * (axes - len(b)) + b


def aligned_at_the_left(a, b):
    axes = max(len(a), len(b))
    return lab.broadcast_shape(a + (1,) * (axes - len(a)), b + (1,) * (axes - len(b)))


def the_larger_of_two(a, b):
    a, b = padded(a, b)
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        raise ValueError
    return tuple(max(pair) for pair in zip(a, b, strict=True))


def errors_are_none(a, b):
    try:
        return lab.broadcast_shape(a, b)
    except ValueError:
        return None


def shapes_must_be_as_long(a, b):
    assert len(a) == len(b), "as many axes"
    return lab.broadcast_shape(a, b)


def only_the_second_is_stretched(a, b):
    b = (1,) * (len(a) - len(b)) + b
    if any(n not in (1, m) for m, n in zip(a, b, strict=False)):
        raise ValueError
    return a


def multiples_fit(a, b):
    a, b = padded(a, b)
    if any(m != n and (0 in (m, n) or max(m, n) % min(m, n)) for m, n in zip(a, b, strict=True)):
        return lab.broadcast_shape(a, b)
    return tuple(n if m == 1 else max(m, n) * (n > 0) for m, n in zip(a, b, strict=True))


def strides_from_the_shape(x):
    return x.as_strided((min(x.shape),), (x.shape[1] + 1,))


def offset_forgotten(x):
    return x.as_strided((min(x.shape),), (sum(x.stride()),), 0)


def as_long_as_there_are_rows(x):
    return x.as_strided((x.shape[0],), (sum(x.stride()),))


def returns_a_copy(x):
    return torch.stack([x[i, i] for i in range(min(x.shape))])


def one_stride_is_enough(x):
    return x.as_strided((min(x.shape),), (x.stride(0),))


def transpose_forgotten(x, w, bias):
    return x @ w + bias


def bias_forgotten(x, w, _bias):
    return x @ w.T


def bias_along_the_batch(x, w, bias):
    return x @ w.T + bias[:, None]


def output_transposed(x, w, bias):
    return w @ x.T + bias[:, None]


def only_a_batch_of_rows(x, w, bias):
    return torch.einsum("bj,ij->bi", x, w) + bias


def input_changed(x, w, bias):
    y = x @ w.T + bias
    x += 1
    return y


def dx_by_the_transpose(g, x, w):
    _, dw, dbias = lab.linear_backward(g, x, w)
    return g @ w.T, dw, dbias


def only_batches_of_rows(g, x, w):
    return g @ w, torch.einsum("bi,bj->ij", g, x), g.sum(0)


def weights_transposed(g, x, w):
    dx, dw, dbias = lab.linear_backward(g, x, w)
    return dx, dw.T, dbias


def averaged(g, x, w):
    dx, dw, dbias = lab.linear_backward(g, x, w)
    return dx, dw / g[..., 0].numel(), dbias


def bias_averaged(g, x, w):
    dx, dw, _ = lab.linear_backward(g, x, w)
    return dx, dw, g.flatten(0, -2).mean(0)


def another_order(g, x, w):
    dx, dw, dbias = lab.linear_backward(g, x, w)
    return dw, dx, dbias


def bias_not_summed(g, x, w):
    dx, dw, _ = lab.linear_backward(g, x, w)
    return dx, dw, g


def summed_over_one_axis(g, x, w):
    dx, dw, _ = lab.linear_backward(g, x, w)
    return dx, dw, g.sum(0)


def a_gradient_for_each_row(g, x, w):
    dx, _, dbias = lab.linear_backward(g, x, w)
    return dx, g.mT @ x, dbias


def attention(scale=0.5, axis=-1, scores="bqhd,bkhd->bhqk", mix="bhqk,bkhd->bqhd", mixed=None):
    def attend(q, k, v):
        weights = (torch.einsum(scores, q, k) * scale).softmax(axis)
        return torch.einsum(mix, weights, k if mixed == "keys" else v)

    return attend


def one_weight_for_all_heads(q, k, v):
    scores = torch.einsum("bqhd,bkhd->bqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bqk,bkhd->bqhd", scores.softmax(-1), v)


def without_softmax(q, k, v):
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhqk,bkhd->bqhd", scores, v)


def counted(**changes):
    """Return a count that reads other fields: it overlooks a part of the configuration."""

    def count(s):
        return lab.parameter_count(replace(s, **{k: v(s) for k, v in changes.items()}))

    return count


def changed(part, change):
    def count(s):
        right = lab.parameter_count(s)
        return {**right, part: right[part] + change(s)}

    return count


def a_single_number(s):
    return lab.total(s)


WRONG = [
    ("broadcast_shape", aligned_at_the_left, "aligned at the left"),
    ("broadcast_shape", the_larger_of_two, "the other size, not the larger"),
    ("broadcast_shape", errors_are_none, "a ValueError for .* got None"),
    ("broadcast_shape", shapes_must_be_as_long, "shapes may differ in length"),
    ("broadcast_shape", only_the_second_is_stretched, "the shorter shape may come first"),
    ("broadcast_shape", multiples_fit, "only 1 is stretched"),
    ("diagonal", strides_from_the_shape, "ask x.stride"),
    ("diagonal", offset_forgotten, "a slice with an offset"),
    ("diagonal", as_long_as_there_are_rows, "as long as the shorter axis|end of the storage"),
    ("diagonal", returns_a_copy, "got a copy"),
    ("diagonal", one_stride_is_enough, "a square"),
    ("linear", transpose_forgotten, "is the transpose missing"),
    ("linear", bias_forgotten, "is the bias missing"),
    ("linear", bias_along_the_batch, "each output has a bias, not each input"),
    ("linear", output_transposed, "got the transpose"),
    ("linear", only_a_batch_of_rows, "any number of axes"),
    ("linear", input_changed, "changed its input"),
    ("linear_backward", dx_by_the_transpose, "which factor is transposed"),
    ("linear_backward", only_batches_of_rows, "flatten all axes"),
    ("linear_backward", weights_transposed, "is dw transposed"),
    ("linear_backward", averaged, "is dw averaged"),
    ("linear_backward", bias_averaged, "is dbias averaged"),
    ("linear_backward", another_order, "the order is dx, dw, dbias"),
    ("linear_backward", bias_not_summed, "dbias has the shape of g"),
    ("linear_backward", summed_over_one_axis, "over the first axis only"),
    ("linear_backward", a_gradient_for_each_row, "a dw for each sequence"),
    ("attention_by_einsum", attention(scale=1.0), "division by √D missing"),
    ("attention_by_einsum", attention(scale=0.25), "divided by D, not by √D"),
    ("attention_by_einsum", attention(axis=-2), "run over the queries"),
    ("attention_by_einsum", attention(axis=1), "run over the heads"),
    ("attention_by_einsum", attention(mix="bhqk,bkhd->bhqd"), "the order of the letters"),
    ("attention_by_einsum", attention(mixed="keys"), "the weights mix keys"),
    ("attention_by_einsum", attention(scores="bthd,bthd->bht"), "share a letter for T"),
    ("attention_by_einsum", one_weight_for_all_heads, "all heads share one weight"),
    ("attention_by_einsum", without_softmax, "is the softmax missing"),
    ("parameter_count", counted(kv_heads=lambda s: s.heads), "k and v have kv_heads heads"),
    ("parameter_count", counted(tied=lambda _: False), "tied, the output is the embedding"),
    ("parameter_count", counted(tied=lambda _: True), "untied, the output has a separate matrix"),
    ("parameter_count", counted(gated=lambda _: False), "with a gate, it goes up twice"),
    ("parameter_count", counted(biases=lambda _: False), "are the biases missing"),
    ("parameter_count", counted(layers=lambda _: 1), "multiply by the number of layers"),
    ("parameter_count", counted(positions=lambda _: 0), "learns a vector for each position"),
    ("parameter_count", changed("norms", lambda s: -s.width * (1 + s.biases)), "the last norm"),
    ("parameter_count", changed("ffn", lambda s: -s.layers * s.width * s.biases), "the way down"),
    (
        "parameter_count",
        counted(head_dim=lambda s: s.width // s.heads),
        "heads · head_dim may differ from the width",
    ),
    ("parameter_count", a_single_number, "a dictionary with the keys"),
]
