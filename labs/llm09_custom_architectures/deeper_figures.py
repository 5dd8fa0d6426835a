"""The drawings of LLM09+.

Each public function draws a figure and puts it into the report of a run.
"""

from collections.abc import Mapping, Sequence

from labs.kit import Run

import matplotlib.pyplot as plt


def resumed(run: Run, rows: Mapping[str, Sequence[float]]) -> None:
    """Draw what differs without each part of a training's state.

    Args:
        run: the run.
        rows: by missing part: the first difference of a loss, the largest, that of the logits.
    """
    lowest = 1e-7  # stands for 0
    shown = {name: row for name, row in rows.items() if name != "nothing"}
    fig, ax = plt.subplots(figsize=(7.2, 3.8))
    for y, (_, largest, logits) in enumerate(shown.values()):
        ax.plot([max(largest, lowest), logits], [y, y], color="grey", lw=1)
        ax.plot(max(largest, lowest), y, "o", color="C0", ms=9)
        ax.plot(logits, y, "s", color="C1", ms=9)
    ax.text(rows["optimizer"][1], -0.6, "losses", color="C0", ha="right")
    ax.text(rows["optimizer"][2], -0.6, "logits", color="C1")
    y = list(shown).index("buffers")
    ax.text(1.6 * lowest, y + 0.3, "exactly 0", color="C0", va="center", fontsize=10)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.set(xscale="log", xlabel="largest difference (losses in nats; logits at the end)")
    ax.set(ylim=(len(shown) - 0.4, -1.1))
    ax.set_title("Without its buffers a training looks right and ends wrong")
    caption = (
        "Resumed after 40 of 80 steps without one part of the state: the largest difference of 40 "
        "losses, and that of the test images' logits at the end."
    )
    alt = (
        "For each missing part, a dot for losses and a square for logits on a log scale. Without "
        "the buffers, the dot is at 0 and the square is not."
    )
    run.figure(fig, "resumed", caption, alt=alt)


def distances(run: Run, curves: Mapping[str, Sequence[float]]) -> None:
    """Draw recall over the steps back to the first copy, from 2 to 30, by mixers."""
    fig, ax = plt.subplots(figsize=(7.2, 4.0))
    x = range(2, 31)
    ends = sorted(((100 * right[-1], name) for name, right in curves.items()), reverse=True)
    place = 200.0
    names = list(curves)
    for end, name in ends:
        colour = f"C{names.index(name)}"
        ax.plot(x, [100 * share for share in curves[name]], "o-", ms=4, color=colour)
        place = min(end, place - 7)  # labels don't overlap
        ax.text(30.6, place, name, color=colour, va="center")
    ax.axvline(6.5, color="grey", ls="--", lw=0.8)
    ax.text(6.8, 53, "end of two\nconvolutions' reach", color="grey", fontsize=9)
    ax.set(xlabel="steps back to the first copy of the token", ylabel="recalled tokens (%)")
    ax.set(xlim=(1, 39), ylim=(-9, 105), xticks=range(2, 31, 4), yticks=range(0, 101, 20))
    ax.set_title("Attention recalls from everywhere, if a convolution comes first")
    caption = "Recall by distance, mean of three seeds. The order of the two mixers matters."
    alt = (
        "Recall over distance: hybrid and two attentions stay high; two convolutions fall at six "
        "steps; attention before a convolution stays low."
    )
    run.figure(fig, "distances", caption, alt=alt)


def writing(
    run: Run,
    lengths: Sequence[int],
    steps: Mapping[str, Sequence[float]],
    stored: Mapping[str, Sequence[int]],
) -> None:
    """Draw time and stored numbers of a step over the tokens that are written."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.6))
    labels = ("time of a step (ms)", "stored numbers")
    for ax, values, label in zip(axes, (steps, stored), labels, strict=True):
        for i, (name, row) in enumerate(values.items()):
            ax.loglog(lengths, row, "os"[i] + "-", color=f"C{i}")
            ax.text(1.15 * lengths[-1], row[-1], name, color=f"C{i}", va="center", fontsize=10)
        ax.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=9)
        ax.minorticks_off()
        ax.set(xlabel="tokens written", ylabel=label, xlim=(0.8 * lengths[0], 9 * lengths[-1]))
    axes[0].set_title("Attention's steps get longer", fontsize=11)
    axes[1].set_title("Its cache grows", fontsize=11)
    caption = "One mixer with 64 channels writes a text. Times are this machine's."
    alt = "Two log-log plots: attention rises with the tokens written, the convolution is flat."
    run.figure(fig, "writing", caption, alt=alt)
