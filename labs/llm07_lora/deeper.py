# %% [markdown]
# # LLM07+ · LoRA, deeper
# α and the first step, places for adapters, the update's rank, forgetting, QLoRA, DoRA, merging.
#
# **You will be able to** predict the first step of an adapter; compare places and ranks fairly;
# measure the rank of full fine-tuning's update, what is forgotten at equal learning, and what a
# merge loses; train an adapter on a base of 4 bits; write DoRA and prove it equal to peft's.
# **Builds on** LLM07. **Takes** 35 minutes to read, two minutes to run (`tiny`, 2 cores).

# %% Imports
import copy
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from statistics import mean, median
from typing import Any

from labs.kit import Lab, Run, assets, on_one_thread, seconds_paired, tolerance
from labs.kit.measure import peak_bytes
from labs.llm07_lora import deeper_figures, plays, training
from labs.llm07_lora.arms import ARMS, DORA_RATE, LADDER, MAGNITUDES_RATE, Arm, adapter_ranks
from labs.llm07_lora.forgetting import forgotten, own_text, partial_learning, scale_that_gains
from labs.llm07_lora.lesson import LoraLinear, adapter_state, adapters, insert, swap
from labs.llm07_lora.models import ALL, glass, in_float64, randomize, smollm2, take_out
from labs.llm07_lora.updates import cut, merge_costs, scaled, shrink, squares_in_8

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn

lab = Lab("LLM07+", width=32)  # A and B are thin
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. α and the first step
# Adam's first step moves every number of $B$ by the learning rate $\eta$, against its gradient's
# sign. $A$ has no gradient yet, as $B = 0$ (LLM07). Let $s = \alpha/r$ and
# $G = \partial L/\partial W$. The exercise asks for the update after this step. It is proportional
# to $s\,\eta$: twice the $\alpha$ is twice the rate. Plain gradient descent gives
# $\Delta W = -s^2\,\eta\,G A^\top A$. There $s$ counts twice: in $B$'s gradient and in $s B A$.
#
# Why divide $\alpha$ by $r$? Take a single token $x$, and let $g = \partial L/\partial h$ be the
# gradient at the layer's output, so $G = g x^\top$. With $a_k$ for row $k$ of $A$, the entry
# $B_{ik}$ moves by $-\eta\,\text{sign}(g_i)\,\text{sign}(a_k \cdot x)$. This changes output $i$ by
#
# $$-s\,\eta\,\text{sign}(g_i) \sum_{k=1}^{r} |a_k \cdot x|$$
#
# All $r$ terms have the same sign. At fixed $s$ the change grows like $r$. At fixed $\alpha$ it
# doesn't grow. For another token $x'$ the output changes by a sum of the terms $\text{sign}(a_k
# \cdot x)\,(a_k \cdot x')$. If $x$ and $x'$ are similar, these have the same sign, and the sum
# grows like $r$. If they are unrelated, the signs are random, and it grows like $\sqrt r$. Hu et
# al. divide $\alpha$ by $r$. Kalajdzievski (2023) divides by $\sqrt r$, so that activations and
# gradients keep their size as $r$ grows.


# %% First steps
@lab.exercise(
    level=2,
    hints=(
        "B starts at 0 and has the gradient s G Aᵀ. By how much does the step move its numbers?",
        "Each moves by the rate, against its gradient's sign. A positive s changes no sign.",
        "B becomes -rate * (g @ a.mT).sign(). The update is scale times this B times A.",
    ),
)
def first_update(g: Tensor, a: Tensor, scale: float, rate: float) -> Tensor:
    """Return ΔW (out, in) after Adam's first step from B = 0; G (out, in) is W's gradient.

    The scale is α/r, A is (r, in), and ε is 0.
    """
    return -scale * rate * (g @ a.mT).sign() @ a


ADAM = partial(torch.optim.AdamW, weight_decay=0, eps=1e-20)  # ε far below every gradient


def adapted(rank: int, alpha: float, seed: int = 1) -> Any:
    """Return glass in float64 with a new adapter, the same for the same rank and seed."""
    torch.manual_seed(seed)
    return insert(glass().double(), ALL, rank, alpha)


def first_step(rank: int, alpha: float, rate: float, optimizer: Any = ADAM, seed: int = 1) -> Any:
    """Return glass in float64 with an adapter after one step."""
    model = adapted(rank, alpha, seed)
    rows = plays.rows().training[:4]
    training.tiny_steps(model, rows, 1, optimizer(training.trainable(model), lr=rate))
    return model


def updates(model: Any) -> Tensor:
    """Return all ΔW of a model in one long vector."""
    return torch.cat([layer.delta().detach().flatten() for layer in adapters(model).values()])


