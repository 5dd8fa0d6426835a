"""What proves the parts of LLM08 right. Reference: PyTorch's AdamW; others are written out."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from labs.kit import Checks, Mistake, draw, expect_close, name_mistake

import torch
from torch import Tensor

checks = Checks()

Function = Callable[..., Any]
IGNORED = -100
HEADER, END = [7, 8], 2  # a header of two tokens; 8 alone is a word like any other


def _kind(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


@checks.proves("supervise")
def supervise(module: Any) -> None:
    """On a row of labels: `.` stands for −100."""
    implementation = module.supervise
    #       user: 5 8   answer: 9 8    user: 6      answer: 4 4
    ids = [3, 5, 8, END, *HEADER, 9, 8, END, 3, 6, END, *HEADER, 4, 4, END]
    want = [IGNORED] * len(ids)
    want[6:9], want[14:17] = ids[6:9], ids[14:17]
    got = _labels(implementation, ids)
    _name(got, _mistakes(ids, want))
    _expect(got, want, "each assistant's turn with its end, and nothing else")
    cut = [3, 5, END, *HEADER, 9, 9]
    got = _labels(implementation, cut)
    _name(got, {"a turn that was cut off, without its end, has labels too": [IGNORED] * 7})
    _expect(got, [*[IGNORED] * 5, 9, 9], "a turn without its end: label all that is there")
    for row, what in (([], "an empty row"), ([3, 5, END], "a row without an assistant")):
        _expect(_labels(implementation, row), [IGNORED] * len(row), f"{what} has no labels")
    one = [5, *HEADER[:1], 9, END, 7, 9, END]  # 7 alone opens nothing
    _expect(_labels(implementation, one), [IGNORED] * 7, "half a header opens no turn")
    _expect(
        _labels(implementation, [5, 9, 4, END], [9]),
        [IGNORED, IGNORED, 4, END],
        "a header may be a single token",
    )


def _labels(implementation: Function, ids: list[int], header: list[int] = HEADER) -> list[int]:
    given = list(ids)
    got = implementation(given, list(header), END)
    if given != ids:
        raise Mistake("the row that was given has changed: labels are a list of their own")
    if not isinstance(got, list):
        raise Mistake(f"a list of labels was expected, {_kind(got)} came")
    if len(got) != len(ids):
        raise Mistake(f"{len(ids)} labels were expected, {len(got)} came: one for each token")
    if any(type(one) is not int for one in got):
        raise Mistake("each label must be a whole number: the token's, or −100")
    return got


def _mistakes(ids: list[int], want: list[int]) -> dict[str, list[int]]:
    header = [4, 5, 12, 13]
    without_end, with_header, first_only, zero = (list(want) for _ in range(4))
    without_end[8] = without_end[16] = IGNORED
    for place in header:
        with_header[place] = ids[place]
    first_only[14:17] = [IGNORED] * 3
    zero = [0 if one == IGNORED else one for one in want]
    behind = [*[IGNORED] * 6, *ids[6:]]
    return {
        "the end token needs its label: without it the model never learns to stop": without_end,
        "the header is the template's, not the model's to say: −100": with_header,
        "there may be more than one turn: go on looking behind the first": first_only,
        "is all behind the first header labelled? The next request is not an answer": behind,
        "tokens that don't count have the label −100, not 0": zero,
        "the labels are shifted: they stand where their tokens do, the loss shifts them": [
            *want[1:],
            IGNORED,
        ],
        "all tokens are labelled: the user's are −100": list(ids),
        "the user's tokens are labelled, and the assistant's aren't: the other way round": [
            IGNORED if label != IGNORED else token for token, label in zip(ids, want, strict=True)
        ],
    }


def _name(got: list[int], mistakes: dict[str, list[int]]) -> None:
    for message, wrong in mistakes.items():
        if got == wrong:
            raise Mistake(message)


def _expect(got: list[int], want: list[int], told: str) -> None:
    if got != want:
        shown = " ".join("." if one == IGNORED else str(one) for one in got)
        wanted = " ".join("." if one == IGNORED else str(one) for one in want)
        raise Mistake(f"[{wanted}] was expected, [{shown}] came (. is −100); {told}")


@checks.proves("collate")
def collate(module: Any) -> None:
    """The token that pads also stands inside a row, and has a label there."""
    implementation = module.collate
    pad = 2
    rows = [
        {"input_ids": [5, 6, 2, 7, 2], "labels": [IGNORED, IGNORED, IGNORED, 7, 2]},
        {"input_ids": [9, 2], "labels": [IGNORED, 2]},
        {"input_ids": [4, 4, 4], "labels": [IGNORED] * 3},
    ]
    before = repr(rows)
    got = implementation(rows, pad)
    if repr(rows) != before:
        raise Mistake("the rows that were given have changed: write into tensors of your own")
    want = _batch(rows, pad)
    _is_batch(got, want)
    labels = want["labels"]
    by_value = labels.masked_fill(want["input_ids"] == pad, IGNORED)
    name_mistake(
        got["labels"],
        {
            "labels are lost where a row's own token is the one that pads: mask by place": (
                lambda: by_value
            ),
            "padding has the pad token as its label: −100": lambda: labels.masked_fill(
                want["attention_mask"] == 0, pad
            ),
            "padding has the label 0, which is a token: −100": lambda: labels.masked_fill(
                want["attention_mask"] == 0, 0
            ),
            "labels are the tokens themselves: take the rows' labels": lambda: want[
                "input_ids"
            ].masked_fill(want["attention_mask"] == 0, IGNORED),
        },
    )
    name_mistake(
        got["input_ids"],
        {
            "padding stands on the left: on the right, behind the row": lambda: _left(
                rows, "input_ids", pad
            ),
            "padding has 0 in input_ids: it must be `pad`": lambda: want["input_ids"].masked_fill(
                want["attention_mask"] == 0, 0
            ),
        },
    )
    name_mistake(
        got["attention_mask"],
        {
            "the attention mask is 1 everywhere: padding must be 0": lambda: torch.ones_like(
                labels
            ),
            "the attention mask is by value: a row's own token that pads others has 1": lambda: (
                want["input_ids"] != pad
            ).long(),
            "the attention mask is the wrong way round: 1 for tokens, 0 for padding": lambda: (
                1 - want["attention_mask"]
            ),
        },
    )
    for name, tensor in want.items():
        expect_close(got[name], tensor, f"{name} of rows of 5, 2 and 3 tokens")
    _is_batch(implementation(rows[1:2], pad), _batch(rows[1:2], pad))


def _batch(rows: list[dict[str, list[int]]], pad: int) -> dict[str, Tensor]:
    masks = [{"attention_mask": [1] * len(row["input_ids"])} for row in rows]
    padded = {
        "input_ids": [row["input_ids"] for row in rows],
        "labels": [row["labels"] for row in rows],
        "attention_mask": [one["attention_mask"] for one in masks],
    }
    fills = {"input_ids": pad, "labels": IGNORED, "attention_mask": 0}
    length = max(map(len, padded["input_ids"]))
    return {
        name: torch.tensor([[*one, *[fills[name]] * (length - len(one))] for one in lists])
        for name, lists in padded.items()
    }


def _left(rows: list[dict[str, list[int]]], name: str, fill: int) -> Tensor:
    length = max(len(row[name]) for row in rows)
    return torch.tensor([[*[fill] * (length - len(row[name])), *row[name]] for row in rows])


def _is_batch(got: Any, want: dict[str, Tensor]) -> None:
    if not isinstance(got, dict):
        raise Mistake(f"a dict of tensors was expected, {_kind(got)} came")
    if set(got) != set(want):
        missing = sorted(set(want) - set(got)) or sorted(map(str, set(got) - set(want)))
        raise Mistake(f"the names must be {', '.join(want)}; missing or too many: {missing[0]}")
    for name, tensor in want.items():
        if not isinstance(got[name], Tensor):
            raise Mistake(f"{name}: a tensor was expected, {_kind(got[name])} came")
        if got[name].shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)} was expected, {tuple(got[name].shape)} came"
            raise Mistake(f"{name}: {shapes}; as many places as the longest row has tokens")
        if got[name].dtype != torch.int64:
            raise Mistake(f"{name} is {got[name].dtype}: token numbers and masks are int64")


HOW = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-8, "decay": 0.1}


@checks.proves("adamw_step")
def adamw_step(module: Any) -> None:
    implementation = module.adamw_step
    first = _adam(implementation, 1)
    mistakes = {
        "nothing has moved: change the weight in place (mul_, sub_, addcdiv_)": _start(),
        "did it go up the gradient? The step is subtracted": _variant(1, sign=-1),
        "m and v begin at 0: divide each by 1 − βᵗ": _variant(1, corrected=False),
        "ε is inside the root: it is added to √v̂": _variant(1, inside=True),
        "is the decay added to the gradient? That is L2: AdamW shrinks the weight by itself": (
            _variant(1, l2=True)
        ),
        "the decay is missing: the weight shrinks by lr · decay of itself": _variant(1, decay=0.0),
        "the decay isn't multiplied by the rate: lr · decay": _variant(1, bare_decay=True),
        "√v̂ is missing, or v̂ without its root: Adam divides by the root": _variant(1, root=False),
        "the weight has grown: decay pulls towards 0, it is subtracted": _variant(1, decay=-0.1),
        "the betas are swapped: the first is m's, the second v's": _variant(1, swapped=True),
    }
    name_mistake(first, {told: (lambda wrong=wrong: wrong) for told, wrong in mistakes.items()})
    # with a large ε the first step tells more: ε must stand beside the corrected √v̂
    name_mistake(
        _adam(implementation, 1, eps=0.5),
        {
            "ε is inside the root: it is added to √v̂": lambda: _variant(1, inside=True, eps=0.5),
            "ε is added to √v before its correction: first √v̂, then ε": lambda: _variant(
                1, early=True, eps=0.5
            ),
        },
    )
    expect_close(first, _torch(1), "the first step")
    expect_close(_adam(implementation, 5), _torch(5), "after five steps; do m, v and t go along?")
    expect_close(_adam(implementation, 5, eps=0.5), _torch(5, eps=0.5), "five steps, ε = 0.5")


def _start() -> Tensor:
    return draw(7, seed=3)


def _gradient(step: int) -> Tensor:
    return draw(7, seed=10 + step) * 10 ** torch.linspace(-3, 3, 7).double()


def _adam(implementation: Function, steps: int, **changed: float) -> Tensor:
    weight, (m, v) = _start(), torch.zeros(2, 7).double()
    for t in range(1, steps + 1):
        given = _gradient(t)
        answer = implementation(weight, given, m, v, t, **{**HOW, **changed})
        if answer is not None:
            raise Mistake("nothing is to be returned: weight, m and v are changed in place")
        if not torch.equal(given, _gradient(t)):
            raise Mistake("the gradient has changed: decay or scale something of your own")
        if not weight.isfinite().all():
            raise Mistake("NaN or an infinity came; is ε added, and √v̂ of what isn't negative?")
    if not m.any() or not v.any():
        raise Mistake("m or v is still 0: change them in place, the next step needs them")
    return weight


def _torch(steps: int, **changed: float) -> Tensor:
    how = {**HOW, **changed}
    weight = torch.nn.Parameter(_start())
    optimizer = torch.optim.AdamW([weight], how["lr"], how["betas"], how["eps"], how["decay"])
    for t in range(1, steps + 1):
        weight.grad = _gradient(t)
        optimizer.step()
    return weight.detach()


def _variant(
    t: int,
    sign: int = 1,
    corrected: bool = True,
    inside: bool = False,
    early: bool = False,
    l2: bool = False,
    bare_decay: bool = False,
    root: bool = True,
    swapped: bool = False,
    decay: float = HOW["decay"],
    eps: float = HOW["eps"],
) -> Tensor:
    """The first step with a mistake; what is returned is the weight."""
    (one, two), lr, weight, g = HOW["betas"], HOW["lr"], _start(), _gradient(t)
    if swapped:  # told apart by the correction of the other one
        m, v = (1 - two) * g / (1 - one), (1 - one) * g * g / (1 - two)
        return weight * (1 - lr * decay) - lr * m / (v.sqrt() + eps)
    if l2:
        g = g + decay * weight
    m, v = (1 - one) * g, (1 - two) * g * g
    if corrected:
        m, v = m / (1 - one), v / (1 - two)
    below = (v + eps).sqrt() if inside else (v.sqrt() if root else v) + eps
    if early:  # √v + ε, and then divided by the correction's root
        below = ((v * (1 - two)).sqrt() + eps) / math.sqrt(1 - two)
    shrunk = weight if l2 else weight * (1 - (1 if bare_decay else lr) * decay)
    return shrunk - sign * lr * m / below


@checks.proves("rate")
def rate(module: Any) -> None:
    implementation = module.rate
    steps, warmup, floor = 20, 5, 0.1
    got = [_share(implementation, t, steps, warmup, floor) for t in range(steps)]
    want = [_reference(t, steps, warmup, floor) for t in range(steps)]
    if abs(got[0]) < 1e-12:
        raise Mistake("the first step has a rate of 0 and is wasted: (step + 1) / warmup")
    _name_curve(
        got,
        {
            "there is no warm-up: (step + 1) / warmup, while step < warmup": [
                _reference(t, steps, 0, floor) if t < warmup else got[t] for t in range(steps)
            ],
            "the cosine begins at step 0, under the warm-up: p counts from the warm-up's end": [
                *want[:warmup],
                *(floor + (1 - floor) * _cosine((t + 1) / (steps + 1)) for t in range(5, steps)),
            ],
            "the floor is missing: the cosine ends at it, not at 0": [
                _reference(t, steps, warmup, 0.0) for t in range(steps)
            ],
            "the floor is added on top: the peak is 1, so scale the rest by 1 − floor": [
                *want[:warmup],
                *(floor + _reference(t, steps, warmup, 0.0) for t in range(warmup, steps)),
            ],
            "that is a straight line down: a half cosine was wanted": [
                *want[:warmup],
                *(1 - (1 - floor) * (t + 1 - warmup) / (steps + 1 - warmup) for t in range(5, 20)),
            ],
            "the rate is cut off at the floor: the cosine should glide to it": [
                *want[:warmup],
                *(max(floor, _reference(t, steps, warmup, 0.0)) for t in range(warmup, steps)),
            ],
            "it is one step late: p = (step + 1 − warmup) / (steps + 1 − warmup)": [
                *want[:warmup],
                *(
                    floor + (1 - floor) * _cosine((t - warmup) / (steps - warmup))
                    for t in range(warmup, steps)
                ),
            ],
        },
    )
    if got[warmup - 1] < got[-1] or got[0] > got[warmup - 1]:
        raise Mistake("it must go up to 1 in the warm-up, and down after it")
    for t in range(steps):
        _same(got[t], want[t], f"step {t} of {steps}, warm-up {warmup}, floor {floor}")
    for t, of, warm, low in ((0, 10, 0, 0.1), (9, 10, 0, 0.0), (3, 4, 4, 0.5), (0, 1, 1, 0.1)):
        share = _share(implementation, t, of, warm, low)
        _same(share, _reference(t, of, warm, low), f"step {t} of {of}, warm-up {warm}, floor {low}")
    for t in (steps, 10 * steps):
        share = _share(implementation, t, steps, warmup, floor)
        _same(share, floor, "beyond the last step it stays at the floor: p is 1 at most")


def _cosine(p: float) -> float:
    return (1 + math.cos(math.pi * p)) / 2


def _reference(step: int, steps: int, warmup: int, floor: float) -> float:
    if step < warmup:
        return (step + 1) / warmup
    p = min(1.0, (step + 1 - warmup) / (steps + 1 - warmup))
    return floor + (1 - floor) * _cosine(p)


def _share(implementation: Function, *how: Any) -> float:
    got = implementation(*how)
    if isinstance(got, bool) or not isinstance(got, int | float):
        raise Mistake(f"a number was expected, {_kind(got)} came")
    if math.isnan(got):
        raise Mistake("NaN came")
    return float(got)


def _name_curve(got: list[float], mistakes: dict[str, list[float]]) -> None:
    for message, wrong in mistakes.items():
        if all(abs(a - b) < 1e-9 for a, b in zip(got, wrong, strict=True)):
            raise Mistake(message)


def _same(got: float, want: float, told: str) -> None:
    if abs(got - want) > 1e-9:
        raise Mistake(f"{told}: {want:.4f} was expected, {got:.4f} came")


@checks.proves("windows")
def windows(module: Any) -> None:
    implementation = module.windows
    counts = [1, 9, 2, 3, 4, 6, 5]
    made = [_micro(n) for n in counts]
    taken: list[int] = []

    def source() -> Iterator[dict[str, Tensor]]:
        for i, batch in enumerate(made):
            taken.append(i)
            yield batch

    found = implementation(source(), 3)
    if not hasattr(found, "__next__"):
        raise Mistake(f"an iterator was expected, {_kind(found)} came: yield each window")
    got: list[Any] = []
    for one in found:
        _is_window(one)
        got.append(one)
        if len(got) == 1 and len(taken) > 3:
            told = f"{len(taken)} batches are read for the first window of 3"
            raise Mistake(f"{told}: a stream has no end; read what the window needs")
        if len(got) > len(made):
            raise Mistake("it doesn't end: what comes when the source has nothing more?")
    _are_right(got, made, counts)
    if list(implementation(iter([]), 3)):
        raise Mistake("a source without batches has no window, not an empty one")
    exact = [_micro(n) for n in (2, 2, 2, 2)]
    if len(list(implementation(exact, 2))) != 2:
        raise Mistake("four batches by 2 are two windows; is an empty one added?")


def _micro(labels: int) -> dict[str, Tensor]:
    """Two rows of twelve places with so many labels that count; the first place's never does."""
    row = torch.full((2, 12), IGNORED)
    row[:, 0] = 5
    row.view(-1)[1 : 1 + labels] = 6
    tokens = torch.full((2, 12), 6)
    return {"input_ids": tokens, "labels": row, "attention_mask": torch.ones_like(tokens)}


