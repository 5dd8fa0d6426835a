"""The picture of section 1 of LLM07, and its view: W, B A and their sum at each rank."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_PIXELS = """
.........................
.#...........####...###..
.#...........#...#.#...#.
.#......###..#...#.#...#.
.#.....#...#.####..#####.
.#.....#...#.#.#...#...#.
.#.....#...#.#..#..#...#.
.#####..###..#...#.#...#.
.........................
"""
CAPTION = (
    "W is a corner of a real weight matrix of glass, a small language model, scaled so that its "
    "largest number is 0.5. Blue is negative, orange positive. Move the rank: how few products "
    "draw the letters, and how few draw noise? Point at an entry, or move the frame with the arrow "
    "keys, to see its numbers."
)
COLUMNS = ["ΔW", "rank", "numbers in A and B", "numbers in ΔW", "share of its sum of squares"]

View = tuple[dict[str, Any], str, list[str], list[list[Any]]]


def letters() -> Tensor:
    """Return the word LoRA as a picture of zeros and ones, (9, 25), in float64."""
    rows = [[float(pixel == "#") for pixel in line] for line in _PIXELS.split()]
    return torch.tensor(rows, dtype=torch.float64)


def noise() -> Tensor:
    """Return random numbers of the same shape, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(letters().shape, generator=generator, dtype=torch.float64) / 2


def view(weight: Tensor, low_rank: Callable[..., tuple[Tensor, Tensor]]) -> View:
    """Return what `run.view` needs: data, caption, columns and rows.

    Args:
        weight: a real weight matrix, at least as large as the picture.
        low_rank: the lesson's function: a matrix and a rank -> A and B.
    """
    shape = letters().shape
    corner = weight[: shape[0], : shape[1]].detach().double()
    matrices: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    for name, target in {"letters": letters(), "noise": noise()}.items():
        a, b = low_rank(target, min(shape))
        matrices.append({"name": name, "a": a.tolist(), "b": b.tolist()})
        for rank in (1, 2, 4, 7):
            product = b[:, :rank] @ a[:rank]
            share = product.square().sum() / target.square().sum()
            rows.append([name, rank, rank * sum(shape), target.numel(), share.item()])
    data = {"base": (0.5 * corner / corner.abs().max()).tolist(), "matrices": matrices}
    return data, CAPTION, COLUMNS, rows
