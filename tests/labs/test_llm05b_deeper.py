"""LLM05b+: its parts on unusual shapes, and the theory it quotes."""

import io
import math
from pathlib import Path

from common.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.llm05b_depth_and_position import deeper as lab
from labs.llm05b_depth_and_position.lesson import Alibi, Rotary

import pytest
import torch

SIZES = ("tiny", "small", "full")


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def a_run(size="tiny"):
    return Run(Settings(size=size), "fp32", Output(io.StringIO()), Path("nowhere"))


# Depth.


def test_the_end_of_the_stream_has_an_addition_for_each_branch():
    end = lab.at_the_end(3, 16, 0)
    assert len(end.attention) == len(end.ffn) == 3
    assert min(end.attention + end.ffn) > 0
    assert 0 < end.gradient < end.product


@pytest.mark.parametrize("layers", [1, 2, 7, 100, 1000])
def test_deepnorm_meets_its_condition(layers):
    alpha, beta = lab.deepnorm(layers)
    assert 2 * layers * 2 * beta**2 / alpha**2 == pytest.approx(1)
    assert alpha > 1 > beta


def test_the_prose_quotes_the_right_alpha_for_24_blocks():
    assert f"{lab.deepnorm(24)[0]:.2f}" == "2.63"


def test_every_placement_is_another_function():
    tokens = torch.randint(10, (2, 5))
    outputs = {lab.build_deep(name, 3, 16, 0)(tokens).sum().item() for name in lab.DEEP}
    assert len(outputs) == len(lab.DEEP)


def test_deepnorm_scales_all_matrices_of_a_block_except_those_of_queries_and_keys():
    plain = lab.build("Post-LN", 4, 16, 0)
    scaled = lab.build_deep("DeepNorm", 4, 16, 0)
    _, beta = lab.deepnorm(4)
    for (name, a), b in zip(
        plain.blocks.named_parameters(), scaled.blocks.parameters(), strict=True
    ):
        stays = a.dim() < 2 or name.endswith(("q.weight", "k.weight"))
        torch.testing.assert_close(b, a if stays else a * beta)


def test_a_sandwich_grows_by_one_for_each_branch():
    model = lab.build_deep("sandwich", 16, 64, 0)
    streams = []
    model.blocks[-1].register_forward_hook(lambda _, _in, output: streams.append(output))
    model(torch.randint(60, (4, 32)))
    assert lab.root_mean_square(streams[0]) == pytest.approx(math.sqrt(33), rel=0.25)


def test_qk_norm_bounds_the_scores_and_finds_the_largest():
    run = a_run()
    model = lab.build_qk(run, True, 0)
    for block in model.blocks:
        block.attention.q.weight.data *= 100
    scores = lab.largest_scores(run, model)
    assert len(scores) == 6
    assert 1 < max(scores) <= math.sqrt(8) * 1.0001


@pytest.mark.parametrize("normalize", [True, False])
def test_qk_norm_attention_turns_queries_and_keys(normalize):
    torch.manual_seed(0)
    attention = lab.QKNormAttention(32, normalize).double()
    x = randn(2, 6, 32)
    plain = attention(x, lab.Position())
    assert (attention(x, Rotary()) - plain).abs().max() > 1e-3
    shifted = lab.LongRotary(lab.angles(torch.ones(1), 8)[0], lambda n: torch.arange(n) + 50)
    torch.testing.assert_close(attention(x, shifted), attention(x, Rotary()))


def test_qk_norm_makes_the_size_of_w_q_irrelevant():
    attention = lab.QKNormAttention(32, True).double()
    x = randn(2, 6, 32)
    before = attention(x, Rotary())
    attention.q.weight.data *= 100
    torch.testing.assert_close(attention(x, Rotary()), before, rtol=0, atol=1e-3)


# Ports.


def test_short_norm_returns_the_dtype_of_x():
    assert lab.short_norm(torch.ones(2, 8).bfloat16(), torch.ones(8).bfloat16()).dtype == (
        torch.bfloat16
    )


def test_slopes_are_distinct_and_below_one_for_any_number_of_heads():
    for heads in range(1, 65):
        slopes = lab.slopes(heads)
        assert slopes.shape == (heads,)
        assert len(slopes.unique()) == heads
        assert 2**-8 <= slopes.min() < slopes.max() < 1 or heads == 1


