"""The drawings of LLM09+.

Each public function draws a figure and puts it into the report of a run.
"""

from collections.abc import Mapping, Sequence
from statistics import mean

from labs.kit import Run

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator
from torch import Tensor


def layout(run: Run, data: bytes) -> None:
    """Draw the parts of a safetensors file with one tensor of three float32 numbers."""
    n = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + n].decode()
    ends = [0, 8, 8 + n, len(data)]
    fig, ax = plt.subplots(figsize=(8.4, 2.6))
    edges = [0.0, 2.4, 7.6, 10.0]  # not to scale
    texts = [
        f"{n} 0 0 0 0 0 0 0",
        header.replace(" ", "␣").replace('"shape', '\n"shape'),
        "0.5   1.0   2.0",
    ]
    titles = ["8 bytes: n", f"n = {n} bytes: JSON", f"{len(data) - 8 - n} bytes: w"]
    for i, (text, title) in enumerate(zip(texts, titles, strict=True)):
        left, right = edges[i : i + 2]
        colour = f"C{i}"
        ax.add_patch(Rectangle((left, 0), right - left, 1, fill=False, ec=colour, lw=2))
        middle = (left + right) / 2
        ax.text(middle, 0.5, text, ha="center", va="center", fontsize=9, family="monospace")
        ax.text(middle, 1.25, title, ha="center", color=colour, fontsize=11)
    for x, end in zip(edges, ends, strict=True):
        ax.text(x, -0.3, f"{end}", ha="center", va="center", fontsize=10)
    ax.text(-0.2, -0.3, "byte", ha="right", va="center", fontsize=10, color="grey")
    ax.text(-0.2, -0.85, "data_offsets", ha="right", va="center", fontsize=10, color="C2")
    for x, offset in ((edges[2], 0), (edges[3], len(data) - 8 - n)):
        ax.annotate("", (x, -0.45), (x, -0.75), arrowprops={"arrowstyle": "->", "color": "C2"})
        ax.text(x, -0.9, f"{offset}", ha="center", va="center", fontsize=10, color="C2")
    ax.set(xlim=(-1.7, 10.3), ylim=(-1.1, 1.7))
    ax.set_title("A safetensors file, byte by byte")
    ax.axis("off")
    caption = f"The file of one tensor: {len(data)} bytes. Offsets count from the header's end."
    alt = f"Three boxes: the length {n}, the header {header.strip()}, three numbers."
    run.figure(fig, "layout", caption, alt=alt)


def running_means(run: Run, means: Mapping[str, Tensor]) -> None:
    """Draw the running means of the base's second norm: before, and after two trainings."""
    fig, ax = plt.subplots(figsize=(7.2, 3.8))
    looks = {"before": ("C0", "o", 10), "evaluation mode": ("C2", "x", 6)}
    looks["training mode"] = ("C1", "s", 5)
    channels = range(len(means["before"]))
    before = means["before"].tolist()
    after = means["training mode"].tolist()
    ax.vlines(channels, before, after, color="C1", lw=1)
    for name, values in means.items():
        colour, marks, size = looks[name]
        label = name if name == "before" else f"after an adapter, {name}"
        ax.plot(channels, values.tolist(), marks, color=colour, ms=size, mfc="none", label=label)
    ax.set(xlabel="channel of the second norm", ylabel="running mean")
    ax.legend(fontsize=9)
    ax.set_title("Running means of the frozen base")
    caption = (
        "One running mean for each channel of the base's second norm, before and after an adapter "
        "was trained beside it. Lines show how far training mode moved it. In evaluation mode no "
        "mean moved."
    )
    moved = {name: (values - means["before"]).abs().max() for name, values in means.items()}
    changes = ", ".join(f"{name} {change:.2g}" for name, change in moved.items())
    alt = f"Three marks for each of 32 channels. Largest change of a mean: {changes}."
    run.figure(fig, "running_means", caption, alt=alt)


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
    for y, (_, largest, _) in enumerate(shown.values()):
        if largest == 0:
            ax.text(1.6 * lowest, y + 0.3, "exactly 0", color="C0", va="center", fontsize=10)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.set(xscale="log", xlabel="largest difference (losses in nats; logits at the end)")
    ax.set(ylim=(len(shown) - 0.4, -1.1))
    ax.set_title("Resumed without one part: differences from an unbroken training")
    caption = (
        "Resumed after 40 of 80 steps without one part of the state: the largest difference of 40 "
        "losses, and that of the test images' logits at the end."
    )
    differences = "; ".join(
        f"{name}: losses {largest:.2g}, logits {logits:.2g}"
        for name, (_, largest, logits) in shown.items()
    )
    alt = f"For each missing part, a dot for losses and a square for logits. {differences}."
    run.figure(fig, "resumed", caption, alt=alt)


