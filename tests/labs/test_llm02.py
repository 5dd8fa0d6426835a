"""LLM02: the engine on unusual shapes and graphs, the data, and the theory that it quotes."""

import math
import random
from itertools import pairwise

from labs.llm02_deep_learning import (
    boundary,
    cut_network,
    data,
    deeper,
    depth,
    figures,
    operations,
    structure_figures,
    view_data,
)
from labs.llm02_deep_learning import lesson as lab
from labs.llm02_deep_learning.random_graphs import STEPS, follow, random_graph
from labs.llm03_neural_networks.deeper import theory

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


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
        values = [deeper.RichValue(x.detach()) for x in tensors]
        for leaves in (values, tensors):
            follow([(step, 0, 1), (step, 2, 2)], leaves).backward()
        for value, x in zip(values, tensors, strict=True):
            torch.testing.assert_close(value.grad, x.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("operation", sorted(deeper.RichValue.operations))
def test_the_comparison_with_pytorch_notices_a_wrong_rule(operation, monkeypatch):
    compute, vjp = deeper.RichValue.operations[operation]

    def wrong(*inputs, **options):
        first, *others = vjp(*inputs, **options)
        return (1.01 * first, *others)

    monkeypatch.setitem(deeper.RichValue.operations, operation, (compute, wrong))
    chance = random.Random(0)
    worst = 0.0
    for _ in range(20):
        shapes, steps = random_graph(chance)
        tensors = [randn(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
        values = [deeper.RichValue(x.detach()) for x in tensors]
        follow(steps, values).backward()
        follow(steps, tensors).backward()
        for value, x in zip(values, tensors, strict=True):
            worst = max(worst, (value.grad - x.grad).abs().max().item())
    assert worst > 1e-4


def test_value_sums_over_all_paths_as_the_text_says():
    graph = lab.neuron(2.0, 3.0, -4.0, 5.0)
    graph["L"].backward()
    numbers = {"h": 6, "s": 2, "y": 2, "e": -3, "L": 9}
    assert {name: graph[name].data for name in numbers} == numbers
    gradients = {"w": -12, "x": -18, "b": -6, "h": -6, "s": -6, "y": -6, "e": -6, "L": 1}
    assert {name: graph[name].grad for name in gradients} == gradients
    assert lab.neuron(2.0, 3.01, -4.0, 5.0)["L"].data == pytest.approx(8.8804)


def test_the_vjp_and_the_loss_of_the_text_are_right():
    a = torch.tensor([3.0, 4.0], requires_grad=True)
    y = torch.stack((a[0] * a[1], a[0] + a[1]))
    assert torch.autograd.grad(y, a, torch.tensor([1.0, 10.0]))[0].tolist() == [14, 13]
    x = torch.arange(6.0).reshape(2, 3)
    g = torch.tensor([[0.0, 0.0], [1.0, 10.0]])
    assert lab.matmul_vjp(g, x, x.reshape(3, 2))[0][1, 2] == 54
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    g = lab.cross_entropy_vjp(torch.tensor(1.0), logits, torch.tensor([1]))
    assert g[0].tolist() == pytest.approx([0.665, -0.755, 0.090], abs=5e-4)
    assert operations.cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(
        1.41, abs=5e-3
    )


def test_the_largest_derivatives_are_those_of_the_text():
    z = torch.linspace(-6, 6, 12_001, dtype=torch.float64)
    steepest = {}
    for name in ("sigmoid", "tanh", "ReLU", "GELU"):
        value = lab.TensorValue(z)
        lab.ACTIVATIONS[name](value).sum().backward()
        steepest[name] = value.grad.max().item()
    assert steepest == pytest.approx(
        {"sigmoid": 0.25, "tanh": 1, "ReLU": 1, "GELU": 1.13}, abs=2e-3
    )


def test_saturated_derivatives_are_those_of_the_text():
    z = torch.tensor(6.0, dtype=torch.float64)
    assert round((z.sigmoid() * (1 - z.sigmoid())).item(), 4) == 0.0025
    assert round((1 - z.tanh() ** 2).item(), 5) == 0.00002


def test_backward_leaves_a_value_once_for_any_number_of_paths():
    x = lab.Value(1.0)
    calls = []
    y = x
    for _ in range(60):  # 2⁶⁰ paths
        y = y + y
        y.grad_fn = lambda g, rule=y.grad_fn: calls.append(g) or rule(g)
    y.backward()
    assert x.grad == 2.0**60
    assert len(calls) == 60


def test_two_backwards_add_up_their_gradients():
    x = lab.TensorValue(torch.tensor(3.0))
    y = x * x
    y.backward()
    y.backward()
    assert x.grad.item() == 12


def test_a_graph_of_ten_thousand_operations_needs_no_recursion():
    x = y = lab.Value(1.0)
    for _ in range(10_000):
        y = y + x
    y.backward()
    assert x.grad == 10_001


def test_plain_numbers_and_tensors_take_part_and_keep_the_dtype():
    x = deeper.RichValue(randn(3))
    y = (x * 2.0 + torch.ones(2, 3, dtype=torch.float64)) ** 2
    assert y.data.dtype == torch.float64
    y.sum().backward()
    assert x.grad.dtype == torch.float64
    torch.testing.assert_close(x.grad, 8 * (2 * x.data + 1), rtol=0, atol=1e-12)


def test_gelu_has_the_gradient_of_pytorch():
    x = randn(50).requires_grad_()
    value = lab.TensorValue(x.detach())
    value.gelu().sum().backward()
    F.gelu(x).sum().backward()
    torch.testing.assert_close(value.grad, x.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)])
def test_log_softmax_equals_the_library_for_any_number_of_axes(shape):
    x = 300 * randn(*shape)
    torch.testing.assert_close(deeper.log_softmax(x), x.log_softmax(-1), rtol=0, atol=1e-9)


def test_the_deeper_part_leaves_the_engine_of_the_lesson_as_it_is():
    assert len(lab.OPERATIONS) == 9
    assert not hasattr(lab.TensorValue, "exp")
    result = deeper.RichValue(randn(3)) + 1.0
    assert isinstance(result, deeper.RichValue)
    assert type(lab.TensorValue(randn(3)) + 1.0) is lab.TensorValue


def test_the_gradients_of_a_log_softmax_are_those_of_the_text():
    y = torch.tensor([2.0, 1, 0]).log_softmax(-1)
    for g, want in (([0, -1, 0], [0.665, -0.755, 0.090]), ([1, 1, 0], [-0.330, 0.511, -0.180])):
        got = deeper.log_softmax_vjp(torch.tensor(g, dtype=torch.float32), y)
        assert got.tolist() == pytest.approx(want, abs=6e-4)
    got = deeper.log_softmax(torch.tensor([1000.0, 999.0]))
    assert got.tolist() == pytest.approx([-0.31, -1.31], abs=5e-3)


def test_the_engine_trains_the_same_network_as_pytorch():
    x = randn(128, 6)
    y = torch.arange(128) % 3
    torch.manual_seed(0)
    model = lab.MLP(6, 16, 16, 3, dtype=torch.float64)
    layers = [nn.Linear(n, m).double() for n, m in pairwise((6, 16, 16, 3))]
    for layer, w, b in zip(layers, model.weights, model.biases, strict=True):
        layer.load_state_dict({"weight": w.data.T.clone(), "bias": b.data.clone()})
    theirs = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9)
    batches = data.batches_of(32, 128, 60)
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
    batches = data.batches_of(4, 10, 5)
    assert len(batches) == 5
    assert all(len(batch) == 4 for batch in batches)
    assert len(set(torch.cat(batches[:2]).tolist())) == 8
    assert len(set(torch.cat(batches[2:4]).tolist())) == 8


