"""The training curve of LLM10, to point at."""

from collections.abc import Mapping, Sequence
from typing import Any

CAPTION = (
    "The training, step by step. Thin: the loss of each batch; thick: the mean of five; dots: the "
    "loss on validation text; dotted: what counting gives. The learning rate is that of the "
    "matrices. The samples follow a newline, at temperature 0.8 within the top 0.95."
)
COLUMNS = ["steps", "validation loss", "learning rate", "sample"]


def curve(
    losses: Sequence[float],
    rates: Sequence[float],
    seen: Mapping[Any, Sequence[Any]],
    baselines: Mapping[str, float],
) -> tuple[dict[str, Any], str, list[str], list[list[Any]]]:
    """Return what `run.view` needs: data, caption, columns and rows.

    Args:
        losses: the training loss before each step, in nats per token.
        rates: the learning rate of each step.
        seen: by the number of steps done, the validation loss and a sample.
        baselines: the losses of other models, by name.
    """
    looks = [{"step": int(step), "loss": loss, "text": text} for step, (loss, text) in seen.items()]
    data: dict[str, Any] = {
        "losses": list(losses),
        "rates": list(rates),
        "seen": looks,
        "baselines": [{"name": name, "loss": loss} for name, loss in baselines.items()],
        "unit": "nats per token",
    }
    rows = [[n, loss, rates[n - 1], repr(text)] for n, loss, text in map(dict.values, looks)]
    return data, CAPTION, COLUMNS, rows
