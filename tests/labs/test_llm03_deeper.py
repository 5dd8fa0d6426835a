"""LLM03+: views of tiny tensors, the theory of the start, slopes, and intensities.

tests/labs/test_checks.py has the wrong solutions of each exercise.
"""

import math

from labs.kit import Mistake
from labs.llm03_neural_networks import deeper as lab
from labs.llm03_neural_networks import starts
from tests.labs.solutions import check_wrong

import pytest
import torch
from torch import nn


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("part", list(lab.lab.exercises))
@pytest.mark.parametrize("result", [None, "text", 7, [], torch.zeros(3), math.nan], ids=str)
def test_a_part_that_returns_anything_else_is_a_mistake(part, result):
    with pytest.raises(Mistake):
        check_wrong(lab.lab.lesson, part, lambda *_: result)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (0, 3)])
def test_the_diagonal_of_an_empty_or_tiny_matrix_is_a_view(shape):
    x = randn(*shape)
    assert torch.equal(lab.diagonal(x), torch.diagonal(x))
    assert lab.diagonal(x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_gradients_flow_through_the_diagonal():
    x = randn(3, 4).requires_grad_()
    lab.diagonal(x).sum().backward()
    assert torch.equal(x.grad, torch.eye(3, 4, dtype=torch.float64))


# A missing axis.


def test_the_broken_loss_has_its_minimum_at_the_mean_of_the_targets():
    t = randn(50)
    at_mean = (t.mean().expand(50, 1) - t).square().mean()
    elsewhere = (t[:, None] - t).square().mean()
    assert at_mean == pytest.approx(t.var(correction=0).item())
    assert elsewhere > at_mean, "even with perfect predictions"


# Einsum.


def test_attention_to_a_single_key_returns_its_value():
    q = randn(2, 3, 4, 8)
    k = randn(2, 1, 4, 8, seed=1)
    v = randn(2, 1, 4, 8, seed=2)
    torch.testing.assert_close(lab.attention_by_einsum(q, k, v), v.expand(2, 3, 4, 8))


# Singular values.


@pytest.mark.parametrize("k", [0, 1, 4, 6])
def test_a_truncated_matrix_is_the_closest_of_its_rank(k):
    w = randn(6, 9)
    close = lab.truncated(w, k)
    assert torch.linalg.matrix_rank(close) == k
    left = torch.linalg.svdvals(w)[k:].square().sum().sqrt()
    torch.testing.assert_close((w - close).norm(), left)


# The theory of the start.


def test_a_relu_halves_the_mean_square_and_the_arc_cosine_kernel_gives_the_product():
    rho = 0.6
    n = 400_000
    z = randn(2, n)
    first = z[0].relu()
    second = (rho * z[0] + math.sqrt(1 - rho**2) * z[1]).relu()
    assert abs(first.square().mean() - 0.5) < 5 * math.sqrt(1.25 / n)
    kernel = math.sqrt(1 - rho**2) + (math.pi - math.acos(rho)) * rho
    product = first * second
    assert abs(product.mean() - kernel / (2 * math.pi)) < 5 * product.std() / math.sqrt(n)


def test_the_default_layer_has_weights_and_biases_of_variance_a_third_over_n():
    layer = nn.Linear(300, 40_000)
    for parameter, n in ((layer.weight, 12e6), (layer.bias, 4e4)):
        assert parameter.abs().max() <= 1 / math.sqrt(300)
        share = 300 * parameter.detach().double().square().mean()
        assert abs(share - 1 / 3) < 5 * math.sqrt(4 / 45 / n)  # var x² of U(−1, 1) is 4/45


def test_theory_ends_at_the_values_of_the_text():
    n = 512
    rms = {start: lab.theory(*ac, n)[-1][0] for start, ac in lab.STARTS.items()}
    assert rms["He"] == pytest.approx(1)
    assert rms["Glorot"] == pytest.approx(2**-10)
    assert rms[lab.BARE] == pytest.approx(6**-10)
    assert rms["PyTorch"] == pytest.approx(1 / math.sqrt(5 * n), rel=1e-6)


def test_the_table_of_the_text_is_the_theory():
    he = lab.theory(2, 0, 512)
    default = lab.theory(1 / 3, 1 / 3, 512)
    layers = (1, 5, 6, 19, 20)
    assert [f"{he[i - 1][1]:.2f}" for i in layers] == ["0.83", "0.51", "0.47", "0.24", "0.23"]
    assert [f"{default[i - 1][0]:.2g}" for i in layers] == ["0.41", "0.023", *3 * ["0.02"]]
    spreads = [f"{default[i - 1][1]:.3g}" for i in layers]
    assert spreads == ["0.337", "0.0063", "0.00252", "2.18e-08", "8.89e-09"]


def test_a_layer_loses_five_sixths_of_the_squared_spread_once_samples_are_similar():
    spreads = [spread for _, spread in lab.theory(1 / 3, 1 / 3, 512)]
    assert (spreads[-1] / spreads[-2]) ** 2 == pytest.approx(1 / 6, rel=0.02)


def test_equal_samples_have_no_spread():
    layers = [lab.fresh_layer(64, "PyTorch") for _ in range(3)]
    by_layer, _ = lab.signal(layers, torch.ones(5, 64, dtype=torch.float64))
    assert all(rms > 0 and spread < 1e-12 for rms, spread in by_layer)


def test_fresh_layers_keep_the_weights_of_pytorch_and_have_the_variance_of_he():
    torch.manual_seed(0)
    mine = lab.fresh_layer(64, "PyTorch")
    torch.manual_seed(0)
    its = nn.Linear(64, 64, dtype=torch.float64)
    assert torch.equal(mine.weight, its.weight)
    assert torch.equal(mine.bias, its.bias)
    he = lab.fresh_layer(400, "He")
    assert he.bias is None
    assert he.weight.square().mean().item() == pytest.approx(2 / 400, rel=0.02)


# Training.


def test_directions_count_equal_ones_and_are_zero_for_equal_rows():
    corners = torch.eye(3, 5).double()
    both = torch.cat((corners, -corners))
    assert starts.participation_ratio(both) == pytest.approx(3)
    assert starts.participation_ratio(randn(50, 1) @ randn(1, 7) + 10) == pytest.approx(1)
    assert starts.participation_ratio(torch.ones(4, 6)) == 0


def test_a_loss_that_never_falls_has_waited_all_steps():
    assert starts.Trained(0.1, [2.3, 2.2, 2.0, 2.2], 1.0, 1).steps_before(2.1) == 2
    assert starts.Trained(0.1, [2.3, 2.2], 1.0, 1).steps_before(2.1) == 2


def test_both_fits_start_alike_and_only_the_broken_one_stops_at_the_variance():
    x = torch.cat((randn(40, 2), torch.ones(40, 1)), 1)
    t = x @ torch.tensor([[1.0], [-2], [3]]).double()
    predictions, losses = lab.fit(x, t[:, 0])
    assert predictions.std() < 1e-6
    assert losses[0] > losses[-1]
    assert losses[-1] == pytest.approx(t.var(correction=0).item())
    assert lab.fit(x, t)[1][-1] < 1e-6


# Slopes and intensities.


def test_a_slope_depends_neither_on_units_nor_on_order():
    xs = [3.0, 10.0, 1.0]
    ys = [x**2 for x in xs]
    assert lab.loglog_slope(xs, ys) == pytest.approx(2)
    assert lab.loglog_slope([1000 * x for x in xs], [7 * y for y in ys]) == pytest.approx(2)


def test_an_intensity_is_flops_over_bytes():
    assert lab.intensity((1, 2, 3), 4) == 12 / (4 * (2 + 6 + 3))
    many = [lab.intensity((b, 2048, 2048), 2) for b in (1, 64, 10**6)]
    assert many[0] == pytest.approx(1, rel=0.01)
    assert many[0] < many[1] < many[2] < 2048


def test_twenty_layers_of_512_units_may_be_off_by_a_factor_of_two_and_a_half():
    deviation = math.sqrt(5 * 20 / 512) / 2
    assert math.expm1(deviation) == pytest.approx(0.25, abs=0.01)
    factor = starts.four_deviations(512, 20)
    assert factor == pytest.approx(math.exp(4 * deviation + 25 / 512), rel=1e-9)
    assert factor == pytest.approx(2.54, abs=0.005)
    assert starts.four_deviations(2048, 20) < factor


def test_pytorchs_rms_may_be_off_by_less_than_a_fixed_point_of_twice_the_variance():
    factor = starts.four_deviations(512, 20, biases=True)
    assert factor == pytest.approx(1.22, abs=0.005)
    assert factor < math.sqrt(2)


def test_float16_has_no_number_as_small_as_the_last_rms_without_biases():
    rms, _ = lab.theory(1 / 3, 0, 512)[-1]
    assert rms == pytest.approx(1.7e-8, rel=0.03)
    assert torch.tensor(2.0**-24).half() == 2.0**-24
    assert torch.tensor(rms).half() == 0