def test_the_prose_quotes_the_slopes_of_six_heads():
    assert (1 / lab.slopes(6)).tolist() == [4, 16, 64, 256, 2, 8]


def test_for_a_power_of_2_the_slopes_are_those_of_the_lesson():
    for heads in (1, 2, 4, 8, 16):
        torch.testing.assert_close(-Alibi().bias(heads, 2)[:, 1, 0], lab.slopes(heads))


def test_two_positions_near_10000_are_one_in_bfloat16():
    here, there, *others = torch.tensor([10_000, 9_993, 9_984]).bfloat16()
    assert here == there == others[0]


# Positions.


@pytest.mark.parametrize("length", [1, 64, 65, 128, 5000])
def test_interpolated_positions_are_evenly_spaced_below_the_training_length(length):
    positions = lab.interpolated(length, 64)
    assert positions[0] == 0
    assert positions[-1] < 64
    gaps = positions.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, min(1, 64 / length)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [2, 8])
def test_a_larger_base_divides_the_slowest_frequency_alone_by_the_full_factor(size, factor):
    run = a_run(size)
    plain = lab.longer(run, "plain RoPE", factor).frequencies
    slowed = lab.longer(run, "larger base", factor).frequencies
    ratio = plain / slowed
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(factor)
    assert (ratio.diff() > 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_yarn_changes_frequencies_from_none_to_all_of_the_factor(size):
    run = a_run(size)
    ratio = lab.longer(run, "plain RoPE", 8).frequencies / lab.longer(run, "YaRN", 8).frequencies
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(8)
    assert (ratio.diff() >= 0).all()


def test_yarn_equals_the_library():
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=1,
        rope_theta=10_000.0,
        max_position_embeddings=8192,
        rope_scaling=yarn,
    )
    theirs, scale = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    plain = lab.angles(torch.ones(1), 64)[0]
    ours = lab.yarn_frequencies(plain, 2048, 4.0)
    assert scale == pytest.approx(0.1 * math.log(4) + 1)  # for q and for k, as here
    ends = slice(0, 8), slice(-10, None)  # theirs ramps over the index, the paper over the turns
    for end in ends:
        torch.testing.assert_close(theirs[end].double(), ours[end], rtol=1e-5, atol=0)


def test_the_prose_says_what_yarn_does_to_the_six_pairs():
    run = a_run()
    plain = lab.longer(run, "plain RoPE", 8).frequencies
    kept = (lab.longer(run, "YaRN", 8).frequencies / plain - 1 / 8) / (1 - 1 / 8)
    assert [f"{weight:.2f}" for weight in kept] == ["1.00", "0.40", "0.00", "0.00", "0.00", "0.00"]


def test_the_rows_with_and_without_a_scale_differ_in_the_scale_alone():
    run = a_run()
    for name, other in (("YaRN", lab.BARE), (lab.SCALED, "larger base")):
        scaled, bare = (lab.longer(run, each, 8) for each in (name, other))
        assert torch.equal(scaled.frequencies, bare.frequencies)
        assert scaled.scale == pytest.approx((0.1 * math.log(8) + 1) ** 2)
        assert bare.scale == 1


def test_the_prose_quotes_the_right_turns():
    turns = 64 * lab.angles(torch.ones(1), 12)[0] / (2 * math.pi)
    assert [f"{turn:.2g}" for turn in turns] == ["10", "2.2", "0.47", "0.1", "0.022", "0.0047"]
    assert f"{turns[0]:.1f}" == "10.2"


def test_long_rotary_as_it_is_equals_rope_and_a_scale_multiplies_scores():
    run = a_run()
    x = randn(2, 4, 10, 12)
    plain = lab.longer(run, "plain RoPE", 8)
    torch.testing.assert_close(plain.turn(x), Rotary().turn(x))
    scaled = lab.LongRotary(plain.frequencies, scale=1.5)
    torch.testing.assert_close(
        scaled.turn(x) @ scaled.turn(x).mT, 1.5 * plain.turn(x) @ plain.turn(x).mT
    )
