"""Sizes, texts, training, probes and tables of LLM05b's small models."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from statistics import mean, stdev
from typing import Any, NamedTuple

from labs.kit import Run
from labs.llm05a_normalization import Sinusoid
from labs.llm05b_depth_and_position.side_by_side import train_side_by_side
from labs.llm05b_depth_and_position.stack import Attention, split_heads, value_matrices
from labs.shared import small_gpt
from labs.shared.small_gpt import Position

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LONG = 8  # times as long as in training

Ends = dict[tuple[str, int], list[float]]  # by placement and number of blocks, for each seed


class Sizes(NamedTuple):
    """Of a model and its training."""

    layers: int
    d: int
    length: int
    batch: int
    steps: int


def deep_sizes(run: Run) -> Sizes:
    """Return the sizes of the stacks that are trained for their depth."""
    return run.pick(
        tiny=Sizes(6, 32, 16, 8, 240),
        small=Sizes(6, 32, 32, 8, 480),
        full=Sizes(24, 256, 128, 32, 4000),
    )


def long_sizes(run: Run) -> Sizes:
    """Return the sizes of the models that read longer texts than in training."""
    return run.pick(
        tiny=Sizes(2, 48, 64, 8, 160),
        small=Sizes(3, 64, 64, 8, 480),
        full=Sizes(6, 256, 128, 64, 6000),
    )


def depths(run: Run) -> list[int]:
    """Return the numbers of blocks: 2, 4, … 32, and up to 128 at `small` and `full`."""
    return [2**n for n in range(1, run.pick(tiny=6, small=8, full=8))]


def width(run: Run) -> int:
    """Return the width of untrained stacks."""
    return run.pick(tiny=64, small=128, full=512)


def validation(run: Run) -> Tensor:
    """Return 8,192 characters of the validation text, (n, T + 1)."""
    length = deep_sizes(run).length
    return small_gpt.shakespeare().windows(2**13 // length, length)


def long_windows(run: Run) -> Tensor:
    """Return windows of 8 T characters of the validation text, (n, 8 T + 1)."""
    return small_gpt.shakespeare().windows(run.pick(32, 256, 256), LONG * long_sizes(run).length)


def last_characters(run: Run) -> Tensor:
    """Return the last T/2 characters of these windows, (n, T/2 + 1)."""
    return long_windows(run)[:, -long_sizes(run).length // 2 - 1 :]


@cache
def _counts() -> tuple[Tensor, Tensor]:
    """Count the training text's characters, (V,), and its pairs of neighbours, (V, V), plus 1."""
    corpus = small_gpt.shakespeare()
    v = len(corpus.characters)
    pairs = (corpus.train[:-1] * v + corpus.train[1:]).bincount(minlength=v * v).view(v, v)
    return corpus.train.bincount(minlength=v).double() + 1, pairs.double() + 1


def unigram(windows: Tensor) -> float:
    """Return the loss of the training text's frequencies, (n, T + 1) windows, in nats."""
    single, _ = _counts()
    return -(single / single.sum()).log()[windows[:, 1:]].mean().item()


def bigram_by_place(windows: Tensor) -> Tensor:
    """Return the bigram's mean loss at each place, (n, T + 1) windows -> (T,), in nats.

    The bigram knows the training text's frequencies after each character.
    """
    _, pairs = _counts()
    shares = pairs / pairs.sum(-1, keepdim=True)
    return -shares.log()[windows[:, :-1], windows[:, 1:]].mean(0)


def bigram(windows: Tensor) -> float:
    """Return the bigram's mean loss of (n, T + 1) windows, in nats."""
    return bigram_by_place(windows).mean().item()


def mean_loss(model: nn.Module, windows: Tensor) -> Tensor:
    """Return the mean loss of (n, T + 1) windows, in nats per character."""
    logits = model(windows[:, :-1])  # (n, T, V)
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


class End(NamedTuple):
    """What a probe finds at the end of an untrained stack, over all tokens."""

    size: float  # of the stream, a root mean square
    gradient: float  # of the loss there, a root mean square
    alike: float  # the mean cosine of two tokens of one text


