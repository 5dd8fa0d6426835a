"""Plausible wrong solutions of LLM03+'s exercises, each with the message that names its mistake."""

import math

from labs.llm03_neural_networks import deeper as lab

import torch


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


def everything(w, _k):
    return w


def without_the_singular_values(w, k):
    u, _, vt = torch.linalg.svd(w, full_matrices=False)
    return u[:, :k] @ vt[:k]


def the_smallest(w, k):
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    last = len(s) - k
    return u[:, last:] * s[last:] @ vt[last:]


def full_matrices(w, k):
    u, s, vt = torch.linalg.svd(w)
    return (u * s)[:, :k] @ vt[:k]


def logs(values):
    return [math.log(value) for value in values]


def slope(u, v):
    """Return the slope of a fitted line."""
    mean_u = sum(u) / len(u)
    mean_v = sum(v) / len(v)
    products = sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True))
    return products / sum((a - mean_u) ** 2 for a in u)


def on_plain_axes(xs, ys):
    return slope(xs, ys)


def only_y_logarithmic(xs, ys):
    return slope(xs, logs(ys))


def from_end_to_end(xs, ys):
    return math.log(ys[-1] / ys[0]) / math.log(xs[-1] / xs[0])


def axes_changed(xs, ys):
    u = logs(ys)
    return slope(u, logs(xs)) if len(set(u)) > 1 else 0.0


def as_a_tensor(xs, ys):
    return torch.tensor(lab.loglog_slope(xs, ys))


WRONG = [
    ("diagonal", strides_from_the_shape, "ask x.stride"),
    ("diagonal", offset_forgotten, "a slice with an offset"),
    ("diagonal", as_long_as_there_are_rows, "as long as the shorter axis|end of the storage"),
    ("diagonal", returns_a_copy, "got a copy"),
    ("diagonal", one_stride_is_enough, "a square"),
    ("attention_by_einsum", attention(scale=1.0), "division by √D missing"),
    ("attention_by_einsum", attention(scale=0.25), "divided by D, not by √D"),
    ("attention_by_einsum", attention(axis=-2), "run over the queries"),
    ("attention_by_einsum", attention(axis=1), "run over the heads"),
    ("attention_by_einsum", attention(mix="bhqk,bkhd->bhqd"), "the order of the letters"),
    ("attention_by_einsum", attention(mixed="keys"), "the weights mix keys"),
    ("attention_by_einsum", attention(scores="bthd,bthd->bht"), "share a letter for T"),
    ("attention_by_einsum", one_weight_for_all_heads, "all heads share one weight"),
    ("attention_by_einsum", without_softmax, "is the softmax missing"),
    ("truncated", everything, "all singular values are in use"),
    ("truncated", without_the_singular_values, "are the singular values missing"),
    ("truncated", the_smallest, "the k smallest are in use"),
    ("truncated", full_matrices, "is full_matrices=False missing"),
    ("loglog_slope", on_plain_axes, "the slope on plain axes"),
    ("loglog_slope", only_y_logarithmic, "only y is logarithmic"),
    ("loglog_slope", from_end_to_end, "between the first and the last point"),
    ("loglog_slope", axes_changed, "x and y have changed places"),
    ("loglog_slope", as_a_tensor, "got a tensor"),
]
