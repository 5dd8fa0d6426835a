# %% [markdown]
# # LLM08+ · Dataset processing and training, deeper
# Seven mistakes to recognise, interrupted trainings, several processes, float16, and duplicates.
#
# **You will be able to** recognise seven mistakes of a training loop by what they do to it; resume
# an interrupted training bit for bit; train on N processes and get the loss of one; explain what
# float16 loses and when loss scaling matters; measure where a step's time goes; read broken files
# and shuffle streams. **Builds on** LLM08, whose data, loop and model it imports. **Takes** half an
# hour to read, a minute and a half to run (`tiny`, 2 cores).

# %% Imports
import copy
import json
import math
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

from labs.course.options import Settings
from labs.kit import (
    Card,
    Checkpoints,
    Lab,
    Results,
    Run,
    assets,
    seconds_paired,
    stop_on_nan,
)
from labs.kit.run.console import Output
from labs.kit.run.processes import end_with_parent, is_main, rank, run_group
from labs.llm08_training import conversations as reading
from labs.llm08_training import deeper_figures as figures
from labs.llm08_training import training, word_tasks
from labs.llm08_training.gradients import added, gradient_of, sizes
from labs.llm08_training.lesson import (
    BETAS,
    IGNORED,
    PARTS,
    AdamW,
    collate,
    collate_packs,
    encode,
    label_count,
    label_sum,
    lr_at,
    training_step,
    windows,
)
from labs.llm08_training.training import (
    Batch,
    Fit,
    Recipe,
    Row,
    Trained,
    Watch,
    in_groups,
    placed,
    rows_of,
    some_rows,
    train,
)
from labs.llm08_training.word_tasks import END, PAD, Example, build, examples

import datasets
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

