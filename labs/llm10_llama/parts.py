"""Parts of LLM10's model that earlier labs teach: its shape, norm, gate, rotations, attention."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from labs.llm01_inference import sample as draw
from labs.llm01_inference import top_p
from labs.llm05a_normalization import RMSNorm, SwiGLU
from labs.llm06_attention import causal_mask

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TABLES = 16  # of rotations that are cached


class Norm(RMSNorm):
    """LLM05a's RMSNorm by the library's function; its statistics are in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Norm each token, (..., d) -> (..., d)."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Gated(SwiGLU):
    """LLM05a's SwiGLU, with the library's silu, which is one kernel instead of two."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token by itself, (..., d) -> (..., d)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@dataclass(frozen=True)
class Config:
    """The shape of a Llama.

    Attributes:
        vocabulary: V, the number of tokens.
        d_model: d, the width of a token's vector.
        layers: L.
        heads: H, query heads.
        kv_heads: H_kv, key-value heads.
        d_ff: the width inside the feed-forward part.
        context: tokens that it is trained to look back on.
        theta: the base of the rotations; None for no positions.
        eps: ε of the norms.
        tied: whether the output matrix is the embedding.
        std: σ, the standard deviation of every matrix at the beginning.
        norm: makes a norm from a width and ε.
        ffn: makes a feed-forward part from d and its inner width.

    Raises:
        ValueError: if heads don't divide the width, or the query heads.
    """

    vocabulary: int
    d_model: int = 96
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    d_ff: int = 256
    context: int = 64
    theta: float | None = 10_000.0
    eps: float = 1e-5
    tied: bool = True
    std: float = 0.05
    norm: Callable[[int, float], nn.Module] = Norm
    ffn: Callable[[int, int], nn.Module] = Gated

    def __post_init__(self) -> None:
        """Refuse heads that don't fit."""
        if self.d_model % self.heads:
            raise ValueError(f"{self.heads} heads don't divide a width of {self.d_model}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.kv_heads} key-value heads don't divide {self.heads} heads")
        if self.theta is not None and self.head_dim % 2:
            raise ValueError(f"heads of width {self.head_dim} have no pairs to turn")

    @property
    def head_dim(self) -> int:
        """The width of a head, D = d/H."""
        return self.d_model // self.heads


@lru_cache(TABLES)
@torch.inference_mode(False)  # else training couldn't use a table that generation has made
def rotations(length: int, head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Return (length, 1, D/2), complex: at position t pair i is turned by t · theta^(−2i/D)."""
    t = torch.arange(length, dtype=torch.float64)
    twice_i = torch.arange(0, head_dim, 2)
    angle = t[:, None] * theta ** (-twice_i / head_dim)  # (length, D/2)
    return torch.polar(torch.ones_like(angle), angle)[:, None].to(device, torch.complex64)


def rotations_from(config: Config, start: int, length: int, device: torch.device) -> Tensor | None:
    """Return the rotations of positions from `start` on, (length, 1, D/2); None without positions.

    The table's length is a multiple of the context, so that few different tables are made.
    """
    if config.theta is None:
        return None
    contexts = -(-(start + length) // config.context)  # rounded up
    table = rotations(contexts * config.context, config.head_dim, config.theta, device)
    return table[start : start + length]


def mix(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return attention; by default it is causal, and the queries are the last positions.

    (B, H, Tq, D), (B, H_kv, Tk, D) twice -> (B, H, Tq, D); a mask is (B, 1, Tq, Tk), True where a
    query may look.
    """
    tq = q.shape[-2]
    tk = k.shape[-2]
    causal = mask is None and 1 < tq == tk
    if mask is None and 1 < tq < tk:  # is_causal would align the triangle at the top left
        mask = causal_mask(tq, tk, q.device)
    options = {"is_causal": causal, "enable_gqa": q.shape[1] != k.shape[1]}
    if not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(q, k, v, mask, **options)
    # float32 here: on a CPU the kernel's bfloat16 backward takes about five times as long
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, **options)


def padded_mask(padding: Tensor, tq: int, tk: int) -> Tensor:
    """Return the causal mask of texts that are padded on the left, (B, 1, Tq, Tk).

    `padding` is (B,), the number of padding tokens before each text. A padding token sees itself,
    so that no query is left without a key.
    """
    keys = torch.arange(tk, device=padding.device)
    real = keys >= padding[:, None]  # (B, Tk)
    causal = causal_mask(tq, tk, padding.device)  # (Tq, Tk)
    queries = torch.arange(tk - tq, tk, device=padding.device)
    itself = keys == queries[:, None]  # (Tq, Tk)
    return ((causal & real[:, None]) | itself)[:, None]


def pad_left(prompts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return prompts of unlike lengths as one batch, (B, T), and the padding of each, (B,)."""
    longest = max(len(prompt) for prompt in prompts)
    rows = [F.pad(prompt, (longest - len(prompt), 0)) for prompt in prompts]
    return torch.stack(rows), torch.tensor([longest - len(prompt) for prompt in prompts])


def parameters(model: nn.Module) -> int:
    """Return the number of parameters; a shared matrix counts once."""
    return sum(p.numel() for p in model.parameters())


def random_tokens(config: Config, batch: int, length: int) -> Tensor:
    """Return random tokens, (B, T)."""
    return torch.randint(config.vocabulary, (batch, length))


def choose(logits: Tensor, temperature: float = 1.0, p: float = 1.0) -> Tensor:
    """Draw a token from the top p at this temperature, (..., V) -> (...); at 0 the likeliest."""
    if temperature == 0:
        return logits.argmax(-1)
    return draw(top_p(logits / temperature, p))[..., 0]


greedily = partial(choose, temperature=0)
