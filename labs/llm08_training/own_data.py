"""Train SmolLM2 on rows of any source: a few steps on the word tasks, or your own data in full."""

import hashlib
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from common.cards import WRONG_USAGE, Card
from labs.kit import Checkpoints, Run, assets, keep_memory
from labs.kit.run.processes import is_main, stop_all
from labs.llm08_training import conversations, figures, word_tasks
from labs.llm08_training.precision import train_last_blocks
from labs.llm08_training.saved_model import Answer, right, round_weights, save
from labs.llm08_training.templates import refuse_special
from labs.llm08_training.training import Parts, Recipe, Row, Trained, train

import torch
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

IGNORED = -100
TESTED = 32  # rows for the test
SHOWN = 8  # test rows whose responses are shown
WRITTEN = 48  # tokens of a shown response to own data, at most
WRITTEN_TASKS = 24  # the same for the word tasks, whose longest response has about 12
SMALLEST_LENGTH = 16  # tokens; a template alone has about as many


@dataclass
class Rows:
    """Encoded rows on disk, and what became of the rows that were read.

    Attributes:
        table: rows with `input_ids` and `labels`.
        hashes: a number for each row; equal rows have equal numbers.
        cut: rows that were longer than the limit.
        empty: rows that were left out, because the cut left no label.
        tokens: in all rows of the table.
        labels: in all rows of the table.
    """

    table: Any
    hashes: "array[int]"
    cut: int = 0
    empty: int = 0
    tokens: int = 0
    labels: int = 0

    def split(self) -> tuple[Any, Any]:
        """Return the rows to train on and up to 32 test rows.

        Equal rows are on the same side, and the test has each of them once.
        """
        distinct = sorted(set(self.hashes))
        chosen = set(distinct[: min(TESTED, len(distinct) // 5)])
        first = {number: place for place, number in reversed([*enumerate(self.hashes)])}
        training = [place for place, number in enumerate(self.hashes) if number not in chosen]
        return self.table.select(training), self.table.select([first[number] for number in chosen])


@contextmanager
def encoded_rows(
    messages: Iterable[Any], encode: Callable[[Any], Row], length: int, folder: Path, seed: int
) -> Iterator[Rows]:
    """Encode conversations into a file below `folder`, which is removed at the end.

    Args:
        messages: objects with `messages`.
        encode: turns messages into `input_ids` and `labels`.
        length: rows are cut to this number of tokens.
        folder: for the file; its rows aren't in memory.
        seed: of the test rows' choice.
    """
    path = folder / f"rows-{'main' if is_main() else 'other'}-{id(messages)}.arrow"
    rows = Rows(None, array("Q"))
    try:
        with ArrowWriter(path=str(path)) as writer:
            for one in messages:
                row = encode(one["messages"])
                if len(row["input_ids"]) > length:
                    rows.cut += 1
                    row = {name: ids[:length] for name, ids in row.items()}
                labels = sum(label != IGNORED for label in row["labels"][1:])
                if not labels:
                    rows.empty += 1
                    continue
                digest = hashlib.blake2b(repr((seed, row["input_ids"])).encode(), digest_size=8)
                rows.hashes.append(int.from_bytes(digest.digest(), "big"))
                rows.tokens += len(row["input_ids"])
                rows.labels += labels
                writer.write(row)
            if rows.hashes:
                writer.finalize()
        rows.table = Dataset.from_file(str(path)) if rows.hashes else Dataset.from_list([])
        yield rows
    finally:
        path.unlink(missing_ok=True)


def recipe(run: Run, rows: int, own: bool) -> Recipe:
    """Return how to train on this number of rows: own data once in full, or a few steps."""
    batch = run.pick(tiny=8, small=16, full=32)
    few = run.pick(tiny=6, small=60, full=400)
    steps = run.options.steps or (math.ceil(rows / batch) if own else few)
    warmup = max(2, min(50, steps // 10))
    return Recipe(steps, lr=5e-4, warmup=warmup, batch=batch, seed=run.seed)


def require_rows(rows: Rows, training: int, batch: int, length: int) -> None:
    """Check that a batch can be filled.

    Raises:
        Card: if there are too few rows; it names what became of the others.
    """
    if training >= batch:
        return
    read = len(rows.hashes) + rows.empty
    why = (
        f"Of {read} rows, {rows.empty} have no response within {length} tokens, and some of the "
        f"others are for the test. {training} are left, and a batch has {batch}."
    )
    fix = f"more rows, or --max-length {2 * length}"
    stop_all(Card("The dataset is too small.", why, fix, WRONG_USAGE))


def responses(model: Any, words: Any, rows: Iterable[Row], most: int) -> list[tuple[str, str, str]]:
    """Return each row's first request, the model's greedy response, and the wanted one.

    Args:
        model: the model.
        words: its tokenizer.
        rows: encoded conversations.
        most: tokens that the model writes, at most.
    """
    requests: list[list[int]] = []
    wanted: list[list[int]] = []
    for row in rows:
        marks = [label != IGNORED for label in row["labels"]]
        start = marks.index(True)
        end = marks.index(False, start) if False in marks[start:] else len(marks)
        requests.append(row["input_ids"][:start])
        wanted.append(row["input_ids"][start:end])
    written = _continued(model, requests, words.eos_token_id, most)
    texts: list[tuple[str, str, str]] = []
    for pieces in zip(requests, written, wanted, strict=True):
        request, got, want = (words.decode(part, skip_special_tokens=True) for part in pieces)
        texts.append((_last_turn(request), got.strip(), want.strip()))
    return texts


@torch.no_grad()
def _continued(model: Any, requests: list[list[int]], end: int, most: int) -> Tensor:
    """Return the tokens that a model writes greedily after each request, all in one batch."""
    length = max(len(request) for request in requests)
    ids = torch.full((len(requests), length), end)
    mask = torch.zeros_like(ids)
    for i, request in enumerate(requests):
        ids[i, -len(request) :] = torch.tensor(request)  # padded on the left
        mask[i, -len(request) :] = 1
    written = model.eval().generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=most,
        do_sample=False,
        pad_token_id=end,
    )
    return written[:, length:]


def _last_turn(text: str) -> str:
    """Return the end of a conversation, without the name of the next speaker."""
    return text.strip().removesuffix("assistant").strip().rpartition("\nuser\n")[2]


def train_smollm2(run: Run, parts: Parts) -> str:
    """Train SmolLM2's last four blocks on the rows of --dataset, or on a few of the word tasks."""
    keep_memory()  # else a quarter of the processor time goes into page faults
    name = assets.pretrained(run.options.model, run.online)
    words = AutoTokenizer.from_pretrained(name)
    own = conversations.requested(run.settings, partial(refuse_special, words))
    count = run.pick(tiny=80, small=1000, full=1000)
    most = WRITTEN if own else WRITTEN_TASKS
    tasks = [
        {"messages": conversations.messages_of(row)} for row in word_tasks.split(run.seed, count)[0]
    ]
    length = max(SMALLEST_LENGTH, run.options.max_length or (256 if own else 64))
    encode = partial(parts.encode, words)
    with encoded_rows(own or tasks, encode, length, run.folder, run.seed) as rows:
        training, test = rows.split()
        how = recipe(run, len(training), own is not None)
        require_rows(rows, len(training), how.batch, length)
        report_rows(run, rows, own, how, len(training), len(test), length)
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        model.to(run.device)
        pad = words.eos_token_id if words.pad_token_id is None else words.pad_token_id
        before = parts.loss(run, model, test, pad)
        shown = test.select(range(min(SHOWN, len(test))))
        texts = responses(model, words, shown, most)
        done = _train(run, train_last_blocks(model), training, how, parts, rows, pad)
        if own:
            round_weights(done.model)  # as they are saved, so that the card has their loss
        after = parts.loss(run, done.model, test, pad)
        new = responses(done.model, words, shown, most)
    answers = [
        Answer(request, old, text, wanted)
        for (request, old, wanted), (_, text, _) in zip(texts, new, strict=True)
    ]
    table = [[one.request, one.before, one.after, one.wanted] for one in answers]
    run.table("Test rows", ["request", "before", "after", "wanted"], table)
    draw(run, done, before, after, how)
    verdict(run, before - after, own is not None)
    was_right, is_right = right(answers)
    if own and is_main():
        facts = {"rows": len(training), "used": min(len(training), how.steps * how.batch)}
        facts |= {"cut": rows.cut, "length": length, "steps": how.steps, "batch": how.batch}
        facts |= {"before": before, "after": after, "tests": len(test), "most": most}
        folder = save(run, done.model, words, answers, **facts)
        run.say(f"The model is in {folder}. Talk to it: invoke chat {folder}")
    limit = ""
    if own and is_right < len(table):
        limit = (
            " A lower loss can be the form of the answers alone. If the rows are facts, more passes"
            f" over them may help: --steps {2 * how.steps}."
        )
    elif run.size == "tiny" and is_right < len(table):
        limit = " So few steps don't teach all tasks, even if the loss falls."
    return (
        f"On the test rows the loss went from {before:.2f} to {after:.2f} nats per label. Right "
        f"responses in the table: {was_right} of {len(table)} before the training, {is_right} "
        f"after it.{limit}"
    )


def _train(
    run: Run, model: Any, training: Any, how: Recipe, parts: Parts, rows: Rows, pad: int
) -> Trained:
    loop = replace(
        parts.loop,
        collate=lambda batch: parts.collate(batch, pad),
        optimizer=partial(torch.optim.AdamW, fused=True),  # the same rule, faster; default betas
    )
    digest = hashlib.sha256(rows.hashes.tobytes()).hexdigest()
    facts = {**vars(how), "rows": digest}
    # a checkpoint has 650 MB, and Ctrl-C saves one, too
    checkpoints = Checkpoints(run, "SmolLM2", depends_on=facts, steps=how.steps, every_minutes=5)
    return train(run, "SmolLM2", model, training, how, loop, checkpoints=checkpoints)


def report_rows(
    run: Run, rows: Rows, own: Any, how: Recipe, training: int, test: int, length: int
) -> None:
    """Record what became of the rows."""
    table: list[list[Any]] = [
        ["for the training", training],
        ["of these, used", min(training, how.steps * how.batch)],
        ["for the test", test],
        ["equal to a test row, left out", len(rows.hashes) - training - test],
        [f"cut at {length} tokens: the end of the response is lost", rows.cut],
        ["left out: no response within that length", rows.empty],
    ]
    if own:
        table.append(["bad rows, left out", own.skipped])
    run.table("The rows", ["rows", "number"], table)
    run.measure("share of the tokens that are labels", rows.labels / rows.tokens)
    if own and own.reported:
        run.table("The first of the bad rows", ["row"], [[problem] for problem in own.reported])


def draw(run: Run, done: Trained, before: float, after: float, how: Recipe) -> None:
    """Draw the losses."""
    run.figure(
        figures.draw_fit(done.losses, before, after, how.batch),
        "real",
        "The same loop on a real model, whose last four blocks are trained. Each point of the line "
        "is the loss of that step's rows. The squares are the loss of the test rows, which are "
        "others. So the line needn't begin at the first square.",
        alt="Line plot of the training loss over the steps, with the loss on test rows before and "
        "after as squares.",
    )


def verdict(run: Run, fall: float, own: bool) -> None:
    """Record how far the loss of the test rows fell; own data needn't be learnable."""
    what = "loss before − loss after"
    if own or run.options.model:
        run.measure(what, fall, expect_at_least=0, unit="nats", decides=True)
    else:
        because = "a likely reason: it learns quickly that responses are a few words and the end"
        run.check(what, fall, at_least=0.3, because=because, decides=True)
