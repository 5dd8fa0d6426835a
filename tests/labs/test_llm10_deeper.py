"""LLM10+: page faults of a step, the order of a matrix in memory, and what each part is worth."""

from dataclasses import replace

from labs.kit import Results
from labs.kit.measure import in_new_process
from labs.kit.records import Bound, Experiment, Measurement, numbers
from labs.llm10_llama import deeper
from labs.llm10_llama import lesson as lab
from labs.llm10_llama.parts import Config, parameters, random_tokens

import pytest
import torch
from torch import nn

SMALL = Config(40, 32, 2, 4, 2, 88, context=16, std=0.15)


def test_a_new_process_measures_the_cost_of_a_step():
    seconds, faults = in_new_process(deeper.IN_A_NEW_PROCESS.format(True))
    assert seconds > 0
    assert faults >= 0


def test_column_major_matrices_give_the_same_logits_and_leave_the_model_alone():
    torch.manual_seed(0)
    model = lab.Llama(SMALL)
    copy = deeper.column_major(model)
    for before, after in zip(model.modules(), copy.modules(), strict=True):
        if isinstance(before, nn.Linear):
            assert before.weight.stride() == (before.in_features, 1)
            assert after.weight.stride() == (1, after.out_features)
    assert copy.embed_tokens.weight.is_contiguous(), "the embedding is read by rows"
    assert model.lm_head.weight is model.embed_tokens.weight
    tokens = random_tokens(SMALL, 2, 9)
    torch.testing.assert_close(copy(tokens), model(tokens))


def test_arms_differ_from_the_base_in_what_they_name():
    base = Config(257)
    count = parameters(lab.Llama(base))
    changed = {
        name: parameters(lab.Llama(replace(base, **changes)))
        for name, (changes, _) in deeper.ARMS.items()
    }
    assert changed["GELU for SwiGLU"] == count, "as many parameters"
    assert changed["untied"] == count + 257 * base.d_model
    assert changed["one key-value head"] < count
    assert set(deeper.EXPECTED) <= set(deeper.ARMS)


def results(costs: dict[str, float], gain: float = 1.2, faults: float = 10.0) -> Results:
    """Return the results of a run with these costs of the arms."""

    def measured(name: str, value: float | list[float], bound: Bound | None = None) -> Measurement:
        return Measurement(name, numbers(value), "", bound or Bound(), decides=bound is not None)

    pages = Experiment("a_step_pays_for_its_pages", "")
    pages.items += [
        measured("page faults of a step, at first", 1000.0),
        measured("page faults of a step, memory reused", faults, Bound(high=200)),
        measured("processor time at first ÷ with memory reused", 1.3, Bound(low=1.02)),
        measured("times as fast with the lean norm and F.silu", 1.1),
    ]
    order = Experiment("either_order_writes_the_same", "")
    order.items += [measured("times as fast with matrices stored for one row", [gain, gain])]
    parts = Experiment("some_parts_matter_at_once", "")
    parts.items += [measured("the complete model, three seeds", [2.12, 2.1, 2.11])]
    parts.items += [measured(f"nats that it costs: {arm}", cost) for arm, cost in costs.items()]
    return Results([pages, order, parts])


def test_the_closing_sorts_the_arms_by_what_seeds_explain():
    costs = dict.fromkeys(deeper.ARMS, 0.01) | {"without RoPE": 0.2, "untied": -0.05}
    text = deeper.closing(results(costs))
    worse, same, better = (line for line in text.splitlines() if line.startswith("- "))
    assert "without RoPE (+0.200)" in worse
    assert "LayerNorm (+0.010)" in same
    assert "untied (-0.050)" in better


@pytest.mark.parametrize(
    ("gain", "text"),
    [
        (1.5, "for one row write 1.50 times"),
        (0.5, "as `nn.Linear` has it write 2.00 times"),
        (1.01, "made no difference"),
    ],
)
def test_the_closing_reports_the_faster_order(gain: float, text: str):
    assert text in deeper.closing(results(dict.fromkeys(deeper.ARMS, 0.0), gain=gain))


def test_the_closing_does_not_claim_a_gain_that_was_not_measured():
    zeros = dict.fromkeys(deeper.ARMS, 0.0)
    assert "not what we expected" in deeper.closing(results(zeros, faults=900.0))
    assert "not what we expected" not in deeper.closing(results(zeros))
