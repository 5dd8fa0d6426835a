"""The drawings of LLM07.

Each public function draws a figure and puts it into the report of a run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from labs.kit import Run

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn


def _matrix(ax: Axes, corner: tuple[float, float], size: tuple[float, float], colour: str) -> None:
    """Draw a matrix as a rectangle of `size`, width and height, with its lower left corner."""
    ax.add_patch(Rectangle(corner, *size, fc=colour, ec="none", alpha=0.85))


def _label(ax: Axes, x: float, y: float, text: str, **looks: Any) -> None:
    ax.text(x, y, text, ha="center", va="center", **looks)


def update(run: Run) -> None:
    """Draw W + B A with the shapes of the matrices."""
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    _matrix(ax, (0, 0), (3, 3), "C0")
    _label(ax, 1.5, 1.5, "W\nfrozen", color="white", fontsize=15)
    _label(ax, 1.5, -0.35, "in")
    _label(ax, -0.4, 1.5, "out")
    _label(ax, 3.7, 1.5, "+  α/r ·", fontsize=15)
    _matrix(ax, (4.6, 0), (0.4, 3), "C1")
    _label(ax, 4.8, 1.5, "B", color="white", fontsize=15)
    _label(ax, 4.8, -0.35, "r")
    _matrix(ax, (5.3, 2.6), (3, 0.4), "C1")
    _label(ax, 6.8, 2.8, "A", color="white", fontsize=15)
    _label(ax, 6.8, 3.3, "in")
    _label(ax, 8.5, 2.8, "r")
    _label(ax, 7, 1.2, "trained: r · (in + out) numbers\ninstead of in · out", color="C1")
    ax.set(xlim=(-0.8, 9), ylim=(-0.7, 3.6), aspect="equal")
    ax.set_title("A large frozen matrix and a thin trained update")
    ax.axis("off")
    caption = (
        "LoRA: the frozen matrix W and its update, a tall B times a wide A. The factor α/r comes "
        "in section 2."
    )
    alt = "A large square W, plus a tall thin B times a wide flat A."
    run.figure(fig, "update", caption, alt=alt)


def pictures(run: Run, target: Tensor, drawn: Mapping[int, Tensor]) -> None:
    """Draw a picture and three approximations by rank, all (rows, columns)."""
    fig, axes = plt.subplots(2, 2, figsize=(7.2, 3.6))
    panels = {"the picture, 225 pixels": target}
    for rank, image in drawn.items():
        panels[f"rank {rank}: {rank * sum(image.shape)} numbers"] = image
    for ax, (title, image) in zip(axes.flat, panels.items(), strict=True):
        shown = ax.imshow(image, vmin=-1.2, vmax=1.2, cmap="RdBu_r", aspect="equal")
        ax.set_title(title, fontsize=10)
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
    fig.colorbar(shown, ax=axes, label="value of a pixel", shrink=0.8)
    ranks = ", ".join(map(str, drawn))
    fig.suptitle(f"The word LoRA at ranks {ranks}", x=0.02, ha="left", fontsize=12)
    caption = (
        f"A picture, and the sums of its first products, at ranks {ranks}. At rank 7 the factors "
        "have more numbers than the picture: thin factors save numbers only if r is small."
    )
    alt = "Four pictures: the letters LoRA, and three copies that become clearer with the rank."
    run.figure(fig, "letters", caption, alt=alt)


def places(run: Run, block: nn.Module, names: Sequence[str], rank: int, model: str) -> None:
    """Draw the sizes of a block's linear layers and of their adapters."""
    modules: dict[str, Any] = {path.split(".")[-1]: part for path, part in block.named_modules()}
    shapes = {name: tuple(modules[name].weight.shape) for name in names}  # (out, in)
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    for i, (rows, columns) in enumerate(shapes.values()):
        weights = rows * columns
        adapter = rank * (rows + columns)
        ax.barh(i - 0.2, weights, 0.38, color="C0")
        ax.barh(i + 0.2, adapter, 0.38, color="C1")
        frozen = f" {weights:,}" if i else f" {weights:,} frozen"
        trained = f" {adapter:,}" if i else f" {adapter:,} trained, A and B"
        ax.text(weights, i - 0.2, frozen, va="center", fontsize=9, color="C0")
        ax.text(adapter, i + 0.2, trained, va="center", fontsize=9, color="C1")
    labels = [f"{name}\n{rows} × {columns}" for name, (rows, columns) in shapes.items()]
    ax.set_yticks(range(len(labels)), labels, fontsize=9)
    ax.set(xlabel="numbers")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.margins(x=0.15)
    ax.invert_yaxis()
    ratios = [rows * columns / (rank * (rows + columns)) for rows, columns in shapes.values()]
    low, high = min(ratios), max(ratios)
    ax.set_title(f"An adapter has {low:.0f} to {high:.0f} times fewer numbers than its matrix")
    caption = f"A block of {model}: its seven matrices, out × in, and adapters of rank {rank}."
    alt = "Seven pairs of bars: the weights of a matrix, and the far fewer of its adapter."
    run.figure(fig, "places", caption, alt=alt)


