"""The machinery around a training loop: Accelerate, checkpoints, the first NaN, curves.

The loop's parts are the lesson's own functions, so a learner's solutions train, too.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from statistics import mean
from typing import Any, cast

from labs.kit import Checkpoints, Run, batches, on_one_thread, stop_on_nan
from labs.llm08_training.conversations import Message, messages_of
from labs.llm08_training.word_tasks import (
    PAD,
    Exam,
    Example,
    build,
    exam,
    split,
    word_tokenizer,
)

import torch
from torch import Tensor
from torch.utils.data import DataLoader

Row = dict[str, list[int]]
Batch = dict[str, Tensor]
Encode = Callable[[Any, list[Message]], Row]
Watch = Callable[[Any], float]
EVERY = 25  # steps between two calls of `watch`
TOKENS = 13  # in a row of the word tasks, on average
RECENT = 10  # steps whose mean loss is shown during the training
ROWS_AT_ONCE = 8  # whose loss is computed: a row of 256 tokens has 50 MB of logits in SmolLM2


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train.

    Attributes:
        steps: of the optimizer.
        lr: the peak of the learning rate.
        warmup: steps until the peak.
        batch: rows of a micro-batch, of all processes together.
        accumulate: micro-batches of a step.
        clip: the largest norm of a gradient.
        seed: of the first weights, on which a checkpoint depends.
    """

    steps: int
    lr: float = 5e-3
    warmup: int = 20
    batch: int = 32
    accumulate: int = 1
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Loop:
    """The parts of a training loop.

    Attributes:
        collate: makes a batch of rows.
        windows: groups micro-batches; yields each group with the number of its labels.
        step: trains on one window, and returns its loss.
        lr_at: the learning rate's share of its peak, from step, steps and warm-up.
        optimizer: makes an optimizer from parameters and a learning rate.
        clip: shortens the gradient of all parameters to a norm.
    """

    collate: Callable[[list[Row]], Batch]
    windows: Callable[..., Iterator[tuple[list[Batch], int]]]
    step: Callable[..., Tensor]
    lr_at: Callable[[int, int, int], float]
    optimizer: Callable[..., Any]
    clip: Callable[..., Tensor]


class Clipping:
    """An Accelerator that clips with a function of the lesson."""

    def __init__(self, accelerator: Any, clip: Callable[..., Tensor]) -> None:
        self._accelerator = accelerator
        self._clip = clip

    def backward(self, loss: Tensor) -> None:
        """Compute the gradient; float16's loss is scaled."""
        self._accelerator.backward(loss)

    def clip_grad_norm_(self, parameters: Any, norm: float) -> Tensor:
        """Undo the scaling of float16's loss, and clip."""
        self._accelerator.unscale_gradients()
        return self._clip(parameters, norm)


@dataclass(frozen=True)
class Parts:
    """The functions of the lesson that make and train on batches.

    Attributes:
        encode: turns a tokenizer and messages into a row.
        collate: makes a batch from rows and a padding token.
        label_sum: the summed loss of a batch.
        label_count: the number of its labels.
        loop: the parts of the loop.
    """

    encode: Encode
    collate: Callable[[list[Row], int], Batch]
    label_sum: Callable[[Any, Batch], Tensor]
    label_count: Callable[[Batch], int]
    loop: Loop

    def loss(self, run: Run, model: Any, rows: Any, pad: int, at_once: int = ROWS_AT_ONCE) -> float:
        """Return the loss of a model on rows, `at_once` in a batch (nats per label)."""
        was_training = model.training
        model.eval()
        total = 0.0
        labels = 0
        for start in range(0, len(rows), at_once):
            part = [rows[i] for i in range(start, min(start + at_once, len(rows)))]
            batch = placed(run, self.collate(part, pad))
            with torch.no_grad(), run.accelerator.autocast():
                total += self.label_sum(model, batch).item()
            labels += self.label_count(batch)
        model.train(was_training)
        return total / labels


@dataclass(frozen=True)
class Trained:
    """A trained model, and the curves of its training.

    Attributes:
        model: the model.
        losses: nats per label, of each step.
        watched: pairs: the steps done, and what `watch` returned.
    """

    model: Any
    losses: list[float]
    watched: list[list[float]]


@dataclass(frozen=True)
class Fit:
    """A model that was trained on the word tasks, and the marks of its exam.

    Attributes:
        trained: the model and its curves.
        exam: its marks on the held-out requests.
        precision: of its training: fp32, bf16 or fp16.
    """

    trained: Trained
    exam: Exam
    precision: str

    @property
    def right(self) -> float:
        """The share of requests with exactly the right words and the end."""
        return self.exam.right

    @property
    def loss(self) -> float:
        """The loss of the held-out responses at the end (nats per label)."""
        return self.trained.watched[-1][1]


