"""Check the exercises of LLM08: AdamW against PyTorch's, the others against written-out results."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from labs.kit import Checks, Mistake, draw, expect_close, name_mistake

import torch
from torch import Tensor

checks = Checks()

Function = Callable[..., Any]
IGNORED = -100
HEADER = [7, 8]  # two tokens; 8 alone is a word like any other
END = 2


def _type_of(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


# supervise


@checks.proves("supervise")
def supervise(module: Any) -> None:
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
        raise Mistake(f"expected a list of labels, got {_type_of(got)}")
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


@checks.proves("collate")
def collate(module: Any) -> None:
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
        raise Mistake(f"expected a dict of tensors, got {_type_of(got)}")
    if set(got) != set(want):
        wrong = sorted(set(want) - set(got)) or sorted(map(str, set(got) - set(want)))
        raise Mistake(f"the names must be {', '.join(want)}; missing or too many: {wrong[0]}")
    for name, tensor in want.items():
        if not isinstance(got[name], Tensor):
            raise Mistake(f"{name}: expected a tensor, got {_type_of(got[name])}")
        if got[name].shape != tensor.shape:
            shapes = f"expected the shape {tuple(tensor.shape)}, got {tuple(got[name].shape)}"
            raise Mistake(f"{name}: {shapes}; T is the length of the longest {line}")


# collate_packs


@checks.proves("collate_packs")
def collate_packs(module: Any) -> None:
    implementation = module.collate_packs
    pad = 0
    first = [_document(5, 6, 7), _document(8, 9)]
    packs = [first, [_document(4)]]
    before = repr(packs)
    got = implementation(packs, pad)
    if repr(packs) != before:
        raise Mistake("the rows that were passed in have changed: write into new tensors")
    want = _packs()
    _expect_tensors(got, want, "pack")
    if got["attention_mask"].dtype != torch.bool:
        raise Mistake("the attention mask must be boolean: numbers would be added to the scores")
    _name_packs(got, want)
    for name, tensor in want.items():
        expect_close(got[name].long(), tensor.long(), f"{name} of packs of 3 + 2 tokens and of 1")


def _document(*ids: int) -> dict[str, list[int]]:
    return {"input_ids": list(ids), "labels": list(ids)}


def _packs() -> dict[str, Tensor]:
    x = IGNORED
    same = torch.tensor([[1, 1, 1, 2, 2], [1, 0, 0, 0, 0]])
    return {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9], [4, 0, 0, 0, 0]]),
        "labels": torch.tensor([[x, 6, 7, x, 9], [x, x, x, x, x]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1], [0, 0, 0, 0, 0]]),
        "attention_mask": (same[:, :, None] == same[:, None, :]).tril()[:, None],
    }


def _name_packs(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    mask = want["attention_mask"]
    causal = torch.ones_like(mask).tril()
    name_mistake(
        got["attention_mask"].long(),
        {
            "documents see each other: a token looks back only in its own document": (
                lambda: causal.long()
            ),
            "tokens see later tokens of their document: the mask lacks tril()": (
                lambda: (mask | mask.mT).long()
            ),
            "the mask is inverted: True where a token may look": lambda: 1 - mask.long(),
            "padding sees nothing: a row of the mask without True gives NaN": (
                lambda: (mask & _real(mask)).long()
            ),
        },
    )
    labels = want["labels"]
    ids = want["input_ids"]
    padding = torch.tensor([[0, 0, 0, 0, 0], [0, 1, 1, 1, 1]]).bool()
    name_mistake(
        got["labels"],
        {
            "the first token of a document has a label, which the document before would predict": (
                lambda: ids.masked_fill(padding, IGNORED)
            ),
            "only the first document's first label is −100: each document's first one must be": (
                lambda: (
                    labels.clone().index_fill_(1, torch.tensor([3]), 8).masked_fill(padding, -100)
                )
            ),
            "padding has the pad token as its label: use −100": (
                lambda: labels.masked_fill(padding, 0)
            ),
        },
    )
    name_mistake(
        got["position_ids"],
        {
            "positions continue from document to document: they start at 0 in each": (
                lambda: torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 0, 0]])
            ),
            "positions continue, in padding too: they start at 0 in each document": (
                lambda: torch.arange(5).expand(2, 5)
            ),
            "positions start at 1: begin with 0": (
                lambda: torch.tensor([[1, 2, 3, 1, 2], [1, 0, 0, 0, 0]])
            ),
        },
    )


def _real(mask: Tensor) -> Tensor:
    """Return True for the queries that aren't padding."""
    real = torch.ones_like(mask)
    real[1, :, 1:] = False
    return real


