"""A vector and its norms, for the view of LLM05a."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

VECTOR = (0.9, -1.6, 0.3, 1.4, -0.4, -1.0, 0.1, 0.6)
SETTINGS = (
    (1.0, 0.0, 1e-5),
    (10.0, 0.0, 1e-5),
    (1.0, 3.0, 1e-5),
    (0.001, 0.0, 1e-5),
    (0.001, 0.0, 1e-12),
)
WRITTEN = {1e-5: "10⁻⁵", 1e-12: "10⁻¹²"}  # 1e-05 would break over two lines
CAPTION = (
    "A vector of eight numbers, multiplied by a scale and moved by a shift, and both norms of the "
    "result (γ = 1, β = 0). Size is the root of the mean square. Try the shifts 0 and 5, then "
    "the shift 0 with a scale near √ε."
)
COLUMNS = [
    "scale",
    "shift",
    "ε",
    "size before",
    "LayerNorm: size",
    "LayerNorm: first entry",
    "RMSNorm: size",
    "RMSNorm: first entry",
]

View = tuple[dict[str, Any], str, list[str], list[list[Any]]]


def norms(layer_norm: Callable[..., Tensor], rms_norm: Callable[..., Tensor]) -> View:
    """Return what `run.view` needs after kind and name: data, caption, columns and rows."""
    x = torch.tensor(VECTOR, dtype=torch.float64)
    ones = torch.ones_like(x)
    rows: list[list[Any]] = []
    for scale, shift, eps in SETTINGS:
        given = scale * x + shift
        row: list[Any] = [f"{scale:g}", f"{shift:g}", WRITTEN[eps], _size(given)]
        for normed in (layer_norm(given, ones, 0 * ones, eps), rms_norm(given, ones, eps)):
            row += [_size(normed), normed[0].item()]
        rows.append(row)
    return {"vector": list(VECTOR)}, CAPTION, COLUMNS, rows


def _size(x: Tensor) -> float:
    """Return the root of the mean square."""
    return x.square().mean().sqrt().item()
