"""A training of LLM09+ that can be saved in parts and resumed."""

from collections.abc import Callable
from typing import Any

from labs.llm09_custom_architectures.training import images

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 80


class Training:
    """A training of 80 steps that can be saved in parts and resumed.

    It has a model with dropout, AdamW, a rate that falls to 0, and an order of batches.
    """

    def __init__(self, kind: Callable[..., Any], seed: int) -> None:
        torch.manual_seed(seed)
        self.model = kind(dropout=0.2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        falls = torch.optim.lr_scheduler.LambdaLR
        self.schedule = falls(self.optimizer, lambda step: 1 - step / STEPS)
        self.order = torch.Generator().manual_seed(seed)

    def step(self) -> float:
        """Train on the next batch of 32 images; return its loss."""
        x, y, *_ = images()
        batch = torch.randint(len(x), (32,), generator=self.order)
        loss = F.cross_entropy(self.model(x[batch]), y[batch])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Return the six parts of the state, by name."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            "random numbers": torch.get_rng_state(),
            "weights": dict(self.model.named_parameters()),
            "buffers": dict(self.model.named_buffers()),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load the parts in `state`; leave the others unchanged."""
        loaders = {
            "weights": self._load_tensors,
            "buffers": self._load_tensors,
            "optimizer": self.optimizer.load_state_dict,
            "schedule": self.schedule.load_state_dict,
            "order": self.order.set_state,
            "random numbers": torch.set_rng_state,
        }
        for part, load in loaders.items():
            if part in state:
                load(state[part])

    def _load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.model.load_state_dict(tensors, strict=False)
