"""Compare LLM08's training loop with `transformers.Trainer`: same model, rows, order and recipe.

    python -m benchmarks.training [--rounds 7] [--steps 30] [--model small|glass|smollm2]

Run it from the clone's root with the labs' Python (`.lab-env/cpu-…/venv/bin/python`). Both train in
float32 with PyTorch's fused AdamW at a constant rate. Both clip, and accumulate two micro-batches
of 16 rows, divided by the labels of both; they read rows in the given order. So both take the same
steps, and their mean losses must agree, or the times mean nothing. Neither writes checkpoints or
reports. Our loop moves each step's loss to the CPU and checks that it is finite; Trainer sums its
losses on the device. The two take turns, a b a b …. The benchmark prints medians and ranges of
milliseconds per step, and of the ratios of each round: below 1 our loop is faster. It leaves out
the first steps of each run, which include the set-up.
"""

import argparse
import contextlib
import os
import platform
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from common.options import Settings
from labs.kit import Checkpoints, Run, assets
from labs.kit.run.console import Output
from labs.kit.run.devices import describe_device
from labs.llm08_training import lesson as lab
from labs.llm08_training import training
from labs.llm08_training.timing import now

import torch
import transformers
from accelerate.state import AcceleratorState, GradientState
from torch.utils.data import DataLoader, SequentialSampler
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

BATCH = 16
ACCUMULATE = 2
FIRST = 2  # steps that are left out
LR = 1e-3
CLIP = 1.0


def model_of(run: Run, name: str) -> Any:
    if name == "small":
        return lab.build(run, 0)
    path = assets.glass() if name == "glass" else assets.smollm2()
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


class Clock(TrainerCallback):
    """Record when each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(now())


class InOrder(Trainer):
    """A Trainer that reads rows in the given order."""

    def _get_train_sampler(self, *_: Any, **__: Any) -> SequentialSampler:
        rows: Any = self.train_dataset  # a list, which the Trainer's types don't know
        return SequentialSampler(rows)


def train_with_trainer(
    run: Run, model: Any, rows: list[lab.Row], steps: int
) -> tuple[list[float], float]:
    """Return the end of each step in seconds, and the mean loss of all steps."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATE,
            max_steps=steps,
            learning_rate=LR,
            lr_scheduler_type="constant",
            max_grad_norm=CLIP,
            weight_decay=0.01,
            adam_beta2=0.98,
            optim="adamw_torch_fused",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=run.device.type == "cpu",
        )
        collate = partial(lab.collate, pad=lab.PAD)
        dataset: Any = rows
        trainer = InOrder(model, arguments, collate, dataset, callbacks=[clock])
        with contextlib.redirect_stdout(None):
            ended = trainer.train()
    return clock.times, ended.training_loss


class Ordered(DataLoader[Any]):
    """The lab's loader, which reads rows in the given order."""

    def __init__(self, rows: Any, size: int, **options: Any) -> None:
        super().__init__(rows, size, **{**options, "shuffle": False})


class Clocked(Checkpoints):
    """Checkpoints that save nothing and record when each step ends."""

    times: ClassVar[list[float]] = []

    def save_if_due(self, done: int) -> None:
        del done
        self.times.append(now())

    def save(self, done: int) -> None:
        pass


def constant(step: int, steps: int, warmup: int) -> float:
    del step, steps, warmup
    return 1.0


def train_with_lab(
    run: Run, model: Any, rows: list[lab.Row], steps: int
) -> tuple[list[float], float]:
    """Return the end of each step in seconds, and the mean loss of all steps."""
    recipe = lab.Recipe(steps, LR, 0, BATCH, ACCUMULATE, CLIP)
    Clocked.times = []
    fused = partial(torch.optim.AdamW, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    checkpoints = Clocked(run, "ours")
    loop = replace(lab.LOOP, lr_at=constant, optimizer=fused)
    done = training.train(run, "ours", model, rows, recipe, loop, checkpoints=checkpoints)
    return Clocked.times, sum(done.losses) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--model", choices=("small", "glass", "smollm2"), default="small")
    options = parser.parse_args()
    logging.set_verbosity_error()
    training.DataLoader = Ordered
    rows = training.rows_of(lab.encode, 0, 4000)[: BATCH * ACCUMULATE * options.steps]
    rounds = [one_round(options.model, rows, options.steps) for _ in range(options.rounds + 1)]
    rounds = rounds[1:]  # the first one warms up
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{describe_device(device())}; {versions}, transformers {transformers.__version__}")
    print(f"{options.model}: milliseconds per step of {BATCH * ACCUMULATE} rows [range]")
    own, library = zip(*rounds, strict=True)
    ratios = [a / b for a, b in rounds]
    for name, values in (("ours", own), ("Trainer", library), ("ours ÷ Trainer", ratios)):
        print(f"{name:20} {median(values):.3f} [{min(values):.3f}, {max(values):.3f}]")


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def one_round(name: str, rows: list[lab.Row], steps: int) -> tuple[float, float]:
    """Return milliseconds per step, ours and Trainer's."""
    speeds = []
    losses = []
    for way in (train_with_lab, train_with_trainer):
        for state in (AcceleratorState, GradientState):  # else both would share their settings
            state._reset_state(*([True] if state is AcceleratorState else []))
        with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
            run = Run(Settings(), "fp32", Output(nowhere, silent=True), Path(folder))
            times, loss = way(run, model_of(run, name), rows, steps)
        speeds.append(1000 * (times[-1] - times[FIRST - 1]) / (len(times) - FIRST))
        losses.append(loss)
    if abs(losses[0] / losses[1] - 1) > 1e-3:
        raise SystemExit(f"the losses differ, {losses[0]} and {losses[1]}: the times mean nothing")
    return speeds[0], speeds[1]


if __name__ == "__main__":
    main()
