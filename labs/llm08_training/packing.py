"""Packs: what a model computes for one, right and with two mistakes, and how much is padding."""

from collections.abc import Callable
from typing import Any

from labs.kit import Run, tolerance
from labs.llm08_training.gradients import gradient_of, relative_error
from labs.llm08_training.training import Batch, Row

import torch
from torch import Tensor


def padding(groups: list[list[Row]], places: int | None = None) -> float:
    """Return the share of places without a token.

    Args:
        groups: the rows of each batch or pack.
        places: the places of a group; by default rows × the longest row.
    """
    tokens = [[len(row["input_ids"]) for row in rows] for rows in groups]
    total = sum(places or max(lengths) * len(lengths) for lengths in tokens)
    return 1 - sum(map(sum, tokens)) / total


def alone(model: Any, rows: list[Row]) -> Tensor:
    """Return the logits of rows that the model reads one by one, (T, V), one after the other."""
    return torch.cat([model(torch.tensor([row["input_ids"]])).logits[0] for row in rows])


def in_a_pack(model: Any, batch: Batch, first: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what a model computes for a pack, by what it gets.

    Args:
        model: a model of transformers.
        batch: one pack, as `collate_packs` makes it.
        first: the number of tokens of the first document.

    Returns:
        By name: the logits (T, V), and the largest gradient of the sum of all later documents'
        squared logits with respect to the first document's vectors.
    """
    mask = batch["attention_mask"]
    positions = batch["position_ids"]
    ways = {
        "packed": {"attention_mask": mask, "position_ids": positions},
        "positions continue": {"attention_mask": mask},
        "causal mask alone": {
            "attention_mask": torch.ones_like(mask).tril(),
            "position_ids": positions,
        },
    }
    vectors = (
        model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    )  # (1, T, d)
    results = {}
    for name, how in ways.items():
        logits = model(inputs_embeds=vectors, **how).logits[0]
        (slope,) = torch.autograd.grad(logits[first:].square().sum(), vectors)
        results[name] = (logits.detach(), slope[0, :first].abs().max())
    return results


def check(run: Run, model: Any, rows: list[Row], batch: Batch) -> float:
    """Check that each document of a pack gets the logits that it gets alone, and that none leaks.

    Args:
        run: the run.
        model: a model of transformers, in evaluation mode.
        rows: the documents.
        batch: their pack.

    Returns:
        The largest change of a logit if positions continue from document to document.
    """
    apart = alone(model, rows)
    results = in_a_pack(model, batch, len(rows[0]["input_ids"]))
    gaps = {name: (logits - apart).abs().max().item() for name, (logits, _) in results.items()}
    leaks = {name: leak for name, (_, leak) in results.items()}
    bound = tolerance(torch.float32)
    what = "packed: largest difference to the logits alone"
    run.check(what, gaps["packed"], at_most=bound, because="rounding of float32", decides=True)
    because = "RoPE depends on distances, which are the same"
    gap = gaps["positions continue"]
    what = "positions continue: largest difference to the logits alone"
    run.check(what, gap, at_most=bound, because=because)
    because = "documents see each other, and logits are of order one"
    what = "causal mask alone: largest difference to the logits alone"
    run.check(what, gaps["causal mask alone"], at_least=0.05, because=because)
    what = "packed: gradient from later documents to the first one"
    because = "no path leads there; for the other documents, equal logits show it"
    run.check(what, leaks["packed"], at_most=0, because=because, decides=True)
    because = "each later token attends to the first document"
    what = "causal mask alone: gradient from later documents to the first one"
    run.check(what, leaks["causal mask alone"], at_least=1e-3, because=because)
    return gap


def check_gradient(
    run: Run, model: Any, label_sum: Callable[[Any, Batch], Tensor], padded: Batch, packed: Batch
) -> None:
    """Check that a pack has the gradient of its rows in a padded batch.

    Args:
        run: the run.
        model: a model of transformers, in evaluation mode.
        label_sum: the summed loss of a batch.
        padded: the rows as a padded batch.
        packed: the same rows as packs.
    """
    right = gradient_of(model, label_sum(model, padded))
    error = relative_error(gradient_of(model, label_sum(model, packed)), right)
    what = "packed: the gradient's error, relative to the padded batch"
    run.check(what, error, at_most=1e-5, because="rounding of float32", decides=True)
