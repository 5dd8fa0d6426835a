"""The decoder and the trainings of LLM05a; the lesson passes in its learner's parts."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

from labs.kit import Run
from labs.shared import small_gpt
from labs.shared.small_gpt import Position

import torch
from torch import Tensor, nn


class Decoder(nn.Module):
    """A language model of given blocks, (B, T) tokens -> (B, T, V) scores of each next token.

    The embedding's entries start with the variance 1, the entries of each matrix with
    2 / (inputs + outputs), as Glorot & Bengio (2010) recommend. On a CPU it computes in float32.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], d_model: int, norm: nn.Module, position: Position
    ):
        super().__init__()
        vocabulary = len(small_gpt.shakespeare().characters)
        self.embedding = nn.Embedding(vocabulary, d_model)
        self.position = position
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm
        self.unembedding = nn.Linear(d_model, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores (logits) of each next token, (B, T) -> (B, T, V)."""
        with torch.autocast("cpu", enabled=False):  # bf16's conversions cost ~20 % of a small step
            x = self.position.embed(self.embedding(tokens))  # (B, T, d)
            return self.unembedding(self.norm(self.blocks(x)))


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


MakeModel = Callable[[str, Sizes], nn.Module]  # takes the name of the block or table


class Outcome(NamedTuple):
    """What a training leaves behind, in nats."""

    loss: float  # on text that no model was trained on
    curve: list[float]  # the training loss before each step


def train(
    run: Run, model: nn.Module, sizes: Sizes, lr: float, seed: int, warmup: int = 0
) -> Outcome:
    """Train a copy of a model on Shakespeare; the seed alone determines the batches."""
    trained = small_gpt.train(
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
    loss = small_gpt.nats(trained.model, validation_windows(sizes.length)).mean().item()
    return Outcome(loss, trained.losses)


def by_rate(
    run: Run, make_model: MakeModel, names: Sequence[str], rates: Sequence[float], sizes: Sizes
) -> dict[str, dict[float, list[Outcome]]]:
    """Train each model at each rate with three seeds, without warm-up.

    Returns:
        The outcomes of the seeds by name and rate.
    """
    outcomes: dict[str, dict[float, list[Outcome]]] = {name: defaultdict(list) for name in names}
    jobs = [(name, rate, seed) for name in names for rate in rates for seed in run.seeds(3)]
    label = f"{len(names)} models, {len(rates)} rates, 3 seeds"
    for name, rate, seed in run.progress(jobs, label):
        torch.manual_seed(seed)
        outcomes[name][rate].append(train(run, make_model(name, sizes), sizes, rate, seed))
    return outcomes


def best_rates(run: Run, outcomes: Mapping[str, Mapping[float, list[Outcome]]]) -> dict[str, float]:
    """Print the mean losses; return the rate with the lowest one for each model."""
    means = {
        name: {rate: mean(row) for rate, row in rows.items()}
        for name, rows in losses(outcomes).items()
    }
    rates = list(next(iter(outcomes.values())))
    rows = [[name, *(f"{by_rate[rate]:.3f}" for rate in rates)] for name, by_rate in means.items()]
    columns = ["learning rate", *(f"{rate:g}" for rate in rates)]
    run.table("Validation loss (nats), mean of three seeds", columns, rows)

    def loss_or_infinity(loss: float) -> float:
        return loss if math.isfinite(loss) else math.inf

    return {
        name: min(by_rate, key=lambda rate: loss_or_infinity(by_rate[rate]))
        for name, by_rate in means.items()
    }


def losses(
    outcomes: Mapping[str, Mapping[float, list[Outcome]]],
) -> dict[str, dict[float, list[float]]]:
    """Return the losses of the seeds by name and rate."""
    return {
        name: {rate: [seed.loss for seed in seeds] for rate, seeds in rates.items()}
        for name, rates in outcomes.items()
    }


def minus(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Return a − b, seed by seed."""
    return [x - y for x, y in zip(a, b, strict=True)]


def frequencies(sizes: Sizes) -> float:
    """Return the loss of a model that knows only how often each validation character occurs."""
    return small_gpt.unigram(validation_windows(sizes.length))


def validation_losses(
    run: Run, make_model: MakeModel, names: Sequence[str], rate: float, sizes: Sizes
) -> dict[str, list[float]]:
    """Train each model with three seeds; a tenth of the steps is warm-up.

    Returns:
        The loss on text that no model was trained on, in nats, one for each seed.
    """
    losses: dict[str, list[float]] = defaultdict(list)
    jobs = [(name, seed) for name in names for seed in run.seeds(3)]
    for name, seed in run.progress(jobs, f"{len(names)} models, 3 seeds"):
        torch.manual_seed(seed)
        model = make_model(name, sizes)
        losses[name].append(train(run, model, sizes, rate, seed, sizes.steps // 10).loss)
    return dict(losses)


def validation_windows(length: int) -> Tensor:
    """Return 16,384 characters of validation text, each with those before it, (n, length + 1)."""
    return small_gpt.shakespeare().windows(2**14 // length, length)
