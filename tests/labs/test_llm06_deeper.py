"""LLM06+: a window and tiles give the results of plain attention, for any shape."""

from functools import partial

from labs.kit.measure import peak_bytes
from labs.llm06_attention import deeper as lab
from labs.llm06_attention import recall
from labs.llm06_attention.lesson import causal_mask
from labs.llm06_attention.sinks import loss_on_text, without_the_first_value

import pytest
import torch
import torch.nn.functional as F


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def qkv(t, tk=None):
    """Return q, (B, H, T, D), and k and v, (B, H, Tk, D), in float64."""
    q = randn(3, 2, t, 8)
    k = randn(3, 2, tk or t, 8, seed=1)
    v = randn(3, 2, tk or t, 8, seed=2)
    return q, k, v


@pytest.mark.parametrize(("t", "window"), [(1, 1), (1, 5), (9, 1), (9, 4), (9, 9), (9, 20)])
def test_local_attention_equals_attention_under_the_window_mask(t, window):
    q, k, v = qkv(t)
    want = F.scaled_dot_product_attention(q, k, v, lab.sliding_window_mask(t, t, window))
    got = lab.local_attention(q, k, v, window)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_a_window_as_wide_as_the_text_is_the_causal_mask():
    assert torch.equal(lab.sliding_window_mask(3, 8, 8), causal_mask(3, 8))
    assert not torch.equal(lab.sliding_window_mask(3, 8, 7), causal_mask(3, 8))


@pytest.mark.parametrize("sizes", [(9,), (1,) * 9, (4, 3, 2), (0, 9)])
def test_any_split_of_a_text_gives_the_outputs_of_the_text_at_once(sizes):
    q, k, v = qkv(9)
    cache = None
    outputs = []
    for parts in zip(*(x.split(sizes, -2) for x in (q, k, v)), strict=True):
        output, cache = lab.attend_with_cache(*parts, cache)
        outputs.append(output)
    want = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(torch.cat(outputs, -2), want, rtol=0, atol=1e-12)
    assert torch.equal(cache[0], k)
    assert torch.equal(cache[1], v)


def test_the_control_silences_as_many_other_heads_of_the_same_layers():
    chosen = [(3, 0), (3, 2), (7, 1)]
    others = lab.others_of_the_same_layers(chosen, 9)
    assert sorted(layer for layer, _ in others) == [3, 3, 7]
    assert not set(others) & set(chosen)
    assert len(set(others)) == 3
    assert lab.others_of_the_same_layers([(0, 0), (0, 1)], 3) == [(0, 2)]


def test_the_first_value_is_left_out_of_later_outputs_alone():
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, **shape)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).eval()
    attn = model.model.layers[0].self_attn
    ids = torch.arange(6)[None]
    mixed = []
    with torch.no_grad(), without_the_first_value(model):
        attn.o_proj.register_forward_pre_hook(lambda _, inputs: mixed.append(inputs[0]))
        weights = model(ids, output_attentions=True).attentions[0].clone()  # (1, 4, 6, 6)
    x = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))
    v = attn.v_proj(x).unflatten(-1, (2, 4)).transpose(1, 2).repeat_interleave(2, 1)
    weights[..., 1:, 0] = 0
    want = (weights @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed[0], want, rtol=0, atol=1e-6)


def test_weights_by_hand_equal_those_of_a_library_with_shared_heads():
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, **shape)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        outputs = model(torch.arange(6)[None], output_attentions=True, output_hidden_states=True)
        layer = model.model.layers[0]
        x = layer.input_layernorm(outputs.hidden_states[0])
        rope = partial(recall.rope, base=10_000.0)
        weights = lab.weights_by_hand(x, layer.self_attn, rope)
    torch.testing.assert_close(weights, outputs.attentions[0], rtol=0, atol=1e-6)


def test_the_loss_of_a_text_is_that_of_its_later_tokens_and_a_hidden_key_gets_no_weight():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).eval()
    ids = torch.arange(24).view(2, 12)
    losses, _ = loss_on_text(model, ids)
    with torch.no_grad():
        logits = model(ids).logits
    want = [F.cross_entropy(logits[i, 7:-1], ids[i, 8:]) for i in range(2)]
    torch.testing.assert_close(losses, torch.stack(want), rtol=0, atol=1e-5)
    for key in (0, 1):
        weights = loss_on_text(model, ids, (key, 2))[1]
        assert weights[key] == 0 < weights[1 - key]


def test_to_hide_the_first_key_from_all_later_tokens_is_to_delete_the_token():
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, **shape)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).eval()
    ids = torch.arange(24).view(2, 12)
    deleted, _ = loss_on_text(model, ids[:, 1:], start=6)
    torch.testing.assert_close(loss_on_text(model, ids, (0, 1))[0], deleted, rtol=0, atol=2e-6)
    assert (loss_on_text(model, ids, (0, 2))[0] - deleted).abs().min() > 2e-5


def test_the_gradient_at_a_query_scales_with_the_scores_as_long_as_they_are_small():
    q = 1e-3 * randn(2, 3, 8)
    k = randn(2, 5, 8, seed=1)
    torch.manual_seed(0)
    plain = lab.query_gradients(q, k, 1)
    torch.manual_seed(0)
    larger = lab.query_gradients(q, k, 4)
    assert plain.shape == (2, 3)
    torch.testing.assert_close(larger, 4 * plain, rtol=0.05, atol=0)


@pytest.mark.parametrize("block", [1, 3, 7, 8, 100])
def test_tiles_give_the_same_result_and_gradient_for_any_block_size(block):
    q, k, v = (x.requires_grad_() for x in qkv(5, 8))
    tiled = lab.tiled_attention(q, k, v, block)
    want = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(tiled, want, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(tiled.square().sum(), (q, k, v))
    wanted = torch.autograd.grad(want.square().sum(), (q, k, v))
    torch.testing.assert_close(gradients, wanted, rtol=0, atol=1e-11)


def test_peak_bytes_counts_a_freed_tensor_once():
    def twice():
        for _ in range(2):
            torch.empty(2**18)  # float32: 1 MiB, freed at once

    assert 2**20 <= peak_bytes(twice) < 1.1 * 2**20
