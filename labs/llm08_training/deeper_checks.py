"""Check the exercises of LLM08+: packs by hand, and batches with mistakes in their labels."""

import copy
from typing import Any, cast

from labs.kit import Mistake
from labs.llm08_training.batch_checks import END, IGNORED, Function, type_of

import torch
from torch import Tensor


def pack(module: Any) -> None:
    """Compare the lengths in each pack with first fit decreasing by hand."""
    implementation = module.pack
    _expect_packs(
        implementation,
        [5, 5],
        [[5, 5]],
        {"a row that fills a pack exactly fits, too: compare with >=": [[5], [5]]},
    )
    _expect_packs(
        implementation,
        [3, 7, 1, 5, 4],
        [[7, 3], [5, 4, 1]],
        {
            "the rows weren't sorted: take the longest first": [[3, 7], [1, 5, 4]],
            "the shortest row came first: take the longest first": [[1, 3, 4], [5], [7]],
            "only the last pack is tried: begin with the first one": [[7], [5, 4], [3, 1]],
            "each row has a pack of its own: put it into one that has room": [
                [7],
                [5],
                [4],
                [3],
                [1],
            ],
        },
    )
    _expect_packs(
        implementation,
        [7, 6, 3],
        [[7, 3], [6]],
        {"the pack with the most room was taken: take the first that has room": [[7], [6, 3]]},
    )
    _expect_packs(
        implementation,
        [14, 10, 8, 2],
        [[14, 2], [10, 8]],
        {"the fullest pack was taken: take the first that has room": [[14], [10, 8, 2]]},
        length=20,
    )
    _expect_error(implementation)


def _rows(lengths: list[int]) -> list[dict[str, list[int]]]:
    """Return rows of these lengths; each has a token that no other row has."""
    return [{"input_ids": [i] * n, "labels": [i] * n} for i, n in enumerate(lengths)]


def _expect_packs(
    implementation: Function,
    lengths: list[int],
    want: list[list[int]],
    mistakes: dict[str, list[list[int]]],
    length: int = 10,
) -> None:
    rows = _rows(lengths)
    given = copy.deepcopy(rows)
    got = implementation(given, length)
    if given != rows:
        raise Mistake("the rows that were passed in have changed: sort a copy, with sorted")
    wrong_type = f"expected a list of packs, each a list of rows, got {type_of(got)}"
    if not isinstance(got, list):
        raise Mistake(wrong_type)
    packs = cast(list[Any], got)
    if any(not isinstance(part, list) for part in packs):
        raise Mistake(wrong_type)
    flat = [row for part in packs for row in part]
    if any(row not in rows for row in flat):
        raise Mistake("a pack has something else than the rows: put in the rows, unchanged")
    if len(flat) != len(rows) or any(row not in flat for row in rows):
        raise Mistake("each row belongs to one pack: a row is missing or comes twice")
    sizes = [[len(row["input_ids"]) for row in part] for part in packs]
    if [] in sizes:
        raise Mistake("there is an empty pack: begin a pack only for a row")
    if any(sum(part) > length for part in sizes):
        raise Mistake(f"a pack has more than {length} tokens: subtract each row from its room")
    for message, wrong in mistakes.items():
        if sizes == wrong:
            raise Mistake(message)
    if sizes != want:
        raise Mistake(f"rows of {lengths} tokens: expected packs of {want}, got {sizes}")


def _expect_error(implementation: Function) -> None:
    try:
        implementation(_rows([4, 11]), 10)
    except ValueError:
        return
    except Exception as error:
        kind = type(error).__name__
        raise Mistake(f"a row of 11 tokens, length 10: expected a ValueError, got {kind}") from None
    raise Mistake("a row of 11 tokens doesn't fit into a pack of 10: raise ValueError")


# label_mistake

PAD = 0
#         user  cow ant  end model ant ant  end: a word comes twice, so a moved label may be right
ROWS = [[3, 10, 11, END, 4, 11, 11, END], [3, 10, END, 4, 10, END]]
STARTS = (5, 4)  # of the responses


def label_mistake(module: Any) -> None:
    """Pass batches with each mistake and without one; the first row has no padding."""
    implementation = module.label_mistake
    _expect_name(
        implementation,
        _batch(),
        "none",
        {
            "end = pad": "look only at each row's last token: not a request's end, not padding",
            "shifted twice": "−100 was compared with the token: compare only labels that aren't",
            "padding too": "attention_mask tells padding from tokens, not their values",
        },
    )
    _expect_name(
        implementation,
        _batch(pad=END),
        "none",
        {"padding too": "the end token pads here", "end = pad": "the end token pads here"},
        "a right batch that the end token pads",
    )
    of_both = "the first row has no padding: look at all rows"
    _expect_name(implementation, _batch(padding=PAD), "padding too", {"none": of_both})
    never = "padding has labels here, whatever their value: look where attention_mask is 0"
    other = _batch(padding=END, pad=END)
    _expect_name(implementation, other, "padding too", {"none": never, "end = pad": never})
    prompt = "the first token of a row is never the assistant's: does it have a label?"
    wrong = {"none": prompt}
    _expect_name(implementation, _batch(all_tokens=True), "the prompt too", wrong)
    _expect_name(implementation, _batch(all_tokens=True, rows=1), "the prompt too", wrong)
    moved = "each label has moved one place: compare each label with the token at its own place"
    first = "moved labels also leave the last token without one: look for them before that"
    wrong = {"none": moved, "end = pad": first, "the prompt too": prompt}
    _expect_name(implementation, _batch(moved=True), "shifted twice", wrong)
    _expect_name(implementation, _batch(moved=True, rows=1), "shifted twice", wrong)
    wrong = {"none": "the last token of each row has no label: each response needs its end"}
    _expect_name(implementation, _batch(ends=False, pad=END), "end = pad", wrong)
    _expect_name(implementation, _batch(ends=False, rows=1), "end = pad", wrong)


def _batch(
    pad: int = PAD,
    padding: int = IGNORED,
    all_tokens: bool = False,
    moved: bool = False,
    ends: bool = True,
    rows: int = 2,
) -> dict[str, Tensor]:
    """Return a batch of ROWS, right or with one mistake in its labels."""
    width = len(ROWS[0])
    batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "attention_mask": []}
    for ids, start in list(zip(ROWS, STARTS, strict=True))[:rows]:
        labels = [token if all_tokens or i >= start else IGNORED for i, token in enumerate(ids)]
        if moved:
            labels = [*labels[1:], IGNORED]
        if not ends:
            labels[-1] = IGNORED
        gap = width - len(ids)
        batch["input_ids"].append(ids + [pad] * gap)
        batch["labels"].append(labels + [padding] * gap)
        batch["attention_mask"].append([1] * len(ids) + [0] * gap)
    return {name: torch.tensor(lines) for name, lines in batch.items()}


def _expect_name(
    implementation: Function,
    batch: dict[str, Tensor],
    want: str,
    mistakes: dict[str, str],
    what: str = "",
) -> None:
    given = {name: tensor.clone() for name, tensor in batch.items()}
    got = implementation(given)
    if any(not torch.equal(given[name], tensor) for name, tensor in batch.items()):
        raise Mistake("the batch that was passed in has changed: make new tensors")
    if not isinstance(got, str):
        raise Mistake(f'expected a name, or "none", got {type_of(got)}')
    if got == want:
        return
    what = what or ("a right batch" if want == "none" else f"a batch with “{want}”")
    hint = f": {mistakes[got]}" if got in mistakes else ""
    raise Mistake(f"{what}: expected “{want}”, got “{got}”{hint}")
