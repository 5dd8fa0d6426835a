"""The drawing of LLM02+ of a graph that is cut."""

from typing import Any

from labs.llm02_deep_learning.figures import INK, Drawn

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn


def _chain(loss: Tensor) -> list[Any]:
    """Return the operations from the loss to the input, past those of the parameters."""
    chain: list[Any] = []
    operation: Any = loss.grad_fn
    while operation is not None:
        chain.append(operation)
        sources = (source for source, _ in operation.next_functions if source is not None)
        operation = next((source for source in sources if not _of_parameter(source)), None)
    return chain


def _of_parameter(operation: Any) -> bool:
    """Return whether it is a parameter's operation, or the transposition of a parameter."""
    return hasattr(operation, "variable") or operation.name().startswith("TBackward")


def _node(ax: Any, x: float, y: float, text: str, colour: str, reached: bool) -> None:
    style = "-" if reached else ":"
    box = FancyBboxPatch((x - 0.62, y - 0.17), 1.24, 0.34, boxstyle="round,pad=0.03")
    box.set(fill=reached, facecolor=to_rgba(colour, 0.2), edgecolor=colour, ls=style, lw=1.3)
    ax.add_patch(box)
    ax.text(x, y, text, ha="center", va="center", fontsize=10)


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], reached: bool) -> None:
    look = {"arrowstyle": "-|>", "color": INK, "ls": "-" if reached else ":", "shrinkA": 0}
    ax.annotate("", end, start, arrowprops=look)


def draw_cut(loss: Tensor, cut: Tensor, model: nn.Module) -> Drawn:
    """Draw the autograd graph of a network, and which part of it a loss behind a cut reaches.

    Args:
        loss: of the intact network.
        cut: the loss of the same network that is cut after its second layer.
        model: the intact network.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    chain = _chain(loss)
    reached = len(_chain(cut))
    fig, ax = plt.subplots(figsize=(7.2, 5.6))
    for i, operation in enumerate(chain):
        on = i < reached
        if i:
            _arrow(ax, (0, -i + 0.8), (0, -i + 0.2), i < reached)
        _node(ax, 0, -i, operation.name().removesuffix("Backward0"), "C0", on)
        for source, _ in operation.next_functions:
            if source is None or not _of_parameter(source):
                continue
            below = 0.0 if hasattr(source, "variable") else 0.5
            _arrow(ax, (0.66, -i - below / 3), (1.2, -i - below), on)
            if below:
                _node(ax, 1.85, -i - below, "T", "C0", on)
                _arrow(ax, (2.51, -i - below), (3.05, -i - below), on)
                source = source.next_functions[0][0]
            place = (3.7 if below else 1.85, -i - below)
            _node(ax, *place, names[id(source.variable)], "C2", on)
    ax.text(-0.15, -reached + 0.5, "None, once it is cut", color="C1", ha="right", va="center")
    ax.plot((-2.6, 4.4), (-reached - 0.5, -reached - 0.5), "C1--", lw=1.5)
    ax.text(4.4, -reached - 0.42, "cut: z.detach()", color="C1", ha="right", va="bottom")
    ax.set(xlim=(-2.7, 4.5), ylim=(-len(chain) + 0.2, 0.4))
    ax.axis("off")
    ax.set_title("From the loss, a walk reaches no operation before the cut")
    caption = (
        "The operations of a network of three layers, from the loss to the first layer. Arrows are "
        "next_functions. Green boxes are the parameters' AccumulateGrad; T transposes a weight. "
        "Addmm is a linear layer, a product plus a bias. With the cut, the dotted operations "
        "aren't in the graph of the loss. That includes the Relu after the cut, because its input "
        "needs no gradient."
    )
    alt = (
        "A column of boxes from NllLoss over LogSoftmax, Addmm, Relu, Addmm and Relu to Addmm. "
        "Each Addmm has arrows to a bias and, by way of T, to a weight. The first three boxes and "
        "the last layer's parameters are solid, the others dotted; a dashed line marks the cut."
    )
    return fig, caption, alt
