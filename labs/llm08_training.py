# %% [markdown]
# # LLM08 · Dataset processing and training
# From rows in a file to a trained model: labels, batches, the loop, and each mistake's price.
#
# **You will be able to** turn instruction data in any of its usual shapes into tokens and labels
# that you have proved right; write AdamW, the learning rate's curve and gradient accumulation, and
# show that yours equal the library's; pack rows without leaks; train under Accelerate, on one
# process or several, interrupted or not, and get the same loss; and recognise eight mistakes by
# what they do to it. **Builds on** gradients (LLM02), tokens and padding (LLM04), attention masks
# (LLM06). **Takes** an hour to read, two minutes to run (`tiny`, 2 cores).

# %% Imports
import hashlib
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any

from labs.kit import Card, Checkpoints, Lab, Run, assets, batches, stop_on_nan, tolerance
from labs.kit import dataset as reading
from labs.kit.console import Output
from labs.kit.options import Settings
from labs.kit.ranks import group, is_main, rank

import datasets
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

datasets.disable_progress_bars()

lab = Lab("LLM08")
lab.argument("--dataset", help="a JSONL, CSV or Parquet file, a folder of them, or a hub id")
lab.argument("--bad-rows", choices=("stop", "skip"), default="stop", help="default: stop")
lab.argument("--model", help="a chat model instead of SmolLM2: a folder, or a hub id")
DOUBLE, IGNORED = torch.float64, -100  # the label that cross_entropy leaves out

# %% [markdown]
# ## 1. Data whose answers can be checked
# An **instruction set** is a list of requests with the answers that are wanted. Ours is made by
# code, so that every answer can be checked: five tasks on lists of one to six animals out of
# twelve. *Reverse the words: ant cow* wants *cow ant*. Rows come in the shape that Stanford's
# Alpaca (Taori et al. 2023) made common: `instruction`, `input`, `output`.
#
# What is tested must not have been trained on. Split rows at random, and it has been: short lists
# are drawn again and again, and stand on both sides. So split by **combination**. Number tasks and
# words from 0, and of each list hold out the one task for which task + 1·word₁ + 2·word₂ + … leaves
# no remainder when divided by 5. Each list was then seen with four tasks, each task with four lists
# of five, and no held-out pair of the two ever: who answers right there has put it together.


# %% 1. The set
WORDS = "ant bee cat cow dog elk fox hen owl pig rat yak".split()
NUMBERS = "zero one two three four five six".split()
TASKS: dict[str, Callable[[list[str]], list[str]]] = {
    "Repeat the words": lambda words: words,
    "Reverse the words": lambda words: words[::-1],
    "Name the first": lambda words: words[:1],
    "Name the last": lambda words: words[-1:],
    "Count the words": lambda words: [NUMBERS[len(words)]],
}
Example = dict[str, str]


def is_held_out(task: str, words: list[str]) -> bool:
    places = sum(i * WORDS.index(word) for i, word in enumerate(words, 1))
    return (list(TASKS).index(task) + places) % len(TASKS) == 0


def examples(seed: int, held_out: bool | None) -> Iterator[Example]:
    """Rows without end, drawn at random; `held_out` None: of both kinds."""
    dice = random.Random(seed)
    while True:
        task, words = dice.choice(list(TASKS)), dice.sample(WORDS, dice.randint(1, 6))
        if held_out in (None, is_held_out(task, words)):
            yield {
                "instruction": task,
                "input": " ".join(words),
                "output": " ".join(TASKS[task](words)),
            }


@cache
def split(seed: int, count: int) -> tuple[list[Example], list[Example]]:
    """`count` rows to train on, and 200 held out."""
    return list(islice(examples(seed, False), count)), list(islice(examples(seed, True), 200))


def pairs(rows: Iterable[Example]) -> set[tuple[str, str]]:
    return {(row["instruction"], row["input"]) for row in rows}


@lab.experiment
def nothing_held_out_was_seen(run: Run):
    """Split by combination no tested pair was trained on, and all its parts were; at random, not so.

    Predict: 4,200 rows are split at random. Which share of the 200 tested is among the others too?
    """
    train, test = split(run.seed, 4000)
    run.check("held-out pairs that were trained on", len(pairs(train) & pairs(test)), equals=0)
    parts = [{word for pair in pairs(rows) for word in " ".join(pair).split()} for rows in split(run.seed, 4000)]
    run.check("words and tasks of theirs that weren't", len(parts[1] - parts[0]), equals=0)
    rows = list(islice(examples(run.seed, None), 4200))
    leaked = mean(one in pairs(rows[200:]) for one in pairs(rows[:200]))
    because = "lists of one word are a sixth of all rows, and make 60 pairs"
    run.check("split at random: share that was", leaked, at_least=0.1, because=because)
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
# The first can say all that the others can, so `labs/kit/dataset.py` turns every row into messages,
# one row at a time, whatever the size of the file. A row that can't be turned is told with its file
# and line: in a million rows some are broken, and a reader that drops them in silence, or stops
# with "failed to parse", costs a day. `--bad-rows` says whether to stop or to skip and count.
#
# The library **datasets** takes over from there. A *Dataset* is a table on disk (Arrow) that is
# mapped into memory: any row can be had, of more than fits. `map` applies a function to each row
# and keeps the result in a file named by a hash of the data, the function and all that the function
# refers to. Ask again, and nothing is computed. An *IterableDataset* is a **stream**: rows pass
# once, `map` and `filter` work on what passes. It can't be shuffled as a whole, only through a
# buffer of b rows: each row that is drawn makes room for the next that is read. So what is drawn at
# place p (from 0) was among the first p + b rows of the file.