# windows


@checks.proves("windows")
def windows(module: Any) -> None:
    implementation = module.windows
    counts = [1, 9, 2, 3, 4, 6, 5]
    batches = [_micro_batch(labels) for labels in counts]
    taken: list[int] = []

    def source() -> Iterator[dict[str, Tensor]]:
        for i, batch in enumerate(batches):
            taken.append(i)
            yield batch

    found = implementation(source(), 3)
    if not hasattr(found, "__next__"):
        raise Mistake(f"expected an iterator, got {_type_of(found)}: yield each window")
    got: list[Any] = []
    for window in found:
        _expect_window(window)
        got.append(window)
        if len(got) == 1 and len(taken) > 3:
            read = f"it reads {len(taken)} batches for the first window of 3"
            raise Mistake(f"{read}: a stream may be endless, so read only what the window needs")
        if len(got) > len(batches):
            raise Mistake("it doesn't end: stop when the source has no more batches")
    _expect_batches(got, batches)
    _expect_counts(got, counts)
    if list(implementation(iter([]), 3)):
        raise Mistake("a source without batches has no window, not an empty one")
    exact = [_micro_batch(labels) for labels in (2, 2, 2, 2)]
    if len(list(implementation(exact, 2))) != 2:
        raise Mistake("four batches by 2 are two windows; is an empty one added?")


def _micro_batch(labels: int) -> dict[str, Tensor]:
    """Return two rows of twelve places with `labels` labels, and one that the loss ignores."""
    row = torch.full((2, 12), IGNORED)
    row[:, 0] = 5  # no token predicts the first place
    row.view(-1)[1 : 1 + labels] = 6
    tokens = torch.full((2, 12), 6)
    return {"input_ids": tokens, "labels": row, "attention_mask": torch.ones_like(tokens)}


def _expect_window(window: Any) -> None:
    if not isinstance(window, tuple) or len(window) != 2 or not isinstance(window[0], list):
        raise Mistake("each window is a pair: a list of batches, and the number of their labels")
    if not isinstance(window[1], int) or isinstance(window[1], bool):
        raise Mistake(f"the number of labels must be an integer, got {_type_of(window[1])}")
    if any(not isinstance(batch, dict) for batch in window[0]):
        raise Mistake("a window is a list of the batches, unchanged")


def _expect_batches(got: list[Any], batches: list[Any]) -> None:
    sizes = [len(window) for window, _ in got]
    if sizes == [3, 3]:
        raise Mistake("the last window is lost: yield it, even if it is short")
    if sizes == [3, 3, 3]:
        raise Mistake("the last window is filled up: it has only one batch")
    if sizes and sizes[-1] == 0:
        raise Mistake("the last window is empty: yield a window only if it has batches")
    if sizes != [3, 3, 1]:
        raise Mistake(f"expected windows of 3, 3 and 1 batches, got {sizes}")
    flat = [batch for window, _ in got for batch in window]
    if any(a is not b for a, b in zip(flat, batches, strict=True)):
        raise Mistake("each batch belongs to one window, unchanged and in order")


def _expect_counts(got: list[Any], counts: list[int]) -> None:
    parts = [counts[:3], counts[3:6], counts[6:]]
    found = [count for _, count in got]
    want = [sum(part) for part in parts]
    if found == want:
        return
    labels = [[batch["labels"] for batch in window] for window, _ in got]
    if found == [sum(one.numel() for one in window) for window in labels]:
        raise Mistake("all places are counted, padding and prompts too: label_count counts labels")
    if found == [sum(int((one != IGNORED).sum()) for one in window) for window in labels]:
        raise Mistake("the first place's label is counted, but no token predicts it: label_count")
    if found in ([3, 3, 1], [6, 6, 2]):
        raise Mistake("batches or rows are counted: the loss is divided by labels")
    if found == [part[-1] for part in parts]:
        raise Mistake("only the last batch's labels are counted: sum over the window")
    if found == [sum(counts[:n]) for n in (3, 6, 7)]:
        raise Mistake("the count continues from window to window: begin at 0 in each")
    raise Mistake(f"expected {want} labels in the windows, got {found}")


