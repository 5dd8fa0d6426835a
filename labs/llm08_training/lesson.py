# %% [markdown]
# # LLM08 · Dataset processing and training
# From rows in a file to a trained model: labels, batches, packs, the loop and its precision.
#
# **You will be able to** turn instruction data into tokens and labels. You will make batches and
# packs without leaks. You will write AdamW, clipping, a learning-rate schedule and a training step
# with gradient accumulation, choose a precision by measuring, and train a model on your own data.
# **Builds on** LLM02's gradients, LLM04's tokens and padding, LLM06's attention masks. **Takes**
# three quarters of an hour to read, a minute to run at `tiny` on 2 cores.

# %% Imports
import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from labs.kit import Lab, Results, Run, assets
from labs.llm08_training import conversations as reading
from labs.llm08_training import figures, own_data, packing, precision, view_data, word_tasks
from labs.llm08_training.gradients import added, gradient_of, relative_error
from labs.llm08_training.optimizer import check_path, optimizer_from
from labs.llm08_training.templates import header_of, refuse_special
from labs.llm08_training.training import Batch, Loop, Parts, Recipe, Row, fit, fit_early, some_rows
from labs.llm08_training.word_tasks import PAD, build, exam, word_tokenizer

import torch
import torch.nn.functional as F
from datasets import load_dataset
from torch import Tensor, nn
from transformers import AutoTokenizer

lab = Lab("LLM08")
lab.before_run(reading.check_first_rows)
lab.before_run(assets.check_model)
IGNORED = -100  # the label that cross_entropy ignores
LEAKED = "split at random: share of test rows that are in training"

# %% [markdown]
# ## 1. Rows
# An **instruction set** is a list of requests with wanted responses. `word_tasks.py` generates
# ours, so responses can be checked. It has five tasks: repeat, reverse, name the first, name the
# last and count. Lists have one to six of twelve animals. *Reverse the words: ant cow* wants *cow
# ant*. Rows have the fields `instruction`, `input` and `output`, as in Alpaca (Taori et al. 2023).
#
# The library **datasets** stores rows in a *Dataset*: usually a table on disk that is mapped into
# memory, so it may be larger than the memory. The next cell calls four of its functions.
# `load_dataset` reads files. `map` computes new columns for each row, `filter` keeps the rows for
# which a function returns True, and `train_test_split` splits at random.
#
# `train_test_split` can put the same row into both parts, because the generator repeats short
# lists. Then a model can pass the test from memory. The usual cure is to remove duplicates, or to
# split by group. We split by **combination**: a list of two or more words may occur in training
# with four of its five tasks, and in the test only with the fifth. A checksum selects the fifth. It
# is the task's number, plus the first word's number, plus twice the second word's, and so on. A row
# is held out if its checksum is divisible by 5. Tasks are numbered from 0 in the order above, words
# from 0 alphabetically: ant, bee, cat, cow. Counting *ant cow* is task 4, so its checksum is
# $4 + 1 \cdot 0 + 2 \cdot 3 = 10$: this row is in the test. A list of one word is never held out,
# because four tasks have the same response to it.


# %% The split
@lab.experiment
def a_random_split_leaks(run: Run):
    """A random split puts many test rows into training, too; a split by combination puts none.

    Then no test row shares both its list and its response with a training row, under any task.

    Predict: 4,200 rows are split at random. What share of the 200 test rows is also in training?
    """
    with TemporaryDirectory() as folder:
        path = f"{folder}/rows.jsonl"  # a row on each line
        word_tasks.table(run.seed, 4200).to_json(path)
        where: Any = {"data_files": path, "cache_dir": folder, "keep_in_memory": True}
        table = load_dataset("json", split="train", **where)
    table = table.map(lambda row: {"request": f"{row['instruction']}: {row['input']}"})
    parts = table.train_test_split(test_size=200, seed=run.seed)
    known = set(parts["train"]["request"])
    leaked = mean(request in known for request in parts["test"]["request"])
    because = "lists of one word are a sixth of all rows and make 60 pairs, of two words 660"
    run.check(LEAKED, leaked, at_least=0.1, because=because, decides=True)
    held_out = table.filter(word_tasks.is_held_out)
    training = table.filter(lambda row: not word_tasks.is_held_out(row))
    known = {(row["input"], row["output"]) for row in training}
    shared = sum((row["input"], row["output"]) in known for row in held_out)
    what = "split by combination: test rows whose list and response are in training"
    run.check(what, shared, equals=0, because="by construction: tests the code", decides=True)
    return f"Split at random, {leaked:.0%} of the test rows are also training rows."


