"""The data of LLM08's view: the same rows as a padded batch and as packs."""

from collections.abc import Callable
from typing import Any

from labs.llm08_training.training import Batch, Row

Grid = dict[str, Any]
View = tuple[dict[str, Any], str, list[str], list[list[Any]]]  # data, caption, columns, rows
IGNORED = -100
CAPTION = (
    "The same four rows as a padded batch and as two packs of two rows. Choose a token: the text "
    "below names its label, its position and which tokens its mask lets it see. Special tokens are "
    "written without their <| and |>. Long lines scroll sideways."
)


def batch(
    words: Any,
    rows: list[Row],
    collate: Callable[[list[Row], int], Batch],
    collate_packs: Callable[[list[list[Row]], int], Batch],
    pad: int,
) -> View:
    """Return the view of a batch; its table counts places, padding and labels.

    Args:
        words: the tokenizer.
        rows: an even number of rows, which are packed by two.
        collate: makes a padded batch.
        collate_packs: makes a batch of packs.
        pad: the padding token.
    """
    padded = collate(rows, pad)
    half = len(rows) // 2
    packed = collate_packs([rows[:half], rows[half:]], pad)
    length = padded["attention_mask"].sum(1).tolist()
    grids = [
        _grid("padded", words, padded, lambda i, j: [0, j] if j < length[i] else None),
        _grid("packed", words, packed, lambda i, j: _seen(packed, i, j)),
    ]
    for grid, lines in zip(
        grids, ([[row] for row in rows], [rows[:half], rows[half:]]), strict=True
    ):
        for line, members in zip(grid["lines"], lines, strict=True):
            used = sum(len(row["input_ids"]) for row in members)
            for cell in line[used:]:
                cell["padding"] = True
    table = [
        [
            grid["name"],
            len(grid["lines"]),
            len(grid["lines"][0]),
            sum("padding" in cell for line in grid["lines"] for cell in line),
            sum(cell["label"] is not None for line in grid["lines"] for cell in line),
        ]
        for grid in grids
    ]
    return (
        {"grids": grids},
        CAPTION,
        ["batch", "lines", "places a line", "padding", "labels"],
        table,
    )


def _seen(packed: Batch, i: int, j: int) -> list[int]:
    """Return the first and the last place that a place of a pack may look at."""
    places = packed["attention_mask"][i, 0, j].nonzero().flatten()
    return [int(places.min()), int(places.max())]


def _grid(
    name: str, words: Any, batch: Batch, seen: Callable[[int, int], list[int] | None]
) -> Grid:
    ids = batch["input_ids"]
    positions = batch.get("position_ids")
    lines = [
        [
            {
                "token": _short(words, int(ids[i, j])),
                "label": _label(words, int(batch["labels"][i, j])),
                "position": j if positions is None else int(positions[i, j]),
                "sees": seen(i, j),
            }
            for j in range(ids.shape[1])
        ]
        for i in range(ids.shape[0])
    ]
    return {"name": name, "lines": lines}


def _short(words: Any, token: int) -> str:
    """Return a token without the marks of special tokens: more of a row fits into the page."""
    return words.convert_ids_to_tokens(token).removeprefix("<|").removesuffix("|>")


def _label(words: Any, label: int) -> str | None:
    return None if label == IGNORED else _short(words, label)