# clip_gradients


@checks.proves("clip_gradients")
def clip_gradients(module: Any) -> None:
    implementation = module.clip_gradients
    shapes = [(3, 2), (4,)]
    weights = [torch.nn.Parameter(draw(*shape, seed=i)) for i, shape in enumerate(shapes)]
    gradients = [10 * draw(*shape, seed=5 + i) for i, shape in enumerate(shapes)]
    without = torch.nn.Parameter(torch.zeros(2))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    got, returned = _clipped(implementation, [*weights, without], gradients, 1.0)
    each = [gradient / gradient.norm() for gradient in gradients]
    name_mistake(
        got,
        {
            "each parameter's gradient is clipped by itself: there is one norm, over all": (
                lambda: _flat(each)
            ),
            "nothing was clipped: change the gradients in place": lambda: _flat(gradients),
            "entries are cut off at c: scale all of them by the same factor": (
                lambda: _flat([gradient.clamp(-1, 1) for gradient in gradients])
            ),
            "the gradient is divided by the norm squared": (
                lambda: _flat([gradient / norm**2 for gradient in gradients])
            ),
            "the sum of the norms is no norm: add the squares, then take the root": (
                lambda: _flat([g / sum(g.norm() for g in gradients) for g in gradients])
            ),
        },
    )
    expect_close(got, _flat([gradient / norm for gradient in gradients]), "clipped to norm 1", 1e-5)
    if not isinstance(returned, Tensor | float):
        raise Mistake(f"expected the norm before clipping, got {_type_of(returned)}")
    if abs(float(returned) - 1) < 1e-3:
        raise Mistake("the norm after clipping was returned: return the one before")
    expect_close(torch.as_tensor(returned).double(), norm, "the returned norm", 1e-5)
    got, _ = _clipped(implementation, weights, gradients, 1.0)
    half, _ = _clipped(implementation, weights, gradients, float(norm) / 2)
    expect_close(half, _flat(gradients) / 2, "clipped to half of its norm", 1e-5)
    small, _ = _clipped(implementation, weights, gradients, 2 * float(norm))
    if (small.norm() / norm - 2).abs() < 1e-3:
        raise Mistake("a short gradient was made longer: leave it if its norm is below c")
    expect_close(small, _flat(gradients), "a gradient below c stays", 1e-12)


def _clipped(
    implementation: Function, weights: list[Any], gradients: list[Tensor], c: float
) -> tuple[Tensor, Any]:
    """Return all gradients after clipping, in one vector, and what was returned."""
    for weight, gradient in zip(weights, gradients, strict=False):
        weight.grad = gradient.clone()
    returned = implementation(iter(weights), c)
    return _flat([weight.grad for weight in weights if weight.grad is not None]), returned


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


# adamw_step

LR = 1e-2
BETAS = (0.9, 0.98)
EPS = 1e-8
DECAY = 0.1


@checks.proves("adamw_step")
def adamw_step(module: Any) -> None:
    implementation = module.adamw_step
    first = _own_weight(implementation, 1)
    mistakes = {
        "the weight hasn't moved: change it in place (mul_, sub_, addcdiv_)": _start(),
        "does it go up the gradient? Subtract the step": _wrong_step(sign=-1),
        "m and v begin at 0: divide each by 1 − βᵗ": _wrong_step(corrected=False),
        "ε is inside the root: add it to √v̂": _wrong_step(inside=True),
        "is the decay added to the gradient? That is L2; AdamW shrinks the weight itself": (
            _wrong_step(l2=True)
        ),
        "the decay is missing: the weight shrinks by the factor 1 − lr · decay": (
            _wrong_step(decay=0.0)
        ),
        "the decay isn't multiplied by the rate: lr · decay": _wrong_step(bare_decay=True),
        "√v̂ is missing, or v̂ without its root: Adam divides by the root": _wrong_step(root=False),
        "the weight has grown: decay pulls it towards 0, so subtract": _wrong_step(decay=-DECAY),
        "the betas are swapped: the first is m's, the second v's": _wrong_step(swapped=True),
    }
    name_mistake(first, {message: lambda wrong=wrong: wrong for message, wrong in mistakes.items()})
    # a large ε shows where it is added
    name_mistake(
        _own_weight(implementation, 1, eps=0.5),
        {
            "ε is inside the root: add it to √v̂": lambda: _wrong_step(inside=True, eps=0.5),
            "ε is added to √v before its correction: first √v̂, then ε": lambda: _wrong_step(
                early=True, eps=0.5
            ),
        },
    )
    expect_close(first, _torch_weight(1), "the first step")
    expect_close(
        _own_weight(implementation, 5),
        _torch_weight(5),
        "after five steps; are m, v and t used in each?",
    )
    expect_close(
        _own_weight(implementation, 5, eps=0.5), _torch_weight(5, eps=0.5), "five steps, ε = 0.5"
    )