@lab.experiment
@on_one_thread
def alpha_is_a_learning_rate(run: Run):
    """In Adam's first step, twice α is twice the rate; at fixed α/r a larger rank steps further.

    Predict: at fixed α/r and rate, how much further does the first step of rank 64 go than rank 1?
    """
    change = updates(first_step(4, 8, 1e-3))
    model = adapted(4, 8)
    layers: list[Any] = list(adapters(model).values())
    gradients = training.gradients(model, layers, plays.rows().training[:4])
    pairs = zip(layers, gradients, strict=True)
    want = [first_update(each.W, layer.A.detach(), 2, 1e-3).flatten() for layer, each in pairs]
    name = "Adam: first_update − ΔW, relative"
    run.agree(name, (torch.cat(want) - change) / change.norm(), decides=True)
    same = updates(first_step(4, 16, 5e-4))
    name = "Adam: ΔW with 2α and η/2 − ΔW, relative"
    run.agree(name, (same - change) / change.norm(), decides=True)
    change = updates(first_step(4, 8, 1e-3, torch.optim.SGD))
    twice = updates(first_step(4, 16, 5e-4, torch.optim.SGD))
    name = "gradient descent: ΔW with 2α and η/2 − 2 ΔW, relative"
    run.agree(name, (twice - 2 * change) / change.norm())
    rows = plays.rows().test[:4]
    ranks = (1, 4, 16, 64)
    curves: list[list[float]] = []  # for each seed, the changes of the logits by rank
    with torch.no_grad():
        before = glass().double()(rows).logits
        for seed in run.seeds(3):
            models = [first_step(rank, 2 * rank, rate=1e-4, seed=seed) for rank in ranks]
            curves.append([(model(rows).logits - before).norm().item() for model in models])
    slopes = [math.log(curve[-1] / curve[0]) / math.log(64) for curve in curves]
    because = "√r if the signs are independent, r if they are the same"
    name = "at fixed α/r the first step's change of the logits grows as r to the"
    run.measure(name, slopes, expect_between=(0.5, 1), because=because, decides=True)
    deeper_figures.first_steps(run, ranks, [mean(seeds) for seeds in zip(*curves, strict=True)])
    times = 64 ** mean(slopes)
    return f"Rank 64 steps {times:.0f} times as far as rank 1: as r to the {mean(slopes):.2f}."


# %% [markdown]
# ## 2. Rates, places and ranks
# We train glass on plays in several ways, called **arms**. Three adapters in all linear layers have
# the ranks 1, 4 and 16. Three arms have adapters in fewer places: rank 8 in the query and value
# projections, as in Hu et al., rank 2 in attention, rank 1 in the MLP. **Full** trains the same
# linear layers themselves. To be fair, embeddings and norms are frozen in all arms.
#
# All adapters have $\alpha = 2r$, and all arms see the same batches. We tuned each arm's rate by
# factors of two on validation rows, for the short training of `tiny`, and took the lower of two
# nearly equal rates. Larger sizes train longer and also try half and twice of each rate.
#
# The first experiment repeats this search for ranks 1, 4 and 16. How does the best rate depend on
# $r$ at fixed $\alpha/r$? Suppose that only the first step counts. Section 1's change grew like
# $r^{0.86}$. To undo this, the rate must fall like $r^{-0.86}$: about 11 times from rank 1 to 16.
# We fit a parabola through the lowest loss and its two neighbours, and take its minimum.


# %% Arms
def build(arm: Arm) -> Any:
    """Return the model that an arm trains, its other weights frozen."""
    model = glass()
    if arm.rank:
        return insert(model, arm.targets, arm.rank, 2 * arm.rank)
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if name.split(".")[-1] in ALL:
            module.requires_grad_(True)
    return model


def learn(run: Run, model: Any, rate: float, seed: int, label: str, rows: Any = None) -> Any:
    """Train a model on rows, by default of plays."""
    steps, size = run.pick(tiny=(40, 4), small=(100, 8), full=(3000, 32))
    rows = plays.rows().training if rows is None else rows
    data = plays.batches(rows, size, steps, seed)
    return training.train_on_one_thread(run, model, data, steps, rate, label)


@cache
def train_arm(run: Run, name: str, seed: int, factor: float = 1.0) -> Any:
    """Train an arm with a seed, at its rate times a factor."""
    torch.manual_seed(seed)
    arm = ARMS[name]
    label = f"{name}, {factor:g} × rate, seed {seed}"
    return learn(run, build(arm), arm.rate * factor, seed, label)


FACTORS = (0.5, 1.0, 2.0)


def best_of_rates(run: Run, train: Callable[[int, float], Any]) -> list[Any]:
    """Train with three seeds, at the best rate for the first seed; `tiny` takes the tuned rate."""
    first, *others = run.seeds(3)
    factors = run.pick(tiny=(1.0,), small=FACTORS, full=FACTORS)
    tried = {factor: train(first, factor) for factor in factors}
    best = min(factors, key=lambda factor: valid_loss(run, tried[factor].model))
    return [tried[best], *(train(seed, best) for seed in others)]


def valid_loss(run: Run, model: Any) -> float:
    """Return the loss on the validation rows."""
    return training.test_loss(run, model, plays.rows().valid)


@cache
def trained(run: Run, name: str) -> list[Any]:
    """Train an arm with three seeds."""
    return best_of_rates(run, lambda seed, factor: train_arm(run, name, seed, factor))


@cache
def losses(run: Run, name: str) -> list[float]:
    """Return an arm's loss on the test rows for each seed; "untouched" is glass itself."""
    test = plays.rows().test
    models = [glass()] * 3 if name == "untouched" else [each.model for each in trained(run, name)]
    return [training.test_loss(run, model, test) for model in models]


def gains(run: Run, name: str, over: str) -> list[float]:
    """Return what an arm gains over another, seed by seed (nats per token)."""
    pairs = zip(losses(run, over), losses(run, name), strict=True)
    return [theirs - ours for theirs, ours in pairs]


def lowest(values: Sequence[float]) -> float:
    """Return where values at 0, 1, 2 … are lowest: between neighbours, or exactly at an end."""
    place = values.index(min(values))
    if place in (0, len(values) - 1):
        return place
    left, middle, right = values[place - 1 : place + 2]
    return place + (left - right) / (2 * (left - 2 * middle + right))


def by_rate(run: Run, name: str, seed: int) -> tuple[dict[float, float], float]:
    """Return an arm's loss on validation rows for each rate, and the best rate."""
    curve = {}
    factors = (*FACTORS, 4.0) if name == "r = 16" else FACTORS  # 4 times its rate is rank 1's
    for factor in factors:
        tuned = train_arm(run, name, seed, factor)
        curve[ARMS[name].rate * factor] = valid_loss(run, tuned.model)
    return curve, min(curve) * 2 ** lowest(list(curve.values()))