def distances(run: Run, curves: Mapping[str, Sequence[float]], habit: float) -> None:
    """Draw recall over the steps back to the first copy, from 2 to 30, by mixers.

    Args:
        run: the run.
        curves: recall at 2 to 30 steps, by mixers.
        habit: how often two convolutions name the token two before, although it is wrong.
    """
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
    ax.text(6.8, 70, "end of two\nconvolutions' reach", color="grey", fontsize=9)
    ax.set(xlabel="steps back to the first copy of the token", ylabel="recalled tokens (%)")
    ax.set(xlim=(1, 39), ylim=(-9, 105), xticks=range(2, 31, 4), yticks=range(0, 101, 20))
    ax.set_title("Recall by distance to the first copy")
    caption = (
        "Recall by distance, mean of three seeds. The order of the two mixers matters. Where the "
        "token two before the first query is wrong, two convolutions still name it in "
        f"{habit:.0%} of the texts. At 3 steps it is right, and looks like a recall of "
        f"{curves['convolutions'][1]:.0%}."
    )
    near, far = slice(0, 5), slice(5, None)
    means = "; ".join(
        f"{name}: {mean(right[near]):.0%} up to six steps, {mean(right[far]):.0%} beyond"
        for name, right in curves.items()
    )
    alt = f"Recall over distance, four curves. {means}."
    run.figure(fig, "distances", caption, alt=alt)


def writing(
    run: Run,
    lengths: Sequence[int],
    times: tuple[Sequence[float], float],
    stored: tuple[Sequence[int], int],
) -> None:
    """Draw the time and the stored numbers of a step over the tokens before it.

    Args:
        run: the run.
        lengths: the numbers of tokens before the step.
        times: of attention, by length, and of the convolution, in milliseconds.
        stored: numbers in attention's cache, by length, and in the convolution's state.
    """
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.6))
    labels = ("time of a step (ms)", "stored numbers (computed)")
    for ax, (growing, constant), label in zip(axes, (times, stored), labels, strict=True):
        ax.loglog(lengths, growing, "o-", color="C0")
        ax.plot((lengths[0], lengths[-1]), (constant, constant), color="C1")
        for name, end, colour in (
            ("attention", growing[-1], "C0"),
            ("convolution", constant, "C1"),
        ):
            ax.text(1.15 * lengths[-1], end, name, color=colour, va="center", fontsize=10)
        ax.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=9)
        ax.minorticks_off()
        ax.set(xlabel="tokens before", ylabel=label, xlim=(0.8 * lengths[0], 9 * lengths[-1]))
    axes[0].set_title("Time", fontsize=11)
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[1].set_title("Cache or state", fontsize=11)
    caption = (
        "One step after T tokens, 64 channels: attention with a random cache of T tokens. The "
        "convolution's step doesn't depend on T, and is timed once. Times are this machine's."
    )
    alt = (
        f"Two log-log plots over the tokens before. At {lengths[-1]:,} tokens: attention "
        f"{times[0][-1]:.2g} ms and {stored[0][-1]:,} numbers, convolution {times[1]:.2g} ms and "
        f"{stored[1]} numbers."
    )
    run.figure(fig, "writing", caption, alt=alt)