def test_the_digits_have_a_fixed_split_and_no_image_is_in_both_parts():
    x, y, x_test, y_test = data.digits()
    assert (x.shape, x_test.shape) == ((1437, 64), (360, 64))
    assert 0 <= x.min() < x.max() <= 1
    assert set(y.tolist()) == set(y_test.tolist()) == set(range(10))
    assert torch.cdist(x_test, x).min() > 0
    assert 0.85 < data.nearest_average() < 0.95


def test_the_three_sets_of_digits_are_parts_of_the_two():
    x, y, x_test, y_test = data.digits()
    (training, labels), (validation, more), (test, last) = data.digit_sets("cpu")
    assert (len(labels), len(more), len(last)) == (1237, 200, 360)
    assert torch.equal(torch.cat((training, validation)), x)
    assert torch.equal(torch.cat((labels, more)), y)
    assert torch.equal(test, x_test)
    assert torch.equal(last, y_test)


def test_an_unbroken_range_ends_before_the_first_gap():
    assert data.unbroken([True, False, True, True, True, False], 3) == (2, 4)
    assert data.unbroken([True, True], 0) == (0, 1)


def test_a_paired_lead_counts_digits_and_its_error_is_that_of_their_scores():
    a = torch.tensor([[1.0, 1, 0, 1], [1, 0, 0, 1]])
    b = torch.tensor([[1.0, 0, 0, 1], [1, 0, 0, 1]])
    lead, error = data.paired_lead(a, b)
    assert lead == 0.5
    assert error == pytest.approx(2 * torch.tensor([0, 0.5, 0, 0]).std().item())
    assert data.paired_lead(a, a) == (0.0, 0.0)