# %% The best rate
@lab.experiment
def the_best_rate_falls_with_the_rank(run: Run):
    """On glass, in a short training at fixed α/r, the best rate falls with r, at most like 1/√r.

    Predict: rank 16 against rank 1: how many times smaller is its best rate?
    """
    seeds = run.seeds(run.pick(tiny=2, small=3, full=3))
    curves = {}
    best = {}
    for name in LADDER:
        curves[name], best[name] = by_rate(run, name, seeds[0])
    rates = sorted({rate for curve in curves.values() for rate in curve})
    rows = [[name, *(curves[name].get(rate, "") for rate in rates), best[name]] for name in LADDER]
    columns = ["arm", *(f"at {rate:g}" for rate in rates), "best rate"]
    run.table("Loss on validation rows, by rate, first seed", columns, rows)
    ratios = [by_rate(run, "r = 16", seed)[1] / by_rate(run, "r = 1", seed)[1] for seed in seeds]
    powers = [math.log(ratio) / math.log(16) for ratio in ratios]
    because = "0 if it didn't fall, −0.5 by 1/√r; the rates tried allow −1 to 0.25"
    name = "at fixed α/r the best rate changes as r to the"
    run.measure(name, powers, expect_between=(-0.5, 0), because=because, decides=True)
    deeper_figures.best_rates(run, [ARMS[name].rank for name in LADDER], curves, best)
    return (
        f"From rank 1 to 16 the best rate falls {1 / mean(ratios):.1f} times: as r to the "
        f"{mean(powers):.2f}. Section 1's first step would suggest about 11 times."
    )


# %% Places and ranks
@lab.experiment
def every_adapter_learns(run: Run):
    """On glass, every adapter beats the untouched model; rank 1 has at least half of full's gain.

    Predict: which share of full fine-tuning's gain does rank 1 in every layer reach?
    """
    table = []
    for name in ARMS:
        first = trained(run, name)[0]
        numbers = training.count(first.model)
        table.append([name, numbers, first.optimizer_bytes, mean(losses(run, name))])
    columns = ["arm", "trained numbers", "bytes of AdamW's moments", "loss"]
    run.table("Plays: nats per token on test rows, mean of three seeds", columns, table)
    names = adapter_ranks()
    lower = [gain for name in names for gain in gains(run, name, "untouched")]
    run.check("untouched − each adapter", lower, at_least=0, because="0 if untrained", decides=True)
    pairs = zip(gains(run, "r = 1", "untouched"), gains(run, "full", "untouched"), strict=True)
    parts = [ours / theirs for ours, theirs in pairs]
    name = "gain of rank 1 ÷ gain of full"
    because = "half is far below our seeds' 0.75 to 0.78"
    run.measure(name, parts, expect_at_least=0.5, because=because, decides=True)
    counts = {row[0]: row[1] for row in table}
    values = {name: losses(run, name) for name in ARMS}
    deeper_figures.arms(run, counts, values, losses(run, "untouched")[0])
    full = mean(gains(run, "full", "untouched"))
    shares = [
        f"{100 * mean(gains(run, name, 'untouched')) / full:.0f} % by {name}" for name in names
    ]
    return f"Of full fine-tuning's gain: {'; '.join(shares)}."


@lab.experiment
def all_layers_beat_q_and_v(run: Run):
    """On glass, rank 1 in all linear layers beats rank 8 in q and v, with fewer numbers.

    The comparison mixes two causes: the number of layers, and whether the MLP is among them.

    Predict: which does more, rank 2 in attention or rank 1 in the MLP?
    """
    table = []
    for name in ("r = 8, q and v", "r = 2, attention", "r = 1, MLP", "r = 1"):
        loss = mean(losses(run, name))
        table.append([name, training.count(trained(run, name)[0].model), loss])
    run.table("Places", ["arm", "trained numbers", "loss"], table)
    gain = gains(run, "r = 1", "r = 8, q and v")
    name = "gain over rank 8 in q and v (nats)"
    run.measure(name, gain, expect_at_least=0, because="0 if equal", decides=True)
    fewer = table[0][1] / table[-1][1]
    run.check("trained numbers, q and v ÷ everywhere", fewer, at_least=1, decides=True)
    for place in ("r = 2, attention", "r = 1, MLP"):
        run.measure(f"gain over {place} (nats)", gains(run, "r = 1", place))
    return (
        f"{table[-1][1]:,} numbers everywhere, {table[0][1]:,} in q and v; the gain is "
        f"{mean(gain):.2f} nats. The MLP alone reaches {table[2][2]:.2f} with {table[2][1]:,} "
        f"numbers, attention alone {table[1][2]:.2f} with {table[1][1]:,}."
    )


@lab.experiment
def a_larger_rank_gains(run: Run):
    """On glass, rank 16 gains over rank 1, each at its own rate; at rank 1's rate it loses.

    Predict: for q and v of GPT-3, Hu et al. found rank 1 as good as more. What differs here?
    """
    more = gains(run, "r = 16", "r = 1")
    run.measure("rank 16's gain (nats)", more, expect_at_least=0, because="0 if none", decides=True)
    factor = ARMS["r = 1"].rate / ARMS["r = 16"].rate
    test = plays.rows().test
    worse = []
    for seed in run.seeds(3):
        larger = training.test_loss(run, train_arm(run, "r = 16", seed, factor).model, test)
        worse.append(larger - training.test_loss(run, train_arm(run, "r = 1", seed).model, test))
    because = "section 1: at fixed α/r a larger rank takes a larger step"
    name = "rank 16 − rank 1, both at rank 1's rate (nats)"
    run.measure(name, worse, expect_at_least=0, because=because, decides=True)
    return (
        f"Rank 16 gains {mean(more):.2f} nats over rank 1, and loses {mean(worse):.2f} at rank 1's "
        "rate. Here adapters are in all linear layers, and a direction has 128 numbers, not 12,288."
    )


