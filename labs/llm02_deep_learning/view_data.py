"""What the interactive views of LLM02 show: graphs to step through, and a boundary in training."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from labs.kit import pack_array
from labs.llm02_deep_learning.boundary import MAP_SIZE, REACH
from labs.llm02_deep_learning.structure_figures import layout

import numpy as np
from torch import Tensor

Viewed = tuple[dict[str, Any], str, list[str], list[list[Any]]]  # data, caption, columns, rows
DECIMALS = 3  # of a point's coordinates


def graph(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a graph of values as nodes, each after its inputs.

    Args:
        values: by name, each after its inputs; the last one is the result.

    Returns:
        For each value: name, operation, the indices of its inputs, its number, column and row.
    """
    place = layout(values)
    index = {value: i for i, value in enumerate(values.values())}
    return [
        {
            "name": name,
            "operation": value.operation,
            "inputs": [index[source] for source in value.inputs],
            "value": float(value.data),
            "place": place[name],
        }
        for name, value in values.items()
    ]


def small_graphs(value: Any) -> dict[str, dict[str, Any]]:
    """Return graphs in which values are used twice, by title, each with its values by name.

    Args:
        value: the class `Value`.
    """
    two_ways = {"x": value(1.0)}
    two_ways["a"] = two_ways["x"] * two_ways["x"]
    two_ways["c"] = two_ways["a"] * two_ways["a"]
    two_ways["L"] = two_ways["a"] + two_ways["c"]
    doubled = {"x": value(1.0)}
    for last, name in pairwise(["x", "x₂", "x₄", "x₈"]):
        doubled[name] = doubled[last] + doubled[last]
    return {"a short and a long way": two_ways, "three doublings": doubled}


def graphs(named: Mapping[str, Mapping[str, Any]], value: Any) -> Viewed:
    """Return what `run.view` needs to step through computation graphs.

    Args:
        named: graphs by title. The gradients of the first are in the table.
        value: the class `Value`, for small graphs that are shown, too.
    """
    named = {**named, **small_graphs(value)}
    data = {"graphs": [{"name": name, "nodes": graph(values)} for name, values in named.items()]}
    first = next(iter(named.values()))
    names = {value: name for name, value in first.items()}
    rows = [
        [
            name,
            f" {value.operation} ".join(names[source] for source in value.inputs)
            if len(value.inputs) > 1
            else value.operation,
            value.data,
            value.grad,
        ]
        for name, value in first.items()
    ]
    caption = (
        "A computation graph, step by step: first the numbers from left to right, then the "
        "gradients from right to left. The sliders change the leaves; the page computes everything "
        "again by the rules of `Value`. Try the neuron: for which b do x and w get no gradient? "
        "For which −t does nothing but L get one?"
    )
    return data, caption, ["value", "operation", "number", "gradient"], rows


def boundaries(trained: Mapping[str, Sequence[Mapping[str, Any]]]) -> Viewed:
    """Return what `run.view` needs to watch a decision boundary in training.

    Args:
        trained: for each activation the results of `boundary.watch`, of which the first is shown.
    """
    shown = {name: runs[0] for name, runs in trained.items()}
    first = next(iter(shown.values()))
    x: Tensor = first["x"]
    data = {
        "size": MAP_SIZE,
        "reach": REACH,
        "points": [[round(value, DECIMALS) for value in point] for point in x.tolist()],
        "classes": first["y"].tolist(),
        "steps": list(first["steps"]),
        "networks": [
            {
                "name": name,
                "maps": [packed(p) for p in result["maps"]],
                "accuracies": result["accuracies"],
            }
            for name, result in shown.items()
        ],
    }
    rows = [
        [step, *(result["accuracies"][i] for result in shown.values())]
        for i, step in enumerate(first["steps"])
    ]
    caption = (
        "The predicted probability of each class over the plane, at some steps of the training; "
        "rounded to 256 levels. The points are the training data. The accuracy is that on 2,000 "
        "unseen points. Try: is it true that every step makes the accuracy higher?"
    )
    return data, caption, ["step", *(f"accuracy, {name}" for name in shown)], rows


def packed(p: Tensor) -> dict[str, Any]:
    """Return probabilities (n,) as packed levels from 0 to 255."""
    return pack_array(np.rint(255 * p.double().numpy()).astype(np.uint8))
