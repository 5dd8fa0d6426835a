# %% [markdown]
# # LLM08 · Dataset processing and training
# From rows in a file to a trained model: labels, batches, the loop, and each mistake's price.
#
# **You will be able to** turn instruction data in any of its usual shapes into tokens and labels
# that you have proved right; write AdamW, the learning rate's curve and gradient accumulation, and
# show that yours equal the library's; pack rows without leaks; train under Accelerate, on one
# process or several, interrupted or not, and get the same loss; and recognise seven mistakes by
# what they do to it. **Builds on** gradients (LLM02), tokens and padding (LLM04), attention masks
# (LLM06). **Takes** an hour to read, two minutes to run (`tiny`, 2 cores).

# %% Imports
import copy
import hashlib
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

from labs.course.cards import WRONG_USAGE
from labs.course.options import Settings
from labs.kit import (
    Card,
    Checkpoints,
    Lab,
    Results,
    Run,
    assets,
    batches,
    on_one_thread,
    seconds_paired,
    stop_on_nan,
    tolerance,
)
from labs.kit.run.console import Output
from labs.kit.run.processes import end_with_parent, is_main, rank, run_group, stop_all
from labs.llm08_training import conversations as reading
from labs.llm08_training import figures, word_tasks
from labs.llm08_training.word_tasks import (
    END,
    PAD,
    Example,
    build,
    exam,
    examples,
    split,
    word_tokenizer,
)

import datasets
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

datasets.disable_progress_bars()

lab = Lab("LLM08")
lab.argument("--dataset", help="a JSONL, CSV or Parquet file, a folder of them, or a hub id")
lab.argument("--bad-rows", choices=("stop", "skip"), default="stop", help="default: stop")
lab.before_run(reading.check_first_rows)
lab.argument("--model", help="a chat model instead of SmolLM2: a folder, or a hub id")
lab.before_run(assets.check_model)
DOUBLE, IGNORED = torch.float64, -100  # the label that cross_entropy leaves out

# %% [markdown]
# ## 1. Data whose answers can be checked
# An **instruction set** is a list of requests with the answers that are wanted. Ours is made by
# code, in `word_tasks.py`, so that every answer can be checked: five tasks (repeat, reverse,
# name the first, the last, count) on lists of one to six animals out of twelve. *Reverse the words:
# ant cow* wants *cow ant*. Rows come in the shape that Stanford's Alpaca (Taori et al. 2023) made
# common: `instruction`, `input`, `output`.
#
# What is tested must not have been trained on. Split rows at random, and it has been: short lists
# are drawn again and again, and stand on both sides. So split by **combination**. Number tasks and
# words from 0, and of each list hold out the one task for which
#
# $$\text{task} + 1 \cdot \text{word}_1 + 2 \cdot \text{word}_2 + \ldots$$
#
# leaves no remainder when divided by 5. Training may meet each list with its four other tasks, and
# each task with about four lists of five, but never a held-out pair of the two: who answers right
# there has put it together.


# %% 1. The set
@lab.experiment
def nothing_held_out_was_seen(run: Run):
    """Split by combination no tested pair was trained on, all its parts were; at random, not so.

    Predict: 4,200 rows are split at random. Which share of the 200 tested is among the others too?
    """
    sides = [word_tasks.pairs(rows) for rows in split(run.seed, 4000)]
    both = set.intersection(*map(set, sides))
    run.check("held-out pairs that were trained on", len(both), equals=0, decides=True)
    known, tested = ({x for pair in one for x in (pair[0], *pair[1].split())} for one in sides)
    run.check("their tasks and words that weren't", len(tested - known), equals=0, decides=True)
    drawn = word_tasks.pairs(islice(examples(run.seed, None), 4200))
    leaked = mean(one in drawn[200:] for one in drawn[:200])
    because = "lists of one word are a sixth of all rows, and make 60 pairs"
    run.check(
        "split at random: share that was", leaked, at_least=0.1, because=because, decides=True
    )
    return f"Split at random, {leaked:.0%} of the test could have been known by heart."


# %% [markdown]
# ## 2. Reading
# People keep such rows as JSONL (a JSON object a line), CSV or Parquet, and in one of three shapes:
#
# | shape | fields |
# |---|---|
# | messages | a list of turns, each with a `role` (system, user, assistant) and its `content` |
# | prompt and completion | two texts |
# | instruction | `instruction`, perhaps an `input`, and `output` |
#
# The first can say all that the others can, so `conversations.py` turns every row into messages,
# one row at a time, whatever the size of the file. A row that can't be turned is told with its file
# and line: in a million rows some are broken, and a reader that drops them in silence, or stops
# with "failed to parse", costs a day. `--bad-rows` says whether to stop or to skip and count.
#
# The library **datasets** takes over from there. A *Dataset* is a table on disk (Arrow) that is
# mapped into memory: any row can be had, of more than fits. `map` applies a function to each row
# and keeps the result in a file named by a hash of the data, the function and all that the function
# refers to. Ask again, and nothing is computed. An *IterableDataset* is a **stream**: rows pass
# once, `map` and `filter` work on what passes. It can't be shuffled as a whole, only through a
# buffer of $b$ rows: each row that is drawn makes room for the next that is read. So what is drawn
# at place $p$ (from 0) was among the first $p + b$ rows of the file.


# %% 2. Files
@lab.experiment
def a_bad_row_is_told_with_its_place(run: Run):
    """Files of three kinds and shapes become messages; each bad row is told with its place."""
    a, b, c = islice(examples(run.seed, None), 3)
    with tempfile.TemporaryDirectory() as name:
        word_tasks.write_files(Path(name), a, b, c)
        read, stopped = reading.Conversations(name, skip=True), ""
        answers = [one["messages"][-1]["content"] for one in read]
        told = [one.removeprefix(f"{name}/").split(": ", 1) for one in read.reported]
        try:
            list(reading.Conversations(name))
        except Card as card:
            stopped = card.why.removeprefix(f"{name}/").split(": ", 1)[0]
    run.table("Told", ["row", "why"], told)
    wanted = [a["output"], "Hello", "yes", b["output"], c["output"]]
    run.check(
        "the good rows' answers, in their order", answers == wanted, equals=True, decides=True
    )
    wanted = [f"a.jsonl, line {n}" for n in (2, 3, 5)] + ["b.csv, line 4", "c.parquet, row 2"]
    run.check("the bad rows' places", [row for row, _ in told] == wanted, equals=True, decides=True)
    run.check("told to stop, it stops at", stopped, equals=wanted[0])