# %% [markdown]
# Of the rates in the table, the best fell 4 times from rank 1 to 16, like $1/\sqrt r$. By the
# parabolas it fell 2.4 times. Both are far from 11. So after 40 steps the first step no longer
# decides. It gives the direction: a larger rank needs a lower rate at the same $\alpha/r$.
#
# ## 3. How low is the rank of the update?
# LoRA rests on a guess: the change that fine-tuning makes has a low "intrinsic rank" (Hu et al.
# 2021, §4.1). We can look at the update of the arm "full". The share of direction $k$ is
# $\sigma_k^2 / \sum_i \sigma_i^2$. The yardstick is a random matrix of the same shape.
#
# How much of the *gain* remains if we use only $r$ directions of each $\Delta W$? `low_rank` turns
# them into an adapter. A trained adapter of rank $r$ is a fair comparison: both have glass's
# embeddings and norms. We also compare three updates of one **norm**, $\sqrt{\sum_k \sigma_k^2}$:
#
# - the 8 largest directions, by `cut` in updates.py,
# - 8 later directions, stretched to this norm: would any 8 directions do?
# - the entire update, scaled down to it by `shrink`: what does a smaller norm alone cost?
#
# Theory predicts the last. Let the 8 largest directions have the share $e$ of the squares. Then the
# entire update is scaled by $t = \sqrt e$. Suppose that the loss along $t\,\Delta W$ is a parabola
# with its minimum at $t = 1$. Then the share $1 - (1 - t)^2 = 2\sqrt e - e$ of the gain remains. We
# put in the mean $e$ of layers that differ, so expect a rough fit.


# %% The update of full fine-tuning
def shares_of_gain(run: Run, models: list[Any]) -> list[float]:
    """Return the share of full fine-tuning's gain that changed models have, seed by seed."""
    test = plays.rows().test
    untouched = losses(run, "untouched")[0]
    parts = [untouched - training.test_loss(run, model, test) for model in models]
    return [part / gain for part, gain in zip(parts, gains(run, "full", "untouched"), strict=True)]


@lab.experiment
@torch.no_grad()
def the_largest_directions_do_most_of_the_work(run: Run):
    """On glass, full fine-tuning's 8 largest directions have at least 75 % of its gain.

    Predict: which has more: the 8 largest directions, or the entire update scaled to their norm?
    """
    tuned = [each.model for each in trained(run, "full")]
    shares = squares_in_8(run, tuned)
    eight = shares_of_gain(run, [cut(model, 0, 8) for model in tuned])
    name = "share of the gain, 8 largest directions"
    because = "more than their share of the squares, two thirds at most"
    run.measure(name, eight, expect_at_least=0.75, because=because, decides=True)
    later = shares_of_gain(run, [cut(model, 40, 48, like=8) for model in tuned])
    run.measure("directions 41 to 48, scaled to the same norm", later)
    shrunk = shares_of_gain(run, [shrink(model, 8) for model in tuned])
    run.measure("the entire update, scaled to the same norm", shrunk)
    of_squares = mean(shares[layer][7].item() for layer in ALL)
    predicted = 2 * math.sqrt(of_squares) - of_squares
    run.measure("predicted for it: 2√e − e, e the mean share of the layers", predicted)
    test = plays.rows().test
    short = {
        rank: [training.test_loss(run, cut(model, 0, rank), test) for model in tuned]
        for rank in (1, 4, 8, 16)
    }
    lora = {ARMS[name].rank: losses(run, name) for name in LADDER}
    levels = {"untouched": losses(run, "untouched")[0], "full": mean(losses(run, "full"))}
    deeper_figures.spectrum(run, shares, short, lora, levels)
    parts = [100 * shares[layer][7].item() for layer in ALL]
    return (
        f"8 directions have {min(parts):.0f} to {max(parts):.0f} % of a layer's squares, and "
        f"{100 * mean(eight):.0f} % of the gain. The entire update, scaled to their norm, has "
        f"{100 * mean(shrunk):.0f} % (predicted {100 * predicted:.0f} %)."
    )


# %% [markdown]
# In our run the 8 largest directions had a third to two thirds of each layer's squares, and 89 % of
# the gain. The 8 later ones had 9 %. But they were stretched several times, and by the parabola an
# update at twice its size gains nothing. So this doesn't show that they are useless. And a smaller
# norm alone costs little, as a parabola is flat near its minimum: the entire update at that norm
# had 95 %. So a high share of the gain doesn't show a low rank.
#
# How low is the rank, then? 8 directions have 2 to 3 times the share of 8 directions in a random
# matrix. But a third to two thirds of the squares are outside: the update isn't of rank 8.
#
# ## 4. What is forgotten
# We sample text from glass and compute the adapted model's loss on it. On text from $p_0$, another
# model $p_1$ has a larger loss than $p_0$. The difference is the **Kullback–Leibler divergence**
#
# $$\sum_x p_0(x) \ln\frac{p_0(x)}{p_1(x)} \ge 0$$
#
# It is never negative: in expectation, no model beats the base on the base's own text. So a rise
# shows only that the model has changed. The question is how large it is.
#
# Biderman et al. (2024) report that LoRA learns less and forgets less than full fine-tuning. But
# learning and forgetting are linked. Scale an update to $t\,\Delta W$. For small $t$ the gain on
# the new task grows like $t$. The divergence grows like $t^2$, as it has its minimum at $t = 0$. So
# a scaled-down copy of *the same* update forgets less for each nat that it learns. An arm may look
# better only because its update is smaller. The thin lines of the figure below show this.
#
# A fair comparison needs **equal learning**. We scale down the updates of both arms, until each
# gains half of what the weaker arm gained. The last part of an update, near $t = 1$, teaches little
# and forgets much. If we scaled only one arm, only the other would still have this part. A scaled
# update isn't a shorter training: Biderman et al. compare trained models.