def test_a_lead_within_two_standard_errors_may_be_chance():
    assert data.may_be_chance(2.1, 1) == data.may_be_chance(-2.1, 1) == ""
    assert "may be chance" in data.may_be_chance(-1.9, 1)


def test_a_rate_is_near_the_best_within_two_standard_errors():
    right = torch.tensor([[0.10], [0.95], [0.98], [0.96], [0.90]])  # 2 √(0.07/200) = 0.037
    assert data.near_the_best(right) == (1, 3)


def test_the_walk_and_pytorch_find_the_same_parameters_behind_a_cut():
    for between, count in ((lambda z: z, 0), (lambda z: z.detach(), 4)):
        model = cut_network.three_layers(between)
        loss = model(torch.randn(3, 64)).square().mean()
        names = cut_network.without_gradient(loss, model)
        assert deeper.unreached(loss, model) == names
        assert len(names) == count
        assert all(parameter.grad is None for parameter in model.parameters())


def test_spirals_have_two_arms_that_meet_only_in_the_middle():
    torch.manual_seed(0)
    x, y = data.spirals(4000)
    assert 0.45 < y.float().mean() < 0.55
    outer = x.norm(dim=1) > 0.4
    x, y = x[outer], y[outer]
    distance = torch.cdist(x, x) + 9 * torch.eye(len(x))
    assert (
        y[distance.argmin(1)] == y
    ).float().mean() > 0.98  # the nearest point is on the same arm


def test_best_line_finds_lines_that_are_known():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.1], [2.0, 0.0], [3.0, 0.1]])
    assert data.best_line(x, torch.tensor([0, 0, 1, 1])) == 1
    assert data.best_line(x, torch.tensor([1, 1, 0, 0])) == 1
    assert data.best_line(x, torch.tensor([1, 0, 0, 1])) == 0.75
    assert data.best_line(x, torch.tensor([1, 1, 1, 1])) == 1


def test_no_trained_line_beats_the_best_line():
    torch.manual_seed(0)
    x, y = data.spirals(400)
    best = data.best_line(x, y)
    model = lab.MLP(2, 2, activation="identity")
    everything = [torch.arange(400)] * 200
    lab.train(model, lab.Momentum(model.parameters(), 0.3), x, y, everything)
    assert 0.5 < data.accuracy(model, x, y) <= best + 1 / 400


# Theory.


def test_the_best_step_minimises_the_sum_of_both_errors():
    eps = 2.0**-52
    steps = torch.logspace(-8, -3, 100_001, dtype=torch.float64)
    bound = eps / (2 * steps) + steps**2 / 6
    best = deeper.best_step(torch.float64)
    assert abs(steps[bound.argmin()] / best - 1) < 1e-3
    assert best == pytest.approx(6.9e-6, rel=0.01)


def test_the_error_of_a_large_step_is_the_term_of_taylor():
    steps = torch.tensor([2.0**-6], dtype=torch.float64)
    error = deeper.difference_errors(torch.float64, steps)
    assert abs(error / (steps**2 / 6) - 1) < 1e-3


