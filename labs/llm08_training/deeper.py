# %% [markdown]
# # LLM08+ · Dataset processing and training, deeper
# Seven mistakes to recognise, float16, interrupted trainings, several processes, and duplicates.
#
# **You will be able to** recognise mistakes of a training loop by what they do to it, and know
# which ones hide. You will explain what float16 loses, resume an interrupted training bit for bit,
# and get the same losses from N processes as from one. You will measure where a step's time goes,
# pack rows, shuffle streams, and look for test rows in the training data by n-grams. **Builds on**
# LLM08, whose data, loop and model it imports. **Takes** an hour to read, two minutes at `tiny`.

# %% Imports
import copy
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from statistics import mean
from typing import Any

from labs.kit import Checkpoints, Lab, Results, Run, assets
from labs.kit.run.processes import is_main
from labs.llm08_training import deeper_figures as figures
from labs.llm08_training import training, word_tasks
from labs.llm08_training.lesson import (
    BETAS,
    IGNORED,
    PARTS,
    AdamW,
    collate,
    encode,
    label_count,
    label_sum,
    lr_at,
    training_step,
)
from labs.llm08_training.several import SEVERAL, start_two
from labs.llm08_training.timing import STAGES, products, stopwatch
from labs.llm08_training.training import (
    Batch,
    Fit,
    Recipe,
    Row,
    Trained,
    Watch,
    in_groups,
    some_rows,
    train,
)
from labs.llm08_training.word_tasks import END, PAD, build, examples

import datasets
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

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
# | the prompt too | all tokens have labels, which some people choose on purpose |
# | padding too | the labels of padding aren't −100 |
# | end = pad | the end token pads, and padding is recognised by value |
# | shifted twice | the data shifts the labels, and then the loss shifts them again |
# | mean of means | the gradient is a mean over micro-batches (LLM08, section 5) |
# | rate by batch | each micro-batch moves the schedule (LLM08, section 7) |
# | bf16 weights | weights and AdamW's means have 8 significant bits (LLM08, section 9) |
#
# Before you run the cells, write down for each mistake what you expect. Is the loop's training loss
# higher or lower than that of the correct loop? Are the responses right? Does the model stop? Some
# mistakes change the results no more than another seed does.


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

    change_row: Callable[[Row], Row] = lambda row: row
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
    "the prompt too": Variant(change_row=all_labels),
    "padding too": Variant(collate=collate_all),
    "end = pad": Variant(collate=collate_by_value, pad=END),
    "shifted twice": Variant(change_row=shifted),
    "mean of means": Variant(step=mean_of_means, accumulate=2),
    "rate by batch": Variant(lr_at=lr_by_batch, accumulate=2),
    "bf16 weights": Variant(dtype=torch.bfloat16),
}


@cache
def fit(run: Run, name: str, seed: int) -> Fit:
    """Train with a loop from scratch, on a seed's data, and examine the model."""
    variant = LOOPS[name]

    def collate_rows(rows: list[Row]) -> Batch:
        return variant.collate(rows, variant.pad)

    loop = replace(PARTS.loop, collate=collate_rows, step=variant.step, lr_at=variant.lr_at)
    parts = replace(PARTS, loop=loop)
    how = (variant.accumulate, variant.dtype, variant.change_row)
    return training.fit(run, parts, seed, name, *how)


def fits(run: Run, name: str) -> list[Fit]:
    return [fit(run, name, seed) for seed in run.seeds(3)]


def own_loss(fitted: Fit) -> float:
    """Return the loop's training loss, a mean of the last 20 steps."""
    return mean(fitted.trained.losses[-20:])


def cost(run: Run, name: str) -> list[float]:
    """Return what a mistake costs: the responses' loss − that of the right loop.

    One seed at `tiny` shows a cost of 0.3 nats and more: over three seeds the right loop's loss had
    a range of 0.05 to 0.2 in our runs. The other sizes take three.
    """
    seeds = run.seeds(run.pick(tiny=1, small=3, full=3))
    return [fit(run, name, seed).loss - fit(run, "right", seed).loss for seed in seeds]


def is_hidden(run: Run, fitted: Fit) -> bool:
    """Return whether a loop's numbers look like those of the right loop's other seeds.

    These are its training loss, the responses' loss, and the shares that are right and that stop.
    The range of three seeds is 1.7 standard deviations on average. Two seeds rarely differ by more
    than 2√2 = 2.8 of them, so we allow 2.8 ÷ 1.7 = 1.67 ranges. But the range of three varies, too:
    with normal numbers a correct loop's other seed fails each comparison in 1 of 8 cases.
    """
    rights = [_marks(right) for right in fits(run, "right")]
    pairs = zip(_marks(fitted), zip(*rights, strict=True), strict=True)
    return all(abs(own - three[0]) <= APART * _range(three) + 0.01 for own, three in pairs)


