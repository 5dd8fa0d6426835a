"""LLM05b: its parts on unusual shapes, the theory it quotes, its sizes and its view."""

import io
import json
import math
from pathlib import Path

from common.options import Settings
from labs.kit.records import View
from labs.kit.report import views
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.llm05b_depth_and_position import lesson as lab
from labs.llm05b_depth_and_position import training, view_data
from labs.llm05b_depth_and_position.deeper import LongRotary
from labs.llm05b_depth_and_position.planted_faults import planted
from labs.llm05b_depth_and_position.side_by_side import train_side_by_side
from labs.shared import small_gpt
from tests.browser import page_of

import pytest
import torch
from torch import nn

SIZES = ("tiny", "small", "full")


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def a_run(size="tiny", folder=Path("nowhere")):
    return Run(Settings(size=size), "fp32", Output(io.StringIO()), folder)


# The stack.


def test_the_worked_example_of_attention_has_these_numbers():
    q = torch.tensor([[2.0, 0.0]])
    k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    v = torch.tensor([[1.0], [5.0], [3.0]])
    scores = q @ k.T / math.sqrt(2)
    assert [f"{score:.2f}" for score in scores[0]] == ["1.41", "0.00", "1.41"]
    weights = scores.softmax(-1)
    assert [f"{weight:.3f}" for weight in weights[0]] == ["0.446", "0.108", "0.446"]
    assert f"{(weights @ v).item():.3f}" == "2.325"
    order = torch.tensor([1, 0, 2])
    torch.testing.assert_close((q @ k[order].T / math.sqrt(2)).softmax(-1) @ v[order], weights @ v)


def test_placements_differ_in_their_output_but_not_in_their_matrices():
    tokens = torch.randint(10, (2, 5))
    models = [lab.build(name, 3, 16, 0) for name in (*lab.PLACEMENTS, "no norm")]
    outputs = {round(model(tokens).sum().item(), 3) for model in models}
    assert len(outputs) == 3
    first, *others = ([p for p in model.blocks.parameters() if p.dim() > 1] for model in models)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_later_token_changes_no_earlier_logits():
    model = lab.build("Pre-LN", 2, 16, 0)
    tokens = torch.randint(10, (1, 6))
    other = tokens.clone()
    other[0, -1] = 11
    assert torch.equal(model(tokens)[:, :-1], model(other)[:, :-1])


def test_later_pre_norm_blocks_pass_the_angle_on_by_which_a_block_turns_the_stream():
    model = lab.build("Pre-LN", 16, 64, 0).double()
    streams = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, _in, output: streams.append(output.detach()))
    windows = small_gpt.shakespeare().windows(2, 32)[:, :-1]
    model(windows)
    for matrix in (p for p in model.blocks[3].parameters() if p.dim() > 1):
        matrix.data += 1e-5 * randn(*matrix.shape, seed=1).sign()
    model(windows)
    before, after = (
        nn.functional.normalize(torch.stack(s), dim=-1) for s in (streams[:16], streams[16:])
    )
    angles = (after - before).square().mean((1, 2, 3)).sqrt()  # of small angles, by block
    assert angles[2] == 0
    # If later blocks didn't turn, the angle would fall as the stream grows: here to half.
    assert 1 / math.sqrt(2) < angles[15] / angles[3] < math.sqrt(2)


def test_what_the_ffn_adds_is_an_integral():
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
    gelu = nn.functional.gelu(z * math.sqrt(0.4))
    mean_square = torch.trapezoid(gelu.square() * density, z).item()
    assert f"{mean_square:.3f}" == "0.146"
    assert 1.6 * mean_square == pytest.approx(lab.FFN_ADDS, abs=2e-4)


def test_the_prose_quotes_the_right_band_for_32_blocks():
    low, high = (math.sqrt(1 + c * 32) for c in (lab.FFN_ADDS, 1 + lab.FFN_ADDS))
    assert (f"{low:.1f}", f"{high:.1f}") == ("2.9", "6.4")


def test_a_probe_measures_the_streams_end_and_leaves_gradients():
    model = lab.build("Pre-LN", 3, 16, 0)
    end = training.probe(model)
    assert 1 < end.size < 3
    assert end.gradient > 0
    assert -1 < end.alike < 1
    assert training.probe(lab.build("Post-LN", 3, 16, 0)).size == pytest.approx(1, abs=1e-3)
    assert min(lab.gradient_norms(model.blocks)) > 0


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.999, 1.001), (1.0, -0.3, 0.3)])
def test_a_probe_finds_the_cosine_of_equal_tokens_and_of_unlike_ones(share, low, high):
    class Mixed(nn.Module):
        def forward(self, x, position):
            del position
            return share * x + 1 - share

    model = lab.Stack([Mixed()], 64)
    assert low < training.probe(model).alike < high


