# %% [markdown]
# # LLM08+ · Dataset processing and training, deeper
# Seven mistakes to recognise, float16, interrupted trainings, several processes, and duplicates.
#
# **You will be able to** recognise mistakes of a training loop by what they do to it, and name
# mistakes in labels before you train. You will explain what float16 loses, know what a resume
# needs, and how P processes get the losses of one. You will measure where a step's time goes, pack
# rows, and see the limits of a stream's shuffle and of matching n-grams. **Builds on** LLM08, whose
# data, loop and model it imports. **Takes** an hour to read, and one and a half to four minutes to
# run at `tiny`, on 2 cores.

# %% Imports
import copy
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from statistics import mean
from typing import Any

from labs.kit import Checkpoints, Lab, Results, Run, assets
from labs.kit.run.processes import is_main
from labs.llm08_training import deeper_figures as figures
from labs.llm08_training import puzzle, rounding, training, word_tasks
from labs.llm08_training.copies import COPIES
from labs.llm08_training.lesson import IGNORED, PARTS, AdamW, collate, encode, label_count, lr_at
from labs.llm08_training.loops import IN_LABELS, LOOPS, MISTAKES, batch_of, lr_by_batch
from labs.llm08_training.packing import padding
from labs.llm08_training.puzzle import own_loss
from labs.llm08_training.several import SEVERAL, plainly, start_two
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
from labs.llm08_training.word_tasks import PAD, build, examples

import datasets
import torch
from torch import Tensor

lab = Lab("LLM08+")
lab.before_run(assets.check_model)

# %% [markdown]
# ## 1. Seven mistakes
# Here are eight loops that train the same model on the same data for the same number of steps. One
# loop is right. Each of the others has one mistake that people make, and none raises an error. Can
# you recognise them by what they do? `loops.py` has the functions. In short, with LLM08's sections
# in brackets:
#
# | loop | its mistake | in code |
# |---|---|---|
# | the prompt too | all tokens have labels (a choice, but not what we want here) | `labels = ids` |
# | padding too | the labels of padding aren't −100 | `labels[mask == 0] = pad` |
# | end = pad | the end pads, so real ends lose their labels, too | `labels[ids == end] = -100` |
# | shifted twice | the data shifts labels, then the loss again | `labels = [*labels[1:], -100]` |
# | mean of means | the mean of micro-batches' means (5) | `label_sum(…) / label_count(…) / 2` |
# | rate by batch | each micro-batch moves the rate (7) | `lr_at(2 * step, steps, warmup)` |
# | bf16 weights | too few significant bits for small steps (9) | `model.to(torch.bfloat16)` |
#
# "Shifted twice" needs a picture. `label_sum` compares the logits at place $i - 1$ with the label
# at $i$. If the data has already moved each label one place to the left, the header
# `<|assistant|>` learns to predict *ant*, the *second* token of the response.
#
# ```text
# place        …      6           7         8    9     10
# tokens       …   <|end|>  <|assistant|>  cow  ant  <|end|>
# labels       …    −100        −100       cow  ant  <|end|>
# moved        …    −100         cow       ant <|end|> −100
# ```


# %% The loops
@cache
def fit(run: Run, name: str, seed: int) -> Fit:
    """Train with a loop from scratch, on a seed's data, and examine the model."""
    variant = LOOPS[name]
    make = partial(batch_of, variant)
    loop = replace(PARTS.loop, collate=make, step=variant.step, lr_at=variant.rate)
    parts = replace(PARTS, loop=loop)
    accumulate = variant.accumulate
    return training.fit(run, parts, seed, name, accumulate=accumulate, dtype=variant.dtype)


def fits(run: Run, name: str) -> list[Fit]:
    return [fit(run, name, seed) for seed in run.seeds(3)]


# %% [markdown]
# The next cell names the loops by letters. All have the same rows and first weights. **Four of the
# mistakes can be recognised** from the tables and the figure, in each of the ten seeds that we
# tried (1 to 10, `tiny`). At `tiny`, three loops look alike: the right one and two mistakes. A
# fifth mistake differs less clearly. Before you run the cell, write down for each mistake what you
# expect. Is its responses' loss higher than the right loop's? Are the words right? Does the model
# stop?
#
# Compare only what is comparable:
#
# - The *training losses* of two loops with different labels aren't comparable. Each is a mean over
#   the loop's own labels, and a label of padding is easier than one of a random word. "Shifted
#   twice" is an exception: its labels are the same tokens. But each is predicted one place too
#   early, which in most texts is harder.
# - The *responses' loss* is. It is that of the same held-out rows, with the right labels, for all.
# - So are two shares of the responses. *Words*: if $k$ words are wanted, the first $k$ are right.
#   *Stops*: an end among the eight tokens that we let it write.
#
# The line under the figure names the precision of all loops except *bf16 weights*. In that loop
# the weights are in bf16, too; autocast would keep them in fp32. The key comes
# after the next exercise. An experiment that you start alone, with `--only`, trains its models
# again.