# %% 3. Tables and streams
@lab.experiment
def a_table_is_cached_and_a_stream_is_lazy(run: Run):
    """A map is computed once for each function; a stream reads what is drawn, and shuffles nearby.

    Predict: rows sorted by task, some 200 of each; a shuffle buffer of 100. How many of the five
    tasks are among the first 100 rows drawn?
    """

    def length(row: Example, unit: int = 1) -> dict[str, int]:
        return {"length": len(row["output"]) // unit}

    with tempfile.TemporaryDirectory() as folder:
        rows = sorted(islice(examples(run.seed, None), 1000), key=lambda row: row["instruction"])
        datasets.Dataset.from_list(rows).to_json(f"{folder}/rows.jsonl")
        table = datasets.load_dataset(
            "json", data_files=f"{folder}/rows.jsonl", cache_dir=folder, split="train"
        )
        files = []
        for how in (length, length, partial(length, unit=2)):
            table.map(how)
            files.append(len(list(Path(folder).rglob("cache-*.arrow"))))
    run.check(
        "results kept after a map, the same map, another", files, equals=[1, 1, 2], decides=True
    )
    read = []

    def source() -> Iterator[dict[str, int]]:
        for number in range(1000):
            read.append(number)
            yield {"number": number}

    stream = datasets.IterableDataset.from_generator(source)
    list(stream.map(lambda row: {"twice": 2 * row["number"]}).take(10))
    run.check(
        "rows of a stream read for ten",
        len(read),
        at_most=11,
        because="one ahead, at most",
        decides=True,
    )
    drawn = [row["number"] for row in stream.shuffle(seed=run.seed, buffer_size=100)]
    moved = [place - number for place, number in enumerate(drawn)]
    run.check(
        "rows drawn so far ahead",
        -min(moved),
        at_most=99,
        because="the buffer holds 100",
        decides=True,
    )
    run.check("and so far behind", max(moved), at_least=100, because="the partner: it is shuffled")
    tasks = len({rows[number]["instruction"] for number in drawn[:100]})
    because = "they are of the file's first 199 rows; the smallest task has far more than 100"
    run.check("tasks among the first 100 drawn", tasks, at_most=2, because=because)
    return f"Of five tasks the first 100 rows hold {tasks}: shuffle the file itself, once, before."


# %% [markdown]
# ## 3. Tokens and labels
# A model reads one row of tokens, so the turns are written one after the other with **special
# tokens** between them, by the model's **chat template**. Ours is short (for SmolLM2's, LLM01), and
# each word is one token:
#
# `<|user|> Reverse the words ant cow <|end|> <|assistant|> cow ant <|end|>`
#
# The loss asks at each place for the next token. Which of them shall the model learn to say? The
# assistant's, and the `<|end|>` after them: it is by that token that a model says it has finished.
# All other places get the **label** −100, which PyTorch's `cross_entropy` leaves out. The labels
# stand at the same places as the tokens; it is the loss that shifts them by one. (Shift them
# yourself as well, and the model learns to say the token after the next. We shall.)
#
# How do we know where an assistant's turn begins? By its **header**, the tokens that the template
# adds when it asks for an answer; for SmolLM2 those are three, `<|im_start|>`, `assistant` and a
# new line. A request may hold the *word* assistant, and later turns have answers of their own. A
# request that holds a special token could open a turn of its own (LLM04): such a row is bad. (A
# template may mark the answers itself, by `{% generation %}`. Ours does, so that we see whether we
# find them; SmolLM2's, like most, does not.)


# %% 4. Labels
@lab.exercise(
    level=1,
    hints=(
        "Start with −100 everywhere, then look for each place where the header stands whole.",
        "From behind the header up to the next end token, and with it, labels are the tokens.",
        "Go on behind that turn: there may be more. One that was cut off has no end: label it all.",
    ),
)
def supervise(ids: list[int], header: list[int], end: int) -> list[int]:
    """The label of each token: itself in an assistant's turn and for its `end`, elsewhere −100.

    A turn begins behind `header`, all of it in a row, and goes up to the first `end`, or as far as
    there are tokens.
    """
    labels, place = [IGNORED] * len(ids), 0
    while place < len(ids):
        if ids[place : place + len(header)] != header:
            place += 1
            continue
        start = place + len(header)
        place = ids.index(end, start) + 1 if end in ids[start:] else len(ids)
        labels[start:place] = ids[start:place]
    return labels


Row = dict[str, list[int]]
Q_AND_A = {"prompt": "Which\nassistant\nare you?", "completion": "SmolLM2."}


def refuse_special(tokenizer: Any, messages: list[reading.Message]) -> None:
    """Raises BadRow where a text holds a special token."""
    special = tokenizer.all_special_tokens
    for token in (one for turn in messages for one in special if one in turn["content"]):
        raise reading.BadRow(f"its text holds the special token {token}")


@cache
def header_of(tokenizer: Any) -> list[int]:
    """The tokens that the chat template adds when it asks for an answer.

    Raises:
        Card: where there is no template, or it adds none: answers can't be told then.
    """
    why, talk = "Its tokenizer has no chat template.", reading.messages_of(Q_AND_A)[:1]
    if tokenizer.chat_template:
        apply = partial(tokenizer.apply_chat_template, talk, tokenize=False)
        asking = apply(add_generation_prompt=True).removeprefix(apply())
        if header := tokenizer(asking, add_special_tokens=False).input_ids:
            return header
        why = "Its chat template puts nothing before an answer."
    what = "Which tokens are the model's answers can't be told."
    raise Card(what, why, "another model: --model …", WRONG_USAGE)


def encode(tokenizer: Any, messages: list[reading.Message]) -> Row:
    """Messages -> `input_ids` and `labels`, lists of the same length."""
    refuse_special(tokenizer, messages)
    header = header_of(tokenizer)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(whole, add_special_tokens=False).input_ids
    return {"input_ids": ids, "labels": supervise(ids, header, tokenizer.eos_token_id)}


def encoded(rows: Iterable[Example]) -> list[Row]:
    return [encode(word_tokenizer, reading.messages_of(row)) for row in rows]


@cache
def rows_of(seed: int, count: int) -> list[Row]:
    return encoded(split(seed, count)[0])


def some_rows(run: Run, count: int) -> list[Row]:
    return rows_of(run.seed, 4000)[:count]


@lab.experiment
def labels_are_the_assistants_words(run: Run):
    """Our labels are the template's own marks, token by token, and the real model's answers."""
    dice, made = random.Random(run.seed), examples(run.seed, None)
    system, wrong, naive = {"role": "system", "content": "Count the words"}, 0, 0
    for _ in range(200):
        talk = [system] * dice.randint(0, 1)
        for row in islice(made, dice.randint(1, 3)):
            talk += reading.messages_of(row)
        theirs = word_tokenizer.apply_chat_template(
            talk, return_assistant_tokens_mask=True, return_dict=True
        )
        labels = encode(word_tokenizer, talk)["labels"]
        marks = [one != IGNORED for one in labels]
        wrong += marks != [bool(one) for one in theirs["assistant_masks"]]
        first = marks.index(True)  # "all that follows the first header"
        naive += marks != [place >= first for place in range(len(marks))]
    run.check(
        "of 200 conversations, labelled otherwise than by the template",
        wrong,
        equals=0,
        decides=True,
    )
    because = "two of three have a second request, which it would teach the model to write"
    run.check("by labelling all behind the first header", naive, at_least=60, because=because)
    real = AutoTokenizer.from_pretrained(assets.pretrained(run.options.model, run.online))
    talk = reading.messages_of(Q_AND_A)
    talk += reading.messages_of({"prompt": "Sure?", "completion": "Yes, the assistant\n2."})
    row = encode(real, talk)
    said = [f"{one['content']}{real.eos_token}" for one in talk if one["role"] == "assistant"]
    found = real.decode([one for one in row["labels"] if one != IGNORED])
    run.check("the real model's labels, as text", found, equals="".join(said), decides=True)
    (row,) = encoded(islice(made, 1))
    columns = (word_tokenizer.convert_ids_to_tokens(row["input_ids"]), *row.values())
    run.table("A row", ["token", "number", "label"], zip(*columns, strict=True))


# %% [markdown]
# ## 4. Batches
# Rows of unlike length become a rectangle ($B$ rows, $T$ places) by **padding** on the right. An
# attention mask of 0 keeps the padding from being looked at, and its labels must be −100. Many
# tokenizers have no padding token, and people use the end token for it, which does no harm, until
# somebody finds the padding *by value*: `labels[input_ids == pad] = -100` drops the answers' own
# end tokens with it. We shall train that too, on a small Llama of 86,000 parameters (at `tiny`).
#
# The model's logits at a place give the next token's probabilities; the loss of one label of
# probability $p$ is $-\ln p$, in nats. Batches differ in how many labels they have, so we sum, and
# count.


# %% 5. The collator
Batch = dict[str, Tensor]


@lab.exercise(
    level=1,
    hints=(
        "T is the longest row's length. Make three tensors (B, T), full of what padding has.",
        "Padding has `pad` in input_ids, −100 in labels, 0 in attention_mask.",
        "Write each row into the first places of its line; its attention_mask there is 1.",
    ),
)
def collate(rows: list[Row], pad: int) -> Batch:
    """Rows -> `input_ids`, `labels` and `attention_mask`, (B, T) int64 each, padded on the right.

    A row's own tokens keep their labels, also where they are the token that pads.
    """
    shape = (len(rows), max(len(row["input_ids"]) for row in rows))
    batch = {
        "input_ids": torch.full(shape, pad),
        "labels": torch.full(shape, IGNORED),
        "attention_mask": torch.zeros(shape, dtype=torch.int64),
    }
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        batch["input_ids"][i, :length] = torch.tensor(row["input_ids"])
        batch["labels"][i, :length] = torch.tensor(row["labels"])
        batch["attention_mask"][i, :length] = 1
    return batch


def collate_by_value(rows: list[Row], pad: int) -> Batch:
    """The mistake: padding is found by its value."""
    batch = collate(rows, pad)
    batch["labels"][batch["input_ids"] == pad] = IGNORED
    return batch


def label_sum(model: Any, batch: Batch) -> Tensor:
    """The loss summed over all labels (nats); labels are shifted here, and nowhere else."""
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    wanted = batch["labels"][:, 1:]
    return F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), reduction="sum")


