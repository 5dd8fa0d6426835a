"""The drawings of LLM09.

Each public function draws a figure and puts it into the report of a run.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from labs.kit import Run
from labs.llm09_custom_architectures.inspection import forgotten
from labs.llm09_custom_architectures.training import versions

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn

COLOURS = {"module": "C6", "parameter": "C0", "buffer": "C2", "forgotten": "C1"}


def _branches(module: nn.Module, name: str, depth: int) -> list[tuple[int, str, str]]:
    """Return depth, name and kind of a module and of all that hangs on it."""
    rows = [(depth, name, "module")]
    for kind, entries in (("parameter", module._parameters), ("buffer", module._buffers)):
        rows += [(depth + 1, entry, kind) for entry in entries]
    for child, submodule in module.named_children():
        rows += _branches(submodule, child, depth + 1)
    return rows


def tree(run: Run, model: nn.Module) -> None:
    """Draw the tree of a module, and the tensors that it forgot."""
    rows = _branches(model, "network", 0)
    rows += [(1, path, "forgotten") for path in forgotten(model)]
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    places: dict[int, int] = {}  # the row of the last entry at each depth
    for y, (depth, name, kind) in enumerate(rows):
        colour = COLOURS[kind]
        if depth and kind != "forgotten":
            ax.plot(
                [depth - 0.85, depth - 0.85, depth - 0.15], [places[depth - 1] + 0.3, y, y], "grey"
            )
        places[depth] = y
        dashes = "--" if kind == "forgotten" else "-"
        box = {"boxstyle": "round,pad=0.25", "fc": "none", "ec": colour, "ls": dashes}
        ax.text(depth, y, name, color=colour, va="center", bbox=box, fontsize=10)
    notes = {
        "module": "modules: the tree",
        "parameter": "parameters: learned, moved, saved",
        "buffer": "buffers: moved, saved",
        "forgotten": "plain: nothing of these",
    }
    for kind, note in notes.items():
        y = next(y for y, row in enumerate(rows) if row[2] == kind)
        ax.text(4.2, y, note, color=COLOURS[kind], va="center")
    y = next(y for y in reversed(range(len(rows))) if rows[y][1] == "weight")
    ax.text(4.2, y, "tied to first.weight: one tensor", color=COLOURS["parameter"], va="center")
    ax.set(xlim=(-0.2, 8), ylim=(len(rows) - 0.4, -0.8))
    ax.set_title("What is not in the tree does not exist for the optimizer and the file")
    ax.axis("off")
    caption = "The careless network as `nn.Module` sees it, and the tensors that it forgot, dashed."
    alt = "A tree of modules with parameters and buffers; below, unconnected, three tensors."
    run.figure(fig, "tree", caption, alt=alt)


def _numbers(ax: Axes, values: Tensor, title: str, framed: tuple[int, int, int]) -> None:
    """Draw numbers in a grid, and frame a square: its row, its column, its size."""
    ax.imshow(values, cmap="Greys", vmin=-3, vmax=9)
    for row, numbers in enumerate(values.int().tolist()):
        for column, number in enumerate(numbers):
            text = str(number).replace("-", "−")
            ax.text(column, row, text, ha="center", va="center", fontsize=12, color="black")
    row, column, size = framed
    corner = (column - 0.5, row - 0.5)
    ax.add_patch(Rectangle(corner, size, size, fill=False, ec="C1", lw=3, zorder=3))
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=11)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _signs(axes: Sequence[Axes]) -> None:
    """Write × and = to the left of the second and the third of three grids."""
    for ax, sign in zip(axes[1:], ("×", "="), strict=True):
        ax.set_ylabel(sign, rotation=0, fontsize=16, labelpad=14, va="center")


def by_hand(run: Run) -> None:
    """Draw a convolution with small numbers: an edge, a kernel, the map."""
    image = torch.tensor([[0.0, 0, 1, 1, 1]] * 5)
    kernel = torch.tensor([[-1.0, 0, 1]] * 3)
    windows = image.unfold(0, 3, 1).unfold(1, 3, 1)  # (3, 3, 3, 3)
    output = (windows * kernel).sum((2, 3))
    fig, axes = plt.subplots(1, 3, figsize=(7.2, 3.0), width_ratios=(5, 3, 3))
    _numbers(axes[0], image, "image and a window", (0, 0, 3))
    _numbers(axes[1], kernel, "kernel", (0, 0, 3))
    _numbers(axes[2], output, "map", (0, 0, 1))
    _signs(axes)
    fig.suptitle("Each window, times the kernel, summed", x=0.02, ha="left", fontsize=12)
    caption = (
        "A convolution by hand. The framed window has a 1 in its last column, three times: "
        "3 · (0 · −1 + 0 · 0 + 1 · 1) = 3. Where all columns are equal, the map is 0."
    )
    alt = "Three grids of numbers: an image, 0 on the left, 1 on the right; a kernel; their map."
    run.figure(fig, "by_hand", caption, alt=alt)


def low_rank(run: Run) -> None:
    """Draw an adapter of rank 1 with small numbers: down, up, and their merged kernel."""
    down = torch.tensor([[-1.0, 0, 1]])
    up = torch.tensor([[2.0]])
    fig, axes = plt.subplots(1, 3, figsize=(7.2, 1.9), width_ratios=(3, 1, 3))
    _numbers(axes[0], down, "down, A: r = 1 kernel", (0, 0, 0))
    _numbers(axes[1], up, "up, B: 1 × 1", (0, 0, 0))
    _numbers(axes[2], up * down, "merged: B A", (0, 0, 0))
    _signs(axes)
    fig.suptitle("Two small convolutions are one kernel", x=0.02, ha="left", fontsize=12)
    caption = (
        "An adapter of rank 1 for one channel and a window of three pixels: up times down. With "
        "r kernels, the merged kernel is the sum of r such products."
    )
    alt = "Three grids of numbers: down is −1, 0, 1; up is 2; the merged kernel is −2, 0, 2."
    run.figure(fig, "low_rank", caption, alt=alt)


def digits(run: Run) -> None:
    """Draw one digit in several versions, (12, 12) each."""
    images = versions(run.seed)
    fig, axes = plt.subplots(1, len(images), figsize=(7.2, 2.4))
    for ax, (name, image) in zip(axes, images.items(), strict=True):
        ax.imshow(image, cmap="Greys_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_title(name, fontsize=11)
        ax.grid(visible=False)
        ax.spines[:].set_visible(True)
    fig.suptitle("One test digit in four versions", x=0.02, ha="left", fontsize=12)
    caption = (
        "What the networks read: they are trained on centred digits, or on shuffled ones. Section "
        "6 uses negatives. All shuffled images have the same order of pixels."
    )
    alt = f"The same digit of 12 by 12 pixels: {', '.join(images)}."
    run.figure(fig, "digits", caption, alt=alt)


def reach(run: Run, slopes: Sequence[Tensor]) -> None:
    """Draw which pixels of an image a pixel of each map sees, (H, W) each."""
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.6))
    spans = [int((seen > 0).any(0).sum()) for seen in slopes]
    for ax, seen, name, span in zip(axes, slopes, ("first", "second"), spans, strict=True):
        share = seen / seen.max()
        shown = ax.imshow(share.where(share > 0, torch.nan), vmin=0, vmax=1)
        ax.set(xlabel="column of the image", ylabel="row", xticks=range(0, 12, 2))
        ax.set(yticks=range(0, 12, 2))
        ax.set_title(f"{name} map: {span} × {span}", fontsize=11)
    fig.colorbar(shown, ax=list(axes), label="influence ÷ the largest", shrink=0.8)
    fig.suptitle("The pixels that one pixel of a map sees", x=0.02, ha="left", fontsize=12)
    caption = (
        "The reach of one pixel of the CNN's maps: how much each pixel of the image moves it, "
        "summed over 256 random images and all channels. Empty pixels have no influence at all."
    )
    squares = " and ".join(f"{span} by {span}" for span in spans)
    alt = f"Two heat maps of 12 by 12 pixels, with filled squares of {squares}."
    run.figure(fig, "reach", caption, alt=alt)


def shifts(run: Run, curves: Mapping[str, Sequence[float]]) -> None:
    """Draw the accuracy of each arm over the horizontal shift."""
    fig, ax = plt.subplots(figsize=(7.2, 4.0))
    looks = {"CNN": "C0o-", "CNN by place": "C2^-", "MLP": "C1s-"}
    looks |= {"CNN, shuffled": "C0o:", "MLP, shuffled": "C1s:"}
    x = range(-2, 3)
    for name, right in curves.items():
        ax.plot(x, [100 * share for share in right], looks[name])
    ends = sorted(((100 * right[-1], name) for name, right in curves.items()), reverse=True)
    place = 200.0
    for end, name in ends:
        place = min(end, place - 7)  # labels don't overlap
        colour = looks[name][:2]
        ax.plot((2.06, 2.24), (end, place), color=colour, lw=0.8)  # from the curve to its label
        ax.text(2.28, place, name, color=colour, va="center")
    ax.plot((-2.1, 2.03), (10, 10), color="grey", ls="--", lw=0.8)
    ax.text(0, 11.5, "guess", color="grey", fontsize=9, ha="center")
    ax.set(xlim=(-2.1, 3.15), ylim=(-9, 103), xticks=list(x), yticks=range(0, 101, 20))
    ax.set(xlabel="shift to the right (pixels)", ylabel="test digits read (%)")
    ax.set_title("A maximum over each map reads digits that moved")
    caption = (
        "Networks that were trained on centred digits only, mean of three seeds. Dotted: all "
        "pixels shuffled. The table also has shifts up and down. Digits fill all eight rows, so "
        "there a shift by two moves them to the border."
    )
    ends_of = ", ".join(f"{name} {100 * right[-1]:.0f} %" for name, right in curves.items())
    alt = f"Accuracy over the shift from −2 to 2 pixels, five curves. At 2 pixels: {ends_of}."
    run.figure(fig, "shifts", caption, alt=alt)


def maps(run: Run, kernels: Tensor, image: Tensor, seen: Tensor) -> None:
    """Draw kernels (16, 3, 3) on one scale, and below each its map (16, H, W) on another."""
    fig, axes = plt.subplots(5, 8, figsize=(8.4, 5.4), height_ratios=(1, 1, 0.35, 1, 1))
    bound = float(kernels.abs().max())
    top = float(seen.max())
    for i in range(16):
        row, column = divmod(i, 8)
        first = axes[3 * row, column]
        second = axes[3 * row + 1, column]
        weights = first.imshow(kernels[i], cmap="RdBu_r", vmin=-bound, vmax=bound)
        shown = second.imshow(seen[i], vmin=0, vmax=top)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
    for ax in axes[2]:
        ax.axis("off")
    axes[2, 0].imshow(image, cmap="Greys_r")
    note = axes[2, 1].text(-0.2, 0.5, "the digit", va="center", fontsize=10)
    note.set_in_layout(False)  # else it pushes the first column away
    fig.colorbar(weights, ax=axes[:2], label="weight of a kernel", shrink=0.9)
    fig.colorbar(shown, ax=axes[3:], label="value of a map", shrink=0.9)
    fig.suptitle("Kernels, and what they find in a digit", x=0.02, ha="left", fontsize=12)
    caption = (
        "The 16 kernels of the first layer, and below each its map of the digit in the middle, "
        "after the ReLU. All kernels have one scale, and all maps another. A dark map without "
        "a pattern is 0 everywhere: no window of this digit makes that kernel's output positive."
    )
    alt = "Two double rows of eight pictures: a kernel of 3 by 3 weights, and its map of a digit."
    run.figure(fig, "maps", caption, alt=alt)


def mixers(run: Run) -> None:
    """Draw the gated convolution, and how it may help attention to recall."""
    _gated(run)
    _circuit(run)


def _gated(run: Run) -> None:
    """Draw a gated causal convolution with k = 4, at one token."""
    fig, ax = plt.subplots(figsize=(8.4, 3.6))
    line = {"arrowstyle": "->", "lw": 1.4, "color": "grey", "shrinkA": 0, "shrinkB": 0}

    def box(x: float, y: float, text: str, colour: str = "C6") -> None:
        style = {"boxstyle": "round,pad=0.4", "fc": "none", "ec": colour}
        ax.text(x, y, text, ha="center", va="center", color=colour, bbox=style, fontsize=11)

    def arrow(*places: tuple[float, float]) -> None:
        ax.plot(*zip(*places[:-1], strict=True), color="grey", lw=1.4)
        ax.annotate("", places[-1], places[-2], arrowprops=line)

    box(0, 0, "x, a token")
    box(1.5, 0, "enter")
    for y, name in ((1.2, "a"), (0, "v"), (-1.2, "b")):
        box(2.6, y, name, "C0")
        arrow((1.85, 0), (2.15, 0), (2.15, y), (2.42, y))
    box(3.8, 0, "×", "C1")
    box(5.6, 0, "conv", "C2")
    box(7.3, 0, "×", "C1")
    box(8.4, 0, "leave")
    box(9.5, 0, "y")
    arrow((0.55, 0), (1.15, 0))
    arrow((2.78, 0), (3.62, 0))
    arrow((2.78, 1.2), (3.8, 1.2), (3.8, 0.28))
    ax.text(3.85, 0.72, " gate 1 + a", color="C1", va="center", fontsize=10)
    arrow((2.78, -1.2), (7.3, -1.2), (7.3, -0.28))
    ax.text(7.38, -0.72, " gate 1 + b", color="C1", va="center", fontsize=10)
    arrow((3.98, 0), (5.22, 0))
    ax.text(4.55, 0.2, "u", ha="center", fontsize=11)
    for i, x in enumerate((4.85, 5.35, 5.85)):
        box(x, 1.3, f"u₋{'₃₂₁'[i]}", "C2")
        arrow((x, 1.02), (5.45 + 0.15 * i, 0.3))
    ax.text(6.2, 1.3, " of the three tokens before", color="C2", va="center", fontsize=10)
    arrow((5.98, 0), (7.12, 0))
    arrow((7.48, 0), (7.97, 0))
    arrow((8.83, 0), (9.28, 0))
    ax.set(xlim=(-0.7, 9.9), ylim=(-1.6, 1.8))
    ax.set_title("A gated causal convolution with k = 4")
    ax.axis("off")
    caption = (
        "At each token: two gates, and between them a weighted sum of this u and three earlier."
    )
    alt = (
        "A diagram: a matrix makes a, v and b of the token. 1 + a multiplies v, which gives u. The "
        "convolution mixes u with those of three earlier tokens. 1 + b multiplies that, and a last "
        "matrix gives y."
    )
    run.figure(fig, "gated", caption, alt=alt)


def _circuit(run: Run) -> None:
    """Draw how a convolution and an attention may recall a token."""
    tokens = ["D", "A", "F", "C", "…", "A", "?"]
    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    for x, token in enumerate(tokens):
        box = {"boxstyle": "round,pad=0.4", "fc": "none", "ec": "C1" if token == "?" else "C6"}
        ax.text(x, 0, token, ha="center", va="center", fontsize=14, bbox=box)
    curve = {"arrowstyle": "->", "lw": 2, "shrinkA": 4, "shrinkB": 4}
    bend = "arc3,rad={}"
    near = curve | {"color": "C0", "connectionstyle": bend.format(0.9)}
    far = curve | {"color": "C1", "connectionstyle": bend.format(-0.4)}
    ax.annotate("", (1, 0.35), (2, 0.35), arrowprops=near)
    ax.annotate("", (2, -0.35), (5, -0.35), arrowprops=far)
    ax.text(1.5, 1.1, "1. the convolution notes at F:\n“A came before me”", color="C0", ha="center")
    ax.text(3.5, -1.5, "2. attention finds the note “A” and copies F", color="C1", ha="center")
    ax.set(xlim=(-0.6, 6.6), ylim=(-1.8, 2.0))
    ax.set_title("How a convolution and an attention may recall")
    ax.axis("off")
    caption = "How the hybrid may recall what followed the first A. Section 8 tests it."
    alt = "A row of tokens D A F C … A ?: an arrow from F back to A, another from the last A to F."
    run.figure(fig, "circuit", caption, alt=alt)


def arms(
    run: Run, right: Mapping[str, Sequence[float]], loss: Mapping[str, Sequence[float]]
) -> None:
    """Draw recall over the loss on text, a point for each seed."""
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    for i, (arm, accuracies) in enumerate(right.items()):
        ax.plot(loss[arm], [100 * share for share in accuracies], "os^"[i], color=f"C{i}", ms=8)
        high = 100 * max(accuracies)
        y = high + 7 if high < 50 else 100 * min(accuracies) - 9  # clear of all three points
        ax.text(mean(loss[arm]), y, arm, color=f"C{i}", ha="center")
    ax.set(xlabel="loss on text (nats per character)", ylabel="recalled tokens (%)")
    ax.set(ylim=(-3, 106))
    ax.margins(x=0.25)
    ax.set_title("A convolution before one attention is enough for recall")
    caption = (
        "Models of two blocks, three seeds each, after the same training. Upper left is better. "
        "Our guess for text: in a short training mostly the last few characters help. A "
        "convolution has them at once, and attention must first learn where to look. At `tiny`, "
        "LLM06's two attentions had four times as many examples of recall. Here, their recall "
        "depends on when the training stops: other seeds had 10 to 90 %. All arms have the same "
        "learning rate, which isn't tuned. Two convolutions recall less than their reach would "
        "allow: see LLM09+."
    )
    alt = "Scatter plot of recall over loss on text: three groups of three points."
    run.figure(fig, "arms", caption, alt=alt)


def knock_outs(run: Run, right: Mapping[str, Sequence[float]], guess: float) -> None:
    """Draw the recall of a hybrid without some of its parts: bars, and a point for each seed."""
    fig, ax = plt.subplots(figsize=(7.2, 4.8))
    for y, (name, values) in enumerate(right.items()):
        ax.barh(y, 100 * mean(values), color="C2" if name == "complete" else "C0", alpha=0.6)
        ax.plot([100 * value for value in values], [y] * len(values), "o", color="C6", ms=4)
    ax.axvline(100 * guess, color="C1", ls="--")
    ax.text(100 * guess + 1, -0.75, "informed guess", color="C1", va="center", fontsize=10)
    ax.set_yticks(range(len(right)), list(right))
    ax.set(xlabel="recalled tokens (%)", xlim=(0, 104), ylim=(len(right) - 0.4, -1.1))
    ax.grid(axis="y", visible=False)
    ax.set_title("Recall without one of the hybrid's parts")
    caption = (
        "Recall of the hybrid without one of its parts: mean of three seeds, and each seed. The "
        "dashed guess knows which tokens can still follow; a blind guess is right in 1/32, 3 %. "
        "With the needed key hidden, attention can only copy from other tokens, and these are "
        "nearly always wrong."
    )
    shown = ", ".join(f"{name} {100 * mean(values):.0f} %" for name, values in right.items())
    alt = f"Horizontal bars of recall: {shown}."
    run.figure(fig, "knock_outs", caption, alt=alt)


def cost(run: Run, lengths: Sequence[int], measured: Mapping[str, Sequence[Any]]) -> None:
    """Draw time and memory of each mixer over the length of the text."""
    fig, axes = plt.subplots(1, 2, figsize=(8.8, 4.0))
    for ax, part in zip(axes, ("milliseconds", "megabytes"), strict=True):
        ends = []
        for i, (name, costs) in enumerate(measured.items()):
            values = [getattr(one, part) for one in costs]
            ax.loglog(lengths, values, "os^"[i] + "-", color=f"C{i}")
            ends.append((values[-1], name.split(", ")[-1], f"C{i}"))
        place = float("inf")
        for value, name, colour in sorted(ends, reverse=True):
            place = min(value, place / 1.7)  # labels don't overlap
            ax.text(1.12 * lengths[-1], place, name, color=colour, va="center", fontsize=9)
        ax.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=9)
        ax.minorticks_off()
        ax.set(xlabel="tokens T", xlim=(0.9 * lengths[0], 7 * lengths[-1]))
    axes[0].set(ylabel="time of a forward pass (ms)")
    axes[1].set(ylabel="memory at the peak (MB)")
    axes[0].set_title("Time", fontsize=11)
    axes[1].set_title("Memory", fontsize=11)
    caption = (
        "One mixer with 64 channels on one thread, forward pass only. Times are this machine's."
    )
    longest = ", ".join(
        f"{name} {costs[-1].milliseconds:.3g} ms and {costs[-1].megabytes:.3g} MB"
        for name, costs in measured.items()
    )
    alt = f"Two log-log plots over the length of the text. At {lengths[-1]:,} tokens: {longest}."
    run.figure(fig, "cost", caption, alt=alt)