lab = Lab("LLM08+")
lab.argument("--model", help="a chat model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. Seven mistakes
# Here are eight loops that train the same model on the same data for the same number of steps. One
# loop is correct. Each of the others has one mistake that people make, and none of these mistakes
# raises an error. Can you recognise them by what they do?
#
# | loop | its mistake |
# |---|---|
# | the prompt too | all tokens have labels; some people do this on purpose |
# | padding too | the labels of padding aren't −100 |
# | end = pad | the end token pads, and padding is recognised by value |
# | shifted twice | the data shifts the labels, and then the loss shifts them again |
# | mean of means | the gradient is a mean over micro-batches (LLM08, section 5) |
# | rate by batch | each micro-batch moves the rate's curve (LLM08, section 7) |
# | bf16 weights | weights and AdamW's means have 8 significant bits (LLM08, section 9) |
#
# Before you run the cells, write down for each mistake what you expect. Is the loop's training loss
# higher or lower than that of the correct loop? Are the responses right? Does the model stop?


# %% The loops
def mean_of_means(
    model: Any,
    optimizer: Any,
    window: Iterator[Batch],
    labels: float,
    lr: float,
    clip: float,
    accelerator: Any,
) -> Tensor:
    """Take a step with a mistake: micro-batches count equally, whatever their number of labels."""
    del labels
    for group in optimizer.param_groups:
        group["lr"] = lr
    micro = list(window)
    losses = []
    for batch in micro:
        losses.append(label_sum(model, batch) / max(1, label_count(batch)) / len(micro))
        accelerator.backward(losses[-1])
    accelerator.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    return torch.stack(losses).detach().sum()


def lr_by_batch(step: int, steps: int, warmup: int) -> float:
    """Return the rate with a mistake: each of two micro-batches moves it."""
    return lr_at(2 * step, steps, warmup)


@dataclass(frozen=True)
class Variant:
    """A loop: what it does to rows and batches, its step, its rate and its precision."""

    labels: Callable[[Row], Row] = lambda row: row
    collate: Callable[[list[Row], int], Batch] = collate
    pad: int = PAD
    step: Callable[..., Tensor] = training_step
    lr_at: Callable[[int, int, int], float] = lr_at
    dtype: torch.dtype = torch.float32
    accumulate: int = 1


def all_labels(row: Row) -> Row:
    return {**row, "labels": row["input_ids"]}


def shifted(row: Row) -> Row:
    return {**row, "labels": [*row["labels"][1:], IGNORED]}


def collate_all(rows: list[Row], pad: int) -> Batch:
    batch = collate(rows, pad)
    batch["labels"][batch["attention_mask"] == 0] = pad
    return batch


def collate_by_value(rows: list[Row], pad: int) -> Batch:
    batch = collate(rows, pad)
    batch["labels"][batch["input_ids"] == pad] = IGNORED
    return batch


LOOPS = {
    "right": Variant(),
    "the prompt too": Variant(labels=all_labels),
    "padding too": Variant(collate=collate_all),
    "end = pad": Variant(collate=collate_by_value, pad=END),
    "shifted twice": Variant(labels=shifted),
    "mean of means": Variant(step=mean_of_means, accumulate=2),
    "rate by batch": Variant(lr_at=lr_by_batch, accumulate=2),
    "bf16 weights": Variant(dtype=torch.bfloat16),
}


@cache
def fit(run: Run, name: str, seed: int) -> Fit:
    """Train with a loop from scratch, on a seed's data, and examine the model."""
    variant = LOOPS[name]

    def collate_it(rows: list[Row]) -> Batch:
        return variant.collate(rows, variant.pad)

    loop = replace(PARTS.loop, collate=collate_it, step=variant.step, lr_at=variant.lr_at)
    parts = replace(PARTS, loop=loop)
    return training.fit(run, parts, seed, name, variant.accumulate, variant.dtype, variant.labels)


def fits(run: Run, name: str) -> list[Fit]:
    return [fit(run, name, seed) for seed in run.seeds(3)]


def own_loss(fitted: Fit) -> float:
    """Return the loop's training loss, a mean of the last 20 steps."""
    return mean(fitted.trained.losses[-20:])


def cost(run: Run, name: str) -> list[float]:
    """Return what a mistake costs: the responses' loss − that of the right loop.

    One seed at `tiny` shows a cost of 0.2 nats and more: over three seeds the right loop's loss has
    a range of 0.16. The other sizes take three.
    """
    seeds = run.seeds(run.pick(tiny=1, small=3, full=3))
    return [fit(run, name, seed).loss - fit(run, "right", seed).loss for seed in seeds]


# %% Which is which?
REQUEST = {"instruction": "Reverse the words", "input": "ant cow pig", "output": "pig cow ant"}


@lab.experiment
def mistakes_raise_no_error(run: Run):
    """All seven mistakes train without an error; shifted twice, even the training loss looks right.

    Predict: the table's loops are in random order. Which letter is the right loop, and which loop
    has labels that are shifted twice?
    """
    order = random.Random(run.seed).sample(list(LOOPS), len(LOOPS))
    letters = dict(zip(order, "ABCDEFGH", strict=True))
    trained = {name: fit(run, name, run.seed) for name in LOOPS}
    table = []
    for name in order:
        fitted = trained[name]
        losses = [own_loss(fitted), fitted.loss]
        shares = [f"{fitted.right:.0%}", f"{fitted.stops:.0%}"]
        (response,) = word_tasks.responses(fitted.trained.model, [REQUEST])
        table.append([letters[name], *losses, *shares, response])
    asked = f"{REQUEST['instruction']} {REQUEST['input']}"
    columns = ["loop", "its loss", "responses' loss", "right", "stops", f"“{asked}”"]
    run.table(
        "After training; losses in nats per label, shares of held-out requests", columns, table
    )
    curves = {letters[name]: trained[name].trained.watched for name in order}
    run.figure(
        figures.draw_mistakes(curves),
        "mistakes",
        "The responses' loss of eight loops: one is right, seven have a mistake, and none of these "
        "raises an error. The conclusion names them.",
        alt="Line plot of the held-out loss over steps on a log scale, a curve for each of eight "
        "loops with the letters A to H.",
    )
    rights = [own_loss(fitted) for fitted in fits(run, "right")]
    shifted_twice = trained["shifted twice"]
    because = "the median of the right loop's three seeds + their range"
    bound = median(rights) + max(rights) - min(rights)
    what = "shifted twice: its training loss"
    run.measure(what, own_loss(shifted_twice), expect_at_most=bound, because=because, decides=True)
    because = "it writes the token after the next one"
    what = "shifted twice: share of right responses"
    run.check(what, shifted_twice.right, at_most=0.3, because=because, decides=True)
    run.measure("the right loop's training loss, three seeds", rights, unit="nats")
    losses = [fitted.loss for fitted in fits(run, "right")]
    run.measure("the right loop's responses' loss, three seeds", losses, unit="nats")
    for name in list(LOOPS)[1:]:
        run.measure(f"{name}: responses' loss − the right loop's", cost(run, name), unit="nats")
    return "The key: " + ", ".join(f"{letter} is {name}" for name, letter in letters.items()) + "."


# %% The end
@lab.experiment
def an_end_that_is_padding_is_never_said(run: Run):
    """If the end token pads and is masked by value, a model writes right responses and never stops.

    Predict: are its words right as often as the right loop's? And in how many of 200 does it stop?
    """
    columns = ["loop", "words right", "stops"]
    table = []
    for name, low, high in (("right", 0.9, 1.0), ("end = pad", 0.0, 0.05)):
        trained = fits(run, name) if name == "right" else [fit(run, name, run.seed)]
        right = [fitted.right for fitted in trained]
        stops = [fitted.stops for fitted in trained]
        because = "far below the three seeds; a random word of the twelve is right in 8 %"
        decides = name == "end = pad"
        run.check(f"{name}: words right", right, at_least=0.5, because=because, decides=decides)
        because = "each row has a label for its end" if low else "no row has a label for its end"
        what = f"{name}: stops"
        run.check(what, stops, at_least=low, at_most=high, because=because, decides=decides)
        table.append([name, f"{mean(right):.1%}", f"{mean(stops):.1%}"])
    run.table("Held-out requests; the right loop: mean of three seeds", columns, table)
    (_, *good), (_, *bad) = table
    return f"Words right: {good[0]}, and {bad[0]} with the mistake; stops: {good[1]}, and {bad[1]}."


# %% The prompt
@lab.experiment
def does_masking_the_prompt_help(run: Run):
    """On our tasks, masking the prompt's labels gives more right responses with each of 3 seeds.

    Predict: most tokens of a row are the prompt's. Does it help or harm to learn them too?
    """
    masked = fits(run, "right")
    unmasked = fits(run, "the prompt too")
    gains = [a.right - b.right for a, b in zip(masked, unmasked, strict=True)]
    because = "the prompt's words are random, so learning them doesn't help with responses"
    what = "share of right responses, masked − not masked"
    run.measure(what, gains, expect_at_least=0, because=because, decides=True)
    for name, group in (("masked", masked), ("not masked", unmasked)):
        run.measure(f"responses' loss, {name}", [fitted.loss for fitted in group], unit="nats")
    rows = some_rows(run, encode, 500)
    share = sum(label_count(collate([row], PAD)) for row in rows)
    share /= sum(len(row["input_ids"]) - 1 for row in rows)
    run.measure("the responses' share of all tokens", share)
    a, b = (mean(fitted.right for fitted in group) for group in (masked, unmasked))
    return f"Masked {a:.0%} right, not masked {b:.0%}: responses are {share:.0%} of the tokens."


# %% [markdown]
# ## 2. Clipping in parts
# LLM08 clips once, when a window is complete. A loop that clips the gradient of each micro-batch
# runs too, but the sum of clipped parts points elsewhere: long parts shrink, short ones don't.


# %% Clipping
@lab.experiment
def clipping_keeps_the_direction(run: Run):
    """Clipped once, a gradient gets shorter and keeps its direction; clipped in parts, it turns."""
    model = build(run, run.seed)
    parts = [collate([row], PAD) for row in some_rows(run, encode, 8)]
    ((window, count),) = windows(parts, 8)
    sums = []
    for batch in window:
        (label_sum(model, batch) / count).backward()
        sums.append(gradient_of(model))
    right = added(sums)
    c = 0.1
    for weight, part in zip(model.parameters(), right.split(sizes(model)), strict=True):
        weight.grad = part.view_as(weight).clone()
    norm = nn.utils.clip_grad_norm_(model.parameters(), c)
    clipped = gradient_of(model)
    run.check("norm before ÷ c", norm / c, at_least=2, because="else nothing is clipped")
    gap = clipped - right * c / norm
    because = "PyTorch divides by ‖g‖ + 1e-6"
    run.agree("clipped gradient − g · c / ‖g‖", gap, 1e-6, because, decides=True)
    in_parts = added(part * min(1.0, c / len(sums) / part.norm().item()) for part in sums)

    def angle(gradient: Tensor) -> float:
        cosine = F.cosine_similarity(gradient.double(), right.double(), 0).item()
        return math.degrees(math.acos(min(1.0, cosine)))

    because = "rounding of float32"
    run.check("degrees it turns by", angle(clipped), at_most=0.05, because=because, decides=True)
    because = "the rows' gradients have different norms; rounding turns by 1e-5 degrees"
    what = "clipped in parts: degrees"
    run.check(what, angle(in_parts), at_least=0.2, because=because, decides=True)
    return f"Clipped in parts, the gradient turns by {angle(in_parts):.1f}°."


# %% [markdown]
# ## 3. A schedule counts steps
# LLM08's curve is the usual one, shifted by one step. A loop that accumulates $k$ batches for each
# step, and moves the schedule with each batch, ends its schedule after $S/k$ steps.


# %% The schedule
@lab.experiment
def the_rate_is_counted_in_steps(run: Run):
    """Our curve equals the library's, shifted by a step; moved by each batch, it ends too early.

    Predict: 300 steps of 4 batches; each batch moves it. For how many steps is it at its floor?
    """
    steps = 300
    warmup = 30
    k = 4  # batches in a step
    mine = torch.tensor(
        [lr_at(t, steps, warmup, floor=0) for t in range(steps)], dtype=torch.float64
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    library = get_cosine_schedule_with_warmup(optimizer, warmup, steps + 1)
    theirs = []
    for _ in range(steps):
        optimizer.step()
        library.step()
        theirs += library.get_last_lr()
    gap = mine - torch.tensor(theirs, dtype=torch.float64)
    run.agree("our step t − the library's step t + 1", gap, decides=True)
    run.check("the largest share", mine.max().item(), equals=1.0)
    curves = {
        "counted in steps": [lr_at(t, steps, warmup) for t in range(steps)],
        "counted in batches, 4 to a step": [lr_at(k * t, steps, warmup) for t in range(steps)],
    }
    right, wrong = (mean(share < 0.1001 for share in curve) for curve in curves.values())
    because = "the curve ends after S/k steps"
    what = "moved by batches: share of steps at the floor"
    run.check(what, wrong, at_least=0.74, because=because, decides=True)
    because = "a cosine is flat only at its very end"
    run.check("moved by steps: the same share", right, at_most=0.02, because=because)
    fig = figures.draw_rates(curves, warmup)
    run.figure(
        fig,
        "rate",
        "Warm-up and cosine; and the same curve when each batch moves it.",
        alt="Line plot of the learning rate over steps: a rise, then a cosine that falls to a "
        "floor; the curve that counts batches falls four times as fast.",
    )
    by_steps, by_batches = (mean(curve) for curve in curves.values())
    return (
        f"Moved by batches, {wrong:.0%} of the steps have the floor's rate. "
        f"The mean rate is {by_batches:.2f} of the peak in place of {by_steps:.2f}."
    )


# %% [markdown]
# ## 4. What float16 loses
# float16 has 11 significant bits, more than bfloat16, but its smallest number above 0 is
# $2^{-24} \approx 6 \cdot 10^{-8}$. Gradients of half of that or less become 0. **Loss scaling**
# (Micikevicius et al. 2018) multiplies the loss by a power of two before the backward pass and
# divides the gradients, in 32 bits, after it.
#
# How much is lost? Two measures disagree. One counts the *entries* that become 0. The other adds up
# their absolute values: their share of the gradient's **mass** $\sum |g|$. The loss depends on the
# mass. We look at a real model's gradient with respect to its logits. It has an
# entry for each token of the vocabulary, and most of them are tiny.


# %% Small gradients
@lab.experiment
def float16_loses_many_gradients_and_little_mass(run: Run):
    """In float16 most of these gradients become 0, but they hold almost nothing of their mass.

    Loss scaling saves most of them.

    Predict: most entries are lost. Which share of the sum of all |g| is lost with them?
    """
    small = (2.0 ** torch.tensor([-24, -25, -26])).half().float() * 2**24
    run.check("2⁻²⁴, 2⁻²⁵, 2⁻²⁶ in float16, ÷ 2⁻²⁴", small.tolist(), equals=[1.0, 0.0, 0.0])
    real = assets.pretrained(run.options.model, run.online)
    ids = AutoTokenizer.from_pretrained(real)(assets.parallel()["English"], return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(real, dtype=torch.float32)(**ids).logits[0]
    logits.requires_grad_()  # (T, V)
    F.cross_entropy(logits[:-1], ids.input_ids[0, 1:]).backward()
    g = logits.grad[logits.grad != 0].double()
    table = []
    for k, scale in ((0, "1"), (8, "2⁸"), (16, "2¹⁶")):
        half = (g * 2.0**k).half()
        lost = half == 0
        mass = (g[lost].abs().sum() / g.abs().sum()).item()
        error = ((half.double() / 2.0**k - g).norm() / g.norm()).item()
        entries = lost.double().mean().item()
        table.append([scale, entries, mass, error, half.isinf().double().mean().item()])
    columns = ["scale", "entries lost", "mass lost", "relative error (L2)", "infinite"]
    run.table("Gradients with respect to the logits in float16", columns, table)
    (_, plain, mass, plain_error, _), _, (_, scaled, _, scaled_error, infinite) = table
    run.measure("share of entries lost, unscaled", plain, expect_at_least=0.5, decides=True)
    because = "each lost entry is at most 2⁻²⁵"
    what = "share of the mass lost, unscaled"
    run.measure(what, mass, expect_at_most=0.01, because=because, decides=True)
    because = "the threshold falls by a factor of 65,536"
    what = "entries lost at 2¹⁶ ÷ unscaled"
    ratio = scaled / max(plain, 1e-9)
    run.measure(what, ratio, expect_at_most=0.5, because=because, decides=True)
    run.measure("relative error at 2¹⁶ ÷ unscaled", scaled_error / plain_error)
    because = "no gradient is above 1/T"
    run.check("share that is infinite at 2¹⁶", infinite, at_most=0, because=because)
    return (
        f"Unscaled, {plain:.0%} of the entries are lost, with {mass:.2%} of the mass; at 2¹⁶, "
        f"{scaled:.0%} of the entries. The gradient's error is {plain_error:.2g} unscaled and "
        f"{scaled_error:.2g} scaled, so this gradient alone doesn't need scaling."
    )


# %% [markdown]
# bf16 loses small *updates* rather than small gradients (LLM08, section 9). Here it shows in a
# training: twenty steps of 0.00001 on a trained model.


# %% Small updates
def steady(model: Any, rows: list[Row], steps: int) -> tuple[float, float]:
    """Train at a rate of 1e-5; return the share of weights that never moved, and the gain."""
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer = AdamW(model.parameters(), 1e-5, BETAS, weight_decay=0)
    batch = collate(rows, PAD)
    losses = []
    for _ in range(steps):
        losses.append(label_sum(model, batch) / label_count(batch))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    pairs = zip(before, model.parameters(), strict=True)
    still = torch.cat([(a == b).flatten() for a, b in pairs]).float().mean().item()
    return still, (losses[0] - losses[-1]).item()


@lab.experiment
def bf16_weights_stand_still(run: Run):
    """At a rate of 10⁻⁵ most bf16 weights never move, and most float32 weights do.

    Predict: by how much less does the loss fall with bf16 weights?
    """
    model = copy.deepcopy(fit(run, "right", run.seed).trained.model).cpu()
    rows = some_rows(run, encode, 64)
    still, gain = steady(copy.deepcopy(model), rows, 20)
    still_short, gain_short = steady(copy.deepcopy(model).bfloat16(), rows, 20)
    because = "each of the twenty steps of 1e-5 is lost"
    what = "bf16: share of weights that never moved"
    run.check(what, still_short, at_least=0.5, because=because, decides=True)
    because = "only words without a row have a gradient of 0"
    run.check("fp32: the same share", still, at_most=0.2, because=because, decides=True)
    run.measure("fp32: the loss falls by", gain, expect_at_least=0, unit="nats")
    run.measure("bf16: the fall of its loss ÷ that of fp32", gain_short / gain, expect_at_most=0.8)
    return (
        f"With bf16 weights the loss falls by {gain_short / gain:.0%} of what it falls by in fp32."
    )


# %% [markdown]
# ## 5. Interrupted
# A killed training should continue and end as if nothing had happened. To continue *exactly*, the
# weights aren't enough. It needs AdamW's means and $t$, the place in the rate's curve, the place in
# the data (this epoch's order, and the number of batches so far), and the state of every random
# number generator, because dropout uses one.
#
# `Checkpoints` saves all of this with Accelerate's `save_state`. It writes into a folder with a
# temporary name and renames it when it is complete, so a kill never leaves half a checkpoint. The
# last two checkpoints stay. The next run resumes if everything that its bits depend on is the same.
# Try it: press Ctrl-C in a run of `--size small`, and start it again.


# %% Resumed
class Killed(Exception):
    """Raised in the middle of a training, in place of a kill."""


@lab.experiment
def resumed_is_bit_for_bit(run: Run):
    """Killed in its middle and resumed, a training ends with exactly the same losses and weights.

    Predict: all is restored except the order of the data. How far off is the first loss after that?
    """
    rows = some_rows(run, encode, 400)
    how = Recipe(40, seed=run.seed)  # an epoch has 12 steps

    def start(name: str, seed: int, rows: list[Row], watch: Watch | None = None) -> Trained:
        """Train with dropout, so that random numbers matter."""
        checkpoints = Checkpoints(run, name, depends_on={"steps": how.steps}, every_steps=10)
        model = build(run, seed, 0.2)
        return train(run, name, model, rows, how, PARTS.loop, watch, checkpoints)

    def start_and_kill(name: str) -> None:
        def kill(_: Any) -> float:
            raise Killed  # at step 25

        with suppress(Killed):
            start(name, run.seed, rows, kill)

    uninterrupted = start("never killed", run.seed, rows)
    start_and_kill("killed")
    resumed = start("killed", run.seed + 1, rows)  # into a model with other weights
    start_and_kill("killed, another order")
    reordered = start("killed, another order", run.seed + 1, rows[::-1])

    def other_losses(trained: Trained) -> int:
        return sum(a != b for a, b in zip(uninterrupted.losses, trained.losses, strict=True))

    def largest_gap(trained: Trained) -> float:
        pairs = zip(uninterrupted.model.parameters(), trained.model.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    run.check("steps of 40 with another loss", other_losses(resumed), equals=0, decides=True)
    what = "largest difference of a weight"
    run.check(what, largest_gap(resumed), at_most=0, because="bit for bit", decides=True)
    because = "all 20 steps after the resume have other rows"
    what = "another order: steps with another loss"
    run.check(what, other_losses(reordered), at_least=15, because=because)
    what = "another order: largest difference of a weight"
    run.check(what, largest_gap(reordered), at_least=1e-4, because="other rows, other gradients")
    gap = abs(reordered.losses[20] - uninterrupted.losses[20])
    return f"Without the order, the first loss after the resume is off by {gap:.2f} nats."


@lab.experiment
def a_nan_stops_the_run(run: Run):
    """The first NaN loss ends the training; its step is reported and its batch saved."""
    message = "nothing"
    batch = {"input_ids": torch.arange(6).view(2, 3)}
    finite = torch.tensor(1.5, device=run.device)
    run.check("a loss of 1.5 passes", stop_on_nan(run, finite, 6), equals=1.5)
    try:
        stop_on_nan(run, torch.tensor(math.nan, device=run.device), 7, batch)
    except Card as card:
        message = card.what
    if not is_main():
        return None  # the main process saves the batch
    saved = run.folder / "nan-batch.safetensors"
    run.check("the card names the step", "step 7" in message, equals=True, decides=True)
    run.check("the batch is saved", saved.is_file(), equals=True, decides=True)
    saved.unlink(missing_ok=True)
    return message


# %% [markdown]
# ## 6. N processes
# On $N$ devices $N$ processes run the same program. Each has the entire model and takes its share
# of every batch, and the gradients are averaged before the step ("data parallel"). The result is
# that of one process only if the division is right: by the labels of the window in *all* processes.
# A mean over each process's labels is a mean of means again.
#
# This experiment starts two processes for ten steps. A plain loop, without Accelerate, gets the
# rows of both, put together. (`invoke lab LLM08 --processes 2` runs the entire lesson with two.)


# %% One of several
SEVERAL = Recipe(steps=10, warmup=2)


def one_of_several(folder: str, size: str, seed: int) -> None:
    """Train as one of several processes; write losses, rows and counts into a file."""
    end_with_parent()
    seen: list[Row] = []

    def make(rows: list[Row]) -> Batch:
        seen.extend(rows)
        return collate(rows, PAD)

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        run = Run(Settings(size, seed=seed), "fp32", Output(nowhere, silent=True), Path(folder))
        loop = replace(PARTS.loop, collate=make)
        rows = rows_of(encode, seed, 4000)
        done = train(run, "several", build(run, seed), rows, SEVERAL, loop)
        five = run.accelerator.prepare(DataLoader(cast(Any, range(5)), 2))
        ways: Any = (run.accelerator.gather, run.accelerator.gather_for_metrics)
        counts = [[row for batch in five for row in way(batch).tolist()] for way in ways]
        record = {"id": os.getpid(), "losses": done.losses, "seen": seen, "counts": counts}
        record["processes"] = run.accelerator.num_processes
        (Path(folder) / f"{rank()}.json").write_text(json.dumps(record), encoding="utf-8")
        run.accelerator.end_training()


def start_two(size: str, seed: int) -> list[dict[str, Any]]:
    """Start two processes, on the CPU wherever the lab runs; return what they recorded."""
    code = "from labs.llm08_training import deeper; deeper.one_of_several({!r}, {!r}, {})"
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    root = Path(reading.__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code.format(folder, size, seed)]
        if run_group(2, command, PYTHONPATH=str(root), **hidden):
            raise RuntimeError("a process failed; its output is above")
        return [json.loads((Path(folder) / f"{i}.json").read_text("utf-8")) for i in range(2)]


def plainly(run: Run, steps: list[list[Row]]) -> list[float]:
    """Return the losses of the same training in plain PyTorch: one process, full batches."""
    model = build(run, run.seed)
    optimizer = AdamW(model.parameters(), SEVERAL.lr, BETAS)
    losses = []
    for step, rows in enumerate(steps):
        batch = collate(rows, PAD)
        loss = label_sum(model, batch) / label_count(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), SEVERAL.clip)
        optimizer.param_groups[0]["lr"] = SEVERAL.lr * lr_at(step, SEVERAL.steps, SEVERAL.warmup)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@lab.experiment
def n_processes_are_as_one(run: Run):
    """Two processes, each with its share of every batch, have the loss of one with all rows.

    Predict: five rows, two to a batch. How many do the two processes count with `gather`?
    """
    if not is_main():
        return None  # the main process starts two of its own
    records = start_two(run.size, run.seed)
    run.check("processes that ran", len({record["id"] for record in records}), equals=2)
    counts = [record["processes"] for record in records]
    run.check("processes as Accelerate counts them", counts, equals=[2, 2])
    half = SEVERAL.batch // 2
    shares = [in_groups(record["seen"], half)[: SEVERAL.steps] for record in records]
    single = plainly(run, [a + b for a, b in zip(*shares, strict=True)])

    def largest_gap(losses: list[float]) -> float:
        return max(abs(a / b - 1) for a, b in zip(losses, single, strict=True))

    because = "rounding, which Adam's first steps magnify if a gradient is near 0"
    gap = largest_gap(records[0]["losses"])
    what = "two processes: largest relative difference of a loss"
    run.check(what, gap, at_most=1e-4, because=because, decides=True)
    gap = largest_gap(plainly(run, shares[0]))
    because = "half of the rows"
    run.check("the first one's rows alone: the same", gap, at_least=1e-3, because=because)
    gathered, counted = records[0]["counts"]
    run.check("five rows by gather_for_metrics", sorted(counted), equals=[0, 1, 2, 3, 4])
    return f"Of five rows `gather` counts {len(gathered)}: {gathered}."


# %% [markdown]
# ## 7. Where a step's time goes
# The forward pass multiplies each weight with each token once. The backward pass does it twice:
# once for the gradient of the layer's input, once for that of the weight. So it has twice as many
# multiplications. Its time is twice the forward's only if products take most of the time; norms,
# softmax and Python itself cost about the same in both.
#
# Then come clipping and the optimizer, which touch each weight a few times, whatever the batch. In
# a small model much of the optimizer's time is Python: our AdamW calls about ten kernels for each
# of its tensors (21 at `tiny`), PyTorch's fused one a single kernel for all of them.


# %% The stopwatch
STAGES = ("collate", "forward", "backward", "clip", "optimizer")


def one_step(run: Run, model: Any, optimizer: Any, rows: list[Row]) -> Iterator[None]:
    """Do a step of training, and pause after each of its STAGES."""
    batch = placed(run, collate(rows, PAD))
    yield
    loss = label_sum(model, batch) / label_count(batch)
    yield
    run.accelerator.backward(loss)
    yield
    run.accelerator.clip_grad_norm_(model.parameters(), 1.0)
    yield
    optimizer.step()
    optimizer.zero_grad()
    yield


def stopwatch(run: Run, model: Any, rows: list[Row], optimizer: Any, steps: int) -> list[float]:
    """Return the median time of each part of a step, in milliseconds."""
    model, optimizer = run.accelerator.prepare(model, optimizer(model.parameters(), 1e-3))
    laps = []
    for _ in range(steps + 3):
        start = now()
        ends = [now() for _ in one_step(run, model, optimizer, rows)]
        laps.append([1000 * (b - a) for a, b in pairwise([start, *ends])])
    return [median(times) for times in zip(*laps[3:], strict=True)]  # the first three warm up


def now() -> float:
    """Return the time in seconds, after a GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def products(model: Any, batch: Batch) -> tuple[int, int]:
    """Return the operations of the matrix products in a forward and in a backward pass."""
    with FlopCounterMode(display=False) as counter:
        loss = label_sum(model, batch)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    model.zero_grad()
    return forward, counter.get_total_flops()


@lab.experiment
def where_the_time_goes(run: Run):
    """The backward pass has twice the forward's products; a fused AdamW takes less time than ours.

    Predict: which share of a small model's step is our optimizer's?
    """
    fused = partial(torch.optim.AdamW, fused=True)
    rows = some_rows(run, encode, 32)
    large = word_tasks.small_llama(256, 4)
    forward, backward = products(large, collate(rows, PAD))
    because = "two products for each of the forward pass; attention's kernel computes a few more"
    what = "operations of the products: backward ÷ forward"
    run.check(what, backward / forward, at_least=1.9, at_most=2.2, because=because, decides=True)
    long = [{name: 4 * one for name, one in row.items()} for row in rows]  # 76 tokens at most
    ways = {
        "small, our AdamW": (build(run, run.seed), rows, AdamW, 30),
        "small, fused AdamW": (build(run, run.seed), rows, fused, 30),
        "large, fused AdamW": (large, long, fused, 3),
    }
    times = {name: stopwatch(run, *how) for name, how in ways.items()}
    ours, theirs, slow = times.values()
    run.measure("large: time of backward ÷ forward", slow[2] / slow[1], timed=True)
    run.measure("small: time of backward ÷ forward", ours[2] / ours[1], timed=True)
    share = ours[4] / sum(ours)
    run.measure("small: our optimizer's share of a step", share, timed=True)
    what = "small: time of our AdamW ÷ the fused one"
    run.measure(what, ours[4] / theirs[4], expect_at_least=1, timed=True, decides=True)
    small, big = (sum(sizes(model)) for model in (build(run, run.seed), large))
    caption = f"Small: {small:,} parameters, rows of 19 tokens at most. Large: {big:,}, of 76."
    run.figure(
        figures.draw_times(STAGES, times),
        "time",
        f"{caption} Each step takes 32 rows.",
        alt="Stacked bars of the share of a step's time, a bar for each way of training, "
        "divided into collating, forward, backward, clipping and the optimizer.",
    )
    return f"In a small model's step our optimizer takes {share:.0%} of the time."


# %% [markdown]
# ## 8. Which rows go together?
# "First fit decreasing" takes the longest row first and puts each row into the first pack that has
# room. If $n$ packs are the fewest possible, it never makes more than
# $\frac{11}{9} n + \frac{6}{9}$ (Dósa 2007). Short rows come last and fill the gaps, so it seldom
# makes many more than the fewest.


# %% Packs
def pack(rows: list[Row], length: int) -> list[list[Row]]:
    """Sort rows into packs of at most `length` tokens, by first fit decreasing.

    Raises:
        ValueError: if a row is longer.
    """
    packs: list[list[Row]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: -len(row["input_ids"])):
        size = len(row["input_ids"])
        if size > length:
            raise ValueError(f"a row of {size} tokens doesn't fit into a pack of {length}")
        at = next((i for i, left in enumerate(room) if left >= size), len(packs))
        if at == len(packs):
            packs.append([])
            room.append(length)
        packs[at].append(row)
        room[at] -= size
    return packs


def padding(groups: list[list[Row]], places: int | None = None) -> float:
    """Return the share of places without a token.

    Args:
        groups: the rows of each batch or pack.
        places: the places of a group; by default rows × the longest row.
    """
    tokens = [[len(row["input_ids"]) for row in rows] for rows in groups]
    total = sum(places or max(lengths) * len(lengths) for lengths in tokens)
    return 1 - sum(map(sum, tokens)) / total


@lab.experiment
def packing_removes_padding(run: Run):
    """Packing leaves little padding; batches of rows in random order waste over a fifth.

    Predict: rows of 9 to 19 tokens, 16 to a batch. Which share of the places is padding?
    """
    rows = some_rows(run, encode, 4000)
    room = 64  # tokens
    lengths = [len(row["input_ids"]) for row in rows]
    by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
    packs = pack(rows, room)
    waste = {
        "random\norder": padding(in_groups(rows, 16)),
        "sorted by\nlength": padding(in_groups(by_length, 16)),
        "packed": padding(packs, room),
    }
    plain, alike, packed = waste.values()
    because = "a batch is as long as the longest of 16 rows"
    run.check("padding in random order", plain, at_least=0.2, because=because, decides=True)
    because = "a gap as long as the shortest row is filled, except in the last pack"
    bound = (min(lengths) - 1) / room
    run.check("padding packed", packed, at_most=bound, because=because, decides=True)
    fewest = math.ceil(sum(lengths) / room)
    run.measure("packs ÷ the fewest for this number of tokens", len(packs) / fewest)
    model = build(run, run.seed).to(run.device)
    part = rows[:640]
    loads = {
        "padded": [collate(group, PAD) for group in in_groups(part, 32)],
        "packed": [collate_packs(group, PAD) for group in in_groups(pack(part, room), 6)],
    }

    def forward_and_backward(name: str) -> None:
        for batch in loads[name]:
            inputs = placed(run, batch)
            inputs.pop("labels")
            model(**inputs).logits.sum().backward()

    padded = partial(forward_and_backward, "padded")
    times = seconds_paired(padded, partial(forward_and_backward, "packed"), 5)
    gain = [a / b for a, b in zip(*times, strict=True)]
    what = "time of the same rows, forward and backward: padded ÷ packed"
    run.measure(what, gain, expect_at_least=1, timed=True)
    fig = figures.draw_padding(lengths, waste)
    run.figure(
        fig,
        "lengths",
        "How long rows are, and what three ways of batching them waste.",
        alt="A histogram of the number of tokens in a row, and three bars of the share of padding.",
    )
    return (
        f"Padding: {plain:.0%} in random order, {packed:.1%} packed, {alike:.1%} sorted by length; "
        "but a batch of rows of one length isn't a random batch."
    )


# %% [markdown]
# ## 9. Broken files
# A file from somebody else has broken rows: half a line of JSON, a CSV line with a field too many,
# an empty response. `readers.py` returns each row with its place, and `conversations.py` checks it.
# With `--bad-rows stop`, the default, the first bad row ends the run. With `skip` bad rows are
# counted, and the first ten are reported.


# %% Files
@lab.experiment
def a_bad_row_is_reported_with_its_place(run: Run):
    """Rows in three file formats and shapes become messages; each bad row is named by its place."""
    a, b, c = islice(examples(run.seed, None), 3)
    with tempfile.TemporaryDirectory() as name:
        word_tasks.write_files(Path(name), a, b, c)
        read = reading.Conversations(name, skip=True)
        responses = [row["messages"][-1]["content"] for row in read]
        reported = [problem.removeprefix(f"{name}/").split(": ", 1) for problem in read.reported]
        stopped = ""
        try:
            list(reading.Conversations(name))
        except Card as card:
            stopped = card.why.removeprefix(f"{name}/").split(": ", 1)[0]
    run.table("Bad rows", ["row", "problem"], reported)
    expected = [a["output"], "Hello", "yes", b["output"], c["output"]]
    what = "the good rows' responses, in their order"
    run.check(what, responses == expected, equals=True, decides=True)
    expected = [f"a.jsonl, line {n}" for n in (2, 3, 5)] + ["b.csv, line 4", "c.parquet, row 2"]
    places = [row for row, _ in reported]
    run.check("the bad rows' places", places == expected, equals=True, decides=True)
    run.check("without skip, it stops at", stopped, equals=expected[0])


# %% [markdown]
# ## 10. Streams
# A *Dataset* is a table: `map` applies a function to each row and saves the result in a file, whose
# name is a hash of the data, the function and all that the function refers to. A stream (an
# *IterableDataset*) reads a row only when somebody asks for it, so it can be longer
# than memory, or endless. It can't be shuffled completely, only through a buffer of $b$ rows: each
# row that leaves the buffer makes room for the next row of the file. Count places from 0. Then the
# row at place $p$ of the shuffled stream is one of the first $p + b$ rows of the file.


# %% Tables
@lab.experiment
def a_map_is_computed_once(run: Run):
    """A table computes a map once; the same function again takes the saved result."""

    def length(row: Example, unit: int = 1) -> dict[str, int]:
        return {"length": len(row["output"]) // unit}

    with tempfile.TemporaryDirectory() as folder:
        rows = list(islice(examples(run.seed, None), 1000))
        datasets.Dataset.from_list(rows).to_json(f"{folder}/rows.jsonl")
        table = datasets.load_dataset(
            "json", data_files=f"{folder}/rows.jsonl", cache_dir=folder, split="train"
        )
        files = []
        for function in (length, length, partial(length, unit=2)):
            table.map(function)
            files.append(len(list(Path(folder).rglob("cache-*.arrow"))))
    run.check(
        "saved results after a map, the same map, another one",
        files,
        equals=[1, 1, 2],
        decides=True,
    )


# %% Streams
@lab.experiment
def a_stream_is_lazy_and_shuffles_nearby(run: Run):
    """A stream reads only what is requested, and its buffer moves no row far to the front.

    Predict: rows sorted by task, about 200 of each; a shuffle buffer of 100. How many of the five
    tasks are among the first 100 rows?
    """
    rows = sorted(islice(examples(run.seed, None), 1000), key=lambda row: row["instruction"])
    read = []

    def source() -> Iterator[dict[str, int]]:
        for number in range(len(rows)):
            read.append(number)
            yield {"number": number}

    stream = datasets.IterableDataset.from_generator(source)
    list(stream.map(lambda row: {"twice": 2 * row["number"]}).take(10))
    because = "one row ahead, at most"
    run.check("rows that are read for ten", len(read), at_most=11, because=because, decides=True)
    drawn = [row["number"] for row in stream.shuffle(seed=run.seed, buffer_size=100)]
    moved = [place - number for place, number in enumerate(drawn)]
    because = "the buffer has 100 rows"
    what = "places that a row moves to the front, at most"
    run.check(what, -min(moved), at_most=99, because=because, decides=True)
    because = "a row may stay in the buffer for long"
    run.check("places that a row moves back, at most", max(moved), at_least=100, because=because)
    tasks = len({rows[number]["instruction"] for number in drawn[:100]})
    because = "they come from the file's first 199 rows; the smallest task has far more than 100"
    run.check("tasks among the first 100 rows", tasks, at_most=2, because=because)
    return f"The first 100 rows have {tasks} of the five tasks: shuffle the file once, before."


# %% [markdown]
# ## 11. Duplicates and contamination
# A row that occurs twice counts twice in the loss. A test row that is also a training row
# **contaminates** the test. Exact matching finds identical rows. **Normalised** rows, as lower-case
# words with one space between them, match in spite of other case, spaces and punctuation. Reworded
# copies still share sequences of $n$ words, **n-grams**. The authors of GPT-3 looked for 13-grams
# that test and training texts have in common (Brown et al. 2020, app. C). Our texts are short, so
# $n$ is 6. A small $n$ also flags texts that are no copies.


# %% Copies
def normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def n_grams(text: str, n: int = 6) -> set[str]:
    words = normalised(text).split()
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


COPIES: dict[str, Callable[[str, str], str]] = {
    "identical": lambda task, words: f"{task}: {words}",
    "other case and spaces": lambda task, words: f"{task.upper()} :  {words.upper()}",
    "reworded": lambda task, words: f"Here is a list: {words}. {task}, please.",
}
MATCHES: dict[str, Callable[[str], set[str]]] = {
    "exact": lambda text: {text},
    "normalised": lambda text: {normalised(text)},
    "6-grams": n_grams,
}


@lab.experiment
def reworded_copies_share_n_grams(run: Run):
    """Exact matching finds only identical copies of test rows; common 6-grams find reworded ones.

    Predict: 6-grams find all copies. Which share of the rows without a copy do they flag too?
    """
    pairs = word_tasks.pairs(islice(examples(run.seed, None), 8000))
    long = (pair for pair in pairs if len(pair[1].split()) == word_tasks.LONGEST)
    rows = list(dict.fromkeys(long))[:1200]
    groups = dict(zip([*COPIES, "no copy"], in_groups(rows[:200], 50), strict=True))
    training_texts = [f"{task}: {words}" for task, words in rows[200:]]
    for name, copied in COPIES.items():
        training_texts += [copied(task, words) for task, words in groups[name]]
    shares: dict[str, list[float]] = {}
    for match, keys in MATCHES.items():
        known = set().union(*map(keys, training_texts))
        shares[match] = [
            mean(not known.isdisjoint(keys(f"{task}: {words}")) for task, words in group)
            for group in groups.values()
        ]
    table = [[match, *(f"{share:.0%}" for share in row)] for match, row in shares.items()]
    run.table("Share of the test rows that match a training row", ["", *groups], table)
    expected = [1.0, 0.0, 0.0]
    run.check("exact: identical, other case, reworded", shares["exact"][:3], equals=expected)
    expected = [1.0, 1.0, 0.0]
    run.check("normalised: the same", shares["normalised"][:3], equals=expected, decides=True)
    expected = [1.0, 1.0, 1.0]
    run.check("6-grams: the same", shares["6-grams"][:3], equals=expected, decides=True)
    because = "no row occurs twice"
    run.check(
        "normalised: rows without a copy", shares["normalised"][3], at_most=0, because=because
    )
    flagged = shares["6-grams"][3]
    because = "another row may have the same task and the same first three words"
    run.measure("6-grams: rows without a copy", flagged, expect_at_most=0.5, because=because)
    return f"6-grams find every copy, and also flag {flagged:.0%} of the rows without one."


# %% [markdown]
# ## What to remember
# A loop with a mistake trains, and its loss falls. Read a batch before you train: decode the tokens
# that have labels. After it, let the model respond to held-out requests, and see whether it stops.
# The mean of means is a fair estimate of *another* loss, in which micro-batches count equally.
# Prompts are random words here; where they are ordinary text, people found little difference, so
# measure it on your data. To resume exactly, save the full state, with the order of the rows that
# are still to come. In this run:


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Return sentences with this run's numbers."""
    masked = results.shown(
        "does_masking_the_prompt_help", "share of right responses, masked − not masked"
    )
    mistakes = "mistakes_raise_no_error"
    means = results.shown(mistakes, "mean of means: responses' loss − the right loop's")
    short = results.shown(mistakes, "bf16 weights: responses' loss − the right loop's")
    spread = results.values(mistakes, "the right loop's responses' loss, three seeds")
    small = "float16_loses_many_gradients_and_little_mass"
    entries = results.value(small, "share of entries lost, unscaled")
    mass = results.value(small, "share of the mass lost, unscaled")
    return (
        f"- Share of right responses, masked prompt − unmasked: {masked}.\n"
        f"- The right loop's responses' loss has a range of {max(spread) - min(spread):.3g} nats "
        f"over three seeds. The mean of means changes the loss by {means} nats, bf16 weights by "
        f"{short} nats.\n"
        f"- float16 loses {entries:.0%} of a gradient's entries, with {mass:.2%} of its mass."
    )


# %% [markdown]
# **Read on**: Micikevicius et al. 2018, *Mixed precision training*, on loss scaling · Shi et al.
# 2024, *Instruction tuning with loss over instructions*, on what prompts' labels are good for ·
# `benchmarks/training.py`, which compares our loop with transformers' Trainer. Next: LLM09, custom
# architectures.

# %%
if __name__ == "__main__":
    lab.main()
