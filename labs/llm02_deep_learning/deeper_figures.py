"""The drawings of LLM02's deeper part."""

import math
from collections.abc import Mapping, Sequence

from labs.llm02_deep_learning.figures import INK, Drawn, draw_rates, label_line

import matplotlib.pyplot as plt
import torch
from torch import Tensor


def draw_numbers() -> Drawn:
    """Draw the numbers with p = 3 from 0.5 to 4, and those of bfloat16 around 1."""
    fig, axes = plt.subplots(2, 1, figsize=(7.2, 3.6))
    ax = axes[0]
    for i, power in enumerate((-1, 0, 1)):
        start = 2.0**power
        places = [start * (1 + k / 4) for k in range(4)]
        ax.vlines(places, 0, 1, colors=f"C{i}", lw=2)
        ax.text(1.5 * start, 1.25, f"{start / 4:g} apart", color=f"C{i}", ha="center")
    ax.vlines(4, 0, 1, colors="C6", lw=2)
    for place in (0.5, 1, 2, 4):
        ax.text(place, -0.25, f"{place:g}", ha="center", va="top")
    ax.set(xlim=(0.4, 4.1), title="p = 3: the spacing doubles at each power of two")
    ax = axes[1]
    below = [1 - k / 256 for k in range(1, 7)]
    above = [1 + k / 128 for k in range(5)]
    ax.vlines(below, 0, 1, colors="C0", lw=2)
    ax.vlines(above, 0, 1, colors="C1", lw=2)
    ax.text(1 - 3.5 / 256, 1.25, "1/256 apart", color="C0", ha="center")
    ax.text(1 + 2.5 / 128, 1.25, "1/128 apart", color="C1", ha="center")
    ax.plot(1.001, 0.5, "C3o", ms=6)
    ax.text(1.0018, 0.5, "1.001", color="C3", va="center")
    for place, name in ((1, "1"), (1 + 1 / 128, "1.0078"), (1 - 1 / 256, "0.9961")):
        ax.text(place, -0.25, name, ha="center", va="top")
    ax.set(xlim=(1 - 6.6 / 256, 1 + 4.3 / 128), title="bfloat16 around 1: 1.001 is rounded to 1")
    for ax in axes:
        ax.set_ylim(-1, 2)
        ax.axhline(0, color="C6", lw=0.8)
        ax.axis("off")
    caption = (
        "All numbers from 0.5 to 4 with three significant bits, and some of bfloat16's around 1."
    )
    alt = (
        "Two number lines with a tick for each number of a format. The ticks are twice as far "
        "apart right of 1 as left of it; a dot at 1.001 lies close to the tick at 1."
    )
    return fig, caption, alt


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
        ax.text(theory * 0.8, 1, f"h* {name}", color=colour, ha="right")
    ax.text(2e-2, 1e-3, "h²/6", color="C6", ha="right")
    ax.text(2e-11, 2e-5, "ε/2h, float64", color="C0")
    ax.text(2e-5, 3e-2, "ε/2h, float32", color="C1")
    ax.set(xlabel="step h", ylabel="relative error of the slope", ylim=(1e-13, 10))
    ax.set_title("Large steps err by Taylor's term, small ones by rounding")
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
    derived: Mapping[str, Sequence[float]],
    spreads: Mapping[str, Sequence[Sequence[float]]],
) -> Drawn:
    """Draw the gradients and the spreads over the layers, a line for each seed.

    Args:
        gradients: by activation, for each seed: the RMS gradient of each layer's weights.
        derived: by activation: the same ÷ that of the last layer, in theory.
        spreads: the same of the relative spread of each layer's input.
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
            if ax is axes[1] and name != "sigmoid":
                end = by_seed[0][-1]
                side = "bottom" if name == "tanh" else "top"
                label_line(ax, depth, end, f"{end:.2f}", colour, va=side)
        ax.set(xlabel="layer, from the input", ylabel=label, xticks=range(2, depth + 1, 6))
        ax.set_ylim(1e-13, 1e3)
    layers = range(1, depth + 1)
    for name, ratios in derived.items():
        line = [gradients[name][0][-1] * ratio for ratio in ratios]
        axes[0].semilogy(layers, line, INK, lw=7, alpha=0.2, zorder=0)
    last = max(values[-1] for values in gradients["sigmoid"])
    axes[0].semilogy(layers, [2 * last * 4.0 ** (i - depth) for i in layers], "C6--", lw=1)
    axes[1].semilogy(layers, [2 * 4.0 ** (1 - i) for i in layers], "C6--", lw=1)
    axes[0].set_title("back: the gradient", fontsize=11)
    axes[1].set_title("forward: the relative spread", fontsize=11)
    title = "Sigmoids let hardly any gradient or spread through"
    fig.suptitle(title, x=0.02, ha="left", fontsize=13)
    caption = (
        f"{depth} untrained layers, three seeds for each activation, in the same colours. The "
        "relative spread is how much 64 examples differ, divided by their RMS. Dashed: bounds for "
        "the sigmoid, a factor of 4 in each layer. Wide grey lines: the derived ratios to the last "
        "layer, from its gradient with the first seed. A flat line means equal gradients."
    )
    alt = (
        "Two line plots over 20 layers on log scales. Left, the gradient of sigmoid falls steeply "
        "toward the first layer; right, its spread falls steeply toward the last layer. Both lie "
        "below a dashed line. Tanh stays level in both, and the spread of ReLU falls slowly."
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
        beside = accuracies[2].mean().item() + 0.05
        label_line(ax, rates[2] / 1.5, beside, f"{epochs} epochs", colour, ha="right")
        first, last = near[epochs]
        height = 0.4 + 0.15 * i
        ax.plot((rates[first], rates[last]), (height, height), colour, lw=6, solid_capstyle="butt")
        middle = math.sqrt(rates[first] * rates[last])
        name = f"near the best, {epochs} epochs"
        ax.text(middle, height - 0.03, name, color=colour, ha="center", va="top")
    few, many = sorted(near)
    lower = near[many][0] < near[few][0]
    ax.set_title(f"{many} epochs make {'' if lower else 'no '}smaller rates good{', too' * lower}")
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
        stochastic: sums in bfloat16 with stochastic rounding, (n + 1, copies).
    """
    fig, ax = plt.subplots()
    for colour, (name, path) in zip(("C0", "C1"), plain.items(), strict=True):
        ax.plot(path, colour, lw=6, alpha=0.4)  # wide: other sums lie on float32's line
        label_line(ax, 1000, path[-1], name, colour)
    ax.plot(range(0, 1001, 50), kahan, "C2o", ms=5, zorder=3)
    ax.text(40, 1.82, "● bfloat16, Kahan", color="C2")
    ax.plot(stochastic[:, :3], "C3", lw=0.8, alpha=0.6)
    ax.plot(stochastic.mean(1), "C3--", lw=2)
    ax.text(40, 1.72, "— bfloat16, stochastic", color="C3")
    ax.text(40, 1.62, f"-- mean of {stochastic.shape[1]:,} of these", color="C3")
    ax.set(xlabel="additions of 0.001", ylabel="sum", xlim=(0, 1250), xticks=range(0, 1001, 250))
    ax.set_title("In plain bfloat16 a thousand small steps leave no trace")
    caption = (
        "1.0 and a thousand additions of 0.001, four ways. Three of the sums with stochastic "
        "rounding are drawn. The mean of all, dashed, lies on float32's line."
    )
    alt = (
        "Line plot of the sum over the number of additions: float32 rises to 2, bfloat16 stays "
        "at 1, Kahan's bfloat16 follows float32. Three ragged lines of stochastic rounding "
        "scatter, and their dashed mean of 1,000 follows float32."
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
