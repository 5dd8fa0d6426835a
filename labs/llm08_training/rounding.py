"""What float16 and bf16 round away: entries of a gradient, and small updates of weights."""

import copy
from typing import Any

from labs.kit import Run, assets
from labs.llm08_training.lesson import BETAS, AdamW, collate, label_count, label_sum
from labs.llm08_training.training import Row
from labs.llm08_training.word_tasks import PAD

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

Lost = tuple[float, float]  # the shares of entries and of mass


def gradient_of_logits(run: Run) -> Tensor:
    """Return the gradient of a text's summed loss by a real model's logits, without entries of 0.

    Its entries are positive for wrong tokens, and negative for the labels.
    """
    name = assets.pretrained(run.options.model, run.online)
    ids = AutoTokenizer.from_pretrained(name)(assets.parallel()["English"], return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)(**ids).logits[0]
    logits.requires_grad_()  # (T, V)
    F.cross_entropy(logits[:-1], ids.input_ids[0, 1:], reduction="sum").backward()
    return logits.grad[logits.grad != 0].double()


def sum_in_float16(entries: Tensor) -> float:
    """Return the sum of entries after rounding to float16, relative to the sum before."""
    return (entries.half().double().sum() / entries.sum()).item()


def show_losses(run: Run, batches: list[int], plain: list[Lost], scaled: list[Lost]) -> None:
    """Show which shares of entries and of mass float16 loses, by the labels of the batch."""
    columns = ["labels", "entries lost", "mass lost", "entries lost at 2¹⁶", "mass lost at 2¹⁶"]
    shares = [[f"{share:.2%}" for share in (*a, *b)] for a, b in zip(plain, scaled, strict=True)]
    rows = [[f"{n:,}", *cells] for n, cells in zip(batches, shares, strict=True)]
    run.table("Logits' gradients in float16, without those that are 0 in fp32", columns, rows)


def train_slowly(model: Any, rows: list[Row], steps: int) -> tuple[float, float]:
    """Train at 1e-5; return the share of weights that never moved, and how far the loss fell."""
    before = copy.deepcopy(model)
    optimizer = AdamW(model.parameters(), 1e-5, BETAS, weight_decay=0)
    batch = collate(rows, PAD)
    for _ in range(steps):
        (label_sum(model, batch) / label_count(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    pairs = zip(before.parameters(), model.parameters(), strict=True)
    still = torch.cat([(a == b).flatten() for a, b in pairs]).float().mean().item()
    with torch.no_grad():  # logits of bf16 would round a small gain away
        gain = label_sum(before.float(), batch) - label_sum(copy.deepcopy(model).float(), batch)
    return still, gain.item() / label_count(batch)
