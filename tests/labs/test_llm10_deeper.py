"""LLM10+: page faults, bugs, arms, and the tuned model."""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from common.options import Settings
from labs.kit import Results
from labs.kit.chat import saved_models
from labs.kit.chat.conversation import Conversation, TemplateError
from labs.kit.chat.open_model import ChatModel, open_model
from labs.kit.measure import in_new_process
from labs.kit.records import Bound, Experiment, Measurement, numbers
from labs.kit.run.console import Output
from labs.kit.run.run import Run
from labs.llm10_llama import ablation, bugs, chat_tuning, deeper, heads
from labs.llm10_llama import lesson as lab
from labs.llm10_llama.conversion import to_transformers
from labs.llm10_llama.corpus import open_text
from labs.llm10_llama.ladder import corpus
from labs.llm10_llama.parts import Config, parameters

import pytest
import torch
from transformers import AutoTokenizer

SMALL = Config(40, 32, 2, 4, 2, 88, context=16, std=0.15)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with (tmp_path / "log.txt").open("w", encoding="utf-8") as log:
        own = Namespace(corpus=None, merges=0, steps=None)
        settings = Settings(outputs=tmp_path, size="tiny", own=own)
        yield Run(settings, "fp32", Output(log, silent=True), tmp_path)


def test_a_new_process_measures_the_cost_of_a_step():
    seconds, faults = in_new_process(deeper.IN_A_NEW_PROCESS, "default")
    kept, reused = in_new_process(deeper.IN_A_NEW_PROCESS, "keep")
    assert min(seconds, kept) > 0
    assert reused < faults


def test_cosines_are_those_of_the_letters_that_are_drawn():
    rows = torch.zeros(256, 2)
    rows[:, 0] = 1
    rows[list(heads.VOWELS)] = torch.tensor([0.6, 0.8])
    cosines = heads.cosines(rows)
    assert cosines.shape == (len(heads.SHOWN), len(heads.SHOWN)) == (26, 26)
    assert cosines[0, 1].item() == pytest.approx(1)
    assert cosines[0, 5].item() == pytest.approx(0.6)


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
    assert {*ablation.WORSE, *ablation.EQUAL} <= set(deeper.ARMS)


def results(costs: dict[str, float]) -> Results:
    """Return the results of a run with these costs of the arms; three seeds differ by 0.02."""
    parts = Experiment("some_parts_matter_at_once", "")
    seeds = Measurement("the complete model, three seeds", numbers([2.12, 2.1, 2.11]), "", Bound())
    parts.items.append(seeds)
    for arm, cost in costs.items():
        name = f"nats that it costs: {arm}"
        parts.items.append(Measurement(name, numbers(cost), "", Bound()))
    return Results([parts])


def test_the_closing_sorts_the_arms_by_four_ranges_of_seeds():
    costs = dict.fromkeys(deeper.ARMS, 0.05) | {"without RoPE": 0.2, "untied": -0.09}
    text = deeper.closing(results(costs))
    worse, same, better = (line for line in text.splitlines() if line.startswith("- "))
    assert "without RoPE (+0.200)" in worse
    assert "LayerNorm (+0.050)" in same
    assert "untied (-0.090)" in better


@pytest.mark.parametrize(("lowest", "verdict"), [(2.1, "held"), (2.01, "not held")])
def test_an_arm_is_worse_if_its_three_losses_are_above_the_complete_model_s(run, lowest, verdict):
    losses = {"AdamW for all": [2.3, lowest, 2.2]}
    ablation.judge_arms(run, {"LayerNorm": 0.0}, 0.06, [2.0, 2.02, 2.01], losses)
    assert run.current.verdict == verdict


@pytest.mark.parametrize(("layer_norm", "verdict"), [(0.0, "held"), (-0.1, "not held")])
def test_rmsnorm_is_not_as_good_where_layernorm_is_better(run, layer_norm, verdict):
    costs = {"without RoPE": 0.2, "AdamW for all": 0.2, "LayerNorm": layer_norm, "untied": -0.1}
    ablation.judge_arms(run, costs, 0.06, [2.0, 2.02, 2.01], {"without RoPE": [2.2, 2.3, 2.4]})
    assert run.current.verdict == verdict


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "held"),
        ({"the future is seen": 0.0}, "not held"),
        ({"there are no positions": 0.05}, "not held"),
        ({"the two ends aren't tied": -0.2}, "held"),
        ({"with a cache, positions begin at 0 again": 0.2}, "held"),
        ({"the last norm is missing": 5.0}, "held"),
    ],
)
def test_two_bugs_must_show_in_the_loss_and_the_others_may(run, changed, verdict):
    costs = dict.fromkeys(bugs.BUGS, 0.0)
    costs |= {"the future is seen": -1.9, "there are no positions": 0.35}
    bugs.judge_losses(run, costs | changed, 0.03)
    assert run.current.verdict == verdict


