"""The text of a run, the loss of a model on it, and the n-gram baselines."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from labs.kit import Run
from labs.llm10_llama.corpus import Text, open_text, witten_bell

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

RUNGS = ("unigram", "bigram", "trigram", "4-gram", "5-gram")
TINYSHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"  # SHA-256
NANOGPT = 1.88  # nats, its README's loss on that text for a CPU, estimated on 20 batches
AT_ONCE = 2**13  # tokens
LEVEL = 0.02  # nats; 64 Ki tokens whose losses differ by 1.5 nats have a standard error of 0.006


@cache
def corpus(run: Run) -> Text:
    """Return the text of --corpus, or Shakespeare's plays."""
    return open_text(run.options.corpus, run.options.merges, run.settings.outputs)


@cache
def rungs(run: Run) -> dict[str, float]:
    """Return the loss of each n-gram model; a large vocabulary leaves no room for long ones."""
    text = corpus(run)
    losses = witten_bell(text.train, judged_on(run), text.vocabulary)
    return dict(zip(RUNGS, losses, strict=False))


def beside(losses: Mapping[str, float], loss: float) -> str:
    """Return which of the n-grams are level with a loss, and which are ahead of it."""
    level = [name for name, rung in losses.items() if abs(rung - loss) < LEVEL]
    ahead = [name for name, rung in losses.items() if rung <= loss - LEVEL]
    groups = {"level with it": level, "ahead of it": ahead}
    found = [
        f"{what}: {', '.join(f'{name}s ({losses[name]:.3f})' for name in names)}"
        for what, names in groups.items()
        if names
    ]
    return "; ".join(found) or "better than all that we counted"


def beside_nanogpt(run: Run, loss: float) -> dict[str, float]:
    """Compare a loss with nanoGPT's if the text is its tinyshakespeare; then it is a claim, too.

    Args:
        run: the run.
        loss: the model's, in nats per token of the complete validation text.

    Returns:
        nanoGPT's loss by its name, in nats per token; nothing for another text.
    """
    text = corpus(run)
    if text.sha256 != TINYSHAKESPEARE:
        return {}
    run.current.claim += f" It beats nanoGPT's published {NANOGPT} for a CPU."
    gap = NANOGPT - loss / text.bytes_per_token  # it has a token for each letter
    because = "its README's loss, estimated on 20 batches; ours is that of the complete validation"
    name = f"nats per letter below nanoGPT's {NANOGPT}"
    run.measure(name, gap, expect_at_least=0, because=because, decides=True)
    return {"nanoGPT, published": NANOGPT * text.bytes_per_token}


def judged_on(run: Run) -> Any:
    """Return the validation text: its first 64 Ki tokens at `tiny`, else its first mebi.

    Of nanoGPT's tinyshakespeare it is all of it.
    """
    text = corpus(run)
    tiny = 2**20 if text.sha256 == TINYSHAKESPEARE else 2**16
    return text.validation[: run.pick(tiny=tiny, small=2**20, full=2**20)]


def excerpts(ids: Any, count: int, length: int = 2**10) -> Any:
    """Return pieces of a text at even distances, from its first token to its last, joined."""
    starts = np.linspace(0, max(len(ids) - length, 0), count).astype(int)
    return np.concatenate([ids[at : at + length] for at in starts])


def looked_at(run: Run) -> Any:
    """Return the part of the validation text on which the loss is computed during training."""
    ids = judged_on(run)
    pieces = run.pick(tiny=8, small=16, full=64)
    return ids if len(ids) <= 4 * pieces * 2**10 else excerpts(ids, pieces)


@torch.no_grad()
def nats(model: nn.Module, ids: Any, length: int) -> float:
    """Return the loss on all of `ids` but the first, in windows of `length`: nats per token."""
    device = next(model.parameters()).device
    tokens = torch.from_numpy(ids.astype(np.int64))
    end = (len(tokens) - 1) // length * length
    parts = [(tokens[:end].view(-1, length), tokens[1 : end + 1].view(-1, length))]
    if end < len(tokens) - 1:  # the rest, as a shorter window
        parts.append((tokens[None, end:-1], tokens[None, end + 1 :]))
    total = 0.0
    for inputs, targets in parts:
        rows = max(1, AT_ONCE // length)
        for x, y in zip(inputs.split(rows), targets.split(rows), strict=True):
            logits = model(x.to(device)).float()
            total += F.cross_entropy(logits.mT, y.to(device), reduction="sum").item()
    return total / (len(tokens) - 1)