# %% Forgetting
@lab.experiment
@torch.no_grad()
def the_base_forgets(run: Run):
    """On glass, at equal learning, rank 16 forgets at least 90 % as much as full fine-tuning.

    As trained, either may forget more: that depends on the training.

    Predict: which forgets more at equal learning, full fine-tuning or rank 16?
    """
    forgot = {}
    learned = {}
    table = []
    for name in (*LADDER, "full"):
        rises = [forgotten(run, each.model) for each in trained(run, name)]
        forgot[name] = [rise.mean().item() for rise in rises]
        learned[name] = gains(run, name, "untouched")
        table.append([name, mean(learned[name]), mean(forgot[name])])
        errors = [(rise.mean() / rise.std() * math.sqrt(len(rise))).item() for rise in rises]
        because = "a divergence is positive; sampling alone would give about ±1"
        run.check(f"{name}: rise, in standard errors", errors, at_least=5, because=because)
    run.table("Nats per token", ["arm", "learned on plays", "forgotten on own text"], table)
    ratios = [forgot["r = 16"][i] / forgot["full"][i] for i in range(3)]
    run.measure("forgotten, r = 16 ÷ full, as trained", ratios)
    untouched = losses(run, "untouched")[0]
    equal = []
    for i, pair in enumerate(zip(trained(run, "r = 16"), trained(run, "full"), strict=True)):
        common = 0.5 * min(learned["r = 16"][i], learned["full"][i])
        ts = [scale_that_gains(run, each.model, untouched, common) for each in pair]
        parts = [scaled(each.model, t) for each, t in zip(pair, ts, strict=True)]
        adapter, full = (forgotten(run, model).mean().item() for model in parts)
        equal.append(adapter / full)
    name = "the same at equal learning"
    because = "1 if equal, minus 0.1 for the spread over seeds"
    run.measure(name, equal, expect_at_least=0.9, because=because, decides=True)
    bare = take_out(copy.deepcopy(trained(run, "r = 4")[0].model)).cpu()
    same = training.fingerprint(bare) == training.fingerprint(glass())
    run.check("adapter taken out: the base, to the byte", same, equals=True)
    curves = {
        name: [
            *partial_learning(run, trained(run, name)[0].model, untouched, (0.25, 0.5, 0.75)),
            (learned[name][0], forgot[name][0]),
        ]
        for name in forgot
    }
    deeper_figures.forgetting(run, learned, forgot, curves)
    return (
        f"Rank 16 learns {mean(learned['r = 16']):.2f} nats and forgets "
        f"{mean(forgot['r = 16']):.2f}; full learns {mean(learned['full']):.2f} and forgets "
        f"{mean(forgot['full']):.2f}. At equal learning, rank 16 forgets {mean(equal):.2f} times "
        "as much as full."
    )


# %% [markdown]
# In our run at `tiny` rank 16, as trained, forgot 0.8 times as much as full. At `small`, after five
# times as many rows, it learned less than full and forgot 1.1 times as much: the last quarter of
# its update, in the first seed, taught nothing and made a third of its forgetting. Ranks 1 and 4
# forgot 0.85 and 0.91 times as much there. So the paper's order held for them, not for rank 16.
# At equal learning rank 16 forgot 1.0 to 1.2 times as much at `tiny`, and 1.2 to 1.3 times at
# `small`: its low rank saved nothing.
#
# At `tiny`, learning less doesn't alone explain the 0.8: rank 1 learned least, and forgot as much
# as rank 16. And don't compare arms near the end of a line. At 0.6 nats, in our figure, rank 16
# forgot about 1.6 times as much as full. But there it needs nine tenths of its update, and full
# only six tenths: this ratio doesn't show that rank 16 forgets more.


# %% Swap
@lab.experiment
def two_adapters_share_a_base(run: Run):
    """On glass, each of two adapters is best at its own task; swapping back restores every bit.

    Predict: how much does the wrong adapter cost?
    """
    torch.manual_seed(run.seed)
    arm = ARMS["r = 4"]
    loud = plays.rows_in_capitals()
    second = learn(run, build(arm), arm.rate, run.seed, "capitals", loud.training).model
    states = [adapter_state(trained(run, "r = 4")[0].model), adapter_state(second)]
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
    name = "the other adapter − its own, each task (nats)"
    run.check(name, wrong, at_least=0, because="0 if both are alike", decides=True)
    back = (logits[2] - logits[0]).abs().max()
    run.check("swapped and back: change of a logit", back, at_most=0, decides=True)
    there = (logits[1] - logits[0]).abs().max()
    run.check("swapped: change of a logit", there, at_least=0.1, because="another adapter")
    return f"The wrong adapter costs {wrong[0]:.2f} and {wrong[1]:.2f} nats per token."


