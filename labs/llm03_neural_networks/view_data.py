"""The data of LLM03's view: 2 × 2 matrices to begin with, and what each does to the plane."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

CAPTION = (
    "A matrix moves the plane. Shaded: the moved unit square with its letter F; dashed: the moved "
    "unit circle, whose longest and shortest radius are the two stretches. **Try it**: find a "
    "matrix with area factor 1 that is neither a rotation nor a shear; one of rank 1; one that "
    "stretches everything twofold. Start from the identity and move one slider at a time: which of "
    "the four can mirror the F?"
)
COLUMNS = ["", "a", "b", "c", "d", "ad − bc", "rank", "longest stretch", "shortest stretch"]


def plane(
    matrices: Mapping[str, Sequence[Sequence[float]]],
) -> tuple[dict[str, Any], str, list[str], list[list[Any]]]:
    """Return what `run.view` needs: data, caption, columns and rows.

    Args:
        matrices: 2 × 2 matrices by name, each a list of its rows.
    """
    shown: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    for name, matrix in matrices.items():
        m = torch.tensor(matrix, dtype=torch.float64)
        entries = m.flatten().tolist()
        longest, shortest = torch.linalg.svdvals(m).tolist()
        rank = int(torch.linalg.matrix_rank(m))
        shown.append({"name": name, "entries": entries})
        determinant = round(float(m.det()), 12) + 0.0
        rows.append([name, *entries, determinant, rank, longest, round(shortest, 12) + 0.0])
    return {"matrices": shown}, CAPTION, COLUMNS, rows
