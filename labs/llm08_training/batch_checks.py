"""Check the exercises of LLM08 that make labels, batches and packs, against written-out results."""

from collections.abc import Callable
from typing import Any

from labs.kit import Mistake, expect_close, name_mistake

import torch
from torch import Tensor

Function = Callable[..., Any]
IGNORED = -100
HEADER = [7, 8]  # two tokens; 8 alone is a word like any other
END = 2


def type_of(value: Any) -> str:
    """Return how a message names the type of a value."""
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


# supervise


def supervise(module: Any) -> None:
    """Compare with labels written out, for one and for two turns."""
    implementation = module.supervise
    #       user: 5 8   model: 9 8     user: 6      model: 4 4
    ids = [3, 5, 8, END, *HEADER, 9, 8, END, 3, 6, END, *HEADER, 4, 4, END]
    want = [IGNORED] * len(ids)
    want[6:9] = ids[6:9]
    want[14:17] = ids[14:17]
    got = _labels(implementation, ids)
    _name_labels(got, _wrong_labels(ids, want))
    _expect_labels(got, want, "label each assistant's turn with its end, and nothing else")
    cut = [3, 5, END, *HEADER, 9, 9]
    got = _labels(implementation, cut)
    _name_labels(got, {"a turn that was cut off, without its end, has labels too": [IGNORED] * 7})
    _expect_labels(got, [*[IGNORED] * 5, 9, 9], "a turn without its end: label all of it")
    for row, what in (([], "an empty row"), ([3, 5, END], "a row without an assistant")):
        _expect_labels(_labels(implementation, row), [IGNORED] * len(row), f"{what} has no labels")
    half = [5, *HEADER[:1], 9, END, 7, 9, END]  # 7 alone opens no turn
    got = _labels(implementation, half)
    _expect_labels(got, [IGNORED] * 7, "half a header opens no turn")
    got = _labels(implementation, [5, 9, 4, END], [9])
    _expect_labels(got, [IGNORED, IGNORED, 4, END], "a header may be a single token")


def _labels(implementation: Function, ids: list[int], header: list[int] = HEADER) -> list[int]:
    given = list(ids)
    got = implementation(given, list(header), END)
    if given != ids:
        raise Mistake("the row that was passed in has changed: make a new list for the labels")
    if not isinstance(got, list):
        raise Mistake(f"expected a list of labels, got {type_of(got)}")
    if len(got) != len(ids):
        raise Mistake(f"expected {len(ids)} labels, one for each token, got {len(got)}")
    if any(type(label) is not int for label in got):
        raise Mistake("each label must be an integer: the token, or −100")
    return got


def _wrong_labels(ids: list[int], want: list[int]) -> dict[str, list[int]]:
    without_end = list(want)
    without_end[8] = IGNORED
    without_end[16] = IGNORED
    with_header = list(want)
    for place in (4, 5, 12, 13):
        with_header[place] = ids[place]
    first_only = list(want)
    first_only[14:17] = [IGNORED] * 3
    return {
        "the end token needs its label: without it the model never learns to stop": without_end,
        "the template writes the header, not the model: label it −100": with_header,
        "there may be more than one turn: continue after the first": first_only,
        "is everything after the first header labelled? The next request is not a response": [
            *[IGNORED] * 6,
            *ids[6:],
        ],
        "tokens that don't count have the label −100, not 0": [
            0 if label == IGNORED else label for label in want
        ],
        "the labels are shifted: put each at its token's place; the loss shifts them": [
            *want[1:],
            IGNORED,
        ],
        "all tokens are labelled: the user's are −100": list(ids),
        "the user's tokens are labelled and the assistant's aren't: swap them": [
            IGNORED if label != IGNORED else token for token, label in zip(ids, want, strict=True)
        ],
    }


def _name_labels(got: list[int], mistakes: dict[str, list[int]]) -> None:
    for message, wrong in mistakes.items():
        if got == wrong:
            raise Mistake(message)


def _expect_labels(got: list[int], want: list[int], mistake: str) -> None:
    if got != want:
        raise Mistake(f"expected [{_show(want)}], got [{_show(got)}] (. is −100); {mistake}")


def _show(labels: list[int]) -> str:
    return " ".join("." if label == IGNORED else str(label) for label in labels)


# collate


