"""What a long training needs: a check of its loss, and batches that can be resumed."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from common.cards import FAILED, Card
from labs.kit.run.processes import is_main, stop_all
from labs.kit.run.run import Run

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader

BATCH = "nan-batch.safetensors"
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def on_one_thread(
    train: Callable[Concatenate[Run, Arguments], Result],
) -> Callable[Concatenate[Run, Arguments], Result]:
    """Decorate a training of small models: at `tiny` it uses one thread, which is faster.

    A small model's operations end before a second thread wakes up. On 2 cores, LLM05a's steps took
    2.1 times as long on two threads, and those of LLM05b's six layers 3.9 times.
    """

    @wraps(train)
    def wrapped(run: Run, *args: Arguments.args, **named: Arguments.kwargs) -> Result:
        before = torch.get_num_threads()
        torch.set_num_threads(1 if run.size == "tiny" else before)
        try:
            return train(run, *args, **named)
        finally:
            torch.set_num_threads(before)

    return wrapped


def stop_on_nan(run: Run, loss: torch.Tensor, step: int, batch: Any = None) -> float:
    """Return the mean loss of all processes; stop if it is NaN or infinite.

    Call it before the optimizer's step.

    Args:
        run: the run.
        loss: this process's loss, a tensor of one element.
        step: the step, for the card.
        batch: this process's part of the batch: a tensor, or a dict or sequence of tensors.

    Raises:
        Card: in all processes, if any loss is NaN or infinite. It names the step and what to try;
            the batch is saved in the run's folder.
    """
    value = float(cast(torch.Tensor, run.accelerator.reduce(loss.detach().float(), "mean")))
    if not math.isfinite(value):
        own = (_tensors_of(batch), float(loss))
        parts = cast(list[tuple[dict[str, torch.Tensor], float]], gather_object([own]))
        stop_all(_card(run, step, value, parts))
    return value


def require_finite_weights(run: Run, name: str, done: int, saved: int) -> None:
    """Stop if a weight is NaN or infinite.

    Args:
        run: the run, whose accelerator has prepared the model.
        name: the name of the training.
        done: the number of steps that are done.
        saved: the step of the last checkpoint.

    Raises:
        Card: in all processes, if one is.
        RuntimeError: if no model was prepared.
    """
    models = cast(
        list[torch.nn.Module],
        run.accelerator._models,  # pyright: ignore[reportPrivateUsage]
    )
    if not models:
        raise RuntimeError("create Checkpoints before accelerator.prepare: it has no model")
    parameters = [parameter for model in models for parameter in model.parameters()]
    finite = [parameter.detach().isfinite().all() for parameter in parameters]
    if not all(finite):
        what = f"The weights of {name!r} are NaN or infinite after step {done:,}."
        why = f"A gradient was, too. The last checkpoint is of step {saved:,}."
        stop_all(Card(what, why, nan_fix(run), FAILED))


def _card(
    run: Run, step: int, value: float, parts: list[tuple[dict[str, torch.Tensor], float]]
) -> Card:
    losses = ", ".join(f"{loss:.3g}" for _, loss in parts)
    of_each = f" (of the processes: {losses})" if len(parts) > 1 else ""
    what = f"The loss of step {step:,} is {value}{of_each}."
    return Card(what, _describe_batch(run, parts), nan_fix(run), FAILED)


def nan_fix(run: Run) -> str:
    """Return what to try after a NaN in a training."""
    first = "" if run.precision == "fp32" else "--precision fp32, to rule out rounding; "
    return f"{first}a lower learning rate, a longer warm-up, or a smaller gradient norm"


def _describe_batch(run: Run, parts: list[tuple[dict[str, torch.Tensor], float]]) -> str:
    """Save the batch in the run's folder, and describe it."""
    tensors = {
        f"process{rank}.{name}" if len(parts) > 1 else name: tensor
        for rank, (part, _) in enumerate(parts)
        for name, tensor in part.items()
    }
    if not tensors:
        return "The weights or a value of the batch became too large."
    shapes = [f"{name} {tuple(value.shape)}{_range(value)}" for name, value in tensors.items()]
    return f"Its batch: {', '.join(shapes)}. {_save_batch(run.folder / BATCH, tensors)}"


def _range(tensor: torch.Tensor) -> str:
    if not tensor.numel() or tensor.is_complex():
        return ""
    low, high = tensor.double().aminmax()
    return f" from {low:.4g} to {high:.4g}"


def _save_batch(path: Path, tensors: dict[str, torch.Tensor]) -> str:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not is_main():
        return ""
    try:
        save_file(tensors, path)
    except (OSError, SafetensorError) as error:
        return f"It can't be saved: {error}."
    return f"It is saved: safetensors.torch.load_file({str(path)!r})."


def _tensors_of(batch: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a batch by name or number."""
    if isinstance(batch, torch.Tensor):
        return {"batch": batch.detach().cpu().contiguous().clone()}
    if isinstance(batch, Mapping):
        items = list(cast(Mapping[str, Any], batch).items())
    else:
        items = [(str(i), value) for i, value in enumerate(cast(list[Any], batch or []))]
    named = {str(name): value for name, value in items if isinstance(value, torch.Tensor)}
    return {name: _tensors_of(value)["batch"] for name, value in named.items()}


def batches(run: Run, loader: "DataLoader[Any]", done: int = 0) -> Iterator[Any]:
    """Yield the batches of a prepared loader, epoch after epoch, without those already `done`.

    The order within an epoch depends only on the run's seed and the number of the epoch, so that a
    resumed training gets the same batches. The loader needs a `generator`: without one, each epoch
    draws a number from torch's generator, and the first epoch after a resume draws one more.

    Raises:
        ValueError: if the loader has no generator or no batch.
    """
    if loader.generator is None:
        raise ValueError("the loader needs a generator, so that a training can be resumed")
    if not len(loader):
        raise ValueError("the loader has no batch")
    epoch, first = divmod(done, len(loader))
    while True:
        cast(Any, loader).set_epoch(epoch)  # a shortened loader doesn't reach the sampler
        yield from run.accelerator.skip_first_batches(loader, first) if first else loader
        epoch += 1
        first = 0