def label_count(batch: Batch) -> int:
    """How many labels the loss counts."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


@lab.experiment
@torch.no_grad()
def what_pads_does_not_matter(run: Run):
    """Padded by place the loss is the same bits whatever token pads; by value the end is lost."""
    model, rows = build(run, run.seed), some_rows(run, 64)
    plain, shared, lost = collate(rows, PAD), collate(rows, END), collate_by_value(rows, END)
    change = (label_sum(model, plain) - label_sum(model, shared)).abs()
    because = "padding is looked at by nobody and has no label"
    run.check(
        "loss, padded by <|end|> less by <|pad|>", change, at_most=0, because=because, decides=True
    )
    fewer = (label_count(plain) - label_count(lost)) / len(rows)
    run.check("labels lost by value, for each row", fewer, equals=1.0, decides=True)
    alone = sum(label_sum(model, collate([row], PAD)) for row in rows)
    gap, bound = (alone / label_sum(model, plain) - 1).abs(), tolerance(torch.float32)
    run.check("loss row by row, over it, less 1", gap, at_most=bound, because="rounding")


# %% [markdown]
# ## 5. AdamW
# Let $g$ be the gradient of a weight $w$ at step $t = 1, 2, \ldots$ Adam (Kingma & Ba 2015) keeps
# two running means, $m$ of $g$ and $v$ of $g^2$. Two numbers set how long they remember; ours are
# $\beta_1 = 0.9$, $\beta_2 = 0.98$:
#
# $$
# \begin{aligned}
# m &\leftarrow \beta_1 m + (1 - \beta_1)\,g \\
# v &\leftarrow \beta_2 v + (1 - \beta_2)\,g^2
# \end{aligned}
# $$
#
# Both begin at 0, and so are too small at first: after $t$ steps on a constant $g$,
# $m = (1 - \beta_1^t)\,g$. Divided by that factor they are right,
#
# $$\hat m = \frac{m}{1 - \beta_1^t}, \qquad \hat v = \frac{v}{1 - \beta_2^t}$$
#
# and the step is
#
# $$w \leftarrow w - \eta \lambda w - \eta\,\frac{\hat m}{\sqrt{\hat v} + \varepsilon}$$
#
# with the **learning rate** $\eta$, and $\varepsilon = 10^{-8}$ against a division by 0. The term
# $\eta \lambda w$ is **weight decay**, which pulls each weight towards 0 (ours: $\lambda = 0.01$).
# Its place is what the W in AdamW stands for (Loshchilov & Hutter 2019): added to the gradient
# instead, $\lambda w$ would be divided by $\sqrt{\hat v}$ like the rest, and weights with large
# gradients would hardly decay. In the first step $\hat m = g$ and $\sqrt{\hat v} = |g|$: every
# weight moves by $\eta$, whatever its gradient (decay apart). So $\eta$ has the unit of the
# weights, and not, as in plain gradient descent, one that depends on the loss.


# %% 6. The optimizer
@lab.exercise(
    level=2,
    hints=(
        "In place, all of it: mul_, add_, addcmul_, copy_. First the decay, with the old weight.",
        "Then both means; t counts from 1, and each mean is divided by its own 1 − βᵗ.",
        "ε is added to the root of v̂, outside it; the step is lr times m̂ over that.",
    ),
)
def adamw_step(
    weight: Tensor,
    gradient: Tensor,
    m: Tensor,
    v: Tensor,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
) -> None:
    """One step of AdamW; changes `weight`, `m` and `v` in place, and not `gradient`.

    All tensors have one shape. t is 1 in the first step; m and v are 0 before it.
    """
    weight.mul_(1 - lr * decay)
    m.mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
    v.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    weight.sub_(lr * m_hat / (v_hat.sqrt() + eps))


class AdamW(torch.optim.Optimizer):
    """`adamw_step` as an optimizer of PyTorch, so that Accelerate and checkpoints can handle it."""

    def __init__(self, weights: Any, lr: float, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01):
        super().__init__(weights, {"lr": lr, "betas": betas, "eps": eps, "decay": weight_decay})

    @torch.no_grad()
    def step(self, *_: Any) -> None:
        for some in self.param_groups:
            how = {name: some[name] for name in ("lr", "betas", "eps", "decay")}
            for weight in (one for one in some["params"] if one.grad is not None):
                own = self.state[weight]
                if not own:
                    own |= {"t": 0, "m": torch.zeros_like(weight), "v": torch.zeros_like(weight)}
                own["t"] += 1
                adamw_step(weight, weight.grad, own["m"], own["v"], own["t"], **how)


def path(make: Any, gradients: Tensor, **how: Any) -> Tensor:
    """Where weights go that begin at 1, step by step (steps, n); the rate falls to 0."""
    weight = nn.Parameter(torch.ones_like(gradients[0]))
    optimizer, places = make([weight], lr=0.01, betas=(0.9, 0.98), **how), []
    for step, g in enumerate(gradients):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / len(gradients))
        weight.grad = g.clone()
        optimizer.step()
        places.append(weight.detach().clone())
    return torch.stack(places)


@lab.experiment
def own_adamw_equals_torch(run: Run):
    """Over 1,000 steps our AdamW and PyTorch's take the same path, and Adam with L2 another.

    Predict: η = 0.01. How far does a weight move in the first step, if its gradient is 0.0001?
    """
    g = torch.randn(1000, 50, dtype=DOUBLE) * torch.logspace(-4, 4, 50, dtype=DOUBLE)
    mine, theirs = (path(one, g, weight_decay=0.1) for one in (AdamW, torch.optim.AdamW))
    run.agree(
        "float64: ours less PyTorch's, all steps", mine - theirs, tolerance(DOUBLE), decides=True
    )
    fused = partial(torch.optim.AdamW, fused=True)
    single = [path(one, g.float(), weight_decay=0.1) for one in (AdamW, fused)]
    gap, because = single[0] - single[1], "roundings of weights near 1, a thousand of them"
    run.agree(
        "float32: ours less its fused one", gap, tolerance(torch.float32), because, decides=True
    )
    other = path(torch.optim.Adam, g, weight_decay=0.1)
    apart = (other - theirs)[-1].abs().max()
    because = "AdamW's own decay alone takes 40 % of a weight in this time"
    run.check(
        "Adam with L2, less AdamW, at the end", apart, at_least=0.05, because=because, decides=True
    )
    first = (path(AdamW, g, weight_decay=0)[0] - 1).abs() / 0.01
    because, bound = "ε over |g|, of the smallest gradient", 1.01e-8 / g[0].abs().min().item()
    run.check("first step over η, less 1", (first - 1).abs().max(), at_most=bound, because=because)
    low, high = g[0].abs().aminmax()
    least, most = (0.01 * first).aminmax()
    return f"Gradients from {low:.0e} to {high:.0e}; first steps from {least:.5f} to {most:.5f}."


# %% [markdown]
# ## 6. The learning rate's curve
# Adam's first steps are all of full size, and $\hat v$ knows nothing yet: so the rate is **warmed
# up**, from nearly 0 to its peak in $w$ steps. Later steps should average out the noise of small
# batches: the rate **decays**, most often along a cosine (Loshchilov & Hutter 2017), often down to
# a tenth (GPT-3: Brown et al. 2020, app. B). Step $t$ of $S$, with $t = 0, 1, \ldots, S - 1$, has
# this share of the peak:
#
# $$
# \begin{cases} \dfrac{t + 1}{w} & t < w \\
# f + (1 - f) \cdot \dfrac{1 + \cos(\pi p)}{2} & t \ge w \end{cases}
# $$
#
# with the progress
#
# $$p = \frac{t + 1 - w}{S + 1 - w}$$
#
# and the floor $f$. ($t + 1$: the first step isn't wasted on a rate of 0, nor, at $f = 0$, the
# last.)
#
# $t$ counts *steps of the optimizer*. A loop that accumulates $k$ batches and moves the schedule
# with each batch is through after $S/k$ steps.


# %% 7. The schedule
@lab.exercise(
    level=1,
    hints=(
        "Two cases: before `warmup` steps are done, and after. What is `step` in the very first?",
        "Up: (step + 1) / warmup. Down: a cosine of p from near 0 to near π.",
        "floor + (1 − floor) · (1 + cos(π p)) / 2, p = (step + 1 − warmup) / (steps + 1 − warmup).",
    ),
)
def rate(step: int, steps: int, warmup: int, floor: float = 0.1) -> float:
    """The learning rate's share at a step, 0 ≤ step < steps: linear warm-up, cosine to `floor`.

    It is 1 at the last step of the warm-up; beyond the last step it stays at the floor.
    """
    if step < warmup:
        return (step + 1) / warmup
    p = min(1.0, (step + 1 - warmup) / (steps + 1 - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * p)) / 2


@lab.experiment
def the_rate_is_counted_in_steps(run: Run):
    """Our curve is the library's, a step on; counted in batches it is over too soon.

    Predict: 300 steps of 4 batches. For how many of them is the rate at its floor?
    """
    steps, warmup, k = 300, 30, 4
    mine = torch.tensor([rate(t, steps, warmup, floor=0) for t in range(steps)], dtype=DOUBLE)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    library, theirs = get_cosine_schedule_with_warmup(optimizer, warmup, steps + 1), []
    for _ in range(steps):
        optimizer.step()
        library.step()
        theirs += library.get_last_lr()
    run.agree(
        "ours less the library's, one step on",
        mine - torch.tensor(theirs, dtype=DOUBLE),
        decides=True,
    )
    run.check("its largest share", mine.max().item(), equals=1.0)
    curves = {
        "counted in steps": [rate(t, steps, warmup) for t in range(steps)],
        "counted in batches, 4 to a step": [rate(k * t, steps, warmup) for t in range(steps)],
    }
    right, wrong = (mean(share < 0.1001 for share in curve) for curve in curves.values())
    because = "after S/k steps it has come to its end"
    run.check(
        "by batches: share of steps at the floor",
        wrong,
        at_least=0.74,
        because=because,
        decides=True,
    )
    run.check("by steps: the same", right, at_most=0.02, because="the partner: a cosine's last bit")
    fig = figures.draw_rates(curves, warmup)
    run.figure(
        fig,
        "rate",
        "Warm-up and cosine; and the same curve when each batch moves it.",
        alt="Line plot of the learning rate over steps: a rise, then a cosine that falls to a "
        "floor; the curve that counts batches falls four times as fast.",
    )
    by_steps, by_batches = (mean(curve) for curve in curves.values())
    return f"Counted in batches the mean rate is {by_batches:.2f} of the peak, not {by_steps:.2f}."


# %% [markdown]
# ## 7. Accumulation and clipping
# A batch that doesn't fit is taken in parts, **micro-batches**, whose gradients add up before the
# optimizer steps. Micro-batch $i$ has $n_i$ labels, whose losses sum to $s_i$. What the whole batch
# would give is the mean over all labels,
#
# $$
# \begin{aligned}
# L &= \frac{s_1 + \ldots + s_k}{n_1 + \ldots + n_k}, \quad\text{and not} \\
# & \frac{1}{k}\left(\frac{s_1}{n_1} + \ldots + \frac{s_k}{n_k}\right)
# \end{aligned}
# $$
#
# The second is the mean of means, which the usual `loss / k` computes. Take two micro-batches, one
# of 1 label and one of 9: by $L$ each label has the weight 1/10, by the other 1/2 and 1/18. Equal
# counts hide it. transformers had it so until 2024 (version 4.46; told by D. Han, of Unsloth). So a
# **window** of $k$ micro-batches is looked at as a whole before its first backward pass. The last
# window of an epoch may be short. $L$ doesn't care; `loss / k` makes its gradient too small.
#
# **Clipping** (Pascanu et al. 2013) shortens a gradient whose norm, over all parameters together,
# is above $c$, to $c$. Its direction stays. That is done once, when the window is complete; done to
# each micro-batch it turns the sum.


# %% 8. Windows
@lab.exercise(
    level=2,
    hints=(
        "Take up to `size` batches from the iterator at a time: itertools.islice does.",
        "Count with label_count, over all batches of the window. When is there no window left?",
        "The last one may be short: yield it as well. Read no batch ahead, the stream may be long.",
    ),
)
def windows(micro: Iterable[Batch], size: int) -> Iterator[tuple[list[Batch], int]]:
    """Each `size` batches that follow each other, as a list, and how many labels count in them.

    The last window may have fewer. No batch is read before the window that it belongs to is asked
    for, and none is kept.
    """
    source = iter(micro)
    while window := list(islice(source, size)):
        yield window, sum(label_count(batch) for batch in window)


def gradient_of(model: nn.Module) -> Tensor:
    """The gradients of all parameters in one long vector; the model's own are 0 then."""
    found = torch.cat([cast(Tensor, one.grad).flatten() for one in model.parameters()])
    model.zero_grad()
    return found