def _start() -> Tensor:
    return draw(7, seed=3)


def _gradient(step: int) -> Tensor:
    return draw(7, seed=10 + step) * 10 ** torch.linspace(-3, 3, 7).double()


def _own_weight(implementation: Function, steps: int, eps: float = EPS) -> Tensor:
    weight = _start()
    m, v = torch.zeros(2, 7).double()
    for t in range(1, steps + 1):
        given = _gradient(t)
        result = implementation(weight, given, m, v, t, lr=LR, betas=BETAS, eps=eps, decay=DECAY)
        if result is not None:
            raise Mistake("it must return nothing: it changes weight, m and v in place")
        if not torch.equal(given, _gradient(t)):
            raise Mistake("the gradient has changed: decay or scale a new tensor")
        if not weight.isfinite().all():
            raise Mistake("the weight is NaN or infinite: is ε added, and is v̂ never negative?")
    if not m.any() or not v.any():
        raise Mistake("m or v is still 0: change them in place, the next step needs them")
    return weight


def _torch_weight(steps: int, eps: float = EPS) -> Tensor:
    weight = torch.nn.Parameter(_start())
    optimizer = torch.optim.AdamW([weight], LR, BETAS, eps, DECAY)
    for t in range(1, steps + 1):
        weight.grad = _gradient(t)
        optimizer.step()
    return weight.detach()


def _wrong_step(
    sign: int = 1,
    corrected: bool = True,
    inside: bool = False,
    early: bool = False,
    l2: bool = False,
    bare_decay: bool = False,
    root: bool = True,
    swapped: bool = False,
    decay: float = DECAY,
    eps: float = EPS,
) -> Tensor:
    """Return the weight after a first step with a mistake."""
    first, second = BETAS
    weight = _start()
    g = _gradient(1)
    if swapped:  # each mean is corrected by the other's beta
        m = (1 - second) * g / (1 - first)
        v = (1 - first) * g * g / (1 - second)
        return weight * (1 - LR * decay) - LR * m / (v.sqrt() + eps)
    if l2:
        g = g + decay * weight
    m = (1 - first) * g
    v = (1 - second) * g * g
    if corrected:
        m = m / (1 - first)
        v = v / (1 - second)
    below = (v + eps).sqrt() if inside else (v.sqrt() if root else v) + eps
    if early:  # √v + ε, then divided by the root of the correction
        below = ((v * (1 - second)).sqrt() + eps) / math.sqrt(1 - second)
    shrunk = weight if l2 else weight * (1 - (1 if bare_decay else LR) * decay)
    return shrunk - sign * LR * m / below


# lr_at


@checks.proves("lr_at")
def lr_at(module: Any) -> None:
    implementation = module.lr_at
    steps = 20
    warmup = 5
    floor = 0.1
    got = [_own_share(implementation, t, steps, warmup, floor) for t in range(steps)]
    if abs(got[0]) < 1e-12:
        raise Mistake("the first step has a rate of 0 and is wasted: use (step + 1) / warmup")
    _name_curve(got, _wrong_curves(got, steps, warmup, floor))
    if got[warmup - 1] < got[-1] or got[0] > got[warmup - 1]:
        raise Mistake("it must rise to 1 in the warm-up, and fall after it")
    for t in range(steps):
        _expect_share(implementation, t, steps, warmup, floor)
    for t, of, warm, low in ((0, 10, 0, 0.1), (9, 10, 0, 0.0), (3, 4, 4, 0.5), (0, 1, 1, 0.1)):
        _expect_share(implementation, t, of, warm, low)
    for t in (steps, 10 * steps):
        share = _own_share(implementation, t, steps, warmup, floor)
        what = "after the last step it stays at the floor (p is at most 1)"
        _expect_number(share, floor, what)