def gradient_flow(
    run: Run, model: str, first: Mapping[str, Sequence[Any]], second: Mapping[str, Sequence[Any]]
) -> None:
    """Draw the largest gradient of A and B in each adapter, at step 0 and at step 1."""
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.4), sharey=True)
    titles = ("Step 0: only B has a gradient", "Step 1: both have a gradient")
    top = 0.0
    for ax, gradients, title in zip(axes, (first, second), titles, strict=True):
        count = len(gradients["A"])
        for name, colour, marker, va in (("A", "C1", "o", "top"), ("B", "C2", "s", "bottom")):
            heights = [float(value) for value in gradients[name]]
            ax.plot(heights, marker, ms=3, color=colour)
            y = sorted(heights)[count // 2]
            ax.annotate(name, (1.02 * count, y), color=colour, fontsize=13, va=va)
            top = max(top, *heights)
        ax.set_yscale("symlog", linthresh=1e-4)
        ax.set(xlabel="adapter, from first block to last", xlim=(-0.04 * count, 1.12 * count))
        ax.set_title(title, fontsize=11)
    axes[0].set_ylim(-3e-5, 2 * top)
    axes[0].set_ylabel("largest gradient")
    caption = f"The largest gradient in each adapter of {model}, at step 0 and at step 1."
    alt = "Two panels of dots, a dot for A and one for B in each adapter; at step 0 A's are at 0."
    run.figure(fig, "gradients", caption, alt=alt)


def learned(
    run: Run, losses: Sequence[float], right: Mapping[str, Sequence[float]], model: str
) -> None:
    """Draw the training loss, and the shares of right cities, days, numbers and records."""
    fig, (left, ax) = plt.subplots(1, 2, figsize=(8.8, 3.8), width_ratios=(1, 1.8))
    left.plot(range(1, len(losses) + 1), losses, "o-", ms=3)
    left.set(
        xlabel="step of four requests", ylabel="loss (nats per token of the record)", ylim=(0, None)
    )
    left.set_title("Loss in training", fontsize=11)
    parts = ("city", "day", "number", "entire record")
    width = 0.8 / len(right)
    for i, (name, shares) in enumerate(right.items()):
        for j, share in enumerate(shares):
            x = j + width * (i - (len(right) - 1) / 2)
            colour = f"C{(5, 4, 3, 0)[i]}"
            ax.bar(x, 100 * share, 0.9 * width, color=colour, label=name if not j else None)
            ax.text(x, 100 * share + 1, f"{100 * share:.0f}", ha="center", fontsize=9)
    ax.set_xticks(range(4), parts)
    ax.set(ylabel="right replies (%)", ylim=(0, 140), yticks=range(0, 101, 25))
    ax.legend(loc="upper left", ncols=2, fontsize=9.5, columnspacing=1, handlelength=1)
    ax.set_title("Held-out requests", fontsize=11)
    caption = f"{model} learns to write records: loss, and right parts of held-out records."
    alt = "A loss curve, and bars of right cities, days, numbers and records for each prompt."
    run.figure(fig, "records", caption, alt=alt)


def loss_map(
    run: Run,
    losses: Tensor,
    ranks: Sequence[int],
    scales: Sequence[float],
    rates: Sequence[float],
    steps: int,
) -> None:
    """Draw the mean over seeds of the loss (rank, α/r, rate, seed), a heat map for each rank."""
    seeds = losses.shape[-1]
    means = losses.mean(-1)
    fig, axes = plt.subplots(1, len(ranks), figsize=(8.8, 3.2))
    low = float(means.min())
    for ax, rank, cells in zip(axes, ranks, means, strict=True):
        image = ax.imshow(cells, vmin=low, vmax=low + 0.4, cmap="viridis_r", aspect="auto")
        for i, row in enumerate(cells.tolist()):
            for j, loss in enumerate(row):
                colour = "white" if loss > low + 0.2 else "black"
                ax.text(j, i, f"{loss:.2f}", ha="center", va="center", color=colour, fontsize=10)
        row, column = divmod(int(cells.argmin()), len(rates))
        frame = Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, fill=False, ec="C1", lw=3)
        ax.add_patch(frame)
        ax.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        ax.set_yticks(range(len(scales)), [f"{scale * rank:g}" for scale in scales])
        for text, scale in zip(ax.get_yticklabels(), scales, strict=True):
            text.set_weight("bold" if scale * rank == 8 else "normal")
        ax.set(xlabel="learning rate η", ylabel="α")
        ax.set_title(f"rank {rank}", fontsize=11)
        ax.grid(visible=False)
    label = "loss (nats per token)"
    fig.colorbar(image, ax=list(axes), label=label, extend="max")
    fig.suptitle("Loss by rank, α and learning rate", x=0.02, ha="left", fontsize=12)
    caption = (
        f"Loss of glass on plays after {steps} steps, mean of {seeds} seeds. A row straight across "
        "has the same α/r. Bold: α = 8, in another row at each rank; 2 and 32 stand in two panels. "
        "A frame marks the best pair of a rank. At an edge, a better pair may lie outside."
    )
    alt = "Three heat maps of the loss, α by learning rate, one for each rank."
    run.figure(fig, "map", caption, alt=alt)