# %% Which is which?
@lab.experiment
def mistakes_raise_no_error(run: Run):
    """Seven loops with a mistake train to the end without an error, and so does the right one.

    Predict: is the training loss with labels shifted twice higher or lower than the right loop's?
    Which two mistakes look like the right loop?
    """
    # before there are letters: a progress bar shows the name of its loop
    trained = {name: fit(run, name, run.seed) for name in LOOPS}
    letters = puzzle.letters_of(run, LOOPS)
    loops = {letter: trained[name] for name, letter in letters.items()}
    puzzle.show_tables(run, loops)
    curves = {letter: fitted.trained for letter, fitted in loops.items()}
    others = [fitted.trained.watched for fitted in fits(run, "right")[1:]]
    figures.show_mistakes(run, curves, others)
    ended = sum(len(fitted.trained.losses) == training.steps_of(run) for fitted in loops.values())
    because = "by construction: an error would have stopped the experiment"
    run.check("loops that took all steps", ended, equals=8, because=because)
    return (
        f"The loops trained in {puzzle.precision_of(fit(run, 'right', run.seed))}. Give each of "
        "five letters a mistake. The key comes after the next exercise."
    )


# %% [markdown]
# ### Before you train
# The first four mistakes are in the labels, so one batch shows them, without any training. Decode
# the labels of a row. Do they begin where the response begins? Do they end with its end? Does
# anything else have a label? Then let code ask that, at the start of every training.


# %% A batch
@lab.exercise(
    level=2,
    hints=(
        "Look at four places: padding, the first token of a row, its last token, and every label "
        "that isn't −100.",
        "attention_mask tells padding from tokens: not their values. A label that isn't −100 is "
        "the token at its own place.",
        "Moved labels also leave a row's last token without a label. Look for them before you look "
        "for a missing end.",
    ),
)
def label_mistake(batch: Batch) -> str:
    """Return the name of the mistake in a batch's labels, or "none".

    The names are "the prompt too", "padding too", "end = pad" and "shifted twice". Each row is a
    user's turn and then an assistant's, which ends with the end token. Rows are padded on the
    right, with any token. A token without a label has IGNORED. A batch has one mistake or none; a
    row without padding can't show "padding too".
    """
    ids = batch["input_ids"]
    tokens = batch["attention_mask"] == 1  # (B, T)
    labelled = batch["labels"] != IGNORED
    last = tokens.sum(1, keepdim=True) - 1  # (B, 1)
    if (labelled & ~tokens).any():
        return "padding too"
    if labelled[:, 0].any():
        return "the prompt too"
    if (labelled & (batch["labels"] != ids)).any():
        return "shifted twice"
    return "none" if labelled.gather(1, last).all() else "end = pad"


@lab.experiment
def a_batch_shows_mistakes_in_labels(run: Run):
    """Four of the seven mistakes can be named from one batch, before any training.

    Predict: a row asks to count one word, and the response is *one*. Which labels does it have with
    each of the four mistakes?
    """
    rows = some_rows(run, encode, 32)
    short = min(range(32), key=lambda i: len(rows[i]["input_ids"]))
    batches = {name: batch_of(loop, rows) for name, loop in LOOPS.items()}
    labels = {name: batches[name]["labels"][short] for name in ("right", *IN_LABELS)}
    puzzle.show_labels(run, rows[short], labels)
    found = {name: label_mistake(batch) for name, batch in batches.items()}
    named = [name for name in MISTAKES if found[name] == name]
    because = "the others are in the step, the rate and the weights"
    run.check("mistakes named", named, equals=IN_LABELS, because=because, decides=True)
    others = [found[name] for name in LOOPS if name not in IN_LABELS]
    run.check("named in the other four loops", others, equals=["none"] * 4, decides=True)


# %% [markdown]
# ### The key follows
# Look at the puzzle once more. In three loops the two losses are far apart. Which of these stop?
# Which find the right words? Which loop learns slower from halfway?
#
# One seed can't show a small effect, so the key has three seeds of the mistakes that are hard to
# see. Three seeds still understate the spread. The same seed gives both loops the
# same rows and first weights, so subtract seed by seed. If a mistake changes nothing, all three
# differences have the same sign in 1 of 4 cases.


# %% The key
HARD = ("mean of means", "bf16 weights")
RIGHT = "the right loop's training loss, three seeds"
SHIFTED = "shifted twice: its training loss"
LOSSES = "{}: responses' loss, three seeds"


@lab.experiment
def a_low_loss_can_be_wrong(run: Run):
    """With labels shifted twice the training loss is low, and hardly any response is right.

    Low: not above the highest of the right loop's three seeds. The requests determine all words of
    a response, so a word can be learned one place too early. In ordinary text we expect a higher
    loss.

    Predict: which letter is the loop whose labels are shifted twice?
    """
    own = [own_loss(fitted) for fitted in fits(run, "right")]
    run.measure(RIGHT, own, unit="nats")
    twice = fit(run, "shifted twice", run.seed)
    because = "the right loop's worst seed"
    low = max(own)
    shifted = own_loss(twice)
    run.measure(SHIFTED, shifted, expect_at_most=low, because=because, unit="nats", decides=True)
    because = "it begins with the right response's second token: the end, if there is one word"
    what = "shifted twice: share of right words"
    run.check(what, twice.exam.words, at_most=0.05, because=because, decides=True)
    losses = {name: [one.loss for one in fits(run, name)] for name in ("right", *HARD)}
    for name, three in losses.items():
        run.measure(LOSSES.format(name), three, unit="nats")
    because = "the highest of the right loop's three seeds"
    for name in [name for name in MISTAKES if name not in HARD]:
        loss = fit(run, name, run.seed).loss
        what = f"{name}: responses' loss"
        run.measure(what, loss, expect_at_least=max(losses["right"]), because=because, unit="nats")
    return puzzle.key(puzzle.letters_of(run, LOOPS), losses)