def test_the_steps_of_the_table_have_the_errors_of_the_text():
    eps = 2.0**-52
    for h, bend, rounding in (
        (1e-3, 1.7e-7, 1.1e-13),
        (1e-5, 1.7e-11, 1.1e-11),
        (1e-9, 1.7e-19, 1.1e-7),
    ):
        assert h**2 / 6 == pytest.approx(bend, rel=0.03)
        assert eps / (2 * h) == pytest.approx(rounding, rel=0.03)


def test_the_median_rounding_error_is_a_fifth_of_the_worst_one():
    x = torch.arange(512, 1536, dtype=torch.float64) / 1024
    h = 2.0**-40
    exact = (2 * math.sinh(h) / (2 * h)) * x.exp()
    slope = ((x + h).exp() - (x - h).exp()) / (2 * h)
    r = ((slope - exact).abs() / (2.0**-52 * exact / (2 * h))).median()
    assert 0.21 / 1.5 < r < 0.21 * 1.5


def test_layers_of_centred_sigmoids_with_gain_4_compute_what_layers_of_tanh_do():
    z = centred = randn(5, 30)
    for seed in range(1, 6):
        w = randn(30, 30, seed=seed) / 30**0.5
        z = z.tanh() @ w
        centred = ((2 * centred).sigmoid() - 0.5) @ (4 * w) / 2  # half of what it computes
    torch.testing.assert_close(centred, z)


def test_the_cured_sigmoids_have_half_of_the_gradients_of_tanh_after_the_first_layer(monkeypatch):
    centred = lambda z: z.sigmoid() + lab.TensorValue(-0.5)  # noqa: E731
    monkeypatch.setitem(lab.ACTIVATIONS, "shifted", centred)
    sizes = {}
    for name, gains in (("tanh", [1] * 6), ("shifted", [2] + [4] * 5)):
        torch.manual_seed(0)
        model = lab.MLP(*[64] * 7, activation=name)
        for weight, gain in zip(model.weights, gains, strict=True):
            weight.data *= gain
        logits = model(torch.randn(64, 64))
        (logits * torch.randn(64, 64)).sum().backward()
        sizes[name] = [weight.grad.square().mean().sqrt().item() for weight in model.weights]
    first, *others = [a / b for a, b in zip(sizes["shifted"], sizes["tanh"], strict=True)]
    assert first == pytest.approx(1, rel=1e-3)
    assert others == pytest.approx([0.5] * 5, rel=1e-3)


def test_kahan_loses_nothing_in_the_example_of_the_text_and_in_long_sums():
    start = torch.tensor(2.0**24)
    assert deeper.kahan_sum(start, torch.ones(1001)) == 2.0**24 + 1001 - 1001 % 2
    steps = torch.full((1000,), 0.001, dtype=torch.bfloat16)
    got = deeper.kahan_sum(torch.full((), 2.0, dtype=torch.bfloat16), steps)
    assert abs(got.item() - 3) <= 0.07  # (2u + n·u²)·Σ|x|, u = 2⁻⁸
    assert torch.equal(start, torch.tensor(2.0**24))


def test_gradients_by_layer_equal_pytorch_for_the_same_weights():
    torch.manual_seed(0)
    sizes = deeper.gradients_by_layer("sigmoid", 4, 8)
    torch.manual_seed(0)
    weights = [w.data.requires_grad_() for w in lab.MLP(*[8] * 5, activation="sigmoid").weights]
    y = torch.randn(64, 8)
    for i, w in enumerate(weights):
        y = (y.sigmoid() if i else y) @ w
    (y * torch.randn(64, 8)).sum().backward()
    wants = [w.grad.square().mean().sqrt().item() for w in weights]
    assert sizes == pytest.approx(wants, rel=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "ReLU"])
def test_the_derived_gradients_are_those_of_a_wide_network(activation):
    torch.manual_seed(0)
    measured = deeper.gradients_by_layer(activation, 6, 512)
    derived = depth.derived_gradients(activation, 6, 512)
    assert [size / measured[-1] for size in measured] == pytest.approx(derived, rel=0.25)