def added(parts: Iterable[Tensor]) -> Tensor:
    return sum(parts, torch.zeros(()))


def sizes(model: nn.Module) -> list[int]:
    return [one.numel() for one in model.parameters()]


def off(found: Tensor, right: Tensor) -> float:
    """The norm of the difference over that of what is right."""
    return ((found - right).norm() / right.norm()).item()


@lab.experiment
def accumulated_equals_the_whole_batch(run: Run):
    """Divided by all its labels a window gives the whole batch's gradient; a mean of means doesn't.

    Predict: 32 rows in 8 micro-batches, short rows with short ones. How far off is the mean of
    means, relative to the gradient's norm?
    """
    model = build(run, run.seed)
    rows = sorted(some_rows(run, 32), key=lambda row: len(row["input_ids"]))
    parts, whole = [collate(rows[i : i + 4], PAD) for i in range(0, 32, 4)], collate(rows, PAD)
    (label_sum(model, whole) / label_count(whole)).backward()
    right, sums = gradient_of(model), []
    ((window, count),) = windows(parts, len(parts))
    for batch in window:
        label_sum(model, batch).backward()
        sums.append(gradient_of(model))
    found = off(added(sums) / count, right)
    run.check(
        "sum over all labels: off by",
        found,
        at_most=1e-5,
        because="rounding of float32",
        decides=True,
    )
    means = [one / label_count(batch) for one, batch in zip(sums, window, strict=True)]
    wrong = off(added(means) / len(means), right)
    because = "a label of the shortest rows weighs several times one of the longest"
    run.check("mean of means: off by", wrong, at_least=0.1, because=because, decides=True)
    found = [len(some) for some, _ in windows(parts[:5], 2)]
    run.check("5 batches by 2: windows of", found, equals=[2, 2, 1])
    ((last, n),) = list(windows(parts[:5], 2))[2:]
    (label_sum(model, last[0]) / n / 2).backward()
    short, because = gradient_of(model).norm() / means[4].norm(), "k = 2, and one is there"
    run.check("the last with loss / k: its norm over right", short, at_most=0.51, because=because)
    return f"The mean of means is off by {wrong:.0%} of the gradient's norm."


@lab.experiment
def clipping_keeps_the_direction(run: Run):
    """Clipped once, a gradient is shorter and points where it did; in parts, somewhere else."""
    model, parts = build(run, run.seed), windows([collate([x], PAD) for x in some_rows(run, 8)], 8)
    ((window, count),) = parts
    sums = []
    for batch in window:
        (label_sum(model, batch) / count).backward()
        sums.append(gradient_of(model))
    right = added(sums)
    c = 0.1
    for weight, part in zip(model.parameters(), right.split(sizes(model)), strict=True):
        weight.grad = part.view_as(weight).clone()
    norm = nn.utils.clip_grad_norm_(model.parameters(), c)
    found = gradient_of(model)
    run.check("norm before, over c", norm / c, at_least=2, because="so that there was much to clip")
    because = "PyTorch divides by ‖g‖ + 1e-6"
    run.agree(
        "clipped gradient less g · c / ‖g‖", found - right * c / norm, 1e-6, because, decides=True
    )
    each = added(one * min(1.0, c / len(sums) / one.norm().item()) for one in sums)
    cosines = [F.cosine_similarity(x.double(), right.double(), 0) for x in (found, each)]
    turned = [math.degrees(math.acos(min(1, one))) for one in cosines]
    run.check(
        "turned by, degrees", turned[0], at_most=0.05, because="rounding of float32", decides=True
    )
    because = "the partner: rows have gradients of unlike norm; rounding turns by 1e-5"
    run.check("clipped in parts: turned by", turned[1], at_least=0.2, because=because, decides=True)
    return f"Clipped in parts it points {turned[1]:.1f}° away."


# %% [markdown]
# ## 8. The loop
# Now the parts come together, under **Accelerate**: `prepare` places model and data, sets the
# precision, shares batches among processes, and makes their gradients one; `backward` and
# `clip_grad_norm_` know what loss scaling (§11) is in force. Each of $N$ processes has the gradient
# of its own share of the window's labels. $L$ wants their sum, and Accelerate takes their mean: so
# each multiplies its loss by $N$. `no_sync` puts that exchange off to a window's last micro-batch.
#
# Three lines belong to long runs. `Checkpoints` writes the whole state every so often, and
# `resume` finds it again after a kill (§12). `stop_on_nan` ends the run at the first loss that is
# no number, tells the step and keeps the batch: for a NaN never goes away by itself, and an hour
# later nobody knows which row it was. `run.log` writes curves for TensorBoard (`--tensorboard`).


# %% 9. Training
@dataclass(frozen=True)
class Recipe:
    """How to train; the last two are mistakes that a loop may have."""

    steps: int
    lr: float = 5e-3
    warmup: int = 20  # steps
    batch: int = 32  # rows of a micro-batch, of all processes together
    accumulate: int = 1  # micro-batches of a step
    clip: float = 1.0
    seed: int = 0  # of the first weights, which a checkpoint must know
    mean_of_means: bool = False
    rate_by_batch: bool = False

    def rate(self, step: int) -> float:
        return self.lr * rate(step, self.steps, self.warmup)


@dataclass(frozen=True)
class Trained:
    model: Any
    losses: list[float]  # nats per label, one for each step
    watched: list[list[float]]  # after how many steps, and what `watch` said then


Watch = Callable[[Any], float]
EVERY = 25  # steps between two looks at what is watched