def _is_window(one: Any) -> None:
    if not isinstance(one, tuple) or len(one) != 2 or not isinstance(one[0], list):
        raise Mistake("each window is a pair: a list of batches, and how many labels count in them")
    if not isinstance(one[1], int) or isinstance(one[1], bool):
        raise Mistake(f"the number of labels must be a whole number, {_kind(one[1])} came")
    if any(not isinstance(batch, dict) for batch in one[0]):
        raise Mistake("a window is a list of batches, as they came")


def _are_right(got: list[Any], made: list[Any], counts: list[int]) -> None:
    sizes = [len(batches) for batches, _ in got]
    if sizes == [3, 3]:
        raise Mistake("the last window is lost: it may be short, and counts all the same")
    if len(got) == 3 and sizes == [3, 3, 3]:
        raise Mistake("the last window is filled up: it has one batch alone")
    if sizes and sizes[-1] == 0:
        raise Mistake("the last window is empty: yield one only where there are batches")
    if sizes != [3, 3, 1]:
        raise Mistake(f"windows of 3, 3 and 1 batches were expected, {sizes} came")
    flat = [batch for batches, _ in got for batch in batches]
    if any(a is not b for a, b in zip(flat, made, strict=True)):
        raise Mistake("each batch belongs to one window, in its order, as it came")
    found, of = [n for _, n in got], [counts[:3], counts[3:6], counts[6:]]
    if found == [sum(one) for one in of]:
        return
    tokens = [sum(batch["labels"].numel() for batch in batches) for batches, _ in got]
    all_labels = [
        sum(int((batch["labels"] != IGNORED).sum()) for batch in batches) for batches, _ in got
    ]
    if found == tokens:
        raise Mistake("all places are counted, padding and prompts too: label_count counts labels")
    if found == all_labels:
        raise Mistake("the first place's label is counted, and no token asks for it: label_count")
    if found in ([3, 3, 1], [6, 6, 2]):
        raise Mistake("batches or rows are counted: labels are what a loss is divided by")
    if found == [one[-1] for one in of]:
        raise Mistake("only the last batch's labels are counted: sum over the window")
    if found == [sum(counts[:n]) for n in (3, 6, 7)]:
        raise Mistake("the count runs on from window to window: begin at 0 in each")
    raise Mistake(f"{[sum(one) for one in of]} labels were expected in the windows, {found} came")