# %% [markdown]
# What gives each mistake away, if anything does:
#
# - *The prompt too*: nobody can learn a request's random words. Its task, its length and its words
#   have $\ln 5 + \ln 6 + \ln 12 + \ln 11 + \dots$, about 11 nats a row, and a row has about 11
#   labels. So the loop's training loss stays near 1 nat or above, and no other loop's does.
# - *Padding too*: its training loss is close to the right loop's or lower, yet its held-out
#   responses are worse. They stop. Two thirds of its labels are padding's, about 6.3 a row against
#   3, and easy. We don't test why that makes the responses worse.
# - *End = pad*: no row has a label for its end, so the model never learns to stop.
# - *Shifted twice*: its responses begin with the second token.
# - *Mean of means* hides. Micro-batches of 16 random rows have similar numbers of labels, so a
#   label's weight is off by a tenth or so. With sorted rows the error is large (LLM08, section 5).
# - *Rate by batch* learns well at first. From halfway its loss falls slowly while the right loop's
#   goes on. A plot of the rate gives it away at once: see the next figure.
# - *bf16 weights* hide at `tiny`, because our rate is high: few steps of 5·10⁻³ to 5·10⁻⁴ round
#   away. At 10⁻⁵ most do (section 2).
#
# Three seeds are few, so we trained twenty (11 to 30, `tiny`, torch 2.13, a Zen 5 EPYC) in fp32 and
# with bf16 autocast. The right loop's responses' losses were 0.19 to 0.52 nats. What a mistake
# adds, seed by seed, in nats; the precision is that of the right loop:
#
# | mistake | precision | n | range | mean ± its standard error |
# |---|---|---|---|---|
# | rate by batch | fp32 | 20 | 0.12 to 0.53 | 0.292 ± 0.024 |
# | rate by batch | bf16 | 20 | 0.15 to 0.49 | 0.298 ± 0.023 |
# | mean of means | fp32 | 20 | −0.17 to 0.16 | −0.008 ± 0.017 |
# | mean of means | bf16 | 20 | −0.14 to 0.21 | 0.026 ± 0.019 |
# | bf16 weights | fp32 | 20 | −0.04 to 0.22 | 0.034 ± 0.015 |
# | bf16 weights | bf16 | 20 | −0.07 to 0.19 | 0.038 ± 0.014 |
#
# - *Rate by batch* costs in all twenty seeds.
# - *Mean of means*: the sign differs between the precisions, and no mean is two standard errors
#   from 0. So we claim neither a cost nor a gain.
# - *bf16 weights*: beside bf16 autocast they cost 0.038 ± 0.014 nats. Beside fp32 we aren't sure:
#   ten earlier seeds (0 to 9) had −0.03 on average.
#
# Other seeds and machines give differences outside these ranges. So do longer trainings: at
# `small`, bf16 weights cost 0.05, 0.09 and 0.17 nats in three seeds.


