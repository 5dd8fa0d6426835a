"""Cut off improbable tokens by rank or fraction; compare cuts and a penalty with the library's."""

from collections.abc import Callable
from functools import partial
from typing import Any

from labs.kit import Run
from labs.llm01_inference.replies import library_text
from labs.llm01_inference.uncertainty import unlike_logits, without_least

import torch
from torch import Tensor
from transformers.generation import logits_process as library

Cut = Callable[[Tensor, Any], Tensor]
LIBRARYS: dict[str, tuple[Any, list[Any]]] = {  # the library's cut, and the values to try
    "top-k": (library.TopKLogitsWarper, [1, 50, 5000]),
    "top-p": (library.TopPLogitsWarper, [0.1, 0.5, 0.9, 0.99]),
    "min-p": (library.MinPLogitsWarper, [0.01, 0.1, 1.0]),
}


def top_k(logits: Tensor, k: int) -> Tensor:
    """Set all but the k largest logits to -inf, (..., V) -> (..., V)."""
    smallest = logits.topk(min(k, logits.shape[-1])).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < smallest, -torch.inf)


def min_p(logits: Tensor, fraction: float) -> Tensor:
    """Set logits to -inf where p is below a fraction of the largest p, (..., V) -> (..., V)."""
    p = logits.softmax(-1)
    smallest = fraction * p.amax(-1, keepdim=True)  # (..., 1)
    return logits.masked_fill(p < smallest, -torch.inf)


def compare_cuts(run: Run, rows: Tensor, cuts: dict[str, Cut]) -> None:
    """Check that each cut of logits (positions, V) is the library's of that name."""
    because = "control: in each row, a cut that leaves one token too few must be noticed"
    for name, ours in cuts.items():
        theirs, values = LIBRARYS[name]
        pairs = [(ours(rows, x), theirs(x)(None, rows)) for x in values]
        wrong = sum(unlike_logits(a, b, rows) for a, b in pairs)
        run.check(f"{name}: logits unlike the library's", wrong, equals=0, decides=True)
        missed = [unlike_logits(without_least(a, rows), b, rows) for a, b in pairs]
        run.check(f"{name}, one fewer", missed, at_least=len(rows), because=because)


def count_left(
    run: Run, text: str, logits: Tensor, cuts: dict[str, Cut]
) -> dict[str, dict[str, int]]:
    """Tabulate how many tokens each cut keeps of logits (V,), by the temperature before it.

    The last row cuts first, and divides by 2 afterwards.
    """
    values = {"top-k": 50, "top-p": 0.9, "min-p": 0.1}
    counts: dict[str, dict[str, int]] = {}
    for name, x in values.items():
        for t in (0.7, 1.0, 2.0):
            left = cuts[name](logits / t, x).isfinite()
            counts.setdefault(f"{t:g}", {})[name] = int(left.sum())
        left = (cuts[name](logits, x) / 2).isfinite()
        counts.setdefault("2, after the cut", {})[name] = int(left.sum())
    columns = ["T", *(f"{name} {x:g}" for name, x in values.items())]
    rows = [[t, *counts[t].values()] for t in counts]
    run.table(f"Tokens kept after {text!r}", columns, rows)
    return counts


def compare_penalty(run: Run, text: list[int], logits: Tensor, ours: Callable[..., Tensor]) -> None:
    """Check that a penalty of 1.3 after a text changes its logits (1, V) as the library's does."""
    ids = torch.tensor([text], device=logits.device)  # (1, T)
    theirs: Any = library.RepetitionPenaltyLogitsProcessor(1.3)
    apart = ours(ids, logits, 1.3) - theirs(ids, logits.clone())
    run.agree("penalty: ours − the library's", apart, decides=True)
    seen = logits[0, ids.unique()]
    signs = [int((seen > 0).sum()), int((seen < 0).sum())]
    what = "seen tokens with logits of the rarer sign"
    because = "control: the rule looks at the sign, so both must occur"
    run.measure(what, min(signs), expect_at_least=1, because=because)


def compare_defaults(
    run: Run, model: Any, prompt: list[int], logits: Tensor, n: int, because: str
) -> tuple[Tensor, Tensor]:
    """Check which ranks `generate` draws with do_sample=True, and with top_k=0 as well.

    Args:
        run: gets the checks.
        model: of transformers.
        prompt: the ids of the text.
        logits: of the token that follows it, (V,).
        n: draws of each kind.
        because: why the share beyond rank 50 may be up to five standard errors off.

    Returns:
        The ranks of the tokens drawn by default and with top_k=0, (n,) each; 0 is the likeliest.
    """
    documented = "transformers documents top_k=50"
    ids = torch.tensor([prompt], device=model.device)  # (1, T)
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        pad_token_id=0,
        max_new_tokens=1,
        do_sample=True,
        return_dict_in_generate=True,
        output_scores=True,
    )
    left = int(written.scores[0].isfinite().sum())
    run.check("tokens left by default", left, equals=50, because=documented, decides=True)
    rank = logits.argsort(descending=True).argsort()  # of each token
    beyond = logits.softmax(-1)[rank >= 50].sum().item()
    run.measure("probability beyond rank 50", beyond)
    many = partial(library_text, model, prompt, 1, do_sample=True, num_return_sequences=n)
    by_default = rank[many()]  # (n,)
    without_cut = rank[many(top_k=0)]  # (n,)
    count = int((by_default >= 50).sum())
    what = "draws beyond rank 50"
    run.measure(what, count, expect_at_most=0, because=documented, decides=True)
    drawn = (without_cut >= 50).double().mean().item()
    error = abs(drawn - beyond) / (beyond * (1 - beyond) / n + 1 / n**2) ** 0.5
    what = "with top_k=0: error of the share beyond rank 50, in SE"
    because = f"control: without the cut all tokens can be drawn; {because}"
    run.check(what, error, at_most=5, because=because)
    return by_default, without_cut
