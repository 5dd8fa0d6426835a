"""Draw the figures of LLM09."""

from statistics import mean
from typing import Any

from labs.llm09_custom_architectures.inspection import parameters

from torch import Tensor, nn


def draw_tree(ax: Any, model: nn.Module) -> None:
    """Draw a row for each module that has parameters, indented by depth, with their number."""
    modules = [(name, parameters(one), type(one).__name__) for name, one in model.named_modules()]
    rows = [row for row in modules if row[1]]
    ax.plot([count for _, count, _ in rows], range(len(rows)), "o")
    beside_axis = ax.get_yaxis_transform()
    for i, (name, count, kind) in enumerate(rows):
        depth = name.count(".") + bool(name)
        label = f"{name.split('.')[-1]}: {kind}" if name else kind
        text = "     " * depth + label
        ax.text(0, i, text, va="center", fontsize=9, transform=beside_axis)
        ax.text(count, i, f"   {count:,}", va="center", fontsize=9)
    ax.set(xscale="log", xlim=(0.01, 2e6), xticks=[100, 10_000, 1_000_000], yticks=[])
    ax.set(xlabel="parameters, submodules included", title="The modules of a hybrid")
    ax.minorticks_off()
    ax.spines["left"].set_visible(False)
    ax.invert_yaxis()


def draw_maps(axes: Any, image: Tensor, first: Tensor, second: Tensor) -> None:
    """Draw an image (H, W) and maps of two layers (C, H, W) on 3 × 8 axes."""
    shown = [image, *first[:15], *second[:8]]
    titles = {0: "image", 1: "layer 1 …", 16: "layer 2 …"}
    for i, (ax, pixels) in enumerate(zip(axes.flat, shown, strict=True)):
        ax.imshow(pixels)
        ax.set(xticks=[], yticks=[])
        ax.set_title(titles.get(i, ""), fontsize=10)
        ax.grid(False)


def draw_arms(
    ax: Any, right: dict[str, list[float]], loss: dict[str, list[float]], bigram: float
) -> None:
    """Draw recall over the loss on text, a point for each seed.

    Args:
        ax: the axes.
        right: the accuracy of recall, by arm and seed.
        loss: the loss on text, by arm and seed; an arm without it is drawn as a line.
        bigram: the loss of the bigram.
    """
    for i, (arm, accuracies) in enumerate(right.items()):
        if arm in loss:
            ax.plot(loss[arm], accuracies, "os^"[i], color=f"C{i}", ms=8, label=arm)
        else:
            ax.axhline(mean(accuracies), color=f"C{i}", ls="--", label=f"{arm}: recall")
    ax.axvline(bigram, color="grey", ls=":", label="bigram: loss")
    ax.set(xlabel="loss on text (nats per character)", ylabel="recall (accuracy)")
    ax.set(ylim=(-0.03, 1.03), title="Two layers each, three seeds: upper left is better")
    ax.legend(loc="center")
