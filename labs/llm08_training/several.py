"""Train as one of several processes, which a lab starts, and the same in a single process."""

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from common.options import Settings
from labs.kit import Run
from labs.kit.run.console import Output
from labs.kit.run.processes import end_with_parent, rank, run_group
from labs.llm08_training.lesson import (
    BETAS,
    PARTS,
    AdamW,
    collate,
    encode,
    label_count,
    label_sum,
    lr_at,
)
from labs.llm08_training.training import Batch, Recipe, Row, in_groups, rows_of, train
from labs.llm08_training.word_tasks import PAD, build

import torch
from torch import nn
from torch.utils.data import DataLoader

SEVERAL = Recipe(steps=10, warmup=2)


def one_of_several(folder: str, size: str, seed: int) -> None:
    """Train as one of several processes; write losses, rows and counts into a file."""
    end_with_parent()
    seen: list[Row] = []

    def make(rows: list[Row]) -> Batch:
        seen.extend(rows)
        return collate(rows, PAD)

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        run = Run(Settings(size, seed=seed), "fp32", Output(nowhere, silent=True), Path(folder))
        loop = replace(PARTS.loop, collate=make)
        rows = rows_of(encode, seed, 4000)
        done = train(run, "several", build(run, seed), rows, SEVERAL, loop)
        five = run.accelerator.prepare(DataLoader(cast(Any, range(5)), 2))
        ways: Any = (run.accelerator.gather, run.accelerator.gather_for_metrics)
        counts = [[row for batch in five for row in way(batch).tolist()] for way in ways]
        record = {"id": os.getpid(), "losses": done.losses, "seen": seen, "counts": counts}
        (Path(folder) / f"{rank()}.json").write_text(json.dumps(record), encoding="utf-8")
        run.accelerator.end_training()


def start_two(size: str, seed: int) -> list[dict[str, Any]]:
    """Start two processes, on the CPU wherever the lab runs; return what they recorded."""
    code = "from labs.llm08_training import several; several.one_of_several({!r}, {!r}, {})"
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code.format(folder, size, seed)]
        if run_group(2, command, PYTHONPATH=str(root), **hidden):
            raise RuntimeError("a process failed; its output is above")
        return [json.loads((Path(folder) / f"{i}.json").read_text("utf-8")) for i in range(2)]


def plainly(run: Run, steps: list[list[Row]], parts: int = 1) -> list[float]:
    """Return the losses of the same training in plain PyTorch, in one process.

    Args:
        run: the run.
        steps: the rows of each step.
        parts: with more than 1, the rows of a step are cut into equal parts, whose mean losses are
            averaged: a mistake.
    """
    model = build(run, run.seed)
    optimizer = AdamW(model.parameters(), SEVERAL.lr, BETAS)
    losses = []
    for step, rows in enumerate(steps):
        batches = [collate(part, PAD) for part in in_groups(rows, len(rows) // parts)]
        means = [label_sum(model, batch) / label_count(batch) for batch in batches]
        loss = torch.stack(means).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), SEVERAL.clip)
        optimizer.param_groups[0]["lr"] = SEVERAL.lr * lr_at(step, SEVERAL.steps, SEVERAL.warmup)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
