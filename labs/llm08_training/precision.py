"""One training step in three precisions: its time, its memory, and the error of its gradient."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

from labs.kit import Run, assets, on_one_thread, seconds
from labs.llm08_training.training import Parts, Recipe, encoded, some_rows, steps_of
from labs.llm08_training.word_tasks import build, split

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

WAYS = ("fp32", "mixed", "bf16 weights")
ROWS = 4
LENGTH = 61  # a prime: activations are recognised by their number of entries, and no weight has it
TRAINED = 4  # blocks


@dataclass(frozen=True)
class Step:
    """What a training step takes.

    Attributes:
        way: the precision.
        seconds: the median of three steps.
        activations: what the backward pass needs of the trained blocks (MB).
        stored: the trained weights, their gradients and the optimizer's means (MB).
        error: the norm of the gradient's error, relative to the gradient in fp32.
    """

    way: str
    seconds: float
    activations: float
    stored: float
    error: float

    def cells(self) -> list[Any]:
        """Return the step as a row of a table."""
        return [self.way, self.seconds, self.activations, self.stored, self.error]


def train_last_blocks(model: Any) -> Any:
    """Freeze all weights but those of the last four blocks, which are a model's longest list."""
    model.requires_grad_(False)
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    for block in max(lists, key=len)[-TRAINED:]:
        block.requires_grad_(True)
    return model


def autocast(model: Any) -> AbstractContextManager[Any]:
    """Return the context in which PyTorch chooses bf16 for matrix products."""
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


def measure_all(run: Run) -> list[Step]:
    """Measure a step of SmolLM2's last four blocks on four rows of text, in each precision."""
    name = assets.pretrained(run.options.model, run.online)
    words = AutoTokenizer.from_pretrained(name)
    text = " ".join(assets.shakespeare()[10_000:20_000].split())
    ids = words(text, return_tensors="pt").input_ids[0, : ROWS * LENGTH].view(ROWS, LENGTH)
    real = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    steps: list[Step] = []
    right = None
    for way in WAYS:
        model = copy.deepcopy(train_last_blocks(real)).to(run.device)
        model = model.bfloat16() if way == "bf16 weights" else model
        measured, gradient = _measure(model, ids.to(run.device), way, right)
        right = gradient if right is None else right
        steps.append(measured)
    return steps


def _measure(model: Any, ids: Tensor, way: str, right: Tensor | None) -> tuple[Step, Tensor]:
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], fused=True)

    def backward() -> None:
        with autocast(model) if way == "mixed" else nullcontext():
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()

    def step() -> None:
        backward()
        optimizer.step()
        optimizer.zero_grad()

    saved = _saved_bytes(backward, ids.numel(), model.config.vocab_size)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    gradient = torch.cat([cast(Tensor, weight.grad).float().flatten() for weight in trained])
    stored = sum(weight.nbytes + cast(Tensor, weight.grad).nbytes for weight in trained)
    time = median(seconds(step, 3))
    states = (state for means in optimizer.state.values() for state in means.values())
    stored += sum(state.nbytes for state in states if state.dim() > 0)
    right = gradient if right is None else right
    error = ((gradient - right).norm() / right.norm()).item()
    return Step(way, time, saved / 1e6, stored / 1e6, error), gradient


def _saved_bytes(call: Callable[[], None], tokens: int, vocabulary: int) -> int:
    """Return the bytes of activations that a backward pass finds.

    Copies of weights and logits, which always have 32 bits, don't count.
    """
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() % tokens == 0 and tensor.shape[-1] != vocabulary:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(found.values())


class Mixed:
    """A model whose forward pass runs in mixed precision, whatever the run's precision is."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the model."""
        with autocast(self._model):
            return self._model(*arguments, **keywords)

    def parameters(self) -> Any:
        """Return the model's parameters, for the clipping."""
        return self._model.parameters()


class Plain:
    """What a training step needs of an Accelerator, without its precision."""

    def backward(self, loss: Tensor) -> None:
        """Compute the gradient."""
        loss.backward()

    def clip_grad_norm_(self, parameters: Any, norm: float) -> None:
        """Clip the gradient."""
        nn.utils.clip_grad_norm_(parameters, norm)


@on_one_thread
def half_trained(run: Run, parts: Parts, mixed: bool) -> float:
    """Train a small Llama for half of the steps, in fp32 or in mixed precision, on the CPU.

    Returns:
        The loss of the held-out responses (nats per label).
    """
    steps = steps_of(run)
    rows = some_rows(run, parts.encode, 4000)
    model = build(run, run.seed)
    optimizer = parts.loop.optimizer(model.parameters(), Recipe.lr)
    order = torch.Generator().manual_seed(run.seed)
    for step in range(steps // 2):
        chosen = torch.randint(len(rows), (Recipe.batch,), generator=order)
        batch = parts.loop.collate([rows[i] for i in chosen.tolist()])
        lr = Recipe.lr * parts.loop.lr_at(step, steps, Recipe.warmup)
        seen = Mixed(model) if mixed else model
        labels = parts.label_count(batch)
        parts.loop.step(seen, optimizer, [batch], labels, lr, Recipe.clip, Plain())
    test = parts.loop.collate(encoded(parts.encode, split(run.seed, 4000)[1]))
    with torch.no_grad():
        return parts.label_sum(model, test).item() / parts.label_count(test)


def lost_updates(weights: Tensor, size: float) -> tuple[float, float, float]:
    """Add ±size to each weight; return the share that doesn't move.

    Returns:
        The share in bf16, the share that the formula of the lesson predicts for bf16, and the share
        in float32.
    """
    step = size * (1 - 2 * (torch.arange(len(weights)) % 2))  # up, down, up, …
    half = weights.bfloat16()
    lost = ((half + step.bfloat16()) == half).float().mean().item()
    limit = torch.exp2(half.float().abs().log2().floor() - 8)
    formula = (size < limit).float().mean().item()
    plain = ((weights + step) == weights).float().mean().item()
    return lost, formula, plain


def check_updates(run: Run, model: nn.Module) -> tuple[float, float]:
    """Check which updates of 10⁻⁵ a model's weights lose; return the shares in bf16 and fp32."""
    weights = torch.cat([weight.detach().flatten().cpu() for weight in model.parameters()])
    lost, formula, plain = lost_updates(weights, 1e-5)
    because = "just below a power of two the distance is half: 1 weight in 128"
    what = "share lost in bf16 − the formula's"
    run.check(what, abs(lost - formula), at_most=0.01, because=because, decides=True)
    run.check("share lost in bf16", lost, at_least=0.5, because="the formula", decides=True)
    because = "the formula with 24 bits: only weights above 170 stay"
    run.check("share lost in fp32", plain, at_most=0.01, because=because, decides=True)
    return lost, plain