# %% [markdown]
# ## 2. Formats and labels
# People store instruction data mostly in one of three shapes: `messages`, a list of turns, each
# with a `role`, such as user or assistant, and its `content`; `prompt` and `completion`; or
# `instruction`, perhaps an `input`, and `output`. Messages can express the other two, so
# `conversations.py` turns every row into messages. A model reads one row of tokens, so its **chat
# template** writes the turns one after the other, with **special tokens** between them. In ours
# each word is one token. This is how a row reaches the model.
#
# ```text
# row       {"instruction": "Reverse the words", "input": "ant cow", "output": "cow ant"}
# messages  {"role": "user", "content": "Reverse the words\n\nant cow"}, …
# tokens    <|user|> Reverse the words ant cow <|end|> <|assistant|> cow ant <|end|>
# labels      −100    −100   −100 −100 −100 −100 −100      −100      cow ant <|end|>
# ```
#
# At each place the model predicts the next token. If it gives that token the probability $p$, the
# loss is $-\ln p$, in nats. Which tokens should the model learn to write? The assistant's, and the
# end token (EOS) after them, our `<|end|>`: it shows that the model has finished. All other places
# get the **label** −100, which PyTorch's `cross_entropy` ignores. `labels[i]` belongs to
# `input_ids[i]`. The loss compares the logits at $i - 1$ with it, so don't shift labels yourself.
#
# An assistant's turn begins after its **header**, the tokens that the template adds when it asks
# for a response. SmolLM2's header has four: `<|im_start|>`, two for the word assistant, and a new
# line. The *word* alone is no header: a request may contain it.


# %% Labels
@lab.exercise(
    level=1,
    hints=(
        "Start with −100 everywhere. Then look for each place where the complete header stands.",
        "After the header, up to the next end token and including it, labels are the tokens.",
        "Continue after that turn: there may be more. A turn that was cut off has no end token.",
    ),
)
def supervise(ids: list[int], header: list[int], end: int) -> list[int]:
    """Return each token's label: the token in an assistant's turn and at its `end`, else −100.

    A turn begins after a complete `header`. It goes up to the first `end`, or to the last token.
    """
    labels = [IGNORED] * len(ids)
    place = 0
    while place < len(ids):
        if ids[place : place + len(header)] != header:
            place += 1
            continue
        start = place + len(header)
        place = ids.index(end, start) + 1 if end in ids[start:] else len(ids)
        labels[start:place] = ids[start:place]
    return labels


def encode(tokenizer: Any, messages: list[reading.Message]) -> Row:
    """Turn messages into `input_ids` and `labels`, lists of the same length."""
    refuse_special(tokenizer, messages)
    header = header_of(tokenizer)
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return {"input_ids": ids, "labels": supervise(ids, header, tokenizer.eos_token_id)}


@lab.experiment
def labels_are_the_assistants_words(run: Run):
    """Our labels match the template's marks in 200 conversations, and SmolLM2's replies in one."""
    talks = word_tasks.conversations(run.seed, 200)
    rows = [encode(word_tokenizer, talk) for talk in talks]
    ours = [[label != IGNORED for label in row["labels"]] for row in rows]
    marks = [word_tasks.marked(talk) for talk in talks]  # by the template itself
    wrong = sum(a != b for a, b in zip(ours, marks, strict=True))
    run.check("of 200 conversations, wrong labels", wrong, equals=0, decides=True)
    real = AutoTokenizer.from_pretrained(assets.pretrained(run.options.model, run.online))
    row = encode(real, word_tasks.SMALL_TALK)
    text = real.decode([label for label in row["labels"] if label != IGNORED])
    wanted = f"SmolLM2.{real.eos_token}Yes, the assistant\n2.{real.eos_token}"
    run.check("SmolLM2's labels, as text", text, equals=wanted, decides=True)
    figures.show_labels(run, [real.decode([i]) for i in row["input_ids"]], row["labels"])