def _wrong_curves(
    got: list[float], steps: int, warmup: int, floor: float
) -> dict[str, list[float]]:
    rising = [(t + 1) / warmup for t in range(warmup)]
    falling = range(warmup, steps)
    without_floor = [_share(t, steps, warmup, 0.0) for t in falling]
    return {
        "there is no warm-up: (step + 1) / warmup, while step < warmup": [
            _share(t, steps, 0, floor) if t < warmup else got[t] for t in range(steps)
        ],
        "the cosine begins at step 0, during the warm-up: p counts from the warm-up's end": [
            *rising,
            *(floor + (1 - floor) * _cosine((t + 1) / (steps + 1)) for t in falling),
        ],
        "the floor is missing: the cosine ends at it, not at 0": [*rising, *without_floor],
        "the floor is added on top: the peak is 1, so scale the cosine by 1 − floor": [
            *rising,
            *(floor + share for share in without_floor),
        ],
        "that is a straight line down: expected a half cosine": [
            *rising,
            *(1 - (1 - floor) * (t + 1 - warmup) / (steps + 1 - warmup) for t in falling),
        ],
        "the rate is cut off at the floor: the cosine should end there": [
            *rising,
            *(max(floor, share) for share in without_floor),
        ],
        "it is one step late: p = (step + 1 − warmup) / (steps + 1 − warmup)": [
            *rising,
            *(floor + (1 - floor) * _cosine((t - warmup) / (steps - warmup)) for t in falling),
        ],
    }


def _cosine(p: float) -> float:
    return (1 + math.cos(math.pi * p)) / 2


def _share(step: int, steps: int, warmup: int, floor: float) -> float:
    if step < warmup:
        return (step + 1) / warmup
    p = min(1.0, (step + 1 - warmup) / (steps + 1 - warmup))
    return floor + (1 - floor) * _cosine(p)


def _own_share(implementation: Function, *arguments: float) -> float:
    got = implementation(*arguments)
    if isinstance(got, bool) or not isinstance(got, int | float):
        raise Mistake(f"expected a number, got {_type_of(got)}")
    if math.isnan(got):
        raise Mistake("expected a number, got NaN")
    return float(got)


def _name_curve(got: list[float], mistakes: dict[str, list[float]]) -> None:
    for message, wrong in mistakes.items():
        if all(abs(a - b) < 1e-9 for a, b in zip(got, wrong, strict=True)):
            raise Mistake(message)


def _expect_share(
    implementation: Function, step: int, steps: int, warmup: int, floor: float
) -> None:
    got = _own_share(implementation, step, steps, warmup, floor)
    want = _share(step, steps, warmup, floor)
    _expect_number(got, want, f"step {step} of {steps}, warm-up {warmup}, floor {floor}")


def _expect_number(got: float, want: float, what: str) -> None:
    if abs(got - want) > 1e-9:
        raise Mistake(f"{what}: expected {want:.4f}, got {got:.4f}")


# training_step


class _Accelerator:
    """Records what a step does with it."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def backward(self, loss: Tensor) -> None:
        self.calls.append("backward")
        loss.backward()

    def clip_grad_norm_(self, parameters: Any, norm: float) -> None:
        self.calls.append("clip")
        torch.nn.utils.clip_grad_norm_(parameters, norm)


class _Sgd(torch.optim.SGD):
    """Records its steps."""

    calls: list[str]
    rates: list[float]

    def step(self, closure: Any = None) -> Any:
        self.calls.append("step")
        self.rates += [group["lr"] for group in self.param_groups]
        return super().step(closure)


class _Tokens(torch.nn.Module):
    """A model with a vector of logits for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(draw(12, 12, seed=1).float())

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        del attention_mask
        return type("Output", (), {"logits": self.table[ids]})()


def _text_batch(labels: int) -> dict[str, Tensor]:
    """Return two rows of twelve different tokens with `labels` labels."""
    tokens = (labels + torch.arange(24).view(2, 12) * 5) % 12
    row = torch.full((2, 12), IGNORED)
    row.view(-1)[1 : 1 + labels] = tokens.view(-1)[1 : 1 + labels]
    return {"input_ids": tokens, "labels": row, "attention_mask": torch.ones_like(tokens)}


