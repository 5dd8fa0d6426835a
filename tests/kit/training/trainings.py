"""A small training that tests interrupt, resume and compare."""

import json
import os
import random
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import Clone, Ended, Running

OPTIONS = """
steps: int = option("", 40, type=int)
every: int = option("", 3, type=int)
width: int = option("", 32, type=int)
dropout: float = option("", 0.1, type=float)
rate: float = option("", 3e-3, type=float)
loader: bool = option("rows come from a DataLoader", False)
poison: str = option("STEP,PROCESS: where the batch becomes NaN", "")
crash: bool = option("after the training", False)
"""
TRAINS = '''
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from labs.kit import Checkpoints, batches, stop_on_nan

class Small(nn.Module):
    """A transformer of one layer over bytes, its embedding tied to its head."""

    def __init__(self, width, dropout):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout, batch_first=True)
        self.head = nn.Linear(width, 256, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.layer(self.embedding(x)))


def rows():
    text = torch.frombuffer(bytearray(Path(__file__).read_bytes()), dtype=torch.uint8)
    return text[: len(text) // 17 * 17].view(-1, 17).long()  # (N, 17)


def sample(run, data, draws):
    """Yield batches of 8 rows, drawn by a generator that the checkpoints include."""
    while True:
        yield run.share(data[torch.randint(len(data), (8,), generator=draws)])


@lab.experiment
def trains(run: Run):
    """Many steps of AdamW."""
    options = run.options
    data = rows()
    checkpoints = Checkpoints(
        run, "many steps", depends_on={"rate": options.rate}, every_steps=options.every
    )
    torch.manual_seed(run.seed)
    model = Small(options.width, options.dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / options.steps)
    own = torch.Generator().manual_seed(run.seed)
    loader = DataLoader(data, 8, shuffle=True, drop_last=True, generator=own)
    model, optimizer, schedule, loader = run.accelerator.prepare(
        model, optimizer, schedule, loader
    )
    draws = torch.Generator().manual_seed(run.seed)
    curve = []
    rates = []
    checkpoints.include(draws=draws, curve=curve, rates=rates)
    done = checkpoints.resume()
    run.say(f"starts at {done}")
    feed = batches(run, loader, done) if options.loader else sample(run, data, draws)
    for step, batch in zip(range(done, options.steps), feed):
        batch = batch.to(run.device)
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        if options.poison == f"{step},{run.accelerator.process_index}":
            loss = loss * float("nan")
        curve.append(stop_on_nan(run, loss, step, {"rows": batch}))
        run.accelerator.backward(loss)
        run.accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
        optimizer.zero_grad()
        run.log({"loss": curve[-1]}, step)
        if run.accelerator.is_main_process:
            print(f"step {step}", flush=True)
        checkpoints.save_if_due(step + 1)
    checkpoints.save(options.steps)
    run.measure("losses", curve)
    run.measure("rates", rates)
    run.measure("seconds", checkpoints.seconds, timed=True)
    if run.accelerator.is_main_process:
        plain = {name: one.clone() for name, one in model.state_dict().items()}
        save_file(plain, run.folder / "final.safetensors")
    if options.crash:
        raise RuntimeError("after the training")
'''


@dataclass
class Finished:
    """The results of a run that ended: the final weights, the experiments, the lab's folder."""

    weights: bytes
    experiments: list[dict[str, Any]]
    runs: Path


@dataclass
class Training:
    """The training in a clone, with the options of every run of it."""

    clone: Clone
    words: tuple[str, ...] = ()
    folder: str = "outputs"
    lab: str = "LLM90"

    @property
    def runs(self) -> Path:
        return self.clone.path / self.folder / self.lab

    @property
    def snapshots(self) -> list[Path]:
        """Return every checkpoint, sorted by its step."""
        return sorted(self.runs.glob("checkpoints/*/step-*"), key=lambda one: one.name)

    def command(self, *more: str) -> list[str]:
        return ["-m", "labs", self.lab, "--precision", "fp32", *self.words, *more]

    def start(self, *more: str, **variables: Any) -> Running:
        variables = {"PYTHONPATH": str(self.clone.path), "OMP_NUM_THREADS": "1", **variables}
        return self.clone.start(sys.executable, *self.command(*more), **variables)

    def run(self, *more: str, **variables: Any) -> Ended:
        return self.start(*more, **variables).ended()

    def kill_at(self, step: int, seconds: float = 0, *more: str) -> str:
        """Kill a run some seconds after a step; return what it printed."""
        running = self.start(*more)
        running.wait_for(f"step {step}\n")
        time.sleep(seconds)
        os.kill(running.process.pid, signal.SIGKILL)
        assert running.ended().code == -signal.SIGKILL, running.text
        return running.text

    def kill_at_random(self, dice: random.Random, least: int, most: int) -> str:
        """Kill a run at a random moment, `least` to `most` steps after its first step."""
        running = self.start()
        running.wait_for("starts at ")
        running.wait_for(lambda: first_step(running.text) is not None)
        running.wait_for(f"step {first_step(running.text) + dice.randint(least, most)}\n")
        time.sleep(dice.uniform(0, 0.02))
        os.kill(running.process.pid, signal.SIGKILL)
        assert running.ended().code == -signal.SIGKILL, running.text
        return running.text

    def finished(self) -> Finished:
        """Return what the only finished run wrote."""
        (weights,) = self.runs.glob("*/final.safetensors")
        results = json.loads((weights.parent / "results.json").read_text())
        return Finished(weights.read_bytes(), results["experiments"], self.runs)


def first_step(text: str) -> int | None:
    """Return the step at which a run starts, from its output."""
    line = re.search(r"starts at (\d+)\n", text)
    return int(line[1]) if line else None


DAMAGES = ("a flipped bit", "half a file", "an empty manifest", "a lost file", "a lost manifest")


def damage(snapshot: Path, how: str) -> None:
    """Damage a checkpoint as a faulty disk or a power failure can."""
    optimizer = snapshot / "optimizer.bin"
    model = snapshot / "model.safetensors"
    if how == "a flipped bit":
        data = bytearray(optimizer.read_bytes())
        data[len(data) // 2] ^= 1
        optimizer.write_bytes(data)
    elif how == "half a file":
        os.truncate(model, model.stat().st_size // 2)
    elif how == "an empty manifest":
        (snapshot / "manifest.json").write_bytes(b"")
    elif how == "a lost file":
        (snapshot / "random_states_0.pkl").unlink()
    elif how == "a lost manifest":
        (snapshot / "manifest.json").unlink()
