"""A Llama rearranged for writing: fewer and larger products, the same logits but for rounding."""

from collections.abc import Callable
from functools import partial
from typing import Any

from labs.llm10_llama.parts import Gated, Norm, mix, padded_mask
from labs.llm10_llama.products import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Product = Callable[[Tensor, Tensor], Tensor]


class Decoder:
    """A Llama's weights, which `generate` takes in the model's place. Some are copies of them.

    So make a new Decoder when the model has changed.

    Args:
        model: the Llama.
        multiply: returns x·Wᵀ, (rows, d_in), (d_out, d_in) -> (rows, d_out).

    Raises:
        TypeError: if the model has other norms than RMSNorm, or no SwiGLU.
    """

    def __init__(self, model: Any, multiply: Product = product):
        if model.config.norm is not Norm or model.config.ffn is not Gated:
            raise TypeError("a Decoder needs a model with RMSNorm and SwiGLU")
        self.config = model.config
        self.cache = model.cache
        self.turns = model.turns
        self.embedding = model.embed_tokens.weight.detach()
        self.multiply = multiply
        self.blocks = [DecoderBlock(block, multiply) for block in model.layers]
        self.output = stacked([model.lm_head], model.norm.weight)

    def __call__(self, tokens: Tensor, cache: Any, padding: Any = None, last=False) -> Tensor:
        """Return the logits after each token, (B, T) -> (B, T, V), as Llama.forward does."""
        length = tokens.shape[1]
        start = cache.filled[0]
        turns = self.turns(start, length, tokens.device)
        mask = None if padding is None else padded_mask(padding, length, start + length)
        x = F.embedding(tokens.flatten(), self.embedding)  # (B·T, d)
        for i, block in enumerate(self.blocks):
            x = block(x, length, turns, partial(cache.extend, i), mask)
        if last:
            x = x[length - 1 :: length]  # (B, d)
        x = F.rms_norm(x, x.shape[1:], eps=self.config.eps)
        return self.multiply(x, self.output).view(len(tokens), -1, self.config.vocabulary)


class DecoderBlock:
    """The matrices of a block and what it does with them, without modules and gradients."""

    def __init__(self, block: Any, multiply: Product):
        self.multiply = multiply
        attention = block.self_attn
        self.head_dim = attention.head_dim
        self.heads = attention.q_proj.out_features // self.head_dim
        self.kv_heads = attention.k_proj.out_features // self.head_dim
        self.eps = block.input_layernorm.eps
        gain = block.input_layernorm.weight
        self.qkv = stacked([attention.q_proj, attention.k_proj, attention.v_proj], gain)
        self.o = attention.o_proj.weight.detach()
        gain = block.post_attention_layernorm.weight
        self.gate_up = stacked([block.mlp.gate_proj, block.mlp.up_proj], gain)
        self.down = block.mlp.down_proj.weight.detach()

    def __call__(
        self, x: Tensor, length: int, turns: Any, extend: Callable[..., Any], mask: Any
    ) -> Tensor:
        """Add both branches, (B·T, d) -> (B·T, d); `length` is T."""
        y = self.multiply(self.normed(x), self.qkv)
        y = y.view(-1, length, self.heads + 2 * self.kv_heads, self.head_dim)
        qk, v = y.split((self.heads + self.kv_heads, self.kv_heads), 2)
        if turns is not None:
            qk = self.turned(qk, turns)
        q, k = qk.split((self.heads, self.kv_heads), 2)  # (B, T, H, D), (B, T, H_kv, D)
        k, v = extend(k.transpose(1, 2), v.transpose(1, 2))  # with those of earlier tokens
        y = mix(q.transpose(1, 2), k, v, mask)  # (B, H, T, D)
        x = x + self.multiply(y.transpose(1, 2).reshape(x.shape), self.o)
        gate, up = self.multiply(self.normed(x), self.gate_up).chunk(2, -1)
        return x + self.multiply(F.silu(gate) * up, self.down)

    def normed(self, x: Tensor) -> Tensor:
        """Return x over its size; the gain is in the matrix behind."""
        return F.rms_norm(x, x.shape[1:], eps=self.eps)

    def turned(self, x: Tensor, turns: Tensor) -> Tensor:
        """Turn queries and keys at once, (B, T, H + H_kv, D)."""
        wide = x.float() if x.dtype == torch.bfloat16 else x
        pairs = torch.view_as_complex(wide.view(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns).view(x.shape).to(x.dtype)


def stacked(layers: list[nn.Linear], gain: Tensor) -> Tensor:
    """Return the matrices of layers with the same input as one, (sum of d_out, d_in).

    The gain of the norm before them is a part of it: W(γ * x) = (W diag(γ))x.
    """
    return torch.cat([layer.weight.detach() for layer in layers]) * gain.detach()
