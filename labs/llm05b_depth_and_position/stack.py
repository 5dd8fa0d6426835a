"""Attention and the block of LLM05b's stacks: LLM05a wrote the block, LLM06 writes attention."""

from collections.abc import Iterable
from typing import Any

from labs.shared.small_gpt import FeedForward, Position, attend, shakespeare

from torch import Tensor, nn


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Give each head its own axis, (B, T, H·D) -> (B, H, T, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Causal attention; a position may rotate q and k, or add a bias to the scores."""

    def __init__(self, d_model: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(d_model, d_model, bias=False)
        self.k = nn.Linear(d_model, d_model, bias=False)
        self.v = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """Mix the tokens, (B, T, d) -> (B, T, d)."""
        q = position.turn(split_heads(self.q(x), self.heads))  # (B, H, T, D)
        k = position.turn(split_heads(self.k(x), self.heads))  # (B, H, T, D)
        v = split_heads(self.v(x), self.heads)  # (B, H, T, D)
        bias = position.bias(self.heads, x.shape[1])  # (H, T, T), or None
        mixed = attend(q, k, v, bias)  # softmax(q·k/√D + bias) times v
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, H·D)


class Block(nn.Module):
    """Attention and a feed-forward layer, with norms where `placement` says."""

    def __init__(self, d_model: int, placement: str = "Pre-LN"):
        super().__init__()
        self.placement = placement
        self.attention = Attention(d_model)
        self.ffn = FeedForward(d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """Transform the residual stream, (B, T, d) -> (B, T, d)."""
        if self.placement == "Pre-LN":
            x = x + self.attention(self.norm1(x), position)
            return x + self.ffn(self.norm2(x))
        if self.placement == "Post-LN":
            x = self.norm1(x + self.attention(x, position))
            return self.norm2(x + self.ffn(x))
        x = x + self.attention(x, position)  # no norm
        return x + self.ffn(x)


class Parts(nn.Module):
    """The parts of a language model; matrices have entries of variance 2 / (inputs + outputs)."""

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        d_model: int,
        last_norm: bool = True,
        position: Position | None = None,
        vocabulary: int = 0,
    ):
        super().__init__()
        vocabulary = vocabulary or len(shakespeare().characters)
        self.embedding = nn.Embedding(vocabulary, d_model)  # entries of variance 1
        self.position = position or Position()  # the default adds no positions
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(d_model) if last_norm else nn.Identity()
        self.unembedding = nn.Linear(d_model, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)


def value_matrices(model: Any) -> list[nn.Parameter]:
    """Return the four matrices of each block that the values pass: all but W_q and W_k."""
    return [
        parameter
        for name, parameter in model.blocks.named_parameters()
        if parameter.dim() > 1 and not name.endswith(("q.weight", "k.weight"))
    ]