# %% [markdown]
# ## 3. Batches
# Sections 3 and 5 to 7 write the parts of the training in section 8, which pads its batches. Rows
# of different lengths become a rectangle, $B$ rows by $T$ places, by **padding** on the right. An
# attention mask of 0 hides the padding, and its labels are −100. The function that does this is the
# **collator**. Many tokenizers have no padding token, so people pad with the end token. This does
# no harm until somebody looks for padding *by value*: `labels[input_ids == pad] = -100` also
# removes the labels of the ends. LLM08+ trains with this mistake: the model doesn't learn to stop.


# %% The collator
@lab.exercise(
    level=1,
    hints=(
        "T is the longest row's length. Make three tensors (B, T) as if all places were padding.",
        "Padding has `pad` in input_ids, −100 in labels, 0 in attention_mask.",
        "Write each row into the first places of its line; its attention_mask there is 1.",
    ),
)
def collate(rows: list[Row], pad: int) -> Batch:
    """Make `input_ids`, `labels` and `attention_mask`, (B, T) int64 each, padded on the right.

    Tokens of a row keep their labels, even if they equal `pad`.
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


def label_sum(model: Any, batch: Batch) -> Tensor:
    """Return the loss summed over all labels (nats); labels are shifted only here."""
    inputs = {name: batch[name] for name in ("attention_mask", "position_ids") if name in batch}
    logits = model(batch["input_ids"], **inputs).logits[:, :-1]
    labels = batch["labels"][:, 1:]  # (B, T − 1); logits: (B, T − 1, V)
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")


def label_count(batch: Batch) -> int:
    """Return the number of labels in the loss."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


# %% [markdown]
# ## 4. Packs
# In our batches about a third of the places are padding: computed, then ignored. **Packing** puts
# several rows, now called documents, end to end until a length is full. The gradient is that of the
# same rows in a padded batch, so a training may use either. Section 8 pads. LLM08+ measures how
# much padding packs save. Documents stay separate:
#
# - **Attention**: a token looks back only in its document: the mask is a staircase of triangles.
# - **Labels**: the last token of a document must not predict the first token of the next one.
# - **Positions** start at 0 in each document. Our model's RoPE depends on distances only, so it
#   doesn't need that. Learned positions do, and so do attention kernels that get no mask and start
#   a new document wherever the position is 0.


# %% Packs
@lab.exercise(
    level=3,
    hints=(
        "Fill input_ids, labels and position_ids row by row, with a running `start`. Give each "
        "place the number of its document in another tensor (B, T); padding has the number 0.",
        "The first label of each document is −100: no token of the document predicts it.",
        "Two places are in one document if their numbers are equal: compare (B, T, 1) with "
        "(B, 1, T). A token sees such places up to itself: tril(). Insert the heads' dimension.",
    ),
)
def collate_packs(packs: list[list[Row]], pad: int) -> Batch:
    """Make `input_ids`, `labels`, `position_ids` (B, T) int64, `attention_mask` (B, 1, T, T) bool.

    The mask is True where a token may look: back, in its own document. Padding at the end counts as
    a document, so that no row of the mask is empty (LLM06). Its positions are 0.
    """
    shape = (len(packs), max(sum(len(row["input_ids"]) for row in rows) for rows in packs))
    ids = torch.full(shape, pad)
    labels = torch.full(shape, IGNORED)
    positions = torch.zeros(shape, dtype=torch.int64)
    document = torch.zeros(shape, dtype=torch.int64)
    for i, rows in enumerate(packs):
        start = 0
        for number, row in enumerate(rows, 1):
            end = start + len(row["input_ids"])
            ids[i, start:end] = torch.tensor(row["input_ids"])
            labels[i, start + 1 : end] = torch.tensor(row["labels"][1:])
            positions[i, start:end] = torch.arange(end - start)
            document[i, start:end] = number
            start = end
    same = document[:, :, None] == document[:, None, :]  # (B, T, T)
    mask = same.tril()[:, None]  # (B, 1, T, T)
    return {"input_ids": ids, "labels": labels, "position_ids": positions, "attention_mask": mask}


