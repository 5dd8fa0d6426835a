"""LLM02: the engine on unusual shapes and graphs, the data, and the theory that the lab quotes."""

import math
import random
from itertools import pairwise

from labs.llm02_deep_learning import lesson as lab
from labs.llm02_deep_learning.random_graphs import STEPS, follow, random_graph

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# Strides.


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(0, 2),
        lambda x: x[1, :, 1::2],
        lambda x: x[..., :0],
        lambda x: x[1, 2, 3],
        lambda x: x[:, None].expand(-1, 2, -1, -1),
        lambda x: x.diagonal(dim1=0, dim2=2),
    ],
)
def test_offset_and_strides_describe_any_view(view):
    x = torch.arange(60).view(3, 4, 5)
    got = view(x)
    assert torch.equal(
        lab.by_strides(x.flatten(), got.storage_offset(), got.shape, got.stride()), got
    )


# Rounding.


def test_bfloat16_weights_lose_small_steps_as_the_text_says():
    w = torch.arange(0x3F00, 0x4080, dtype=torch.int16).view(torch.bfloat16)  # all of 0.5 to 4
    for sign in (-1, 1):
        for share, moves in ((0.999 * 2**-9, False), (1.001 * 2**-8, True)):
            step = sign * share * w.double()
            assert ((w.double() + step).bfloat16() != w).all() == moves
            assert ((w.double() + step).bfloat16() != w).any() == moves


# The engine.


@pytest.mark.parametrize(("source", "result"), [((3, 1), (3, 0)), ((1,), (0,)), ((), (0, 2))])
def test_the_gradient_of_a_number_that_is_never_used_is_zero(source, result):
    got = lab.unbroadcast(torch.zeros(result), torch.Size(source))
    assert torch.equal(got, torch.zeros(source))


@pytest.mark.parametrize("step", STEPS)
def test_each_step_of_the_graphs_has_the_gradient_of_pytorch(step):
    for shapes in (((), (2, 1, 4)), ((3, 1), (4,)), ((2, 3, 4), (1, 1, 1))):
        tensors = [randn(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
        values = [lab.Value(x.detach()) for x in tensors]
        for leaves in (values, tensors):
            follow([(step, 0, 1), (step, 2, 2)], leaves).backward()
        for value, x in zip(values, tensors, strict=True):
            torch.testing.assert_close(value.grad, x.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("operation", list(lab.OPERATIONS))
def test_the_comparison_with_pytorch_notices_a_wrong_rule(operation, monkeypatch):
    compute, vjp = lab.OPERATIONS[operation]

    def wrong(*inputs, **how):
        first, *others = vjp(*inputs, **how)
        return (1.01 * first, *others)

    monkeypatch.setitem(lab.OPERATIONS, operation, (compute, wrong))
    chance = random.Random(0)
    worst = 0.0
    for _ in range(20):
        shapes, steps = random_graph(chance)
        tensors = [randn(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
        values = [lab.Value(x.detach()) for x in tensors]
        follow(steps, values).backward()
        follow(steps, tensors).backward()
        for value, x in zip(values, tensors, strict=True):
            worst = max(worst, (value.grad - x.grad).abs().max().item())
    assert worst > 1e-4


def test_number_sums_over_all_paths_as_the_text_says():
    x = lab.Number(2.0)
    y = lab.Number(3.0)
    (x * y + x).backward()
    assert (x.slope, y.slope) == (4.0, 2.0)


def test_backward_leaves_a_value_once_for_any_number_of_paths():
    x = lab.Value(1.0)
    calls = []
    y = x
    for _ in range(60):  # 2⁶⁰ paths
        y = y + y
        y.vjp = lambda g, vjp=y.vjp: calls.append(g) or vjp(g)
    y.backward()
    assert x.grad.item() == 2.0**60
    assert len(calls) == 60


def test_two_backwards_add_up_their_gradients():
    x = lab.Value(torch.tensor(3.0))
    y = x * x
    y.backward()
    y.backward()
    assert x.grad.item() == 12


def test_a_graph_of_ten_thousand_operations_needs_no_recursion():
    x = y = lab.Value(torch.tensor(1.0))
    for _ in range(10_000):
        y = y + x
    y.backward()
    assert x.grad.item() == 10_001


def test_plain_numbers_and_tensors_take_part_and_keep_the_dtype():
    x = lab.Value(randn(3))
    y = (x * 2.0 + torch.ones(2, 3, dtype=torch.float64)) ** 2
    assert y.data.dtype == torch.float64
    y.sum().backward()
    torch.testing.assert_close(x.grad, 8 * (2 * x.data + 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)])
def test_log_softmax_equals_the_library_for_any_number_of_axes(shape):
    x = 300 * randn(*shape)
    torch.testing.assert_close(lab.log_softmax(x), x.log_softmax(-1), rtol=0, atol=1e-9)


def test_the_engine_trains_the_same_network_as_pytorch():
    x = randn(128, 6)
    y = torch.arange(128) % 3
    torch.manual_seed(0)
    model = lab.MLP("ReLU", 6, 16, 16, 3, dtype=torch.float64)
    layers = [nn.Linear(n, m).double() for n, m in pairwise((6, 16, 16, 3))]
    for layer, w, b in zip(layers, model.weights, model.biases, strict=True):
        layer.load_state_dict({"weight": w.data.T.clone(), "bias": b.data.clone()})
    theirs = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9)
    batches = lab.batches_of(32, 128, 60)
    start = model.weights[0].data.clone()
    lab.train(model, lab.Momentum(model.parameters(), 0.1), x, y, batches)
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(theirs(x[batch]), y[batch]).backward()
        optimizer.step()
    for layer, w, b in zip(layers, model.weights, model.biases, strict=True):
        torch.testing.assert_close(w.data.T, layer.weight.detach(), rtol=0, atol=1e-10)
        torch.testing.assert_close(b.data, layer.bias.detach(), rtol=0, atol=1e-10)
    assert (model.weights[0].data - start).abs().max() > 0.1


# Data.


def test_batches_use_each_example_once_before_any_repeats():
    torch.manual_seed(0)
    batches = lab.batches_of(4, 10, 5)
    assert len(batches) == 5
    assert all(len(batch) == 4 for batch in batches)
    assert len(set(torch.cat(batches[:2]).tolist())) == 8
    assert len(set(torch.cat(batches[2:4]).tolist())) == 8


def test_the_digits_have_a_fixed_split_and_no_image_is_in_both_parts():
    x, y, x_test, y_test = lab.digits()
    assert (x.shape, x_test.shape) == ((1437, 64), (360, 64))
    assert 0 <= x.min() < x.max() <= 1
    assert set(y.tolist()) == set(y_test.tolist()) == set(range(10))
    assert torch.cdist(x_test, x).min() > 0
    assert 0.85 < lab.nearest_average() < 0.95


def test_spirals_have_two_arms_that_meet_only_in_the_middle():
    torch.manual_seed(0)
    x, y = lab.spirals(4000)
    assert 0.45 < y.float().mean() < 0.55
    outer = x.norm(dim=1) > 0.4
    x, y = x[outer], y[outer]
    distance = torch.cdist(x, x) + 9 * torch.eye(len(x))
    assert (
        y[distance.argmin(1)] == y
    ).float().mean() > 0.98  # the nearest point is on the same arm


def test_best_line_finds_lines_that_are_known():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.1], [2.0, 0.0], [3.0, 0.1]])
    assert lab.best_line(x, torch.tensor([0, 0, 1, 1])) == 1
    assert lab.best_line(x, torch.tensor([1, 1, 0, 0])) == 1
    assert lab.best_line(x, torch.tensor([1, 0, 0, 1])) == 0.75
    assert lab.best_line(x, torch.tensor([1, 1, 1, 1])) == 1