# %% The rate
@lab.experiment
def a_plot_shows_a_wrong_rate(run: Run):
    """Moved by each micro-batch, the learning rate is at its floor from halfway.

    Predict: what is its mean over the training, relative to the right one's?
    """
    rates = {"counted in steps": lr_at, "moved by each\nmicro-batch": lr_by_batch}
    steps = training.steps_of(run)
    shares = {name: [rate(t, steps, 20) for t in range(steps)] for name, rate in rates.items()}
    figures.show_rates(run, shares)
    right, wrong = shares.values()
    because = "two micro-batches a step end the cosine after half of the steps"
    what = "share of the peak from halfway, at most"
    run.check(what, max(wrong[steps // 2 :]), at_most=0.1, because=because, decides=True)
    what = "mean rate: moved by each micro-batch ÷ counted in steps"
    run.measure(what, mean(wrong) / mean(right))


# %% The end
@lab.experiment
def an_end_that_is_padding_is_never_said(run: Run):
    """If the end token also pads and padding is masked by value, a model gets most words right
    and hardly ever stops.

    Predict: what does this model write after the right words?
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
    (response,) = word_tasks.responses(wrong.trained.model, [puzzle.REQUEST])
    return (
        f"Words right: {min(words):.1%} to {max(words):.1%} in three seeds of the right loop, "
        f"{found:.1%} in one of the mistake, which reverses “{puzzle.REQUEST['input']}” to "
        f"“{response}”, and hasn't stopped there."
    )


# %% The prompt
@lab.experiment
def does_masking_the_prompt_help(run: Run):
    """After a short training on our tasks, masking the prompt gives more right responses.

    A likely reason, which isn't tested: most labels are the prompt's, and nobody can learn its
    random words. Shi et al. 2024 find the reverse for long *natural* prompts with short outputs,
    and for few training examples: there the prompt's loss helps.

    Predict: what share of a row's tokens is the response's?
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
# float16 has 11 significant bits, more than bfloat16. But below $2^{-14}$ its numbers are
# **subnormal**: all are multiples of $2^{-24} \approx 6 \cdot 10^{-8}$. So small numbers have fewer
# bits, and gradients of $2^{-25}$ or less become 0. **Loss scaling** (Micikevicius et al. 2018)
# multiplies the loss by a power of two before the backward pass and divides the gradients, in 32
# bits, after it. float16 ends at 65,504: if a gradient overflows, the scaler skips the step and
# halves the scale. After 2,000 good steps in a row it doubles it. PyTorch's scaler begins with 2¹⁶,
# as in our table.
#
# We look at the gradient of a real model's *logits*, where the backward pass begins. With autocast,
# a model computes its logits in float16 and its loss in float32. On the way back the gradient of
# the logits is cast to float16. It is the softmax, with 1 subtracted at the label (LLM02): $p$ for
# a wrong token of probability $p$, and $p - 1$ for the label. In a mean over $n$ labels each entry
# is divided by $n$. So a wrong token's entry becomes 0 if
#
# $$p \le n \cdot 2^{-25}.$$
#
# With $n = 64$ these are tokens below $2 \cdot 10^{-6}$. With $n = 2^{19} = 524{,}288$ they are all
# tokens that the model finds less likely than 1.6 %. The label's entry is lost only if the model is
# nearly certain of it.
#
# Is that much? Most entries become 0. But these are the smallest, so look at the **mass** $\sum
# |g|$, the sum of the absolute values. The wrong tokens' entries sum to $1 - p$, with $p$ now the
# label's probability, and the label's entry is $p - 1$. So each side has half of the mass. The
# label's half is hardly lost, so the wrong tokens' mass loses twice the share. Entries just above
# the limit round *up*: of 0.4, 0.6 and 1.6 times $2^{-24}$, float16 makes 0, 1 and 2. So we also
# compare the sum of the wrong tokens' entries before and after rounding: if it falls, wrong tokens
# are pushed down too little.
#
# Who divides by half a million? A large training may have that many labels in a step. One process
# that accumulates (LLM08, section 5) divides by all of them. Each of $P$ processes divides by a
# $P$-th of them: of 16, by 32,768. Our text has 64 labels, and we divide its gradients as in larger
# batches.
#
# The gradients of the activations in all layers shrink with $1/n$, too; those of the weights add up
# over all tokens. We measure only the logits', and not what their loss does to a training.


# %% Small gradients
LITTLE = 0.005


def shares_lost(g: Tensor, scale: float) -> tuple[float, float]:
    """Return the shares of entries and of mass that become 0 in float16, if scaled before."""
    lost = (g * scale).half() == 0
    return lost.double().mean().item(), (g[lost].abs().sum() / g.abs().sum()).item()


@lab.experiment
def float16_loses_more_in_larger_batches(run: Run):
    """With 64 labels float16 loses most entries but little of the mass; with 524,288, over 5 %.

    Little is under 0.5 %. With loss scaling the large batch loses little, too.

    Predict: how much of the mass does a process lose that divides by 32,768?
    """
    edges = (2.0 ** torch.tensor([-24, -25, -26])).half().float() * 2**24
    run.check("2⁻²⁴, 2⁻²⁵, 2⁻²⁶ in float16, ÷ 2⁻²⁴", edges.tolist(), equals=[1.0, 0.0, 0.0])
    g = rounding.gradient_of_logits(run)  # of the summed loss
    batches = [2**k for k in (6, 9, 12, 15, 17, 19)]
    plain = [shares_lost(g / n, 1) for n in batches]
    scaled = [shares_lost(g / n, 2**16) for n in batches]
    masses = [mass for _, mass in plain]
    figures.show_float16(run, batches, masses, [mass for _, mass in scaled], LITTLE)
    rounding.show_losses(run, batches, plain, scaled)
    what = "64 labels: share of entries lost"
    run.measure(what, plain[0][0], expect_at_least=0.5, decides=True)
    little = "our convention: less than half a percent is little"
    what = "64 labels: share of the mass lost"
    run.measure(what, plain[0][1], expect_at_most=LITTLE, because=little, decides=True)
    run.measure("32,768 labels: share of the mass lost", plain[3][1])
    what = "524,288 labels: share of the mass lost"
    much = "our convention: a twentieth is much"
    run.measure(what, plain[-1][1], expect_at_least=0.05, because=much, decides=True)
    _, wrong = shares_lost(g[g > 0] / batches[-1], 1)
    run.measure("524,288 labels: share of the wrong tokens' mass lost", wrong)
    ratio = rounding.sum_in_float16(g[g > 0] / batches[-1])
    because = "some entries round up, but more is lost"
    what = "524,288 labels: the wrong tokens' sum, in float16 ÷ before"
    run.measure(what, ratio, expect_at_most=0.95, because=because)
    what = "524,288 labels at 2¹⁶: share of the mass lost"
    run.measure(what, scaled[-1][1], expect_at_most=LITTLE, because=little, decides=True)
    return (
        f"With 64 labels float16 loses {plain[0][1]:.1%} of the mass, with 32,768, a process's "
        f"part of a large batch, {plain[3][1]:.1%}, and with 524,288 {plain[-1][1]:.0%}: that is "
        f"{wrong:.0%} of the wrong tokens' mass. Some entries round up, so the wrong tokens' sum "
        f"falls by {1 - ratio:.0%}. If the loss is scaled by 2¹⁶, even the last loses only "
        f"{scaled[-1][1]:.2%} of the mass."
    )


# %% [markdown]
# bf16 has the range of float32, so it keeps small gradients. But *weights* in bf16 lose small
# *updates* (LLM08, section 9). We now count these lost updates, in 20 steps of 10⁻⁵ on a
# trained model.


# %% Small updates
@lab.experiment
def bf16_weights_stand_still(run: Run):
    """At a rate of 10⁻⁵ most bf16 weights never move, and most float32 weights do.

    The bf16 model also has bf16 products, gradients and means. So the difference of the losses
    isn't the weights' part alone.

    Predict: how much less does the loss fall with the bf16 model?
    """
    model = copy.deepcopy(fit(run, "right", run.seed).trained.model).cpu()
    rows = some_rows(run, encode, 64)
    still, gain = rounding.train_slowly(copy.deepcopy(model), rows, 20)
    still_short, gain_short = rounding.train_slowly(copy.deepcopy(model).bfloat16(), rows, 20)
    because = "each of the twenty steps of 1e-5 is lost"
    what = "bf16: share of weights that never moved"
    run.check(what, still_short, at_least=0.5, because=because, decides=True)
    because = "only the embeddings of tokens that aren't in the batch have a gradient of 0"
    what = "fp32: share of weights that never moved"
    run.check(what, still, at_most=0.2, because=because, decides=True)
    run.measure("fp32: the loss falls by", gain, expect_at_least=0, unit="nats")
    run.measure("bf16: the fall of its loss ÷ that of fp32", gain_short / gain)
    return (
        f"With fp32 the loss falls by {gain:.5f} nats, with bf16 by {gain_short:.5f}, which is "
        f"{gain_short / gain:.0%} of that."
    )


# %% [markdown]
# ## 3. Resuming an interrupted training
# A killed training should continue and end as if nothing had happened. To continue *exactly*, the
# weights aren't enough. A resume also needs:
#
# - AdamW's means and its $t$;
# - the number of steps so far: it gives the learning rate, and how many batches to skip;
# - this epoch's order of the rows, and the same rows under it;
# - the state of every random number generator, because of dropout;
# - with float16, the scale of the loss.
#
# `Checkpoints` saves this state with Accelerate's `save_state`. It writes into a folder with a
# temporary name and renames it when it is complete, so a killed process leaves no half checkpoint.
# Only the two newest checkpoints are kept. The next run resumes if the recipe, the rows, the lab's
# source code and the machine are the same. "Exactly" was tested on CPUs: on a GPU some kernels add
# in a random order, so even two uninterrupted trainings may differ in their last bits.
#
# Try it: start `invoke lab LLM08+ --size small --only does_masking_the_prompt_help`, press
# Ctrl-C after some seconds of a training, and start it again. Ctrl-C saves a checkpoint. A kill
# (`kill -9`) doesn't: then the last checkpoint is up to a minute old. The second start prints
# "resumes after step …".


# %% Resumed
class Killed(Exception):
    """Raised between two steps of a training, in place of a kill."""


@lab.experiment
def resumed_is_bit_for_bit(run: Run):
    """Stopped in its middle and resumed, a training ends with exactly the same losses and weights.

    As a control, another resume gets all its state back, but the list of rows is reversed under it.

    Predict: the checkpoint was saved after 224 of an epoch's 400 rows. In the control, how many of
    the next 176 rows were already among those 224?
    """
    rows = some_rows(run, encode, 400)
    how = Recipe(40, seed=run.seed)  # an epoch has 13 steps
    seen: dict[str, list[int]] = {}

    def start(name: str, seed: int, rows: list[Row], watch: Watch | None = None) -> Trained:
        """Train with dropout, so that random numbers matter; store which rows are seen."""
        seen[name] = []

        def make(rows: list[Row]) -> Batch:
            seen[name] += map(id, rows)
            return collate(rows, PAD)

        # depends_on lacks the rows, so that the control resumes, too
        checkpoints = Checkpoints(run, name, depends_on={"steps": how.steps}, every_steps=10)
        model = build(run, seed, 0.2)
        loop = replace(PARTS.loop, collate=make)
        return train(run, name, model, rows, how, loop, watch, checkpoints)

    def start_and_kill(name: str) -> None:
        def kill(_: Any) -> float:
            raise Killed  # at step 25; the last checkpoint is that of step 20

        with suppress(Killed):
            start(name, run.seed, rows, kill)

    uninterrupted = start("never killed", run.seed, rows)
    start_and_kill("killed")
    resumed = start("killed", run.seed + 1, rows)  # into a model with other weights
    start_and_kill("killed, other rows")
    reordered = start("killed, other rows", run.seed + 1, rows[::-1])

    def other_losses(trained: Trained) -> int:
        return sum(a != b for a, b in zip(uninterrupted.losses, trained.losses, strict=True))

    def largest_gap(trained: Trained) -> float:
        pairs = zip(uninterrupted.model.parameters(), trained.model.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    def repeated(name: str) -> int:
        """Count the rows of the second epoch that come before the checkpoint and after it."""
        return len({*seen["never killed"][400:624]} & {*seen[name][:176]})  # steps 13-19, 20-25

    run.check("steps of 40 with another loss", other_losses(resumed), equals=0, decides=True)
    what = "largest difference of a weight"
    run.check(what, largest_gap(resumed), at_most=0, because="bit for bit", decides=True)
    run.check("rows that come twice in an epoch", repeated("killed"), equals=0, decides=True)
    because = "all 20 steps after the resume have other rows"
    what = "rows reversed: steps with another loss"
    run.check(what, other_losses(reordered), at_least=15, because=because)
    twice = repeated("killed, other rows")
    because = "about 99 of 200 mirrored pairs have a row on each side; standard deviation 7"
    run.check("rows reversed: rows that come twice", twice, at_least=50, because=because)
    return (
        f"With the rows reversed underneath, {other_losses(reordered)} of the last 20 losses "
        f"differ. {twice} of the 400 rows come twice in the interrupted epoch, and as many never."
    )


# %% [markdown]
# ## 4. P processes
# On $P$ devices $P$ processes run the same program (LLM08 calls the number $N$). Each has the
# entire model and takes its share of every batch: our loaders have `split_batches=True`, while
# Accelerate's default gives each process batches of its own. The gradients are averaged before the
# step ("data parallel"), so each is divided by $P$. Let the step have $n$ labels in all processes
# together. The result is that of one process only if each divides its sum of losses by $n/P$. If it
# divides by its own labels, the average is a mean of means again.
#
# To evaluate, the processes collect their results with `gather`. They wait for each other there, as
# they do when they average gradients. So all need the same number of batches, and `gather` needs
# tensors of the same shape. Accelerate fills up the last batch with rows from the beginning, and
# `gather` returns these copies, too. `gather_for_metrics` drops them.
#
# `several.py` starts two processes for ten steps. As a reference, plain PyTorch trains in one
# process on the rows that both recorded. As a control, it makes the mistake: it averages the two
# processes' mean losses. `invoke lab LLM08 --processes 2` runs the entire lesson with two.


# %% Two processes
@lab.experiment
def p_processes_are_as_one(run: Run):
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
# In the forward pass, a layer computes $Y = X W$: each weight takes part in one multiplication per
# token. The backward pass has two products of that size: $dX = dY\, W^T$ for the layer below, and
# $dW = X^T dY$ for the weight. Its *time* may differ from twice the forward's: the
# run measures the ratio, not its cause.
#
# Then come clipping and the optimizer. Their time doesn't depend on the batch. The model has 21
# weight tensors at `tiny`. Our AdamW calls twelve kernels for each. PyTorch's fused one calls a
# single kernel for each tensor on a CPU, and one for many tensors at once on a GPU.


# %% Time
@lab.experiment
def where_the_time_goes(run: Run):
    """The backward pass has twice the forward's products; a fused AdamW takes less time than ours.

    Predict: what share of a small model's step is our optimizer's?
    """
    rows = some_rows(run, encode, 32)
    model = build(run, run.seed)
    forward, backward = products(model, collate(rows, PAD))
    because = "two products for each of the forward pass; a kernel may compute a few more"
    what = "operations of the products: backward ÷ forward"
    run.check(what, backward / forward, at_least=1.9, at_most=2.2, because=because, decides=True)
    ways = {"our AdamW": AdamW, "fused AdamW": partial(torch.optim.AdamW, fused=True)}
    with run.small_products(model.config.hidden_size):
        ours, theirs = stopwatch(run, rows, ways, 30)  # precision and threads of our trainings
    run.measure("time of backward ÷ forward", ours[2] / ours[1], timed=True)
    share = ours[4] / sum(ours)
    run.measure("our optimizer's share of a step", share, timed=True)
    what = "time of our AdamW ÷ the fused one"
    run.measure(what, ours[4] / theirs[4], expect_at_least=1, timed=True, decides=True)
    figures.show_times(run, STAGES, dict(zip(ways, (ours, theirs), strict=True)))
    parameters = sum(weight.numel() for weight in model.parameters())
    return f"With {parameters:,} parameters our optimizer takes {share:.0%} of a step's time."


# %% [markdown]
# ## 6. Which rows go together?
# "First fit decreasing" takes the longest row first and puts each row into the first pack that has
# room. Do it by hand: rows of 9, 9, 5 and 3 tokens, packs of 12. You get [9, 3], [9] and [5]: three
# packs, the fewest for 26 tokens.
#
# The short rows come last and fill gaps. With many of them, each pack but the last ends with less
# room than the shortest row needs. Rows of similar length come into the same packs. So put several
# packs into each step, in a random order: then a step mixes lengths.


# %% Packs
@lab.exercise(
    level=2,
    hints=(
        "In which order do the rows come? What must you know of each pack when the next row comes?",
        "Take a sorted copy, the longest first. Store how much room is left in each pack; a row "
        "that fills it exactly fits.",
        "A row goes into the first pack that has room for it; if none has, into a new pack.",
    ),
)
def pack(rows: list[Row], length: int) -> list[list[Row]]:
    """Distribute rows over packs of at most `length` tokens, by first fit decreasing.

    Rows of equal length keep their order. `rows` doesn't change.

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


@lab.experiment
def packing_removes_padding(run: Run):
    """Packing leaves much less padding than batches of rows in random order.

    Predict: rows of 9 to 19 tokens, 12 on average, 16 to a batch. What share of the places is
    padding?
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
    bound = (min(lengths) - 1) / room + 1 / len(packs)
    because = "with many short rows, no pack but the last has room for a shortest one"
    run.measure("padding packed", packed, expect_at_most=bound, because=because, decides=True)
    what = "padding packed ÷ in random order"
    half = "our convention: half is much less"
    run.measure(what, packed / plain, expect_at_most=0.5, because=half, decides=True)
    figures.show_padding(run, lengths, waste, bound)
    long = mean(all(len(row["input_ids"]) >= 15 for row in rows) for rows in packs)
    return (
        f"Padding: {plain:.0%} in random order, {packed:.1%} packed, {alike:.1%} sorted by length. "
        f"Packs aren't random: in {long:.0%} of them all rows have 15 tokens or more, and all are "
        "Repeat or Reverse."
    )


# %% [markdown]
# Why pack, if sorted batches have less padding? Sorted batches can be shuffled, too. But each has
# rows of nearly one length, so few tasks, and its own number of tokens. Packs that are padded to a
# fixed length have one shape, so each step takes the same memory and time. With a dense mask,
# attention costs more: a pack of $T$ tokens has $T^2$ scores, most of them between different rows.
#
# ## 7. Streams
# A *Dataset* is a table: `map` applies a function to each row. If the table is on disk, `map`
# caches its result in a file. Change the data, the function or a variable it uses, and it computes
# anew. A stream (an *IterableDataset*) reads only what somebody asks for: from a generator row by
# row, from a file block by block (datasets 5.2: JSON 10 MiB, CSV 10,000 rows, Parquet a row group).
# So it can be larger than the disk, or endless.
#
# Shuffling a stream shuffles the order of its files. Then up to ten of them fill a buffer of $b$
# rows in turn, and only this buffer mixes rows. When it is full, a random half of it leaves, and
# the next rows fill it again (datasets 5.2; older versions replace one row at a time). A row leaves
# only after it was read, so it can't come $b$ or more places early. But each time half of the
# buffer leaves, a row stays with a probability of ½. About one row in 32 stays five times. With
# $b = 100$ it comes about 200 places late. There is no limit.


# %% Streams
@lab.experiment
def a_stream_is_lazy_and_shuffles_nearby(run: Run):
    """A stream from a generator, unshuffled, reads at most one row ahead; with a shuffle buffer of
    b rows, no row of a single file comes b or more places early.

    Predict: rows sorted by task, about 200 of each; a shuffle buffer of 100. How many of the five
    tasks are among the first 100 rows? How many places late does the latest row come?
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
    late = [place - number for place, number in enumerate(drawn)]
    because = "the buffer has 100 rows"
    what = "places that a row comes early, at most"
    run.check(what, -min(late), at_most=99, because=because, decides=True)
    run.measure("places that a row comes late, at most", max(late))
    figures.show_stream(run, drawn, 100)
    tasks = len({rows[number]["instruction"] for number in drawn[:100]})
    because = "they come from the file's first 150 rows; the smallest task has far more than 100"
    run.check("tasks among the first 100 rows", tasks, at_most=2, because=because)
    return (
        f"The first 100 rows have {tasks} of the five tasks. No row comes more than {-min(late)} "
        f"places early; the latest comes {max(late)} places late."
    )


# %% [markdown]
# ## 8. Duplicates and contamination
# A row that occurs twice counts twice in the loss. A test row that is also a training row
# **contaminates** the test. Exact matching finds identical rows. **Normalising** makes words
# lower-case, with single spaces and no punctuation; rows that differ only in these then match.
# Changed copies still share sequences of $n$ words, **n-grams**.
#
# Before the training of GPT-3, its authors looked for 13-grams that test and training texts have in
# common (Brown et al. 2020, app. C). In long texts such a match is rarely chance, but may be a
# quotation or a licence: look at it. For large corpora, people compare hashes of n-grams (MinHash).
# Paraphrases escape all of this.
#
# A large $n$ misses copies in which a word was changed; a small $n$ also flags texts that are no
# copies. We take the longest lists, so each text has nine words: three of the instruction, then six
# animals. Two texts of a task share a 6-gram if their first three animals agree. There are $12
# \cdot 11 \cdot 10 = 1320$ such beginnings, and about 230 texts of a task. By chance, this alone
# flags 1 text in 6.


# %% Copies
def normalised(text: str) -> str:
    """Return the words of a text in lower case, with one space between; don't becomes don t."""
    return " ".join(re.findall(r"\w+", text.lower()))


def n_grams(text: str, n: int) -> set[str]:
    """Return all sequences of n words of the normalised text; a shorter text has none."""
    words = normalised(text).split()
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


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

    A copy is found if it has an n-gram of its own original. A text without a copy is flagged if
    any training text has one of its n-grams.

    Predict: one of the list's six words is changed. What share of the copies do 6-grams find?
    """
    requests = word_tasks.pairs(islice(examples(run.seed, None), 8000))
    long = (request for request in requests if len(request[1].split()) == word_tasks.LONGEST)
    texts = [f"{task}: {words}" for task, words in dict.fromkeys(long)][:1200]
    originals = texts[:60]
    copies = [
        [(text, copied(text, i)) for i, text in enumerate(originals)] for copied in COPIES.values()
    ]
    found: dict[str, list[float]] = {}
    flagged: dict[str, float] = {}
    for match, keys in MATCHES.items():
        found[match] = [
            mean(not keys(text).isdisjoint(keys(copy)) for text, copy in pairs) for pairs in copies
        ]
        known = set().union(*map(keys, texts[60:]))
        flagged[match] = mean(not known.isdisjoint(keys(text)) for text in originals)
    table = [[m, *(f"{share:.0%}" for share in [*found[m], flagged[m]])] for m in MATCHES]
    title = "Share of copies that are found, and of texts without a copy that are flagged"
    run.table(title, ["", *COPIES, "no copy"], table)
    what = "exact: identical, other case, a word changed"
    run.check(what, found["exact"][:3], equals=[1.0, 0.0, 0.0], decides=True)
    what = "normalised: identical, other case, a word changed"
    run.check(what, found["normalised"][:3], equals=[1.0, 1.0, 0.0])
    changed = [found[f"{n}-grams"][2] for n in (8, 6, 5, 4)]
    because = "at 1, 3, 5 and 6 of the six places, n words in a row stay"
    what = "a word changed: found by 8-, 6-, 5- and 4-grams (%)"
    found_by = [round(100 * share) for share in changed]
    run.check(what, found_by, equals=[17, 50, 83, 100], because=because, decides=True)
    four, five, six = (flagged[f"{n}-grams"] for n in (4, 5, 6))
    because = "after the instruction a 4-gram needs 1 animal of 12, a 6-gram 3 animals in a row"
    what = "flagged without a copy: 4-grams − 6-grams"
    run.check(what, four - six, at_least=0.3, because=because, decides=True)
    bare = "5-grams of the list"
    return (
        f"With a word changed, 6-grams find half of the copies and flag {six:.0%} of the texts "
        f"without one. 5-grams find {changed[2]:.0%} and flag {five:.0%}, 4-grams find all and "
        f"flag {four:.0%}. Without the instruction 5-grams find {found[bare][2]:.0%} and flag "
        f"{flagged[bare]:.0%}."
    )


# %% [markdown]
# ## What to remember
# - A loop with a mistake trains, and its loss falls. With labels shifted twice the *training* loss
#   was lower than the right loop's (two seeds), but hardly any response was right. Decode a batch's
#   labels, and test them, before you train. Then look at held-out responses and their ends.
# - Training losses over different labels aren't comparable. The loss of the same held-out labels
#   is, but a small difference in it needs several seeds.
# - In the backward pass float16 rounds small numbers to 0. The gradient of the logits is divided by
#   the number of labels, so larger batches lose more of it. Loss scaling saves nearly all its mass.
# - To resume exactly, save the full state, with the order of the rows still to come.
# - Gradients of P processes are averaged, so each process divides its sum by n/P, where n counts
#   the labels of all processes. The mean of their means is wrong.
# - With a shuffle buffer of b rows, no row comes b or more places early. Half of the
#   buffer leaves each time, so most rows of a sorted file stay near their neighbours: shuffle one
#   big file before you stream it.
# - With a smaller n, n-grams find more of the changed copies and flag more texts without a copy.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Return sentences with this run's numbers."""
    masked = results.shown(
        "does_masking_the_prompt_help", "share of right responses, masked − not masked"
    )
    mistakes = "a_low_loss_can_be_wrong"
    losses = {name: results.values(mistakes, LOSSES.format(name)) for name in ("right", *HARD)}
    rights = results.values(mistakes, RIGHT)
    shifted_loss = results.value(mistakes, SHIFTED)
    half = "float16_loses_more_in_larger_batches"
    small = results.value(half, "64 labels: share of the mass lost")
    large = results.value(half, "524,288 labels: share of the mass lost")
    return (
        f"- Shifted twice, the training loss is {shifted_loss:.3f} nats; the right loop has "
        f"{min(rights):.3f} to {max(rights):.3f} over three seeds.\n"
        f"- Share of right responses, masked prompt − unmasked: {masked}.\n"
        f"- {puzzle.three_seeds(losses)} If a mistake changes nothing, three differences have one "
        "sign in 1 of 4 cases.\n"
        f"- Of the mass of the logits' gradient, float16 loses {small:.2%} with 64 labels, "
        f"{large:.0%} with 524,288."
    )


# %% [markdown]
# **Read on**: Micikevicius et al. 2018, *Mixed precision training*, on loss scaling · Shi et al.
# 2024, *Instruction tuning with loss over instructions*: when the prompt's loss helps ·
# `benchmarks/training.py`, which compares our loop with transformers' Trainer. Next: LLM09, custom
# architectures.

# %%
if __name__ == "__main__":
    lab.main()
