"""LLM05b: its parts on unusual shapes, the theory it quotes, and its trainings."""

import io
import math
from dataclasses import replace
from pathlib import Path

from labs.course.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.llm05b_depth_and_position import lesson as lab
from labs.shared import small_gpt
from labs.shared.small_gpt import LanguageModel, Position

import pytest
import torch

SIZES = ("tiny", "small", "full")


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def a_run(size="tiny"):
    return Run(Settings(size=size), "fp32", Output(io.StringIO()), Path("nowhere"))


# Norms.


def test_in_bfloat16_the_norms_equal_those_of_transformers_bit_for_bit():
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    x = randn(64, 256).bfloat16()
    gain = (1 + randn(256, seed=1) / 4).bfloat16()
    for module, ours, weight in (
        (LlamaRMSNorm(256, 1e-5), lab.llama_norm, gain),
        (GemmaRMSNorm(256, 1e-5), lab.gemma_norm, gain - 1),
    ):
        module.weight.data = weight
        same = (module(x) == ours(x, weight)).double().mean()
        assert same > 0.999  # √ and 1/√ may round a tie differently


def test_short_norm_returns_the_dtype_of_x():
    assert lab.short_norm(torch.ones(2, 8).bfloat16(), torch.ones(8).bfloat16()).dtype == (
        torch.bfloat16
    )


# Depth.


@pytest.mark.parametrize("layers", [1, 2, 7, 100, 1000])
def test_deepnorm_meets_its_condition(layers):
    alpha, beta = lab.deepnorm(layers)
    assert 2 * layers * 2 * beta**2 / alpha**2 == pytest.approx(1)
    assert alpha > 1 > beta


def test_the_prose_quotes_the_right_alpha_for_24_blocks():
    assert f"{lab.deepnorm(24)[0]:.2f}" == "2.63"


@pytest.mark.parametrize("power", [-0.5, 0.5])
def test_the_fit_recovers_the_constants_of_exact_points(power):
    depths = [2, 4, 8, 16, 32]
    a, c = lab.fit(depths, [0.7 * (1 + 0.4 * n) ** power for n in depths], power)
    assert a == pytest.approx(0.7, rel=0.01)
    assert c == pytest.approx(0.4, rel=0.02)


def test_stacks_differ_in_their_norms_but_not_in_their_matrices():
    def count(name):
        model = LanguageModel(lab.stack(name, 4, 32))
        return sum(p.numel() for p in model.parameters() if p.dim() > 1)

    assert len({count(name) for name in lab.STACKS}) == 1
    assert len({lab.stack(name, 4, 32) for name in lab.STACKS}) == len(lab.STACKS)


def test_at_start_returns_a_size_and_a_gradient_for_each_block():
    sizes, gradients = lab.at_start(lab.stack("Pre-LN", 3, 16), 0)
    assert len(sizes) == len(gradients) == 3
    assert sizes == sorted(sizes)
    assert min(gradients) > 0


def test_the_stream_of_128_blocks_without_norms_has_a_finite_size():
    sizes, _ = lab.at_start(lab.stack("no norm", 128, 16), 0)
    assert 1e19 < sizes[-1] < math.inf  # its square is infinite in float32


def test_a_step_of_all_weights_differs_from_a_step_of_the_matrices():
    matrices, everything, random, adam = lab.moved(lab.stack("Post-LN", 2, 16), 0)
    assert 0 < matrices != everything > 0
    assert adam > random > 0  # the gradient's changes add up
    assert lab.moved(replace(lab.stack("Post-LN", 2, 16), beta=0.5), 0)[0] != matrices


def test_scores_are_scaled_products_and_zero_for_later_keys():
    torch.manual_seed(0)
    model = LanguageModel(lab.stack("Pre-LN", 2, 16)).double()
    tokens = torch.randint(10, (3, 6))
    scores = lab.scores(model, tokens)
    assert scores.shape == (2, 3, 4, 6, 6)
    assert scores.triu(1).abs().max() == 0
    first = model.blocks[0].attention
    x = first.enters(model.embedding(tokens))
    q, k = (f(x).unflatten(-1, (4, 4)).transpose(1, 2) for f in (first.branch.q, first.branch.k))
    torch.testing.assert_close(scores[0], (q @ k.mT / 2).tril())


@pytest.mark.parametrize("fault", lab.FAULTS)
@pytest.mark.parametrize("shape", [(1, 2, 8), (2, 9, 32), (5, 40, 64)])
def test_every_fault_is_named_for_any_shape(fault, shape):
    for seed in range(3):
        torch.manual_seed(seed)
        assert lab.diagnose(lab.planted(fault, shape[-1]), randn(*shape, seed=seed)) == fault


# Positions.


