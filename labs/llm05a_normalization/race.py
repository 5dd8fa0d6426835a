"""The race of LLM05a+: arms that are trained at their best rates, and compared seed by seed."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from statistics import mean, stdev
from typing import Any

from labs.kit import Run
from labs.llm05a_normalization import training
from labs.llm05a_normalization.training import Sizes
from labs.shared import small_gpt
from labs.shared.small_gpt import Config

import torch
from torch import Tensor

GRID = (0.005, 0.01, 0.02, 0.04, 0.08)
SEEDS = 5
# The rates at `tiny`, from one search with the sizes of the race, but 250 steps, and seed 5 alone,
# in float32, on a CPU. Right of each rate are the losses at 0.005, 0.01, 0.02, 0.04 and 0.08. Runs
# with `--seed 1` to `--seed 5` race this seed, too; `--seed 0`, the default, does not. After 225
# steps, GELU's losses are 2.456 2.393 2.355 2.379 2.433, so its best rate is still 0.02.
RATES = {
    "identity": 0.02,  # 2.467 2.410 2.372 2.399 2.471
    "SiLU": 0.02,  # 2.444 2.376 2.337 2.360 2.429
    "GELU": 0.02,  # 2.432 2.365 2.325 2.351 2.401
    "ReLU": 0.02,  # 2.432 2.373 2.344 2.371 2.427
    "SwiGLU": 0.02,  # 2.420 2.351 2.333 2.340 2.398
    "RMSNorm": 0.02,  # 2.425 2.361 2.326 2.331 2.396
    "no attention": 0.01,  # 2.543 2.537 2.539 2.541 2.542
}
# By n: 97.5 % of Student's t with n − 1 degrees of freedom lies below.
STUDENT = {3: 4.303, 4: 3.182, 5: 2.776}

Arm = Callable[[Run, str], Config]  # takes the name of the arm


def race_sizes(run: Run) -> Sizes:
    """Return the sizes of the race; for multiples of 24, 8d/3 is a multiple of 8."""
    return run.pick(
        tiny=Sizes(48, 32, 16, 225), small=Sizes(72, 48, 16, 500), full=Sizes(192, 128, 64, 4000)
    )


class LanguageModel(small_gpt.LanguageModel):
    """The small GPT; on a CPU it computes in float32."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each next token, (B, T) -> (B, T, V)."""
        with torch.autocast("cpu", enabled=False):  # bf16's conversions cost ~20 % of a small step
            return super().forward(tokens)


def untrained(run: Run, arm: Arm, name: str, seed: int) -> LanguageModel:
    """Return the model of an arm, as the seed starts it."""
    torch.manual_seed(seed)
    return LanguageModel(arm(run, name))


@cache
def trained(run: Run, arm: Arm, name: str, lr: float, seed: int) -> float:
    """Train an arm and return its validation loss in nats."""
    sizes = race_sizes(run)
    model = untrained(run, arm, name, seed)
    return training.train(run, model, sizes, lr, seed, sizes.steps // 10).loss


@cache
def searched_rate(run: Run, arm: Arm, name: str) -> float:
    """Return the learning rate of the grid with the lowest loss, for a seed that isn't raced."""
    losses = {lr: trained(run, arm, name, lr, run.seeds(SEEDS + 1)[SEEDS]) for lr in GRID}
    return min(GRID, key=lambda lr: losses[lr] if math.isfinite(losses[lr]) else math.inf)


def race(
    run: Run, arm: Arm, rates: Mapping[str, float], names: Sequence[str]
) -> dict[str, list[float]]:
    """Return the losses of the seeds for each arm, and print them.

    Args:
        run: the run.
        arm: returns the configuration of an arm.
        rates: the learning rates at `tiny`, for any seed; other sizes and `--tune` search the grid.
        names: the arms.
    """
    known = run.size == "tiny" and not run.options.tune
    losses: dict[str, list[float]] = {name: [] for name in names}
    used: dict[str, float] = {}
    jobs = [(name, seed) for name in names for seed in run.seeds(SEEDS)]
    for name, seed in run.progress(jobs, f"{len(names)} arms, {SEEDS} seeds"):
        used[name] = rates[name] if known else searched_rate(run, arm, name)
        losses[name].append(trained(run, arm, name, used[name], seed))
    rows: list[list[Any]] = []
    for name, row in losses.items():
        count = small_gpt.parameters(LanguageModel(arm(run, name)))
        rows.append([name, count, f"{used[name]:g}", f"{mean(row):.3f}", f"{stdev(row):.3f}"])
    columns = ["", "parameters", "learning rate", "mean", f"sd of {SEEDS} seeds"]
    run.table("Validation loss (nats)", columns, rows)
    return losses


def minus(losses: Mapping[str, Sequence[float]], a: str, b: str) -> list[float]:
    """Return the loss of `a` minus that of `b`, seed by seed."""
    return training.minus(losses[a], losses[b])


def limits(values: Sequence[float]) -> list[float]:
    """Return the 95 % limits of the mean of three to five values, by Student's t."""
    half = STUDENT[len(values)] * stdev(values) / math.sqrt(len(values))
    return [mean(values) - half, mean(values) + half]