def _range(numbers: Sequence[float]) -> float:
    return max(numbers) - min(numbers)


def _marks(fitted: Fit) -> list[float]:
    return [own_loss(fitted), fitted.loss, fitted.right, fitted.exam.stops]


# %% Which is which?
REQUEST = {"instruction": "Reverse the words", "input": "bee cow dog", "output": "dog cow bee"}


def letters_of(run: Run) -> dict[str, str]:
    """Return the letter of each loop, A to H, in random order."""
    order = random.Random(run.seed).sample(list(LOOPS), len(LOOPS))
    return dict(zip(order, "ABCDEFGH", strict=True))


@lab.experiment
def mistakes_raise_no_error(run: Run):
    """Eight loops train to the end without an error, and seven of them have a mistake.

    The table and the figure name the loops by letters, in random order. The responses' loss is that
    of held-out rows with the right labels; *stops* is the share of responses with an end.

    Predict: is the training loss with labels shifted twice higher or lower than the right loop's?
    Which mistakes look like the right loop?
    """
    trained = {name: fit(run, name, run.seed) for name in LOOPS}  # not by letter: bars show names
    loops = {letter: trained[name] for name, letter in letters_of(run).items()}
    table = []
    for letter, fitted in loops.items():
        losses = [own_loss(fitted), fitted.loss]
        shares = [f"{share:.0%}" for share in fitted.exam[:3]]
        (response,) = word_tasks.responses(fitted.trained.model, [REQUEST])
        table.append([letter, *losses, *shares, response])
    asked = f"{REQUEST['instruction']} {REQUEST['input']}"
    columns = ["loop", "its loss", "responses' loss", "right", "words", "stops", f"“{asked}”"]
    title = "its loss: nats over its own labels; right: right words and end; words: right words"
    run.table(title, columns, table)
    curves = {letter: fitted.trained.watched for letter, fitted in loops.items()}
    figures.show_mistakes(run, curves, [fitted.trained.watched for fitted in fits(run, "right")])
    ended = sum(len(fitted.trained.losses) == training.steps_of(run) for fitted in loops.values())
    because = "by construction: an error would have stopped the experiment"
    run.check("loops that took all steps", ended, equals=8, because=because, decides=True)
    return "Give each mistake a letter before you go on: the next experiment has the key."


# %% [markdown]
# Look at the table and the figure first, and write down a letter for each mistake. Which loops
# stop? Which ones find the right words? Which responses make sense? The next cell gives the key.


# %% The key
APART = 1.67  # ranges of three seeds: a rough rule, see is_hidden
RIGHT = "the right loop's training loss, three seeds"
SHIFTED = "shifted twice: its training loss"


@lab.experiment
def a_low_loss_can_be_wrong(run: Run):
    """With labels shifted twice the training loss is low, and hardly any response is right.

    In the one seed that we train, this loss is no higher than in the right loop's worst seed. Our
    requests determine all words of the response, so they can be learned one place too early. Why
    the loss can be even lower isn't tested. In ordinary text we expect it to be higher.

    Predict: which letter is the loop whose labels are shifted twice?
    """
    rates = {"counted in steps": lr_at, "moved by each\nof two batches": lr_by_batch}
    steps = training.steps_of(run)
    shares = {name: [rate(t, steps, 20) for t in range(steps)] for name, rate in rates.items()}
    figures.show_rates(run, shares)
    rights = [own_loss(fitted) for fitted in fits(run, "right")]
    run.measure(RIGHT, rights, unit="nats")
    twice = fit(run, "shifted twice", run.seed)
    because = "the right loop's worst seed; requests determine the token after next, too"
    run.measure(SHIFTED, own_loss(twice), expect_at_most=max(rights), because=because, decides=True)
    because = "it begins with the right response's second token: the end, if there is one word"
    what = "shifted twice: share of right words"
    run.check(what, twice.exam.words, at_most=0.05, because=because, decides=True)
    losses = [fitted.loss for fitted in fits(run, "right")]
    run.measure("the right loop's responses' loss, three seeds", losses, unit="nats")
    mistakes = list(LOOPS)[1:]
    for name in mistakes:
        run.measure(f"{name}: responses' loss − the right loop's", cost(run, name), unit="nats")
    hidden = [name for name in mistakes if is_hidden(run, fit(run, name, run.seed))]
    run.measure("mistakes that look like another seed", len(hidden))
    key = ", ".join(f"{letter} is {name}" for name, letter in letters_of(run).items())
    return (
        f"The key: {key}. With one run each, these look like another seed, by a rough rule: "
        f"{', '.join(hidden) or 'none'}. It doesn't notice a change of the responses' loss by "
        f"less than {APART * _range(losses):.2f} nats."
    )