def train(
    run: Run,
    name: str,
    model: Any,
    rows: Any,
    how: Recipe,
    loop: Loop,
    watch: Watch | None = None,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train `model` on `rows`; resume if an earlier run of the same training was interrupted.

    Args:
        run: the run.
        name: of this training, for its checkpoints and its progress bar.
        model: a model of transformers.
        rows: a list of encoded rows, or a Dataset of them.
        how: the recipe.
        loop: the loop's parts.
        watch: computes a number from the model every 25 steps.
        checkpoints: where to save; by default in a folder that depends on the recipe and the rows.
    """
    if checkpoints is None:
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        facts = {**asdict(how), "rows": digest}
        checkpoints = Checkpoints(run, name, depends_on=facts, steps=how.steps)
    loader = DataLoader(
        cast(Any, rows),
        how.batch,
        shuffle=True,
        collate_fn=loop.collate,
        # several processes: Accelerate would fill up the last batch with rows from the front
        drop_last=run.accelerator.num_processes > 1,
        generator=torch.Generator(),
    )
    optimizer = loop.optimizer(model.parameters(), how.lr)
    model, optimizer, loader = run.accelerator.prepare(model, optimizer, loader)
    clipping = Clipping(run.accelerator, loop.clip)
    losses: list[float] = []
    watched: list[list[float]] = []
    checkpoints.include(losses=losses, watched=watched)
    done = checkpoints.resume()
    model.train()
    data = loop.windows(batches(run, loader, done * how.accumulate), how.accumulate)
    steps = run.progress(range(done, how.steps), name, note=lambda: recent(losses))
    for step, (window, count) in zip(steps, data, strict=False):
        lr = how.lr * loop.lr_at(step, how.steps, how.warmup)
        parts = exchange_once(run, model, window)
        labels = labels_per_process(run, count)
        loss = loop.step(model, optimizer, parts, labels, lr, how.clip, clipping)
        losses.append(stop_on_nan(run, loss, step, merged(window)))
        run.log({f"{name}/loss": losses[-1], f"{name}/rate": lr}, step)
        if watch and (step + 1) % EVERY == 0:
            watched.append([step + 1, watch(model)])
        checkpoints.save_if_due(step + 1)
    checkpoints.save(how.steps)
    return Trained(run.accelerator.unwrap_model(model, keep_fp32_wrapper=False), losses, watched)


def recent(losses: list[float]) -> str:
    """Return the mean of the last losses, for the line of the progress; empty before the first."""
    last = losses[-RECENT:]
    return f"loss {mean(last):.2f}" if last else ""


def labels_per_process(run: Run, count: int) -> float:
    """Return the labels of all processes' parts of a window, divided by the number of processes.

    Accelerate takes the mean of the processes' gradients. Divided by this number, their mean is
    the gradient of the loss over all labels.
    """
    labels = torch.tensor(count, device=run.device)
    total = cast(Tensor, run.accelerator.reduce(labels, "sum")).item()
    return total / run.accelerator.num_processes


def exchange_once(run: Run, model: Any, window: list[Batch]) -> Iterator[Batch]:
    """Yield a window's batches; several processes exchange gradients only after the last one."""
    for i, batch in enumerate(window, 1):
        with nullcontext() if i == len(window) else run.accelerator.no_sync(model):
            yield batch


def merged(window: list[Batch]) -> Batch:
    """Return all tensors of a window, by the number of their micro-batch and their name."""
    return {f"{i}.{name}": part for i, batch in enumerate(window) for name, part in batch.items()}


def placed(run: Run, batch: Batch) -> Batch:
    """Move a batch to the run's device."""
    return {name: tensor.to(run.device) for name, tensor in batch.items()}


def in_groups(items: list[Any], size: int) -> list[list[Any]]:
    """Return consecutive groups of `size` items; the last one may be shorter."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def steps_of(run: Run) -> int:
    """Return the number of steps that the word tasks are trained for."""
    return run.pick(tiny=250, small=1000, full=5000)


def count_of(run: Run) -> int:
    """Return the number of the word tasks' training rows."""
    return run.pick(tiny=4000, small=40_000, full=200_000)


def encoded(encode: Encode, rows: Iterable[Example]) -> list[Row]:
    """Encode rows of the word tasks with a lesson's function."""
    return [encode(word_tokenizer, messages_of(row)) for row in rows]


@cache
def rows_of(encode: Encode, seed: int, count: int) -> list[Row]:
    """Return the encoded training rows of a seed."""
    return encoded(encode, split(seed, count)[0])


def some_rows(run: Run, encode: Encode, count: int) -> list[Row]:
    """Return the first `count` training rows of the run's seed."""
    return rows_of(encode, run.seed, 4000)[:count]


@cache
@on_one_thread
def fit(
    run: Run,
    parts: Parts,
    seed: int,
    name: str = "the tasks",
    accumulate: int = 1,
    dtype: torch.dtype = torch.float32,
    labels: Callable[[Row], Row] = lambda row: row,
) -> Fit:
    """Train a small Llama on the word tasks (86,000 parameters at `tiny`), and examine it.

    Args:
        run: the run.
        parts: the lesson's functions.
        seed: of the rows and the first weights.
        name: of the training.
        accumulate: micro-batches of a step; its 32 rows are divided among them.
        dtype: of the weights.
        labels: changes the rows that are trained on.
    """
    count = count_of(run)
    rows = [labels(row) for row in rows_of(parts.encode, seed, count)]
    held_out = split(seed, count)[1]
    test = encoded(parts.encode, held_out)
    how = Recipe(steps_of(run), batch=32 // accumulate, accumulate=accumulate, seed=seed)
    model = build(run, seed).to(dtype)

    def watch(model: Any) -> float:
        return parts.loss(run, model, test, PAD, at_once=100)

    # the rows of a step, not of a micro-batch: then all loops of LLM08+ get the same precision
    with run.small_products(model.config.hidden_size):
        trained = train(run, f"{name}, seed {seed}", model, rows, how, parts.loop, watch)
        precision = run.precision
    return Fit(trained, exam(run, trained.model, held_out), precision)


@on_one_thread
def fit_early(run: Run, parts: Parts, seed: int) -> Any:
    """Return the model of `fit` after a fifth of the steps, by the same rows in the same order."""
    steps = steps_of(run)
    how = Recipe(steps // 5, seed=seed)

    def lr_at(step: int, _: int, warmup: int) -> float:
        return parts.loop.lr_at(step, steps, warmup)

    rows = rows_of(parts.encode, seed, count_of(run))
    model = build(run, seed)
    loop = replace(parts.loop, lr_at=lr_at)
    with run.small_products(model.config.hidden_size):
        return train(run, f"the first fifth, seed {seed}", model, rows, how, loop).model
