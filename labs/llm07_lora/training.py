"""Train the adapters of LLM07, under Accelerate or in plain PyTorch, and measure losses."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from labs.kit import Run, on_one_thread
from labs.llm07_lora import plays

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def count(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(weight.numel() for weight in trainable(model))


def frozen(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that aren't trained."""
    return [weight for weight in model.parameters() if not weight.requires_grad]


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of the bytes of all weights that don't belong to an adapter."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if not name.endswith((".A", ".B")):
            digest.update(weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def fit_product(target: Tensor, rank: int, steps: int = 600) -> Tensor:
    """Train A and B by Adam until B @ A is close to the target; A starts random, B at 0."""
    a = torch.randn(rank, target.shape[1], dtype=target.dtype, requires_grad=True)
    b = torch.zeros(target.shape[0], rank, dtype=target.dtype, requires_grad=True)
    optimizer = torch.optim.Adam((a, b), lr=0.05)
    for _ in range(steps):
        (b @ a - target).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return (b @ a).detach()


def adamw(model: nn.Module, rate: float) -> torch.optim.AdamW:
    """Return AdamW for the trainable parameters, without decay: it would pull A and B to 0.

    Fused, a step of glass's adapters takes a tenth less time.
    """
    return torch.optim.AdamW(trainable(model), lr=rate, weight_decay=0, fused=True)


def row_losses(model: Any, tokens: Tensor) -> Tensor:
    """Return the nats per token that follows another, for each row; (B, T) -> (B,)."""
    logits = model(tokens).logits[:, :-1]
    nats = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return nats.view(len(tokens), -1).mean(1)


def loss_on(model: Any, tokens: Tensor) -> Tensor:
    """Return the nats per token that follows another, over all rows."""
    return row_losses(model, tokens).mean()


@on_one_thread
@torch.no_grad()
def test_loss(run: Run, model: Any, rows: Tensor) -> float:
    """Return the loss in float32, whatever the precision of training."""
    return loss_on(model.to(run.device), rows.to(run.device)).item()


@torch.enable_grad()
def tiny_steps(model: Any, rows: Tensor, steps: int, optimizer: Any) -> None:
    """Train without Accelerate, in the model's own precision: for exactness."""
    for _ in range(steps):
        loss_on(model, rows).backward()
        optimizer.step()
        optimizer.zero_grad()


class Gradients(NamedTuple):
    """The gradients of a LoRA layer: of A (r, in), B (out, r), and W (out, in)."""

    A: Tensor
    B: Tensor
    W: Tensor


def gradients(model: nn.Module, layers: Sequence[Any], rows: Tensor) -> list[Gradients]:
    """Return the gradients of LoRA layers, by one backward pass; W has one only for this pass."""
    for layer in layers:
        layer.base.weight.requires_grad_(True)
    model.zero_grad()
    loss_on(model, rows).backward()
    by_layer = []
    for layer in layers:
        weight = layer.base.weight.requires_grad_(False)
        by_layer.append(Gradients(layer.A.grad, layer.B.grad, weight.grad))
        weight.grad = None
    return by_layer


def largest(by_layer: Sequence[Gradients]) -> dict[str, list[Tensor]]:
    """Return the largest gradient of A, B and W in each layer."""
    return {
        name: [getattr(each, name).abs().max() for each in by_layer] for name in Gradients._fields
    }


def relative_errors(got: Sequence[Tensor], want: Sequence[Tensor]) -> Tensor:
    """Return the largest difference of each pair, relative to the largest number wanted."""
    pairs = zip(got, want, strict=True)
    return torch.stack([(a - b).abs().max() / b.abs().max() for a, b in pairs])


def batch_loss(run: Run, model: Any, tokens: Tensor, labels: Tensor) -> Tensor:
    """Return this process's part of the mean loss per label; the batches are (B, T).

    The summed loss is divided by the labels of the entire batch and multiplied by the number of
    processes, whose gradients Accelerate averages. So N processes train as one. A label of −100
    doesn't count, and logits before the first label aren't computed.
    """
    supervised = labels[:, 1:] != -100
    total = supervised.sum().to(run.device)
    first = int(supervised.any(0).nonzero()[0])
    tokens, labels = (run.share(rows).to(run.device) for rows in (tokens, labels))
    logits = model(tokens, logits_to_keep=tokens.shape[1] - first).logits[:, :-1]
    targets = labels[:, first + 1 :].flatten()
    nats = F.cross_entropy(logits.flatten(0, 1), targets, reduction="sum")
    return nats * run.accelerator.num_processes / total


@dataclass(frozen=True)
class Trained:
    """A trained model, its loss at each step (nats per label), and the bytes of AdamW's state."""

    model: Any
    losses: list[float]
    optimizer_bytes: int


@torch.enable_grad()
def train(
    run: Run, model: Any, data: Iterable[Any], steps: int, rate: float, label: str = ""
) -> Trained:
    """Train what requires a gradient with AdamW, clipping, and a rate that falls to nearly 0."""
    weights = trainable(model)
    optimizer = adamw(model, rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / steps, steps)
    model, prepared = run.accelerator.prepare(model, optimizer)
    losses: list[float] = []
    for tokens, labels in run.progress(data, label, steps) if label else data:
        loss = batch_loss(run, model, tokens, labels)
        run.accelerator.backward(loss)
        run.accelerator.clip_grad_norm_(weights, 1.0)
        prepared.step()
        prepared.zero_grad()
        schedule.step()
        mean = cast(Tensor, run.accelerator.reduce(loss.detach(), "mean"))
        losses.append(mean.item())
    state = [value for values in optimizer.state.values() for value in values.values()]
    bytes_ = sum(value.numel() * value.element_size() for value in state if value.dim())
    model = run.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return Trained(model, losses, bytes_)


train_on_one_thread = on_one_thread(train)


def loss_on_plays(run: Run, model: Any, rate: float, steps: int, seed: int) -> float:
    """Train a model of glass's on plays; return its loss on other plays (nats per token)."""
    size, length = run.pick(tiny=(4, 32), small=(8, 64), full=(32, 64))
    data = plays.batches(plays.rows().training[:, :length], size, steps, seed)
    trained = train_on_one_thread(run, model, data, steps, rate)
    return test_loss(run, trained.model, plays.rows().valid[: run.pick(tiny=16, small=64, full=64)])


def check_embedded(
    run: Run,
    name: str,
    value: float | list[float],
    because: str,
    at_most: float | None = None,
    at_least: float | None = None,
) -> None:
    """Check a bound that SmolLM2 meets; another --model is measured. It decides the claim."""
    if run.options.model is None:
        run.check(name, value, at_most=at_most, at_least=at_least, because=because, decides=True)
    else:
        run.measure(name, value, expect_at_most=at_most, expect_at_least=at_least, decides=True)


def costs(trained: Trained, file_bytes: int) -> tuple[str, list[str], list[list[Any]]]:
    """Return title, columns and rows of a table: an adapter beside full fine-tuning in float32."""
    title = "What is trained and stored, in float32"
    numbers = sum(weight.numel() for weight in trained.model.parameters())
    adapter = count(trained.model)
    numbers -= adapter
    columns = ["", "trained numbers", "AdamW's moments (MiB)", "file (MiB)"]
    full: list[Any] = ["full fine-tuning", numbers, 8 * numbers / 2**20, 4 * numbers / 2**20]
    moments = trained.optimizer_bytes / 2**20
    return title, columns, [full, ["adapter", adapter, moments, file_bytes / 2**20]]
