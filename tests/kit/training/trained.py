"""A training of a few steps in this process, for tests of its checkpoints."""

import io
from pathlib import Path
from typing import Any

from common.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.kit.training.checkpoints import Checkpoints

import torch
from torch import nn

STEPS = 9


class Trained:
    """A training of STEPS steps with dropout, run up to step `until`; it may be a resumed one."""

    def __init__(self, folder: Path, until: int = STEPS, name: str = "it", **keywords: Any) -> None:
        settings = {key: keywords.pop(key) for key in ("seed", "resume") if key in keywords}
        self.log = io.StringIO()
        self.run = Run(Settings(**settings), "fp32", Output(self.log, silent=True), folder)
        self.checkpoints = Checkpoints(self.run, name, **{"every_steps": 2, **keywords})
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        self.model, self.optimizer = self.run.accelerator.prepare(model, optimizer)
        self.draws = torch.Generator().manual_seed(1)
        self.curve: list[float] = []
        self.checkpoints.include(draws=self.draws, curve=self.curve)
        self.done = self.checkpoints.resume()
        for step in range(self.done, until):
            self.step()
            self.checkpoints.save_if_due(step + 1)

    def step(self) -> None:
        x = torch.randn(3, 4, generator=self.draws)
        loss = (self.model(x) - x.sum(-1, keepdim=True)).square().mean()
        self.run.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.curve.append(loss.item())

    @property
    def weights(self) -> list[float]:
        return torch.cat([one.detach().flatten() for one in self.model.parameters()]).tolist()

    @property
    def output(self) -> str:
        return self.log.getvalue()


def all_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoints/*/step-*"), key=lambda one: one.name)


def steps(folder: Path) -> list[int]:
    return [int(one.name.split("-")[1]) for one in all_in(folder)]
