# %% [markdown]
# # LLM92 · Attention for the grader's tests
# Functions and a class that call each other, each with a check.
#
# **You will be able to** grade a sheet.

# %% Imports
import math

from labs.kit import Lab

import torch
from torch import Tensor, nn

lab = Lab("LLM92")
LENGTHS = torch.tensor([50, 0, 7])


# %% Scaled dot-product attention
@lab.exercise(
    level=1,
    hints=(
        "The mask acts on the scores.",
        "Which lowest number leaves a softmax defined?",
        "Fill with it, and set masked weights to 0 at the end.",
    ),
)
def masked_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax of (..., Tq, Tk) where the boolean mask is True, 0 elsewhere."""
    if mask is None:
        return scores.softmax(-1)
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """(..., Tq, D), (..., Tk, D), (..., Tk, Dv) -> (..., Tq, Dv)."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (..., Tq, Tk)
    return masked_softmax(scores, mask) @ v


# %% Masks
@lab.exercise(
    level=1,
    hints=(
        "A key is real if its index is less than the length.",
        "Two axes of size 1 are missing.",
        "Index with [:, None, None, :], then expand to tq.",
    ),
)
def cross_attention_mask(source_lengths: Tensor, tq: int, tk: int) -> Tensor:
    """(B,) lengths of right-padded sources -> (B, 1, Tq, Tk)."""
    mask = torch.arange(tk) < source_lengths[:, None]  # (B, Tk)
    return mask[:, None, None, :].expand(-1, 1, tq, -1)  # (B, 1, Tq, Tk)


# %% Heads
@lab.exercise(
    level=2,
    hints=(
        "How many query heads are there for each key-value head?",
        "With 6 on 2, query heads 0, 1 and 2 use key-value head 0.",
        "repeat_interleave repeats each head in place.",
    ),
)
def grouped_query_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, Hq, Tq, D), (B, Hkv, Tk, D) twice -> (B, Hq, Tq, D)."""
    group = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(group, dim=1)  # (B, Hq, Tk, D)
    v = v.repeat_interleave(group, dim=1)
    return attention(q, k, v, mask)


class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, heads):
        super().__init__()
        self.head_dim = d_model // heads
        self.q = nn.Linear(d_model, d_model)
        self.k = nn.Linear(d_model, d_model)
        self.v = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)

    @lab.exercise(
        level=2,
        hints=(
            "Split the last axis into (heads, head_dim).",
            "Which two axes change places?",
            "On the way back: transpose(1, 2), flatten(2), self.out.",
        ),
    )
    def forward(self, x, mask=None, context=None):
        """(B, Tq, d) -> (B, Tq, d); keys and values come from `context` or from x."""
        context = x if context is None else context
        projected = self.q(x), self.k(context), self.v(context)  # (B, T, H·D) each
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for y in projected)
        mixed = grouped_query_attention(q, k, v, mask)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, H, Tq, D) -> (B, Tq, d)


# %% A sliding window
@lab.exercise(
    level=2,
    hints=(
        "At which position is the first query?",
        "What does a negative distance mean?",
        "A window of w has the distances 0 to w − 1.",
    ),
)
def sliding_window_mask(tq: int, tk: int, window: int) -> Tensor:
    """(Tq, Tk), True for a query's own key and the `window` − 1 before it."""
    distance = torch.arange(tk - tq, tk)[:, None] - torch.arange(tk)  # (Tq, Tk)
    return (distance >= 0) & (distance < window)


# %% Tiles
@lab.exercise(
    level=3,
    hints=(
        "The maximum, the sum and the mixed values survive from tile to tile.",
        "When the maximum grows, rescale the other two.",
        "Multiply both by exp(old − new); divide once, at the end.",
    ),
)
def tiled_attention(q: Tensor, k: Tensor, v: Tensor, block: int = 32) -> Tensor:
    """Attention without a mask that never has more than (..., Tq, block) scores."""
    top = q.new_full((*q.shape[:-1], 1), -math.inf)
    total = 0.0
    mixed = 0.0
    for keys, values in zip(k.split(block, -2), v.split(block, -2), strict=True):
        scores = q @ keys.mT / math.sqrt(q.shape[-1])  # (..., Tq, block)
        new_top = torch.maximum(top, scores.amax(-1, keepdim=True))  # (..., Tq, 1)
        shrink = (top - new_top).exp()
        weights = (scores - new_top).exp()
        total = total * shrink + weights.sum(-1, keepdim=True)  # (..., Tq, 1)
        mixed = mixed * shrink + weights @ values  # (..., Tq, Dv)
        top = new_top
    return mixed / total


# %% [markdown]
# ## What surprised
# Nothing.

# %%
if __name__ == "__main__":
    lab.main()
