"""Check the exercises of LLM08; those of LLM08+ are in deeper_checks.

Windows and the training step are here, and compared with results that are written out.
"""

from collections.abc import Iterator
from typing import Any

from labs.kit import Checks, Mistake, draw, expect_close
from labs.llm08_training import batch_checks, deeper_checks, optimizer_checks
from labs.llm08_training.batch_checks import IGNORED, Function, type_of

import torch
from torch import Tensor

checks = Checks()


# windows


def windows(module: Any) -> None:
    """Compare with batches cut by hand, from a source that counts what was read."""
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
        raise Mistake(f"expected an iterator, got {type_of(found)}: yield each window")
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
        raise Mistake(f"the number of labels must be an integer, got {type_of(window[1])}")
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


def training_step(module: Any) -> None:
    """Compare with plain gradient descent, and record the order of the calls."""
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
        raise Mistake(
            "the gradient is still there: call zero_grad after optimizer.step(), as in section 5"
        )
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
        raise Mistake(f"expected the loss as a tensor, got {type_of(returned)}")
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


for _part, _check in {  # in the order of both sittings
    "supervise": batch_checks.supervise,
    "collate": batch_checks.collate,
    "collate_packs": batch_checks.collate_packs,
    "windows": windows,
    "clip_gradients": optimizer_checks.clip_gradients,
    "adamw_step": optimizer_checks.adamw_step,
    "lr_at": optimizer_checks.lr_at,
    "training_step": training_step,
    "label_mistake": deeper_checks.label_mistake,
    "pack": deeper_checks.pack,
}.items():
    checks.proves(_part)(_check)
