"""Check the exercises of LLM10+: planted bugs, and the tensors of transformers' models."""

from dataclasses import replace
from typing import Any

from labs.kit import Mistake

import torch


def diagnose(module: Any) -> None:
    """Let it diagnose a correct model and each planted bug, with two seeds."""
    for seed in (0, 1):
        for name, plant in {"": None, **module.BUGS}.items():
            torch.manual_seed(seed)
            model = module.Llama(module.Config(40, 32, 1, 4, 2, 88, std=0.15))
            if plant is not None:
                plant(model)
            before = [p.detach().clone() for p in model.parameters()]
            got = module.diagnose(model)
            if not isinstance(got, str) or (got and got not in module.BUGS):
                raise Mistake(f"expected a name of BUGS or an empty string, got {got!r}")
            after = model.parameters()
            if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
                raise Mistake("your function changed the model: leave the weights as they are")
            if got != name:
                raise Mistake(_wrong_diagnosis(name, got))


def _wrong_diagnosis(bug: str, found: str) -> str:
    if not bug:
        return (
            f"expected no bug in a correct model, got “{found}”: is it rounding, or a test that "
            "always fails?"
        )
    return f"expected “{bug}”, got “{found}”" if found else f"expected “{bug}”, got no bug"


def parameter_count(module: Any) -> None:
    """Compare with the tensors of transformers' models, of a Llama, a tied Llama and a GPT-2."""
    implementation = module.parameter_count
    transformer = module.Transformer
    llama = transformer(50, 24, 3, 6, 2, 8, 28)  # heads · head_dim isn't the width
    tied = replace(llama, tied=True)
    gpt2 = transformer(50, 24, 2, 4, 4, 6, 40, tied=True, gated=False, biases=True, positions=16)
    for s in (llama, tied, gpt2):
        want = _counted(module, s)
        got = implementation(s)
        if not isinstance(got, dict) or set(got) != set(want):
            raise Mistake(f"expected a dictionary with the keys {', '.join(want)}, got {got!r}")
        if not all(isinstance(number, int) for number in got.values()):
            raise Mistake(f"expected integers, got {got!r}: is there a / in place of //?")
        mistakes = _mistakes_of_counts(s)
        for part, number in want.items():
            if got[part] != number:
                message = mistakes.get((part, got[part]), "read the list of a layer's parts again")
                raise Mistake(f"{part}: expected {number} for {s}, got {got[part]}; {message}")


def _counted(module: Any, s: Any) -> dict[str, int]:
    """Return the parameters of transformers' model of this shape, by the names of its tensors."""
    with torch.device("meta"):
        model = module.library_model(s)
    part_of = {
        "embed_tokens": "embedding",
        "wte": "embedding",
        "wpe": "positions",
        "ln_": "norms",
        "attn": "attention",
        "mlp": "ffn",
        "norm": "norms",
        "lm_head": "output",
    }
    parts = ("embedding", "positions", "attention", "ffn", "norms", "output")
    counts: dict[str, int] = dict.fromkeys(parts, 0)
    for name, parameter in model.named_parameters():  # a tied tensor comes once
        part = next(part for word, part in part_of.items() if word in name)
        counts[part] += parameter.numel()
    return counts


def _mistakes_of_counts(s: Any) -> dict[tuple[str, int], str]:
    """Return the message for each (part, number) that a known mistake results in."""
    d = s.width
    return {
        **_mistakes_of_attention_counts(s),
        **_mistakes_of_ffn_counts(s),
        ("norms", 2 * s.layers * d * (1 + s.biases)): "the last norm, after all layers, is missing",
        ("norms", (s.layers + 1) * d * (1 + s.biases)): "a layer has two norms",
        ("norms", (2 * s.layers + 1) * d): "GPT-2's norms have shifts as well as gains",
        ("norms", 2 * (2 * s.layers + 1) * d): "Llama's norms have gains and no shifts",
        ("output", s.vocabulary * d): "tied, the output is the embedding, which is already counted",
        ("output", 0): "untied, the output has a separate matrix",
        ("positions", 0): "GPT-2 learns a vector for each position",
    }


ONE_LAYER = "that is one layer: multiply by the number of layers"


def _mistakes_of_attention_counts(s: Any) -> dict[tuple[str, int], str]:
    d = s.width
    queries = s.heads * s.head_dim
    keys = s.kv_heads * s.head_dim
    biases = s.biases * (queries + 2 * keys + d)
    matrices = 2 * d * (queries + keys)
    shared = "k and v have kv_heads heads, fewer than q"
    wide = "heads · head_dim may differ from the width: q maps from width to heads · head_dim"
    no_output = "the output matrix of attention is missing"
    keys_of_width = s.kv_heads * d // s.heads
    of_a_layer = {
        4 * d * queries + biases: shared,
        4 * d * d + biases: wide,
        2 * d * (d + keys_of_width) + biases: wide,
        3 * d * queries + biases: no_output,
        d * (queries + 2 * keys) + biases: no_output,
        matrices: "are the biases missing?",
    }
    mistakes = {("attention", s.layers * number): text for number, text in of_a_layer.items()}
    return mistakes | {("attention", matrices + biases): ONE_LAYER}


def _mistakes_of_ffn_counts(s: Any) -> dict[tuple[str, int], str]:
    d = s.width
    f = s.ffn
    ways_up = 2 if s.gated else 1
    matrices = (ways_up + 1) * d * f
    two_matrices = "with a gate, it goes up twice" if s.gated else "are the biases missing?"
    return {
        ("ffn", s.layers * 2 * d * f): two_matrices,
        ("ffn", s.layers * 3 * d * f): "without a gate, it goes up once, and down",
        ("ffn", s.layers * (matrices + f)): "the bias on the way down, `width` long, is missing",
        ("ffn", matrices + s.biases * (ways_up * f + d)): ONE_LAYER,
    }