def test_the_stream_of_128_blocks_without_norms_has_a_finite_size():
    size = training.probe(lab.build("no norm", 128, 16, 0).double()).size
    assert 1e19 < size < math.inf  # its square is infinite in float32


def test_a_moved_block_moves_the_logits_in_proportion_and_comes_back():
    model = lab.build("Pre-LN", 3, 16, 0).double()
    before = [p.clone() for p in model.parameters()]
    full, half = (training.moves(model, (0, 2), step) for step in (1e-5, 5e-6))
    assert full == pytest.approx([2 * x for x in half], rel=1e-3)
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-15)


def test_gradient_norms_are_those_of_torch():
    model = lab.build("Pre-LN", 2, 16, 0)
    training.mean_loss(model, torch.randint(10, (2, 6))).backward()
    for block, norm in zip(model.blocks, lab.gradient_norms(model.blocks), strict=True):
        gradients = torch.cat([p.grad.flatten() for p in block.parameters()])
        assert norm == pytest.approx(gradients.norm().item(), rel=1e-5)


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


def test_positions_may_differ_from_text_to_text_in_a_batch():
    positions = torch.tensor([[0, 1, 2, 3], [0, 1, 0, 1]])  # the second holds two packed texts
    angle = lab.angles(positions, 8)
    assert angle.shape == (2, 4, 4)
    assert torch.equal(angle[1, 2:], angle[1, :2])
    x = randn(2, 3, 4, 8)  # (B, H, T, D)
    turned = lab.rope(x, angle[:, None])
    torch.testing.assert_close(turned[0], lab.rope(x[0], lab.angles(positions[0], 8)))
    torch.testing.assert_close(turned[1], lab.rope(x[1], lab.angles(positions[1], 8)))


def test_the_prose_quotes_the_right_score_of_two_positions():
    vectors = torch.tensor([[1.0, 0.0]]).double().expand(4, 2)
    rotated = lab.rope(vectors, torch.tensor([3.0, 5.0, 103.0, 105.0]).double()[:, None])
    for a, b in ((0, 1), (2, 3)):
        assert f"{rotated[a] @ rotated[b]:.3f}" == "-0.416"


def test_the_scores_of_the_librarys_llama_are_those_of_halves():
    x = randn(2, 7, 32)
    weights = randn(2, 32, 32, seed=1)
    angle = lab.angles(torch.arange(7), 8)
    a, b = (w.unflatten(0, (4, 2, 4)) for w in weights)  # (H, 2, D/2, d): halves
    q, k = (torch.einsum("btd,hcpd->bhtpc", x, w).contiguous() for w in (a, b))
    turn = torch.polar(torch.ones_like(angle), angle)
    q, k = (torch.view_as_complex(part) * turn for part in (q, k))
    want = torch.einsum("bhtp,bhsp->bhts", q, k.conj()).real / math.sqrt(8)
    torch.testing.assert_close(training.llama_scores(x, weights, angle), want)


def test_a_rotary_model_depends_on_offsets_and_not_on_absolute_positions():
    model = lab.build("Pre-LN", 2, 32, 0, lab.Rotary()).double()
    tokens = torch.randint(10, (2, 12))
    before = model(tokens)
    frequencies = lab.angles(torch.ones(1), 8)[0]
    model.position = LongRotary(frequencies, lambda n: torch.arange(n) + 1000)
    torch.testing.assert_close(model(tokens), before, rtol=0, atol=1e-9)
    model.position = LongRotary(frequencies, lambda n: 2 * torch.arange(n))
    assert (model(tokens) - before).abs().max() > 1e-3


def test_the_alibi_bias_is_minus_the_slope_times_the_distance():
    bias = lab.Alibi().bias(8, 10)
    assert bias.shape == (8, 10, 10)
    assert bias[0, 7, 3] == -0.5 * 4
    assert bias.diagonal(dim1=1, dim2=2).abs().max() == 0


def test_the_spread_at_a_distance_is_zero_for_a_matrix_of_diagonals():
    distance = torch.arange(8)[:, None] - torch.arange(8)
    assert training.spread_at_distances(distance.double().sin()) == 0
    assert training.spread_at_distances(torch.arange(64.0).view(8, 8)) > 0


