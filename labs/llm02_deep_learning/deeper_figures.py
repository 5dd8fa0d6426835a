"""The drawings of LLM02's deeper part."""

import math
from collections.abc import Mapping, Sequence

from labs.llm02_deep_learning.figures import Drawn, draw_rates, label_line

import matplotlib.pyplot as plt
import torch
from torch import Tensor


def draw_steps(measured: Mapping[str, tuple[Tensor, Tensor, float]]) -> Drawn:
    """Draw the relative error of a slope over the step, for each dtype.

    Args:
        measured: by the dtype's name: the steps (n,), the errors (n,) and the best step in theory.
    """
    fig, ax = plt.subplots()
    for colour, (name, (steps, errors, theory)) in zip(("C0", "C1"), measured.items(), strict=True):
        eps = torch.finfo(getattr(torch, name)).eps
        ax.loglog(steps, errors, f"{colour}o", ms=4)
        ax.loglog(steps, steps**2 / 6, "C6", lw=1)
        ax.loglog(steps, eps / (2 * steps), f"{colour}--", lw=1)
        ax.axvline(theory, color=colour, lw=0.8, ls=":")
        ax.text(theory * 0.8, 3, f"h* {name}", color=colour, ha="right")
    ax.text(2e-2, 1e-3, "h²/6", color="C6", ha="right")
    ax.text(2e-11, 2e-5, "ε/2h, float64", color="C0")
    ax.text(4e-6, 2e-2, "ε/2h, float32", color="C1")
    ax.set(xlabel="step h", ylabel="relative error of the slope", ylim=(1e-13, 10))
    ax.set_title("Large steps err by the curve's bend, small ones by rounding")
    caption = (
        "Median error of the slope of eˣ (dots), Taylor's term (solid), and the effect of an error "
        "of ε/2 in each value (dashed)."
    )
    alt = (
        "Plot on log scales of the slope's relative error over the step h: for float64 and for "
        "float32 the dots fall along one line and rise along another, with a minimum at h*."
    )
    return fig, caption, alt


def draw_depth(
    gradients: Mapping[str, Sequence[Sequence[float]]],
    spreads: Mapping[str, Sequence[Sequence[float]]],
) -> Drawn:
    """Draw the gradients and the spreads over the layers, a line for each seed.

    Args:
        gradients: by activation, for each seed: the RMS gradient of each layer's weights.
        spreads: the same of how much each layer's input differs between inputs.
    """
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 4), sharex=True)
    panels = ((gradients, "RMS gradient of its weights"), (spreads, "relative spread of its input"))
    for ax, (lines, label) in zip(axes, panels, strict=True):
        for colour, (name, by_seed) in zip(("C0", "C1", "C2"), lines.items(), strict=True):
            depth = len(by_seed[0])
            for values in by_seed:
                ax.semilogy(range(1, depth + 1), values, f"{colour}o-", ms=2, lw=0.7)
            aside = {"sigmoid": 0.03, "tanh": 0.1, "ReLU": 10}  # below or above its line
            if ax is axes[1]:
                aside = {"sigmoid": 30, "tanh": 10, "ReLU": 0.1}
            label_line(ax, 8, aside[name] * by_seed[0][7], name, colour)
        ax.set(xlabel="layer, from the input", ylabel=label, xticks=range(2, depth + 1, 6))
        ax.set_ylim(1e-13, 1e3)
    axes[0].set_title("back: the gradient", fontsize=11)
    axes[1].set_title("forward: the signal", fontsize=11)
    title = "Sigmoids let hardly any gradient or signal through"
    fig.suptitle(title, x=0.02, ha="left", fontsize=13)
    caption = (
        f"{depth} untrained layers, three seeds for each activation, in the same colours. The "
        "signal is how much 64 inputs differ, relative to their size."
    )
    alt = (
        "Two line plots over 20 layers on log scales. Left, the gradient of sigmoid falls steeply "
        "toward the first layer; right, its spread falls steeply toward the last layer. Tanh and "
        "ReLU stay nearly level in both."
    )
    return fig, caption, alt


