"""LLM05a+: its gradient, its counts, and the arms of its race."""

import io
import math
from pathlib import Path

from common.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.llm05a_normalization import deeper as lab
from labs.llm05a_normalization import race
from labs.llm05a_normalization.autograd import with_backward
from labs.llm05a_normalization.operations import count_operations
from labs.llm05a_normalization.training import Sizes, validation_windows
from labs.shared import small_gpt

import pytest
import torch
import torch.nn.functional as F

ARMS = list(lab.RATES)


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def a_run(size="tiny"):
    return Run(Settings(size=size), "fp32", Output(io.StringIO()), Path("nowhere"))


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1.0])
def test_gradients_by_hand_equal_the_library_for_any_epsilon(eps):
    x = randn(3, 5, 8)
    gain = randn(8, seed=1)
    dy = randn(3, 5, 8, seed=3)
    inputs = [tensor.clone().requires_grad_() for tensor in (x, gain)]
    want = torch.autograd.grad(F.rms_norm(inputs[0], (8,), inputs[1], eps), inputs, dy)
    got = lab.rms_norm_backward(dy, x, gain, eps)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


def test_a_function_gets_the_gradient_that_was_written_for_it():
    twice = with_backward(lambda x: x.square(), lambda dy, x: (7 * dy * x,))
    x = randn(3).requires_grad_()
    (got,) = torch.autograd.grad(twice(x).sum(), x)
    torch.testing.assert_close(got, 7 * x)


def test_a_zero_vector_has_the_largest_gradient_one_over_root_epsilon():
    dy = randn(1, 8)
    dx, dgain = lab.rms_norm_backward(dy, torch.zeros(1, 8).double(), torch.ones(8).double(), 1e-5)
    torch.testing.assert_close(dx, dy / 1e-5**0.5)
    assert dgain.abs().max() == 0


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1.0])
def test_layer_norms_gradient_equals_the_library_for_any_epsilon(eps):
    x = randn(3, 5, 8)
    gain, bias = randn(2, 8, seed=1)
    dy = randn(3, 5, 8, seed=3)
    inputs = [tensor.clone().requires_grad_() for tensor in (x, gain, bias)]
    want = torch.autograd.grad(F.layer_norm(inputs[0], (8,), *inputs[1:], eps), inputs, dy)
    got = lab.layer_norm_backward(dy, x, gain, eps)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


def test_swish_equals_silu_with_rescaled_matrices():
    ours = small_gpt.FeedForward(8, activation=lab.swish).double()
    moved = small_gpt.FeedForward(8, activation=F.silu).double()
    moved.up.weight.data = 4 * ours.up.weight
    moved.down.weight.data = ours.down.weight / 4
    x = randn(5, 8)
    torch.testing.assert_close(ours(x), moved(x))


@pytest.mark.parametrize("kind", [*lab.KINDS, "smooth"])
@pytest.mark.parametrize("rms", lab.TABLE_SIZES)
def test_a_table_starts_with_the_size_that_was_asked_for(kind, rms):
    table = lab.Table(32, 48, kind, rms).table
    assert table.square().mean().sqrt().item() == pytest.approx(rms)


def test_all_models_of_a_seed_start_with_the_same_weights_but_for_the_table():
    weights = {}
    for name in [*lab.TABLES, lab.NO_TABLE]:
        torch.manual_seed(3)
        weights[name] = lab.with_table(name, Sizes(16, 8, 4, 1)).state_dict()
    without = weights[lab.NO_TABLE]
    for name in lab.TABLES:
        assert set(weights[name]) - set(without) == {"position.table"}
        assert all(torch.equal(weights[name][key], without[key]) for key in without)


def test_the_random_tables_of_a_seed_differ_in_size_alone_and_those_of_two_seeds_differ():
    tables = {}
    for seed in (0, 1):
        torch.manual_seed(seed)
        tables[seed] = [lab.Table(8, 16, "random", rms).table for rms in (0.71, 2.0)]
    small, large = tables[0]
    torch.testing.assert_close(large / 2.0, small / 0.71)
    assert (tables[1][0] - small).abs().max() > 0.1


def test_near_rows_of_a_smooth_table_are_alike_and_far_rows_are_not():
    table = lab.Table(400, 64, "smooth", 1.0).table

    def likeness(distance):
        return (table[distance:] * table[:-distance]).mean().item()

    # 8 − k of the 8 rows in the mean are shared; 400 · 64 products, 50 · 64 of them independent
    assert abs(likeness(1) - 7 / 8) < 0.1
    assert abs(likeness(4) - 4 / 8) < 0.1
    assert abs(likeness(20)) < 0.1


