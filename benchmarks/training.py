"""LLM08's training loop beside `transformers.Trainer`: the same model, rows, order and recipe.

    python -m benchmarks.training [--rounds 7] [--steps 30] [--model small|glass|smollm2]

It is run from the clone's root with the labs' Python (`.lab-env/cpu-…/venv/bin/python`). Both train
in float32 with PyTorch's fused AdamW at a constant rate, clip, and accumulate two micro-batches of
16 rows, divided by the labels of the whole; rows come in the order that they have. So both take the
same steps, and their mean losses must agree, or the times mean nothing. Neither writes checkpoints
or reports. (Ours brings each step's loss to the CPU and looks whether it is a number; Trainer adds
its losses up where they are.) The two take turns, a b a b …; printed are medians and ranges of
milliseconds per step, and of the ratios round by round: below 1 our loop is faster. The first steps
of each run, in which things are set up, are left out.
"""

import argparse
import contextlib
import os
import platform
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from labs.course.options import Settings
from labs.kit import Run, assets
from labs.kit.run.console import Output
from labs.kit.run.devices import describe_device
from labs.llm08_training import lesson as lab

import torch
import transformers
from accelerate.state import AcceleratorState, GradientState
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

BATCH, ACCUMULATE, FIRST = 16, 2, 2
LR, CLIP = 1e-3, 1.0


def model_of(run: Run, name: str) -> Any:
    if name == "small":
        return lab.build(run, 0)
    path = assets.glass() if name == "glass" else assets.smollm2()
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


class Clock(TrainerCallback):
    """When each step has ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(lab.now())


class InOrder(Trainer):
    """Trainer, with rows in their own order."""

    def _get_train_sampler(self, *_: Any, **__: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def theirs(run: Run, model: Any, rows: list[lab.Row], steps: int) -> tuple[list[float], float]:
    """When the steps ended, and the mean loss over all of them."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        how = TrainingArguments(
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
        trainer = InOrder(model, how, collate, rows, callbacks=[clock])
        with contextlib.redirect_stdout(None):
            ended = trainer.train()
    return clock.times, ended.training_loss


class Ordered(lab.DataLoader):
    """The lab's loader, with rows in their own order."""

    def __init__(self, rows: Any, size: int, _: bool, **how: Any) -> None:
        super().__init__(rows, size, False, **how)


class Clocked(lab.Checkpoints):
    """It saves nothing, and notes when each step has ended."""

    times: ClassVar[list[float]] = []

    def save_if_due(self, done: int) -> None:
        del done
        self.times.append(lab.now())

    def save(self, done: int) -> None:
        pass


class Constant(lab.Recipe):
    def rate(self, step: int) -> float:
        del step
        return self.lr


def ours(run: Run, model: Any, rows: list[lab.Row], steps: int) -> tuple[list[float], float]:
    how, Clocked.times = Constant(steps, LR, 0, BATCH, ACCUMULATE, CLIP), []
    fused = partial(torch.optim.AdamW, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    done = lab.train(run, "ours", model, rows, how, optimizer=fused, checkpoints=Clocked(run, "o"))
    return Clocked.times, sum(done.losses) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--model", choices=("small", "glass", "smollm2"), default="small")
    asked = parser.parse_args()
    logging.set_verbosity_error()
    lab.DataLoader = Ordered
    rows = lab.encoded(lab.split(0, 4000)[0])[: BATCH * ACCUMULATE * asked.steps]
    rounds = [one_round(asked.model, rows, asked.steps) for _ in range(asked.rounds + 1)][1:]
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{describe_device(device())}; {versions}, transformers {transformers.__version__}")
    print(f"{asked.model}: milliseconds per step of {BATCH * ACCUMULATE} rows [range]")
    mine, library = zip(*rounds, strict=True)
    ratios = [a / b for a, b in rounds]
    for name, found in (("ours", mine), ("Trainer", library), ("ours over Trainer's", ratios)):
        print(f"{name:20} {median(found):.3f} [{min(found):.3f}, {max(found):.3f}]")


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def one_round(name: str, rows: list[lab.Row], steps: int) -> tuple[float, float]:
    """Milliseconds per step, ours and Trainer's."""
    speeds, losses = [], []
    for way in (ours, theirs):
        for state in (AcceleratorState, GradientState):  # else one's settings would be the other's
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