def collate(module: Any) -> None:
    """Compare with a batch written out."""
    implementation = module.collate
    pad = 2  # this token is also inside a row, and has a label there
    rows = [
        {"input_ids": [5, 6, 2, 7, 2], "labels": [IGNORED, IGNORED, IGNORED, 7, 2]},
        {"input_ids": [9, 2], "labels": [IGNORED, 2]},
        {"input_ids": [4, 4, 4], "labels": [IGNORED] * 3},
    ]
    before = repr(rows)
    got = implementation(rows, pad)
    if repr(rows) != before:
        raise Mistake("the rows that were passed in have changed: write into new tensors")
    want = _batch(rows, pad)
    _expect_batch(got, want)
    _name_batch(got, want, _batch_padded_left(rows, pad), pad)
    for name, tensor in want.items():
        expect_close(got[name], tensor, f"{name} of rows of 5, 2 and 3 tokens")
    _expect_batch(implementation(rows[1:2], pad), _batch(rows[1:2], pad))


def _name_batch(
    got: dict[str, Tensor], want: dict[str, Tensor], left: dict[str, Tensor], pad: int
) -> None:
    """Name the mistake in a batch; `left` is the batch padded on the left."""
    ids = want["input_ids"]
    labels = want["labels"]
    mask = want["attention_mask"]
    padding = mask == 0
    name_mistake(
        got["labels"],
        {
            "a row's own token loses its label if it equals the pad token: mask by place": (
                lambda: labels.masked_fill(ids == pad, IGNORED)
            ),
            "padding has the pad token as its label: use −100": (
                lambda: labels.masked_fill(padding, pad)
            ),
            "padding has the label 0, which is a token: use −100": (
                lambda: labels.masked_fill(padding, 0)
            ),
            "the labels are the tokens themselves: take the rows' labels": (
                lambda: ids.masked_fill(padding, IGNORED)
            ),
        },
    )
    name_mistake(
        got["input_ids"],
        {
            "the padding is on the left: put it on the right, after the row": (
                lambda: left["input_ids"]
            ),
            "padding has 0 in input_ids: it must be `pad`": lambda: ids.masked_fill(padding, 0),
        },
    )
    name_mistake(
        got["attention_mask"],
        {
            "the attention mask is 1 everywhere: it must be 0 for padding": (
                lambda: torch.ones_like(mask)
            ),
            "the attention mask is by value: a row's own token has 1, even if it equals `pad`": (
                lambda: (ids != pad).long()
            ),
            "the attention mask is inverted: 1 for tokens, 0 for padding": lambda: 1 - mask,
        },
    )


def _batch(rows: list[dict[str, list[int]]], pad: int) -> dict[str, Tensor]:
    return _padded(rows, pad, lambda values, padding: [*values, *padding])


def _batch_padded_left(rows: list[dict[str, list[int]]], pad: int) -> dict[str, Tensor]:
    return _padded(rows, pad, lambda values, padding: [*padding, *values])


def _padded(
    rows: list[dict[str, list[int]]], pad: int, join: Callable[[list[int], list[int]], list[int]]
) -> dict[str, Tensor]:
    values = {
        "input_ids": [row["input_ids"] for row in rows],
        "labels": [row["labels"] for row in rows],
        "attention_mask": [[1] * len(row["input_ids"]) for row in rows],
    }
    fills = {"input_ids": pad, "labels": IGNORED, "attention_mask": 0}
    length = max(map(len, values["input_ids"]))
    return {
        name: torch.tensor([join(row, [fills[name]] * (length - len(row))) for row in lists])
        for name, lists in values.items()
    }


def _expect_batch(got: Any, want: dict[str, Tensor]) -> None:
    _expect_tensors(got, want, "row")
    for name, tensor in got.items():
        if tensor.dtype != torch.int64:
            raise Mistake(f"{name} is {tensor.dtype}: tokens, labels and masks are int64")


def _expect_tensors(got: Any, want: dict[str, Tensor], line: str) -> None:
    """Check names and shapes; `line` is what a line of the batch is made from."""
    if not isinstance(got, dict):
        raise Mistake(f"expected a dict of tensors, got {type_of(got)}")
    if set(got) != set(want):
        wrong = sorted(set(want) - set(got)) or sorted(map(str, set(got) - set(want)))
        raise Mistake(f"the names must be {', '.join(want)}; missing or too many: {wrong[0]}")
    for name, tensor in want.items():
        if not isinstance(got[name], Tensor):
            raise Mistake(f"{name}: expected a tensor, got {type_of(got[name])}")
        if got[name].shape != tensor.shape:
            shapes = f"expected the shape {tuple(tensor.shape)}, got {tuple(got[name].shape)}"
            raise Mistake(f"{name}: {shapes}; T is the length of the longest {line}")


# collate_packs


