"""The figures of LLM01; those of LLM01+ are in deeper_figures."""

from collections.abc import Sequence
from typing import Any

from labs.kit import Run
from labs.llm01_inference.captions import CAPTIONS
from labs.llm01_inference.model_files import called
from labs.llm01_inference.view_data import likeliest

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator, PercentFormatter

GREY = "#808890"  # readable on light and dark pages
PARTS = {
    "embed": "token embedding (LLM10)",
    "attn": "attention (LLM06)",
    "mlp": "feed-forward (LLM05a)",
    "norm": "normalisation (LLM05a)",
}


def show(run: Run, name: str, fig: Figure, **values: Any) -> None:
    """Add a figure to the report with its caption, in which {model} and `values` are filled in."""
    caption, alt = CAPTIONS[name]
    run.figure(fig, name, caption.format(model=called(run), **values), alt=alt)


def visible(text: str) -> str:
    """Return a token's text with its spaces and line ends visible."""
    return text.replace(" ", "·").replace("\n", "⏎").replace("$", r"\$") or "∅"


def parts_of(model: Any) -> dict[str, int]:
    """Return the number of parameters of each part of a Llama-like model."""
    counts = dict.fromkeys(PARTS.values(), 0)
    for name, p in model.named_parameters():
        part = next((part for key, part in PARTS.items() if key in name), "other")
        counts[part] = counts.get(part, 0) + p.numel()
    return counts


def parameters(counts: dict[str, int]) -> Figure:
    """Draw a bar for each part, from parts_of."""
    fig, ax = plt.subplots(figsize=(7.2, 2.6))
    total = sum(counts.values())
    names = sorted(counts, key=counts.__getitem__)
    bars = ax.barh(names, [counts[name] / 1e6 for name in names])
    shares = [counts[name] / total for name in names]
    labels = [f" {share:.0%}" if share > 0.005 else " < 1%" for share in shares]
    ax.bar_label(bars, labels)
    ax.set(xlabel="parameters (millions)", title=f"Where the {total / 1e6:.3g} million numbers are")
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    return fig


def pipeline(tokenizer: Any, ids: Sequence[int], logits: Any) -> Figure:
    """Draw the tokens of a text, their ids, the model, and what it predicts from logits (T, V)."""
    tokens = [tokenizer.decode(i) for i in ids]
    guesses = [likeliest(row, tokenizer, 1)[0] for row in logits]
    best = likeliest(logits[-1], tokenizer, 8)
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.4), width_ratios=(1.7, 1))
    rows = len(tokens)
    left.set(xlim=(0, 10), ylim=(-0.7, rows + 0.3))
    left.axis("off")
    left.add_patch(Rectangle((4.6, -0.45), 1.7, rows - 0.1, facecolor="C0", alpha=0.2))
    left.text(5.45, (rows - 1) / 2, "model", va="center", ha="center", weight="bold")
    for row, (token, i, (guess, _, _, share)) in enumerate(zip(tokens, ids, guesses, strict=True)):
        y = rows - 1 - row
        box = {"boxstyle": "round,pad=0.3", "facecolor": "none", "edgecolor": "C0"}
        left.text(0.2, y, visible(token), bbox=box, va="center")
        left.text(3.7, y, str(i), va="center", ha="right", family="monospace")
        for start in (3.9, 6.3):
            arrow = {"arrowstyle": "->", "color": GREY}
            left.annotate("", (start + 0.7, y), (start, y), arrowprops=arrow)
        last = row == rows - 1
        colour = "C1" if last else GREY
        left.text(7.2, y, f"{visible(guess)} {share:.0%}", va="center", color=colour)
    for x, label in ((0.2, "tokens"), (2.9, "ids"), (7.2, "likeliest next")):
        left.text(x, rows - 0.1, label, color=GREY)
    _bars(right, [row[0] for row in best], [row[3] for row in best])
    right.set_title("The last prediction")
    return fig


def _bars(ax: Any, names: Sequence[str], p: Sequence[float]) -> None:
    """Draw probabilities as horizontal bars, the first name at the top."""
    bars = ax.barh(range(len(p)), p, color="C1")
    ax.bar_label(bars, [f" {share:.1%}" for share in p], fontsize=9)
    ax.set_yticks(range(len(p)), [visible(name) for name in names])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel("probability")
    ax.margins(x=0.25)