@checks.proves("training_step")
def training_step(module: Any) -> None:
    implementation = module.training_step
    window = [_text_batch(1), _text_batch(9)]
    calls: list[str] = []
    model, returned = _stepped(implementation, window, calls, clip=1e9)
    _name_calls(calls, len(window))
    start = _Tokens().table.detach()
    gradients = [_gradient_of(batch) for batch in window]
    sums = gradients[0] * 1 + gradients[1] * 9
    moved = (start - model.table.detach()) / 0.5
    _name_near(
        moved,
        {
            "the gradient is a mean of means: divide each sum of losses by `labels`": (
                gradients[0] / 2 + gradients[1] / 2
            ),
            "each batch is divided by its own labels: divide by those of the window": (
                gradients[0] + gradients[1]
            ),
            "the losses are summed and not divided: divide by `labels`": sums,
            "only the last batch counts: call zero_grad after the window, not after each batch": (
                gradients[1] * 0.9
            ),
        },
    )
    expect_close(moved, sums / 10, "the step of plain gradient descent, ÷ lr", 1e-5)
    if model.table.grad is not None and model.table.grad.any():
        raise Mistake("the gradient is still there: the next step would add to it (zero_grad)")
    _expect_loss(returned, window)
    clipped, _ = _stepped(implementation, window, [], clip=0.01)
    norm = ((start - clipped.table.detach()) / 0.5).norm()
    if norm > 0.0101:
        raise Mistake("the gradient was not clipped to `clip`, or only after optimizer.step()")


def _name_near(got: Tensor, mistakes: dict[str, Tensor]) -> None:
    """Name a known mistake within float32's rounding."""
    for message, wrong in mistakes.items():
        if (got - wrong).abs().max() < 1e-5:
            raise Mistake(message)


def _gradient_of(batch: dict[str, Tensor]) -> Tensor:
    """Return the gradient of a batch's mean loss."""
    model = _Tokens()
    logits = model.table[batch["input_ids"][:, :-1]]
    labels = batch["labels"][:, 1:]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    assert model.table.grad is not None
    return model.table.grad


def _stepped(
    implementation: Function, window: list[dict[str, Tensor]], calls: list[str], clip: float
) -> tuple[_Tokens, Any]:
    model = _Tokens()
    other = torch.nn.Parameter(torch.zeros(1))  # in a second group
    optimizer = _Sgd([{"params": [model.table]}, {"params": [other]}], 1.0)
    optimizer.calls = calls
    optimizer.rates = []
    returned = implementation(model, optimizer, iter(window), 10, 0.5, clip, _Accelerator(calls))
    if any(rate != 0.5 for rate in optimizer.rates):
        raise Mistake("the rate was not set before the step: write lr into each group")
    return model, returned


def _name_calls(calls: list[str], batches: int) -> None:
    backward = calls.count("backward")
    if backward == 0:
        raise Mistake("accelerator.backward was not called: call it with each batch's loss")
    if "step" not in calls:
        raise Mistake("optimizer.step() was not called")
    if calls.count("step") > 1:
        raise Mistake("the optimizer steps for each batch: step once, after the window")
    if backward != batches:
        raise Mistake(f"{backward} of {batches} batches had a backward pass: each needs one")
    if "clip" not in calls:
        raise Mistake("the gradient was not clipped: accelerator.clip_grad_norm_")
    if calls.count("clip") > 1:
        raise Mistake("each batch's gradient is clipped: clip once, when the window is complete")
    if calls.index("clip") > calls.index("step"):
        raise Mistake("the gradient is clipped after the step: clip before it")


def _expect_loss(returned: Any, window: list[dict[str, Tensor]]) -> None:
    if not isinstance(returned, Tensor):
        raise Mistake(f"expected the loss as a tensor, got {_type_of(returned)}")
    if returned.requires_grad:
        raise Mistake("the returned loss has a graph: add up loss.detach()")
    model = _Tokens()
    total = torch.zeros(())
    for batch in window:
        logits = model.table.detach()[batch["input_ids"][:, :-1]].flatten(0, 1)
        labels = batch["labels"][:, 1:].flatten()
        total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    if abs(returned.item() - total.item()) < 1e-4:
        raise Mistake("the summed loss was returned: divide it by `labels`")
    expect_close(returned.double(), total.double() / 10, "the loss", 1e-5)