# %% 2. Files
@lab.experiment
def a_bad_row_is_told_with_its_place(run: Run):
    """Files of three kinds and shapes give the same conversations; each bad row is told by place."""
    shown, wanted = list(islice(examples(run.seed, None), 4)), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        a, b, c, d = shown
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        lines = [json.dumps(a), '{"instruction": "Count', json.dumps({"instruction": "Count"})]
        lines += [json.dumps({"messages": turns}), json.dumps({"messages": turns[:1]})]
        (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
        table = "prompt,completion\n\"two\nlines\",yes\nRepeat,the words,twice\n"
        (folder / "b.csv").write_text(table, encoding="utf-8")
        datasets.Dataset.from_list([b, {**c, "output": None}, d]).to_parquet(folder / "c.parquet")
        read = reading.Conversations(name, skip=True)
        found = [one["messages"][-1]["content"] for one in read]
        places = [told.removeprefix(f"{folder}/").split(":")[0] for told in read.told]
        run.table("Told", ["row", "why"], [told.removeprefix(f"{folder}/").split(": ", 1) for told in read.told])
        try:
            stopped = str(list(reading.Conversations(name)))
        except Card as card:
            stopped = card.why
    wanted = [a["output"], "Hello", "yes", b["output"], d["output"]]
    run.check("the good rows' answers, in their order", found == wanted, equals=True)
    wanted = [f"a.jsonl, line {n}" for n in (2, 3, 5)] + ["b.csv, line 4", "c.parquet, row 2"]
    run.check("the bad rows' places", places, equals=wanted)
    run.check("and where it would have stopped", "a.jsonl, line 2" in stopped, equals=True)


# %% 3. Tables and streams
@lab.experiment
def a_table_is_cached_and_a_stream_is_lazy(run: Run):
    """A map is computed once for each function; a stream reads what is drawn, and shuffles nearby.

    Predict: rows sorted by task, 200 of each; a shuffle buffer of 100. How many of the five tasks
    are among the first 100 rows drawn?
    """

    def length(row: Example, unit: int = 1) -> dict[str, int]:
        return {"length": len(row["output"]) // unit}

    with tempfile.TemporaryDirectory() as folder:
        rows = sorted(islice(examples(run.seed, None), 1000), key=lambda row: row["instruction"])
        datasets.Dataset.from_list(rows).to_json(f"{folder}/rows.jsonl")
        where = {"data_files": f"{folder}/rows.jsonl", "cache_dir": folder, "split": "train"}
        table, files = datasets.load_dataset("json", **where), []
        for how in (length, length, partial(length, unit=2)):
            table.map(how)
            files.append(len(list(Path(folder).rglob("cache-*.arrow"))))
    run.check("results kept after a map, the same map, another", files, equals=[1, 1, 2])
    read = []

    def source() -> Iterator[dict[str, int]]:
        for number in range(1000):
            read.append(number)
            yield {"number": number}

    stream = datasets.IterableDataset.from_generator(source)
    list(stream.map(lambda row: {"twice": 2 * row["number"]}).take(10))
    run.check("rows of a stream read for ten", len(read), at_most=11, because="one ahead, at most")
    drawn = [row["number"] for row in stream.shuffle(seed=run.seed, buffer_size=100)]
    ahead = max(number - place for place, number in enumerate(drawn))
    run.check("drawn ahead of their turn, by rows", ahead, at_most=99, because="the buffer holds 100")
    late, because = max(place - n for place, n in enumerate(drawn)), "the partner: it is shuffled"
    run.check("drawn behind their turn, by rows", late, at_least=100, because=because)
    tasks = len({rows[number]["instruction"] for number in drawn[:100]})
    run.measure("tasks among the first 100 drawn", tasks, expect_at_most=2)
    return f"Of five tasks the first 100 rows hold {tasks}: shuffle the file itself, once, before."


# %% [markdown]
# ## 3. Tokens and labels
# A model reads one row of tokens, so the turns are written one after the other with **special
# tokens** between them, by the model's **chat template**. Ours is short (for SmolLM2's, LLM01):
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
# new line. A request may hold the *word* assistant, and later turns have answers of their own.


# %% 4. Labels
TEMPLATE = """{% for one in messages %}{{ '<|' + one.role + '|>' }}\
{% if one.role == 'assistant' %}{% generation %}{{ one.content + '<|end|>' }}{% endgeneration %}\
{% else %}{{ one.content + '<|end|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


@cache
def tokenizer() -> Any:
    """A token for each word of the set, and five special ones."""
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    words = dict.fromkeys([*special, *" ".join(TASKS).split(), *WORDS, *NUMBERS])
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    kinds = {"pad_token": special[0], "eos_token": special[1], "additional_special_tokens": special[2:]}
    return PreTrainedTokenizerFast(tokenizer_object=plain, chat_template=TEMPLATE, **kinds)


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


def encode(tokenizer: Any, messages: list[reading.Message]) -> Row:
    """Messages -> `input_ids` and `labels`, lists of the same length.

    Raises:
        BadRow: where a text holds a special token: it could open a turn of its own (LLM04).
    """
    special = tokenizer.all_special_tokens
    for token in (one for turn in messages for one in special if one in turn["content"]):
        raise reading.BadRow(f"its text holds the special token {token}")
    apply = partial(tokenizer.apply_chat_template, tokenize=False)
    whole, asking = apply(messages), apply(messages, add_generation_prompt=True)
    header = tokenizer(asking.removeprefix(whole), add_special_tokens=False).input_ids
    ids = tokenizer(whole, add_special_tokens=False).input_ids
    return {"input_ids": ids, "labels": supervise(ids, header, tokenizer.eos_token_id)}


def encoded(rows: Iterable[Example]) -> list[Row]:
    return [encode(tokenizer(), reading.messages_of(row)) for row in rows]


@lab.experiment
def labels_are_the_assistants_words(run: Run):
    """Our labels are the template's own marks, token by token, and the real model's answers."""
    dice, made = random.Random(run.seed), examples(run.seed, None)
    system, wrong, naive = {"role": "system", "content": "Count the words"}, 0, 0
    for _ in range(200):
        talk = [system] * dice.randint(0, 1)
        for row in islice(made, dice.randint(1, 3)):
            talk += reading.messages_of(row)
        how = {"return_assistant_tokens_mask": True, "return_dict": True}
        theirs = tokenizer().apply_chat_template(talk, **how)
        labels = encode(tokenizer(), talk)["labels"]
        marks = [one != IGNORED for one in labels]
        wrong += marks != [bool(one) for one in theirs["assistant_masks"]]
        first = marks.index(True)  # "all that follows the first header"
        naive += marks != [place >= first for place in range(len(marks))]
    run.check("of 200 conversations, labelled otherwise than by the template", wrong, equals=0)
    because = "two of three have a second request, which it would teach the model to write"
    run.check("by labelling all behind the first header", naive, at_least=60, because=because)
    real = AutoTokenizer.from_pretrained(assets.pretrained(run))
    talk = reading.messages_of({"prompt": "Which\nassistant\nare you?", "completion": "SmolLM2."})
    talk += reading.messages_of({"prompt": "Sure?", "completion": "Yes, the assistant\n2."})
    row = encode(real, talk)
    said = [f"{one['content']}{real.eos_token}" for one in talk if one["role"] == "assistant"]
    found = real.decode([one for one in row["labels"] if one != IGNORED])
    run.check("the real model's labels, as text", found, equals="".join(said))
    ids = encoded(islice(made, 1))[0]
    columns = [tokenizer().convert_ids_to_tokens(ids["input_ids"]), ids["input_ids"], ids["labels"]]
    run.table("A row", ["token", "number", "label"], zip(*columns, strict=True))


# %% [markdown]
# ## 4. Batches
# Rows of unlike length become a rectangle (B rows, T places) by **padding** on the right. An
# attention mask of 0 keeps the padding from being looked at, and its labels must be −100. Many
# tokenizers have no padding token, and people use the end token for it, which does no harm, until
# somebody finds the padding *by value*: `labels[input_ids == pad] = -100` drops the answers' own
# end tokens with it. We shall train that too.


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


def build(run: Run, seed: int, dropout: float = 0.0) -> Any:
    """A Llama of about a hundred thousand parameters (`tiny`), for `tokenizer`'s words."""
    torch.manual_seed(seed)
    width, layers = run.pick(tiny=(64, 2), small=(128, 4), full=(256, 6))
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        initializer_range=0.05,  # at 0.02, so small a model stands still for long
        tie_word_embeddings=False,
        attention_dropout=dropout,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
        bos_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config)


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
    model, rows = build(run, run.seed), encoded(split(run.seed, 4000)[0][:64])
    words = tokenizer()
    plain, shared, lost = (
        how(rows, pad)
        for how, pad in ((collate, words.pad_token_id), (collate, words.eos_token_id), (collate_by_value, words.eos_token_id))
    )
    change = (label_sum(model, plain) - label_sum(model, shared)).abs()
    run.check("loss, padded with the end token or another", change, at_most=0, because="it is masked")
    run.check("labels lost by value, for each row", (label_count(plain) - label_count(lost)) / len(rows), equals=1.0)
    alone = torch.stack([label_sum(model, collate([row], words.pad_token_id)) for row in rows]).sum()
    off = (alone / label_sum(model, plain) - 1).abs()
    run.check("loss of rows one by one, over that of the batch, less 1", off, at_most=tolerance(torch.float32), because="rounding of float32")


# %% [markdown]
# ## 5. AdamW
# Let g be a weight's gradient at step t = 1, 2, …. Adam (Kingma & Ba 2015) keeps two running means,
# of g and of g²:
#
# `m ← β₁ m + (1 − β₁) g`, `v ← β₂ v + (1 − β₂) g²`.
#
# Both begin at 0, and so are too small at first: after t steps on a constant g, m = (1 − β₁ᵗ) g.
# Divided by that factor they are right, m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ), and the step is
#
# `w ← w − η λ w − η m̂ / (√v̂ + ε)`.
#
# The term η λ w is **weight decay**: it pulls each weight towards 0. Its place is what the W in
# AdamW stands for (Loshchilov & Hutter 2019): added to the gradient instead, it would be divided by
# √v̂ like the rest, and weights with large gradients would hardly decay. In the first step m̂ = g and
# √v̂ = |g|: every weight moves by η, whatever its gradient. So η has the unit of the weights, and
# rates carry over between models better than those of plain gradient descent do.


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
    """AdamW as an optimizer of PyTorch, so that Accelerate, and checkpoints, know what to do."""

    def __init__(self, weights: Any, lr: float, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01):
        super().__init__(weights, {"lr": lr, "betas": betas, "eps": eps, "decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            how = {name: group[name] for name in ("lr", "betas", "eps", "decay")}
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["t"], (state["m"], state["v"]) = 0, torch.zeros(2, *weight.shape).to(weight)
                state["t"] += 1
                adamw_step(weight, weight.grad, state["m"], state["v"], state["t"], **how)


@lab.experiment
def own_adamw_equals_torch(run: Run):
    """Over 1,000 steps our AdamW and PyTorch's take the same path, and Adam with L2 another.

    Predict: how far does a weight of 1 move in the first step, if its gradient is 10⁻⁶?
    """
    gradients = torch.randn(1000, 50, dtype=DOUBLE) * torch.logspace(-4, 4, 50, dtype=DOUBLE)
    how = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-8}

    def path(make: Any, dtype: torch.dtype = DOUBLE, **more: Any) -> Tensor:
        weight = nn.Parameter(torch.ones(50, dtype=dtype))
        optimizer, places = make([weight], **how, **more), []
        for step, gradient in enumerate(gradients.to(dtype)):
            optimizer.param_groups[0]["lr"] = how["lr"] * (1 - step / 1000)
            weight.grad = gradient.clone()
            optimizer.step()
            places.append(weight.detach().clone())
        return torch.stack(places)  # (1000, 50)

    ours, theirs = path(AdamW, weight_decay=0.1), path(torch.optim.AdamW, weight_decay=0.1)
    run.agree("float64: ours less PyTorch's, all steps", ours - theirs, tolerance(DOUBLE))
    single = path(AdamW, torch.float32, weight_decay=0.1)
    single -= path(partial(torch.optim.AdamW, fused=True), torch.float32, weight_decay=0.1)
    because = "1,000 roundings of weights near 1"
    run.agree("float32: ours less its fused one, all steps", single, 1e-5, because)
    other = path(torch.optim.Adam, weight_decay=0.1)
    apart = (other - theirs)[-1].abs().max()
    because = "AdamW's decay alone moves a weight by about 40 %"
    run.check("Adam with L2 less AdamW, at the end", apart, at_least=0.05, because=because)
    first = path(AdamW, weight_decay=0.0)[0]
    moved = ((first - 1).abs() / how["lr"] - 1).abs().max()
    because = "ε over the smallest |g|"
    bound = 1.01 * how["eps"] / gradients[0].abs().min().item()
    run.check("first step over η, less 1", moved, at_most=bound, because=because)
    return f"Gradients from {gradients[0].abs().min():.0e} to {gradients[0].abs().max():.0e}: first steps of 0.01 all."


# %% [markdown]
# ## 6. The learning rate's curve
# Adam's first steps are all of full size, and v̂ knows nothing yet: so the rate is **warmed up**,
# from nearly 0 to η in w steps. Later steps should average out the noise of small batches: the rate
# **decays**, most often along a cosine (Loshchilov & Hutter 2017), often down to a tenth (GPT-3:
# Brown et al. 2020, app. B). With t = 0, 1, …, S − 1, the share of η is
#
# `(t + 1) / w` for t < w, then `f + (1 − f) · ½ (1 + cos(π p))` with `p = (t + 1 − w) / (S + 1 − w)`
#
# and the floor f. (t + 1: the first step isn't wasted on a rate of 0, nor, at f = 0, the last.)
#
# t counts *steps of the optimizer*. A loop that accumulates k batches and moves the schedule with
# each batch is through after S/k steps. And a scheduler that Accelerate has prepared moves N times
# for each step on N processes, as it assumes that its length counts batches of one process. We set
# the rate ourselves.


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
    steps, warmup, of = 300, 30, 4
    ours = torch.tensor([rate(t, steps, warmup, floor=0) for t in range(steps)], dtype=DOUBLE)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    library, theirs = get_cosine_schedule_with_warmup(optimizer, warmup, steps + 1), []
    for _ in range(steps):
        optimizer.step()
        library.step()
        theirs.append(library.get_last_lr()[0])
    run.agree("ours less the library's, one step on", ours - torch.tensor(theirs, dtype=DOUBLE))
    run.check("the largest share, and the first", [ours.max(), ours[0] * warmup], at_least=1, at_most=1)
    right = [rate(t, steps, warmup) for t in range(steps)]
    wrong = [rate(of * t, steps, warmup) for t in range(steps)]
    idle = mean(one == 0.1 for one in wrong)
    because = "(k − 1)/k of the steps come after it has ended"
    run.check("share of steps at the floor, by batches", idle, at_least=0.74, because=because)
    run.check("by steps", mean(one == 0.1 for one in right), at_most=0, because="the partner")
    fig, ax = plt.subplots()
    for name, curve, style in (("counted in steps", right, "-"), ("counted in batches, 4 to a step", wrong, "--")):
        ax.plot(curve, style, label=f"{name}: mean {mean(curve):.2f}")
    ax.axvline(warmup - 1, color="grey", ls=":")
    ax.text(warmup + 3, 0.03, "end of warm-up", color="grey")
    ax.set(xlabel="step of the optimizer", title="Learning rate (share of its peak)", ylim=(0, 1.05))
    ax.legend()
    run.figure(fig, "rate", "Warm-up and cosine; and the same curve moved by each batch.")
    return f"Counted in batches the mean rate is {mean(wrong):.2f} of the peak, not {mean(right):.2f}."


# %% [markdown]
# ## 7. Accumulation and clipping
# A batch that doesn't fit is taken in parts, **micro-batches**, whose gradients add up before the
# optimizer steps. Micro-batch i has nᵢ labels, whose losses ℓ sum to Sᵢ. What the whole batch would
# give is the mean over all labels,
#
# `L = (S₁ + … + S_k) / (n₁ + … + n_k)`, and not `(S₁/n₁ + … + S_k/n_k) / k`,
#
# the mean of means, which every tutorial's `loss / k` computes. Take two micro-batches, one of 1
# label and one of 9: by L each label has the weight 1/10, by the other 1/2 and 1/18. Equal counts
# hide it. transformers had it so until 2024 (version 4.46; found by Han, of Unsloth). So a
# **window** of k micro-batches is looked at as a whole before its first backward pass. The last
# window of an epoch may be short. L doesn't care; `loss / k` makes its step too small.
#
# **Clipping** (Pascanu et al. 2013) shortens a gradient whose norm, over all parameters together,
# is above c, to c. Its direction stays. That is done once, when the window is complete; done to
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


def gradient(model: nn.Module) -> Tensor:
    """The gradients of all parameters in one long vector; they are gone from the model then."""
    found = torch.cat([one.grad.flatten() for one in model.parameters()])
    model.zero_grad()
    return found.clone()


@lab.experiment
def accumulated_equals_the_whole_batch(run: Run):
    """Divided by all its labels a window gives the whole batch's gradient; a mean of means doesn't.

    Predict: 32 rows, 4 to a micro-batch. How far off is the mean of means, relative to the norm?
    """
    model, rows = build(run, run.seed), encoded(split(run.seed, 4000)[0][:32])
    make = partial(collate, pad=tokenizer().pad_token_id)
    parts = [make(rows[i : i + 4]) for i in range(0, 32, 4)]
    whole = make(rows)
    (label_sum(model, whole) / label_count(whole)).backward()
    right, sums, means, clipped = gradient(model), [], [], []
    ((window, count),) = windows(parts, len(parts))
    for batch in window:
        label_sum(model, batch).backward()
        sums.append(gradient(model))
        means.append(sums[-1] / label_count(batch))
        scaled = sums[-1] / count
        clipped.append(scaled * min(1.0, 0.1 / scaled.norm().item()))

    def off(found: Tensor) -> float:
        return ((found - right).norm() / right.norm()).item()

    because = "rounding of float32"
    run.check("sum over all labels: off by", off(sum(sums) / count), at_most=1e-5, because=because)
    wrong, because = off(sum(means) / len(means)), "labels per row differ by a factor of up to 3.5"
    run.check("mean of means: off by", wrong, at_least=0.05, because=because)
    last = [(len(some), n) for some, n in windows(parts[:5], 2)][-1]
    run.check("the last of 5 batches by 2: batches, labels", last == (1, label_count(parts[4])), equals=True)
    small = (means[4] / 2).norm() / means[4].norm()
    run.check("its step with loss / k, over what it should be", small, at_least=0.5, at_most=0.5, because="k = 2, one is there")
    for weight, part in zip(model.parameters(), right.split([p.numel() for p in model.parameters()]), strict=True):
        weight.grad = part.view_as(weight).clone()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    found = gradient(model)
    run.check("clipped to 0.1: the norm", found.norm(), at_least=0.0999, at_most=0.1001, because="c, and 1e-6 by torch")
    cosine = partial(F.cosine_similarity, dim=0)
    turned = [1 - cosine(one.double(), right.double()).item() for one in (found, sum(clipped))]
    run.check("1 − cosine to the gradient, clipped whole", turned[0], at_most=1e-6, because="rounding")
    run.check("clipped in parts", turned[1], at_least=1e-5, because="the partner: it has turned")
    return f"The mean of means is off by {wrong:.0%} of the gradient's norm."


# %% [markdown]
# ## 8. The loop
# Now the parts come together, under **Accelerate**: `prepare` places model and data, sets the
# precision, shares batches among processes, and makes their gradients one; `backward` and
# `clip_grad_norm_` know what loss scaling is in force. A loss divided by the window's labels is
# summed over processes by hand, as Accelerate averages: it is multiplied by N, the number of
# processes. `no_sync` puts off the exchange of gradients to a window's last micro-batch.
#
# Three lines belong to long runs. `Checkpoints` writes the whole state every so often, and
# `resume` finds it again after a kill (§11). `stop_on_nan` ends the run at the first loss that is
# no number, tells the step and keeps the batch: for a NaN never goes away by itself, and an hour
# later nobody knows which row it was. `run.log` writes curves for TensorBoard (`--tensorboard`).


# %% 9. Training
@dataclass(frozen=True)
class Recipe:
    """How to train; the last two are mistakes that a loop may have."""

    steps: int
    lr: float = 5e-3
    warmup: int = 20  # steps
    batch: int = 16  # rows of a micro-batch, of all processes together
    accumulate: int = 2  # micro-batches of a step
    clip: float = 1.0
    seed: int = 0
    mean_of_means: bool = False
    rate_by_batch: bool = False


@dataclass(frozen=True)
class Trained:
    model: Any
    losses: list[float]  # nats per label, for each step
    watched: list[tuple[int, float]]  # after how many steps, and what `watch` said


Collate = Callable[[list[Row]], Batch]
Watch = Callable[[Any], float]
EVERY = 25  # steps between two looks at what is watched


def train(
    run: Run,
    name: str,
    model: Any,
    rows: list[Row],
    how: Recipe,
    make: Collate,
    watch: Watch | None = None,
    optimizer: Any = AdamW,
    checkpoints: Any = None,
) -> Trained:
    """Train `model` on `rows`; what was interrupted goes on where it was."""
    accelerator, curve, watched = run.accelerator, [], []
    data = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    checkpoints = checkpoints or Checkpoints(run, name, depends_on={**asdict(how), "data": data})
    order = torch.Generator().manual_seed(how.seed)
    loader = DataLoader(
        rows,  # pyright: ignore[reportArgumentType]
        how.batch // accelerator.num_processes,
        shuffle=True,
        generator=order,
        collate_fn=make,
        drop_last=True,  # else the last batch is filled up with rows from the front
    )
    optimizer = optimizer(model.parameters(), how.lr)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    checkpoints.carry(curve=curve, watched=watched)
    done = checkpoints.resume()
    model.train()
    data = windows(batches(run, loader, done * how.accumulate), how.accumulate)
    for step, (window, count) in zip(run.progress(range(done, how.steps), name), data, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = how.lr * rate(step * (how.accumulate if how.rate_by_batch else 1), how.steps, how.warmup)
        loss = take_step(run, model, optimizer, window, count, how, step)
        curve.append(loss)
        run.log({f"{name}/loss": loss, f"{name}/lr": optimizer.param_groups[0]["lr"]}, step)
        if watch and (step + 1) % EVERY == 0:
            watched.append([step + 1, watch(model)])
        checkpoints.save_if_due(step + 1)
    checkpoints.save(how.steps)
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return Trained(model, curve, [tuple(one) for one in watched])


def take_step(run: Run, model: Any, optimizer: Any, window: list[Batch], count: int, how: Recipe, step: int) -> float:
    """One step of the optimizer on a window; its loss, in nats per label over all processes."""
    accelerator, total = run.accelerator, 0.0
    n, labels = accelerator.num_processes, torch.tensor(count, device=run.device)
    labels = accelerator.reduce(labels, "sum").item()  # of all processes' windows
    for i, batch in enumerate(window):
        waits = i + 1 < len(window)
        share = n / labels
        if how.mean_of_means:
            share = 1 / max(1, label_count(batch)) / len(window)
        with accelerator.no_sync(model) if waits else nullcontext():
            loss = label_sum(model, batch) * share
            accelerator.backward(loss)
        total = total + loss.detach()
    loss = stop_on_nan(run, total, step, window)
    accelerator.clip_grad_norm_(model.parameters(), how.clip)
    optimizer.step()
    optimizer.zero_grad()
    return loss


@torch.no_grad()
def answer_loss(run: Run, rows: list[Row]) -> Watch:
    """A judge: nats per label of the answers in `rows`, however the model was trained."""
    batch = {name: one.to(run.device) for name, one in collate(rows, tokenizer().pad_token_id).items()}

    @torch.no_grad()
    def judge(model: Any) -> float:
        was, _ = model.training, model.eval()
        loss = label_sum(model, batch).item() / label_count(batch)
        model.train(was)
        return loss

    return judge


# %% [markdown]
# The exam is what counts: answer the 200 held-out requests, greedily, and compare words. Two things
# are asked apart: are the answer's words *right*, and does the model then *stop* by saying
# `<|end|>`? Processes share the requests. Accelerate fills the last batch with rows from the front,
# so that all have as many; `gather_for_metrics` collects the answers and drops those again.


# %% 10. The exam
def ask(rows: list[Example], words: Any) -> Batch:
    """Requests padded on the left, where generation wants it, and the answers wanted (B, 7)."""
    talks = [reading.messages_of(row) for row in rows]
    asked = [words.apply_chat_template(one[:1], tokenize=False, add_generation_prompt=True) for one in talks]
    batch = words(asked, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
    answers = words([row["output"] for row in rows], add_special_tokens=False).input_ids
    wanted = torch.tensor([[*one, words.eos_token_id, *[IGNORED] * (6 - len(one))] for one in answers])
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "wanted": wanted}


@torch.no_grad()
def exam(run: Run, model: Any, rows: list[Example]) -> tuple[float, float]:
    """Shares of the rows that are answered with the right words, and in which the end is said."""
    words, found = tokenizer(), []
    loader = run.accelerator.prepare(DataLoader(rows, 100, collate_fn=partial(ask, words=words)))
    model.eval()
    for batch in loader:
        wanted, asked = batch.pop("wanted"), batch["input_ids"].shape[1]
        said = model.generate(**batch, max_new_tokens=8, do_sample=False, pad_token_id=words.pad_token_id)
        said = F.pad(said[:, asked:], (0, 7), value=words.pad_token_id)[:, :8]
        words_only = (wanted == IGNORED) | (wanted == words.eos_token_id)
        right = ((said[:, :7] == wanted) | words_only).all(1)
        stops = (said == words.eos_token_id).any(1)
        found.append(run.accelerator.gather_for_metrics(torch.stack([right, stops], 1)))
    return tuple(torch.cat(found).float().mean(0).tolist())


# %% [markdown]
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
# | bf16 weights | the weights themselves have 8 bits (§11) |


# %% 11. The arms
@dataclass(frozen=True)
class Arm:
    labels: Callable[[Row], Row] = lambda row: row
    collate: Callable[[list[Row], int], Batch] = collate
    pad: str = "<|pad|>"
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


ARMS = {
    "right": Arm(),
    "the prompt too": Arm(labels=all_labels),
    "padding too": Arm(collate=collate_all),
    "end = pad": Arm(collate=collate_by_value, pad="<|end|>"),
    "shifted twice": Arm(labels=shifted),
    "mean of means": Arm(changes=(("mean_of_means", True),)),
    "rate by batch": Arm(changes=(("rate_by_batch", True),)),
    "bf16 weights": Arm(dtype=torch.bfloat16),
}


@dataclass(frozen=True)
class Fit:
    trained: Trained
    right: float  # share of the held-out requests
    stops: float


def recipe(run: Run, seed: int) -> Recipe:
    steps, batch = run.pick(tiny=(250, 16), small=(1500, 32), full=(8000, 64))
    return Recipe(steps, batch=batch, seed=seed)


def rows_of(run: Run, seed: int) -> tuple[list[Row], list[Example]]:
    train, test = split(seed, run.pick(tiny=4000, small=40_000, full=200_000))
    return encoded(train), test


@cache
def fit(run: Run, name: str, seed: int) -> Fit:
    """An arm trained from scratch, and its exam."""
    arm, (rows, test) = ARMS[name], rows_of(run, seed)
    how = Recipe(**{**asdict(recipe(run, seed)), **dict(arm.changes)})
    pad = tokenizer().convert_tokens_to_ids(arm.pad)
    model, judge = build(run, seed).to(arm.dtype), answer_loss(run, encoded(test))
    data = [arm.labels(row) for row in rows]
    done = train(run, f"{name}, seed {seed}", model, data, how, partial(arm.collate, pad=pad), judge)
    return Fit(done, *exam(run, done.model, test))


def fits(run: Run, name: str) -> list[Fit]:
    return [fit(run, name, seed) for seed in run.seeds(3)]


@lab.experiment
def an_end_that_is_padding_is_never_said(run: Run):
    """With the end token as padding, found by value, a model answers right and never stops.

    Predict: its answers are as right as the other's? And in how many of 200 does it stop?
    """
    right, lost = fits(run, "right"), fits(run, "end = pad")
    rows = [
        [name, *(f"{mean(one):.1%}" for one in ([x.right for x in of], [x.stops for x in of]))]
        for name, of in (("right", right), ("end = pad, by value", lost))
    ]
    run.table("Held-out requests, three seeds", ["arm", "words right", "stops"], rows)
    because = "three seeds' range is far above; a guess of one word of twelve would be 8 %"
    run.check("right: words right", [one.right for one in right], at_least=0.5, because=because)
    run.check("right: stops", [one.stops for one in right], at_least=0.9, because="a label of every row")
    run.check("end = pad: words right", [one.right for one in lost], at_least=0.5, because=because)
    because = "it is never a label, and each step pushes its logit down"
    run.check("end = pad: stops", [one.stops for one in lost], at_most=0.05, because=because)
    return f"Words right: {rows[0][1]} and {rows[1][1]}. Stops: {rows[0][2]} and {rows[1][2]}."


@lab.experiment
def none_of_these_mistakes_raises_an_error(run: Run):
    """A loop with a mistake runs to its end, and its own loss need not tell.

    Predict: which of the seven has a *lower* training loss than the right loop?
    """
    found, table = {name: fit(run, name, run.seed) for name in ARMS}, []
    fig, ax = plt.subplots()
    for i, (name, one) in enumerate(found.items()):
        steps, losses = zip(*one.trained.watched, strict=True)
        style = {"color": "black", "lw": 2.5} if name == "right" else {"color": f"C{i - 1}"}
        ax.plot(steps, losses, **style, ls="-" if i < 5 else "--", label=name)
        own = mean(one.trained.losses[-20:])
        table.append([name, own, losses[-1], f"{one.right:.0%}", f"{one.stops:.0%}"])
    columns = ["arm", "its own loss", "answers' loss", "words right", "stops"]
    run.table("At the end; losses in nats per label", columns, table)
    ax.set(xlabel="steps", title="Loss of held-out answers (nats per label)", yscale="log")
    ax.legend(fontsize=9, ncols=2)
    run.figure(fig, "mistakes", "One right loop and seven mistakes, none of which raises an error.")
    because = "it says the token after the next"
    run.check("shifted twice: words right", found["shifted twice"].right, at_most=0.4, because=because)
    right = mean(found["right"].trained.losses[-20:])
    lower = [row[0] for row in table if row[1] < right]
    gap = found["right"].right - found["rate by batch"].right
    run.measure("rate by batch: words right, less", gap, expect_at_least=0)
    gap = found["right"].right - found["mean of means"].right
    run.measure("mean of means: words right, less", gap, expect_at_least=0)
    told = f"Lower than the right loop's own loss: {', '.join(lower)}." if lower else ""
    return told or "None has a lower loss of its own than the right loop."


@lab.experiment
def does_masking_the_prompt_help(run: Run):
    """Masking the prompt's labels makes better answers: measured, on three seeds."""
    masked, whole = fits(run, "right"), fits(run, "the prompt too")
    gains = [a.right - b.right for a, b in zip(masked, whole, strict=True)]
    because = "the prompt's words are drawn at random: nothing about answers is in them"
    run.measure("words right, masked less not", gains, expect_at_least=0, because=because)
    losses = [[one.trained.watched[-1][1] for one in of] for of in (masked, whole)]
    run.measure("answers' loss, masked", losses[0], unit="nats")
    run.measure("answers' loss, not masked", losses[1], unit="nats")
    return f"Masked {mean(one.right for one in masked):.0%} right, not masked {mean(one.right for one in whole):.0%}."


# %% [markdown]
# ## 10. Packing
# Padding is computed and thrown away. **Packing** lays several rows, now called documents, end to
# end, until a length is full. Three things must be kept apart then. *Attention*: a token may look
# back only within its own document, so the mask is a staircase of triangles, block-diagonal and
# causal. *Positions* start anew at 0 with each document. *Labels*: the first token of a document
# must not be asked of the last token of the one before.
#
# Which rows go together? Longest first, each into the first pack that has room: "first fit
# decreasing", never more than 11/9 of the fewest packs possible, and 6/9 of one (Dósa 2007).


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

    Predict: if positions don't start anew, but the mask is right, how much do the logits change?
    """
    torch.manual_seed(run.seed)
    model, rows = build(run, run.seed).eval(), encoded(split(run.seed, 4000)[0][:6])
    batch = collate_packs([rows], tokenizer().pad_token_id)
    kept = {name: batch[name] for name in ("attention_mask", "position_ids")}
    alone = torch.cat([model(torch.tensor([row["input_ids"]])).logits[0] for row in rows])
    vectors = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()  # (1, T, d)

    def logits(**how: Any) -> Tensor:
        return model(inputs_embeds=vectors, **how).logits[0]

    bound = tolerance(torch.float32)
    run.agree("logits in a pack less those alone", logits(**kept) - alone, bound, "float32")
    running = logits(attention_mask=batch["attention_mask"]) - alone
    run.agree("positions running on", running, bound, "RoPE: distances count, and they are the same")
    plain = logits(position_ids=torch.arange(len(alone))[None])
    gap = (plain - alone).abs().max()
    run.check("with no mask but the causal one", gap, at_least=0.01, because="the partner")
    first = len(rows[0]["input_ids"])
    for name, found in (("block-diagonal", logits(**kept)), ("causal alone", plain)):
        (grad,) = torch.autograd.grad(found[first:].square().sum(), vectors, retain_graph=True)
        leak = grad[0, :first].abs().max()
        if name == "causal alone":
            run.check(f"{name}: gradient of the others to document 1", leak, at_least=1e-6, because="the partner")
        else:
            run.check(f"{name}: gradient of the others to document 1", leak, at_most=0, because="no path leads there")
    total = label_count(batch)
    run.check("labels in the pack", total, equals=sum(label_count(collate([row], 0)) for row in rows))


@lab.experiment
def packing_removes_padding(run: Run):
    """Packing leaves next to no padding; random batches waste a good part of what they compute."""
    rows = encoded(split(run.seed, 4000)[0])
    lengths = [len(row["input_ids"]) for row in rows]
    size, room, pad = 16, 64, tokenizer().pad_token_id
    ways = {"as they come": rows, "sorted by length": sorted(rows, key=lambda x: len(x["input_ids"]))}
    waste = {}
    for name, some in ways.items():
        places = sum(size * max(len(x["input_ids"]) for x in some[i : i + size]) for i in range(0, len(some), size))
        waste[name] = 1 - sum(lengths) / places
    packs = pack(rows, room)
    waste["packed"] = 1 - sum(lengths) / (room * len(packs))
    fewest = math.ceil(sum(lengths) / room)
    because = "Dósa 2007: 11/9 of the fewest possible, and 6/9; no fewer than tokens over length"
    run.check("packs", len(packs), at_most=11 / 9 * fewest + 6 / 9 + fewest, because=because)
    because = "a batch is as long as its longest of 16; the mean row is shorter"
    run.check("waste as they come", waste["as they come"], at_least=0.15, because=because)
    run.check("waste packed", waste["packed"], at_most=0.05, because="short rows fill what is left")
    model = build(run, run.seed).to(run.device).eval()
    some = random.Random(run.seed).sample(rows, run.pick(tiny=512, small=4096, full=4096))
    speed = {}
    padded = [collate(some[i : i + 32], pad) for i in range(0, len(some), 32)]
    together = pack(some, room)
    packed = [collate_packs(together[i : i + 10], pad) for i in range(0, len(together), 10)]
    for _ in range(3):
        for name, data in (("padded", padded), ("packed", packed)):
            began = time.perf_counter()
            for one in data:
                one = {key: value.to(run.device) for key, value in one.items() if key != "labels"}
                model(**one).logits.sum().backward()
            speed.setdefault(name, []).append(time.perf_counter() - began)
    gain = [a / b for a, b in zip(speed["padded"], speed["packed"], strict=True)]
    run.measure("time of a pass over the same rows, padded over packed", gain, expect_at_least=1, timed=True)
    fig, (left, right) = plt.subplots(1, 2, width_ratios=(1.4, 1))
    left.hist(lengths, bins=range(min(lengths), max(lengths) + 2), align="left", rwidth=0.85)
    left.set(xlabel="tokens in a row", title="4,000 rows by length (count)")
    bars = right.bar(["as they\ncome", "sorted", "packed"], [100 * one for one in waste.values()], color=["C1", "C5", "C2"])
    right.bar_label(bars, fmt="%.1f")
    right.set(title="Places that are padding (%)")
    run.figure(fig, "lengths", "How long rows are, and what each way of batching wastes.")
    return f"Padding: {waste['as they come']:.0%} as they come, {waste['packed']:.1%} packed."
