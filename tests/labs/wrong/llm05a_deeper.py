"""Wrong solutions of LLM05a+: what a learner might plausibly hand in, and the message."""

from labs.llm05a_normalization import deeper as lab

import torch


def parts(dy, x, gain, eps):
    centred = x - x.mean(-1, keepdim=True)
    r = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return centred / r, dy * gain, r


def mean_of(a):
    return a.mean(-1, keepdim=True)


def sums(dy, x_hat):
    return (dy * x_hat).flatten(0, -2).sum(0), dy.flatten(0, -2).sum(0)


def as_rms_norm(dy, x, gain, eps=1e-5):
    x_hat, g, r = parts(dy, x, gain, eps)
    return (g - x_hat * mean_of(g * x_hat)) / r, *sums(dy, x_hat)


def constant_root(dy, x, gain, eps=1e-5):
    x_hat, g, r = parts(dy, x, gain, eps)
    return (g - mean_of(g)) / r, *sums(dy, x_hat)


def not_divided(dy, x, gain, eps=1e-5):
    dx, dgain, dbias = lab.layer_norm_backward(dy, x, gain, eps)
    return dx * parts(dy, x, gain, eps)[2], dgain, dbias


def gain_forgotten(dy, x, gain, eps=1e-5):
    return lab.layer_norm_backward(dy, x, torch.ones_like(gain), eps)


def bias_for_each_token(dy, x, gain, eps=1e-5):
    return *lab.layer_norm_backward(dy, x, gain, eps)[:2], dy


def rms_parts(dy, x, gain, eps):
    r = (x.square().mean(-1, keepdim=True) + eps).sqrt()
    return x / r, dy * gain, r


def rms_constant_root(dy, x, gain, eps=1e-5):
    x_hat, g, r = rms_parts(dy, x, gain, eps)
    return g / r, (dy * x_hat).flatten(0, -2).sum(0)


def layer_norms_gradient(dy, x, gain, eps=1e-5):
    x_hat, g, r = rms_parts(dy, x, gain, eps)
    along = x_hat * (g * x_hat).mean(-1, keepdim=True)
    return (g - g.mean(-1, keepdim=True) - along) / r, (dy * x_hat).flatten(0, -2).sum(0)


def rms_gain_forgotten(dy, x, gain, eps=1e-5):
    return lab.rms_norm_backward(dy, x, torch.ones_like(gain), eps)


def sum_for_mean(dy, x, gain, eps=1e-5):
    x_hat, g, r = rms_parts(dy, x, gain, eps)
    dx = (g - x_hat * (g * x_hat).sum(-1, keepdim=True)) / r
    return dx, (dy * x_hat).flatten(0, -2).sum(0)


def one_gain_for_each_token(dy, x, gain, eps=1e-5):
    return lab.rms_norm_backward(dy, x, gain, eps)[0], dy * rms_parts(dy, x, gain, eps)[0]


def entropy_of_pairs(counts):
    p = counts / counts.sum()
    return -torch.xlogy(p, p).sum().item()


def zero_times_infinity(counts):
    p = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return -((counts * p.log()).sum() / counts.sum()).item()


def plain_mean(counts):
    p = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return -torch.xlogy(p, p).sum(-1).mean().item()


def by_columns(counts):
    return lab.conditional_entropy(counts.T)


def in_bits(counts):
    return lab.conditional_entropy(counts) / 0.6931471805599453


WRONG = [
    ("rms_norm_backward", rms_constant_root, "treated as a constant"),
    ("rms_norm_backward", layer_norms_gradient, "LayerNorm's gradient"),
    ("rms_norm_backward", rms_gain_forgotten, "gain is missing from dx"),
    ("rms_norm_backward", sum_for_mean, "factor 1/d"),
    ("rms_norm_backward", one_gain_for_each_token, "one vector"),
    ("layer_norm_backward", as_rms_norm, r"mean\(g\) isn't subtracted"),
    ("layer_norm_backward", constant_root, "r is treated as a constant"),
    ("layer_norm_backward", not_divided, "division by r is missing"),
    ("layer_norm_backward", gain_forgotten, "gain is missing from dx"),
    ("layer_norm_backward", bias_for_each_token, "dbias is one vector"),
    ("conditional_entropy", entropy_of_pairs, "entropy of pairs"),
    ("conditional_entropy", zero_times_infinity, "0 · ln 0"),
    ("conditional_entropy", plain_mean, "plain mean over rows"),
    ("conditional_entropy", by_columns, "not of columns"),
    ("conditional_entropy", in_bits, "in bits"),
]
