"""The data of LLM02, digits and spirals, with what any method on them is compared with."""

import math
from collections.abc import Callable, Sequence
from functools import cache

from labs.kit import assets

import torch
from torch import Tensor

Sets = Sequence[tuple[Tensor, Tensor]]  # images (n, 64) and labels (n,) of each set


def spirals(n: int, turns: float = 2.0) -> tuple[Tensor, Tensor]:
    """Sample points on two spiral arms, evenly over the disc, after Lang & Witbrock (1988).

    Args:
        n: number of points.
        turns: of each arm, from the centre to the edge.

    Returns:
        The points (n, 2) and the arm of each, 0 or 1, (n,).
    """
    radius = torch.rand(n).sqrt()
    arm = torch.randint(2, (n,))
    angle = 2 * math.pi * turns * radius + math.pi * arm
    points = radius[:, None] * torch.stack((angle.cos(), angle.sin()), 1)  # (n, 2)
    return points + 0.02 * torch.randn(n, 2), arm


def best_line(x: Tensor, y: Tensor, directions: int = 720) -> float:
    """Return the accuracy of the best of many straight lines between two classes.

    The lines have every place, in each of the directions. Chosen by these points, the best one is a
    strong opponent; a line in a direction between two others may be better by a few points.

    Args:
        x: points (n, 2).
        y: their classes, 0 or 1, (n,).
        directions: number of directions to try, over half a turn.
    """
    angle = math.pi * torch.arange(directions) / directions
    projected = x @ torch.stack((angle.cos(), angle.sin()))  # (n, directions)
    order = projected.argsort(0)
    lead = (2 * y - 1)[order].cumsum(0)  # points of class 1 minus class 0 before each place
    excess = (lead - lead[-1] / 2).abs().max()  # abs: either side may be class 1
    return (excess / len(y)).item() + 0.5


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return handwritten digits in a fixed random order, split into training and test sets.

    Returns:
        Images (1437, 64) with values from 0 to 1 and labels (1437,) for training, then 360 of
        each for testing.
    """
    images, labels = assets.digits()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = images.flatten(1)[order]  # (1797, 8, 8) -> (1797, 64)
    labels = labels[order]
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


def batches_of(size: int, n: int, steps: int) -> list[Tensor]:
    """Return the indices of `steps` batches: n examples in random order, then in a new order.

    The last examples of an order that don't fill a batch are dropped.
    """
    per_epoch = n // size
    epochs = math.ceil(steps / per_epoch)
    orders = [torch.randperm(n)[: per_epoch * size].view(-1, size) for _ in range(epochs)]
    return list(torch.cat(orders)[:steps])


def accuracy(model: Callable, x: Tensor, y: Tensor) -> float:
    """Return the fraction of x (B, n) whose largest logit is that of its class, y (B,)."""
    return (model(x).data.argmax(-1) == y).float().mean().item()


def digit_sets(
    device: torch.device | str, dtype: torch.dtype = torch.float32
) -> list[tuple[Tensor, Tensor]]:
    """Return 1,237 digits for training, 200 for validation and 360 for testing, on a device."""
    x, y, x_test, y_test = digits()
    sets = [(x[:-200], y[:-200]), (x[-200:], y[-200:]), (x_test, y_test)]
    return [(images.to(device, dtype), labels.to(device)) for images, labels in sets]


def average_images() -> Tensor:
    """Return the average training image of each digit, (10, 64)."""
    (x, y), *_ = digit_sets("cpu")
    return torch.stack([x[y == digit].mean(0) for digit in range(10)])


@cache
def nearest_average() -> float:
    """Return the test accuracy of naming the digit with the nearest average training image."""
    _, _, (x, y) = digit_sets("cpu")
    return accuracy(lambda z: -torch.cdist(z, average_images()), x, y)


def unbroken(close: Sequence[bool], index: int) -> tuple[int, int]:
    """Return the first and the last index of the run of True values around an index."""
    first = last = index
    while first > 0 and close[first - 1]:
        first -= 1
    while last + 1 < len(close) and close[last + 1]:
        last += 1
    return first, last


def near_the_best(right: Tensor) -> tuple[int, int]:
    """Return the first and last rate that are near the best, from accuracies (rates, seeds).

    Near is within two standard errors, where a paired difference of two accuracies on 200 images
    has at most the variance (e₁ + e₂)/200.
    """
    errors = 1 - right.mean(1)
    best = int(errors.argmin())
    near = errors - errors[best] <= 2 * ((errors + errors[best]) / 200).sqrt()
    return unbroken(near.tolist(), best)


def paired_lead(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Return a's lead over b, in digits of 360, and its standard error; both are (seeds, 360)."""
    scores = (a - b).mean(0)  # (360,)
    return scores.sum().item(), scores.std().item() * math.sqrt(len(scores))


def may_be_chance(lead: float, error: float) -> str:
    """Return a sentence, after a space, if a lead is within two standard errors of 0."""
    if abs(lead) > 2 * error:
        return ""
    return " That is within two standard errors of 0, so it may be chance."
