"""LLM10+: what a transformer costs, in parameters, FLOPs and bytes, for any shape."""

from dataclasses import replace
from types import SimpleNamespace

from labs.kit import Card, Mistake, assets
from labs.llm10_llama import deeper, probes
from labs.llm10_llama import transformer_costs as costs
from labs.llm10_llama.parts import Config
from tests.labs.solutions import check_wrong

import pytest
import torch

KEYS = "embedding", "positions", "attention", "ffn", "norms", "output"


@pytest.mark.parametrize(
    "result", [None, [], 7, *(dict.fromkeys(KEYS, value) for value in (None, [], 0.5))], ids=str
)
def test_a_count_that_is_anything_else_is_a_mistake(result):
    with pytest.raises(Mistake):
        check_wrong(deeper.lab.lesson, "parameter_count", lambda _: result)


def test_the_lesson_and_the_exercise_count_the_same():
    for c in (Config(257), Config(1025, 128, 6, 8, 2, 344, tied=False)):
        heads = (c.heads, c.kv_heads, c.head_dim)
        shape = costs.Transformer(c.vocabulary, c.d_model, c.layers, *heads, c.d_ff, tied=c.tied)
        assert sum(probes.predicted_parameters(c).values()) == deeper.total(shape)


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
    assert deeper.total(costs.PUBLISHED[name]) == published


def test_a_small_model_written_out_has_two_flops_for_each_multiplication():
    s = costs.Transformer(7, 4, 1, 2, 1, 3, 5)
    batch = 2
    t = 3
    matrices = (
        4 * 6 + 2 * 4 * 3 + 6 * 4 + 3 * 4 * 5 + 7 * 4
    )  # q, k and v, out, feed-forward, output
    scores = 2 * 2 * t * t * 3  # two products of two heads
    assert deeper.forward_flops(s, batch, t) == 2 * batch * (t * matrices + scores)


@pytest.mark.parametrize(
    "shape",
    [
        costs.Transformer(64, 24, 2, 6, 2, 8, 40),
        costs.Transformer(64, 24, 3, 4, 4, 6, 36, tied=True),
    ],
)
def test_formulas_predict_flops_and_activations_for_any_shape_batch_and_length(shape):
    model = costs.library_model(shape)
    tokens = torch.randint(64, (3, 5))
    _, counted = costs.counted_flops(lambda: model(tokens))
    assert counted == deeper.forward_flops(shape, 3, 5)
    assert costs.saved_bytes(model, tokens) == deeper.activation_bytes(shape, 3, 5)


def test_biases_and_positions_add_no_flops_of_products():
    plain = replace(costs.GPT2, biases=False, positions=0)
    assert deeper.forward_flops(costs.GPT2, 1, 8) == deeper.forward_flops(plain, 1, 8)
    assert deeper.total(costs.GPT2) > deeper.total(plain)


def test_a_storage_is_counted_once_for_any_number_of_views():
    x = torch.zeros(10, 10)
    assert costs.storage_bytes([x, x.T, x[2:], x.expand(3, 10, 10)]) == 400
    assert costs.storage_bytes([x, x.clone()]) == 800


def test_configurations_of_the_embedded_models_give_their_parameters():
    from transformers import AutoConfig, AutoModelForCausalLM

    for folder in (assets.smollm2(), assets.glass()):
        config = AutoConfig.from_pretrained(folder)
        shape = costs.Transformer(*(getattr(config, name) for name in costs.LLAMA_NAMES))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        assert deeper.total(shape) == model.num_parameters()
    assert deeper.total(costs.SMOLLM2) == 134_515_008


class RunOf:
    """The part of a run that opening a model needs."""

    device = torch.device("cpu")
    online = False

    def __init__(self, folder):
        self.options = SimpleNamespace(model=str(folder))


def test_language_model_opens_the_requested_model_and_reads_its_shape():
    model, shape = costs.language_model(RunOf(assets.glass()))
    assert deeper.total(shape) == sum(p.numel() for p in model.parameters())
    assert (shape.layers, shape.heads, shape.kv_heads, shape.tied) == (4, 4, 2, True)


def test_a_model_of_another_architecture_is_a_card(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 16, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(Card, match="gpt2"):
        costs.language_model(RunOf(tmp_path))