@pytest.mark.parametrize("fault", lab.FAULTS)
@pytest.mark.parametrize("shape", [(1, 2, 8), (2, 9, 32), (5, 40, 64)])
def test_every_fault_is_named_for_any_shape(fault, shape):
    for seed in range(3):
        torch.manual_seed(seed)
        assert lab.diagnose(planted(fault, shape[-1]), randn(*shape, seed=seed)) == fault


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 2), (3, 4), (4, 64)])
def test_converting_a_layout_keeps_each_heads_rows_together(heads, head_dim):
    rows = randn(heads * head_dim, 5)
    halves = lab.to_halves(rows, head_dim)
    for h in range(heads):  # each head keeps its own rows
        own = slice(h * head_dim, (h + 1) * head_dim)
        assert torch.equal(halves[own][: head_dim // 2], rows[own][::2])


# The trainings.


@pytest.mark.parametrize("size", SIZES)
def test_heads_have_even_widths_and_all_texts_fit_at_every_size(size):
    run = a_run(size)
    for sizes in (training.deep_sizes(run), training.long_sizes(run)):
        assert sizes.d % 8 == 0
    length = training.LONG * training.long_sizes(run).length + 1
    assert training.long_windows(run).shape[1] == length
    assert training.validation(run)[:, 1:].numel() == 2**13


def test_encodings_are_different_models_with_equally_many_parameters_except_the_learned_table():
    run = a_run()
    outputs = set()
    counts = {}
    tokens = training.long_windows(run)[:2, :-1]
    for name in lab.ENCODINGS:
        model = lab.build("Pre-LN", 2, 48, 0, lab.ENCODINGS[name](512, 48))
        counts[name] = small_gpt.parameters(model)
        outputs.add(round(model(tokens).square().sum().item(), 2))
    assert len(outputs) == len(lab.ENCODINGS)
    assert counts["learned"] - counts["NoPE"] == 512 * 48
    assert {counts[name] for name in lab.ENCODINGS if name != "learned"} == {counts["NoPE"]}


def test_a_model_without_attention_loses_nothing_on_longer_texts():
    run = a_run()
    torch.manual_seed(0)

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.ffn = small_gpt.FeedForward(16)

        def forward(self, x, position):
            del position
            return x + self.ffn(x)

    model = lab.Stack([Alone()], 16)
    near, far = (
        training.last_half(run, training.loss_by_place(run, model, times)) for times in (1, 8)
    )
    assert near == pytest.approx(far, abs=1e-6)
    assert math.isfinite(near)


def test_the_lower_limit_is_that_of_students_t():
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # its quantile function with 2 degrees of freedom
    assert training.lower_limit([1.0, 2.0, 3.0]) == pytest.approx(2 - t / math.sqrt(3), abs=1e-3)
    t = training.STUDENT[5]  # with 4: the distribution function at t is 0.975
    z = t / math.sqrt(4 + t**2)
    assert 0.5 + z * (3 - z**2) / 4 == pytest.approx(0.975, abs=1e-4)
    assert training.lower_limit([0.0, 1, 2, 3, 4]) == pytest.approx(2 - t / math.sqrt(2), abs=1e-9)
    with pytest.raises(ValueError, match="3, 4, 5, 6, 8, 10 seeds"):
        training.lower_limit([1.0, 2.0])


def test_the_least_ratio_of_inverse_ratios_is_the_inverse_of_the_largest():
    ratios = [2.0, 4.0, 8.0]
    t = training.STUDENT[3]
    least = training.least_ratio(ratios)
    assert least == pytest.approx(4 * math.exp(-t * math.log(2) / math.sqrt(3)))
    assert training.least_ratio([1 / x for x in ratios]) == pytest.approx(least / 16)


def test_a_judgement_decides_by_the_sign_of_the_lower_limit():
    run = a_run()
    assert training.judge(run, "gain", [0.9, 1.0, 1.1])
    assert not training.judge(run, "gain", [-1.0, 1.0, 1.1])
    assert training.judge_ratio(run, "ratio", [1.9, 2.0, 2.1])
    assert not training.judge_ratio(run, "ratio", [0.5, 2.0, 2.1])
    assert [item.decides for item in run.current.items] == [False, True, False, True, True, True]


def test_stacks_that_train_side_by_side_equal_stacks_that_train_alone():
    run = a_run()
    kinds = [{"seed": 4, "lr": 0.01, "warmup": 2}, {"seed": 7, "lr": 0.02, "warmup": 0}]
    starts = [lab.build("Post-LN", 2, 16, k["seed"], lab.Sinusoid(8, 16)) for k in kinds]
    before = [start.embedding.weight.clone() for start in starts]
    sizes = {"steps": 9, "batch": 4, "length": 8}
    columns = {f"{name}s": [kind[name] for kind in kinds] for name in kinds[0]}
    seen = []

    def watch(models):
        seen.append([lab.gradient_norms([model])[0] for model in models])

    corpus = small_gpt.shakespeare()
    together = train_side_by_side(run, starts, corpus, watch=watch, **sizes, **columns)
    for i, (start, kind) in enumerate(zip(starts, kinds, strict=True)):
        alone = small_gpt.train(run, start, corpus, **kind, **sizes)
        assert together[i].losses == pytest.approx(alone.losses, abs=1e-4)
        assert together[i].gradient_norms == pytest.approx(alone.gradient_norms, rel=1e-3)
        assert [norms[i] for norms in seen] == pytest.approx(alone.gradient_norms[::8], rel=1e-3)
        got, want = (
            small_gpt.nats(each.model, corpus.windows(4, 8)) for each in (together[i], alone)
        )
        torch.testing.assert_close(got, want, rtol=0, atol=1e-2)
        assert torch.equal(start.embedding.weight, before[i])


def test_the_best_rate_is_inside_the_grid():
    assert min(training.GRID) < training.BEST < max(training.GRID)
    assert training.BEST in training.GRID


@pytest.mark.parametrize("heads", [4, 8])
def test_the_prose_quotes_the_tokens_with_half_the_weight_of_the_flattest_head(heads):
    slope = -lab.Alibi().bias(heads, 2)[-1, 1, 0].item()
    weights = torch.exp(-slope * torch.arange(512))  # of equal keys, by distance
    shares = weights.cumsum(0) / weights.sum()
    assert shares[143] < 0.5 <= shares[144]


def test_the_score_of_a_pair_has_the_same_layer_and_tokens_for_every_position():
    run = a_run()
    plain, again = (training.pair_scores(run, small_gpt.Position()) for _ in range(2))
    assert torch.equal(plain, again)
    assert (plain - plain[0, 0]).abs().max() < 1e-6
    biased = training.pair_scores(run, lab.Alibi())
    torch.testing.assert_close(biased - plain, lab.Alibi().bias(4, 128)[0], rtol=0, atol=1e-5)


def test_baselines_are_counted_on_the_training_text():
    windows = training.validation(a_run())
    uniform = math.log(len(small_gpt.shakespeare().characters))
    assert (
        small_gpt.bigram(windows) < training.bigram(windows) < training.unigram(windows) < uniform
    )
    by_place = training.bigram_by_place(windows)
    assert by_place.shape == (windows.shape[1] - 1,)
    assert by_place.mean().item() == pytest.approx(training.bigram(windows))
    torch.testing.assert_close(by_place[3:4], training.bigram_by_place(windows[:, 3:5]))


def test_the_prose_quotes_the_right_rates_of_a_warm_up():
    steps = training.deep_sizes(a_run()).steps
    warm = [small_gpt.lr_at(step, steps, steps // 5) for step in range(steps)]
    cold = [small_gpt.lr_at(step, steps, 0) for step in range(steps)]
    assert steps == 240
    assert warm[100] / cold[100] == pytest.approx(1.25)
    assert sum(warm) == pytest.approx(sum(cold))


# The views.


@pytest.fixture
def rotation(tmp_path):
    run = a_run(folder=tmp_path)
    view_data.show_rotation(run)
    (view,) = run.current.items
    assert isinstance(view, View)
    return view


def test_the_lengths_are_means_over_the_seeds_and_over_half_octaves(tmp_path):
    run = a_run(folder=tmp_path)
    seeds = [torch.arange(512.0), torch.arange(512.0) + 2]
    reading = training.Reading(seeds, [], [], [])
    view_data.show_lengths(run, {"RoPE": reading}, 64, torch.ones(512))
    (view,) = run.current.items
    data = json.loads(view.path.read_text("utf-8"))
    assert data["edges"] == [4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512]
    (line,) = data["encodings"]
    assert line["losses"][0] == (4 + 5) / 2 + 1
    assert len(line["losses"]) == len(data["baseline"]["losses"]) == len(view.rows) == 14
    assert view.rows[-1][0] == "362 to 511"


def test_the_rotation_table_depends_on_the_offset_alone(rotation):
    by_offset = {}
    for _, offset, *parts in rotation.rows:
        by_offset.setdefault(offset, set()).add(tuple(parts))
    assert {len(parts) for parts in by_offset.values()} == {1}
    assert len({next(iter(parts)) for parts in by_offset.values()}) == len(by_offset)


def test_the_page_computes_the_scores_of_the_lab(browser, rotation, tmp_path):
    data = json.loads(rotation.path.read_text("utf-8"))
    q, k = (torch.tensor(data[name], dtype=torch.float64).view(1, 8) for name in "qk")
    page = tmp_path / "page.html"
    page.write_text(views.document(rotation), "utf-8")
    with page_of(browser, page, 1280, "light") as shown:
        for key, offset in ((0, 3), (57, 3), (57, 20)):
            shown.get_by_role("slider", name="position of the key").fill(str(key))
            shown.get_by_role("slider", name="offset of the query").fill(str(offset))
            turned_q = lab.rope(q, lab.angles(torch.tensor([key + offset]), 8))
            turned_k = lab.rope(k, lab.angles(torch.tensor([key]), 8))
            text = shown.locator(".view-numbers dd").text_content().replace("−", "-")
            assert float(text) == pytest.approx((turned_q * turned_k).sum().item(), abs=1e-3)
