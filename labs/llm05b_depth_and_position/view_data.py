"""The data of LLM05b's interactive views."""

from collections.abc import Mapping
from itertools import pairwise

from labs.kit import Run
from labs.llm05b_depth_and_position.training import Reading

import torch
from torch import Tensor

PAIRS = 4
KEYS = 200  # positions of the key
OFFSETS = 64


def show_rotation(run: Run, base: float = 10_000.0) -> None:
    """Show the pairs of a query and a key of 8 entries, to be rotated on the page."""
    start = torch.tensor([0.9, 2.4, 1.7, 3.6], dtype=torch.float64)  # the query's angles
    apart = torch.tensor([0.5, -0.4, 0.3, 0.2], dtype=torch.float64)  # the key's, minus those
    q = torch.stack((start.cos(), start.sin()), -1)  # (pairs, 2)
    k = torch.stack(((start + apart).cos(), (start + apart).sin()), -1)
    frequencies = base ** (-torch.arange(PAIRS, dtype=torch.float64) / PAIRS)
    data = {
        "q": q.tolist(),
        "k": k.tolist(),
        "frequencies": frequencies.tolist(),
        "keys": KEYS,
        "offsets": OFFSETS,
    }
    rows = [
        [key, offset, *products(q, k, frequencies, key, offset).tolist()]
        for offset in (0, 1, 2, 8, 32)
        for key in (0, 5, 100)
    ]
    columns = ["key at", "offset", *(f"pair {i}" for i in range(PAIRS)), "q·k"]
    caption = (
        "RoPE on a head of 8 entries. Each circle shows one pair of the query and of the key; the "
        "number below is its part of q·k, which no √D divides here. Move the key along the text: "
        "all pairs turn, and no number changes. Change the offset: the fast pairs' numbers change "
        "at once, the slow pairs' hardly."
    )
    run.view("rotation", "rotation", data, caption, columns, rows)


def products(q: Tensor, k: Tensor, frequencies: Tensor, key: int, offset: int) -> Tensor:
    """Return each pair's part of q·k and their sum, (pairs + 1,)."""
    one = torch.ones_like(frequencies)
    turned_q = torch.view_as_complex(q) * torch.polar(one, frequencies * (key + offset))
    turned_k = torch.view_as_complex(k) * torch.polar(one, frequencies * key)
    parts = (turned_q * turned_k.conj()).real
    return torch.cat((parts, parts.sum()[None]))


def show_lengths(run: Run, read: Mapping[str, Reading], length: int, bigram: Tensor) -> None:
    """Show the loss along texts of 8 T characters, a line for each encoding.

    Args:
        run: the run.
        read: the losses, by encoding.
        length: the trained length, T.
        bigram: the bigram's loss at each place, (8 T,).
    """
    octaves = len(bigram).bit_length() - 1
    edges = [round(2 ** (half / 2)) for half in range(4, 2 * octaves + 1)]  # 4, 6, 8 … 8 T

    def binned(losses: Tensor) -> list[float]:
        return [losses[a:b].mean().item() for a, b in pairwise(edges)]

    means = {name: binned(torch.stack(each.by_place).mean(0)) for name, each in read.items()}
    baseline = binned(bigram)
    data = {
        "edges": edges,
        "trained": length,
        "encodings": [{"name": name, "losses": losses} for name, losses in means.items()],
        "baseline": {"name": "bigram", "losses": baseline},
    }
    rows = [
        [f"{a} to {b - 1}", *(losses[i] for losses in (*means.values(), baseline))]
        for i, (a, b) in enumerate(pairwise(edges))
    ]
    caption = (
        f"Models that were trained on {length} characters read texts of {edges[-1]}; means over "
        "the seeds. Some places are harder than others for every model. So the bigram's loss at "
        "the same places is subtracted. Move past the trained length: which encoding fails, and "
        "where?"
    )
    run.view("lengths", "loss_by_length", data, caption, ["characters", *means, "bigram"], rows)
