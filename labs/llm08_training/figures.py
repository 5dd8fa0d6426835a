"""Draw the figures of LLM08, and put them into the report."""

import math
from collections.abc import Sequence
from typing import Any

from labs.kit import Run
from labs.llm08_training.precision import LENGTH, Step, rows_of

import matplotlib.pyplot as plt
import torch

IGNORED = -100  # the label that the loss ignores
NEAR: dict[str, Any] = {"textcoords": "offset points", "va": "center"}


def draw_labels(tokens: list[str], labels: list[int]) -> Any:
    """Draw the tokens of a conversation as a text, and shade those whose label isn't −100."""
    size = 9  # points; a monospaced letter is 0.602 times as wide
    inches = 7.2
    columns = 72 * inches / (0.602 * size)
    fig, ax = plt.subplots(figsize=(inches, 3.4))
    line = 0
    place = 0.5
    for token, label in zip(tokens, labels, strict=True):
        text = token.replace("\n", "↵").replace(" ", "·")
        if place + len(text) > columns - 1:
            line += 1
            place = 0.5
        labelled = label != IGNORED
        box = {"boxstyle": "square,pad=0.12", "fc": "C0" if labelled else "none", "ec": "none"}
        colour = "white" if labelled else "C6"
        ax.text(place, -line, text, family="monospace", fontsize=size, color=colour, bbox=box)
        place += len(text) + 0.5
        if token.endswith("\n"):
            line += 1
            place = 0.5
    ax.set(xlim=(0, columns), ylim=(-line - 0.7, 0.9))
    ax.set_title("Only the responses and their ends have labels")
    ax.axis("off")
    return fig


def draw_schedule(shares: list[float], warmup: int) -> Any:
    """Draw the learning rate's share of its peak, step by step, and the end of the warm-up."""
    fig, ax = plt.subplots(figsize=(7.2, 2.6))
    ax.plot(shares, color="C0")
    ax.axvline(warmup - 1, color="grey", ls=":")
    ax.text(warmup + 3, 0.04, "end of the warm-up", color="grey")
    title = "The rate rises in a line and falls along a cosine"
    ax.set(
        xlabel="step of the optimizer",
        ylabel="share of the peak (0.005)",
        ylim=(0, 1.05),
        title=title,
    )
    return fig


def draw_precision(steps: Sequence[Any], tokens: int) -> Any:
    """Draw time, memory and gradient errors of a step on some tokens in three precisions."""
    panels = [
        ("time (seconds)", [step.seconds for step in steps], "%.2f"),
        ("activations, copies (MB)", [step.activations for step in steps], "%.0f"),
        ("trained weights, gradients, means (MB)", [step.stored for step in steps], "%.0f"),
        ("error of the gradient (%)", [100 * step.error for step in steps], "%.1f"),
    ]
    copies = [step.copies for step in steps]
    fig, axes = plt.subplots(2, 2, figsize=(7.2, 4.6))
    fp32, mixed, _ = steps
    saved = fp32.activations - mixed.activations
    change = f"− {saved:.0f} MB of activations, + {mixed.copies:.0f} MB of copies"
    fig.suptitle(f"Mixed precision with {tokens:,} tokens: {change}")
    for ax, (title, values, form) in zip(axes.flat, panels, strict=True):
        bars = ax.barh([step.way for step in steps], values, color=["C6", "C0", "C1"])
        if title.startswith("activations"):
            more = ax.barh([step.way for step in steps], copies, left=values, color="grey")
            pairs = list(zip(values, copies, strict=True))
            texts = [f"{a:.0f} + {b:.0f} of copies" if b else f"{a:.0f}" for a, b in pairs]
            ax.bar_label(more, texts, padding=3)
            values = [1.75 * (a + b) for a, b in pairs]
        else:
            ax.bar_label(bars, fmt=form, padding=3)
        ax.set(title=title, xlim=(0, 1.25 * max(values)))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return fig


def draw_mask(mask: torch.Tensor, lengths: list[int]) -> Any:
    """Draw the attention mask of a pack, (T, T), and the borders of its documents.

    Args:
        mask: True where a query may look at a key.
        lengths: the tokens of each document.
    """
    fig, ax = plt.subplots(figsize=(5.4, 4.6))
    ax.imshow(mask, cmap="Blues", vmin=0, vmax=1.6)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    for number, (end, length) in enumerate(zip(ends, lengths, strict=True), 1):
        ax.axhline(end - 0.5, color="grey", lw=0.4)
        ax.axvline(end - 0.5, color="grey", lw=0.4)
        middle = end - 0.5 - length / 2
        ax.text(ends[-1], middle, f"document {number}", va="center", fontsize=8)
    ax.set(xlabel="key", ylabel="query", title="Each token sees only its own document")
    ax.grid(visible=False)
    return fig


def draw_training(losses: list[float], watched: list[list[float]]) -> Any:
    """Draw the training loss of each step, and the held-out loss after some of them."""
    fig, ax = plt.subplots()
    ax.plot(range(1, len(losses) + 1), losses, lw=0.8, color="C0")
    steps, values = zip(*watched, strict=True)
    ax.plot(steps, values, "o-", color="C1")
    ax.text(steps[3], 1.45 * values[3], "responses to held-out requests", color="C1")
    ax.text(steps[0] / 5, 0.75 * min(losses[: int(steps[0])]), "training", color="C0", va="top")
    title = "The loss on held-out requests falls, too"
    ax.set(xlabel="step", ylabel="loss (nats per label)", yscale="log", title=title)
    ax.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    ax.minorticks_off()
    return fig


