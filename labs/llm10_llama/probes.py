"""What one computes to prove a language model right: counts, gradients, first losses."""

import math
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

from labs.kit import Run
from labs.llm10_llama.parts import Config, greedily, pad_left, random_tokens
from labs.llm10_llama.transformer_costs import counted_flops

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def predicted_parameters(c: Config) -> dict[str, int]:
    """Return the number of parameters of each part, computed from the shape."""
    ends = 1 if c.tied else 2
    return {
        "embedding": ends * c.vocabulary * c.d_model,
        "attention": c.layers * 2 * c.d_model * (c.heads + c.kv_heads) * c.head_dim,
        "feed-forward": c.layers * 3 * c.d_model * c.d_ff,
        "norms": (2 * c.layers + 1) * c.d_model,
    }


def gradients(model: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the loss on (B, T + 1) tokens, by the parameters' names."""
    output = model(tokens[:, :-1])
    logits = output if isinstance(output, Tensor) else output.logits
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, [*named.values()]), strict=True))


def slopes_between(model: Any, tokens: Tensor) -> Tensor:
    """Return how far each place's logits depend on each token's vector, (T, T), in the first text.

    It is the largest |gradient| of the sum of the squared logits.
    """
    vectors: list[Tensor] = []
    hook = model.embed_tokens.register_forward_hook(lambda _m, _i, out: vectors.append(out))
    logits = model(tokens)
    hook.remove()
    sums = [place.square().sum() for place in logits[0]]
    grads = [torch.autograd.grad(one, vectors[0], retain_graph=True)[0][0] for one in sums]
    return torch.stack(grads).abs().amax(-1)


def predicted_first_loss(v: int, d: int, std: float) -> float:
    """Return the first loss by the formula, ln V + d σ²/2, in nats."""
    return math.log(v) + d * std**2 / 2


def judge_first_losses(run: Run, name: str, losses: Sequence[float], stds: Sequence[float]) -> None:
    """Compare first losses at V = 257 and d = 96 with the formula.

    Args:
        run: the run.
        name: "tied" or "untied"; a tied model's loss may be larger by 0.01.
        losses: the losses, each of 8,192 targets.
        stds: the standard deviations of the weights.
    """
    off = []
    for loss, std in zip(losses, stds, strict=True):
        bound = 4 * std * math.sqrt(96 / 8192) + (0.01 if name == "tied" else 0)
        off.append(abs(loss - predicted_first_loss(257, 96, std)) / bound)
    because = "four standard errors, σ√(d/8192) as if the logits were independent; tied + 0.01"
    what = f"{name}: |loss − formula| ÷ its tolerance"
    run.check(what, off, at_most=1, because=because, decides=True)


def with_torchs_defaults(model: Any) -> Any:
    """Initialise a model's matrices as PyTorch does; return the model."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    model.embed_tokens.reset_parameters()  # the last one: tied, it is the output's matrix, too
    return model


@torch.no_grad()
def first_loss(make: Callable[[Config], Any], config: Config) -> float:
    """Return the mean loss of eight untrained models on random tokens."""
    losses = []
    for _ in range(8):
        tokens = random_tokens(config, 16, config.context + 1)
        logits = make(config)(tokens[:, :-1])
        losses.append(F.cross_entropy(logits.mT, tokens[:, 1:]).item())
    return mean(losses)


def compare_padding(run: Run, model: Any, tokens: Tensor) -> None:
    """Check that padding on the left changes nothing behind the mask, for tokens (B, T)."""
    padded, padding = pad_left([tokens[0], tokens[0, :6]])
    alone = model(tokens[:1, :6])[0]
    seen = model(padded, padding=padding)[1, -6:] - alone
    run.agree("padded on the left − alone", seen, 1e-4, "angles in float32", decides=True)
    off = (model(padded)[1, -6:] - alone).abs().max()
    run.check("padded without the mask", off, at_least=0.01, because="padding is seen then")


@torch.no_grad()
def generate_slowly(model: Any, ids: Tensor, new: int) -> Tensor:
    """Return the same greedy tokens without a cache: each step reads the entire text again."""
    start = ids.shape[1]
    for _ in range(new):
        ids = torch.cat((ids, greedily(model(ids, last=True))), 1)
    return ids[:, start:]


def flops_saved(model: Any, generate: Callable[..., Tensor], ids: Tensor, new: int) -> float:
    """Return the FLOPs of writing `new` tokens without a cache ÷ those with one.

    On a CPU, PyTorch's counter leaves fused attention out (LLM10+, section 8).
    """
    _, with_cache = counted_flops(lambda: generate(model, ids, new))
    _, without = counted_flops(lambda: generate_slowly(model, ids, new))
    return without / with_cache


def greedy_text(theirs: Any, ids: Tensor, new: int) -> Tensor:
    """Return `new` greedy tokens by `generate` of transformers, (B, new); no token ends a text."""
    theirs.generation_config.eos_token_id = None
    options = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": new}
    text = theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return text[:, ids.shape[1] :]


@torch.no_grad()
def nats_one_by_one(model: Any, ids: Any, length: int, rows: int = 4096) -> float:
    """Return the loss on windows of a text that is read one token at a time, through a cache."""
    device = next(model.parameters()).device
    count = min(rows, (len(ids) - 1) // length)
    tokens = torch.from_numpy(ids[: count * length + 1].astype("int64")).to(device)
    inputs = tokens[:-1].view(count, length)
    targets = tokens[1:].view(count, length)
    cache = model.cache(count, length)
    total = 0.0
    for t in range(length):
        logits = model(inputs[:, t : t + 1], cache)[:, 0].float()  # (B, V)
        total += F.cross_entropy(logits, targets[:, t]).item()
    return total / length


def compare_gradients(run: Run, model: Any, convolved: Any, tokens: Tensor) -> None:
    """Check that a model with convolutions for its products has the same gradients."""
    found = [
        torch.autograd.grad(each(tokens).square().mean(), list(each.parameters()))
        for each in (model, convolved)
    ]
    pairs = zip(*found, strict=True)
    off = max(float((x - y).abs().max() / x.abs().max()) for x, y in pairs)
    because = "the same sums in another order; 688 times the rounding of one addition is generous"
    name = "largest difference of two gradients ÷ the largest gradient"
    run.check(name, off, at_most=688 * 2**-24, because=because, decides=True)