@lab.experiment
def packed_equals_alone(run: Run):
    """In a pack each document gets the logits that it gets alone, and nothing leaks between them.

    Predict: the mask is right, but positions continue from document to document. What changes?
    """
    rows = some_rows(run, encode, 4)
    batch = collate_packs([rows], PAD)
    gap = packing.check(run, build(run, run.seed).eval(), rows, batch)
    packing.check_gradient(run, build(run, run.seed), label_sum, collate(rows, PAD), batch)
    lengths = [len(row["input_ids"]) for row in rows]
    figures.show_mask(run, batch["attention_mask"][0, 0], lengths)
    run.view("batch", "batch", *view_data.batch(word_tokenizer, rows, collate, collate_packs, PAD))
    return f"If positions continue, no logit changes by more than {gap:.1g}."


# %% [markdown]
# ## 5. Accumulation and clipping
# Five lines are the core of every training loop.
#
# ```python
# for batch in loader:
#     loss = label_sum(model, batch) / label_count(batch)
#     loss.backward()
#     optimizer.step()
#     optimizer.zero_grad()
# ```
#
# **Accumulation** is for a batch that doesn't fit into memory. The batch is split into $k$
# **micro-batches**, whose gradients add up before the optimizer steps. Micro-batch $i$ has $n_i$
# labels, whose losses sum to $s_i$. The loss of the full batch is the mean over all labels.
#
# $$L = \frac{\sum_i s_i}{\sum_i n_i}, \quad\text{and not}\quad \frac1k \sum_i \frac{s_i}{n_i}$$
#
# The second is the mean of means, which the usual `loss / k` computes. Take two micro-batches, one
# of 1 label and one of 9. In $L$ each label has the weight 1/10. In the mean of means the first
# label has 1/2, each of the others 1/18. transformers made this mistake until version 4.46 of 2024.
# Z. Wu reported it in 2021, B. Marie and D. Han in 2024. So we count the labels of a **window** of
# $k$ micro-batches before its first backward pass.
#
# **Clipping** (Pascanu et al. 2013) limits the damage of a single bad batch. If the gradient's norm
# $G$, over all parameters together, is larger than $c$, the gradient is multiplied by $c/G$.


# %% Windows and clipping
@lab.exercise(
    level=2,
    hints=(
        "Take up to `size` batches from the iterator at a time: itertools.islice does that.",
        "Count with label_count, over all batches of the window. When is there no window left?",
        "The last one may be short: yield it too. Read no batch ahead: the stream may be endless.",
    ),
)
def windows(micro: Iterable[Batch], size: int) -> Iterator[tuple[list[Batch], int]]:
    """Yield each window: a list of up to `size` consecutive batches, and their number of labels.

    Read a window's batches when the window is requested, not earlier, and store none after it.
    """
    source = iter(micro)
    while window := list(islice(source, size)):
        yield window, sum(label_count(batch) for batch in window)


