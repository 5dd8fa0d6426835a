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
    ("loglog_slope", on_plain_axes, "the slope on plain axes"),
    ("loglog_slope", only_y_logarithmic, "only y is logarithmic"),
    ("loglog_slope", from_end_to_end, "between the first and the last point"),
    ("loglog_slope", axes_changed, "x and y have changed places"),
    ("loglog_slope", as_a_tensor, "got a tensor"),
]
