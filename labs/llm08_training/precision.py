"""A training step in three precisions, and the updates that weights of 16 bits lose."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from labs.kit import Run, assets, seconds

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

WAYS = ("fp32", "mixed", "bf16 weights")
LENGTH = 61  # a prime: activations are recognised by their number of entries, and no weight has it
TRAINED = 4  # blocks
SIZES = {"10⁻⁵": 1e-5, "10⁻⁴": 1e-4, "5·10⁻⁴": 5e-4, "10⁻³": 1e-3, "5·10⁻³": 5e-3}  # of updates
LOST = "share of updates of 10⁻⁵ lost in bf16"
LOST_AT_END = "share of updates of 5·10⁻⁴ lost in bf16"


@dataclass(frozen=True)
class Step:
    """What a training step takes.

    Attributes:
        way: the precision.
        seconds: of the fastest of three steps, after one that warms up.
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


def rows_of(run: Run) -> int:
    """Return the number of rows in a step; at `tiny` too few for mixed precision to save memory."""
    return run.pick(tiny=2, small=32, full=32)


def measure_all(run: Run) -> list[Step]:
    """Measure a step of SmolLM2's last four blocks on rows of a text, in each precision."""
    name = assets.pretrained(run.options.model, run.online)
    words = AutoTokenizer.from_pretrained(name)
    text = " ".join(assets.shakespeare()[10_000:20_000].split())
    rows = rows_of(run)
    ids = words(text, return_tensors="pt").input_ids[0, : rows * LENGTH].view(rows, LENGTH)
    model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    model = train_last_blocks(model).to(run.device)
    steps: list[Step] = []
    right = None
    for way in WAYS:
        if way == "bf16 weights":
            model.bfloat16()
        measured, gradient = _measure(model, ids.to(run.device), way, right)
        right = gradient if right is None else right
        steps.append(measured)
    return steps


def _measure(model: Any, ids: Tensor, way: str, right: Tensor | None) -> tuple[Step, Tensor]:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)  # all ways have the same weights

    def backward() -> None:
        with autocast(model) if way == "mixed" else nullcontext():
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()

    def step() -> None:
        backward()
        optimizer.step()
        optimizer.zero_grad()

    saved, copies = _saved_bytes(backward, ids.numel(), model)
    gradient = torch.cat([cast(Tensor, weight.grad).float().flatten() for weight in trained])
    stored = sum(weight.nbytes + cast(Tensor, weight.grad).nbytes for weight in trained)
    time = min(seconds(step, 3))
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


def check_updates(run: Run, model: nn.Module) -> dict[str, float]:
    """Check which updates a model's weights lose; return the share lost in bf16 by their size."""
    weights = torch.cat([weight.detach().flatten().cpu() for weight in model.parameters()])
    shares = {name: lost_updates(weights, size) for name, size in SIZES.items()}
    columns = ["size of the update", "bf16", "bf16, by the formula", "fp32"]
    cells = [[name, *(f"{share:.1%}" for share in row)] for name, row in shares.items()]
    run.table("Share of a trained model's weights that an update doesn't move", columns, cells)
    because = "just below a power of two the distance is half: 1 weight in 128"
    gap = max(abs(lost - formula) for lost, formula, _ in shares.values())
    what = "share lost in bf16 − the formula's, largest"
    run.check(what, gap, at_most=0.01, because=because, decides=True)
    half = {name: lost for name, (lost, _, _) in shares.items()}
    run.check(LOST, half["10⁻⁵"], at_least=0.5, because="the formula", decides=True)
    because = "weights above 0.25, which are rare"
    run.measure(LOST_AT_END, half["5·10⁻⁴"], expect_at_most=0.1, because=because, decides=True)
    because = "fp32 has 24 bits: only weights of 256 and more would lose 10⁻⁵"
    plain = max(plain for _, _, plain in shares.values())
    run.check("share lost in fp32, largest", plain, at_most=0, because=because, decides=True)
    return half