def collate_packs(module: Any) -> None:
    """Compare with two packs written out."""
    implementation = module.collate_packs
    pad = 3
    x = IGNORED
    first = [
        {"input_ids": [5, 6, 7], "labels": [x, x, 7]},
        {"input_ids": [8, 9], "labels": [8, 9]},
        {"input_ids": [6], "labels": [6]},
    ]
    packs = [first, [{"input_ids": [4], "labels": [4]}]]
    before = repr(packs)
    got = implementation(packs, pad)
    if repr(packs) != before:
        raise Mistake("the rows that were passed in have changed: write into new tensors")
    want = _packs(pad)
    _expect_tensors(got, want, "pack")
    for name in ("input_ids", "labels", "position_ids"):
        if got[name].dtype != torch.int64:
            raise Mistake(f"{name} is {got[name].dtype}: tokens, labels and positions are int64")
    if got["attention_mask"].dtype != torch.bool:
        raise Mistake("the attention mask must be boolean: numbers would be added to the scores")
    _name_packs(got, want, pad)
    for name, tensor in want.items():
        expect_close(
            got[name].long(), tensor.long(), f"{name} of packs of 3 + 2 + 1 tokens and of 1"
        )


def _packs(pad: int) -> dict[str, Tensor]:
    x = IGNORED
    return {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9, 6], [4, pad, pad, pad, pad, pad]]),
        "labels": torch.tensor([[x, x, 7, x, 9, x], [x, x, x, x, x, x]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 0, 0, 0, 0]]),
        "attention_mask": _mask_of([[1, 1, 1, 2, 2, 3], [1, 0, 0, 0, 0, 0]]),
    }


def _mask_of(numbers: list[list[int]]) -> Tensor:
    """Return the mask of packs by the number of each place's document."""
    document = torch.tensor(numbers)
    return (document[:, :, None] == document[:, None, :]).tril()[:, None]


def _name_packs(got: dict[str, Tensor], want: dict[str, Tensor], pad: int) -> None:
    mask = want["attention_mask"]
    causal = torch.ones_like(mask).tril()
    name_mistake(
        got["attention_mask"].long(),
        {
            "documents see each other: a token looks back only in its own document": (
                lambda: causal.long()
            ),
            "the third document sees the first one: give each document its own number": (
                lambda: _mask_of([[1, 1, 1, 2, 2, 1], [1, 0, 0, 0, 0, 0]]).long()
            ),
            "tokens see later tokens of their document: the mask lacks tril()": (
                lambda: (mask | mask.mT).long()
            ),
            "the mask is inverted: True where a token may look": lambda: 1 - mask.long(),
            "padding sees nothing: let it count as a document (old PyTorch gave NaN: LLM06)": (
                lambda: (mask & _real(mask)).long()
            ),
        },
    )
    labels = want["labels"]
    ids = want["input_ids"]
    x = IGNORED
    padding = torch.tensor([[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]]).bool()
    tokens = "the labels are the tokens themselves: take the rows' labels"
    name_mistake(
        got["labels"],
        {
            "the first token of a document has a label, which the document before would predict": (
                lambda: torch.tensor([[x, x, 7, 8, 9, 6], [4, x, x, x, x, x]])
            ),
            "only the first document's first label is −100: each document's first one must be": (
                lambda: torch.tensor([[x, x, 7, 8, 9, 6], [x, x, x, x, x, x]])
            ),
            "padding has the pad token as its label: use −100": (
                lambda: labels.masked_fill(padding, pad)
            ),
            tokens: lambda: torch.tensor([[x, 6, 7, x, 9, x], [x, x, x, x, x, x]]),
            f"{tokens}, and −100 at each document's first place": (
                lambda: ids.masked_fill(padding, IGNORED)
            ),
        },
    )
    name_mistake(
        got["input_ids"],
        {"padding has 0 in input_ids: it must be `pad`": lambda: ids.masked_fill(padding, 0)},
    )
    name_mistake(
        got["position_ids"],
        {
            "positions continue from document to document: they start at 0 in each": (
                lambda: torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0]])
            ),
            "positions continue, in padding too: they start at 0 in each document": (
                lambda: torch.arange(6).expand(2, 6)
            ),
            "positions start at 1: begin with 0": (
                lambda: torch.tensor([[1, 2, 3, 1, 2, 1], [1, 0, 0, 0, 0, 0]])
            ),
        },
    )


def _real(mask: Tensor) -> Tensor:
    """Return True for the queries that aren't padding."""
    real = torch.ones_like(mask)
    real[1, :, 1:] = False
    return real