def loop(prompt: str, names: Sequence[str], p: Sequence[float], rows: int = 10) -> Figure:
    """Draw each step of the loop: the text so far, the new token and its probability."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.6), width_ratios=(2.6, 1), sharey=True)
    names = names[:rows]
    p = p[:rows]
    text = prompt
    for row, name in enumerate(names):
        shown = text if len(text) < 42 else "…" + text[-41:]
        left.text(0.74, row, visible(shown), ha="right", va="center", color=GREY, fontsize=9)
        left.text(0.76, row, visible(name), va="center", color="C1", weight="bold", fontsize=10)
        text += name
    left.set(xlim=(0, 1), title="Each call adds one token to the text")
    left.axis("off")
    bars = right.barh(range(len(p)), p, color="C1")
    right.bar_label(bars, [f" {share:.0%}" for share in p], fontsize=9)
    right.set_yticks([])
    right.set(xlabel="its probability", xlim=(0, 1.25), ylim=(len(p) - 0.4, -0.6))
    right.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    return fig


def stretches(logits: Sequence[float], u: float) -> Figure:
    """Draw the probabilities of a few tokens as stretches of a line, at three temperatures."""
    fig, ax = plt.subplots(figsize=(7.2, 2.6))
    rows = (0.5, 1.0, 2.0)
    for row, t in enumerate(rows):
        powers = np.exp(np.array(logits) / t)
        ends = (powers / powers.sum()).cumsum()
        starts = np.concatenate(([0.0], ends[:-1]))
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            chosen = start <= u < end
            ax.barh(row, end - start, left=start, color=f"C{i}", alpha=0.8 if chosen else 0.3)
            if end - start > 0.05:  # the number fits
                ax.text((start + end) / 2, row, f"{end - start:.2f}", ha="center", va="center")
    ax.axvline(u, color="C6", lw=2)
    ax.text(u + 0.005, -0.62, f"u = {u:g}", va="bottom")
    ax.set_yticks(range(len(rows)), [f"T = {t:g}" for t in rows])
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.9), xlabel="probabilities, end to end")
    ax.grid(visible=False)
    ax.set_title("The token on whose stretch u falls is drawn (strong colour)")
    return fig


def temperatures(prompt: str, names: Sequence[str], top: dict[float, Any]) -> Figure:
    """Draw the likeliest tokens and all others together, a panel for each temperature."""
    fig, axes = plt.subplots(1, len(top), figsize=(7.2, 3.2), sharey=True)
    rows = range(len(names) + 1)
    for ax, (t, p) in zip(axes, top.items(), strict=True):
        shares = [*p.tolist(), 1 - p.sum().item()]
        colours = ["C0"] * len(names) + ["C1"]
        bars = ax.barh(rows, shares, color=colours)
        ax.bar_label(bars, [f" {share:.1%}" for share in shares], fontsize=9)
        ax.set(xlim=(0, 1.4), xlabel="probability")
        ax.set_title(f"T = {t:g}: five have {p.sum():.1%}", fontsize=10)
        ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(rows, [*(visible(name) for name in names), "all others"])
    axes[0].invert_yaxis()
    fig.suptitle(f"The next token after “{prompt}”", ha="left", x=0.01, fontsize=12)
    return fig


def nucleus(prompts: dict[str, tuple[Any, int]]) -> Figure:
    """Draw sorted probabilities over rank: for each prompt its logits (V,) and how many stay."""
    fig, ax = plt.subplots()
    for i, (text, (logits, left)) in enumerate(prompts.items()):
        p = logits.softmax(-1).sort(descending=True).values.cpu().numpy()
        rank = np.arange(1, len(p) + 1)
        ax.loglog(rank, p, f"C{i}")
        ax.loglog(rank[:left], p[:left], f"C{i}o-", markevery=[0], ms=9, lw=7, alpha=0.4)
        label = f"“{text}”\ntop-p 0.9 keeps {left:,}"
        place = (90, 1e-7) if i == 0 else (90, 0.04)
        ax.text(*place, label, color=f"C{i}")
    ax.axvline(50, color=GREY, ls=":")
    ax.text(54, 2e-9, "top-k 50", color=GREY)
    ax.set(xlabel="rank of the token", ylabel="probability", ylim=(1e-9, 1.5))
    ax.set_title("Top-p adapts to how sure the model is; top-k doesn't")
    return fig


def ranks(by_default: Any, without_cut: Any) -> Figure:
    """Draw the ranks of drawn tokens (n,), with the default of `generate` and without its cut."""
    fig, ax = plt.subplots(figsize=(7.2, 3.4))
    n = len(by_default)
    for i, (drawn, label) in enumerate(
        ((by_default, "do_sample=True"), (without_cut, "do_sample=True, top_k=0"))
    ):
        ax.semilogy(np.arange(n) + i * 1.1 * n, np.array(drawn) + 1, f"C{i}.", alpha=0.6)
        ax.text((i * 1.1 + 0.5) * n, 6e4, label, color=f"C{i}", ha="center")
    ax.axhline(50, color=GREY, ls=":")
    ax.text(1.05 * n, 56, "50", color=GREY, ha="center")
    ax.set(ylabel="rank of the drawn token", ylim=(0.8, 2e5), xticks=[])
    ax.set_xlabel(f"{n} draws each")
    ax.set_title("With do_sample=True, generate cuts at rank 50 by default")
    return fig


def penalty(factor: float) -> Figure:
    """Draw what division, and the rule by sign, do to a logit."""
    fig, ax = plt.subplots(figsize=(5.6, 3.8))
    x = np.linspace(-4, 4, 201)
    ax.plot(x, x, color=GREY, ls=":")
    ax.plot(x, x / factor, "C1", lw=2)
    by_sign = np.where(x < 0, x * factor, x / factor)
    ax.plot(x, by_sign, "C0", lw=2)
    ax.fill_between(x, x, x / factor, where=x < 0, color="C1", alpha=0.2)
    ax.text(-3.9, -1.9, "division alone:\na reward", color="C1")
    ax.text(-2.2, -4.6, "multiply if negative:\na penalty", color="C0")
    ax.text(2.2, 3.3, "unchanged", color=GREY, ha="right")
    ax.set(xlabel="logit before", ylabel="logit after")
    ax.set_title(f"A penalty of {factor:g} must look at the sign")
    return fig


def accuracies(rows: Sequence[Sequence[Any]], n: int) -> Figure:
    """Draw each form's accuracy and its difference from zero-shot, with two standard errors.

    Args:
        rows: name, accuracy, its error, difference from zero-shot, error of the difference.
        n: the number of questions.
    """
    size = (7.2, 1.1 + 0.34 * len(rows))
    fig, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True)
    names, shares, of_each, gains, errors = zip(*rows, strict=True)
    y = range(len(rows))
    own = {"ecolor": "C6", "capsize": 3}
    pairs = list(zip(shares, of_each, strict=True))  # at 0 and 1 of n the rule of three: 3 / n
    below = [2 * error if share < 1 else 3 / n for share, error in pairs]
    above = [2 * error if share > 0 else 3 / n for share, error in pairs]
    left.barh(y, shares, height=0.6, alpha=0.7, xerr=[below, above], error_kw=own)
    for i, share in enumerate(shares):
        left.text(1.03, i, f"{share:.0%}", va="center")
    left.set_yticks(y, names)
    left.set(xlim=(0, 1.25), xlabel=f"right of {n} replies ± 2 SE")
    left.set_xticks([0, 0.25, 0.5, 0.75, 1])
    right.errorbar(gains, y, xerr=[2 * error for error in errors], fmt="C1o", capsize=3)
    right.axvline(0, color=GREY, ls=":")
    right.set_xlabel("points more than zero-shot ± 2 SE")
    left.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    better = sum(gain > 2 * error for gain, error in zip(gains, errors, strict=True))
    title = f"{better} of {len(rows) - 1} forms exceed zero-shot by two standard errors"
    fig.suptitle(title, ha="left", x=0.01, fontsize=12)
    right.xaxis.set_major_locator(MultipleLocator(0.25))
    left.invert_yaxis()
    return fig