# %% [markdown]
# What gives each mistake away, if anything does:
#
# - *The prompt too*: the loop's loss can't fall much below 1 nat, as a request's words are random.
# - *Padding too*: the loop's loss is far below the responses' loss. Two thirds of its labels are
#   padding's, about 6.3 a row against 3, and easy. They probably slow down the others: not tested.
# - *End = pad* never stops. *Shifted twice* begins with the response's second token.
# - *Rate by batch* learns less. With seed 0 it still looks like another seed, so plot the rate.
# - *Mean of means*: micro-batches of 16 random rows have similar numbers of labels, so a label's
#   weight is off by a tenth or so. With sorted rows the error is large (LLM08, section 5).
# - *bf16 weights* lose few updates as large as our rates. We don't count AdamW's smaller steps. At
#   a rate of 10⁻⁵ they lose most (section 2).
#
# With seeds 0 to 3 at `tiny`, the last two moved the responses' loss by at most 0.12 nats, up or
# down. Which mistakes look like another seed depends on the seeds: your key may list others.


# %% The end
@lab.experiment
def an_end_that_is_padding_is_never_said(run: Run):
    """If the end token also pads and padding is masked by value, a model gets most words right
    and hardly ever stops.

    Only the words up to the wanted number are compared: what follows them doesn't count.

    Predict: does it find the right words in most of 200 responses? And in how many does it stop?
    """
    rights = fits(run, "right")
    wrong = fit(run, "end = pad", run.seed)
    words = [fitted.exam.words for fitted in rights]
    because = "count, first and last are three fifths of the tasks, and the model can do them"
    run.measure("right: words right", words, expect_at_least=0.5, because=because)
    what = "end = pad: words right"
    found = wrong.exam.words
    run.measure(what, found, expect_at_least=0.5, because=because, decides=True)
    stops = [fitted.exam.stops for fitted in rights]
    because = "each row has a label for its end"
    run.check("right: stops", stops, at_least=0.9, because=because)
    because = "no row has a label for its end"
    what = "end = pad: stops"
    run.check(what, wrong.exam.stops, at_most=0.05, because=because, decides=True)
    both = mean(fitted.right for fitted in rights)
    good = [f"{share:.1%}" for share in (mean(words), mean(stops), both)]
    bad = [f"{share:.1%}" for share in (found, wrong.exam.stops, wrong.right)]
    columns = ["loop", "words right", "stops", "words and end right"]
    table = [["right", *good], ["end = pad", *bad]]
    title = "Held-out requests; the right loop: mean of three seeds; the mistake: one seed"
    run.table(title, columns, table)
    return (
        f"Words right: {min(words):.1%} to {max(words):.1%} in three seeds of the right loop, and "
        f"{bad[0]} in one seed of the mistake. One seed can't show whether the mistake changes the "
        f"words. Stops: {good[1]} on average, and {bad[1]} with the mistake."
    )


# %% The prompt
@lab.experiment
def does_masking_the_prompt_help(run: Run):
    """After a short training on our tasks, masking the prompt gives more right responses.

    A likely reason, which isn't tested: the prompt's words are random, so learning them doesn't
    help, and most labels are theirs. At `--size small`, with a larger model, ten times as many rows
    and four times as many steps, the gap may close.

    Predict: most tokens of a row are the prompt's. Does learning them too help or hurt?
    """
    masked = fits(run, "right")
    unmasked = fits(run, "the prompt too")
    gains = [a.right - b.right for a, b in zip(masked, unmasked, strict=True)]
    because = "two standard errors of a difference between shares of 200 requests"
    what = "share of right responses, masked − not masked"
    run.measure(what, gains, expect_at_least=0.1, because=because, decides=True)
    rows = some_rows(run, encode, 500)
    share = sum(label_count(collate([row], PAD)) for row in rows)
    share /= sum(len(row["input_ids"]) - 1 for row in rows)
    run.measure("the responses' share of all tokens", share)
    a, b = (mean(fitted.right for fitted in group) for group in (masked, unmasked))
    return f"Masked {a:.0%} right, not masked {b:.0%}: responses are {share:.0%} of the tokens."


# %% [markdown]
# ## 2. What float16 loses
# float16 has 11 significant bits, more than bfloat16, but its smallest number above 0 is
# $2^{-24} \approx 6 \cdot 10^{-8}$. Gradients of half of that or less become 0. **Loss scaling**
# (Micikevicius et al. 2018) multiplies the loss by a power of two before the backward pass and
# divides the gradients, in 32 bits, after it. float16 ends at 65,504: if a gradient overflows, the
# scaler skips the step and halves the scale. PyTorch's scaler begins with 2¹⁶, as in our table.
#
# How much is lost? Two measures give very different results. One counts the *entries* that become
# zero. The other adds up their absolute values: their share of the **mass** $\sum |g|$. We look at
# a real model's gradient with respect to its logits, where the backward pass begins. It has an
# entry for each token of the vocabulary, and most of them are tiny.
#
# What counts is the number that the loss is divided by before the backward pass. In a mean over $N$
# labels each label's gradient is divided by $N$. Our text has 64 labels. We divide its gradients as
# if it were part of a larger batch, of up to half a million labels. All processes of a large
# training together may have that number in a step. But each of $P$ processes divides its loss by a
# $P$-th of them only (LLM08, section 8): with 16 processes, look at the table's line for 32,768
# labels. We don't train in float16, so what a lost share does to a training stays open.