@pytest.mark.parametrize("shape", [(1, 2), (5, 8), (2, 3, 5, 64), (0, 5, 8)])
def test_rope_is_a_multiplication_of_complex_numbers(shape):
    x = randn(*shape)
    angle = 10 * randn(shape[-2], shape[-1] // 2, seed=1)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    rotated = pairs * torch.polar(torch.ones_like(angle), angle)
    want = torch.view_as_real(rotated).flatten(-2)
    torch.testing.assert_close(lab.rope(x, angle), want, rtol=0, atol=1e-13)


def test_rotations_add_up_and_an_angle_of_zero_changes_nothing():
    x = randn(2, 5, 8)
    first = randn(5, 4, seed=1)
    second = randn(5, 4, seed=2)
    torch.testing.assert_close(lab.rope(lab.rope(x, first), second), lab.rope(x, first + second))
    assert torch.equal(lab.rope(x, 0 * first), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rope_returns_the_dtype_of_x(dtype):
    assert lab.rope(randn(5, 8).to(dtype), randn(5, 4)).dtype == dtype


def test_the_prose_quotes_the_right_score_of_two_positions():
    vectors = torch.tensor([[1.0, 0.0]]).double().expand(4, 2)
    rotated = lab.rope(vectors, torch.tensor([3.0, 5.0, 103.0, 105.0]).double()[:, None])
    for a, b in ((0, 1), (2, 3)):
        assert f"{rotated[a] @ rotated[b]:.3f}" == "-0.416"


def test_a_rotary_model_depends_on_offsets_and_not_on_absolute_positions():
    torch.manual_seed(0)
    model = LanguageModel(lab.stack("Pre-LN", 2, 32, position=lab.Rotary)).double()
    tokens = torch.randint(10, (2, 12))
    before = model(tokens)
    model.position = lab.Rotary(lambda n: torch.arange(n) + 1000)
    torch.testing.assert_close(model(tokens), before, rtol=0, atol=1e-9)
    model.position = lab.Rotary(lambda n: 2 * torch.arange(n))
    assert (model(tokens) - before).abs().max() > 1e-3


@pytest.mark.parametrize(("heads", "head"), [(1, 2), (3, 4), (4, 64)])
def test_converting_a_layout_and_back_changes_nothing(heads, head):
    rows = randn(heads * head, 5)
    halves = lab.to_halves(rows, heads)
    assert torch.equal(lab.to_neighbours(halves, heads), rows)
    for h in range(heads):  # each head keeps its own rows
        own = slice(h * head, (h + 1) * head)
        assert torch.equal(halves[own][: head // 2], rows[own][::2])


def test_slopes_are_distinct_and_below_one_for_any_number_of_heads():
    for heads in range(1, 65):
        slopes = lab.alibi_slopes(heads)
        assert slopes.shape == (heads,)
        assert len(slopes.unique()) == heads
        assert 2**-8 <= slopes.min() < slopes.max() < 1 or heads == 1


def test_the_alibi_bias_is_minus_the_slope_times_the_distance():
    bias = lab.Alibi().bias(8, 10)
    assert bias.shape == (8, 10, 10)
    assert bias[0, 7, 3] == -0.5 * 4
    assert bias.diagonal(dim1=1, dim2=2).abs().max() == 0


@pytest.mark.parametrize("length", [1, 64, 65, 128, 5000])
def test_interpolated_places_are_evenly_spaced_below_the_training_length(length):
    places = lab.interpolated(length, 64)
    assert places[0] == 0
    assert places[-1] < 64
    gaps = places.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, min(1, 64 / length)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("times", [2, 8])
def test_a_larger_base_divides_the_slowest_frequency_alone_by_the_full_factor(size, times):
    run = a_run(size)
    head = lab.long_sizes(run)[1] // 4
    place = torch.ones(1)
    plain, slowed = (
        lab.angles(place, head, lab.cure(run, name, times).base)[0]
        for name in ("as it is", "larger base")
    )
    ratio = plain / slowed
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(times)
    assert (ratio.diff() > 0).all()


# The trainings.


@pytest.mark.parametrize("size", SIZES)
def test_heads_have_even_widths_and_all_texts_fit_at_every_size(size):
    run = a_run(size)
    for _, d, *_ in (lab.deep_sizes(run), lab.long_sizes(run)):
        assert d % 8 == 0
    assert lab.long_windows(run).shape[1] == lab.LONG * lab.long_sizes(run)[2] + 1
    assert lab.validation(run)[:, 1:].numel() == 2**13


def test_the_rate_of_each_encoding_is_in_the_grid():
    assert set(lab.RATES) == set(lab.ENCODINGS)
    assert set(lab.RATES.values()) <= set(lab.POSITION_GRID)


def test_encodings_are_different_models_with_equally_many_parameters_except_the_learned_table():
    run = a_run()
    outputs = set()
    counts = {}
    tokens = lab.long_windows(run)[:2, :-1]
    for name in lab.ENCODINGS:
        torch.manual_seed(0)
        model = LanguageModel(lab.encoding(run, name))
        counts[name] = small_gpt.parameters(model)
        outputs.add(round(model(tokens).square().sum().item(), 2))
    assert len(outputs) == len(lab.ENCODINGS)
    assert counts["learned"] - counts["NoPE"] == 512 * 48
    assert {counts[name] for name in lab.ENCODINGS if name != "learned"} == {counts["NoPE"]}


def test_a_model_without_attention_loses_nothing_on_longer_texts():
    run = a_run()
    config = replace(lab.encoding(run, "NoPE"), heads=0, position=Position)
    torch.manual_seed(0)
    model = LanguageModel(config)
    near, far = (lab.last_half(run, lab.within(run, model, times)) for times in (1, 8))
    assert near == pytest.approx(far, abs=1e-6)
    assert math.isfinite(near)