def test_the_arms_of_a_seed_share_what_the_prose_says():
    run = a_run()
    states = {name: race.untrained(run, lab.arm, name, 4).state_dict() for name in ARMS}
    base = states["GELU"]
    for name in ARMS:
        assert torch.equal(states[name]["embedding.weight"], base["embedding.weight"])
    for name in set(ARMS) - {"SwiGLU", "no attention"}:
        assert all(torch.equal(states[name][key], base[key]) for key in base if key in states[name])


def test_the_limits_are_those_of_students_t():
    # scipy.stats.t.interval(0.95, n − 1, mean, sem) gives these numbers
    assert race.limits([1, 2, 3]) == pytest.approx([-0.4841, 4.4841], abs=1e-3)
    assert race.limits([1, 2, 3, 4]) == pytest.approx([0.4457, 4.5543], abs=1e-3)
    assert race.limits([1, 2, 3, 4, 5]) == pytest.approx([1.0368, 4.9632], abs=1e-3)


@pytest.mark.parametrize("n", race.STUDENT)
def test_the_limits_reach_as_far_as_the_prose_says(n):
    standard_deviations = race.STUDENT[n] / math.sqrt(n)
    assert round(standard_deviations, 2) == {3: 2.48, 4: 1.59, 5: 1.24}[n]


def test_four_seeds_need_limits_of_3_2_standard_errors():
    assert round(race.STUDENT[4], 1) == 3.2


def test_every_arm_has_a_rate():
    assert set(lab.RATES) == {*lab.ACTIVATIONS, "RMSNorm", "no attention"}


def test_sinusoids_of_any_size_are_the_sinusoids():
    table = lab.Table(32, 48, "sinusoids", 2.0).table
    want = lab.sinusoid(32, 48).float()
    torch.testing.assert_close(table / table[0, 1] * want[0, 1], want)


@pytest.mark.parametrize("size", ["tiny", "small", "full"])
def test_all_activations_have_equally_many_parameters_at_every_size(size):
    run = a_run(size)
    counts = {
        small_gpt.parameters(small_gpt.LanguageModel(lab.arm(run, name)))
        for name in lab.ACTIVATIONS
    }
    assert len(counts) == 1


@pytest.mark.parametrize("name", ARMS)
def test_the_rate_of_each_arm_at_tiny_is_in_the_grid(name):
    assert lab.RATES[name] in race.GRID


def test_every_arm_is_a_different_model():
    run = a_run()
    outputs = set()
    tokens = validation_windows(32)[:2, :-1]
    for name in ARMS:
        torch.manual_seed(0)
        logits = small_gpt.LanguageModel(lab.arm(run, name))(tokens)
        outputs.add(round(logits.square().sum().item(), 3))
    # RMSNorm and LayerNorm are equal at the start only if every mean is 0
    assert len(outputs) == len(ARMS)


@pytest.mark.parametrize("length", [32, 64, 128])
def test_the_validation_windows_have_16384_characters(length):
    assert validation_windows(length)[:, 1:].numel() == 2**14


def test_losses_are_subtracted_seed_by_seed():
    losses = {"a": [2.0, 3.0, 4.0], "b": [1.0, 1.0, 1.0]}
    assert race.minus(losses, "a", "b") == [1.0, 2.0, 3.0]


def test_operations_are_counted_without_detach():
    x = torch.ones(3)
    assert count_operations(lambda: x.detach() + x * x) == 2


def test_only_operations_that_write_numbers_are_counted():
    x = torch.ones(3, 4)
    gain = torch.ones(4)
    # mean, −, square, mean, + ε, 1/√, ·, · gain, + bias; the choice of a dtype writes nothing
    assert count_operations(lambda: lab.layer_norm(x, gain, gain)) == 9
    assert count_operations(lambda: lab.rms_norm(x, gain)) == 6


def test_the_worked_example_of_the_prose_costs_a_quarter_nat():
    letters = torch.tensor(["mo ".index(letter) for letter in "momo mo"])
    counts = lab.pair_counts(letters[:-1], letters[1:], 3)
    assert lab.conditional_entropy(counts) == pytest.approx(2 * math.log(2) / 6)


def test_the_conditional_entropy_is_the_small_gpts_bigram():
    windows = validation_windows(32)
    counts = lab.pair_counts(windows[:, :-1], windows[:, 1:], 200)
    assert lab.conditional_entropy(counts) == pytest.approx(small_gpt.bigram(windows))