@lab.exercise(
    level=1,
    hints=(
        "There is a single norm: the root of the sum of squares over all gradients together.",
        "Skip parameters without a gradient. Change the gradients in place: mul_.",
        "If the norm is above c, multiply each gradient by c / norm; else leave them.",
    ),
)
def clip_gradients(parameters: Iterable[nn.Parameter], c: float) -> Tensor:
    """Shorten the gradient of all parameters together to the norm `c`; return the norm before."""
    gradients = [weight.grad for weight in parameters if weight.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    if norm > c:
        for gradient in gradients:
            gradient.mul_(c / norm)
    return norm


@lab.experiment
def accumulated_equals_the_full_batch(run: Run):
    """Divided by all its labels, a window has the full batch's gradient; a mean of means doesn't.

    Predict: 32 rows in 8 micro-batches, short rows with short ones. How large is the error of the
    mean of means, relative to the gradient's norm?
    """
    model = build(run, run.seed)
    rows = sorted(some_rows(run, encode, 32), key=lambda row: len(row["input_ids"]))
    full = collate(rows, PAD)
    right = gradient_of(model, label_sum(model, full) / label_count(full))
    ((window, count),) = windows([collate(rows[i : i + 4], PAD) for i in range(0, 32, 4)], 8)
    sums = [gradient_of(model, label_sum(model, batch)) for batch in window]
    error = relative_error(added(sums) / count, right)
    what = "sum ÷ all labels: relative error"
    run.check(what, error, at_most=1e-5, because="rounding of float32", decides=True)
    means = [part / label_count(batch) for part, batch in zip(sums, window, strict=True)]
    error = relative_error(added(means) / len(means), right)
    because = "labels of the shortest rows weigh several times those of the longest"
    run.check("mean of means: relative error", error, at_least=0.1, because=because, decides=True)
    return f"The mean of means has an error of {error:.0%} of the gradient's norm."


# %% [markdown]
# ## 6. AdamW
# Let $g$ be the gradient of a weight $w$ at a step $t$, counted from 1. Adam (Kingma & Ba 2015) has
# two running means, $m$ of $g$ and $v$ of $g^2$. The numbers $\beta_1$ and $\beta_2$ set how long
# they remember, about $1/(1 - \beta)$ steps. The defaults are 0.9 and 0.999: 10 and 1,000 steps.
# Our trainings are short, so our $v$ remembers 50 steps, with $\beta_2 = 0.98$. Both means begin at
# 0, so they are too small at first. After one step with $g = 2$, $m$ is $0.1 \cdot 2 = 0.2$. The
# division by $1 - \beta_1 = 0.1$ makes it 2 again.
#
# $$
# \begin{aligned}
# m &\leftarrow \beta_1 m + (1 - \beta_1)\,g, & \hat m &= m \,/\, (1 - \beta_1^t) \\
# v &\leftarrow \beta_2 v + (1 - \beta_2)\,g^2, & \hat v &= v \,/\, (1 - \beta_2^t)
# \end{aligned}
# $$
#
# The step then changes the weight.
#
# $$w \leftarrow w - \eta \lambda w - \eta\,\frac{\hat m}{\sqrt{\hat v} + \varepsilon}$$
#
# Here $\eta$ is the **learning rate**, and $\varepsilon = 10^{-8}$ prevents a division by 0. The
# term $\eta \lambda w$ is **weight decay**: it pulls each weight towards 0, with $\lambda = 0.01$
# by default. AdamW applies it to the weight, outside the division (Loshchilov & Hutter 2019). Adam
# with L2 adds $\lambda w$ to the gradient, so it is divided by $\sqrt{\hat v}$ too. Then weights
# with large gradients hardly decay, and those with gradients far below $\lambda w$ soon are 0.


# %% The optimizer
@lab.exercise(
    level=2,
    hints=(
        "Work in place: mul_, add_, addcmul_, copy_. First the decay, with the old weight.",
        "Then both means; t counts from 1, and each mean is divided by its 1 − βᵗ.",
        "ε is added to the root of v̂, outside it; the step is lr times m̂ over that sum.",
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
    """Take step t = 1, 2, … of AdamW; change `weight`, `m` and `v` in place, but not `gradient`."""
    weight.mul_(1 - lr * decay)
    m.mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
    v.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    m_hat = m / (1 - betas[0] ** t)
    v_hat = v / (1 - betas[1] ** t)
    weight.sub_(lr * m_hat / (v_hat.sqrt() + eps))


AdamW = optimizer_from(adamw_step)
BETAS = (0.9, 0.98)


@lab.experiment
def own_adamw_equals_torch(run: Run):
    """Over 1,000 steps our AdamW and PyTorch's take the same path; Adam with L2 takes another one.

    Predict: η = 0.01. How far does a weight move in the first step if its gradient is 0.0001?
    """
    first = check_path(run, AdamW)
    return (
        f"Without decay, AdamW's first step is {first:.5f}, even for a gradient of 0.0001. It is η "
        "for any gradient well above ε: m̂ = g and √v̂ = |g|. So η has the unit of the weights."
    )


# %% [markdown]
# ## 7. The learning-rate schedule
# The rate usually begins with a **warm-up**: it rises from nearly 0 to its peak in $W$ steps. Why
# this helps is disputed. One explanation is that $\hat v$ rests on few gradients at first. But
# plain gradient descent can need a warm-up, too: see LLM05b, section 3. Later the rate **decays**,
# because smaller steps average out the noise of small batches. Often it follows a cosine
# (Loshchilov & Hutter 2017) to a floor $f$ of a tenth (Brown et al. 2020, app. B). In this section
# $t$ counts from 0: step $t$ of $S$ steps has this share of the peak. Section 8 draws the curve.
#
# $$
# \text{lr\_at}(t) = \begin{cases} \dfrac{t + 1}{W} & t < W \\
# f + (1 - f) \cdot \dfrac{1 + \cos(\pi p)}{2} & t \ge W \end{cases}
# \qquad p = \min\left(1, \frac{t + 1 - W}{S + 1 - W}\right)
# $$
#
# The first step has a rate above 0. The last step, $S - 1$, is still a little above the floor, and
# from step $S$ on the rate stays there. $t$ counts *steps of the optimizer*: if each of $k$
# micro-batches moved the rate, it would be at the floor after $S/k$.


# %% The schedule
@lab.exercise(
    level=1,
    hints=(
        "There are two cases: in the warm-up and after it. What is `step` in the very first one?",
        "Up: (step + 1) / warmup. Down: p = min(1, (step + 1 − warmup) / (steps + 1 − warmup)).",
        "With this p the cosine is floor + (1 − floor) · (1 + cos(π p)) / 2.",
    ),
)
def lr_at(step: int, steps: int, warmup: int, floor: float = 0.1) -> float:
    """Return a step's share of the peak: a line up to 1, a cosine down to `floor`, then `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    p = min(1.0, (step + 1 - warmup) / (steps + 1 - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * p)) / 2


# %% [markdown]
# ## 8. The training step
# Now the five lines become a **training step** with LLM02's **Accelerate**. Call
# `accelerator.backward`, not `loss.backward`: it scales float16's loss, see LLM08+. Clip with
# `accelerator.clip_grad_norm_`: in this lab it undoes that scaling and calls your `clip_gradients`.
# `prepare` wraps the model, so that several processes average their gradients.
#
# An optimizer has a list of groups of parameters, `optimizer.param_groups`. Each group is a dict. A
# step begins by writing the rate into `group["lr"]`. `train` in `training.py` gets your functions
# in a record, `Loop`. Simplified, it does this.
#
# ```python
# loader = DataLoader(rows, 32, shuffle=True, collate_fn=loop.collate)
# model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
# for step, (window, labels) in enumerate(loop.windows(loader, 1)):
#     lr = 0.005 * loop.lr_at(step, steps, 20)
#     loss = loop.step(model, optimizer, window, labels, lr, 1.0, accelerator)
# ```
#
# $N$ processes together have $n$ labels in a window, and process $i$ has the sum of losses $s_i$.
# To make the mean of their gradients right, `train` passes $n/N$, a `float`, as `labels`:
# $\frac1N \sum_i \frac{s_i}{n/N} = \frac1n \sum_i s_i$. `train` also saves checkpoints.


# %% The step
@lab.exercise(
    level=2,
    hints=(
        'The order: group["lr"] = lr for each group of optimizer.param_groups, the gradients of '
        "all batches, clip, optimizer.step(), optimizer.zero_grad().",
        "Each batch's loss is label_sum ÷ labels, where `labels` are those of the entire window.",
        "Add up loss.detach(): the undetached sum would store every batch's graph.",
    ),
)
def training_step(
    model: Any,
    optimizer: Any,
    window: Iterable[Batch],
    labels: float,
    lr: float,
    clip: float,
    accelerator: Any,
) -> Tensor:
    """Train on micro-batches from an iterator; return the loss, without a graph (nats per label).

    Divide by `labels`: those of the entire window, or with N processes those of all of them ÷ N.
    `clip` is the largest norm of the gradient.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    total = torch.zeros(())
    for batch in window:
        loss = label_sum(model, batch) / labels
        accelerator.backward(loss)
        total = total.to(loss.device) + loss.detach()
    accelerator.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    return total


LOOP = Loop(
    collate=partial(collate, pad=PAD),
    clip=clip_gradients,
    windows=windows,
    step=training_step,
    lr_at=lr_at,
    optimizer=partial(AdamW, betas=BETAS),
)
PARTS = Parts(encode, collate, label_sum, label_count, LOOP)  # all that `fit` needs


# %% The exam
@lab.experiment
def the_loop_teaches_the_tasks(run: Run):
    """A small Llama gets most held-out requests right; its Reverse beats a random order of words.

    At `tiny` it has 86,000 parameters, and two seeds are trained. A response is right if it has
    exactly the right words and then `<|end|>`. More than half of the 200 requests want one word.
    The task *Name the last* also teaches the first word of a reversed list. So compare Reverse with
    a model that knows this word and guesses the order of the others.

    Predict: before the training it solves none. Which tasks stay hard, and for which lists?
    """
    _, held_out = word_tasks.split(run.seed, 4000)
    untrained = build(run, run.seed).to(run.device)
    before = exam(run, untrained, held_out).right
    run.check("untrained: share of right responses", before, at_most=0.1, because="random weights")
    seeds = run.seeds(run.pick(tiny=2, small=3, full=3))
    fits = {seed: fit(run, PARTS, seed) for seed in seeds}
    reverse = word_tasks.check_exams(run, {seed: fitted.exam for seed, fitted in fits.items()})
    trained = fits[run.seed].trained
    early = fit_early(run, PARTS, run.seed)
    models = {"before": untrained, "after a fifth": early, "after all steps": trained.model}
    run.table("Six held-out requests", *word_tasks.responses_of(models, held_out[:6]))
    figures.show_training(run, trained.losses, trained.watched)
    figures.show_schedule(run, partial(lr_at, steps=len(trained.losses), warmup=Recipe.warmup))
    right = mean(fitted.right for fitted in fits.values())
    return (
        f"Right before training: {before:.0%}; after it: {right:.0%}, mean of {len(fits)} seeds. "
        f"{reverse} `--size small` has a larger model, more rows and steps. Does it learn Reverse?"
    )


# %% [markdown]
# ## 9. Mixed precision
# Numbers of 16 bits need half of the memory, and many processors multiply them faster. **bfloat16**
# or bf16 has the range of float32, but only 8 significant bits. There are two ways to use it.
#
# | | weights and optimizer | products and activations |
# |---|---|---|
# | fp32 | 32 bits | 32 bits |
# | **mixed precision** | 32 bits | 16 bits |
# | bf16 weights | 16 bits | 16 bits |
#
# PyTorch's `autocast` chooses the type of each operation: bf16 for matrix products, fp32 for the
# loss, and on a GPU for the softmax too. With `--precision bf16`, `prepare` wraps `forward` in it.
#
# ```python
# with torch.autocast("cpu", torch.bfloat16):
#     logits = model(batch["input_ids"]).logits    # mostly in bf16
# loss = F.cross_entropy(logits.float(), labels)   # in fp32
# ```
#
# Without the option a GPU with bf16 uses it, and a CPU if a matrix product of the model's size is
# at least 1.2 times as fast. A step also converts its weights, so it may still be slower: compare
# the times below. `autocast` also stores a 16-bit copy of each weight matrix that it multiplies,
# until the backward pass. So it saves memory only if the smaller activations save more: not with
# the 122 tokens at `tiny`, but with the 1,952 at `--size small`.
#
# Why not store the weights in 16 bits, too? The number of bf16 after 0.5 is 0.50390625, so
# $0.5 + 0.001$ rounds back to 0.5. In general the numbers between $2^e$ and $2^{e+1}$ are $2^{e-7}$
# apart, and an update $u$ changes nothing if $|u| < 2^{e-8}$, half of that. AdamW moves a weight by
# about $\eta$ if its gradients agree from step to step, and by less if their signs change. With
# steps of $10^{-4}$ a weight above $2^{-5} \approx 0.03$ stands still. Our recipe falls from
# $5 \cdot 10^{-3}$ to $5 \cdot 10^{-4}$: with steps of that size weights above 2 stand still at
# first, and weights above 0.25 at the end. The means round, too: at $\beta_2 = 0.999$ a $v$ in bf16
# never falls, because $0.999\,v$ rounds to $v$. Our 0.98 avoids this.


# %% Precision measured
@lab.experiment
def mixed_precision_is_measured(run: Run):
    """bf16 weights lose most updates of 10⁻⁵ and few of 5·10⁻⁴, our last rate; fp32 weights none.

    Steps are often smaller than the rate. LLM08+ trains with bf16 weights to the end.

    Predict: what share of a trained model's weights doesn't move if you add 10⁻⁵ in bf16?
    """
    steps = precision.measure_all(run)
    figures.show_precisions(run, steps)
    precision.check_memory(run, steps)
    lost = precision.check_updates(run, fit(run, PARTS, run.seed).trained.model)
    shares = ", ".join(f"{share:.1%} of those of {size}" for size, share in lost.items())
    times = steps[1].seconds / steps[0].seconds
    return f"Updates lost in bf16: {shares}. Time of a mixed step ÷ one in fp32: {times:.2f}."


# %% [markdown]
# ## 10. A real model, and your data
# The same loop trains SmolLM2: 135 M weights, read from a 4-bit file and stored as float32. To save
# time we train only the last four of its thirty blocks, with PyTorch's fused AdamW and its own
# betas, for a few steps on our tasks. `train_last_blocks` sets `requires_grad` to False everywhere
# but there. `train` gets the same `Loop`, only with another collator and optimizer: see `_train` in
# `own_data.py`. With `--dataset FILE` the rows are yours.
#
# `invoke lab LLM08 --only a_real_model_learns -- --dataset work/faq.csv`
#
# It sets up to 32 rows aside for the test and trains on all others once. It counts rows that are
# cut, and shows responses before and after. Few tokens of our rows are labels: responses are short,
# and SmolLM2's template adds a system turn of 21 tokens to each row without one. The model that
# your rows trained is saved with a card. `invoke chat` and transformers' `from_pretrained` open it.


# %% SmolLM2
@lab.experiment
def a_real_model_learns(run: Run):
    """A few steps of the same loop lower a real model's loss on rows that it wasn't trained on."""
    return own_data.train_smollm2(run, PARTS)


# %% [markdown]
# ## What to remember
# - Labels decide what a model learns: the assistant's words and the end, and nothing else.
# - A loss is a sum divided by its labels, over all micro-batches and processes.
# - In a pack, a token may see only its own document. With RoPE, positions needn't restart.
# - Matrix products may have 16 bits. A weight in bf16 loses each update below a 512th of itself, so
#   a small learning rate needs weights of 32 bits, or another way of rounding.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Return sentences with this run's numbers."""
    leaked = results.value("a_random_split_leaks", LEAKED)
    right = results.shown("the_loop_teaches_the_tasks", "trained: share of right responses")
    error = results.value("accumulated_equals_the_full_batch", "mean of means: relative error")
    lost = results.value("mixed_precision_is_measured", precision.LOST)
    at_end = results.value("mixed_precision_is_measured", precision.LOST_AT_END)
    return (
        f"- A random split puts {leaked:.0%} of the test rows into the training rows. With rows "
        f"sorted by length, the mean of means has an error of {error:.0%} of the gradient's norm.\n"
        f"- Share of right responses to held-out requests: {right}.\n"
        f"- Of updates of 10⁻⁵ bf16 weights lose {lost:.0%}, of updates of 5·10⁻⁴ {at_end:.1%}."
    )


# %% [markdown]
# **Read on**: Loshchilov & Hutter 2019, *Decoupled weight decay regularization* · Micikevicius et
# al. 2018, *Mixed precision training* · Krell et al. 2021, *Efficient sequence packing without
# cross-contamination* · Zhou et al. 2023, *LIMA*. **Deeper**: LLM08+ shows what seven mistakes do
# to a training, resumes one, and trains with two processes. Next: LLM09, custom architectures.

# %%
if __name__ == "__main__":
    lab.main()