# %% [markdown]
# ## 5. A base of four bits
# LoRA still needs all of $W$ in memory. **QLoRA** (Dettmers et al. 2023) stores $W$ with four bits
# a number, and trains float adapters on top. Four bits can name 16 **levels**. Cut each matrix into
# blocks of 64 numbers, divide a block by its largest absolute value, and store for each number the
# nearest level. The level times the block's scale gives back an approximation of $W$.
#
# Which levels? Trained weights look roughly normal, so QLoRA takes quantiles of the normal
# distribution, with an exact 0. Small numbers are frequent and get more levels. With a float32
# scale for 64 numbers, a weight takes $4 + 32/64 = 4.5$ bits instead of 32. QLoRA also quantizes
# the scales, to 8 bits each (**double quantization**), which leaves about 4.13 bits.
#
# The forward pass restores $W$ layer by layer. QLoRA computes in bfloat16, our version in float32.
# Gradients pass through $W$ to the adapters, and the levels never change. QLoRA packs two codes
# into a byte, and restores $W$ again in the backward pass. For simplicity our version takes a byte
# for each code, and autograd keeps each restored $W$ until the backward pass. So it saves no memory
# in training. It shows the effect on the loss, and section 7 counts QLoRA's memory.


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
    """On glass, training an adapter on a 4-bit base ends within 0.03 nats of a float32 base.

    Predict: by how much does rounding alone raise the loss of glass on its own text?
    """
    test = plays.rows().test
    arm = ARMS["r = 4"]
    even = torch.cat([torch.linspace(-1, 0, 8)[:-1], torch.linspace(0, 1, 9)])  # 0 among them, too
    levels = {"normal quantiles": normal_levels(), "evenly spaced": even}
    texts = (own_text(run.seed), test)
    before = [training.test_loss(run, glass(), rows) for rows in texts]
    rises: list[list[Any]] = []
    for name, values in levels.items():
        rounded = quantize_bases(build(arm), values)
        after = [training.test_loss(run, rounded, rows) for rows in texts]
        rises.append([name, *(late - early for late, early in zip(after, before, strict=True))])
    columns = ["levels", "on glass's own text", "on plays"]
    run.table("Glass without an adapter: rise of the loss by rounding (nats)", columns, rises)
    (_, normal, on_plays), (_, evenly, _) = rises
    name = "evenly spaced − normal quantiles"
    run.measure(name, evenly - normal, expect_at_least=0, because="quantiles follow the weights")
    on_four_bits = []
    for seed in run.seeds(3):
        torch.manual_seed(seed)
        model = quantize_bases(build(arm), normal_levels())
        tuned = learn(run, model, arm.rate, seed, f"four bits, seed {seed}")
        on_four_bits.append(training.test_loss(run, tuned.model, test))
    pairs = zip(on_four_bits, losses(run, "r = 4"), strict=True)
    apart = [ours - theirs for ours, theirs in pairs]
    name = "loss on four bits − loss on float32 (nats)"
    because = "0.03 is 5 % of what the adapter gains on float32"
    run.measure(name, apart, expect_at_most=0.03, because=because, decides=True)
    weight = glass().model.layers[0].mlp.up_proj.weight
    deeper_figures.four_bits(run, normal_levels(), weight)
    return (
        f"Rounding alone costs {normal:.3f} nats on glass's own text and {on_plays:.4f} on plays. "
        f"On plays, an adapter on four bits ends {mean(apart):.3f} nats above one on float32."
    )


# %% [markdown]
# On plays, rounding hardly costs glass anything, even without an adapter. So the small distance
# between the two adapters doesn't show that an adapter repairs the rounding.
#
# ## 6. DoRA: direction and length apart
# **DoRA** (Liu et al. 2024) splits each row of $W + sBA$ into direction and length. Row $i$ becomes
#
# $$m_i\,\frac{w_i}{\lVert w_i \rVert}, \qquad w_i = \text{row } i \text{ of } W + s B A$$
#
# The lengths $m_i$, called **magnitudes**, are trained, too. They start as the norms of $W$'s rows,
# as in peft (the paper speaks of columns). So nothing changes at first. By hand: a row $(3, 4)$ of
# $W$ has the norm 5, so $m = 5$. Let its update be $(9, 1)$. The sum is $(12, 5)$, of norm 13.
# LoRA's row is now 13 long. DoRA's row is $\frac{5}{13}(12, 5) = (4.6, 1.9)$: it has the new
# direction and the old length. If the training moves $m$ to 6.5, the row is $(6, 2.5)$.
#
# The authors treat $\lVert w_i \rVert$ as a constant in the backward pass (§4.3) to save memory.
# `detach()` does that. But the norms need all of $W + s B A$ in each forward pass. LoRA never forms
# this matrix, so DoRA takes more time. We also train the magnitudes alone, at $\Delta W = 0$.


# %% DoRA
class DoraLinear(LoraLinear):
    """A LoRA layer whose rows have trained magnitudes, one for each output, as in peft."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__(base, rank, alpha)
        self.magnitude = nn.Parameter(base.weight.detach().norm(dim=1))  # (out,)
        self.factors: Tensor | None = None  # of the rows, while merged

    @lab.exercise(
        level=3,
        hints=(
            "Merged, return the base's output. Else take the norms of the rows of W + ΔW.",
            "They are (self.base.weight + self.delta()).norm(dim=1), detached, (out,).",
            "Scale LoRA's output without the bias by magnitude / norms, then add the bias, if any.",
        ),
    )
    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out): each row of W + ΔW has the norm `magnitude`; bias unscaled.

        The rows' norms count as constants in the backward pass. If merged, return base(x).
        """
        if self.merged:
            return self.base(x)
        norms = (self.base.weight + self.delta()).norm(dim=1).detach()  # (out,)
        low = F.linear(x, self.A)  # (..., r)
        output = F.linear(x, self.base.weight) + F.linear(low, self.B) * (self.alpha / self.rank)
        output = output * (self.magnitude / norms)
        return output if self.base.bias is None else output + self.base.bias

    @torch.no_grad()
    def merge(self, keep: bool = False) -> None:
        """Add the update to the base's weight, and scale its rows to their magnitudes."""
        super().merge(keep)
        self.factors = self.magnitude / self.base.weight.norm(dim=1)  # (out,)
        self.base.weight.mul_(self.factors[:, None])

    @torch.no_grad()
    def unmerge(self) -> None:
        """Scale the rows back, and take the update out."""
        if self.factors is not None:
            self.base.weight.div_(self.factors[:, None])
        super().unmerge()
        self.factors = None