def test_with_gain_1_the_gradients_of_a_relu_network_are_equal_and_small(monkeypatch):
    monkeypatch.setitem(lab.ACTIVATIONS, "ReLU, gain 1", lab.TensorValue.relu)
    torch.manual_seed(0)
    sizes = deeper.gradients_by_layer("ReLU, gain 1", 20, 256)
    assert abs(math.log(sizes[0] / 0.011)) < 1.22  # the bound of the check, which wants 8
    assert abs(math.log(sizes[0] / sizes[-1])) < 1


def test_a_quarter_for_each_sigmoid_is_far_from_the_derived_ratio():
    torch.manual_seed(0)
    derived = depth.derived_gradients("sigmoid", 20, 256)[0]
    last = torch.randn(100_000).sigmoid().square().mean().sqrt().item()  # nearly the last input's
    assert math.log(4.0**-19 / last / derived) == pytest.approx(1.2, abs=0.2)


def test_the_spread_of_a_wide_relu_network_shrinks_as_llm03_computes():
    torch.manual_seed(0)
    spreads = deeper.spreads_by_layer("ReLU", 8, 1024)
    rms, spread = theory(2, 0, 1024)[6]
    assert spreads[-1] == pytest.approx(spread / rms, rel=0.1)


def test_squared_sizes_in_a_relu_network_spread_as_the_text_says():
    layers = 20
    width = 64
    logs = []
    for seed in range(200):
        torch.manual_seed(seed)
        g = torch.randn(1, width, dtype=torch.float64)
        start = g.square().sum()
        for _ in range(layers):
            g = (g * torch.randint(2, g.shape)) @ torch.randn(width, width).double() / width**0.5
            g = g * math.sqrt(2)
        logs.append(math.log(g.square().sum() / start))
    assert 0.8 < torch.tensor(logs).std() / math.sqrt(5 * layers / width) < 1.3


def test_stochastic_rounding_is_right_on_average():
    torch.manual_seed(0)
    x = torch.tensor([1.001, -1.001, 3.0, 0.1]).repeat(100_000, 1)
    mean = deeper.stochastic_bfloat16(x).float().mean(0)
    torch.testing.assert_close(mean, x[0], rtol=0, atol=2e-4)


# Drawings and views.


def test_a_graph_is_laid_out_with_inputs_left_of_results():
    graph = lab.neuron(2.0, 3.0, -4.0, 5.0)
    place = structure_figures.layout(graph)
    names = {value: name for name, value in graph.items()}
    for name, value in graph.items():
        assert all(place[names[source]][0] < place[name][0] for source in value.inputs)
    assert len(set(place.values())) == len(graph)


def test_labels_keep_their_order_and_do_not_overlap():
    heights = figures.apart({"a": 0.9, "b": 0.965, "c": 0.969}, 0.025)
    assert list(heights) == ["c", "b", "a"]
    assert list(heights.values()) == pytest.approx([0.969, 0.944, 0.9])


def test_a_run_on_spirals_has_a_map_and_an_accuracy_for_each_step():
    result = boundary.watch((lab.MLP, lab.Momentum, lab.train), "identity", 0, 401)
    assert result["steps"] == [*boundary.STOPS, 401]
    assert len(result["maps"]) == len(result["accuracies"]) == len(result["steps"])
    assert all(p.shape == (boundary.MAP_SIZE**2,) for p in result["maps"])
    assert max(result["accuracies"]) <= result["line"] + 5 / 2000, "a straight line"
    data, _, columns, rows = view_data.boundaries({"identity": [result]})
    assert data["size"] == boundary.MAP_SIZE
    assert columns == ["step", "accuracy, identity"]
    assert rows[-1] == [401, result["accuracies"][-1]]


def test_the_data_of_a_graph_name_the_inputs_of_each_node():
    nodes = view_data.graph(lab.neuron(2.0, 3.0, -4.0, 5.0))
    by_name = {node["name"]: node for node in nodes}
    assert [nodes[i]["name"] for i in by_name["h"]["inputs"]] == ["w", "x"]
    assert by_name["L"]["inputs"] == 2 * [nodes.index(by_name["e"])]
    assert by_name["−t"]["value"] == -5