# %% Small gradients
def losses_in_float16(g: Tensor, scale: float) -> tuple[float, float]:
    """Return the shares of entries and of mass that become 0 in float16, if scaled before."""
    lost = (g * scale).half() == 0
    return lost.double().mean().item(), (g[lost].abs().sum() / g.abs().sum()).item()


@lab.experiment
def float16_loses_more_in_larger_batches(run: Run):
    """In a small batch float16 loses most entries and little mass; in a large one, over 5 % of it.

    Large is half a million labels, and little is at most 2⁻⁸ of the mass. With loss scaling the
    large batch loses little, too.

    Predict: 64 labels lose 0.2 % of the mass. How much is lost with half a million labels?
    """
    small = (2.0 ** torch.tensor([-24, -25, -26])).half().float() * 2**24
    run.check("2⁻²⁴, 2⁻²⁵, 2⁻²⁶ in float16, ÷ 2⁻²⁴", small.tolist(), equals=[1.0, 0.0, 0.0])
    real = assets.pretrained(run.options.model, run.online)
    ids = AutoTokenizer.from_pretrained(real)(assets.parallel()["English"], return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(real, dtype=torch.float32)(**ids).logits[0]
    logits.requires_grad_()  # (T, V)
    F.cross_entropy(logits[:-1], ids.input_ids[0, 1:], reduction="sum").backward()
    g = logits.grad[logits.grad != 0].double()  # of the summed loss
    batches = [2**k for k in (6, 9, 12, 15, 17, 19)]
    plain = [losses_in_float16(g / n, 1) for n in batches]
    scaled = [losses_in_float16(g / n, 2**16) for n in batches]
    figures.show_float16(run, batches, [mass for _, mass in plain], [mass for _, mass in scaled])
    rows = [[f"{n:,}", *a, *b] for n, a, b in zip(batches, plain, scaled, strict=True)]
    columns = ["labels", "entries lost", "mass lost", "entries lost at 2¹⁶", "mass lost at 2¹⁶"]
    run.table("Logits' gradients in float16, without those that are 0 in fp32", columns, rows)
    what = "64 labels: share of entries lost"
    run.measure(what, plain[0][0], expect_at_least=0.5, decides=True)
    because = "our convention: bf16 rounds each number by up to 2⁻⁸ of it, so less is little"
    what = "64 labels: share of the mass lost"
    run.measure(what, plain[0][1], expect_at_most=2**-8, because=because, decides=True)
    what = "524,288 labels: share of the mass lost"
    much = "our convention: a twentieth is much"
    run.measure(what, plain[-1][1], expect_at_least=0.05, because=much, decides=True)
    what = "524,288 labels at 2¹⁶: share of the mass lost"
    run.measure(what, scaled[-1][1], expect_at_most=2**-8, because=because, decides=True)
    large = [n for n, (_, mass) in zip(batches, plain, strict=True) if mass > 2**-8]
    return (
        f"With 64 labels {plain[0][1]:.2%} of the mass is lost, with 524,288 labels "
        f"{plain[-1][1]:.0%}, and {scaled[-1][1]:.2%} if the loss is scaled by 2¹⁶. The smallest "
        f"batch in the table that loses more than 2⁻⁸ = 0.39% has {min(large, default=0):,} labels."
    )


# %% [markdown]
# bf16 has the range of float32, so it keeps small gradients. But *weights* in bf16 lose small
# *updates* (LLM08, section 9). Here it shows in a training: 20 steps of 10⁻⁵ on a trained model.


# %% Small updates
def steady(model: Any, rows: list[Row], steps: int) -> tuple[float, float]:
    """Train at 1e-5; return the share of weights that never moved, and how far the loss fell."""
    before = copy.deepcopy(model)
    optimizer = AdamW(model.parameters(), 1e-5, BETAS, weight_decay=0)
    batch = collate(rows, PAD)
    for _ in range(steps):
        (label_sum(model, batch) / label_count(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    pairs = zip(before.parameters(), model.parameters(), strict=True)
    still = torch.cat([(a == b).flatten() for a, b in pairs]).float().mean().item()
    with torch.no_grad():  # logits of bf16 would round a small gain away
        gain = label_sum(before.float(), batch) - label_sum(copy.deepcopy(model).float(), batch)
    return still, gain.item() / label_count(batch)


@lab.experiment
def bf16_weights_stand_still(run: Run):
    """At a rate of 10⁻⁵ most bf16 weights never move, and most float32 weights do.

    Predict: how much less does the loss fall with bf16 weights?
    """
    model = copy.deepcopy(fit(run, "right", run.seed).trained.model).cpu()
    rows = some_rows(run, encode, 64)
    still, gain = steady(copy.deepcopy(model), rows, 20)
    still_short, gain_short = steady(copy.deepcopy(model).bfloat16(), rows, 20)
    because = "each of the twenty steps of 1e-5 is lost"
    what = "bf16: share of weights that never moved"
    run.check(what, still_short, at_least=0.5, because=because, decides=True)
    because = "only the embeddings of tokens that aren't in the batch have a gradient of 0"
    what = "fp32: share of weights that never moved"
    run.check(what, still, at_most=0.2, because=because, decides=True)
    run.measure("fp32: the loss falls by", gain, expect_at_least=0, unit="nats")
    run.measure("bf16: the fall of its loss ÷ that of fp32", gain_short / gain, expect_at_most=0.8)
    return (
        f"With fp32 weights the loss falls by {gain:.5f} nats, with bf16 weights by "
        f"{gain_short:.5f}, which is {gain_short / gain:.0%} of that."
    )


# %% [markdown]
# ## 3. Resuming an interrupted training
# A killed training should continue and end as if nothing had happened. To continue *exactly*, the
# weights aren't enough. A resume also needs AdamW's means and $t$, the place in the schedule,
# this epoch's order of the data, and the number of batches so far. Because of dropout, it needs the
# state of every random number generator, too.
#
# `Checkpoints` saves this state with Accelerate's `save_state`. It writes into a folder with a
# temporary name and renames it when it is complete, so a resume never finds half of one. The last
# two checkpoints stay. The next run resumes if the recipe, the rows, the lab's text and the machine
# are the same. Try it: press Ctrl-C in a run of `--size small`, and start it again. The experiment
# doesn't compare the rows, so that it can also resume with another order.


# %% Resumed
class Killed(Exception):
    """Raised between two steps of a training, in place of a kill."""


@lab.experiment
def resumed_is_bit_for_bit(run: Run):
    """Stopped in its middle and resumed, a training ends with exactly the same losses and weights.

    Predict: all is restored but the order of the data. How many of the last 20 losses differ?
    """
    rows = some_rows(run, encode, 400)
    how = Recipe(40, seed=run.seed)  # an epoch has 13 steps

    def start(name: str, seed: int, rows: list[Row], watch: Watch | None = None) -> Trained:
        """Train with dropout, so that random numbers matter."""
        # depends_on lacks the rows, so that "another order" resumes, too
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
    gap = abs(reordered.losses[20] - uninterrupted.losses[20])
    return (
        f"Without the order, {other_losses(reordered)} of the last 20 losses differ, the first by "
        f"{gap:.2f} nats. Some rows probably came twice in this epoch, others never: not counted."
    )


# %% [markdown]
# ## 4. N processes
# On $N$ devices $N$ processes run the same program. Each has the entire model and takes its share
# of every batch: our loaders have `split_batches=True`, while Accelerate's default gives each
# process batches of its own. The gradients are averaged before the step ("data parallel"). The
# result is that of one process only if the division is right: by the labels of the window in *all*
# processes. A mean over each process's labels is a mean of means again.
#
# To evaluate, the processes collect their results with `gather`. All processes need the same number
# of rows. So Accelerate fills up the last batch with rows from the beginning, and `gather` returns
# these copies, too. `gather_for_metrics` drops them.
#
# `several.py` starts two processes for ten steps. As a reference, plain PyTorch trains in one
# process on the rows of both. As a control, it makes the mistake: it averages the mean losses of
# both processes' rows. `invoke lab LLM08 --processes 2` runs the entire lesson with two.


# %% Plain PyTorch
def plainly(run: Run, steps: list[list[Row]], parts: int = 1) -> list[float]:
    """Return the losses of the same training in plain PyTorch, in one process.

    Args:
        run: the run.
        steps: the rows of each step.
        parts: with more than 1, the rows of a step are cut into equal parts, whose mean losses are
            averaged: a mistake.
    """
    model = build(run, run.seed)
    optimizer = AdamW(model.parameters(), SEVERAL.lr, BETAS)
    losses = []
    for step, rows in enumerate(steps):
        batches = [collate(part, PAD) for part in in_groups(rows, len(rows) // parts)]
        means = [label_sum(model, batch) / label_count(batch) for batch in batches]
        loss = torch.stack(means).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), SEVERAL.clip)
        optimizer.param_groups[0]["lr"] = SEVERAL.lr * lr_at(step, SEVERAL.steps, SEVERAL.warmup)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@lab.experiment
def n_processes_are_as_one(run: Run):
    """Two processes that share every batch have the same losses as one that has all rows.

    Predict: five rows, two to a batch. How many do the two processes count with `gather`?
    """
    if not is_main():
        return None  # the main process starts two of its own
    records = start_two(run.size, run.seed)
    run.check("processes that ran", len({record["id"] for record in records}), equals=2)
    half = SEVERAL.batch // 2
    shares = [in_groups(record["seen"], half)[: SEVERAL.steps] for record in records]
    rows = [a + b for a, b in zip(*shares, strict=True)]
    single = plainly(run, rows)

    def largest_gap(losses: list[float]) -> float:
        return max(abs(a / b - 1) for a, b in zip(losses, single, strict=True))

    because = "rounding, which Adam's first steps magnify if a gradient is near 0"
    gap = largest_gap(records[0]["losses"])
    what = "two processes: largest relative difference of a loss"
    run.check(what, gap, at_most=1e-4, because=because, decides=True)
    gap = largest_gap(plainly(run, rows, parts=2))
    because = "ten times what rounding may change"
    what = "mean of the processes' means: largest relative difference of a loss"
    run.measure(what, gap, expect_at_least=1e-3, because=because)
    gathered, counted = records[0]["counts"]
    run.check("five rows by gather_for_metrics", sorted(counted), equals=[0, 1, 2, 3, 4])
    return f"Of five rows `gather` counts {len(gathered)}: {gathered}."


# %% [markdown]
# ## 5. Where a step's time goes
# In the forward pass, each weight of a matrix product takes part in one multiplication per token.
# The backward pass has two for it: one for the gradient of the layer's input, one for that of the
# weight. Its *time* needn't be twice the forward's: norms, softmax and Python count.
#
# Then come clipping and the optimizer. Their time doesn't depend on the batch. Our AdamW calls
# twelve kernels for each of its tensors (21 at `tiny`). PyTorch's fused one calls a single
# kernel for each tensor on a CPU, and one for many tensors at once on a GPU.


# %% Time
@lab.experiment
def where_the_time_goes(run: Run):
    """The backward pass has twice the forward's products; a fused AdamW takes less time than ours.

    Predict: what share of a small model's step is our optimizer's?
    """
    rows = some_rows(run, encode, 32)
    model = build(run, run.seed)
    forward, backward = products(model, collate(rows, PAD))
    because = "two products for each of the forward pass; attention's kernel computes a few more"
    what = "operations of the products: backward ÷ forward"
    run.check(what, backward / forward, at_least=1.9, at_most=2.2, because=because, decides=True)
    ways = {"our AdamW": AdamW, "fused AdamW": partial(torch.optim.AdamW, fused=True)}
    with run.small_products(len(rows) * training.TOKENS, model.config.hidden_size):
        ours, theirs = stopwatch(run, rows, ways, 30)  # precision and threads of our trainings
    run.measure("time of backward ÷ forward", ours[2] / ours[1], timed=True)
    share = ours[4] / sum(ours)
    run.measure("our optimizer's share of a step", share, timed=True)
    what = "time of our AdamW ÷ the fused one"
    run.measure(what, ours[4] / theirs[4], expect_at_least=1, timed=True, decides=True)
    figures.show_times(run, STAGES, dict(zip(ways, (ours, theirs), strict=True)))
    return f"In a small model's step our optimizer takes {share:.0%} of the time."


# %% [markdown]
# ## 6. Which rows go together?
# "First fit decreasing" takes the longest row first and puts each row into the first pack that has
# room. If $n$ packs are the fewest possible, it never makes more than
# $\frac{11}{9} n + \frac{6}{9}$ (Dósa 2007). Short rows come last and fill the gaps, if there are
# enough of them. Long rows come first, so shuffle the packs before you train.


# %% Packs
@lab.exercise(
    level=2,
    hints=(
        "Sort the rows, the longest first. Store how much room is left in each pack.",
        "A row goes into the first pack that has room for it; if none has, into a new pack.",
        "A row of more than `length` tokens fits nowhere: raise ValueError.",
    ),
)
def pack(rows: list[Row], length: int) -> list[list[Row]]:
    """Distribute rows over packs of at most `length` tokens, by first fit decreasing.

    Raises:
        ValueError: if a row is longer than `length`.
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
    """Packing leaves much less padding than batches of rows in random order.

    Predict: rows of 9 to 19 tokens, 16 to a batch. What share of the places is padding?
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
    run.measure("padding in random order", plain)
    because = "at most 11/9 of the fewest packs, if the fewest were full"
    run.measure("padding packed", packed, expect_at_most=2 / 11, because=because, decides=True)
    what = "padding packed ÷ in random order"
    half = "our convention: half is much less"
    run.measure(what, packed / plain, expect_at_most=0.5, because=half, decides=True)
    figures.show_padding(run, lengths, waste)
    return (
        f"Padding: {plain:.0%} in random order, {packed:.1%} packed, {alike:.1%} sorted by length. "
        "But sorted batches aren't random: rows of 15 tokens and more are all Repeat or Reverse."
    )


# %% [markdown]
# ## 7. Streams
# A *Dataset* is a table: `map` applies a function to each row. If the table is on disk, it saves
# the result in a file there, whose name is a hash of the data, the function and all that the
# function refers to. A stream (an *IterableDataset*) reads a row only when somebody asks for it, so
# it can be larger than the disk, or endless. If you shuffle it, the files come in random order, and
# a buffer of $b$ rows is filled from up to ten of them in turn (datasets 5.2). The rows of a single
# file are shuffled only through this buffer. When it is full, a random half of its rows leaves, and
# the file's next rows fill it again. Count places from 0. If there is only one file, the row at
# place $p$ of the shuffled stream was at a place before $p + b$.


# %% Streams
@lab.experiment
def a_stream_is_lazy_and_shuffles_nearby(run: Run):
    """Unshuffled, a stream reads at most one row ahead; with a buffer of b rows, no row moves b or
    more places forward.

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
    tasks = len({rows[number]["instruction"] for number in drawn[:100]})
    because = "they come from the file's first 150 rows; the smallest task has far more than 100"
    run.check("tasks among the first 100 rows", tasks, at_most=2, because=because)
    return (
        f"The first 100 rows have {tasks} of the five tasks. So shuffle the file on disk before "
        "you stream it."
    )


# %% [markdown]
# ## 8. Duplicates and contamination
# A row that occurs twice counts twice in the loss. A test row that is also a training row
# **contaminates** the test. Exact matching finds identical rows. **Normalised** rows, as lower-case
# words with one space between them, match in spite of other case, spaces and punctuation. Changed
# copies still share sequences of $n$ words, **n-grams**. Before the training of GPT-3, its authors
# looked for 13-grams that test and training texts have in common (Brown et al. 2020, app. C). In
# long texts, 13 words in common are hardly ever chance.
#
# A large $n$ misses copies in which a word was changed; a small $n$ also flags texts that are no
# copies. Our texts have nine words: three of the instruction, then six animals. Two texts of the
# same task share a 6-gram as soon as their first three animals agree. That happens by chance,
# because there are only $12 \cdot 11 \cdot 10 = 1320$ such beginnings. Without the instruction
# fewer texts match by chance. But six words have few n-grams, so more copies are missed, too.


# %% Copies
def normalised(text: str) -> str:
    """Return the words of a text in lower case, with one space between them."""
    return " ".join(re.findall(r"\w+", text.lower()))


@lab.exercise(
    level=1,
    hints=(
        "Normalise the text first, then split it into words.",
        "An n-gram begins at each of the first len(words) − n + 1 words.",
        "Join the words of each with one space. A text of fewer than n words has none.",
    ),
)
def n_grams(text: str, n: int) -> set[str]:
    """Return all sequences of n words of the normalised text, with one space between words."""
    words = normalised(text).split()
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def with_other_words(text: str, places: list[int]) -> str:
    """Replace the words at some places of the list, which begins after the task's three words."""
    words = text.split()
    for place in places:
        words[3 + place] = "gnu"
    return " ".join(words)


COPIES: dict[str, Callable[[str, int], str]] = {
    "identical": lambda text, _: text,
    "other case": lambda text, _: text.upper().replace(":", " :"),
    "one word changed": lambda text, i: with_other_words(text, [i % 6]),
    "two words changed": lambda text, i: with_other_words(text, [i % 6, (i + 3) % 6]),
}
MATCHES: dict[str, Callable[[str], set[str]]] = {
    "exact": lambda text: {text},
    "normalised": lambda text: {normalised(text)},
    "8-grams": partial(n_grams, n=8),
    "6-grams": partial(n_grams, n=6),
    "5-grams": partial(n_grams, n=5),
    "4-grams": partial(n_grams, n=4),
    "5-grams of the list": lambda text: n_grams(text.partition(":")[2], 5),
}


@lab.experiment
def a_smaller_n_finds_more_copies_and_flags_more_others(run: Run):
    """Exact matching finds only identical copies; the n of n-grams trades misses for false alarms.

    Predict: one of the list's six words is changed. In what share of the copies do 6-grams match?
    """
    pairs = word_tasks.pairs(islice(examples(run.seed, None), 8000))
    long = (pair for pair in pairs if len(pair[1].split()) == word_tasks.LONGEST)
    texts = [f"{task}: {words}" for task, words in dict.fromkeys(long)][:1200]
    groups = dict(zip([*COPIES, "no copy"], in_groups(texts[:300], 60), strict=True))
    training_texts = texts[300:]
    for name, copied in COPIES.items():
        training_texts += [copied(text, i) for i, text in enumerate(groups[name])]
    shares: dict[str, list[float]] = {}
    for match, keys in MATCHES.items():
        known = set().union(*map(keys, training_texts))
        shares[match] = [
            mean(not known.isdisjoint(keys(text)) for text in group) for group in groups.values()
        ]
    table = [[match, *(f"{share:.0%}" for share in row)] for match, row in shares.items()]
    run.table("Share of the test rows that match a training row", ["", *groups], table)
    what = "exact: identical, other case, a word changed"
    run.check(what, shares["exact"][:3], equals=[1.0, 0.0, 0.0], decides=True)
    what = "normalised: identical, other case, a word changed"
    run.check(what, shares["normalised"][:3], equals=[1.0, 1.0, 0.0])
    found = shares["6-grams"][2]
    because = "six words in a row stay if one of the list's last three is changed"
    run.check("6-grams: a word changed", found, at_least=0.5, because=because, decides=True)
    because = "four words in a row always stay"
    what = "4-grams: a word changed"
    run.check(what, shares["4-grams"][2], at_least=1, because=because, decides=True)
    four, six = (shares[f"{n}-grams"][4] for n in (4, 6))
    because = "after the instruction a 4-gram needs 1 animal of 12, a 6-gram 3 animals in a row"
    what = "flagged without a copy: 4-grams − 6-grams"
    run.check(what, four - six, at_least=0.3, because=because, decides=True)
    five = shares["5-grams"]
    bare = shares["5-grams of the list"]
    return (
        f"With a word changed, 6-grams match {found:.0%}: half of the rows by the copy, the others "
        f"by chance. Of the rows without a copy they flag {six:.0%}. 5-grams find {five[2]:.0%} of "
        f"the changed copies and flag {five[4]:.0%} of the others. Without the instruction they "
        f"find {bare[2]:.0%} and flag {bare[4]:.0%}."
    )


# %% [markdown]
# ## What to remember
# - A loop with a mistake trains, and its loss falls. With labels shifted twice, in one seed, it was
#   no higher than in the right loop's worst seed, and hardly any response was right. Decode a
#   batch's labelled tokens before you train. Then look at held-out responses and their ends.
# - The mean of means minimises a loss in which each micro-batch, not each label, has the same
#   weight. To see a small difference you need several seeds.
# - float16 loses small gradients, and a mean over many labels has many. Loss scaling saves nearly
#   all of their mass.
# - To resume exactly, save the full state, with the order of the rows that are still to come.
# - With N processes, divide by the labels of all of them. The mean of their means is wrong.
# - A shuffle buffer mixes only rows that are near each other. Shuffle a file before you stream it.
# - A smaller n finds more of the changed copies, and flags more texts that are no copies.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Return sentences with this run's numbers."""
    masked = results.shown(
        "does_masking_the_prompt_help", "share of right responses, masked − not masked"
    )
    mistakes = "a_low_loss_can_be_wrong"
    means = results.shown(mistakes, "mean of means: responses' loss − the right loop's")
    short = results.shown(mistakes, "bf16 weights: responses' loss − the right loop's")
    spread = results.values(mistakes, "the right loop's responses' loss, three seeds")
    rights = results.values(mistakes, RIGHT)
    shifted_loss = results.value(mistakes, SHIFTED)
    half = "float16_loses_more_in_larger_batches"
    small = results.value(half, "64 labels: share of the mass lost")
    large = results.value(half, "524,288 labels: share of the mass lost")
    return (
        f"- Shifted twice, the training loss is {shifted_loss:.3f} nats; the right loop has "
        f"{min(rights):.3f} to {max(rights):.3f} over three seeds.\n"
        f"- Share of right responses, masked prompt − unmasked: {masked}.\n"
        f"- The right loop's responses' loss has a range of {_range(spread):.3g} nats "
        f"over three seeds. With the mean of means it differs by {means} nats, with bf16 weights "
        f"by {short} nats: compare that with the range.\n"
        f"- Of a gradient's mass, float16 loses {small:.2%} with 64 labels, {large:.0%} with "
        "524,288."
    )


# %% [markdown]
# **Read on**: Micikevicius et al. 2018, *Mixed precision training*, on loss scaling · Shi et al.
# 2024, *Instruction tuning with loss over instructions*, on what prompts' labels are good for ·
# `benchmarks/training.py`, which compares our loop with transformers' Trainer. Next: LLM09, custom
# architectures.

# %%
if __name__ == "__main__":
    lab.main()