def with_dora(model: Any) -> Any:
    """Replace each LoRA layer by DoRA with the same A and B; its magnitudes train, too."""
    for name, layer in adapters(model).items():
        dora = DoraLinear(layer.base, layer.rank, layer.alpha)
        dora.A = layer.A
        dora.B = layer.B
        model.set_submodule(name, dora)
    return model


@lab.experiment
@on_one_thread
def dora_equals_peft(run: Run):
    """Our DoRA gives the logits of peft's, before and after ten steps of training, and merged.

    Predict: of 100 numbers that DoRA of rank 4 trains on glass, how many are magnitudes?
    """
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
    after = ours(rows).logits.detach()
    error = after - theirs(rows).logits
    run.agree("logits after ten steps", error, tolerance(torch.float64), decides=True)
    moved = (after - start).abs().max()
    run.check("training changed a logit by", moved, at_least=0.1, because="far above the bound")
    for layer in layers.values():
        layer.merge()
    error = ours(rows).logits - after
    run.agree("merged − unmerged", error, tolerance(torch.float64), decides=True)
    for layer in layers.values():
        layer.unmerge()
    error = ours(rows).logits - after
    run.agree("merged and unmerged again", error, tolerance(torch.float64), decides=True)
    deeper_figures.dora(run)
    count = sum(layer.magnitude.numel() for layer in layers.values())
    return f"Of 100 trained numbers, {100 * count / training.count(ours):.0f} are magnitudes."


def train_dora(run: Run, seed: int, factor: float, magnitudes_alone: bool = False) -> Any:
    """Train DoRA of rank 4 at its rate times a factor, or its magnitudes alone, ΔW = 0."""
    torch.manual_seed(seed)
    model = with_dora(build(ARMS["r = 4"]))
    if magnitudes_alone:
        for layer in adapters(model).values():
            layer.A.requires_grad_(False)
            layer.B.requires_grad_(False)
    rate = factor * (MAGNITUDES_RATE if magnitudes_alone else DORA_RATE)
    label = "magnitudes alone" if magnitudes_alone else "DoRA"
    return learn(run, model, rate, seed, f"{label}, seed {seed}")


@lab.experiment
def dora_beside_lora(run: Run):
    """On glass, DoRA of rank 4 ends at a lower loss than LoRA of rank 4, each at its tuned rate.

    Predict: how much of LoRA's gain do the magnitudes alone reach?
    """
    test = plays.rows().test
    table = [["LoRA, r = 4", training.count(trained(run, "r = 4")[0].model), *losses(run, "r = 4")]]
    for label, alone in (("DoRA, r = 4", False), ("magnitudes alone", True)):
        tuned = best_of_rates(run, partial(train_dora, run, magnitudes_alone=alone))
        reached = [training.test_loss(run, each.model, test) for each in tuned]
        table.append([label, training.count(tuned[0].model), *reached])
    columns = ["arm", "trained numbers", *(f"seed {seed}" for seed in run.seeds(3))]
    run.table("Loss on test rows", columns, table)
    lora, dora, magnitudes = (row[2:] for row in table)
    gain = [theirs - ours for theirs, ours in zip(lora, dora, strict=True)]
    because = "Liu et al. 2024 report gains on larger models"
    name = "gain of DoRA over LoRA (nats)"
    run.measure(name, gain, expect_at_least=0, because=because, decides=True)
    alone = [losses(run, "untouched")[0] - loss for loss in magnitudes]
    run.measure("gain of the magnitudes alone over the untouched model (nats)", alone)
    more = table[1][1] / table[0][1]
    by_rank = mean(gains(run, "r = 16", "r = 4")) * math.log(more, 4)
    return (
        f"DoRA trains {100 * (more - 1):.0f} % more numbers and gains {mean(gain):.3f} nats over "
        f"LoRA. A rank larger by this share would gain about {by_rank:.3f}. Over untouched glass, "
        f"LoRA gains {mean(gains(run, 'r = 4', 'untouched')):.2f}, and the magnitudes alone, "
        f"{table[2][1]:,} numbers, gain {mean(alone):.2f}: the two overlap."
    )


# %% [markdown]
# ## 7. What shrinks, and what a merge loses
# Adapters save the memory that belongs to *trained* numbers: a gradient for each, and AdamW's two
# moments. The weights stay, and so do most activations. To reach the first $A$ and $B$, the
# backward pass runs through every layer, and each layer's input is stored, because $A$'s gradient
# needs it. So fifty times fewer trained numbers isn't fifty times less memory.
#
# Merging rounds the sum. bfloat16 has 8 bits of precision, so half a unit in the last place is
# 1/512 to 1/256 of a weight. A change below 1/512 of a weight always vanishes. Larger changes are
# rounded, up or down. It hardly helps to add in float32 and round afterwards: PyTorch's bfloat16
# sum already adds in float32 and then rounds. The last experiment measures what this costs a
# trained adapter, and an update 100 times smaller. In updates.py, `stored` rounds $W$ first, so all
# three losses have the same rounded $W$. They are computed in float32.
#
# What should we expect? The rounding adds a matrix $R$ to $W + \Delta W$. Its relative size is
# $\rho = \lVert R \rVert / \lVert \Delta W \rVert$, 0.8 % in our run. By section 3's parabola, a
# change of this size along $\Delta W$ costs $\rho^2$ of the gain, 0.006 %. The loss may also have a
# slope in the direction of $R$. A random $R$ goes up or down this slope, so the merge may even
# lower the loss. In an update 100 times smaller, most numbers vanish, the smallest first.


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
    layers = adapters(model).values()
    saved = sum(layer.base.weight.numel() for layer in layers) * (4 - 4.5 / 8) / 2**20
    weights, *rest, total = table[1][2:]
    table.append(["LoRA on four bits", table[1][1], weights - saved, *rest, total - saved])
    columns = ["", "trained numbers", "weights", "forward and backward", "AdamW's moments", "sum"]
    run.table("Memory in MiB, float32 except for the base of 4.5 bits", columns, table)
    fewer = table[0][1] / table[1][1]
    less = table[0][-1] / table[1][-1]
    deeper_figures.memory(run, table)
    name = "times fewer trained numbers ÷ times less memory"
    training.check_embedded(run, name, fewer / less, "weights and activations stay", at_least=5)
    return f"{fewer:.0f} times fewer trained numbers, {less:.1f} times less memory."