def test_no_trained_line_beats_the_best_line():
    torch.manual_seed(0)
    x, y = lab.spirals(400)
    best = lab.best_line(x, y)
    model = lab.MLP("identity", 2, 2)
    everything = [torch.arange(400)] * 200
    lab.train(model, lab.Momentum(model.parameters(), 0.3), x, y, everything)
    assert 0.5 < lab.accuracy(model, x, y) <= best + 1 / 400


# Theory.


def test_the_best_step_minimises_the_sum_of_both_errors():
    eps = 2.0**-52
    steps = torch.logspace(-8, -3, 100_001, dtype=torch.float64)
    bound = eps / steps + steps**2 / 6
    assert abs(steps[bound.argmin()] / (3 * eps) ** (1 / 3) - 1) < 1e-3
    assert abs(bound.min() / (1.5 * eps / (3 * eps) ** (1 / 3)) - 1) < 1e-6


def test_the_error_of_a_large_step_is_the_term_of_taylor():
    steps = torch.tensor([2.0**-6], dtype=torch.float64)
    error = lab.difference_errors(torch.float64, steps)
    assert abs(error / (steps**2 / 6) - 1) < 1e-3


def test_gradients_by_layer_equal_pytorch_for_the_same_weights():
    torch.manual_seed(0)
    sizes = lab.gradients_by_layer("sigmoid", 4, 8)
    torch.manual_seed(0)
    weights = [w.data.requires_grad_() for w in lab.MLP("sigmoid", *[8] * 5).weights]
    y = torch.randn(64, 8)
    for i, w in enumerate(weights):
        y = (y.sigmoid() if i else y) @ w
    (y * torch.randn(64, 8)).sum().backward()
    wants = [w.grad.square().mean().sqrt().item() for w in weights]
    assert sizes == pytest.approx(wants, rel=1e-4)


def test_squared_sizes_in_a_relu_network_spread_as_the_text_says():
    depth = 20
    width = 64
    logs = []
    for seed in range(200):
        torch.manual_seed(seed)
        g = torch.randn(1, width, dtype=torch.float64)
        start = g.square().sum()
        for _ in range(depth):
            g = (g * torch.randint(2, g.shape)) @ torch.randn(width, width).double() / width**0.5
            g = g * math.sqrt(2)
        logs.append(math.log(g.square().sum() / start))
    assert 0.8 < torch.tensor(logs).std() / math.sqrt(5 * depth / width) < 1.3
