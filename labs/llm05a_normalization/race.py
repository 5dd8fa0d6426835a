"""The race of LLM05a+: arms that are trained at their best rates, and compared over three seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from statistics import mean, stdev
from typing import Any

from labs.kit import Run
from labs.llm05a_normalization import training
from labs.llm05a_normalization.training import Sizes, validation_windows
from labs.shared import small_gpt
from labs.shared.small_gpt import Config

GRID = (0.005, 0.01, 0.02, 0.04, 0.08)


Arm = Callable[[Run, str], Config]  # takes the name of the arm


def race_sizes(run: Run) -> Sizes:
    """Return the sizes of the race; for multiples of 24, 8d/3 is a multiple of 8."""
    return run.pick(
        tiny=Sizes(48, 32, 16, 250), small=Sizes(96, 64, 32, 800), full=Sizes(192, 128, 64, 4000)
    )


@cache
def trained(run: Run, arm: Arm, name: str, lr: float, seed: int) -> float:
    """Train an arm and return its validation loss in nats."""
    sizes = race_sizes(run)
    result = small_gpt.train(
        run,
        arm(run, name),
        small_gpt.shakespeare(),
        steps=sizes.steps,
        lr=lr,
        seed=seed,
        warmup=sizes.steps // 10,
        batch=sizes.batch,
        length=sizes.length,
    )
    return small_gpt.nats(result.model, validation_windows(sizes.length)).mean().item()


@cache
def searched_rate(run: Run, arm: Arm, name: str) -> float:
    """Return the learning rate of the grid with the lowest loss, for a seed that isn't raced."""
    losses = {lr: trained(run, arm, name, lr, run.seeds(4)[3]) for lr in GRID}
    return min(GRID, key=lambda lr: losses[lr] if math.isfinite(losses[lr]) else math.inf)


def race(
    run: Run, arm: Arm, rates: Mapping[str, float], names: Sequence[str]
) -> dict[str, list[float]]:
    """Return the losses of three seeds for each arm, and print them.

    Args:
        run: the run.
        arm: returns the configuration of an arm.
        rates: the learning rates at `tiny`; other sizes and `--tune` search the grid.
        names: the arms.
    """
    known = run.size == "tiny" and not run.options.tune
    losses: dict[str, list[float]] = {name: [] for name in names}
    used: dict[str, float] = {}
    jobs = [(name, seed) for name in names for seed in run.seeds(3)]
    for name, seed in run.progress(jobs, f"{len(names)} arms, 3 seeds"):
        used[name] = rates[name] if known else searched_rate(run, arm, name)
        losses[name].append(trained(run, arm, name, used[name], seed))
    rows: list[list[Any]] = []
    for name, row in losses.items():
        count = small_gpt.parameters(small_gpt.LanguageModel(arm(run, name)))
        rows.append([name, count, f"{used[name]:g}", f"{mean(row):.3f}", f"{stdev(row):.3f}"])
    columns = ["", "parameters", "learning rate", "mean", "sd of 3 seeds"]
    run.table("Validation loss (nats)", columns, rows)
    return losses


def minus(losses: Mapping[str, Sequence[float]], a: str, b: str) -> list[float]:
    """Return the loss of `a` minus that of `b`, seed by seed."""
    return training.minus(losses[a], losses[b])


def limits(values: Sequence[float]) -> list[float]:
    """Return the 95 % limits of the mean of three values, by Student's t."""
    half = 4.303 * stdev(values) / math.sqrt(3)  # t of 2 degrees of freedom
    return [mean(values) - half, mean(values) + half]
