"""The decoder and the trainings of LLM05a; the lesson passes in its learner's parts."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import NamedTuple

from labs.kit import Run, on_one_thread
from labs.shared import small_gpt
from labs.shared.small_gpt import Position

import torch
import torch.nn.functional as F
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
        start_as_glorot(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores (logits) of each next token, (B, T) -> (B, T, V)."""
        with torch.autocast("cpu", enabled=False):  # bf16's conversions cost ~20 % of a small step
            x = self.position.embed(self.embedding(tokens))  # (B, T, d)
            return self.unembedding(self.norm(self.blocks(x)))


def start_as_glorot(model: nn.Module) -> None:
    """Draw the entries of each matrix anew, with the variance 2 / (inputs + outputs)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)


class Stack(NamedTuple):
    """What passes an untrained stack of blocks."""

    sizes: list[float]  # of the stream, before the stack and after each block
    last: Tensor  # the stream after the last block, (B, T, d)
    gradient: float  # size before the first block ÷ after a last norm, where a random one starts


def stack(make_block: Callable[[], nn.Module], count: int, x: Tensor) -> Stack:
    """Send a stream, (B, T, d), through untrained blocks and a norm, and a gradient back."""
    first = x.detach().requires_grad_()
    streams = [first]
    for _ in range(count):
        block = make_block()
        start_as_glorot(block)
        streams.append(block(streams[-1]))
    normed = F.layer_norm(streams[-1], x.shape[-1:])
    gradient = torch.randn_like(x)  # of this last norm's output
    (back,) = torch.autograd.grad(normed, first, gradient)
    sizes = [stream.detach().square().mean().sqrt().item() for stream in streams]
    return Stack(sizes, streams[-1].detach(), (back.norm() / gradient.norm()).item())


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


def placement_sizes(run: Run) -> Sizes:
    """Return the sizes of the lesson's trainings; the option --steps replaces their number."""
    sizes = run.pick(
        tiny=Sizes(32, 16, 16, 90), small=Sizes(64, 32, 16, 400), full=Sizes(192, 128, 64, 3000)
    )
    return replace(sizes, steps=run.options.steps or sizes.steps)


MakeModel = Callable[[str, Sizes], nn.Module]  # takes the name of the block or table


class Outcome(NamedTuple):
    """What a training leaves behind, in nats."""

    loss: float  # on text that no model was trained on
    curve: list[float]  # the training loss before each step


@on_one_thread
def train(
    run: Run, model: nn.Module, sizes: Sizes, lr: float, seed: int, warmup: int = 0
) -> Outcome:
    """Train a model on Shakespeare with AdamW; the seed alone determines the batches.

    Its loop is that of `small_gpt.train` without the norms of the gradients, which took 4 % of it.
    """
    corpus = small_gpt.shakespeare()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    model, optimizer = run.accelerator.prepare(model, optimizer)
    curve: list[Tensor] = []
    for step in range(sizes.steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * small_gpt.lr_at(step, sizes.steps, warmup)
        batch = corpus.batch(sizes.batch, sizes.length, generator)
        tokens = run.share(batch).to(run.device)
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        run.accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        curve.append(loss.detach())
    model = run.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    validation = small_gpt.nats(model, validation_windows(sizes.length))
    return Outcome(validation.mean().item(), torch.stack(curve).tolist())


def by_rate(
    run: Run, make_model: MakeModel, names: Sequence[str], rates: Sequence[float], sizes: Sizes
) -> dict[str, dict[float, list[Outcome]]]:
    """Train each model at each rate with four seeds, without warm-up.

    Returns:
        The outcomes of the seeds by name and rate.
    """
    outcomes: dict[str, dict[float, list[Outcome]]] = {name: defaultdict(list) for name in names}
    jobs = [(name, rate, seed) for name in names for rate in rates for seed in run.seeds(4)]
    label = f"{len(names)} models, {len(rates)} rates, 4 seeds"
    for name, rate, seed in run.progress(jobs, label):
        torch.manual_seed(seed)
        outcomes[name][rate].append(train(run, make_model(name, sizes), sizes, rate, seed))
    return outcomes


def best_rates(run: Run, outcomes: Mapping[str, Mapping[float, list[Outcome]]]) -> dict[str, float]:
    """Print the mean losses; return the rate with the lowest one for each model."""
    rates = list(next(iter(outcomes.values())))
    best: dict[str, float] = {}
    rows: list[list[str]] = []
    for name, at_rates in losses(outcomes).items():
        means = [mean(row) for row in at_rates.values()]
        finite = [loss if math.isfinite(loss) else math.inf for loss in means]
        best[name] = rates[finite.index(min(finite))]
        edge = ", at the edge" if best[name] in (rates[0], rates[-1]) else ""
        cells = [f"{mean(row):.3f} [{min(row):.2f}, {max(row):.2f}]" for row in at_rates.values()]
        rows.append([name, *cells, f"{best[name]:g}{edge}"])
    columns = ["learning rate", *(f"{rate:g}" for rate in rates), "best"]
    run.table("Validation loss (nats): mean of four seeds [lowest, highest]", columns, rows)
    return best


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


def largest_gap(gaps: Mapping[float, Sequence[float]]) -> float:
    """Return the rate with the mean gap farthest from 0; a diverged training counts as farthest."""
    sizes = {rate: abs(mean(row)) for rate, row in gaps.items()}
    return max(sizes, key=lambda rate: sizes[rate] if math.isfinite(sizes[rate]) else math.inf)


def frequencies(sizes: Sizes) -> float:
    """Return the loss of a model that knows only how often each validation character occurs."""
    return small_gpt.unigram(validation_windows(sizes.length))


def validation_losses(
    run: Run, make_model: MakeModel, names: Sequence[str], rate: float, sizes: Sizes, seeds: int
) -> dict[str, list[float]]:
    """Train each model with several seeds; a tenth of the steps is warm-up.

    Returns:
        The loss on text that no model was trained on, in nats, one for each seed.
    """
    losses: dict[str, list[float]] = defaultdict(list)
    jobs = [(name, seed) for name in names for seed in run.seeds(seeds)]
    for name, seed in run.progress(jobs, f"{len(names)} models, {seeds} seeds"):
        torch.manual_seed(seed)
        model = make_model(name, sizes)
        losses[name].append(train(run, model, sizes, rate, seed, sizes.steps // 10).loss)
    return dict(losses)


def validation_windows(length: int) -> Tensor:
    """Return 16,384 characters of validation text, each with those before it, (n, length + 1)."""
    return small_gpt.shakespeare().windows(2**14 // length, length)
