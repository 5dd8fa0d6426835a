"""LLM05a: its parts on unusual shapes and values, the theory it quotes, and its race."""

import io
import math
from pathlib import Path

from labs.course.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.llm05a_normalization import checks
from labs.llm05a_normalization import lesson as lab
from labs.llm06_attention import checks as checks_of_llm06
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


# The parts.


@pytest.mark.parametrize("shape", [(8,), (1, 8), (2, 3, 4, 8), (0, 8), (5, 1)])
def test_norms_equal_the_library_for_any_shape(shape):
    x = randn(*shape)
    d = shape[-1]
    gain, bias = randn(2, d, seed=1)
    want = F.layer_norm(x, (d,), gain, bias, 1e-5)
    torch.testing.assert_close(lab.layer_norm(x, gain, bias), want, rtol=0, atol=1e-12)
    want = F.rms_norm(x, (d,), gain, 1e-5)
    torch.testing.assert_close(lab.rms_norm(x, gain), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_norms_return_the_dtype_of_x_even_if_the_gain_is_wider(dtype):
    x = randn(3, 8).to(dtype)
    gain = randn(8, seed=1)
    assert lab.rms_norm(x, gain).dtype == dtype
    assert lab.layer_norm(x, gain, gain).dtype == dtype


def test_the_largest_float16_number_can_be_normed():
    x = torch.full((2, 64), 65504.0).half()
    assert torch.equal(lab.rms_norm(x, torch.ones(64)), torch.ones(2, 64).half())


def test_a_nan_affects_its_own_token_alone():
    x = randn(3, 8)
    x[1, 2] = math.nan
    y = lab.rms_norm(x, torch.ones(8).double())
    assert y[1].isnan().all()
    assert not y[[0, 2]].isnan().any()


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1.0])
def test_gradients_by_hand_equal_the_library_for_any_epsilon(eps):
    x = randn(3, 5, 8)
    gain = randn(8, seed=1)
    bias = randn(8, seed=2)
    dy = randn(3, 5, 8, seed=3)
    for function, inputs, library in (
        (lab.LayerNormByHand, (x, gain, bias), lambda x, *g: F.layer_norm(x, (8,), *g, eps)),
        (lab.RMSNormByHand, (x, gain), lambda x, g: F.rms_norm(x, (8,), g, eps)),
    ):
        inputs = [tensor.clone().requires_grad_() for tensor in inputs]
        got = torch.autograd.grad(function.apply(*inputs, eps), inputs, dy)
        want = torch.autograd.grad(library(*inputs), inputs, dy)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


def test_a_zero_vector_has_the_largest_gradient_one_over_root_epsilon():
    dy = randn(1, 8)
    dx, dgain = lab.rms_norm_backward(dy, torch.zeros(1, 8).double(), torch.ones(8).double(), 1e-5)
    torch.testing.assert_close(dx, dy / 1e-5**0.5)
    assert dgain.abs().max() == 0


def test_the_module_equals_llamas_norm():
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    theirs = LlamaRMSNorm(16, 1e-5)
    ours = lab.RMSNorm(16)
    theirs.weight.data.normal_()
    ours.load_state_dict(theirs.state_dict())
    x = randn(3, 16).float()
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(("length", "d"), [(1, 2), (5, 2), (3, 64)])
def test_each_pair_of_a_sinusoid_is_on_the_unit_circle(length, d):
    table = lab.sinusoid(length, d)
    assert table.shape == (length, d)
    radii = table.unflatten(-1, (-1, 2)).square().sum(-1)
    torch.testing.assert_close(radii, torch.ones(length, d // 2).double())


def test_shifting_a_sinusoid_rotates_its_pairs():
    shift = 7
    d = 16
    table = lab.sinusoid(40, d)
    angles = shift * 10000 ** (-torch.arange(0, d, 2).double() / d)
    sin = table[:-shift, ::2]
    cos = table[:-shift, 1::2]
    rotated = torch.stack(
        (sin * angles.cos() + cos * angles.sin(), cos * angles.cos() - sin * angles.sin()), -1
    )
    torch.testing.assert_close(rotated.flatten(-2), table[shift:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("multiple", [1, 8, 256])
def test_a_gated_width_is_the_smallest_multiple_that_is_large_enough(multiple):
    for d in range(1, 500):
        width = lab.gated_width(d, multiple)
        assert width % multiple == 0
        assert 3 * width >= 8 * d > 3 * (width - multiple)


# The theory that the prose quotes.


def test_the_prose_predicts_how_scaling_changes_a_norm():
    x = randn(1000, 64)
    eps = 1e-3
    s = 3.0
    m = x.square().mean(-1, keepdim=True)
    one = torch.ones(64).double()
    factor = lab.rms_norm(s * x, one, eps) / lab.rms_norm(x, one, eps)
    first = 1 + eps / (2 * m) * (1 - 1 / s**2)
    assert (factor - first).abs().max() < (eps / m.min()) ** 2
    assert (factor - 1).min() > 10 * (eps / m.min()) ** 2


def test_swish_equals_silu_with_rescaled_matrices():
    ours = small_gpt.FeedForward(8, activation=lab.swish).double()
    moved = small_gpt.FeedForward(8, activation=F.silu).double()
    moved.up.weight.data = 4 * ours.up.weight
    moved.down.weight.data = ours.down.weight / 4
    x = randn(5, 8)
    torch.testing.assert_close(ours(x), moved(x))


def test_gelu_is_the_mean_of_a_random_gate():
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    drawn = x * (randn(200_000, 1) < x).double().mean(0)
    assert (drawn - lab.gelu(x)).abs().max() < 3 * 5 * 0.5 / math.sqrt(200_000)


# The race.


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
    assert lab.RATES[name] in lab.GRID


def test_every_arm_is_a_different_model():
    torch.manual_seed(0)
    run = a_run()
    outputs = set()
    tokens = lab.windows(run)[:2, :-1]
    for name in ARMS:
        torch.manual_seed(0)
        logits = small_gpt.LanguageModel(lab.arm(run, name))(tokens)
        outputs.add(round(logits.square().sum().item(), 3))
    # RMSNorm and LayerNorm are equal at the start only if every mean is 0
    assert len(outputs) == len(ARMS)


def test_the_validation_windows_have_16384_characters_at_every_size():
    for size in ("tiny", "small", "full"):
        assert lab.windows(a_run(size))[:, 1:].numel() == 2**14


def test_losses_are_subtracted_seed_by_seed():
    found = {"a": [2.0, 3.0, 4.0], "b": [1.0, 1.0, 1.0]}
    assert lab.less(found, "a", "b") == [1.0, 2.0, 3.0]


def test_operations_are_counted_without_detach():
    x = torch.ones(3)
    assert lab.operations(lambda: x.detach() + x * x) == 2


def test_the_checks_of_methods_are_registered_by_class_and_method():
    assert "SwiGLU.forward" in checks.checks.parts
    assert "MultiHeadAttention.forward" in checks_of_llm06.checks.parts
