"""Memory bandwidth of a card, and copies between it and the host."""

from labs.kit.acceptance.rounds import Task

import torch
from torch import Tensor


def memory_tasks(device: torch.device, size: int) -> list[Task]:
    """Return the tasks for the memory of a device: a copy and a triad, a = b + 2·c.

    Args:
        device: the device.
        size: the bytes of each array.
    """
    b = _integers(size, device, 1)
    c = _integers(size, device, 2)
    copied = torch.empty_like(b)
    summed = torch.empty_like(b)
    return [
        Task(
            "memory copy",
            "GB/s",
            2.0 * size,
            lambda: copied.copy_(b),
            lambda _: _differing(copied, b),
        ),
        Task(
            "memory triad",
            "GB/s",
            3.0 * size,
            lambda: torch.add(b, c, alpha=2, out=summed),
            lambda _: _differing(summed, b + 2 * c),
        ),
    ]


def transfer_tasks(device: torch.device, size: int) -> list[Task]:
    """Return the tasks for copies between the host's pinned memory and a GPU."""
    host = _integers(size, torch.device("cpu"), 1).pin_memory()
    back = torch.empty_like(host).pin_memory()
    card = torch.empty_like(host, device=device)
    return [
        Task(
            "copy, host to card",
            "GB/s",
            float(size),
            lambda: card.copy_(host, non_blocking=True),
            lambda _: _differing(card.cpu(), host),
        ),
        Task(
            "copy, card to host",
            "GB/s",
            float(size),
            lambda: back.copy_(card, non_blocking=True),
            lambda _: _differing(back, host),
        ),
    ]


def _integers(size: int, device: torch.device, seed: int) -> Tensor:
    """Return float32 integers below 1000, which a triad adds exactly."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 1000, (size // 4,), generator=generator).float().to(device)


def _differing(found: Tensor, expected: Tensor) -> str:
    wrong = int((found != expected).sum())
    return f"{wrong} of {found.numel()} numbers are wrong" if wrong else ""
