"""One training step in three precisions: its time, its memory, and the error of its gradient."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import mean
from typing import Any, cast

from labs.kit import Run, assets, on_one_thread, seconds
from labs.llm08_training.training import Parts, Recipe, encoded, rows_of, steps_of
from labs.llm08_training.word_tasks import build, split

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

WAYS = ("fp32", "mixed", "bf16 weights")
ROWS = 2
LENGTH = 61  # a prime: activations are recognised by their number of entries, and no weight has it
TRAINED = 4  # blocks


@dataclass(frozen=True)
class Step:
    """What a training step takes.

    Attributes:
        way: the precision.
        seconds: of a step, after one that warms up.
        activations: what the backward pass needs of the trained blocks (MB).
        copies: autocast's 16-bit copies of weights, which the backward pass needs too (MB).
        stored: the trained weights, their gradients and the optimizer's means (MB).
        error: the norm of the gradient's error, relative to the gradient in fp32.
    """

    way: str
    seconds: float
    activations: float
    copies: float
    stored: float
    error: float

    def cells(self) -> list[Any]:
        """Return the step as a row of a table."""
        memory = [self.activations, self.copies, self.stored]
        return [self.way, self.seconds, *memory, self.error]


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
    """Measure a step of SmolLM2's last four blocks on two rows of text, in each precision."""
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

    saved, copies = _saved_bytes(backward, ids.numel(), model)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    gradient = torch.cat([cast(Tensor, weight.grad).float().flatten() for weight in trained])
    stored = sum(weight.nbytes + cast(Tensor, weight.grad).nbytes for weight in trained)
    (time,) = seconds(step, 1)
    states = (state for means in optimizer.state.values() for state in means.values())
    stored += sum(state.nbytes for state in states if state.dim() > 0)
    right = gradient if right is None else right
    error = ((gradient - right).norm() / right.norm()).item()
    return Step(way, time, saved / 1e6, copies / 1e6, stored / 1e6, error), gradient


def _saved_bytes(call: Callable[[], None], tokens: int, model: Any) -> tuple[int, int]:
    """Return the bytes of activations and of copies of weights that a backward pass finds.

    The weights themselves don't count, nor do the logits, which have 32 bits in every way.
    """
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes = {weight.numel() for weight in model.parameters()}
    activations: dict[int, int] = {}
    copies: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if tensor.numel() % tokens == 0 and tensor.shape[-1] != model.config.vocab_size:
            activations[place] = tensor.untyped_storage().nbytes()
        elif tensor.numel() in sizes and place not in weights:
            copies[place] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(activations.values()), sum(copies.values())


class Plain:
    """What a training step needs of an Accelerator, without its precision."""

    def __init__(self, clip: Callable[..., Tensor]) -> None:
        self._clip = clip

    def backward(self, loss: Tensor) -> None:
        """Compute the gradient."""
        loss.backward()

    def clip_grad_norm_(self, parameters: Any, norm: float) -> None:
        """Clip the gradient."""
        self._clip(parameters, norm)


@on_one_thread
def short_training(run: Run, parts: Parts, dtype: torch.dtype, seed: int) -> float:
    """Train a small Llama with weights of a type for a fifth of the steps, on the CPU.

    Each type gets the same first weights and the same batches, whatever the run's precision is.

    Returns:
        The loss of the held-out responses (nats per label).
    """
    steps = steps_of(run)
    rows = rows_of(parts.encode, seed, 4000)
    model = build(run, seed).to(dtype)
    optimizer = parts.loop.optimizer(model.parameters(), Recipe.lr)
    order = torch.Generator().manual_seed(seed)
    for step in range(steps // 5):
        chosen = torch.randint(len(rows), (Recipe.batch,), generator=order)
        batch = parts.loop.collate([rows[i] for i in chosen.tolist()])
        lr = Recipe.lr * parts.loop.lr_at(step, steps, Recipe.warmup)
        labels = parts.label_count(batch)
        parts.loop.step(model, optimizer, [batch], labels, lr, Recipe.clip, Plain(parts.loop.clip))
    test = parts.loop.collate(encoded(parts.encode, split(seed, 4000)[1]))
    with torch.no_grad():
        return parts.label_sum(model, test).item() / parts.label_count(test)


SHORT = "bf16 weights − fp32: mean difference"


def compare_trainings(run: Run, parts: Parts) -> str:
    """Compare short trainings with fp32 and bf16 weights, paired over three seeds.

    A model with bf16 weights rounds all that mixed precision rounds, and its weights too. Three
    pairs can't show that two ways are equal. They show how large a difference may be.

    Returns:
        A sentence with the differences.
    """
    fp32 = [short_training(run, parts, torch.float32, seed) for seed in run.seeds(3)]
    bf16 = [short_training(run, parts, torch.bfloat16, seed) for seed in run.seeds(3)]
    gaps = [b - a for a, b in zip(fp32, bf16, strict=True)]
    run.measure("fp32: responses' loss after a fifth of the steps", fp32, unit="nats")
    run.measure("bf16 weights − fp32: responses' loss", gaps, unit="nats")
    tenth = mean(fp32) / 10
    because = "a tenth of fp32's mean loss; three pairs can't show a much smaller difference"
    both = (-tenth, tenth)
    run.measure(SHORT, mean(gaps), unit="nats", expect_between=both, because=because, decides=True)
    return (
        f"At our rate, bf16 weights change the mean loss by {mean(gaps):+.3f} nats, and that of "
        f"single seeds by {min(gaps):+.3f} to {max(gaps):+.3f}."
    )


def check_memory(run: Run, steps: list[Step]) -> None:
    """Check what mixed precision saves in activations, and what its copies of weights cost."""
    fp32, mixed, _ = steps
    run.measure("speed: fp32 ÷ mixed", fp32.seconds / mixed.seconds, timed=True)
    because = "most activations have 16 bits in place of 32"
    ratio = mixed.activations / fp32.activations
    run.check("activations: mixed ÷ fp32", ratio, at_most=0.8, because=because)
    run.measure("activations saved by mixed", fp32.activations - mixed.activations, unit="MB")
    run.measure("16-bit copies of weights in mixed", mixed.copies, unit="MB")
    because = "weights are stored once in fp32"
    run.check("copies of weights in fp32 (MB)", fp32.copies, at_most=0, because=because)


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
    because = "fp32 has 24 bits: only weights of 256 and more would stay"
    run.check("share lost in fp32", plain, at_most=0, because=because, decides=True)
    return lost, plain
