"""Pairs of shapes to broadcast, and the shape or error that PyTorch gives for them."""

import random
from collections.abc import Callable
from typing import Any

import torch

Shape = tuple[int, ...]
Pair = tuple[Shape, Shape]

TWELVE: list[Pair] = [
    ((4, 3), (3,)),
    ((4, 3), (4,)),
    ((4, 3), (4, 1)),
    ((4,), (4, 1)),
    ((2, 5), ()),
    ((8, 1, 6), (7, 1)),
    ((2, 3, 4), (2, 4)),
    ((2, 3, 4), (2, 1, 4)),
    ((5, 1), (1, 0)),
    ((5, 2), (5, 0)),
    ((2, 9, 50, 50), (2, 1, 1, 50)),
    ((2, 9, 50, 50), (2, 50)),
]


def random_pairs(n: int) -> list[Pair]:
    """Return n pairs of shapes of up to four axes, with many ones."""
    return [(_random_shape(), _random_shape()) for _ in range(n)]


def _random_shape() -> Shape:
    return tuple(random.choices((0, 1, 1, 2, 3), k=random.randrange(5)))


def pytorchs_shape(a: Shape, b: Shape) -> Shape:
    """Return the shape of a sum on the meta device, where tensors have a shape and no numbers."""
    return tuple((torch.empty(a, device="meta") + torch.empty(b, device="meta")).shape)


def shapes_or_errors(shape_of: Callable[[Shape, Shape], Shape], pairs: list[Pair]) -> list[Any]:
    """Return the shape of each sum, or "error" if the two don't fit."""
    return [_shape_or_error(shape_of, pair) for pair in pairs]


def _shape_or_error(shape_of: Callable[[Shape, Shape], Shape], pair: Pair) -> Any:
    try:
        return tuple(shape_of(*pair))
    except (ValueError, RuntimeError):
        return "error"


def compare(shape_of: Callable[[Shape, Shape], Shape], pairs: list[Pair]) -> list[list[Any]]:
    """Return a row for each pair: both shapes, the sum's shape by the rule, and PyTorch's."""
    ours = shapes_or_errors(shape_of, pairs)
    theirs = shapes_or_errors(pytorchs_shape, pairs)
    return [[*pair, mine, its] for pair, mine, its in zip(pairs, ours, theirs, strict=True)]


def count_equal(rows: list[list[Any]]) -> int:
    """Return in how many rows of a comparison the rule and PyTorch agree."""
    return sum(mine == its for _, _, mine, its in rows)