def draw_fit(losses: list[float], before: float, after: float, rows: int) -> Any:
    """Draw the training loss, step by step, and the loss on other rows before and after it.

    Args:
        losses: of each step (nats per label).
        before: the loss on rows that aren't trained on, before the training.
        after: the same after the training.
        rows: the number of rows in a step.
    """
    fig, ax = plt.subplots()
    ax.plot(range(1, len(losses) + 1), losses, "o-" if len(losses) < 50 else "-", color="C0")
    ax.plot([0, len(losses)], [before, after], "s", ms=9, color="C1")
    ax.annotate(f"test rows,\nbefore: {before:.2f}", (0, before), (-6, -28), color="C1", **NEAR)
    ax.annotate(f"{after:.2f} after", (len(losses), after), (9, 0), color="C1", **NEAR)
    ax.annotate("in training", (1, losses[0]), (9, 0), color="C0", **NEAR)
    title = f"On test rows the loss goes from {before:.2f} to {after:.2f}"
    ax.set(xlabel=f"steps of {rows} rows", ylabel="loss (nats per label)", title=title)
    ax.set_xlim(-0.3, 1.18 * len(losses))
    return fig


def show_labels(run: Run, tokens: list[str], labels: list[int]) -> None:
    """Show which tokens of a conversation have a label."""
    run.figure(
        draw_labels(tokens, labels),
        "labels",
        "A conversation of two requests in SmolLM2's template. The template adds the system turn. "
        "Shaded tokens have a label.",
        alt="The tokens of a conversation in reading order. The words of both responses, and the "
        "end token after each, are shaded; system prompt, requests and headers are not.",
    )


def show_mask(run: Run, mask: torch.Tensor, lengths: list[int]) -> None:
    """Show the attention mask of a pack, (T, T)."""
    run.figure(
        draw_mask(mask, lengths),
        "staircase",
        "The attention mask of a pack of four documents: the rows of the view below.",
        alt="A matrix of queries by keys. The visible keys form four triangles along the diagonal, "
        "one for each document; all other places are empty.",
    )


def show_schedule(run: Run, share: Any) -> None:
    """Show the learning rate's share of its peak, a partial function with steps and warm-up."""
    shares = [share(step) for step in range(share.keywords["steps"])]
    run.figure(
        draw_schedule(shares, share.keywords["warmup"]),
        "rate",
        "The learning rate of the training above, as a share of its peak (section 7).",
        alt="Line plot over the steps: a short rise to 1, then half a cosine down to 0.1.",
    )


def show_training(run: Run, losses: list[float], watched: list[list[float]]) -> None:
    """Show the training loss and the held-out loss."""
    run.figure(
        draw_training(losses, watched),
        "training",
        "The loss of each step, and of the responses to held-out requests.",
        alt="Line plot of the training loss over steps, which falls quickly at first and then "
        "slowly, and of the held-out loss, which follows it.",
    )


def show_precisions(run: Run, steps: Sequence[Step]) -> None:
    """Show time, memory and error of a step in three precisions."""
    memory = ["activations (MB)", "copies of weights (MB)", "stored (MB)"]
    columns = ["", "seconds", *memory, "gradient's error"]
    cells: list[list[Any]] = [step.cells() for step in steps]
    run.table("A step of SmolLM2's last four blocks", columns, cells)
    fp32, mixed, _ = steps
    rows = rows_of(run)
    tokens = rows * LENGTH
    enough = tokens * mixed.copies / (fp32.activations - mixed.activations)
    run.figure(
        draw_precision(steps, tokens),
        "precision",
        f"A step on SmolLM2's last four blocks, with {rows} rows of {LENGTH} tokens. With more "
        "tokens there are more activations, and the copies stay as large. By this count, without "
        f"the logits, mixed precision saves memory from about {round(enough, -2):,.0f} tokens on. "
        "Most of the copies belong to the output matrix: it is frozen, but gradients pass through "
        "it. Times are this machine's, the fastest of three steps.",
        alt="Bar charts for fp32, mixed precision and bf16 weights: seconds of a step, megabytes "
        "of activations with the copies of weights, megabytes of stored numbers, and the relative "
        "error of the gradient.",
    )


def draw_decay(sizes: torch.Tensor, adamw: torch.Tensor, l2: torch.Tensor) -> Any:
    """Draw where weights end that began at 1, by the size of their gradients, (n) each."""
    fig, ax = plt.subplots(figsize=(7.2, 3.2))
    ax.semilogx(sizes, adamw, "o", ms=4, color="C0")
    ax.semilogx(sizes, l2, "s", ms=4, color="C1")
    ax.axhline(math.exp(-0.5), color="grey", ls=":")
    left = sizes[0].item()
    ax.text(left, 1.2, "● AdamW", color="C0")
    ax.text(left, -0.26, "■ Adam with L2", color="C1")
    ax.set(xlabel="typical size of the weight's gradients", ylabel="weight after 1,000 steps")
    ax.set_ylim(bottom=-0.4)
    ax.set_title("With L2 the decay depends on the gradients' size, with AdamW it doesn't")
    return fig


def show_decay(run: Run, sizes: torch.Tensor, adamw: torch.Tensor, l2: torch.Tensor) -> None:
    """Show what AdamW and Adam with L2 leave of weights, by the size of their gradients."""
    run.figure(
        draw_decay(sizes, adamw, l2),
        "decay",
        "Fifty weights begin at 1 and take 1,000 steps on random gradients, whose mean is 0. The "
        "decay alone takes a weight to 61 % (dotted); the steps add noise.",
        alt="Scatter plot of the weights at the end over the size of their gradients. AdamW's lie "
        "around 0.61 everywhere. Those of Adam with L2 are near 0 on the left and near 1 on the "
        "right.",
    )
