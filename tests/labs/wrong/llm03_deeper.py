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


def library_diagonal(x):
    return x.diagonal()


def library_attention(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def attention_by_matmul(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2)


def mixed_by_a_sum(q, k, v):
    weights = (torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])).softmax(-1)
    v = v.transpose(1, 2)[:, :, None]  # (B, H, 1, Tk, D)
    return (weights[..., None] * v).sum(-2).transpose(1, 2)


def mixed_by_matmul(q, k, v):
    weights = (torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v.transpose(1, 2)).transpose(1, 2)


def attention(scale=0.5, axis=-1, scores="bthd,bshd->bhts", mix="bhts,bshd->bthd", mixed=None):
    def attend(q, k, v):
        weights = (torch.einsum(scores, q, k) * scale).softmax(axis)
        return torch.einsum(mix, weights, k if mixed == "keys" else v)

    return attend


def one_weight_for_all_heads(q, k, v):
    scores = torch.einsum("bthd,bshd->bts", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bts,bshd->bthd", scores.softmax(-1), v)


def without_softmax(q, k, v):
    scores = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhts,bshd->bthd", scores, v)


def before_the_relu(q, r, a, c, n):
    return a * q + c / n, a * r + c / n


def without_the_half(q, r, a, c, n):
    half, product = lab.relu_step(q, r, a, c, n)
    return 2 * half, product


def v_halved_too_early(q, r, a, c, n):
    half, product = lab.relu_step(q, r, a, c, n)
    return half, product / 2


def without_biases(q, r, a, _c, n):
    return lab.relu_step(q, r, a, 0, n)


def bias_in_the_variance_alone(q, r, a, c, n):
    v = a * q + c / n
    rho = a * r / v
    kernel = math.sqrt(1 - rho**2) + (math.pi - math.acos(rho)) * rho
    return v / 2, v * kernel / (2 * math.pi)


def bias_of_variance_c(q, r, a, c, _n):
    return lab.relu_step(q, r, a, c, 1)


def a_covariance_for_rho(q, r, a, c, n):
    return lab.relu_step(q, r, a, c, n)[0], (a * r + c / n) / 2


def as_tensors(q, r, a, c, n):
    return tuple(torch.tensor(x) for x in lab.relu_step(q, r, a, c, n))


def as_a_list(q, r, a, c, n):
    return list(lab.relu_step(q, r, a, c, n))


def one_flop_each(shape, size):
    return lab.intensity(shape, size) / 2


def per_number(shape, _size):
    return lab.intensity(shape, 1)


def without_the_result(shape, size):
    b, n, m = shape
    return 2 * b * n * m / (size * (b * n + m * n))


def weights_alone(shape, size):
    return 2 * shape[0] / size


def bytes_per_flop(shape, size):
    return 1 / lab.intensity(shape, size)


WRONG = [
    ("diagonal", strides_from_the_shape, "ask x.stride"),
    ("diagonal", offset_forgotten, "a slice with an offset"),
    ("diagonal", as_long_as_there_are_rows, "as long as the shorter axis|end of the storage"),
    ("diagonal", returns_a_copy, "got a copy"),
    ("diagonal", one_stride_is_enough, "add both strides"),
    ("diagonal", library_diagonal, "make the view with as_strided"),
    ("attention_by_einsum", library_attention, "calls PyTorch's attention"),
    ("attention_by_einsum", attention_by_matmul, "write both products with torch.einsum"),
    ("attention_by_einsum", mixed_by_a_sum, "two products need two"),
    ("attention_by_einsum", mixed_by_matmul, "write the other product with torch.einsum"),
    ("attention_by_einsum", attention(scale=1.0), "division by √D missing"),
    ("attention_by_einsum", attention(scale=0.25), "divided by D, not by √D"),
    ("attention_by_einsum", attention(axis=-2), "run over the queries"),
    ("attention_by_einsum", attention(axis=1), "run over the heads"),
    ("attention_by_einsum", attention(mix="bhts,bshd->bhtd"), "the order of the letters"),
    ("attention_by_einsum", attention(mixed="keys"), "the weights mix keys"),
    ("attention_by_einsum", attention(scores="bthd,bthd->bht"), "share a letter for T"),
    ("attention_by_einsum", one_weight_for_all_heads, "all heads share one weight"),
    ("attention_by_einsum", without_softmax, "is the softmax missing"),
    ("relu_step", before_the_relu, "the step before the ReLU"),
    ("relu_step", without_the_half, "q' is v/2"),
    ("relu_step", v_halved_too_early, "v is v/2 already"),
    ("relu_step", without_biases, "the biases are missing"),
    ("relu_step", bias_in_the_variance_alone, "the same for both samples"),
    ("relu_step", bias_of_variance_c, "is c/n, not c"),
    ("relu_step", a_covariance_for_rho, "r' is halved like q'"),
    ("relu_step", as_tensors, "expected numbers from math"),
    ("relu_step", as_a_list, "expected two numbers"),
    ("intensity", one_flop_each, "a multiplication and an addition"),
    ("intensity", per_number, "that is per number"),
    ("intensity", without_the_result, "y must be written"),
    ("intensity", weights_alone, "only w is counted"),
    ("intensity", bytes_per_flop, "FLOPs per byte"),
]