def draw_fine_sweep(
    rates: Sequence[float], right: Mapping[int, Tensor], near: Mapping[int, tuple[int, int]]
) -> Drawn:
    """Draw validation accuracy over the learning rate, after few and after many epochs.

    Args:
        rates: the learning rates.
        right: by the number of epochs: accuracies (rates, seeds).
        near: by the number of epochs: the first and the last rate near the best.
    """
    fig, ax = plt.subplots()
    for i, (epochs, accuracies) in enumerate(right.items()):
        colour = f"C{i}"
        draw_rates(ax, rates, accuracies, colour)
        first, last = near[epochs]
        height = 0.4 + 0.15 * i
        ax.plot((rates[first], rates[last]), (height, height), colour, lw=6, solid_capstyle="butt")
        middle = math.sqrt(rates[first] * rates[last])
        name = f"near the best, {epochs} epochs"
        ax.text(middle, height - 0.03, name, color=colour, ha="center", va="top")
    ax.set_title("More epochs make smaller rates good, too")
    caption = (
        "Validation accuracy for each learning rate, three seeds each and their mean. Bars: the "
        "rates within two standard errors of the best one."
    )
    alt = (
        "Two lines of validation accuracy over the learning rate on a log scale. After more epochs "
        "the line rises earlier, and the bar of good rates begins further left."
    )
    return fig, caption, alt


def draw_sums(
    plain: Mapping[str, Sequence[float]], kahan: Sequence[float], stochastic: Tensor
) -> Drawn:
    """Draw 1.0 and a thousand additions of 0.001, four ways.

    Args:
        plain: by the dtype's name, the sum after each addition, from 0 to 1,000.
        kahan: the sum in bfloat16 with compensation, after each 50 additions.
        stochastic: sums in bfloat16 with stochastic rounding after all additions, (copies,).
    """
    fig, ax = plt.subplots()
    for colour, (name, path) in zip(("C0", "C1"), plain.items(), strict=True):
        ax.plot(path, colour)
        label_line(ax, 1000, path[-1], name, colour)
    ax.plot(range(0, 1001, 50), kahan, "C2o", ms=4)
    label_line(ax, 1000, kahan[-1] - 0.06, "bfloat16, Kahan", "C2")
    ax.errorbar(1000, stochastic.mean(), yerr=stochastic.std(), fmt="C3s", ms=5, capsize=4)
    label_line(ax, 1000, 1.85, "bfloat16, stochastic:\nmean ± one deviation", "C3", va="top")
    ax.set(xlabel="additions of 0.001", ylabel="sum", xlim=(0, 1420), xticks=range(0, 1001, 250))
    ax.set_title("In bfloat16 a thousand small steps leave no trace")
    caption = "1.0 and a thousand additions of 0.001, four ways."
    alt = (
        "Line plot of the sum over the number of additions: float32 rises to 2, bfloat16 stays "
        "at 1, Kahan's bfloat16 follows float32, stochastic rounding ends near 2 with a spread."
    )
    return fig, caption, alt


def draw_labels(histories: Mapping[str, Sequence[Tensor]]) -> Drawn:
    """Draw training and test accuracy by epoch, with true and with random labels.

    Args:
        histories: for each kind of labels and each seed, (epochs, 2): accuracy on training images
            and on unseen ones.
    """
    fig, ax = plt.subplots()
    for colour, runs in zip(("C0", "C1"), histories.values(), strict=True):
        for history in runs:
            epochs = len(history)
            for kind, style in ((0, "-"), (1, ":")):
                ax.plot(range(1, epochs + 1), history[:, kind], f"{colour}{style}", lw=1.2)
    learned = min(histories["random labels"][0][-1, 0].item(), 0.9)
    for text, height, colour in (
        ("true labels, training", 1.02, "C0"),
        ("true labels, unseen", 0.96, "C0"),
        ("random labels, training", learned, "C1"),
        ("random labels, unseen", 0.1, "C1"),
    ):
        label_line(ax, epochs, height, text, colour)
    ax.set(xlabel="epoch", ylabel="accuracy", xlim=(1, 1.5 * epochs), ylim=(0, 1.05))
    ax.set_xticks(range(0, epochs + 1, epochs // 4))
    ax.set_title("High training accuracy can be memory alone")
    caption = "Accuracy on training images (solid) and unseen ones (dotted), three seeds each."
    alt = (
        "Line plot of accuracy over epochs: with true labels both curves are near 1, with random "
        "labels the training accuracy rises and the test accuracy stays near 0.1."
    )
    return fig, caption, alt
