"""LLM05a: its parts on unusual shapes and values, the theory it quotes, and its blocks."""

import io
import math
from pathlib import Path

from common.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.llm05a_normalization import checks, figures
from labs.llm05a_normalization import lesson as lab
from labs.llm05a_normalization.training import (
    Outcome,
    Sizes,
    best_rates,
    by_rate,
    largest_gap,
    stack,
    train,
)
from labs.llm06_attention import checks as checks_of_llm06
from labs.shared import small_gpt

import pytest
import torch
import torch.nn.functional as F


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


def test_the_activations_equal_the_library():
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    torch.testing.assert_close(lab.gelu(x), F.gelu(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(lab.silu(x), F.silu(x), rtol=0, atol=1e-12)


def test_the_prose_names_the_lowest_values_of_the_activations():
    x = torch.linspace(-6, 0, 100_001, dtype=torch.float64)
    assert round(lab.gelu(x).min().item(), 2) == -0.17
    assert round(lab.silu(x).min().item(), 2) == -0.28


def test_swapping_gate_and_up_gives_another_layer():
    layer = lab.SwiGLU(16).double()
    x = randn(5, 16)
    before = layer(x)
    layer.gate_proj, layer.up_proj = layer.up_proj, layer.gate_proj
    assert (layer(x) - before).abs().max() > 0.1 * before.abs().max()


def test_gelu_is_the_mean_of_a_random_gate():
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    drawn = x * (randn(200_000, 1) < x).double().mean(0)
    assert (drawn - lab.gelu(x)).abs().max() < 3 * 5 * 0.5 / math.sqrt(200_000)


# The blocks and the model.

NAMES = ("Pre-LN", "Post-LN")


@pytest.mark.parametrize(
    ("block", "norm_first"), [(lab.PreNormBlock, True), (lab.PostNormBlock, False)]
)
def test_a_block_equals_torchs_encoder_layer_with_its_weights(block, norm_first):
    torch.manual_seed(0)
    ours = block(16, ffn=small_gpt.FeedForward).double()
    theirs = torch.nn.TransformerEncoderLayer(
        16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=norm_first, bias=True
    ).double()
    inside = ours.attention.inside
    weights = {
        "self_attn.in_proj_weight": torch.cat([inside.q.weight, inside.k.weight, inside.v.weight]),
        "self_attn.out_proj.weight": inside.out.weight,
        "linear1.weight": ours.ffn.up.weight,
        "linear2.weight": ours.ffn.down.weight,
    }
    zeros = {key: torch.zeros_like(value) for key, value in theirs.state_dict().items()}
    norms = {key: value for key, value in theirs.state_dict().items() if "norm" in key}
    theirs.load_state_dict({**zeros, **norms, **weights})
    x = randn(3, 7, 16)
    ahead = torch.ones(7, 7, dtype=torch.bool).triu(1)
    torch.testing.assert_close(ours(x), theirs(x, ahead), rtol=0, atol=1e-12)


def test_the_worked_example_of_the_two_placements():
    x = torch.tensor([[3.0, 5.0]], dtype=torch.float64)
    one = torch.ones(2).double()

    def norm(x):
        return lab.layer_norm(x, one, 0 * one, 0)

    torch.testing.assert_close(norm(x + 2 * x), torch.tensor([[-1.0, 1.0]]).double())
    torch.testing.assert_close(x + 2 * norm(x), torch.tensor([[1.0, 7.0]]).double())


@pytest.mark.parametrize("name", NAMES)
def test_a_decoders_scores_depend_on_earlier_tokens_only(name):
    torch.manual_seed(0)
    model = lab.make_decoder(name, Sizes(16, 9, 2, 1))
    tokens = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    difference = (model(changed) - model(tokens)).abs().amax((0, 2))
    assert difference[:5].max() == 0
    assert difference[5:].min() > 0


def test_the_trained_blocks_are_made_of_the_labs_parts():
    for name in NAMES:
        model = lab.make_decoder(name, Sizes(16, 8, 4, 3))
        for block in model.blocks:
            assert isinstance(block.ffn, lab.SwiGLU)
            assert isinstance(block.attention_norm, lab.LayerNorm)
            assert isinstance(block.ffn_norm, lab.LayerNorm)


def test_both_placements_of_a_seed_start_with_the_same_weights():
    weights = []
    for name in NAMES:
        torch.manual_seed(5)
        weights.append(lab.make_decoder(name, Sizes(16, 8, 4, 3)).state_dict())
    pre, post = weights
    assert set(pre) - set(post) == {"norm.weight", "norm.bias"}
    assert all(torch.equal(pre[name], post[name]) for name in post)


def test_only_a_pre_norm_decoder_has_a_norm_at_its_end():
    sizes = Sizes(16, 8, 4, 3)
    assert isinstance(lab.make_decoder("Pre-LN", sizes).norm, lab.LayerNorm)
    assert isinstance(lab.make_decoder("Post-LN", sizes).norm, torch.nn.Identity)


@pytest.mark.parametrize("name", ["Pre-LN", "Post-LN"])
def test_before_training_the_gradient_of_the_stream_does_not_vanish(name):
    torch.manual_seed(0)
    model = lab.make_decoder(name, Sizes(32, 16, 8, 1))
    windows = small_gpt.shakespeare().windows(64, 16)
    stream = [model.position.embed(model.embedding(windows[:, :-1]))]
    for block in model.blocks:
        stream.append(block(stream[-1]))
    scores = model.unembedding(model.norm(stream[-1]))
    loss = F.cross_entropy(scores.flatten(0, 1), windows[:, 1:].flatten())
    first, *_, last = torch.autograd.grad(loss, stream)
    assert first.norm() > last.norm()


def test_on_a_cpu_a_decoder_computes_in_float32_in_mixed_precision_too():
    torch.manual_seed(0)
    model = lab.make_decoder("Pre-LN", Sizes(16, 8, 4, 3))
    tokens = torch.randint(11, (2, 8))
    want = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(tokens), want)


def test_a_gated_ffn_holds_two_thirds_of_a_blocks_matrices():
    block = lab.PreNormBlock(48)
    assert small_gpt.parameters(block.attention) == 4 * 48**2
    assert small_gpt.parameters(block.ffn) == 8 * 48**2
    assert small_gpt.parameters(block.attention_norm) == 2 * 48
    assert small_gpt.parameters(lab.PostNormBlock(48)) == small_gpt.parameters(block)


def test_the_training_of_the_lab_is_that_of_the_small_gpt():
    torch.manual_seed(0)
    model = lab.make_decoder("Pre-LN", Sizes(16, 8, 4, 3))
    theirs = small_gpt.train(
        a_run(), model, small_gpt.shakespeare(), steps=3, lr=0.01, seed=7, batch=4, length=8
    )
    ours = train(a_run(), model, Sizes(16, 8, 4, 3), 0.01, seed=7)
    assert ours.curve == theirs.losses


def test_the_sizes_of_a_stack_begin_with_the_input():
    x = 2 * torch.ones(1, 3, 4)
    sizes = stack(lambda: torch.nn.Linear(4, 4, bias=False), 2, x).sizes
    assert sizes[0] == 2
    assert len(sizes) == 3
    assert stack(torch.nn.Identity, 2, x).sizes == [2, 2, 2]


class Doubling(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def test_a_stack_returns_the_last_stream():
    passed = stack(Doubling, 3, torch.ones(1, 3, 4))
    assert torch.equal(passed.last, 8 * torch.ones(1, 3, 4))


@pytest.mark.parametrize("make_block", [torch.nn.Identity, Doubling])
def test_the_last_norm_of_a_stack_divides_the_gradient_by_the_size_of_the_stream(make_block):
    # so doubling blocks, which make the gradient 8 times as large, change nothing
    x = torch.tensor([3.0, -3.0]).repeat(400, 50)  # normed to 1 and −1
    torch.manual_seed(0)
    assert stack(make_block, 3, x).gradient == pytest.approx(1 / 3, rel=0.02)  # 98 of 100 remain


def test_the_best_rate_is_marked_if_it_is_at_the_edge():
    def seeds(loss):
        return [Outcome(loss, [loss])] * 3

    outcomes = {
        "a": {0.1: seeds(3.0), 0.2: seeds(2.0), 0.3: seeds(1.0)},
        "b": {0.1: seeds(3.0), 0.2: seeds(2.0), 0.3: seeds(4.0)},
    }
    run = a_run()
    best_rates(run, outcomes)
    (table,) = run.current.items
    assert [row[-1] for row in table.rows] == ["0.3, at the edge", "0.2"]


def test_models_are_trained_by_rate_with_four_seeds():
    sizes = Sizes(16, 8, 4, 3)
    outcomes = by_rate(a_run(), lab.make_decoder, ["Pre-LN"], (0.001, 0.01), sizes)
    assert {name: list(rates) for name, rates in outcomes.items()} == {"Pre-LN": [0.001, 0.01]}
    low, high = ([seed.curve for seed in seeds] for seeds in outcomes["Pre-LN"].values())
    assert [len(curve) for curve in low] == [3, 3, 3, 3]
    # the same seeds at both rates: only from the second step on do they differ
    assert [curve[0] for curve in low] == [curve[0] for curve in high]
    assert all(a[1] != b[1] for a, b in zip(low, high, strict=True))
    assert len({curve[0] for curve in low}) == 4


def test_the_best_rate_has_the_lowest_mean_loss_and_a_diverged_one_never_wins():
    def seeds(*losses):
        return [Outcome(loss, [loss]) for loss in losses]

    outcomes = {
        "a": {0.1: seeds(3, 3, 3), 0.2: seeds(1, 2, 4), 0.3: seeds(1, 1, math.nan)},
        "b": {0.1: seeds(2, 2, 2), 0.2: seeds(2, 2, 3), 0.3: seeds(9, 9, math.inf)},
    }
    assert best_rates(a_run(), outcomes) == {"a": 0.2, "b": 0.1}


def test_the_checks_of_methods_are_registered_by_class_and_method():
    assert "SwiGLU.forward" in checks.checks.parts
    assert "MultiHeadAttention.forward" in checks_of_llm06.checks.parts


def test_the_largest_gap_is_the_farthest_from_zero_and_a_diverged_training_counts_as_farthest():
    assert largest_gap({0.1: [1, 2], 0.2: [-2, -3], 0.3: [0, 0]}) == 0.2
    assert largest_gap({0.1: [1, 2], 0.2: [0, math.nan], 0.3: [2, 3]}) == 0.2


@pytest.mark.parametrize("steps", [1, 5, 30])
def test_the_figure_of_the_placements_can_show_trainings_that_are_shorter_than_its_mean(steps):
    outcomes = {name: {0.1: [Outcome(2.0, [3.0] * steps)] * 4} for name in NAMES}
    _, caption, _ = figures.rates_and_curves(outcomes, dict.fromkeys(NAMES, 0.1), 3.0)
    assert f"a mean over {min(steps, 20)} steps" in caption
