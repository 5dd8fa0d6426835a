"""Train the small models of LLM05a; the lesson passes in its learner's parts."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labs.kit import Run
from labs.shared import small_gpt

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """The sizes of a training.

    Attributes:
        d_model: the width of the vectors.
        length: the tokens of a text.
        batch: the texts of a batch.
        steps: the number of steps.
    """

    d_model: int
    length: int
    batch: int
    steps: int


MakeModel = Callable[[str, Sizes], nn.Module]  # takes the name of the placement or table


def train(
    run: Run, model: nn.Module, sizes: Sizes, lr: float, seed: int, warmup: int = 0
) -> small_gpt.Trained:
    """Train a copy of a model on Shakespeare; the seed alone determines the batches."""
    return small_gpt.train(
        run,
        model,
        small_gpt.shakespeare(),
        steps=sizes.steps,
        lr=lr,
        seed=seed,
        warmup=warmup,
        batch=sizes.batch,
        length=sizes.length,
    )


def by_rate(
    run: Run, make_model: MakeModel, names: Sequence[str], rates: Sequence[float], sizes: Sizes
) -> dict[float, dict[str, Tensor]]:
    """Train each model at each rate with three seeds, without warm-up.

    Returns:
        The loss before each step in nats, (3, steps), by rate and name.
    """
    losses: dict[tuple[float, str], list[list[float]]] = defaultdict(list)
    jobs = [(rate, name, seed) for rate in rates for name in names for seed in run.seeds(3)]
    label = f"{len(rates)} rates, {len(names)} models, 3 seeds"
    for rate, name, seed in run.progress(jobs, label):
        torch.manual_seed(seed)
        losses[rate, name].append(train(run, make_model(name, sizes), sizes, rate, seed).losses)
    return {
        rate: {name: torch.tensor(losses[rate, name]) for name in names}  # (3, steps) each
        for rate in rates
    }


def validation_losses(
    run: Run, make_model: MakeModel, names: Sequence[str], rate: float, sizes: Sizes
) -> dict[str, list[float]]:
    """Train each model with three seeds; a tenth of the steps is warm-up.

    Returns:
        The loss on text that no model was trained on, in nats, one for each seed.
    """
    windows = validation_windows(sizes.length)
    losses: dict[str, list[float]] = defaultdict(list)
    jobs = [(name, seed) for name in names for seed in run.seeds(3)]
    for name, seed in run.progress(jobs, f"{len(names)} models, 3 seeds"):
        torch.manual_seed(seed)
        model = make_model(name, sizes)
        trained = train(run, model, sizes, rate, seed, warmup=sizes.steps // 10)
        losses[name].append(small_gpt.nats(trained.model, windows).mean().item())
    return dict(losses)


def validation_windows(length: int) -> Tensor:
    """Return 16,384 characters of validation text, each with those before it, (n, length + 1)."""
    return small_gpt.shakespeare().windows(2**14 // length, length)
