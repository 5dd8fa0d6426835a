"""What LLM08 trains with: tasks on words, made by code, their tokenizer, a small Llama, its exam.

And the lab's drawings, which teach nothing that its figures don't show.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

from labs.kit import Run
from labs.llm08_training.conversations import messages_of

import datasets
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

# The set.

WORDS = ["ant", "bee", "cat", "cow", "dog", "elk", "fox", "hen", "owl", "pig", "rat", "yak"]
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six"]
LONGEST = 6  # words of a list, and of an answer
TASKS: dict[str, Callable[[list[str]], list[str]]] = {
    "Repeat the words": lambda words: words,
    "Reverse the words": lambda words: words[::-1],
    "Name the first": lambda words: words[:1],
    "Name the last": lambda words: words[-1:],
    "Count the words": lambda words: [NUMBERS[len(words)]],
}
Example = dict[str, str]


def is_held_out(task: str, words: list[str]) -> bool:
    """Of each list one task: that for which task + 1·word₁ + 2·word₂ + … is 0 modulo 5."""
    places = sum(i * WORDS.index(word) for i, word in enumerate(words, 1))
    return (list(TASKS).index(task) + places) % len(TASKS) == 0


def examples(seed: int, held_out: bool | None) -> Iterator[Example]:
    """Rows without end, drawn at random; `held_out` None: of both kinds."""
    dice = random.Random(seed)
    while True:
        task, words = dice.choice(list(TASKS)), dice.sample(WORDS, dice.randint(1, LONGEST))
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


def pairs(rows: Iterable[Example]) -> list[tuple[str, str]]:
    """Of each row its task and its list."""
    return [(row["instruction"], row["input"]) for row in rows]


def write_files(folder: Path, a: Example, b: Example, c: Example) -> None:
    """Five good rows in three kinds of file and three shapes, and five bad ones among them."""
    talk = messages_of({"prompt": "Hi", "completion": "Hello"})
    lines = [json.dumps(a), '{"instruction": "Count', json.dumps({"instruction": "Count"})]
    lines += [json.dumps({"messages": talk}), json.dumps({"messages": talk[:1]})]
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    table = 'prompt,completion\n"two\nlines",yes\nRepeat,the words,twice\n'
    (folder / "b.csv").write_text(table, encoding="utf-8")
    rows = datasets.Dataset.from_list([b, {**c, "output": None}, c])
    rows.to_parquet(folder / "c.parquet")


# Its tokenizer and its model.

TEMPLATE = """{% for one in messages %}{{ '<|' + one.role + '|>' }}\
{% if one.role == 'assistant' %}{% generation %}{{ one.content + '<|end|>' }}{% endgeneration %}\
{% else %}{{ one.content + '<|end|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


def make_tokenizer() -> Any:
    """A token for each word of the set, and five special ones."""
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    words = dict.fromkeys([*special, *" ".join(TASKS).split(), *WORDS, *NUMBERS])
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=plain, chat_template=TEMPLATE)
    made.add_special_tokens({"pad_token": special[0], "eos_token": special[1]})
    made.add_special_tokens({"additional_special_tokens": special[2:]})
    return made


ours = make_tokenizer()
PAD, END = ours.pad_token_id, ours.eos_token_id


def build(run: Run, seed: int, dropout: float = 0.0) -> Any:
    """A Llama for these words; of 86,000 parameters at `tiny`."""
    torch.manual_seed(seed)
    width, layers = run.pick(tiny=(64, 2), small=(128, 4), full=(256, 6))
    return small_llama(width, layers, dropout)


def small_llama(width: int, layers: int, dropout: float = 0.0) -> Any:
    """A Llama of any size for these words, with weights drawn at random."""
    config = LlamaConfig(
        vocab_size=len(ours),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        attention_dropout=dropout,
        initializer_range=0.05,  # at the usual 0.02 so small a model stands still for long
        tie_word_embeddings=False,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config)


# The exam.


def ask(rows: list[Example]) -> dict[str, Tensor]:
    """Requests padded on the left, where generation wants it, and the answers wanted (B, 6)."""
    talks = [messages_of(row)[:1] for row in rows]
    apply = partial(ours.apply_chat_template, tokenize=False, add_generation_prompt=True)
    how = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
    asked = ours([apply(one) for one in talks], add_special_tokens=False, **how)
    wanted = ours([row["output"] for row in rows], add_special_tokens=False).input_ids
    padded = torch.tensor([one + [-1] * (LONGEST - len(one)) for one in wanted])
    return {**{name: asked[name] for name in ("input_ids", "attention_mask")}, "wanted": padded}


@torch.no_grad()
def exam(run: Run, model: Any, rows: list[Example]) -> tuple[float, float]:
    """The shares of rows answered with the right words, and of those in which the end is said."""
    found = []
    for batch in run.accelerator.prepare(DataLoader(rows, 100, collate_fn=ask)):
        wanted, length = batch.pop("wanted"), batch["input_ids"].shape[1]
        said = model.eval().generate(**batch, max_new_tokens=8, do_sample=False, pad_token_id=PAD)
        said = F.pad(said[:, length:], (0, 8), value=PAD)  # where all have stopped before
        right = ((said[:, :LONGEST] == wanted) | (wanted < 0)).all(1)
        marks = torch.stack([right, (said == END).any(1)], 1)  # (B, 2)
        found.append(run.accelerator.gather_for_metrics(marks))
    right, stops = torch.cat(found).float().mean(0).tolist()
    return right, stops


# Drawings.


def draw_rates(curves: dict[str, list[float]], warmup: int) -> Any:
    """The learning rate's share of its peak, step by step, with the end of the warm-up marked."""
    fig, ax = plt.subplots()
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        ax.plot(curve, style, label=f"{name}: mean {mean(curve):.2f}")
    ax.axvline(warmup - 1, color="grey", ls=":")
    ax.text(warmup + 3, 0.03, "end of warm-up", color="grey")
    ax.set(xlabel="step of the optimizer", ylim=(0, 1.05), title="Learning rate, share of its peak")
    ax.legend()
    return fig


def draw_mistakes(watched: dict[str, list[list[float]]]) -> Any:
    """The answers' loss over the steps, of one right loop, the first, and of others."""
    fig, ax = plt.subplots()
    colours = ["black", *(f"C{n}" for n in range(6)), "grey"]
    for i, (name, points) in enumerate(watched.items()):
        style: dict[str, Any] = {"color": colours[i], "ls": "-" if i < 4 else "--"}
        ax.plot(*zip(*points, strict=True), **style, lw=1.5 if i else 3, label=name)
    ax.set(xlabel="steps", yscale="log", title="Loss of held-out answers (nats per label)")
    ax.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    ax.minorticks_off()
    ax.legend(fontsize=9, ncols=2)
    return fig


def draw_padding(lengths: list[int], waste: dict[str, float]) -> Any:
    """How long rows are, and which share of the places each way of batching wastes."""
    fig, (left, right) = plt.subplots(1, 2, width_ratios=(1.4, 1))
    left.hist(lengths, bins=range(min(lengths), max(lengths) + 2), align="left", rwidth=0.85)
    left.set(xlabel="tokens in a row", title=f"{len(lengths):,} rows (count)")
    bars = right.bar(list(waste), [100 * one for one in waste.values()], color=["C1", "C5", "C2"])
    right.bar_label(bars, fmt="%.1f")
    right.set(title="Padding (% of the places)")
    return fig


def draw_times(parts: Iterable[str], found: dict[str, list[float]]) -> Any:
    """Of each way's step (milliseconds of each part) the parts' shares, and the sum."""
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    left = torch.zeros(len(found))
    for i, name in enumerate(parts):
        shares = torch.tensor([100 * one[i] / sum(one) for one in found.values()])
        ax.barh(list(found), shares, left=left, label=name)
        left += shares
    for i, one in enumerate(found.values()):
        ax.text(101, i, f"{sum(one):.0f} ms", va="center")
    ax.set(xlabel="share of the time (%)", xlim=(0, 115), title="Where the time of a step goes")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.legend(ncols=5, fontsize=9, loc="upper center", bbox_to_anchor=(0.4, -0.25))
    return fig


def draw_fit(losses: list[float], before: float, after: float, rows: int) -> Any:
    """The loss in training, step by step, and that of other rows before and after it."""
    fig, ax = plt.subplots()
    ax.plot(range(1, len(losses) + 1), losses, "o-", label="in training")
    ax.plot([0, len(losses)], [before, after], "s", ms=9, label="rows not seen")
    ax.set(xlabel=f"steps of {rows} rows", title="Loss (nats per label)")
    ax.legend()
    return fig