def train(
    run: Run,
    name: str,
    model: Any,
    rows: list[Row],
    how: Recipe,
    make: Callable[[list[Row]], Batch] | None = None,
    watch: Watch | None = None,
    optimizer: Any = AdamW,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train `model` on `rows`, which `make` turns into batches; an interrupted run goes on."""
    data = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    kept = {"depends_on": {**asdict(how), "rows": data}, "steps": how.steps}
    checkpoints = checkpoints or Checkpoints(run, name, **kept)
    make, own = make or partial(collate, pad=PAD), torch.Generator()  # it draws the rows' order
    # an epoch's last batch would be filled up with rows from the front: it is dropped
    dataset = cast(Any, rows)  # a list serves as one
    loader = DataLoader(dataset, how.batch, True, collate_fn=make, drop_last=True, generator=own)
    optimizer = optimizer(model.parameters(), how.lr)
    model, optimizer, loader = run.accelerator.prepare(model, optimizer, loader)
    losses, watched = [], []
    checkpoints.include(losses=losses, watched=watched)
    done = checkpoints.resume()
    model.train()
    data = windows(batches(run, loader, done * how.accumulate), how.accumulate)
    steps = run.progress(range(done, how.steps), name)
    for step, (window, count) in zip(steps, data, strict=False):
        counted = step * how.accumulate if how.rate_by_batch else step
        for some in optimizer.param_groups:
            some["lr"] = how.rate(counted)
        loss = backward(run, model, window, count, how.mean_of_means)
        losses.append(stop_on_nan(run, loss, step, in_one(window)))
        run.accelerator.clip_grad_norm_(model.parameters(), how.clip)
        optimizer.step()
        optimizer.zero_grad()
        run.log({f"{name}/loss": losses[-1], f"{name}/rate": how.rate(counted)}, step)
        if watch and (step + 1) % EVERY == 0:
            watched.append([step + 1, watch(model)])
        checkpoints.save_if_due(step + 1)
    checkpoints.save(how.steps)
    return Trained(run.accelerator.unwrap_model(model, keep_fp32_wrapper=False), losses, watched)


def backward(run: Run, model: Any, window: list[Batch], count: int, means: bool) -> Tensor:
    """A window's gradient, added up in the model; the loss, whose mean over processes is L."""
    accelerator, losses = run.accelerator, []
    own = torch.tensor(count, device=run.device)  # labels of this process's window
    labels = cast(Tensor, accelerator.reduce(own, "sum")).item()
    for i, batch in enumerate(window, 1):
        share = accelerator.num_processes / labels
        if means:
            share = 1 / (max(1, label_count(batch)) * len(window))
        with nullcontext() if i == len(window) else accelerator.no_sync(model):
            losses.append(label_sum(model, batch) * share)
            accelerator.backward(losses[-1])
    return torch.stack(losses).detach().sum()


def in_one(window: list[Batch]) -> Batch:
    """All tensors of a window, by the number of their micro-batch and their name."""
    return {f"{i}.{name}": one for i, batch in enumerate(window) for name, one in batch.items()}


def placed(run: Run, batch: Batch) -> Batch:
    return {name: one.to(run.device) for name, one in batch.items()}


def answer_loss(run: Run, rows: list[Row]) -> Watch:
    """A judge: nats per label of these rows' answers, however the model was trained."""
    batch = placed(run, collate(rows, PAD))

    @torch.no_grad()
    def judge(model: Any) -> float:
        model.eval()
        loss = label_sum(model, batch).item() / label_count(batch)
        model.train()
        return loss

    return judge


# %% [markdown]
# The exam is what counts: answer the 200 held-out requests, greedily, and compare words. Two things
# are asked apart: are the answer's words *right*, and does the model then *stop* by saying
# `<|end|>`? Processes share the requests. Accelerate fills the last batch with rows from the front,
# so that all have as many; `gather_for_metrics` collects the answers and drops those again. (`exam`
# in `word_tasks.py` does that.)
#
# ## 9. What mistakes cost
# Eight ways to train, on the same data with the same number of steps. One is right; the others have
# one mistake each, of kinds that people make, and none of them raises an error:
#
# | arm | what is wrong |
# |---|---|
# | the prompt too | all tokens are labels; some do this on purpose |
# | padding too | labels of padding aren't −100 |
# | end = pad | padding is the end token, and found by value |
# | shifted twice | labels are shifted in the data and again in the loss |
# | mean of means | §7 |
# | rate by batch | §6 |
# | bf16 weights | the weights, and AdamW's means with them, have 8 significant bits (§11) |


# %% 10. The arms
@dataclass(frozen=True)
class Arm:
    labels: Callable[[Row], Row] = lambda row: row
    collate: Callable[[list[Row], int], Batch] = collate
    pad: int = PAD
    dtype: torch.dtype = torch.float32
    changes: tuple[tuple[str, Any], ...] = ()  # of the recipe


def all_labels(row: Row) -> Row:
    return {**row, "labels": row["input_ids"]}


def shifted(row: Row) -> Row:
    return {**row, "labels": [*row["labels"][1:], IGNORED]}


def collate_all(rows: list[Row], pad: int) -> Batch:
    batch = collate(rows, pad)
    batch["labels"][batch["attention_mask"] == 0] = pad
    return batch


HALVES = (("batch", 16), ("accumulate", 2))
ARMS = {
    "right": Arm(),
    "the prompt too": Arm(labels=all_labels),
    "padding too": Arm(collate=collate_all),
    "end = pad": Arm(collate=collate_by_value, pad=END),
    "shifted twice": Arm(labels=shifted),
    "mean of means": Arm(changes=(*HALVES, ("mean_of_means", True))),
    "rate by batch": Arm(changes=(*HALVES, ("rate_by_batch", True))),
    "bf16 weights": Arm(dtype=torch.bfloat16),
}


@dataclass(frozen=True)
class Fit:
    trained: Trained
    right: float  # share of the held-out requests
    stops: float

    @property
    def loss(self) -> float:
        """Of the held-out answers at the end (nats per label)."""
        return self.trained.watched[-1][1]


@cache
@on_one_thread
def fit(run: Run, name: str, seed: int) -> Fit:
    """An arm trained from scratch, on a seed's data, and its exam."""
    arm, steps = ARMS[name], run.pick(tiny=250, small=1000, full=5000)
    count = run.pick(tiny=4000, small=40_000, full=200_000)
    rows, test = [arm.labels(row) for row in rows_of(seed, count)], split(seed, count)[1]
    how = replace(Recipe(steps, seed=seed), **dict(arm.changes))

    def make(some: list[Row]) -> Batch:
        return arm.collate(some, arm.pad)

    model, judge = build(run, seed).to(arm.dtype), answer_loss(run, encoded(test))
    trained = train(run, f"{name}, seed {seed}", model, rows, how, make, judge)
    return Fit(trained, *exam(run, trained.model, test))


def fits(run: Run, name: str) -> list[Fit]:
    return [fit(run, name, seed) for seed in run.seeds(3)]


def losses_beyond_the_right(run: Run, name: str, tiny: int = 1) -> list[float]:
    """What a mistake costs: the answers' loss, less that of the right loop with the same seed.

    Args:
        tiny: seeds at that size; three at the others. One shows a cost of 0.1 nats and more: over
            seeds the right loop's loss has a range of 0.14.
    """
    seeds = run.seeds(run.pick(tiny=tiny, small=3, full=3))
    return [fit(run, name, one).loss - fit(run, "right", one).loss for one in seeds]


# %% 11. What they do
@lab.experiment
def an_end_that_is_padding_is_never_said(run: Run):
    """With the end token as padding, found by value, a model answers right and never stops.

    Predict: are its answers' words as often right? And in how many of 200 does it stop?
    """
    columns, table = ["arm", "words right", "stops"], []
    for name, least, low, high in (("right", 0.5, 0.9, 1.0), ("end = pad", 0.5, 0.0, 0.05)):
        right, stops = zip(*((one.right, one.stops) for one in fits(run, name)), strict=True)
        because = "far below the three seeds; one of the twelve words would be 8 %"
        decides = name == "end = pad"
        run.check(f"{name}: words right", right, at_least=least, because=because, decides=decides)
        because = "a label of every row" if low else "never a label: each step pushes it down"
        run.check(
            f"{name}: stops", stops, at_least=low, at_most=high, because=because, decides=decides
        )
        table.append([name, *(f"{mean(one):.1%}" for one in (right, stops))])
    run.table("Held-out requests, three seeds", columns, table)
    (_, *good), (_, *bad) = table
    return f"Words right: {good[0]}, and {bad[0]} with the mistake; stops: {good[1]}, and {bad[1]}."


@lab.experiment
def none_of_these_mistakes_raises_an_error(run: Run):
    """A loop with a mistake runs to its end, and its own loss need not tell.

    Predict: which of the seven has a *lower* loss of its own than the right loop?
    """
    found, table = {name: fit(run, name, run.seed) for name in ARMS}, []
    for name, one in found.items():
        own = mean(one.trained.losses[-20:])
        table.append([name, own, one.loss, f"{one.right:.0%}", f"{one.stops:.0%}"])
    columns = ["arm", "its own loss", "answers' loss", "words right", "stops"]
    run.table("At the end, held out; losses in nats per label", columns, table)
    fig = figures.draw_mistakes({name: one.trained.watched for name, one in found.items()})
    caption = "One right loop and seven mistakes, none of which raises an error."
    run.figure(
        fig,
        "mistakes",
        caption,
        alt="Line plot of the held-out loss over steps on a log scale, a curve for the right "
        "loop and for each of seven mistakes.",
    )
    right, wrong = found["right"], found["shifted twice"]
    because = "it says the token after the next"
    run.check("shifted twice: words right", wrong.right, at_most=0.3, because=because)
    gap = wrong.loss - right.loss
    run.check("its answers' loss, less the right one's", gap, at_least=0.5, because="the same")
    spread = [one.loss for one in fits(run, "right")]
    run.measure("the right one's answers' loss, three seeds", spread, unit="nats")
    for name, seeds in (("rate by batch", 1), ("mean of means", 3), ("padding too", 1)):
        cost, what = losses_beyond_the_right(run, name, seeds), f"{name}: costs the answers' loss"
        run.measure(what, cost, unit="nats", expect_at_least=0)
    lower = [row[0] for row in table if row[1] < table[0][1]]
    told = ", ".join(lower) or "none"
    return f"A lower loss of their own than the right loop's, with seed {run.seed}: {told}."


@lab.experiment
def does_masking_the_prompt_help(run: Run):
    """Masking the prompt's labels makes for better answers: measured, on three seeds."""
    masked, whole = fits(run, "right"), fits(run, "the prompt too")
    gains = [a.right - b.right for a, b in zip(masked, whole, strict=True)]
    because = "the prompt's words are drawn at random, and say nothing of answers"
    run.measure(
        "words right, masked less not", gains, expect_at_least=0, because=because, decides=True
    )
    for name, some in (("masked", masked), ("not masked", whole)):
        run.measure(f"answers' loss, {name}", [one.loss for one in some], unit="nats")
    rows = some_rows(run, 500)
    share = sum(map(label_count, (collate([row], PAD) for row in rows)))
    share /= sum(len(row["input_ids"]) - 1 for row in rows)
    run.measure("the answers' share of all tokens", share)
    a, b = (mean(one.right for one in some) for some in (masked, whole))
    return f"Masked {a:.0%} right, not masked {b:.0%}: answers are {share:.0%} of the tokens."


# %% [markdown]
# ## 10. Packing
# Padding is computed and thrown away. **Packing** lays several rows, now called documents, end to
# end, until a length is full. Three things must be kept apart then. *Attention*: a token may look
# back only within its own document, so the mask is a staircase of triangles, block-diagonal and
# causal. *Positions* start anew at 0 with each document. *Labels*: the first token of a document
# must not be asked of the last token of the one before.
#
# Which rows go together? Longest first, each into the first pack that has room: "first fit
# decreasing". Where $n$ packs are the fewest possible, it never makes more than
# $\frac{11}{9} n + \frac{6}{9}$ (Dósa 2007); as short rows come last and fill what is left, it
# seldom makes many more than the fewest.


# %% 12. Packs
def pack(rows: list[Row], length: int) -> list[list[Row]]:
    """Rows sorted into packs of at most `length` tokens; first fit decreasing.

    Raises:
        ValueError: where a row is longer than that.
    """
    packs, room = [], []
    for row in sorted(rows, key=lambda one: -len(one["input_ids"])):
        size = len(row["input_ids"])
        if size > length:
            raise ValueError(f"a row of {size} tokens doesn't go into a pack of {length}")
        at = next((i for i, left in enumerate(room) if left >= size), len(packs))
        if at == len(packs):
            packs.append([])
            room.append(length)
        packs[at].append(row)
        room[at] -= size
    return packs


def collate_packs(packs: list[list[Row]], pad: int) -> Batch:
    """Packs -> `input_ids`, `labels`, `position_ids` (B, T) and `attention_mask` (B, 1, T, T).

    The mask is True where a token may look: in its own document, not ahead. Padding at the end is a
    document of its own: a row of the mask that is all False would give NaN.
    """
    shape = (len(packs), max(sum(len(row["input_ids"]) for row in one) for one in packs))
    batch = {"input_ids": torch.full(shape, pad), "labels": torch.full(shape, IGNORED)}
    document, positions = torch.zeros(2, *shape, dtype=torch.int64)
    for i, rows in enumerate(packs):
        start = 0
        for number, row in enumerate(rows, 1):
            end = start + len(row["input_ids"])
            batch["input_ids"][i, start:end] = torch.tensor(row["input_ids"])
            batch["labels"][i, start + 1 : end] = torch.tensor(row["labels"][1:])
            document[i, start:end] = number
            positions[i, start:end] = torch.arange(end - start)
            start = end
    own = document[:, :, None] == document[:, None, :]  # (B, T, T)
    return {**batch, "position_ids": positions, "attention_mask": own.tril()[:, None]}


@lab.experiment
def packed_equals_alone(run: Run):
    """In a pack each document gets the logits that it gets alone, and nothing leaks between them.

    Predict: the mask is right, but positions run on from document to document. What changes?
    """
    model, rows = build(run, run.seed).eval(), some_rows(run, 6)
    batch = collate_packs([rows], PAD)
    mask, positions = batch["attention_mask"], batch["position_ids"]
    alone = torch.cat([model(torch.tensor([row["input_ids"]])).logits[0] for row in rows])
    vectors = model.get_input_embeddings()(batch["input_ids"]).detach()  # (1, T, d)
    say = partial(model, inputs_embeds=vectors.requires_grad_())
    causal = torch.ones_like(mask).tril()
    logits = {
        "packed": say(attention_mask=mask, position_ids=positions),
        "positions running on": say(attention_mask=mask),
        "causal mask alone": say(attention_mask=causal, position_ids=positions),
    }
    gaps = {name: (one.logits[0] - alone).abs().max() for name, one in logits.items()}
    bound, because = tolerance(torch.float32), "rounding of float32"
    run.check(
        "packed: logits, less those alone",
        gaps["packed"],
        at_most=bound,
        because=because,
        decides=True,
    )
    gap, because = gaps["positions running on"], "RoPE looks at distances, and they are the same"
    run.check("positions running on: the same", gap, at_most=bound, because=because)
    gap, because = gaps["causal mask alone"], "the partner: logits are of order one"
    run.check("causal mask alone: the same", gap, at_least=0.05, because=because)
    first, leaks = len(rows[0]["input_ids"]), []
    for name in ("packed", "causal mask alone"):
        later = logits[name].logits[0, first:].square().sum()
        (slope,) = torch.autograd.grad(later, vectors)
        leaks.append(slope[0, :first].abs().max())
    because = "no path leads there"
    run.check(
        "packed: gradient of the others to document 1",
        leaks[0],
        at_most=0,
        because=because,
        decides=True,
    )
    run.check("causal mask alone: the same", leaks[1], at_least=1e-3, because="the partner")
    count = sum(label_count(collate([row], PAD)) for row in rows)
    run.check("labels in the pack, as in its rows", label_count(batch), equals=count)


def padding(groups: list[list[Row]], places: int | None = None) -> float:
    """The share of places that hold no token; a group has `places`, or rows of its longest one."""
    tokens = [[len(row["input_ids"]) for row in one] for one in groups]
    return 1 - sum(map(sum, tokens)) / sum(places or max(one) * len(one) for one in tokens)


def in_groups(items: list[Any], size: int) -> list[list[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


@lab.experiment
def packing_removes_padding(run: Run):
    """Packing leaves little padding; batches of rows as they come waste a good part.

    Predict: rows of 9 to 19 tokens, 16 to a batch. Which share of the places is padding?
    """
    rows, room = some_rows(run, 4000), 64
    lengths = [len(row["input_ids"]) for row in rows]
    by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
    packs = pack(rows, room)
    waste = {
        "as they\ncome": padding(in_groups(rows, 16)),
        "sorted by\nlength": padding(in_groups(by_length, 16)),
        "packed": padding(packs, room),
    }
    plain, alike, packed = waste.values()
    because = "a batch is as long as the longest of 16"
    run.check("padding as they come", plain, at_least=0.2, because=because, decides=True)
    because = "a gap as long as the shortest row is filled with one, but in the last pack"
    bound = (min(lengths) - 1) / room
    run.check("padding packed", packed, at_most=bound, because=because, decides=True)
    fewest = math.ceil(sum(lengths) / room)
    run.measure("packs, over the fewest for so many tokens", len(packs) / fewest)
    model, some = build(run, run.seed).to(run.device), rows[:640]
    loads = {
        "padded": [collate(one, PAD) for one in in_groups(some, 32)],
        "packed": [collate_packs(one, PAD) for one in in_groups(pack(some, room), 6)],
    }

    def both_ways(name: str) -> None:
        for batch in (placed(run, one) for one in loads[name]):
            batch.pop("labels")
            model(**batch).logits.sum().backward()

    times = seconds_paired(partial(both_ways, "padded"), partial(both_ways, "packed"), 5)
    gain = [a / b for a, b in zip(*times, strict=True)]
    what = "time over the same rows, forward and backward: padded over packed"
    run.measure(what, gain, expect_at_least=1, timed=True)
    fig = figures.draw_padding(lengths, waste)
    run.figure(
        fig,
        "lengths",
        "How long rows are, and what three ways of batching them waste.",
        alt="A histogram of the number of tokens in a row, and three bars of the share of padding.",
    )
    told = f"Padding: {plain:.0%} as they come, {packed:.1%} packed, {alike:.1%} sorted by length"
    return f"{told}; but a batch of rows of one length isn't a random batch."


# %% [markdown]
# ## 11. Sixteen bits
# Training in **mixed precision** multiplies matrices in 16 bits and keeps the weights in 32. Why
# not all in 16? bfloat16 has float32's range and 8 significant bits. Between $2^e$ and $2^{e+1}$
# its numbers lie $2^{e-7}$ apart, so adding $u$ to a weight $w$ there does nothing if $|u|$ is
# below half of that:
#
# $$|u| < 2^{e - 8}, \qquad e = \lfloor \log_2 |w| \rfloor$$
#
# which is about 1/256 to 1/512 of the weight.
#
# AdamW's steps are about $\eta$. With $\eta = 10^{-4}$ every weight of at least
# $2^{-5} \approx 0.03$ stands still, and late in training, when the rate falls, so do the smaller
# ones.
#
# float16 has 11 bits, enough for more; but its smallest number above 0 is
# $2^{-24} \approx 6 \cdot 10^{-8}$. Gradients of half of that or less become 0. **Loss scaling**
# (Micikevicius et al. 2018) multiplies the loss by a power of two before the backward pass and
# divides the gradients, in 32 bits, after it. Accelerate does so with `--precision fp16`, on a GPU.


# %% 13. Small updates
def steady(model: Any, rows: list[Row], steps: int) -> tuple[float, float]:
    """Train all of it at a rate of 1e-5; which share of its weights never moved, and the gain."""
    before = [one.detach().clone() for one in model.parameters()]
    optimizer, batch = AdamW(model.parameters(), 1e-5, weight_decay=0), collate(rows, PAD)
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
def short_weights_lose_small_updates(run: Run):
    """Where a step is below half a unit in a weight's last place, bf16 loses it, and fp32 doesn't.

    Predict: a trained model and steps of 10⁻⁴. Which share of its weights doesn't move in bf16?
    """
    model, table = fit(run, "right", run.seed).trained.model.cpu(), []
    w = torch.cat([one.detach().flatten() for one in model.parameters()])
    for size in (1e-2, 1e-3, 1e-4, 1e-5):
        step = size * (1 - 2 * (torch.arange(len(w)) % 2))  # up, down, up, …
        short = w.bfloat16()
        lost = ((short + step.bfloat16()) == short).float().mean().item()
        limit = torch.exp2(short.float().abs().log2().floor() - 8)
        formula = (size < limit).float().mean().item()
        gap, because = abs(lost - formula), "below a power of two the gap is half: 1 weight in 128"
        run.check(
            f"{size:g}: share lost less the formula's",
            gap,
            at_most=0.01,
            because=because,
            decides=True,
        )
        table.append([f"{size:g}", lost, formula, ((w + step) == w).float().mean().item()])
    run.table("Share of weights that don't move", ["step", "bf16", "formula", "fp32"], table)
    rows = some_rows(run, 64)
    still, gain = steady(copy.deepcopy(model), rows, 20)
    still_short, gain_short = steady(copy.deepcopy(model).bfloat16(), rows, 20)
    because = "twenty steps of 1e-5, none of which is kept"
    run.check(
        "bf16: weights that never moved", still_short, at_least=0.5, because=because, decides=True
    )
    because = "the partner: left are only words that no row has, whose gradient is 0"
    run.check("fp32: the same", still, at_most=0.2, because=because, decides=True)
    run.measure("fp32: the loss falls by", gain, expect_at_least=0, unit="nats")
    run.measure("bf16: of that it keeps", gain_short / gain, expect_at_most=0.8)
    what = "from scratch, η = 0.005: bf16's loss less fp32's"
    run.measure(what, losses_beyond_the_right(run, "bf16 weights"), unit="nats")
    return f"Of steps of 10⁻⁴ bf16 loses {table[2][1]:.0%}, of 10⁻⁵ {table[3][1]:.0%}."


@lab.experiment
def short_gradients_need_scaling(run: Run):
    """In float16 small gradients become 0; multiplied by 2¹⁶ before, most of them survive.

    Predict: of a real model's gradients with respect to its logits, which share is lost?
    """
    small = (2.0 ** torch.tensor([-24, -25, -26])).half().float() * 2**24
    run.check("2⁻²⁴, 2⁻²⁵, 2⁻²⁶ in float16, over 2⁻²⁴", small.tolist(), equals=[1.0, 0.0, 0.0])
    real = assets.pretrained(run.options.model, run.online)
    ids = AutoTokenizer.from_pretrained(real)(assets.parallel()["English"], return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(real, dtype=torch.float32)(**ids).logits[0]
    logits.requires_grad_()  # (T, V)
    F.cross_entropy(logits[:-1], ids.input_ids[0, 1:]).backward()
    g, table = logits.grad[logits.grad != 0], []
    for k, scale in ((0, "1"), (8, "2⁸"), (16, "2¹⁶")):
        half = (g * 2.0**k).half()
        shares = [one.float().mean().item() for one in (half == 0, half.isinf())]
        table.append([scale, *shares, (half.float() / 2.0**k - g).abs().sum().item()])
    columns = ["scale", "share lost", "share infinite", "total error"]
    run.table("Gradients with respect to the logits in float16", columns, table)
    plain, scaled = table[0][1], table[2][1]
    run.measure("share lost unscaled", plain, expect_at_least=0.1, decides=True)
    because = "the threshold falls by a factor of 65,536"
    ratio = scaled / max(plain, 1e-9)
    run.measure(
        "share lost at 2¹⁶, over that", ratio, expect_at_most=0.5, because=because, decides=True
    )
    run.check("share that is infinite at 2¹⁶", table[2][2], at_most=0, because="none is above 1/T")
    return f"Lost: {plain:.0%} unscaled, {scaled:.0%} at 2¹⁶."


# %% [markdown]
# ## 12. Interrupted
# A run that was killed should end as if it hadn't been. To go on *exactly*, weights aren't enough:
# AdamW's means and its $t$, the place in the schedule, the place in the data (which epoch's order,
# how many batches in), and the state of every random number generator: dropout draws from one.
# `Checkpoints` writes all of that by Accelerate's `save_state`, into a folder of another name that
# is renamed when it is whole, so that a kill never leaves half a one; it keeps the last two; and
# the next run finds it if everything that its bits depend on is the same. Try it: press Ctrl-C in a
# run of `--size small`, and start it again.


# %% 14. Resumed
class Killed(Exception):
    """What stands for a kill here."""


@lab.experiment
def resumed_is_bit_for_bit(run: Run):
    """Killed in its middle and resumed, a training ends with the same losses and weights, exactly.

    Predict: all is restored but the order of the data. How far off is the first loss after that?
    """
    rows, how = some_rows(run, 400), Recipe(40, seed=run.seed)  # an epoch has 12 steps

    def go(name: str, seed: int, rows: list[Row], watch: Watch | None = None) -> Trained:
        """With dropout, so that random numbers count."""
        kept = Checkpoints(run, name, depends_on={"steps": how.steps}, every_steps=10)
        return train(run, name, build(run, seed, 0.2), rows, how, watch=watch, checkpoints=kept)

    def killed(name: str) -> None:
        def kill(_: Any) -> float:
            raise Killed  # at step 25

        with suppress(Killed):
            go(name, run.seed, rows, kill)

    whole, other = go("never killed", run.seed, rows), run.seed + 1
    killed("killed")
    again = go("killed", other, rows)  # into a model of other weights
    killed("killed, another order")
    wrong = go("killed, another order", other, rows[::-1])

    def losses(one: Trained) -> int:
        return sum(a != b for a, b in zip(whole.losses, one.losses, strict=True))

    def weights(one: Trained) -> float:
        pairs = zip(whole.model.parameters(), one.model.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    run.check("steps of 40 with another loss", losses(again), equals=0, decides=True)
    run.check(
        "largest difference of a weight",
        weights(again),
        at_most=0,
        because="bit for bit",
        decides=True,
    )
    because = "the partner: all 20 after the resume have other rows"
    run.check("another order: steps with another loss", losses(wrong), at_least=15, because=because)
    run.check("largest difference of a weight", weights(wrong), at_least=1e-4, because="the same")
    gap = abs(wrong.losses[20] - whole.losses[20])
    return f"Only the order lost, the first loss after the resume is off by {gap:.2f} nats."


@lab.experiment
def a_nan_stops_the_run(run: Run):
    """The first loss that is no number ends the training, with its step and its batch."""
    told, batch = "nothing", {"input_ids": torch.arange(6).view(2, 3)}
    finite = torch.tensor(1.5, device=run.device)
    run.check("a loss of 1.5 passes", stop_on_nan(run, finite, 6), equals=1.5)
    try:
        stop_on_nan(run, torch.tensor(math.nan, device=run.device), 7, batch)
    except Card as card:
        told = card.what
    if not is_main():
        return None  # the main process keeps the batch, of all
    kept = run.folder / "nan-batch.safetensors"
    run.check("the card tells the step", "step 7" in told, equals=True, decides=True)
    run.check("the batch is kept", kept.is_file(), equals=True, decides=True)
    kept.unlink(missing_ok=True)
    return told


# %% [markdown]
# ## 13. N processes
# On $N$ devices $N$ processes run the same program. Each holds the whole model, takes its share of
# every batch, and the gradients are averaged before the step ("data parallel"). The loss is that of
# one process if, and only if, the division is right: by the labels of the *whole* window. A mean
# over each process's own labels is a mean of means again. Here two processes are started for ten
# steps (`invoke lab LLM08 --processes 2` runs the whole lab so), and a plain loop, without
# Accelerate, is given what the two have seen, put together.


# %% 15. One of several
SEVERAL = Recipe(steps=10, warmup=2)


def one_of_several(folder: str, size: str, seed: int) -> None:
    """What each process of the experiment below does; its story goes into a file."""
    end_with_parent()
    seen: list[Row] = []

    def make(rows: list[Row]) -> Batch:
        seen.extend(rows)
        return collate(rows, PAD)

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        run = Run(Settings(size, seed=seed), "fp32", Output(nowhere, silent=True), Path(folder))
        done = train(run, "several", build(run, seed), rows_of(seed, 4000), SEVERAL, make)
        five = run.accelerator.prepare(DataLoader(cast(Any, range(5)), 2))
        ways: Any = (run.accelerator.gather, run.accelerator.gather_for_metrics)
        counts = [[one for batch in five for one in way(batch).tolist()] for way in ways]
        story = {"id": os.getpid(), "losses": done.losses, "seen": seen, "counts": counts}
        story["processes"] = run.accelerator.num_processes
        (Path(folder) / f"{rank()}.json").write_text(json.dumps(story), encoding="utf-8")
        run.accelerator.end_training()


def start_two(size: str, seed: int) -> list[dict[str, Any]]:
    """The stories of two processes, which run on the CPU wherever the lab does."""
    code = "from labs.llm08_training import lesson; lesson.one_of_several({!r}, {!r}, {})"
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    root = Path(reading.__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code.format(folder, size, seed)]
        if run_group(2, command, PYTHONPATH=str(root), **hidden):
            raise RuntimeError("a process failed; what it said stands above")
        return [json.loads((Path(folder) / f"{i}.json").read_text("utf-8")) for i in range(2)]


def plainly(run: Run, steps: list[list[Row]]) -> list[float]:
    """The losses of the same training in plain PyTorch: one process, whole batches."""
    model, losses = build(run, run.seed), []
    optimizer = AdamW(model.parameters(), SEVERAL.lr)
    for step, rows in enumerate(steps):
        batch = collate(rows, PAD)
        loss = label_sum(model, batch) / label_count(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), SEVERAL.clip)
        optimizer.param_groups[0]["lr"] = SEVERAL.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@lab.experiment
def n_processes_are_as_one(run: Run):
    """Two processes, each with its share of every batch, give the loss of one with all of it.

    Predict: five rows, two to a batch. How many do the two processes count with `gather`?
    """
    if not is_main():
        return None  # the main process starts two of its own
    stories = start_two(run.size, run.seed)
    run.check("processes that ran", len({one["id"] for one in stories}), equals=2)
    run.check("as Accelerate counts", [one["processes"] for one in stories], equals=[2, 2])
    half = SEVERAL.batch // 2
    shares = [in_groups(one["seen"], half)[: SEVERAL.steps] for one in stories]
    whole = plainly(run, [a + b for a, b in zip(*shares, strict=True)])

    def apart(losses: list[float]) -> float:
        return max(abs(a / b - 1) for a, b in zip(losses, whole, strict=True))

    because = "rounding, which Adam's first steps magnify where a gradient is near 0"
    found = apart(stories[0]["losses"])
    run.check(
        "their loss over that of one, less 1", found, at_most=1e-4, because=because, decides=True
    )
    found = apart(plainly(run, shares[0]))
    run.check("one of them alone, the same", found, at_least=1e-3, because="the partner")
    gathered, counted = stories[0]["counts"]
    run.check("five rows by gather_for_metrics", sorted(counted), equals=[0, 1, 2, 3, 4])
    return f"Of five rows `gather` counts {len(gathered)}: {gathered}."


# %% [markdown]
# ## 14. Where a step's time goes
# A forward pass multiplies each weight with each token once, the backward pass twice (once for the
# gradient of what came in, once for the weight's): it takes about twice the time, as far as it is
# products that take time; norms, softmax and Python itself cost about as much both ways. Then come
# clipping and the optimizer, which touch each weight a few times, whatever the batch. In a model as
# small as ours much of the optimizer's time is Python: our AdamW calls some ten kernels for each of
# its tensors (21 at `tiny`), PyTorch's fused one a single kernel for all.


# %% 16. Stopwatch
PARTS = ("collate", "forward", "backward", "clip", "optimizer")


def one_step(run: Run, model: Any, optimizer: Any, rows: list[Row]) -> Iterator[None]:
    """A step of training, which pauses behind each of its PARTS."""
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
    """Milliseconds (median) that each part of a step takes."""
    model, optimizer = run.accelerator.prepare(model, optimizer(model.parameters(), 1e-3))
    laps = []
    for _ in range(steps + 3):
        start, ends = now(), [now() for _ in one_step(run, model, optimizer, rows)]
        laps.append([1000 * (b - a) for a, b in pairwise([start, *ends])])
    return [median(one) for one in zip(*laps[3:], strict=True)]  # the first ones warm up


def now() -> float:
    """Seconds, when all that a GPU was given is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@lab.experiment
def where_the_time_goes(run: Run):
    """The backward pass takes twice the forward's time; fused, a small one's optimizer takes less.

    Predict: which share of a small model's step is our optimizer's?
    """
    fused, rows = partial(torch.optim.AdamW, fused=True), some_rows(run, 32)
    large = word_tasks.small_llama(256, 4)
    long = [{name: 4 * one for name, one in row.items()} for row in rows]  # 76 tokens at most
    ways = {
        "small, our AdamW": (build(run, run.seed), rows, AdamW, 30),
        "small, fused AdamW": (build(run, run.seed), rows, fused, 30),
        "large, fused AdamW": (large, long, fused, 3),
    }
    found = {name: stopwatch(run, *how) for name, how in ways.items()}
    ours, theirs, slow = found.values()
    ratio, because = slow[2] / slow[1], "two products for each of the forward pass's"
    run.measure(
        "large: backward over forward",
        ratio,
        expect_between=(1.5, 2.5),
        because=because,
        timed=True,
        decides=True,
    )
    run.measure("small: the same", ours[2] / ours[1], timed=True)
    run.measure("small: our optimizer's share of a step", ours[4] / sum(ours), timed=True)
    what, ratio = "our optimizer over the fused one", ours[4] / theirs[4]
    run.measure(what, ratio, expect_at_least=1, timed=True, decides=True)
    small, big = (sum(sizes(one)) for one in (build(run, run.seed), large))
    caption = f"Small: {small:,} parameters, rows of 19 tokens at most. Large: {big:,}, of 76."
    run.figure(
        figures.draw_times(PARTS, found),
        "time",
        f"{caption} Each step takes 32 rows.",
        alt="Stacked bars of the share of a step's time, a bar for each way of training, "
        "divided into collating, forward, backward, clipping and the optimizer.",
    )


# %% [markdown]
# ## 15. A real model, and your data
# The same loop, with SmolLM2 (135 M parameters, its 4-bit release) in place of the small model, and
# its own tokenizer and template. To spare time and memory only its last four blocks of thirty are
# trained. The rows are the set's or, with `--dataset FILE`, yours, read as a stream: mapped to
# tokens, cut at a length, dropped where the cut left no label, shuffled through a buffer. The first
# of them are kept for the test, and rows like those aren't trained on.


# %% 17. A stream of rows
def rows_from(source: Any, words: Any, length: int, seed: int) -> Any:
    """Encoded rows with a label at least, out of a source of messages."""
    rows = datasets.IterableDataset.from_generator(lambda: iter(source))

    def tokens(row: dict[str, Any]) -> Row:
        return {name: ids[:length] for name, ids in encode(words, row["messages"]).items()}

    rows = rows.map(tokens, remove_columns=["messages"])
    rows = rows.filter(lambda row: any(one != IGNORED for one in row["labels"][1:]))
    return rows.shuffle(seed=seed, buffer_size=1000)


@lab.experiment
def a_real_model_learns_by_the_same_loop(run: Run):
    """A few steps of the same loop lower a real model's loss on rows that it didn't see."""
    path = assets.pretrained(run.options.model, run.online)
    length = run.pick(tiny=96, small=256, full=1024)
    how = run.pick(tiny=Recipe(8, batch=4), small=Recipe(60, batch=16), full=Recipe(400, batch=32))
    how = replace(how, lr=5e-4, warmup=2, accumulate=2, seed=run.seed)
    words = AutoTokenizer.from_pretrained(path)
    asked = reading.requested(run.settings, partial(refuse_special, words))
    made = [{"messages": reading.messages_of(one)} for one in split(run.seed, 4000)[0]]
    kept = 32  # for the test
    some = rows_from(asked or made, words, length, run.seed).take(kept + 2 * how.batch * how.steps)
    test = list(some.take(kept))
    rows = [one for one in some.skip(kept) if one not in test]
    if len(rows) < how.batch:
        why = (
            f"{len(test)} rows are kept for the test; beside them and their like {len(rows)} have "
            f"an answer that begins within {length} tokens, and a batch has {how.batch}."
        )
        stop_all(Card("The dataset is too small.", why, "more rows, or shorter ones", WRONG_USAGE))
    lengths = [len(row["input_ids"]) for row in test + rows]
    run.measure("tokens in a row", lengths)
    labels = sum(label_count(collate([row], 0)) for row in test + rows)
    run.measure("share of the tokens that are labels", labels / sum(lengths))
    if asked:
        run.measure("bad rows among those read", asked.skipped)
    if asked and asked.reported:
        run.table("The first of the bad rows", ["row"], [[one] for one in asked.reported])
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).requires_grad_(False)
    lists = (one for one in model.modules() if isinstance(one, nn.ModuleList))
    for block in max(lists, key=len)[-4:]:  # of a transformer's lists its blocks are the longest
        block.requires_grad_(True)
    pad = words.eos_token_id if words.pad_token_id is None else words.pad_token_id
    batch = placed(run, collate(test, pad))

    @torch.no_grad()
    def loss(one: Any) -> float:
        with run.accelerator.autocast():
            return label_sum(one.to(run.device).eval(), batch).item() / label_count(batch)

    before, fused = loss(model), partial(torch.optim.AdamW, fused=True)
    make = partial(collate, pad=pad)
    done = train(run, "a real model", model, rows, how, make, optimizer=fused)
    after = loss(done.model)
    if asked or run.options.model:
        run.measure(
            "loss before, less after", before - after, expect_at_least=0, unit="nats", decides=True
        )
    else:
        because = "how answers look is soon learned; they were not asked for in so many words"
        run.check(
            "loss before, less after", before - after, at_least=0.3, because=because, decides=True
        )
    fig = figures.draw_fit(done.losses, before, after, 2 * how.batch)
    caption = "The same loop on a real model, of which the last four blocks are trained."
    run.figure(
        fig,
        "real",
        caption,
        alt="Line plot of the training loss over eight steps, with the loss on unseen rows "
        "before and after as squares.",
    )
    return f"On rows not seen the loss went from {before:.2f} to {after:.2f} nats per label."


# %% [markdown]
# ## What surprised
# What this run measured:


# %% 18. What surprised
@lab.closing
def what_surprised(results: Results) -> str:
    """Sentences about this run, from its own numbers."""
    masked = results.shown("does_masking_the_prompt_help", "words right, masked less not")
    off = results.value("accumulated_equals_the_whole_batch", "mean of means: off by")
    mistakes = "none_of_these_mistakes_raises_an_error"
    cost = results.shown(mistakes, "mean of means: costs the answers' loss")
    spread = results.values(mistakes, "the right one's answers' loss, three seeds")
    large = "from scratch, η = 0.005: bf16's loss less fp32's"
    harm = results.shown("short_weights_lose_small_updates", large)
    kept = results.value("short_weights_lose_small_updates", "bf16: of that it keeps")
    positions = results.value("packed_equals_alone", "positions running on: the same")
    return (
        f"- Words right with the prompt masked, minus without: {masked}.\n"
        f"- The mean of means is off by {off:.0%} of the gradient's norm. It costs {cost} nats; "
        f"the right loop's range over seeds is {max(spread) - min(spread):.3g} nats.\n"
        f"- bf16 weights cost {harm} nats at a rate of 0.005, and keep {kept:.0%} of what fp32 "
        "gains at a rate of 0.00001.\n"
        f"- Positions that run on through a pack change a logit by {positions:.1g} at most."
    )


# %% [markdown]
# A prompt's words are random here, so that its part of the loss can't fall, and it is most of the
# loss. Where prompts are text like any other, people found little difference: measure it on your
# own. The mean of means is a fair estimate of *another* loss, in which micro-batches count alike.
# Under RoPE only distances count, so positions may run on. And what resumes exactly is not the
# model: it is the whole of the state, down to the order of rows that are still to come.
#
# **Read on**: Loshchilov & Hutter 2019, *Decoupled weight decay regularization* · Micikevicius et
# al. 2018, *Mixed precision training* · Krell et al. 2021, *Efficient sequence packing without
# cross-contamination* · Shi et al. 2024, *Instruction tuning with loss over instructions*, on what
# prompts' labels are good for · Zhou et al. 2023, *LIMA*, on how few rows it takes if they are
# good.

# %%
if __name__ == "__main__":
    lab.main()