def probe(model: Any) -> End:
    """Measure the stream after the last block, and leave the gradients in the model."""
    streams: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        output.retain_grad()
        streams.append(output)

    hook = model.blocks[-1].register_forward_hook(keep)
    mean_loss(model, small_gpt.shakespeare().windows(4, 32)).backward()
    hook.remove()
    (stream,) = streams  # (B, T, d)
    gradient: Any = stream.grad
    unit = F.normalize(stream.detach(), dim=-1)
    t = unit.shape[1]
    pairs = (unit.sum(1).square().sum(-1) - t) / (t * (t - 1))  # (B,), without a token and itself
    size, slope = (x.detach().square().mean().sqrt().item() for x in (stream, gradient))
    return End(size, slope, pairs.mean().item())


def probe_stacks(
    run: Run,
    placements: Iterable[str],
    build: Callable[..., nn.Module],
    gradient_norms: Callable[[Any], list[float]],
) -> tuple[dict[tuple[str, int], list[End]], Ends]:
    """Return what is at the end of untrained stacks, and the gradient of their last blocks."""
    ends: dict[tuple[str, int], list[End]] = {}
    gradients: Ends = {}
    for name, layers in product(placements, depths(run)):
        stacks: list[Any] = [build(name, layers, width(run), seed) for seed in run.seeds(3)]
        ends[name, layers] = [probe(stack) for stack in stacks]  # leaves the gradients there
        gradients[name, layers] = [gradient_norms(stack.blocks)[-1] for stack in stacks]
    return ends, gradients


def show_alike(run: Run, few: int, many: int, ends: Mapping[tuple[str, int], list[End]]) -> None:
    """Record how alike the tokens of a text are in stacks of few and of many blocks."""
    for (name, layers), probes in ends.items():
        if layers in (few, many):
            what = f"{name}: mean cosine of two tokens after {layers} blocks"
            run.measure(what, [end.alike for end in probes])


@torch.no_grad()
def moves(model: Any, blocks: Iterable[int], step: float = 1e-5) -> list[float]:
    """Return how far the logits move, root mean square, when one block's matrices change.

    Each entry of the matrices of that block, and of no other, moves by `step` up or down at random.
    """
    windows = small_gpt.shakespeare().windows(2, 32)[:, :-1]
    generator = torch.Generator().manual_seed(0)
    before = model(windows)
    distances = []
    for block in blocks:
        matrices = [p for p in model.blocks[block].parameters() if p.dim() > 1]
        signs = [2 * torch.randint(2, p.shape, generator=generator) - 1 for p in matrices]
        for matrix, sign in zip(matrices, signs, strict=True):
            matrix += step * sign
        distances.append((model(windows) - before).square().mean().sqrt().item())
        for matrix, sign in zip(matrices, signs, strict=True):
            matrix -= step * sign
    return distances


def by_block(
    run: Run,
    placements: Iterable[str],
    build: Callable[..., nn.Module],
    gradient_norms: Callable[[Any], list[float]],
    layers: int,
    blocks: Iterable[int],
) -> tuple[dict[str, list[list[float]]], dict[str, list[list[float]]]]:
    """Return each block's gradient, and how far the logits move with some blocks.

    Both are by placement and seed, of untrained stacks.
    """
    gradients: dict[str, list[list[float]]] = {}
    moved: dict[str, list[list[float]]] = {}
    for name in placements:
        stacks: list[Any] = [
            build(name, layers, width(run), seed).double() for seed in run.seeds(3)
        ]
        for stack in stacks:
            probe(stack)  # leaves the gradients in the stack
        gradients[name] = [gradient_norms(stack.blocks) for stack in stacks]
        moved[name] = [moves(stack, blocks) for stack in stacks]
    return gradients, moved


