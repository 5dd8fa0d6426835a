"""The trainings of LLM09: networks that read digits, a training to resume, language models."""

from collections.abc import Callable
from functools import cache
from typing import Any

from labs.kit import Run, on_one_thread
from labs.llm02_deep_learning import accuracy, batches_of, digits
from labs.llm06_attention import KEYS, TARGETS, recall_batch
from labs.llm07_lora import trainable
from labs.shared import small_gpt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Digits.


@cache
def images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return LLM02's digits as images.

    Returns:
        (1437, 1, 8, 8) and their labels to train on, (360, 1, 8, 8) and their labels to test.
    """
    x, y, x_test, y_test = digits()
    return x.view(-1, 1, 8, 8), y, x_test.view(-1, 1, 8, 8), y_test


def shuffled(x: Tensor, seed: int) -> Tensor:
    """Return images (B, 1, 8, 8) with their pixels in another order, the same for all images."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
    return x.flatten(1)[:, order].view_as(x)


def mlp() -> nn.Module:
    """Return an MLP of about the CNN's size: 6,160 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 82), nn.ReLU(), nn.Linear(82, 10))


@on_one_thread
def fit(
    run: Run, model: Any, x: Tensor, y: Tensor, epochs: int, label: str, still: bool = False
) -> Any:
    """Train the parameters that require a gradient on images, by AdamW; the rate ends near 0.

    Args:
        run: the run.
        model: the network.
        x: images, (B, 1, 8, 8).
        y: their labels, (B,).
        epochs: how often each image is seen.
        label: the name of the training, for the progress bar.
        still: train in evaluation mode, so that no buffer moves and nothing is dropped.

    Returns:
        The model on the CPU, in float32 and in evaluation mode.
    """
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-2, fused=True)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    model.train(not still)
    steps = epochs * (len(x) // 64)
    for step, batch in enumerate(run.progress(batches_of(64, len(x), steps), label, steps)):
        batch = run.share(batch)
        loss = F.cross_entropy(model(x[batch].to(run.device)), y[batch].to(run.device))
        _step(run, model, optimizer, loss, 1e-2 * small_gpt.lr_at(step, steps, steps // 20))
    return run.accelerator.unwrap_model(model, keep_fp32_wrapper=False).cpu().eval()


def _step(run: Run, model: Any, optimizer: Any, loss: Tensor, rate: float) -> None:
    optimizer.param_groups[0]["lr"] = rate
    run.accelerator.backward(loss)
    run.accelerator.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


@cache
def reader(run: Run, kind: Any, seed: int, shuffle: bool) -> tuple[Any, float]:
    """Return a network trained to read digits, and its accuracy on the 360 test images."""
    torch.manual_seed(seed)
    x, y, x_test, y_test = images()
    if shuffle:
        x = shuffled(x, seed)
        x_test = shuffled(x_test, seed)
    label = f"{kind.__name__}{', shuffled' * shuffle}, seed {seed}"
    epochs = run.pick(tiny=12, small=40, full=120)
    model = fit(run, kind(), x, y, epochs, label)
    return model, accuracy(model, x_test, y_test)


# A training to resume.


class Training:
    """A training of 80 steps that can be saved in parts and resumed.

    It has a model with dropout, AdamW, a rate that falls to 0, and an order of batches.
    """

    def __init__(self, kind: Callable[..., Any], seed: int) -> None:
        torch.manual_seed(seed)
        self.model = kind(dropout=0.2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        falls = torch.optim.lr_scheduler.LambdaLR
        self.schedule = falls(self.optimizer, lambda step: 1 - step / 80)
        self.order = torch.Generator().manual_seed(seed)

    def step(self) -> float:
        """Train on the next batch of 32 images; return its loss."""
        x, y, *_ = images()
        batch = torch.randint(len(x), (32,), generator=self.order)
        loss = F.cross_entropy(self.model(x[batch]), y[batch])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Return the six parts of the state, by name."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            "random numbers": torch.get_rng_state(),
            "weights": dict(self.model.named_parameters()),
            "buffers": dict(self.model.named_buffers()),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load the parts in `state`; leave the others unchanged."""
        loaders = {
            "weights": self._load_tensors,
            "buffers": self._load_tensors,
            "optimizer": self.optimizer.load_state_dict,
            "schedule": self.schedule.load_state_dict,
            "order": self.order.set_state,
            "random numbers": torch.set_rng_state,
        }
        for part, load in loaders.items():
            if part in state:
                load(state[part])

    def _load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.model.load_state_dict(tensors, strict=False)


# Language models.


def loss_on(model: Any, task: str, tokens: Tensor) -> Tensor:
    """Return the mean loss in nats.

    Args:
        model: the language model.
        task: "recall", LLM06's task (nats per answer), or "text" (nats per character).
        tokens: (B, T).
    """
    if task == "recall":
        logits = model(tokens).logits[:, KEYS]
        answers = tokens[:, TARGETS]
    else:
        logits = model(tokens[:, :-1]).logits
        answers = tokens[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), answers.flatten())


@on_one_thread
def teach(run: Run, model: Any, task: str, label: str, seed: int) -> Any:
    """Train a language model on "recall" or "text".

    Returns:
        The model on the CPU, in float32 and in evaluation mode.
    """
    recalls = task == "recall"
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.98), fused=True)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    model.train()
    torch.manual_seed(seed)  # the same batches, whatever the model drew
    steps = run.pick(tiny=240 if recalls else 120, small=1500, full=6000)
    for step in run.progress(range(steps), label):
        tokens = recall_batch(32) if recalls else small_gpt.shakespeare().batch(16, 64, draws)
        loss = loss_on(model, task, run.share(tokens).to(run.device))
        _step(run, model, optimizer, loss, 5e-3 * small_gpt.lr_at(step, steps, steps // 20))
    return run.accelerator.unwrap_model(model, keep_fp32_wrapper=False).cpu().eval()


@torch.no_grad()
def recall(model: Any, tokens: Tensor) -> float:
    """Return the share of LLM06's pairs (B, T) for which the model predicts the right answer."""
    predicted = model(tokens).logits[:, KEYS].argmax(-1)
    return (predicted == tokens[:, TARGETS]).float().mean().item()


@torch.no_grad()
def greedy(model: Any, ids: Tensor, count: int) -> Tensor:
    """Append the likeliest token `count` times, (B, T) -> (B, T + count), without a cache."""
    for _ in range(count):
        ids = torch.cat((ids, model(ids).logits[:, -1:].argmax(-1)), 1)
    return ids