def test_each_arm_is_one_training_that_both_experiments_share(run, monkeypatch):
    trainings: dict[str, list[tuple]] = {}

    def train(run, parts, name, *facts):  # noqa: ARG001
        trainings.setdefault(name, []).append(facts)
        return SimpleNamespace(model=object())

    monkeypatch.setattr(deeper, "train", train)
    arms = (ablation.COMPLETE, *ablation.ARMS)
    recipe = deeper.Recipe(2, 2)
    one = {arm: deeper.fitted(run, arm, deeper.ONE_BLOCK, recipe, run.seed) for arm in arms}
    for bug, arm in bugs.AS_CHANGES.items():
        assert deeper.fitted_with(run, bug, deeper.ONE_BLOCK, recipe) is one[arm]
    for arm in arms:
        deeper.fitted(run, arm, Config(0), recipe, run.seed)
    assert len(trainings) == 2 * len(arms), "no two trainings have one name"
    assert all(len(facts) == 1 for facts in trainings.values())


def test_each_kind_of_question_has_a_reply_and_no_word_is_on_both_sides():
    rows, held_out = chat_tuning.questions(0, 500)
    assert (len(rows), len(held_out)) == (500, chat_tuning.ASKED)
    assert not {row.word for row in rows} & {row.word for row in held_out}
    replies = [chat_tuning.Question(kind, "music").reply for kind in chat_tuning.QUESTIONS]
    assert replies == ["m", "c", "5", "MUSIC", "music music"]
    other = chat_tuning.swapped(rows, 0)
    for kind in chat_tuning.QUESTIONS:
        right = [row.reply for row in rows if row.kind == kind]
        mixed = [text for row, text in zip(rows, other, strict=True) if row.kind == kind]
        assert sorted(right) == sorted(mixed)
        assert right != mixed


def test_a_kind_is_learned_if_it_has_more_right_replies_than_chance_explains():
    kinds = list(chat_tuning.QUESTIONS)
    rows = [chat_tuning.Question(kind, "music") for kind in kinds for _ in range(40)]
    shares = {"tuned": (0.11, 0.42, 1.0, 0.0, 0.3), "replies swapped": (0.13, 0.1, 0.18, 0.0, 0.2)}
    exams = {
        name: chat_tuning.Exam(1.0, [], dict(zip(kinds, right, strict=True)))
        for name, right in shares.items()
    }
    assert chat_tuning.better_kinds(exams, rows) == kinds[1:3]


def test_an_answer_alone_has_labels_and_a_question_fits_into_half_of_the_context(tmp_path):
    words = chat_tuning.chat_tokenizer(open_text(None, 0, tmp_path))
    row = chat_tuning.Question("Last letter of {}?", "capulet")
    (encoded,) = chat_tuning.encoded(words, [row], [row.reply])
    text = words.decode(encoded["input_ids"])
    assert text == "Q\nLast letter of capulet?\n\nA\nt<|endoftext|>"
    assert [label for label in encoded["labels"] if label != -100] == [ord("t"), 256]
    assert len(encoded["input_ids"]) - 2 <= Config(0).context // 2, "a chat reserves half of it"


def test_a_tuned_model_is_saved_as_a_chat_model_with_a_card(run):
    words = chat_tuning.chat_tokenizer(corpus(run))
    torch.manual_seed(0)
    base = lab.Llama(Config(257, 32, 1, 2, 2, 64))
    before = [p.clone() for p in base.parameters()]
    how = replace(chat_tuning.recipe(run), steps=4)
    rows, held_out = chat_tuning.questions(0, 64)
    right = [row.reply for row in rows]
    tuned = chat_tuning.tune(run, base, how, words, rows, "replies", right)
    assert all(torch.equal(a, b) for a, b in zip(before, base.parameters(), strict=True))
    asked = held_out[:20]
    exams = {
        name: chat_tuning.examine(run, model, words, asked, lab.Llama, lab.generate)
        for name, model in (("before", to_transformers(base)), ("tuned", tuned))
    }
    assert exams["tuned"].loss < exams["before"].loss
    folder = chat_tuning.save(run, tuned, words, exams, how)
    assert saved_models.SavedModel(folder).kind == "chat model"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "{" not in card.split("```")[0], "every place of the card is filled"
    assert open_model(saved_models.SavedModel(folder)).greedy, "each question has one right reply"
    model = ChatModel(tuned, AutoTokenizer.from_pretrained(folder), 64, "", "", "fp32")
    prompt = Conversation(model).prompt("First letter of capulet?", 256)
    assert words.decode(prompt.ids) == "Q\nFirst letter of capulet?\n\nA\n"
    with pytest.raises(TemplateError, match="no system prompt"):
        Conversation(model, system="Be brief.").prompt("music twice?", 256)