@cache
def moved(
    build: Callable[..., nn.Module],
    name: str,
    layers: int,
    d: int,
    seed: int,
    size: float = 1.0,
) -> tuple[float, float]:
    """Return how far a small step of four matrices a block moves the logits, root mean square.

    The first is a step of gradient descent, the second Adam's first, the gradient's sign.
    """
    model = build(name, layers, d, seed).double()
    windows = small_gpt.shakespeare().windows(4, 32)
    matrices = value_matrices(model)
    gradients = torch.autograd.grad(mean_loss(model, windows), matrices)
    with torch.no_grad():
        before = model(windows[:, :-1])
        distances = []
        for steps in (
            [size * 2e-4 * g for g in gradients],
            [size * 1e-5 * g.sign() for g in gradients],
        ):
            changed = copy.deepcopy(model)
            for weight, step in zip(value_matrices(changed), steps, strict=True):
                weight -= step
            distances.append((changed(windows[:, :-1]) - before).square().mean().sqrt().item())
    return distances[0], distances[1]


class Arm(NamedTuple):
    """A kind of training: a placement, a peak rate, and whether there is a warm-up."""

    placement: str
    rate: float
    warm: bool = False

    def __str__(self) -> str:
        return f"{self.placement}, {'with' if self.warm else 'no'} warm-up"


class Outcome(NamedTuple):
    """What a training of a deep stack leaves behind."""

    model: Any
    loss: float  # on the validation text
    curve: list[float]  # the training loss before each step
    norms: list[float]  # of all gradients together, before each step
    gradients: list[list[float]]  # what `probe` returned, every eighth step


