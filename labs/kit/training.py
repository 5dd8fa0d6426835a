"""What every long training needs: a loss that is watched, and batches that can be gone on with."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from labs.kit.cards import FAILED, Card
from labs.kit.ranks import is_main, stop_all
from labs.kit.run import Run

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader

BATCH = "nan-batch.safetensors"
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def on_one_thread(
    train: Callable[Concatenate[Run, Arguments], Result],
) -> Callable[Concatenate[Run, Arguments], Result]:
    """Decorate a training of small models: at `tiny` it has one thread, for it is faster on one.

    A small model's operations end before a second thread has woken up. On 2 cores LLM05a's steps
    took 2.1 times as long on two threads, those of LLM05b's six layers 3.9 times.
    """

    @wraps(train)
    def wrapped(run: Run, *args: Arguments.args, **how: Arguments.kwargs) -> Result:
        before = torch.get_num_threads()
        torch.set_num_threads(1 if run.size == "tiny" else before)
        try:
            return train(run, *args, **how)
        finally:
            torch.set_num_threads(before)

    return wrapped


def stop_on_nan(run: Run, loss: torch.Tensor, step: int, batch: Any = None) -> float:
    """The loss, its mean over all processes, as a number; call it before the step is taken.

    Args:
        loss: this process's, of one element.
        batch: this process's part of the batch: a tensor, or a dict or sequence with some.

    Raises:
        Card: NaN or infinite in any process: the step, the batch (which the run's folder keeps) and
            what to try. It ends them all.
    """
    value = float(cast(torch.Tensor, run.accelerator.reduce(loss.detach().float(), "mean")))
    if not math.isfinite(value):
        own = (_flat(batch), float(loss))
        parts = cast(list[tuple[dict[str, torch.Tensor], float]], gather_object([own]))
        stop_all(_card(run, step, value, parts))
    return value


def _card(
    run: Run, step: int, value: float, parts: list[tuple[dict[str, torch.Tensor], float]]
) -> Card:
    losses = ", ".join(f"{loss:.3g}" for _, loss in parts)
    of_each = f" (of the processes: {losses})" if len(parts) > 1 else ""
    what = f"The loss of step {step:,} is {value}{of_each}."
    return Card(what, _batch_told(run, parts), cure(run), FAILED)


def cure(run: Run) -> str:
    """What to try where a training has gone to NaN."""
    first = "" if run.precision == "fp32" else "--precision fp32, to see whether it is rounding; "
    return f"{first}a lower learning rate, a longer warm-up, gradients clipped to a smaller norm"


def _batch_told(run: Run, parts: list[tuple[dict[str, torch.Tensor], float]]) -> str:
    """Keep the batch in the run's folder, and say what is in it."""
    tensors = {
        f"process{rank}.{name}" if len(parts) > 1 else name: tensor
        for rank, (part, _) in enumerate(parts)
        for name, tensor in part.items()
    }
    if not tensors:
        return "The weights had grown too large, or a value of the batch is."
    shown = ", ".join(f"{name} {tuple(one.shape)}{_range(one)}" for name, one in tensors.items())
    return f"Its batch: {shown}. {_kept(run.folder / BATCH, tensors)}"


def _range(tensor: torch.Tensor) -> str:
    if not tensor.numel() or tensor.is_complex():
        return ""
    low, high = tensor.double().aminmax()
    return f" from {low:.4g} to {high:.4g}"


def _kept(path: Path, tensors: dict[str, torch.Tensor]) -> str:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not is_main():
        return ""
    try:
        save_file(tensors, path)
    except (OSError, SafetensorError) as error:
        return f"It can't be kept: {error}."
    return f"It is kept: safetensors.torch.load_file({str(path)!r})."


def _flat(batch: Any) -> dict[str, torch.Tensor]:
    """The tensors of a batch by name or number."""
    if isinstance(batch, torch.Tensor):
        return {"batch": batch.detach().cpu().contiguous().clone()}
    if isinstance(batch, Mapping):
        items = list(cast(Mapping[str, Any], batch).items())
    else:
        items = [(str(at), one) for at, one in enumerate(cast(list[Any], batch or []))]
    named = {str(name): _flat(one) for name, one in items if isinstance(one, torch.Tensor)}
    return {name: one["batch"] for name, one in named.items()}


def batches(run: Run, loader: "DataLoader[Any]", done: int = 0) -> Iterator[Any]:
    """Epoch after epoch of a prepared loader, without end, from the batch after the first `done`.

    The order of an epoch depends on the run's seed and the epoch's number alone, so that going on
    in its middle gives the batches that would have come. For that the loader needs a `generator` of
    its own: without one each epoch draws a number from torch's own, once more after a resume.

    Raises:
        ValueError: where it has none, or no batch.
    """
    if loader.generator is None:
        raise ValueError("a loader that can be gone on with needs a generator of its own")
    if not len(loader):
        raise ValueError("the loader has no batch")
    epoch, first = divmod(done, len(loader))
    while True:
        cast(Any, loader).set_epoch(epoch)  # a shortened one doesn't reach the sampler
        yield from run.accelerator.skip_first_batches(loader, first) if first else loader
        epoch, first = epoch + 1, 0