# %% Merging
@lab.experiment
@torch.no_grad()
def a_merge_costs_little_of_the_gain(run: Run):
    """On glass, merging a trained adapter in bfloat16 moves the loss by at most 0.1 % of its gain.

    Predict: how much of a trained adapter's gain does the merge cost?
    """
    table = []
    shares: dict[str, list[float]] = {}
    vanished: dict[str, list[float]] = {}
    variants = {"float32": (torch.float32, 1.0), "bfloat16": (torch.bfloat16, 1.0)}
    variants["bfloat16, 1 % of ΔW"] = (torch.bfloat16, 0.01)
    for name, (dtype, t) in variants.items():
        costs = [merge_costs(run, scaled(each.model, t), dtype) for each in trained(run, "r = 4")]
        shares[name] = [each.cost for each in costs]
        vanished[name] = [each.vanished for each in costs]
        table.append([name, *(mean(column) for column in zip(*costs, strict=True))])
    columns = ["weights", "no adapter", "adapter beside", "merged", "cost ÷ gain", "ρ", "vanished"]
    run.table("Loss on plays by how the weights are stored, mean of three seeds", columns, table)
    for name, values in shares.items():
        run.measure(f"{name}: loss that the merge adds ÷ gain of the update", values)
        run.measure(f"{name}: share of ΔW's numbers that change no weight", vanished[name])
    moved = [abs(cost) for cost in shares["bfloat16"]]
    name = "bfloat16: |loss that the merge adds| ÷ gain of the update"
    because = "4.5 times the largest of our seeds, 2.2e-4; ρ² alone is 6e-5"
    run.measure(name, moved, expect_at_most=1e-3, because=because, decides=True)
    layer = next(iter(adapters(scaled(trained(run, "r = 4")[0].model, 1.0)).values()))
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        weight = layer.base.weight.to(dtype)
        delta = layer.delta().to(dtype)
        other = ((weight + delta) - delta != weight).float().mean()
        run.measure(f"{name}: share of W with other bits, ΔW added and subtracted", other)
    deeper_figures.merge(run, layer.base.weight, layer.delta(), torch.bfloat16)
    x = torch.randn(run.pick(tiny=256, small=1024, full=4096), 576, device=run.device)
    fresh = LoraLinear(nn.Linear(576, 576, bias=False), 8, 16).to(run.device)
    slow, fast = seconds_paired(lambda: fresh(x), lambda: fresh.base(x), 15)
    ratio = median(a / b for a, b in zip(slow, fast, strict=True))
    run.measure("time of a 576 × 576 layer, unmerged ÷ merged", ratio, timed=True)
    names = ("bfloat16", "bfloat16, 1 % of ΔW")
    gone, small = (100 * mean(vanished[name]) for name in names)
    cost, lost = (100 * mean(map(abs, shares[name])) for name in names)
    return (
        f"In bfloat16 {gone:.0f} % of a trained update's numbers vanish, and {small:.0f} % of an "
        f"update 100 times smaller. The merge moves the loss by {cost:.1g} % of the gain. It costs "
        f"the smaller update {lost:.0f} % of its gain."
    )


# %% [markdown]
# To run a model, merge if the loss on your validation rows stays the same. Subtraction
# doesn't undo it exactly. To swap adapters or to train on, keep $W$, and the adapter beside it.
#
# ## What to remember
# The numbers are those of our run at `tiny`, with 40 steps.
#
# - At the same $\alpha/r$ a larger rank needs a lower rate. On glass, from rank 1 to 16 it fell 2
#   to 4 times. The first step alone suggests about 11 times.
# - Compare arms at their own best rates, with the same weights frozen. Compare forgetting at equal
#   learning: there rank 16 forgot 1.0 to 1.2 times as much as full. As trained it forgot 0.8 times
#   as much, and 1.1 times at `small`.
# - On glass, rank 1 in all linear layers beats rank 8 in q and v by 0.1 nats, with fewer numbers.
# - On glass, the 8 largest directions of full fine-tuning's update have a third to two thirds of a
#   layer's squares, 2 to 3 times a random matrix's. So the update is concentrated, not of rank 8.
# - Weights and activations stay, so memory shrinks far less than the number of trained numbers.
# - QLoRA stores the base in four bits. DoRA trains each row's magnitude, too. Both train A and B.
#
# **Read on**: Kalajdzievski 2023, *rsLoRA* · Biderman et al. 2024 on learning and forgetting ·
# Dettmers et al. 2023, *QLoRA* · Liu et al. 2024, *DoRA*. Next: LLM08, data and training.

# %%
if __name__ == "__main__":
    lab.main()
