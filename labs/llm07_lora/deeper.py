# %% [markdown]
# # LLM07+ · LoRA, deeper
# The first step of α, places for adapters, the rank of an update, forgetting, QLoRA and DoRA.
#
# **You will be able to** predict the first step of an adapter; compare places and ranks fairly;
# measure the rank of full fine-tuning's update; train an adapter on a base of 4 bits; write DoRA
# and prove it equal to peft's. **Builds on** LLM07.
# **Takes** 30 minutes to read and a minute to run (`tiny`, 2 cores).

# %% Imports
import copy
import math
from functools import cache, partial
from itertools import product
from statistics import mean, median
from typing import Any

from labs.kit import Lab, Run, assets, seconds_paired, tolerance
from labs.kit.measure import peak_bytes
from labs.llm07_lora import deeper_figures, plays, training
from labs.llm07_lora.arms import ARMS, Arm, adapter_ranks
from labs.llm07_lora.lesson import (
    LoraLinear,
    adapter_state,
    adapters,
    insert,
    low_rank,
    swap,
)
from labs.llm07_lora.models import ALL, glass, in_float64, randomize, smollm2, take_out

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn

lab = Lab("LLM07+")
lab.argument("--model", help="a Llama-like chat model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. α and the first step
# Adam's first step moves every number of $B$ by the learning rate $\eta$, in the direction of its
# gradient's sign. With $s = \alpha/r$ and $G = \partial L/\partial W$, the update becomes
#
# $$\Delta W = -s\,\eta\,\text{sign}(G A^\top)\,A$$
#
# So twice the $\alpha$ is the same as twice the rate. Under plain gradient descent, $s$ counts
# twice: once in the gradient of $B$ and once in the product.
#
# Why divide $\alpha$ by $r$? Take a single token $x$, and let $g = \partial L/\partial h$ be the
# gradient at the layer's output, so $G = g x^\top$. With $a_k$ for row $k$ of $A$, the entry
# $B_{ik}$ moves by $-\eta\,\text{sign}(g_i)\,\text{sign}(a_k \cdot x)$. The output $i$ for this
# token then changes by
#
# $$-s\,\eta\,\text{sign}(g_i) \sum_{k=1}^{r} |a_k \cdot x|$$
#
# All $r$ terms have the same sign. At fixed $s$ the change grows like $r$. At fixed $\alpha$ it
# doesn't grow. With many tokens the terms agree only in part. If they didn't agree at all, the sum
# would grow like $\sqrt r$. Hu et al. divide by $r$; Kalajdzievski (2023) argues for $\sqrt r$.


# %% First steps
ADAM = partial(torch.optim.AdamW, weight_decay=0, eps=1e-20)  # ε far below every gradient


def first_step(rank: int, alpha: float, rate: float, optimizer: Any = ADAM) -> Any:
    """Return glass in float64 with an adapter after one step."""
    torch.manual_seed(1)  # the same A for the same rank
    model = insert(glass().double(), ALL, rank, alpha)
    rows = plays.rows().training[:4]
    training.tiny_steps(model, rows, 1, optimizer(training.trainable(model), lr=rate))
    return model


def updates(model: Any) -> Tensor:
    """Return all ΔW of a model in one long vector."""
    return torch.cat([layer.delta().detach().flatten() for layer in adapters(model).values()])


@lab.experiment
def alpha_is_a_learning_rate(run: Run):
    """In Adam's first step, twice α is twice the rate; at fixed α/r a larger rank steps further.

    Predict: at fixed α/r and rate, how much further does the first step of rank 64 go than rank 1?
    """
    change = updates(first_step(4, 8, 1e-3))
    same = updates(first_step(4, 16, 5e-4))
    name = "Adam: ΔW with 2α and η/2 − ΔW, relative"
    run.agree(name, (same - change) / change.norm(), decides=True)
    change = updates(first_step(4, 8, 1e-3, torch.optim.SGD))
    twice = updates(first_step(4, 16, 5e-4, torch.optim.SGD))
    name = "gradient descent: ΔW with 2α and η/2 − 2 ΔW, relative"
    run.agree(name, (twice - 2 * change) / change.norm())
    rows = plays.rows().test[:4]
    ranks = (1, 4, 16, 64)
    changes = []
    with torch.no_grad():
        before = glass().double()(rows).logits
        for rank in ranks:
            after = first_step(rank, 2 * rank, rate=1e-4)(rows).logits
            changes.append((after - before).norm().item())
        fixed = (first_step(64, 2, rate=1e-4)(rows).logits - before).norm().item()
    slope = math.log(changes[-1] / changes[0]) / math.log(64)
    because = "√r if the tokens disagree, r if they agree"
    name = "at fixed α/r the first step's change of the logits grows as r to the"
    run.measure(name, slope, expect_between=(0.5, 1), because=because, decides=True)
    because = "for a small step the same power, minus 1"
    name = "at fixed α: as r to the"
    flat = math.log(fixed / changes[0]) / math.log(64)
    run.measure(name, flat, expect_between=(-0.5, 0), because=because)
    deeper_figures.first_steps(run, ranks, changes)
    times = changes[-1] / changes[0]
    return (
        f"At fixed α/r, rank 64 steps {times:.0f} times as far as rank 1: as r to the {slope:.2f}."
    )


# %% [markdown]
# ## 2. Places and rank
# Glass learns plays in several ways, called **arms**. Three adapters in all linear layers have the
# ranks 1, 4 and 16. One adapter of rank 8 is in the query and value projections only, as in Hu et
# al. **Full** trains the same linear layers themselves. To be fair, embeddings and norms are frozen
# in all these arms. A last arm trains a new model from scratch, with all its weights.
#
# All adapters have $\alpha = 2r$, and all arms see the same batches. Each arm has the rate that is
# best for itself, in steps of a factor of two, on rows that serve nothing else. At `tiny` these
# rates were found beforehand; larger sizes train longer and also try half and twice of each.


# %% Arms
def build(arm: Arm) -> Any:
    """Return the model that an arm trains, its other weights frozen."""
    model = glass()
    if arm.rank:
        return insert(model, arm.targets, arm.rank, 2 * arm.rank)
    if not arm.pretrained:
        return type(model)(model.config)
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if name.split(".")[-1] in ALL:
            module.requires_grad_(True)
    return model


def learn(run: Run, model: Any, rate: float, seed: int, label: str, rows: Any = None) -> Any:
    """Train a model on rows, by default of plays."""
    steps, size = run.pick(tiny=(40, 4), small=(400, 8), full=(3000, 32))
    rows = plays.rows().training if rows is None else rows
    data = plays.batches(rows, size, steps, seed)
    return training.train_on_one_thread(run, model, data, steps, rate, label)


def fit(run: Run, name: str, seed: int, factor: float = 1.0) -> Any:
    """Train an arm with a seed, at its rate times a factor."""
    torch.manual_seed(seed)
    arm = ARMS[name]
    return learn(run, build(arm), arm.rate * factor, seed, f"{name}, seed {seed}")


@cache
def fits(run: Run, name: str) -> list[Any]:
    """Train an arm with three seeds, at the best of its rates for the first seed."""
    first, *others = run.seeds(3)
    factors = run.pick(tiny=(1.0,), small=(0.5, 1.0, 2.0), full=(0.5, 1.0, 2.0))
    valid = plays.rows().valid
    tried = {factor: fit(run, name, first, factor) for factor in factors}
    best = min(factors, key=lambda factor: training.test_loss(run, tried[factor].model, valid))
    return [tried[best], *(fit(run, name, seed, best) for seed in others)]


@cache
def losses(run: Run, name: str) -> list[float]:
    """Return an arm's loss on the test rows for each seed; "untouched" is glass itself."""
    test = plays.rows().test
    models = [glass()] * 3 if name == "untouched" else [fit.model for fit in fits(run, name)]
    return [training.test_loss(run, model, test) for model in models]


def gains(run: Run, name: str, over: str) -> list[float]:
    """Return what an arm gains over another, seed by seed (nats per token)."""
    pairs = zip(losses(run, over), losses(run, name), strict=True)
    return [theirs - ours for theirs, ours in pairs]


@lab.experiment
def adapters_beat_a_model_from_scratch(run: Run):
    """Every adapter, of rank 1 too, beats the untouched model, and a new one after as many steps.

    Predict: how much of full fine-tuning's gain does rank 1 in every layer reach?
    """
    table = []
    for name in ARMS:
        fit = fits(run, name)[0]
        numbers = training.count(fit.model)
        table.append([name, numbers, fit.optimizer_bytes, mean(losses(run, name))])
    columns = ["arm", "trained numbers", "bytes of AdamW's moments", "loss"]
    run.table("Plays: nats per token on test rows, mean of three seeds", columns, table)
    because = "below it, for every seed"
    names = adapter_ranks()
    for other in ("untouched", "from scratch"):
        lower = [gain for name in names for gain in gains(run, name, other)]
        run.check(f"{other} − each adapter", lower, at_least=0, because=because, decides=True)
    counts = {row[0]: row[1] for row in table}
    values = {name: losses(run, name) for name in ARMS if ARMS[name].pretrained}
    untouched = losses(run, "untouched")[0]
    scratch = mean(losses(run, "from scratch"))
    deeper_figures.arms(run, counts, values, untouched, scratch)
    full = mean(gains(run, "full", "untouched"))
    shares = [
        f"{100 * mean(gains(run, name, 'untouched')) / full:.0f} % by {name}" for name in names
    ]
    return f"Of full fine-tuning's gain: {'; '.join(shares)}."


@lab.experiment
def spreading_beats_rank(run: Run):
    """On glass, rank 1 in all linear layers beats rank 8 in q and v, with fewer numbers.

    Predict: how many fewer?
    """
    deep, wide = (training.count(fits(run, name)[0].model) for name in ("r = 1", "r = 8, q and v"))
    because = "q and v leave the MLP as it is, and it has most of the weights"
    gain = gains(run, "r = 1", "r = 8, q and v")
    name = "gain of rank 1 everywhere (nats)"
    run.measure(name, gain, expect_at_least=0, because=because, decides=True)
    run.check("trained numbers, q and v ÷ everywhere", wide / deep, at_least=1, decides=True)
    return f"{deep:,} numbers everywhere, {wide:,} in q and v; the gain is {mean(gain):.2f} nats."


@lab.experiment
def a_larger_rank_gains(run: Run):
    """On glass, rank 16 gains over rank 1, each at its own rate; at rank 1's rate it loses.

    Predict: on GPT-3, Hu et al. found rank 1 as good as more. What could differ here?
    """
    because = "above 0 for every seed"
    more = gains(run, "r = 16", "r = 1")
    run.measure("gain of rank 16 (nats)", more, expect_at_least=0, because=because, decides=True)
    factor = ARMS["r = 1"].rate / ARMS["r = 16"].rate
    test = plays.rows().test
    worse = [
        training.test_loss(run, fit(run, "r = 16", seed, factor).model, test) - loss
        for seed, loss in zip(run.seeds(3), losses(run, "r = 1"), strict=True)
    ]
    because = "section 1: at fixed α/r a larger rank takes a larger step"
    name = "rank 16 − rank 1, both at rank 1's rate (nats)"
    run.measure(name, worse, expect_at_least=0, because=because, decides=True)
    return (
        f"Rank 16 gains {mean(more):.2f} nats over rank 1, and loses {mean(worse):.2f} at rank 1's "
        "rate. One difference from GPT-3: a direction has 128 numbers here, there 12,288."
    )


# %% [markdown]
# ## 3. How low is the rank of the update?
# LoRA rests on a guess: what fine-tuning changes has a low "intrinsic rank" (Hu et al. 2021, §4.1).
# We can look at the update of the arm "full". The squared singular values of $\Delta W$ say how
# much of it lies in each direction. A random matrix of the same shape is the yardstick: it spreads
# over all directions.
#
# What does the *loss* say if we keep only $r$ directions of each $\Delta W$? `low_rank` turns them
# into an adapter. Embeddings and norms are those of glass in both, so the comparison with a trained
# adapter of the same rank is fair.
#
# Two controls are needed, as a smaller update also does something. Other directions, scaled up to
# the same squares, show whether it matters *which* ones we keep. All directions, scaled down to the
# same squares, show what a mere loss of size would cost.


# %% The update of full fine-tuning
def energy(matrix: Tensor) -> Tensor:
    """Return the share of Σσ² that the first 1, 2, 3 … directions hold."""
    squares = torch.linalg.svdvals(matrix.float()).square()
    return squares.cumsum(0) / squares.sum()


@torch.no_grad()
def cut(model: Any, first: int, last: int, like: int = 0) -> Any:
    """Return glass with directions `first` to `last` − 1 of each ΔW of a fine-tuned model.

    With `like`, they are scaled to the sum of squares of the first `like` directions.
    """
    short = insert(glass(), ALL, last - first, alpha=last - first)
    for name, layer in adapters(short).items():
        delta = model.get_submodule(name).weight.cpu() - layer.base.weight
        a, b = low_rank(delta, last)
        layer.A.copy_(a[first:])
        layer.B.copy_(b[:, first:])
        if like:
            layer.B.mul_(energy(delta)[like - 1].sqrt() * delta.norm() / layer.delta().norm())
    return short


@torch.no_grad()
def shrink(model: Any, like: int) -> Any:
    """Return glass with each ΔW scaled to the sum of squares of its first `like` directions."""
    small = glass()
    for name, layer in small.named_modules():
        if name.split(".")[-1] in ALL:
            delta = model.get_submodule(name).weight.cpu() - layer.weight
            layer.weight += energy(delta)[like - 1].sqrt() * delta
    return small


def weight_changes(models: list[Any], layer: str) -> list[Tensor]:
    """Return the ΔW of one kind of layer: of each model and each block."""
    base = dict(glass().named_modules())
    names = [name for name in base if name.endswith(layer)]
    return [
        model.get_submodule(name).weight.cpu() - base[name].weight
        for model, name in product(models, names)
    ]


def share_kept(run: Run, models: list[Any]) -> list[float]:
    """Return the share of full fine-tuning's gain that changed models keep, seed by seed."""
    test = plays.rows().test
    untouched = losses(run, "untouched")[0]
    kept = [untouched - training.test_loss(run, model, test) for model in models]
    return [part / gain for part, gain in zip(kept, gains(run, "full", "untouched"), strict=True)]


def squares_in_8(run: Run, tuned: list[Any]) -> dict[str, Tensor]:
    """Tabulate how much of each layer's ΔW 8 directions hold, and return all shares."""
    torch.manual_seed(run.seed)  # the same numbers, whether `fits` has just trained or not
    shares = {}
    table = []
    for layer in ALL:
        changes = weight_changes(tuned, layer)
        shares[layer] = torch.stack([energy(change) for change in changes]).mean(0)
        random = energy(torch.randn_like(changes[0]))
        table.append([layer, shares[layer][7].item(), random[7].item()])
    shares["random"] = random  # of the shape of the last layer
    run.table("Share of the squares in 8 directions", ["layer", "ΔW (mean)", "random"], table)
    ratios = [ours / random for _, ours, random in table]
    because = "1, within a few percent, if ΔW were random"
    run.check("share in 8 directions ÷ random", ratios, at_least=1.3, because=because)
    return shares


@lab.experiment
@torch.no_grad()
def the_largest_directions_do_most_of_the_work(run: Run):
    """On glass, 8 directions of full fine-tuning's update keep most of its gain; 8 others don't.

    Predict: which keeps more: the 8 largest directions, or all of them at the same sum of squares?
    """
    tuned = [fit.model for fit in fits(run, "full")]
    shares = squares_in_8(run, tuned)
    kept = share_kept(run, [cut(model, 0, 8) for model in tuned])
    because = "three quarters are most"
    name = "share of the gain that the 8 largest directions keep"
    run.measure(name, kept, expect_at_least=0.75, because=because, decides=True)
    others = share_kept(run, [cut(model, 40, 48, like=8) for model in tuned])
    because = "a third of the other bound"
    name = "directions 41 to 48, with the same squares"
    run.measure(name, others, expect_at_most=0.25, because=because, decides=True)
    shrunk = share_kept(run, [shrink(model, 8) for model in tuned])
    run.measure("all directions, with the same squares", shrunk)
    test = plays.rows().test
    short = {
        rank: [training.test_loss(run, cut(model, 0, rank), test) for model in tuned]
        for rank in (1, 4, 8, 16)
    }
    lora = {rank: losses(run, name) for name, rank in adapter_ranks().items() if "q" not in name}
    levels = {"untouched": losses(run, "untouched")[0], "full": mean(losses(run, "full"))}
    deeper_figures.spectrum(run, shares, short, lora, levels)
    largest = max(shares[layer][7].item() for layer in ALL)
    return (
        f"8 directions hold at most {100 * largest:.0f} % of a layer's squares, and keep "
        f"{100 * mean(kept):.0f} % of the gain. The entire update, shrunk as much, keeps "
        f"{100 * mean(shrunk):.0f} %: the gain falls more slowly than the squares."
    )


# %% [markdown]
# ## 4. What is forgotten
# A model's own domain is what it writes. Let glass write text, and ask the adapted model for its
# loss on it. On text sampled from $p_0$, another model $p_1$ has a larger loss than $p_0$, by the
# **Kullback–Leibler divergence**
#
# $$\sum_x p_0(x) \ln\frac{p_0(x)}{p_1(x)} \ge 0$$
#
# It is never negative. So on its own text nothing beats the base. Biderman et al. (2024) found that
# LoRA learns less and forgets less than full fine-tuning. Under an adapter, what was forgotten is
# still there: take the adapter out, and the base is back.


# %% Forgetting
@cache
@torch.no_grad()
def own_text(seed: int) -> Tensor:
    """Return rows that glass writes, sampled without a cut, (64, LENGTH)."""
    torch.manual_seed(seed)
    model = glass()
    tokens = [torch.full((64, 1), 2)]  # <bos>
    cache_ = None
    while len(tokens) < plays.LENGTH:
        seen = model(tokens[-1], cache=cache_, use_cache=True)
        cache_ = seen.cache
        tokens.append(seen.logits[:, -1].softmax(-1).multinomial(1))  # (64, 1)
    return torch.cat(tokens, 1)


@lab.experiment
@torch.no_grad()
def the_base_forgets(run: Run):
    """Adapted to plays, glass gets worse at its own text; without the adapter it is itself again.

    Predict: which forgets more for what it learns, full fine-tuning or rank 16?
    """
    rows = own_text(run.seed).to(run.device)
    before = training.row_losses(glass().to(run.device), rows)
    forgot = {}
    learned = {}
    table = [["untouched", before.mean().item(), losses(run, "untouched")[0]]]
    for name in (*adapter_ranks(), "full"):
        rises = [
            training.row_losses(fit.model.to(run.device), rows) - before for fit in fits(run, name)
        ]
        forgot[name] = [rise.mean().item() for rise in rises]
        learned[name] = gains(run, name, "untouched")
        table.append([name, before.mean().item() + mean(forgot[name]), mean(losses(run, name))])
        errors = [(rise.mean() / rise.std() * math.sqrt(len(rise))).item() for rise in rises]
        because = "a divergence is positive; sampling alone would give about ±1"
        run.check(
            f"{name}: rise, in standard errors", errors, at_least=5, because=because, decides=True
        )
    run.table("Loss (nats per token)", ["arm", "on what glass writes", "on plays"], table)
    deeper_figures.forgetting(run, learned, forgot)
    bare = take_out(copy.deepcopy(fits(run, "r = 4")[0].model)).cpu()
    same = training.fingerprint(bare) == training.fingerprint(glass())
    run.check("adapter taken out: the base, to the byte", same, equals=True, decides=True)
    price = {name: mean(forgot[name]) / mean(learned[name]) for name in forgot}
    ratio = price["r = 16"] / price["full"]
    because = "Biderman et al. 2024"
    run.measure("forgotten per learned, r = 16 ÷ full", ratio, expect_at_most=1, because=because)
    return f"For each nat learned, rank 16 forgets {price['r = 16']:.2f}, full {price['full']:.2f}."


@lab.experiment
def two_adapters_share_a_base(run: Run):
    """Each of two adapters is best at its own task; swapped back, the first gives the same bits.

    Predict: how much does the wrong adapter cost?
    """
    torch.manual_seed(run.seed)
    arm = ARMS["r = 4"]
    loud = plays.rows_in_capitals()
    second = learn(run, build(arm), arm.rate, run.seed, "capitals", loud.training).model
    states = [adapter_state(fits(run, "r = 4")[0].model), adapter_state(second)]
    model = build(arm).to(run.device)
    tests = (plays.rows().test, loud.test)
    table = []
    logits = []
    for name, state in (("plays", states[0]), ("capitals", states[1]), ("plays", states[0])):
        swap(model, state)
        table.append([name, *(training.test_loss(run, model, rows) for rows in tests)])
        with torch.no_grad():
            logits.append(model(tests[0][:4].to(run.device)).logits)
    run.table("Loss (nats per token)", ["adapter", "on plays", "on capitals"], table[:2])
    wrong = [table[1][1] - table[0][1], table[0][2] - table[1][2]]
    because = "the wrong adapter is worse"
    name = "the other adapter − its own, each task (nats)"
    run.check(name, wrong, at_least=0, because=because, decides=True)
    back = (logits[2] - logits[0]).abs().max()
    because = "the same numbers"
    run.check("swapped and back: change of a logit", back, at_most=0, because=because, decides=True)
    there = (logits[1] - logits[0]).abs().max()
    run.check("swapped: change of a logit", there, at_least=0.1, because="another adapter")
    return f"The wrong adapter costs {wrong[0]:.2f} and {wrong[1]:.2f} nats per token."


# %% [markdown]
# ## 5. A base of four bits
# LoRA still holds all of $W$. **QLoRA** (Dettmers et al. 2023) stores $W$ with four bits a number,
# and trains float adapters on top. Four bits name one of 16 **levels**. Cut each matrix into blocks
# of 64 numbers, divide a block by its largest absolute value, and store for each number the nearest
# level. The level times the block's scale gives back an approximation of $W$.
#
# Which levels? Trained weights look roughly normal, so QLoRA takes quantiles of the normal
# distribution, with an exact 0. Small numbers are frequent and get more levels. With a float32
# scale for 64 numbers, a weight takes $4 + 32/64 = 4.5$ bits instead of 32.
#
# The forward pass restores $W$ layer by layer. Gradients pass through it to the adapters, and the
# levels never change. Our version stores each level in a byte, for simplicity: 8.5 bits a weight.
# QLoRA packs two into a byte.


# %% Quantization
def normal_levels() -> Tensor:
    """Return 16 levels from −1 to 1: quantiles of the normal distribution, 0 among them."""
    edge = 0.9677  # of the largest quantile: halfway between 1 − 1/32 and 1 − 1/30
    positive = torch.special.ndtri(torch.linspace(0.5, edge, 9, dtype=torch.float64))
    negative = -torch.special.ndtri(torch.linspace(0.5, edge, 8, dtype=torch.float64))
    levels = torch.cat([negative[1:], positive])  # 0 once
    return (levels / positive.max()).sort().values.float()


@lab.exercise(
    level=2,
    hints=(
        "view(-1, block) gives a row for each block; its scale is abs().amax(1).",
        "Divide each row by its scale. A block of zeros has a scale of 0: clamp it first.",
        "(x[..., None] - levels).abs().argmin(-1) is the nearest level; return it as uint8.",
    ),
)
def quantize(weight: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return the nearest levels of a matrix, block by block: codes (out, in) and scales (blocks,).

    A block is `block` neighbouring numbers of the flattened matrix; its scale is its largest
    absolute value. Codes are indices of `levels`, in uint8.
    """
    blocks = weight.reshape(-1, block)  # (blocks, block)
    scales = blocks.abs().amax(1)  # (blocks,)
    relative = blocks / scales.clamp_min(1e-12)[:, None]
    codes = (relative[..., None] - levels).abs().argmin(-1)  # (blocks, block)
    return codes.to(torch.uint8).view(weight.shape), scales


class QuantizedLinear(nn.Module):
    """A linear layer without bias that stores codes and scales, and restores W for each use."""

    def __init__(self, linear: nn.Linear, levels: Tensor, block: int = 64):
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.block = block
        codes, scales = quantize(linear.weight.detach(), levels, block)
        self.codes = nn.Buffer(codes)  # (out, in)
        self.scales = nn.Buffer(scales)
        self.levels = nn.Buffer(levels)

    @property
    def weight(self) -> Tensor:
        """The restored matrix, (out, in)."""
        blocks = self.levels[self.codes.long()].view(-1, self.block)
        return (blocks * self.scales[:, None]).view(self.codes.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x, self.weight)


def quantize_bases(model: Any, levels: Tensor) -> Any:
    """Quantize the base of every adapter in place."""
    layers: dict[str, Any] = adapters(model)
    for layer in layers.values():
        layer.base = QuantizedLinear(layer.base, levels)
    return model


@lab.experiment
def an_adapter_learns_on_four_bits(run: Run):
    """On glass, an adapter on a 4-bit base learns nearly as much as one on the float32 base.

    Predict: by how much does rounding alone raise the loss of glass on its own text?
    """
    test = plays.rows().test
    arm = ARMS["r = 4"]
    own = own_text(run.seed)
    levels = {"normal quantiles": normal_levels(), "evenly spaced": torch.linspace(-1, 1, 16)}
    damage = {}
    for name, values in levels.items():
        rounded = quantize_bases(build(arm), values)
        before = training.test_loss(run, glass(), own)
        damage[name] = training.test_loss(run, rounded, own) - before
    names = list(damage)
    columns = ["levels", "rise of the loss on glass's own text (nats)"]
    run.table("Rounding alone", columns, list(damage.items()))
    because = "quantiles follow the weights"
    better = damage[names[1]] - damage[names[0]]
    run.measure("evenly spaced − normal quantiles", better, expect_at_least=0, because=because)
    on_four_bits = []
    for seed in run.seeds(3):
        torch.manual_seed(seed)
        model = quantize_bases(build(arm), levels[names[0]])
        tuned = learn(run, model, arm.rate, seed, f"four bits, seed {seed}")
        on_four_bits.append(training.test_loss(run, tuned.model, test))
    kept = [
        (losses(run, "untouched")[0] - loss) / gain
        for loss, gain in zip(on_four_bits, gains(run, "r = 4", "untouched"), strict=True)
    ]
    because = "nearly as much: nine tenths"
    name = "gain on four bits ÷ gain on float32, both from the float32 model's loss"
    run.measure(name, kept, expect_at_least=0.9, because=because, decides=True)
    weight = glass().model.layers[0].mlp.up_proj.weight
    deeper_figures.four_bits(run, levels[names[0]], weight)
    return (
        f"Rounding costs {damage[names[0]]:.3f} nats on glass's own text. The adapter on four "
        f"bits reaches {100 * mean(kept):.0f} % of the gain."
    )


# %% [markdown]
# ## 6. DoRA: direction and size apart
# **DoRA** (Liu et al. 2024) separates what $W + sBA$ says into a direction and a size for each
# output. Row $i$ of the new matrix is
#
# $$m_i\,\frac{w_i}{\lVert w_i \rVert}, \qquad w_i = \text{row } i \text{ of } W + s B A$$
#
# The sizes $m_i$ are trained, too. They start as the norms of $W$'s rows, so nothing changes at
# first. The authors treat $\lVert w_i \rVert$ as a constant in the backward pass (§4.3) to save
# memory. `detach()` does that. But the norms need all of $W + s B A$ in each forward pass, a matrix
# that LoRA never forms. That is DoRA's price.


# %% DoRA
class DoraLinear(LoraLinear):
    """A LoRA layer whose rows have trained sizes."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__(base, rank, alpha)
        self.magnitude = nn.Parameter(base.weight.detach().norm(dim=1))  # (out,)

    @lab.exercise(
        level=3,
        hints=(
            "The norms are those of the rows of self.base.weight + self.delta(): norm(dim=1).",
            "Detach them. The factor of each output is magnitude / norms, (out,).",
            "Scale LoRA's output without the bias by this factor, then add the bias, if any.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out): each row of W + ΔW has the size `magnitude`; bias unscaled.

        The rows' norms count as constants in the backward pass.
        """
        norms = (self.base.weight + self.delta()).norm(dim=1).detach()  # (out,)
        low = F.linear(x, self.A)  # (..., r)
        output = F.linear(x, self.base.weight) + F.linear(low, self.B) * (self.alpha / self.rank)
        output = output * (self.magnitude / norms)
        return output if self.base.bias is None else output + self.base.bias


def with_dora(model: Any) -> Any:
    """Replace each LoRA layer by DoRA with the same A and B; its sizes train as well."""
    for name, layer in adapters(model).items():
        dora = DoraLinear(layer.base, layer.rank, layer.alpha)
        dora.A = layer.A
        dora.B = layer.B
        model.set_submodule(name, dora)
    return model


@lab.experiment
def dora_equals_peft(run: Run):
    """Our DoRA gives the logits of peft's, before and after ten steps of training."""
    rows = plays.rows().training[:4]
    ours = with_dora(randomize(insert(in_float64(glass()), ALL, rank=4, alpha=8)))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(ALL), use_dora=True)
    theirs = get_peft_model(in_float64(glass()), config)
    state = adapter_state(ours)
    layers: dict[str, Any] = adapters(ours)
    for name, layer in layers.items():
        key = f"base_model.model.{name}.lora_magnitude_vector"
        state[key] = layer.magnitude.detach().clone()
    set_peft_model_state_dict(theirs, state)
    start = ours(rows).logits.detach()
    run.agree("logits", start - theirs(rows).logits, tolerance(torch.float64), decides=True)
    run.check("trained numbers", training.count(theirs), equals=training.count(ours))
    for model in (ours, theirs):
        training.tiny_steps(model, rows, 10, training.adamw(model, 1e-2))
    trained = ours(rows).logits.detach()
    error = trained - theirs(rows).logits
    run.agree("logits after ten steps", error, tolerance(torch.float64), decides=True)
    moved = (trained - start).abs().max()
    run.check("training changed a logit by", moved, at_least=0.1, because="so it was trained")


@lab.experiment
def dora_beside_lora(run: Run):
    """On glass, DoRA of rank 4 ends at a lower loss than LoRA of rank 4, at the same rate.

    Predict: how many more numbers does it train?
    """
    arm = ARMS["r = 4"]
    found = []
    for seed in run.seeds(3):
        torch.manual_seed(seed)
        model = with_dora(build(arm))
        numbers = training.count(model)
        tuned = learn(run, model, arm.rate, seed, f"DoRA, seed {seed}")
        found.append(training.test_loss(run, tuned.model, plays.rows().test))
    gain = [lora - dora for lora, dora in zip(losses(run, "r = 4"), found, strict=True)]
    because = "Liu et al. 2024 report gains on larger models"
    run.measure("gain over LoRA (nats)", gain, expect_at_least=0, because=because, decides=True)
    more = numbers / training.count(fits(run, "r = 4")[0].model) - 1
    return f"DoRA trains {100 * more:.0f} % more numbers and gains {mean(gain):.3f} nats."


# %% [markdown]
# ## 7. What shrinks, and what a merge loses
# LoRA shrinks what belongs to *trained* numbers: a gradient for each, and AdamW's two moments. The
# weights stay, and so do most activations. To reach the first $A$ and $B$, the backward pass runs
# through every layer, and its inputs stay in memory. So fifty times fewer trained numbers isn't
# fifty times less memory.
#
# A merge rounds. In bfloat16, with 8 bits of precision, a change below 1/512 of a weight is less
# than half a unit in the last place, and vanishes. Adding in float32 and rounding afterwards
# doesn't help: a sum in bfloat16 is just that. So keep the adapter of a bfloat16 model beside it,
# or store the merged weights in float32.


# %% Memory and merging
@lab.experiment
def memory_shrinks_by_less(run: Run):
    """A training step's memory shrinks far less than the number of trained numbers does.

    Predict: SmolLM2, rank 8 in all linear layers, a few short rows: how much less memory?
    """
    table: list[list[Any]] = []
    for name in ("full", "LoRA"):
        model = smollm2(run)[0]
        tokens = torch.randint(model.config.vocab_size, (run.pick(tiny=4, small=8, full=32), 48))
        if name == "LoRA":
            insert(model, ALL, rank=8, alpha=16)
        weights = 4 * sum(weight.numel() for weight in model.parameters())
        loss = partial(training.loss_on, model, tokens)
        step = peak_bytes(lambda loss=loss: loss().backward())
        moments = 8 * training.count(model)
        parts = [size / 2**20 for size in (weights, step, moments, weights + step + moments)]
        table.append([name, training.count(model), *parts])
    columns = ["", "trained numbers", "weights", "forward and backward", "AdamW's moments", "sum"]
    title = "MiB in float32 on the CPU; forward and backward measured, the rest counted"
    run.table(title, columns, table)
    fewer = table[0][1] / table[1][1]
    less = table[0][-1] / table[1][-1]
    deeper_figures.memory(run, table)
    name = "times fewer trained numbers ÷ times less memory"
    training.check_embedded(run, name, fewer / less, "weights and activations stay", at_least=5)
    return f"{fewer:.0f} times fewer trained numbers, {less:.1f} times less memory."


@lab.experiment
@torch.no_grad()
def a_merge_in_bf16_loses_updates(run: Run):
    """Merged into bfloat16 weights, much of Adam's first update vanishes; float32 keeps it."""
    step = updates(first_step(4, 8, rate=1e-3))
    base = glass()
    names = list(adapters(first_step(4, 8, rate=1e-3)))
    weights = torch.cat([base.get_submodule(name).weight.flatten() for name in names])
    lost = {}
    for dtype in (torch.bfloat16, torch.float32):
        before = weights.to(dtype)
        changed = step != 0
        same = (before + step.to(dtype) == before) & changed
        lost[dtype] = (same.sum() / changed.sum()).item()
    because = "8 bits: half a unit is 1/512 of a weight"
    name = "share of the updates that a weight in bfloat16 ignores"
    run.measure(name, lost[torch.bfloat16], expect_at_least=0.1, because=because, decides=True)
    before = weights.bfloat16()
    same = ((before.float() + step.float()).bfloat16() == before) & changed
    name = "the same, added in float32 and then rounded"
    run.measure(name, (same.sum() / changed.sum()).item(), expect_at_least=0.1, because=because)
    because = "24 bits: half a unit is 1/33,554,432 of a weight"
    name = "the same in float32, not rounded"
    run.measure(name, lost[torch.float32], expect_at_most=0.01, because=because, decides=True)
    x = torch.randn(run.pick(tiny=256, small=1024, full=4096), 576, device=run.device)
    layer = LoraLinear(nn.Linear(576, 576, bias=False), 8, 16).to(run.device)
    slow, fast = seconds_paired(lambda: layer(x), lambda: layer.base(x), 15)
    ratio = median(a / b for a, b in zip(slow, fast, strict=True))
    name = "time of a 576 × 576 layer, unmerged ÷ merged"
    run.measure(name, ratio, timed=True)
    return f"In bfloat16 {100 * lost[torch.bfloat16]:.0f} % of the updates vanish."


# %% [markdown]
# ## What to remember
# - In the first step $\alpha$ is a learning rate. A larger rank takes a larger step at the same
#   $\alpha/r$, so it wants a lower rate.
# - Compare arms at their own best rates, with the same weights frozen.
# - The same number of trained numbers does more in all linear layers than in two of them.
# - Full fine-tuning's update isn't of low rank, but its largest directions do most of the work.
# - Weights and activations stay, so memory shrinks far less than the number of trained numbers.
# - A 4-bit base and DoRA change the base or the size of rows; the adapter stays the same two thin
#   matrices.
#
# **Read on**: Kalajdzievski 2023 on α/√r · Biderman et al. 2024 on learning and forgetting ·
# Dettmers et al. 2023, *QLoRA* · Liu et al. 2024, *DoRA*. Next: LLM08, data and training.

# %%
if __name__ == "__main__":
    lab.main()
