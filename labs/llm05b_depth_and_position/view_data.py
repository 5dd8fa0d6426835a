"""The data of LLM05b's interactive views."""

from labs.kit import Run

import torch

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


def products(
    q: torch.Tensor, k: torch.Tensor, frequencies: torch.Tensor, key: int, offset: int
) -> torch.Tensor:
    """Return each pair's part of q·k and their sum, (pairs + 1,)."""
    one = torch.ones_like(frequencies)
    turned_q = torch.view_as_complex(q) * torch.polar(one, frequencies * (key + offset))
    turned_k = torch.view_as_complex(k) * torch.polar(one, frequencies * key)
    parts = (turned_q * turned_k.conj()).real
    return torch.cat((parts, parts.sum()[None]))
