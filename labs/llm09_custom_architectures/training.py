"""The trainings of LLM09: networks that read digits, and small language models."""

from collections.abc import Callable
from functools import cache
from statistics import mean
from typing import Any, NamedTuple

from labs.kit import Run, on_one_thread
from labs.llm02_deep_learning import accuracy, batches_of, digits
from labs.llm06_attention import KEYS, TARGETS, recall_batch
from labs.llm07_lora import trainable
from labs.shared import small_gpt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MARGIN = 2  # pixels around a digit
LR = 1e-2  # of the digit readers
# The width of the MLP's matrices, by which `auto` chooses a precision. In bf16, an MLP's step took
# 1.9 times as long on a Xeon, a CNN's 1.3 times, and a hybrid's as long as in fp32: casts cost what
# the products save.
WIDTH = 28

# Digits.


@cache
def images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return LLM02's digits as images.

    Returns:
        (1437, 1, 8, 8) and their labels to train on, (360, 1, 8, 8) and their labels to test.
    """
    x, y, x_test, y_test = digits()
    return x.view(-1, 1, 8, 8), y, x_test.view(-1, 1, 8, 8), y_test


def framed(x: Tensor, down: int = 0, right: int = 0) -> Tensor:
    """Put digits into the middle of a larger black image, or off the middle by up to MARGIN.

    (B, 1, 8, 8) -> (B, 1, 12, 12).
    """
    return F.pad(x, (MARGIN + right, MARGIN - right, MARGIN + down, MARGIN - down))


def shuffled(x: Tensor, seed: int) -> Tensor:
    """Return images (B, 1, H, W) with their pixels in another order, the same for all images."""
    pixels = x.flatten(1)
    order = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(seed))
    return pixels[:, order].view_as(x)


def versions(seed: int) -> dict[str, Tensor]:
    """Return a test digit, (12, 12), as the sections show it: moved, shuffled, as a negative."""
    x = images()[2][:1]
    shown = {
        "centred": framed(x),
        "moved by two": framed(x, 0, MARGIN),
        "shuffled": shuffled(framed(x), seed),
        "negative": 1 - framed(x),
    }
    return {name: image[0, 0] for name, image in shown.items()}


def mlp() -> nn.Module:
    """Return an MLP with as many layers as the CNN and about as many parameters, 5,162."""
    hidden = 28
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(144, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


@on_one_thread
def fit(
    run: Run, model: Any, x: Tensor, y: Tensor, epochs: int, label: str, still: bool = False
) -> Any:
    """Train the parameters that require a gradient on images, by AdamW; the rate ends near 0.

    Args:
        run: the run.
        model: the network.
        x: images, (B, 1, H, W).
        y: their labels, (B,).
        epochs: how often each image is seen.
        label: the name of the training, for the progress bar.
        still: train in evaluation mode, so that no buffer moves and nothing is dropped.

    Returns:
        The model on the CPU, in float32 and in evaluation mode.
    """
    optimizer = torch.optim.AdamW(trainable(model), lr=LR, fused=True)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    model.train(not still)
    steps = epochs * (len(x) // 64)
    for step, batch in enumerate(run.progress(batches_of(64, len(x), steps), label, steps)):
        batch = run.share(batch)
        loss = F.cross_entropy(model(x[batch].to(run.device)), y[batch].to(run.device))
        _step(run, model, optimizer, loss, LR * small_gpt.lr_at(step, steps, steps // 20))
    return run.accelerator.unwrap_model(model, keep_fp32_wrapper=False).cpu().eval()


def _step(run: Run, model: Any, optimizer: Any, loss: Tensor, rate: float) -> None:
    optimizer.param_groups[0]["lr"] = rate
    run.accelerator.backward(loss)
    run.accelerator.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def reader(run: Run, kind: Callable[[], Any], seed: int, shuffle: bool = False) -> Any:
    """Return a network that was trained on digits in the middle of their images.

    The seed determines the first weights, the batches and the order of shuffled pixels.
    """
    return _reader(run, kind, seed, shuffle)


@cache
@torch.enable_grad()
def _reader(run: Run, kind: Callable[[], Any], seed: int, shuffle: bool) -> Any:
    torch.manual_seed(seed)
    x, y, *_ = images()
    x = framed(x)
    if shuffle:
        x = shuffled(x, seed)
    name = getattr(kind, "__name__", "CNN by place")  # a partial has no name
    label = f"{name}{', shuffled' * shuffle}, seed {seed}"
    return fit(run, kind(), x, y, run.pick(tiny=6, small=40, full=120), label)


@torch.no_grad()
def read(model: Any, down: int, right: int, seed: int | None = None) -> float:
    """Return the accuracy on the 360 test images, off the middle by some pixels.

    With a seed, their pixels are shuffled as in that training.
    """
    *_, x_test, y_test = images()
    x = framed(x_test, down, right)
    return accuracy(model, x if seed is None else shuffled(x, seed), y_test)


ACROSS = [(0, x) for x in range(-MARGIN, MARGIN + 1)]  # down and right


def directions(by: int) -> list[tuple[int, int]]:
    """Return the shifts by some pixels up, down, left and right."""
    return [(-by, 0), (by, 0), (0, -by), (0, by)]


class Reading(NamedTuple):
    """How well an arm reads: accuracies, one for each seed.

    Attributes:
        centred: of digits in the middle.
        by_one: of digits moved by one pixel, the mean of four directions.
        by_two: of digits moved by two pixels, the mean of four directions.
        across: the mean over the seeds, for each horizontal shift from −MARGIN to MARGIN.
    """

    centred: list[float]
    by_one: list[float]
    by_two: list[float]
    across: list[float]


def compare_readers(
    run: Run, arms: dict[str, tuple[Callable[[], Any], bool]]
) -> tuple[dict[str, Reading], str]:
    """Train each arm with three seeds; measure how it reads centred and moved digits.

    Args:
        run: the run.
        arms: a network and whether its pixels are shuffled, by name.

    Returns:
        How well each arm reads; and a text with the shares of digits moved by two pixels.
    """
    readings = {name: _reading(run, kind, shuffle) for name, (kind, shuffle) in arms.items()}
    rows = [
        [name, *map(mean, reading[:3]), mean((reading.across[0], reading.across[-1]))]
        for name, reading in readings.items()
    ]
    columns = ["", "centred", "moved by one", "moved by two", "left or right by two"]
    run.table("Accuracy, mean of three seeds; moves are in four directions", columns, rows)
    because = "eight times a guess: it has learned the digits"
    for name, reading in readings.items():
        run.measure(f"centred: {name}", reading.centred, expect_at_least=0.8, because=because)
    return readings, _check_shifts(run, readings)


def _reading(run: Run, kind: Callable[[], Any], shuffle: bool) -> Reading:
    right: list[dict[tuple[int, int], float]] = []  # of each seed, by shift
    for seed in run.seeds(3):
        model = reader(run, kind, seed, shuffle)
        shifts = {*directions(1), *directions(MARGIN), *ACROSS}
        right.append({at: read(model, *at, seed if shuffle else None) for at in shifts})
    return Reading(
        centred=[accuracy_at[0, 0] for accuracy_at in right],
        by_one=[mean(accuracy_at[at] for at in directions(1)) for accuracy_at in right],
        by_two=[mean(accuracy_at[at] for at in directions(MARGIN)) for accuracy_at in right],
        across=[mean(accuracy_at[at] for accuracy_at in right) for at in ACROSS],
    )


def _check_shifts(run: Run, readings: dict[str, Reading]) -> str:
    """Check what each arm reads of moved digits; return the shares of the three not shuffled."""
    moved = {name: reading.by_two for name, reading in readings.items()}
    because = "four digits in ten, four times a guess"
    for name in ("MLP", "CNN by place"):
        gaps = [a - b for a, b in zip(moved["CNN"], moved[name], strict=True)]
        run.check(f"moved: CNN − {name}", gaps, at_least=0.4, because=because, decides=True)
    gaps = [a - b for a, b in zip(moved["CNN by place"], moved["MLP"], strict=True)]
    run.measure("moved: CNN by place − MLP", gaps)
    gap = mean(moved["CNN, shuffled"]) - mean(moved["MLP, shuffled"])
    because = "a quarter of that: in shuffled images a shift moves no pattern"
    run.check("moved, shuffled: CNN − MLP", gap, at_most=0.1, because=because, decides=True)
    because = "0: no difference"
    for name in ("CNN", "CNN by place"):
        pairs = zip(readings[name].by_one, readings["MLP"].by_one, strict=True)
        what = f"moved by one pixel: {name} − MLP"
        run.measure(what, [a - b for a, b in pairs], expect_at_least=0, because=because)
    shown = [name for name in moved if "shuffled" not in name]
    return ", ".join(f"{name} {mean(moved[name]):.0%}" for name in shown)


# Language models.


def loss_on(model: Any, task: str, tokens: Tensor) -> Tensor:
    """Return the mean loss in nats.

    Args:
        model: the language model.
        task: "recall", LLM06's task (nats per recalled token), or "text" (nats per character).
        tokens: (B, T).
    """
    if task == "recall":
        logits = model(tokens)[:, KEYS]
        targets = tokens[:, TARGETS]
    else:
        logits = model(tokens[:, :-1])
        targets = tokens[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@on_one_thread
def teach(run: Run, model: Any, task: str, label: str, seed: int) -> Any:
    """Train a language model on "recall" or "text".

    Returns:
        The model on the CPU, in float32 and in evaluation mode.
    """
    recalls = task == "recall"
    draws = torch.Generator().manual_seed(seed)
    rate = run.pick(tiny=1e-2, small=7e-3, full=7e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), fused=True)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    model.train()
    torch.manual_seed(seed)  # the same batches, whatever the model drew
    steps = run.pick(tiny=150 if recalls else 70, small=1500, full=6000)
    for step in run.progress(range(steps), label):
        tokens = recall_batch(32) if recalls else small_gpt.shakespeare().batch(8, 64, draws)
        loss = loss_on(model, task, run.share(tokens).to(run.device))
        _step(run, model, optimizer, loss, rate * small_gpt.lr_at(step, steps, steps // 20))
    return run.accelerator.unwrap_model(model, keep_fp32_wrapper=False).cpu().eval()


@torch.no_grad()
def recall(model: Any, tokens: Tensor) -> float:
    """Return the share of LLM06's pairs (B, T) for which the model predicts the right token."""
    return right_at(model, tokens).float().mean().item()


@torch.no_grad()
def right_at(model: Any, tokens: Tensor) -> Tensor:
    """Return which tokens to recall the model predicts, (B, T) -> (B, PAIRS), boolean."""
    return model(tokens)[:, KEYS].argmax(-1) == tokens[:, TARGETS]
