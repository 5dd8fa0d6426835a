"""LLM10's model rearranged for writing, and other forms of the product, beside the plain ones."""

import copy
from dataclasses import replace

from labs.llm10_llama import lesson as lab
from labs.llm10_llama.decoder import Decoder
from labs.llm10_llama.parts import Config, pad_left, random_tokens
from labs.llm10_llama.products import LARGE, by_convolution, convolve, product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

SMALL = Config(40, 32, 2, 4, 2, 88, context=16, std=0.15)


def model_of(config: Config) -> lab.Llama:
    """Return a model whose norms have gains that aren't 1."""
    torch.manual_seed(0)
    model = lab.Llama(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize(
    "changes", [{}, {"theta": None}, {"kv_heads": 4}, {"kv_heads": 1}, {"tied": False}]
)
def test_a_decoder_gives_the_logits_of_its_model(changes: dict[str, object]):
    config = replace(SMALL, **changes)
    model = model_of(config)
    decoder = Decoder(model)
    tokens = random_tokens(config, 3, 9)
    expected = model(tokens)
    cache = model.cache(3, 9)
    torch.testing.assert_close(decoder(tokens[:, :4], cache), expected[:, :4])
    torch.testing.assert_close(decoder(tokens[:, 4:8], cache), expected[:, 4:8])
    torch.testing.assert_close(decoder(tokens[:, 8:], cache, last=True), expected[:, 8:])


def test_a_decoder_hides_padding_and_starts_its_window_anew_like_its_model():
    model = model_of(SMALL)
    ids, padding = pad_left([torch.arange(n) for n in (3, 8, 5)])
    new = 2 * SMALL.context  # longer than the context
    expected = lab.generate(model, ids, new, padding=padding)
    assert torch.equal(lab.generate(Decoder(model), ids, new, padding=padding), expected)


def test_a_decoder_of_a_bfloat16_model_stays_in_bfloat16():
    model = model_of(SMALL).bfloat16()
    tokens = random_tokens(SMALL, 2, 6)
    logits = Decoder(model)(tokens, model.cache(2, 6))
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits, model(tokens), atol=0.1, rtol=0.1)


def test_a_decoder_refuses_a_model_with_other_layers():
    with pytest.raises(TypeError, match="RMSNorm and SwiGLU"):
        Decoder(lab.Llama(replace(SMALL, norm=nn.LayerNorm)))


@pytest.mark.parametrize("rows", [1, 2, 15, 16])
@pytest.mark.parametrize("width", [40, LARGE // 512])
def test_a_product_of_few_rows_is_the_usual_one(rows: int, width: int):
    x = torch.randn(rows, 512)
    w = torch.randn(width, 512)
    result = product(x, w)
    torch.testing.assert_close(result, F.linear(x, w), atol=1e-3, rtol=1e-4)
    assert result.is_contiguous()


@pytest.mark.parametrize("shape", [(4, 8, 24), (32, 24), (5, 24)])
def test_a_convolution_of_pixels_is_a_product(shape: tuple[int, ...]):
    x = torch.randn(shape, requires_grad=True)
    w = torch.randn(40, 24, requires_grad=True)
    expected = F.linear(x, w)
    result = by_convolution(x, w)
    torch.testing.assert_close(result, expected)
    slope = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(result, (x, w), slope),
        torch.autograd.grad(expected, (x, w), slope),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_convolved_model_is_the_same_model_and_so_is_its_copy():
    model = model_of(SMALL)
    tokens = random_tokens(SMALL, 4, 16)
    expected = model(tokens)
    names = list(model.state_dict())
    convolve(model)
    torch.testing.assert_close(model(tokens), expected)
    assert list(model.state_dict()) == names
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model.layers[0].self_attn.q_proj.weight.zero_()
    torch.testing.assert_close(twin(tokens), expected)
    assert not torch.allclose(model(tokens), expected)