def train_deep(
    run: Run,
    trainings: Sequence[tuple[Arm, int]],
    build: Callable[[Arm, int], nn.Module],
    probe: Callable[[Any], list[float]] | None = None,
    share: float = 1.0,
) -> list[Outcome]:
    """Train deep stacks of one shape side by side; a warm-up takes a fifth of the steps.

    Args:
        run: the run.
        trainings: the arm and the seed of each.
        build: makes the untrained stack of an arm and a seed.
        probe: is called with each stack at every eighth step, when it has gradients.
        share: of the usual number of steps.
    """
    sizes = deep_sizes(run)
    steps = round(share * sizes.steps)
    gradients: list[list[list[float]]] = [[] for _ in trainings]

    def watch(stacks: Sequence[nn.Module]) -> None:
        for stack, rows in zip(stacks, gradients, strict=True):
            if probe is not None:
                rows.append(probe(stack))

    trained = train_side_by_side(
        run,
        [build(arm, seed) for arm, seed in trainings],
        small_gpt.shakespeare(),
        steps=steps,
        lrs=[arm.rate for arm, _ in trainings],
        warmups=[steps // 5 if arm.warm else 0 for arm, _ in trainings],
        seeds=[seed for _, seed in trainings],
        batch=sizes.batch,
        length=sizes.length,
        watch=watch,
    )
    outcomes: list[Outcome] = []
    for each, rows in zip(trained, gradients, strict=True):
        loss = small_gpt.nats(each.model, validation(run)).mean().item()
        outcomes.append(Outcome(each.model, loss, each.losses, each.gradient_norms, rows))
    return outcomes


def train_arms(
    run: Run,
    seeds: Mapping[Arm, int],
    build: Callable[..., nn.Module],
    gradient_norms: Callable[[Any], list[float]],
) -> dict[Arm, list[Outcome]]:
    """Train stacks with sinusoids, and probe the gradients of their blocks.

    Args:
        run: the run.
        seeds: the number of seeds of each arm.
        build: makes a stack.
        gradient_norms: measures the gradients of its blocks.
    """
    layers, d, length, *_ = deep_sizes(run)
    outcomes: dict[Arm, list[Outcome]] = {arm: [] for arm in seeds}
    placements = list(dict.fromkeys(arm.placement for arm in seeds))
    for placement in run.progress(placements, "placements in training"):
        arms = [arm for arm in seeds if arm.placement == placement]
        trainings = [(arm, seed) for arm in arms for seed in run.seeds(seeds[arm])]
        trained = train_deep(
            run,
            trainings,
            lambda arm, seed: build(arm.placement, layers, d, seed, Sinusoid(length, d)),
            lambda model: gradient_norms(model.blocks),
        )
        for (arm, _), outcome in zip(trainings, trained, strict=True):
            outcomes[arm].append(outcome)
    return outcomes


def weak_steps(outcome: Outcome) -> float:
    """Return the share of the probed steps at which block 1 is weak.

    It is weak if its gradient is less than a tenth of the last block's.
    """
    weak = [norms[0] < 0.1 * norms[-1] for norms in outcome.gradients]
    return sum(weak) / len(weak)


def show_weak(run: Run, *arms: Iterable[Outcome]) -> str:
    """Record by seed how much larger the share of weak steps is without warm-up.

    Args:
        run: the run.
        arms: the stacks without warm-up, with it, and with a lower rate.

    Returns:
        The mean shares, and what they mean for the hypothesis that large first steps do harm.
    """
    shares = [[weak_steps(outcome) for outcome in outcomes] for outcomes in arms]
    what = "Post-LN: share of probed steps with a weak block 1, without − with warm-up"
    run.measure(what, difference(shares[0], shares[1]))
    without, warm, low = (mean(arm) for arm in shares)
    verdict = "This fits the hypothesis, but a high loss may also be what makes block 1 weak."
    if max(warm, low) >= without:
        verdict = "This doesn't fit the hypothesis."
    return (
        f"Block 1 is weak in {without:.0%} of the probed steps, with warm-up in {warm:.0%}, at the "
        f"lower rate in {low:.0%}. {verdict}"
    )


def show_losses(run: Run, outcomes: Mapping[Arm, list[Outcome]]) -> float:
    """Show validation losses and block 1's gradient, and return the unigram's loss."""
    unigram_loss = unigram(validation(run))
    rows: list[list[Any]] = []
    for arm, seeds in outcomes.items():
        losses = [outcome.loss for outcome in seeds]
        weak = mean(weak_steps(outcome) for outcome in seeds)
        first = mean(outcome.gradients[0][0] / outcome.gradients[0][-1] for outcome in seeds)
        spread = f"{stdev(losses):.3f}" if len(losses) > 1 else "–"
        row = [str(arm), arm.rate, len(seeds), mean(losses), spread, f"{first:.2f}", f"{weak:.0%}"]
        rows.append(row)
    rows.append(["unigram", "–", "–", unigram_loss, "–", "–", "–"])
    rows.append(["bigram", "–", "–", bigram(validation(run)), "–", "–", "–"])
    columns = ["", "peak rate", "seeds", "loss (nats)", "sd of seeds"]
    columns += ["block 1 ÷ last, step 0", "probed steps with a weak block 1"]
    run.table("Validation loss, and the gradients of block 1 and of the last block", columns, rows)
    return unigram_loss


def train_long(run: Run, model: nn.Module, lr: float, seed: int) -> Any:
    """Train a model on windows of T characters; a warm-up takes a tenth of the steps."""
    sizes = long_sizes(run)
    return small_gpt.train(
        run,
        model,
        small_gpt.shakespeare(),
        steps=sizes.steps,
        lr=lr,
        seed=seed,
        warmup=sizes.steps // 10,
        batch=sizes.batch,
        length=sizes.length,
    ).model


GRID = (0.005, 0.01, 0.02, 0.04, 0.08)  # learning rates
BEST = 0.02  # of the grid at tiny, for each of the five encodings


@cache
def best_rate(run: Run, name: str, trained: Callable[..., nn.Module]) -> float:
    """Return the best rate for the trained length, by a seed that no result uses."""
    if run.size == "tiny" and not getattr(run.options, "tune", False):
        return BEST
    seed = run.seeds(6)[5]
    losses = {
        lr: last_half(run, loss_by_place(run, trained(run, name, seed, lr), 1)) for lr in GRID
    }
    run.table(f"{name}: loss (nats)", [f"rate {lr:g}" for lr in GRID], [list(losses.values())])
    return min(GRID, key=lambda lr: losses[lr])


def loss_by_place(run: Run, model: nn.Module, times: int) -> Tensor:
    """Return the mean loss at each place of the windows' last `times` · T characters."""
    windows = long_windows(run)[:, -times * long_sizes(run).length - 1 :]
    return small_gpt.nats(model, windows).mean(0).cpu()


def last_half(run: Run, losses: Tensor) -> float:
    """Return the mean loss of the last T/2 characters."""
    return losses[-long_sizes(run).length // 2 :].mean().item()


class Reading(NamedTuple):
    """What models of several seeds lose on longer texts than in training."""

    by_place: list[Tensor]  # the losses at each place of windows of 8 T, for each seed
    short: list[float]  # the loss of the last T/2 characters, read as in training
    long: list[float]  # the loss of the same characters at the end of 8 T
    cost: list[float]  # the difference


def read(run: Run, models: Iterable[nn.Module]) -> Reading:
    """Read windows of T and of 8 T characters."""
    models = list(models)
    by_place = [loss_by_place(run, model, LONG) for model in models]
    short = [last_half(run, loss_by_place(run, model, 1)) for model in models]
    long = [last_half(run, losses) for losses in by_place]
    return Reading(by_place, short, long, difference(long, short))


def read_all(
    run: Run, names: Iterable[str], trained: Callable[..., nn.Module]
) -> dict[str, Reading]:
    """Train and read with each encoding.

    RoPE's cost of length differs most from seed to seed, so it has five seeds. At tiny those that
    add to the stream have one: no claim rests on them.
    """
    few = run.pick(tiny=1, small=3, full=3)
    number = {"NoPE": 3, "RoPE": 5, "learned": few, "sinusoids": few, "ALiBi": 3}
    readings: dict[str, Reading] = {}
    for name in run.progress(list(names), "encodings in training"):
        readings[name] = read(run, [trained(run, name, seed) for seed in run.seeds(number[name])])
    return readings


def show_reading(run: Run, readings: Mapping[str, Reading]) -> dict[str, list[float]]:
    """Show the losses and the cost of length.

    Returns:
        How far the losses at T are below the bigram's on the same characters, by encoding and
        seed. A model without such a lead knows no more than the last character, so its cost of
        length says little.
    """
    counted = bigram(last_characters(run))
    rows: list[list[Any]] = []
    for name, reading in readings.items():
        spread = f"{stdev(reading.short):.3f}" if len(reading.short) > 1 else "–"
        long, cost = (f"{mean(nats):.3f}" for nats in (reading.long, reading.cost))
        seeds = len(reading.short)
        rows.append([name, seeds, f"{mean(reading.short):.3f}", spread, long, cost])
    rows.append(["bigram", "–", f"{counted:.3f}", "–", "–", "–"])
    columns = ["", "seeds", "as in training", "sd of seeds", "8 times as long", "cost of length"]
    run.table("Loss of the same characters (nats)", columns, rows)
    for name, reading in readings.items():
        run.measure(f"{name}: cost of length", reading.cost, unit="nats")
    gap = difference(readings["ALiBi"].short, readings["RoPE"].short)
    run.measure("ALiBi − RoPE at T", gap, unit="nats")
    return {name: [counted - loss for loss in reading.short] for name, reading in readings.items()}


def difference(a: list[float], b: list[float]) -> list[float]:
    """Return a − b, seed by seed, for the first seeds that both have."""
    return [x - y for x, y in zip(a, b, strict=False)]


def ratio(a: list[float], b: list[float]) -> list[float]:
    """Return a ÷ b, seed by seed."""
    return [x / y for x, y in zip(a, b, strict=True)]


STUDENT = {
    3: 4.303,
    4: 3.182,
    5: 2.776,
    6: 2.571,
    8: 2.365,
    10: 2.262,
}  # t for this number of values, 95 %


def lower_limit(gains: list[float]) -> float:
    """Return the lower end of the two-sided 95 % confidence interval of the mean of seeds."""
    if len(gains) not in STUDENT:
        known = ", ".join(map(str, STUDENT))
        raise ValueError(f"Student's t is for {known} seeds here, not {len(gains)}")
    return mean(gains) - STUDENT[len(gains)] * stdev(gains) / math.sqrt(len(gains))


def least_ratio(ratios: list[float]) -> float:
    """Return the lower 95 % limit of the geometric mean of ratios, which is symmetric in a ÷ b."""
    return math.exp(lower_limit([math.log(value) for value in ratios]))


def judge(run: Run, name: str, gains: list[float]) -> bool:
    """Record gains by seed in nats, and the lower 95 % limit of their mean; it decides a claim.

    Returns:
        Whether the limit is above 0.
    """
    run.measure(name, gains, unit="nats")
    what = f"{name}, lower 95 % limit"
    limit = lower_limit(gains)
    because = "0 is no gain"
    bound: dict[str, Any] = {"expect_at_least": 0.0, "because": because, "decides": True}
    return run.measure(what, limit, unit="nats", **bound) == "held"


def judge_ratio(run: Run, name: str, ratios: list[float]) -> bool:
    """Record the lower 95 % limit of the geometric mean of ratios; above 1 it decides a claim.

    Returns:
        Whether it is above 1.
    """
    what = f"{name}, lower 95 % limit"
    because = "a ratio of 1 is no difference"
    bound: dict[str, Any] = {"expect_at_least": 1.0, "because": because, "decides": True}
    return run.measure(what, least_ratio(ratios), **bound) == "held"


def show_decay(run: Run, angles: Callable[[Tensor, int], Tensor]) -> None:
    """Record by offset how far q·k falls for a key like the query; `angles` returns RoPE's."""
    for offset in (1, 32, 128):
        share = angles(torch.tensor(offset), 64).cos().mean()
        run.measure(f"RoPE: q·k ÷ q·q for k = q with equal pairs, offset {offset}", share)


@torch.no_grad()
def pair_scores(run: Run, position: Position, length: int = 128, d: int = 64) -> Tensor:
    """Return the score of one query token and one key token at all places, (T, T).

    It is that of head 0 of an untrained layer, which is the same for every position.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seeds(1)[0])
        attention = Attention(d)
        query, key = torch.randn(2, d)
    q = attention.q(position.embed(query.expand(1, length, d)))  # (1, T, d)
    k = attention.k(position.embed(key.expand(1, length, d)))
    q = position.turn(split_heads(q, attention.heads))  # (1, H, T, D)
    k = position.turn(split_heads(k, attention.heads))
    scores = q @ k.mT / math.sqrt(d // attention.heads)  # (1, H, T, T)
    bias = position.bias(attention.heads, length)
    return (scores if bias is None else scores + bias)[0, 0]


def spread_at_distances(scores: Tensor) -> float:
    """Return the largest difference between two places at one distance, for (T, T) scores."""
    diagonals = (scores.diagonal(-distance) for distance in range(len(scores) // 2))
    return max((row.max() - row.min()).item() for row in diagonals)


def largest_error(rounded: Tensor, exact: Tensor) -> float:
    """Return the largest relative error of any entry; 0 ÷ 0 counts as no error."""
    return (rounded.double() / exact - 1).nan_to_num().abs().max().item()


def llama_scores(x: Tensor, weights: Iterable[Tensor], angle: Tensor) -> Tensor:
    """Return the scores of Hugging Face's Llama, whose pairs are halves, (B, T, d) -> (B, H, T, T).

    Args:
        x: the vectors, for four heads.
        weights: W_q and W_k.
        angle: of each position and pair, (T, D/2).
    """
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    twice = torch.cat((angle, angle), -1)[None]  # (1, T, D)
    q, k = (split_heads(x @ w.mT, 4) for w in weights)  # (B, H, T, D)
    q, k = apply_rotary_pos_emb(q, k, twice.cos(), twice.sin())
    return q @ k.mT / math.sqrt(q.shape[-1])
