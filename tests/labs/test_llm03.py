"""LLM03: parts on unusual shapes, the theory that the lab quotes, and what it measures with.

tests/labs/test_checks.py has the wrong solutions of each exercise.
"""

import math
from dataclasses import replace
from types import SimpleNamespace

from labs.kit import Card, Mistake, assets
from labs.llm03_neural_networks import lesson as lab
from tests.labs.solutions import check_wrong

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


KEYS = "embedding", "positions", "attention", "ffn", "norms", "output"


@pytest.mark.parametrize("part", list(lab.lab.exercises))
@pytest.mark.parametrize(
    "result",
    [None, "text", 7, [], (None,) * 3, torch.zeros(3), torch.full((4, 4), torch.nan).double()]
    + [dict.fromkeys(KEYS, value) for value in (None, [], math.nan)],
    ids=str,
)
def test_a_part_that_returns_anything_else_is_a_mistake(part, result):
    with pytest.raises(Mistake):
        check_wrong(lab.lab.lesson, part, lambda *_: result)


# Shapes and views.


def test_four_of_the_twelve_sums_are_errors_and_all_agree_with_pytorch():
    shapes = [lab.by_the_rule_and_by_pytorch(pair) for pair in lab.TWELVE]
    assert len(shapes) == 12
    assert all(ours == its for ours, its in shapes)
    assert sum(ours == "error" for ours, _ in shapes) == 4


def test_a_torch_size_is_broadcast_like_a_tuple():
    assert lab.broadcast_shape(torch.Size([3, 1]), torch.Size([2])) == (3, 2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (0, 3)])
def test_the_diagonal_of_an_empty_or_tiny_matrix_is_a_view(shape):
    x = randn(*shape)
    assert torch.equal(lab.diagonal(x), torch.diagonal(x))
    assert lab.diagonal(x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_gradients_flow_through_the_diagonal():
    x = randn(3, 4).requires_grad_()
    lab.diagonal(x).sum().backward()
    assert torch.equal(x.grad, torch.eye(3, 4, dtype=torch.float64))


# The layer.


@pytest.mark.parametrize("way", [lab.linear_loops, lab.linear_broadcast, lab.linear_einsum])
@pytest.mark.parametrize(("batch", "n", "m"), [(1, 1, 1), (3, 1, 4), (2, 5, 1), (4, 3, 2)])
def test_every_linear_layer_equals_the_library_for_any_sizes(way, batch, n, m):
    x = randn(batch, n)
    w = randn(m, n, seed=1)
    bias = randn(m, seed=2)
    torch.testing.assert_close(way(x, w, bias), F.linear(x, w, bias), rtol=0, atol=1e-12)


def test_the_backward_passes_gradcheck():
    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w, bias):
            ctx.save_for_backward(x, w)
            return lab.linear(x, w, bias)

        @staticmethod
        def backward(ctx, g):
            return lab.linear_backward(g, *ctx.saved_tensors)

    inputs = [t.requires_grad_() for t in (randn(2, 3, 4), randn(5, 4, seed=1), randn(5, seed=2))]
    assert torch.autograd.gradcheck(ByHand.apply, inputs)


def test_attention_to_a_single_key_returns_its_value():
    q = randn(2, 3, 4, 8)
    k = randn(2, 1, 4, 8, seed=1)
    v = randn(2, 1, 4, 8, seed=2)
    torch.testing.assert_close(lab.attention_by_einsum(q, k, v), v.expand(2, 3, 4, 8))


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


def test_a_layer_loses_five_sixths_of_the_squared_spread_once_inputs_are_similar():
    spreads = [spread for _, spread in lab.theory(1 / 3, 1 / 3, 512)]
    assert (spreads[-1] / spreads[-2]) ** 2 == pytest.approx(1 / 6, rel=0.02)


def test_a_constant_input_has_no_spread():
    layers = [lab.fresh_layer(64, "PyTorch") for _ in range(3)]
    found, _ = lab.signal(layers, torch.ones(5, 64, dtype=torch.float64))
    assert all(rms > 0 and spread < 1e-12 for rms, spread in found)


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


# Parameters, FLOPs and bytes.


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("GPT-2", 124_439_808),
        ("GPT-2 XL", 1_557_611_200),
        ("SmolLM2-135M", 134_515_008),
        ("Llama-2-7B", 6_738_415_616),
        ("Llama-3-8B", 8_030_261_248),
    ],
)
def test_the_models_have_their_published_sizes(name, published):
    assert lab.total(lab.PUBLISHED[name]) == published


def test_a_small_model_written_out_has_two_flops_for_each_multiplication():
    s = lab.Transformer(7, 4, 1, 2, 1, 3, 5)
    batch = 2
    t = 3
    matrices = (
        4 * 6 + 2 * 4 * 3 + 6 * 4 + 3 * 4 * 5 + 7 * 4
    )  # q, k and v, out, feed-forward, output
    scores = 2 * 2 * t * t * 3  # two products of two heads
    assert lab.forward_flops(s, batch, t) == 2 * batch * (t * matrices + scores)


@pytest.mark.parametrize(
    "shape",
    [
        lab.Transformer(64, 24, 2, 6, 2, 8, 40),
        lab.Transformer(64, 24, 3, 4, 4, 6, 36, tied=True),
    ],
)
def test_formulas_predict_flops_and_activations_for_any_shape_batch_and_length(shape):
    model = lab.library_model(shape)
    tokens = torch.randint(64, (3, 5))
    _, counted = lab.counted_flops(lambda: model(tokens))
    assert counted == lab.forward_flops(shape, 3, 5)
    assert lab.kept_bytes(model, tokens) == lab.activation_bytes(shape, 3, 5)


def test_biases_and_positions_add_no_flops_of_products():
    plain = replace(lab.GPT2, biases=False, positions=0)
    assert lab.forward_flops(lab.GPT2, 1, 8) == lab.forward_flops(plain, 1, 8)
    assert lab.total(lab.GPT2) > lab.total(plain)


def test_a_storage_is_counted_once_for_any_number_of_views():
    x = torch.zeros(10, 10)
    assert lab.held([x, x.T, x[2:], x.expand(3, 10, 10)]) == 400
    assert lab.held([x, x.clone()]) == 800


def test_configurations_of_the_embedded_models_give_their_parameters():
    from transformers import AutoConfig, AutoModelForCausalLM

    for folder in (assets.smollm2(), assets.glass()):
        config = AutoConfig.from_pretrained(folder)
        shape = lab.Transformer(*(getattr(config, name) for name in lab.LLAMA_NAMES))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        assert lab.total(shape) == model.num_parameters()
    assert lab.total(lab.SMOLLM2) == 134_515_008


class RunOf:
    """The part of a run that opening a model needs."""

    device = torch.device("cpu")
    online = False

    def __init__(self, folder):
        self.options = SimpleNamespace(model=str(folder))


def test_language_model_opens_the_requested_model_and_reads_its_shape():
    model, shape = lab.language_model(RunOf(assets.glass()))
    assert lab.total(shape) == sum(p.numel() for p in model.parameters())
    assert (shape.layers, shape.heads, shape.kv_heads, shape.tied) == (4, 4, 2, True)


def test_a_model_of_another_architecture_is_a_card(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 16, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(Card, match="gpt2"):
        lab.language_model(RunOf(tmp_path))
