"""The eight loops of LLM08+: the right one, and seven with a mistake."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from labs.llm08_training.lesson import (
    IGNORED,
    collate,
    label_count,
    label_sum,
    lr_at,
    training_step,
)
from labs.llm08_training.training import Batch, Row
from labs.llm08_training.word_tasks import END, PAD

import torch
from torch import Tensor

MICRO_BATCHES = 2


def mean_of_means(
    model: Any,
    optimizer: Any,
    window: Iterator[Batch],
    labels: float,
    lr: float,
    clip: float,
    accelerator: Any,
) -> Tensor:
    """Take a step with a mistake: micro-batches count equally, whatever their number of labels."""
    del labels
    for group in optimizer.param_groups:
        group["lr"] = lr
    micro = list(window)
    losses = []
    for batch in micro:
        # the mistake: training_step divides by the labels of the entire window
        losses.append(label_sum(model, batch) / max(1, label_count(batch)) / len(micro))
        accelerator.backward(losses[-1])
    accelerator.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    return torch.stack(losses).detach().sum()


def lr_by_batch(step: int, steps: int, warmup: int) -> float:
    """Return the rate with a mistake: each micro-batch moves it."""
    return lr_at(MICRO_BATCHES * step, steps, warmup)


@dataclass(frozen=True)
class Variant:
    """A loop: what it does to rows and batches, its step, its rate and its precision."""

    change_row: Callable[[Row], Row] = lambda row: row
    make_batch: Callable[[list[Row], int], Batch] = collate
    pad: int = PAD
    step: Callable[..., Tensor] = training_step
    rate: Callable[[int, int, int], float] = lr_at
    dtype: torch.dtype = torch.float32
    accumulate: int = 1


def all_labels(row: Row) -> Row:
    """Return a row whose tokens all have labels."""
    return {**row, "labels": row["input_ids"]}


def shifted(row: Row) -> Row:
    """Return a row whose labels have moved one place to the left."""
    return {**row, "labels": [*row["labels"][1:], IGNORED]}


def collate_all(rows: list[Row], pad: int) -> Batch:
    """Make a batch in which padding has labels."""
    batch = collate(rows, pad)
    batch["labels"][batch["attention_mask"] == 0] = pad
    return batch


def collate_by_value(rows: list[Row], pad: int) -> Batch:
    """Make a batch in which no token with the value of padding has a label."""
    batch = collate(rows, pad)
    batch["labels"][batch["input_ids"] == pad] = IGNORED
    return batch


LOOPS = {
    "right": Variant(),
    "the prompt too": Variant(change_row=all_labels),
    "padding too": Variant(make_batch=collate_all),
    "end = pad": Variant(make_batch=collate_by_value, pad=END),
    "shifted twice": Variant(change_row=shifted),
    "mean of means": Variant(step=mean_of_means, accumulate=MICRO_BATCHES),
    "rate by batch": Variant(rate=lr_by_batch, accumulate=MICRO_BATCHES),
    "bf16 weights": Variant(dtype=torch.bfloat16),
}
MISTAKES = list(LOOPS)[1:]
IN_LABELS = MISTAKES[:4]


def batch_of(variant: Variant, rows: list[Row]) -> Batch:
    """Return the batch that a loop makes of encoded rows."""
    return variant.make_batch([variant.change_row(row) for row in rows], variant.pad)
