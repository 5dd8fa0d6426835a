"""Plausible wrong solutions of LLM10+'s exercises, each with the message that names its mistake."""

from dataclasses import replace

from labs.llm10_llama import deeper as lab

import torch


def counted(**changes):
    """Return a count that reads other fields: it overlooks a part of the configuration."""

    def count(s):
        return lab.parameter_count(replace(s, **{k: v(s) for k, v in changes.items()}))

    return count


def changed(part, change):
    def count(s):
        right = lab.parameter_count(s)
        return {**right, part: right[part] + change(s)}

    return count


def a_single_number(s):
    return lab.total(s)


def blind(_model):
    return ""


def always_cries_wolf(model):
    return lab.diagnose(model) or "the two ends aren't tied"


def equal_is_tied(model):
    bug = lab.diagnose(model)
    same = torch.equal(model.lm_head.weight, model.embed_tokens.weight)
    return "" if bug == "the two ends aren't tied" and same else bug


def order_of_questions(model):
    bug = lab.diagnose(model)
    return "the last norm is missing" if bug == "there are no positions" else bug


def breaks_what_it_looks_at(model):
    bug = lab.diagnose(model)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(2)
    return bug


def says_none(model):
    return lab.diagnose(model) or None


WRONG = [
    ("diagnose", blind, "expected “the future is seen”, got no bug"),
    ("diagnose", always_cries_wolf, "expected no bug in a correct model"),
    ("diagnose", equal_is_tied, "expected “the two ends aren't tied”, got no bug"),
    ("diagnose", order_of_questions, "got “the last norm is missing”"),
    ("diagnose", breaks_what_it_looks_at, "your function changed the model"),
    ("diagnose", says_none, "or an empty string, got None"),
    ("parameter_count", counted(kv_heads=lambda s: s.heads), "k and v have kv_heads heads"),
    ("parameter_count", counted(tied=lambda _: False), "tied, the output is the embedding"),
    ("parameter_count", counted(tied=lambda _: True), "untied, the output has a separate matrix"),
    ("parameter_count", counted(gated=lambda _: False), "with a gate, it goes up twice"),
    ("parameter_count", counted(biases=lambda _: False), "are the biases missing"),
    ("parameter_count", counted(layers=lambda _: 1), "multiply by the number of layers"),
    ("parameter_count", counted(positions=lambda _: 0), "learns a vector for each position"),
    ("parameter_count", changed("norms", lambda s: -s.width * (1 + s.biases)), "the last norm"),
    ("parameter_count", changed("ffn", lambda s: -s.layers * s.width * s.biases), "the way down"),
    ("parameter_count", a_single_number, "a dictionary with the keys"),
    (
        "parameter_count",
        counted(head_dim=lambda s: s.width // s.heads),
        "heads · head_dim may differ from the width",
    ),
]
