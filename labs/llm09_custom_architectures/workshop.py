"""The workshop of LLM09: trainings, a trap, a stranger and drawings. The lab brings the models."""

import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from labs.kit import Run, on_one_thread
from labs.kit.measure import in_new_process
from labs.llm02_deep_learning import accuracy, batches_of, digits
from labs.llm06_attention import ANSWERS, KEYS, recall_batch
from labs.llm07_lora import trainable
from labs.shared import small_gpt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Looking at modules.


def parameters(model: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(one.numel() for one in model.parameters())


def tensors_in(name: str, value: Any) -> Iterator[str]:
    """The path of every tensor in a value: in modules, lists, tuples and dicts too."""
    if isinstance(value, Tensor):
        yield name
    elif isinstance(value, nn.Module):
        yield from tensors_in(name, dict(value.state_dict()))
    elif isinstance(value, list | tuple | dict):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors_in(f"{name}.{key}", one)


def forgotten(module: nn.Module) -> list[str]:
    """Paths of tensors that attributes of a module, or of one below it, hold unregistered."""
    return [
        path.removeprefix(".")
        for owner, one in module.named_modules()
        for name, value in vars(one).items()
        if not name.startswith("_")  # nn.Module's own dictionaries
        for path in tensors_in(f"{owner}.{name}", value)
    ]


def tied(module: nn.Module) -> list[list[str]]:
    """Names that are one and the same memory, together."""
    names: dict[int, list[str]] = {}
    for name, one in module.state_dict().items():
        names.setdefault(one.data_ptr(), []).append(name)
    return [one for one in names.values() if len(one) > 1]


def hooks(model: nn.Module) -> int:
    """How many forward hooks hang on a model's modules."""
    return sum(len(one._forward_hooks) for one in model.modules())


def refusal(action: Callable[[], Any]) -> str:
    """The kind of error that an action raises, or "nothing"."""
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "nothing"


def draw_tree(ax: Any, model: nn.Module) -> None:
    """A row for each module with parameters, indented by its depth, and how many are below it."""
    found = [(name, parameters(one), type(one).__name__) for name, one in model.named_modules()]
    found = [row for row in found if row[1]]
    ax.plot([count for _, count, _ in found], range(len(found)), "o")
    for i, (name, count, kind) in enumerate(found):
        depth = name.count(".") + bool(name)
        own = f"{name.split('.')[-1]}: {kind}" if name else kind
        ax.text(0, i, "     " * depth + own, va="center", fontsize=9,
                transform=ax.get_yaxis_transform())  # fmt: skip
        ax.text(count, i, f"   {count:,}", va="center", fontsize=9)
    ax.set(xscale="log", xlim=(0.01, 2e6), xticks=[100, 10_000, 1_000_000], yticks=[])
    ax.set(xlabel="parameters, with all below", title="The modules of a hybrid")
    ax.minorticks_off()
    ax.spines["left"].set_visible(False)
    ax.invert_yaxis()


def draw_maps(axes: Any, image: Tensor, first: Tensor, second: Tensor) -> None:
    """An image (H, W) and maps of two layers (C, H, W), on 3 × 8 axes."""
    shown = [image, *first[:15], *second[:8]]
    titles = {0: "image", 1: "layer 1 …", 16: "layer 2 …"}
    for i, (ax, one) in enumerate(zip(axes.flat, shown, strict=True)):
        ax.imshow(one)
        ax.set(xticks=[], yticks=[])
        ax.set_title(titles.get(i, ""), fontsize=10)
        ax.grid(False)


def draw_arms(
    ax: Any, right: dict[str, list[float]], loss: dict[str, list[float]], bigram: float
) -> None:
    """Recall over the loss on text, a point a seed; a line for an arm that read no text."""
    for i, (arm, found) in enumerate(right.items()):
        if arm in loss:
            ax.plot(loss[arm], found, "os^"[i], color=f"C{i}", ms=8, label=arm)
        else:
            ax.axhline(sum(found) / len(found), color=f"C{i}", ls="--", label=f"{arm}: recall")
    ax.axvline(bigram, color="grey", ls=":", label="bigram: loss")
    ax.set(xlabel="loss on text (nats per character)", ylabel="recall (accuracy)")
    ax.set(ylim=(-0.03, 1.03), title="Two layers each, three seeds: upper left is better")
    ax.legend(loc="center")


# A file that acts, and a process that knows nothing.


class Trap:
    """Opened by pickle, it makes a folder. It could as well remove yours."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


STRANGER = """
import json, sys, torch
from transformers import AutoModelForCausalLM
folder, ids = sys.argv[1], torch.tensor(json.loads(sys.argv[2]))
try:
    AutoModelForCausalLM.from_pretrained(folder)
    refused = "nothing"
except Exception as error:
    refused = type(error).__name__
import labs.llm09_custom_architectures.lesson
model = AutoModelForCausalLM.from_pretrained(folder)
how = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
written = model.generate(ids, max_new_tokens=6, **how)
with torch.no_grad():
    print(json.dumps([refused, type(model).__name__, model(ids).logits.tolist(), written.tolist()]))
"""


def in_a_new_process(folder: str, ids: Tensor) -> list[Any]:
    """Open a model there: the refusal without LLM09's classes; with them kind, logits, writing."""
    return in_new_process(STRANGER, folder, json.dumps(ids.tolist()))


# Training, under Accelerate.


@cache
def images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """LLM02's digits as images: (1437, 1, 8, 8) and labels to train on, 360 of each to test."""
    x, y, x_test, y_test = digits()
    return x.view(-1, 1, 8, 8), y, x_test.view(-1, 1, 8, 8), y_test


def shuffled(x: Tensor, seed: int) -> Tensor:
    """The pixels of all images (B, 1, 8, 8) in one other order."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
    return x.flatten(1)[:, order].view_as(x)


@on_one_thread
def fit(run: Run, model: Any, x: Tensor, y: Tensor, epochs: int, label: str, still=False) -> Any:
    """Train on images by AdamW what requires a gradient; the rate ends near 0.

    Args:
        still: train in evaluation mode, so that no buffer moves and nothing is dropped.

    Returns:
        The model on the CPU, in float32 and in evaluation mode.
    """
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-2, fused=True)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    model.train(not still)
    steps = epochs * (len(x) // 64)
    for step, batch in enumerate(run.progress(batches_of(64, len(x), steps), label, steps)):
        batch = run.share(batch)
        loss = F.cross_entropy(model(x[batch].to(run.device)), y[batch].to(run.device))
        _step(run, model, optimizer, loss, 1e-2 * small_gpt.rate(step, steps, steps // 20))
    return run.accelerator.unwrap_model(model, keep_fp32_wrapper=False).cpu().eval()


def _step(run: Run, model: Any, optimizer: Any, loss: Tensor, rate: float) -> None:
    optimizer.param_groups[0]["lr"] = rate
    run.accelerator.backward(loss)
    run.accelerator.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def mlp() -> nn.Module:
    """About as many numbers as the CNN: 6,160."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 82), nn.ReLU(), nn.Linear(82, 10))


@cache
def reader(run: Run, kind: Any, seed: int, shuffle: bool) -> tuple[Any, float]:
    """A trained network, and its accuracy on the 360 test images."""
    torch.manual_seed(seed)
    x, y, x_test, y_test = images()
    if shuffle:
        x, x_test = (shuffled(one, seed) for one in (x, x_test))
    label = f"{kind.__name__}{', shuffled' * shuffle}, seed {seed}"
    epochs = run.pick(tiny=12, small=40, full=120)
    model = fit(run, kind(), x, y, epochs, label)
    return model, accuracy(model, x_test, y_test)


class Training:
    """A model with dropout, AdamW, a rate that falls for 80 steps, and an order of batches."""

    def __init__(self, kind: Callable[..., Any], seed: int) -> None:
        torch.manual_seed(seed)
        self.model = kind(dropout=0.2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        falls = torch.optim.lr_scheduler.LambdaLR
        self.schedule = falls(self.optimizer, lambda step: 1 - step / 80)
        self.order = torch.Generator().manual_seed(seed)

    def step(self) -> float:
        x, y, *_ = images()
        batch = torch.randint(len(x), (32,), generator=self.order)
        loss = F.cross_entropy(self.model(x[batch]), y[batch])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        parts = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        parts |= {"order": self.order.get_state(), "random numbers": torch.get_rng_state()}
        parts["weights"] = dict(self.model.named_parameters())
        return parts | {"buffers": dict(self.model.named_buffers())}

    def load(self, state: dict[str, Any]) -> None:
        """Load the parts that are there, and leave the others as they are."""
        for part, how in {
            "weights": lambda weights: self.model.load_state_dict(weights, strict=False),
            "buffers": lambda buffers: self.model.load_state_dict(buffers, strict=False),
            "optimizer": self.optimizer.load_state_dict,
            "schedule": self.schedule.load_state_dict,
            "order": self.order.set_state,
            "random numbers": torch.set_rng_state,
        }.items():
            if part in state:
                how(state[part])


text = small_gpt.shakespeare


def loss_on(model: Any, task: str, tokens: Tensor) -> Tensor:
    """Nats per answer of "recall", LLM06's task, or per character of "text"."""
    if task == "recall":
        logits, answers = model(tokens).logits[:, KEYS], tokens[:, ANSWERS]
    else:
        logits, answers = model(tokens[:, :-1]).logits, tokens[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), answers.flatten())


@on_one_thread
def teach(run: Run, model: Any, task: str, label: str, seed: int) -> Any:
    """Train a language model on "recall" or "text"; it comes back as from `fit`."""
    recalls, draws = task == "recall", torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.98), fused=True)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    model.train()
    torch.manual_seed(seed)  # the same batches, whatever the model drew
    steps = run.pick(tiny=240 if recalls else 120, small=1500, full=6000)
    for step in run.progress(range(steps), label):
        tokens = recall_batch(32) if recalls else text().batch(16, 64, draws)
        loss = loss_on(model, task, run.share(tokens).to(run.device))
        _step(run, model, optimizer, loss, 5e-3 * small_gpt.rate(step, steps, steps // 20))
    return run.accelerator.unwrap_model(model, keep_fp32_wrapper=False).cpu().eval()


@torch.no_grad()
def recall(model: Any, tokens: Tensor) -> float:
    """The share of LLM06's pairs that are answered rightly."""
    return (model(tokens).logits[:, KEYS].argmax(-1) == tokens[:, ANSWERS]).float().mean().item()


@torch.no_grad()
def greedy(model: Any, ids: Tensor, count: int) -> Tensor:
    """(B, T) -> (B, T + count), each time the likeliest token, all read again."""
    for _ in range(count):
        ids = torch.cat((ids, model(ids).logits[:, -1:].argmax(-1)), 1)
    return ids
