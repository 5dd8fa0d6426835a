"""LLM01: sampling, the loop, and questions from a learner's file."""

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.cards import Card
from labs.kit import assets
from labs.llm01_inference import cuts, forms, questions, uncertainty
from labs.llm01_inference import lesson as lab
from labs.llm01_inference.model_files import equal_to_files
from labs.llm01_inference.questions import Item
from labs.llm01_inference.replies import replies

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def glass():
    path = assets.glass()
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def logits(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


# Choosing.


def test_sample_returns_no_token_of_probability_zero_and_none_out_of_range():
    few = torch.full((50_000,), -math.inf)
    few[[3, 49_999]] = 0.0
    drawn = lab.sample(few, 1.0, 2000)
    assert set(drawn.tolist()) == {3, 49_999}
    assert lab.sample(logits(2, 3, 7)).shape == (2, 3, 1)
    assert lab.sample(logits(4, 7)).shape == (4, 1)


def test_sample_returns_equally_likely_tokens_equally_often():
    counts = lab.sample(torch.zeros(4), 1.0, 40_000).bincount(minlength=4)
    assert (counts - 10_000).abs().max() < 6 * math.sqrt(40_000 * 3 / 16)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_top_k_keeps_k_tokens(k):
    assert (lab.top_k(logits(5, 40), k).isfinite().sum(-1) == k).all()


def test_cuts_of_three_tokens_agree_with_the_text():
    three = torch.tensor([0.67, 0.24, 0.09]).log()
    assert lab.top_p(three, 0.9).isfinite().tolist() == [True, True, False]
    assert lab.top_p(three, 0.6).isfinite().tolist() == [True, False, False]
    assert lab.min_p(three, 0.3).isfinite().tolist() == [True, True, False]
    torch.testing.assert_close(
        torch.tensor([2.0, 1.0, 0.0]).softmax(-1), three.exp(), rtol=0, atol=0.006
    )


def test_temperatures_of_three_tokens_agree_with_the_text():
    logits = torch.tensor([2.0, 1.0, 0.0])
    for t, want in (
        (0.5, [0.867, 0.117, 0.016]),
        (1.0, [0.67, 0.24, 0.09]),
        (2.0, [0.506, 0.307, 0.186]),
    ):
        got = (logits / t).softmax(-1)
        torch.testing.assert_close(got, torch.tensor(want), rtol=0, atol=0.006)


def test_temperature_zero_is_greedy():
    scores = logits(5, 9)
    assert torch.equal(lab.sample(scores, 0.0, 3), scores.argmax(-1)[:, None].expand(5, 3))
    assert lab.sampler(0.0, 0.9)([], scores[0]) == scores[0].argmax()


# Loading, writing and streaming.


def test_opening_in_bfloat16_keeps_the_rope_frequencies_and_converting_rounds_them(glass):
    opened = lab.load(str(assets.glass()), torch.device("cpu"), torch.bfloat16)[0]
    want = glass[0].model.rotary_emb.inv_freq
    assert torch.equal(opened.model.rotary_emb.inv_freq, want)
    assert opened.dtype == torch.bfloat16
    converted = copy.deepcopy(glass[0]).bfloat16().model.rotary_emb.inv_freq
    assert not torch.equal(converted.to(want), want)


def test_a_changed_parameter_differs_from_the_file(glass):
    model = copy.deepcopy(glass[0])
    count = sum(p.numel() for p in model.parameters())
    assert equal_to_files(str(assets.glass()), model) == count
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    assert equal_to_files(str(assets.glass()), model) == count - 1


def test_text_comes_in_pieces_of_complete_characters(glass):
    tokenizer = glass[1]
    text = "Alice — “Oh!” ✨ ends"
    ids = tokenizer(text).input_ids
    pieces = list(lab.stream(tokenizer, ids))
    assert "".join(pieces) == tokenizer.decode(ids)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_a_stream_reads_no_token_ahead(glass):
    seen = []

    def tokens():
        for token in glass[1]("Alice was here").input_ids:
            seen.append(token)
            yield token

    pieces = lab.stream(glass[1], tokens())
    next(pieces)
    assert len(seen) == 1


PROMPTS = ["Alice was beginning to", "Alice was very", "Alice was beginning to get very tired of"]


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1], ["The", "A long prompt of other words"]])
def test_many_replies_at_once_are_those_of_each_prompt_alone(glass, prompts):
    model, tokenizer = glass
    got = replies(model, tokenizer, prompts, 12)
    for prompt, reply in zip(prompts, got, strict=True):
        alone = list(
            lab.generate(model, tokenizer(prompt).input_ids, 12, stop=[tokenizer.eos_token_id])
        )
        text = tokenizer.decode([i for i in alone if i != tokenizer.eos_token_id]).strip()
        assert reply == text.split("\n")[0].strip()


def test_replies_that_are_complete_leave_the_batch_and_change_no_other(glass):
    model, tokenizer = glass
    prompts = ["CHAPTER", "“Oh dear", "Alice", "The Queen said", "I. Down the", "“Who are you?”"]
    alone = [replies(model, tokenizer, [prompt], 40)[0] for prompt in prompts]
    lengths = {len(tokenizer(text).input_ids) for text in alone}
    assert min(lengths) < 20 < max(lengths)  # some are complete long before others
    assert replies(model, tokenizer, prompts, 40) == alone


def test_a_cut_with_one_token_too_few_is_noticed_in_each_row():
    scores = logits(5, 40)
    cut = lab.top_p(scores, 0.9)
    assert uncertainty.unlike_logits(cut, cut, scores) == 0
    assert uncertainty.unlike_logits(uncertainty.without_least(cut, scores), cut, scores) == 5


def test_a_cut_with_too_few_tokens_is_noticed_where_two_have_the_smallest_logit():
    scores = torch.tensor([[3.0, 2.0, 1.0, 1.0, 0.0], [3.0, 2.0, 1.0, 0.5, 0.0]])
    for cut in (lab.top_k(scores, 4), scores.masked_fill(scores < 1, -math.inf)):
        fewer = uncertainty.without_least(cut, scores)
        for row in (0, 1):
            assert uncertainty.unlike_logits(fewer[row], cut[row], scores[row]) >= 1
    either = scores.clone()
    either[0, 2] = -math.inf  # of the two tied tokens, one may be cut off
    other = scores.clone()
    other[0, 3] = -math.inf
    either[:, 4] = other[:, 4] = -math.inf
    assert uncertainty.unlike_logits(either, other, scores) == 0


# Marking.


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("The capital of Greece is Athens.", True),
        ("athens", True),
        ("The Athenians", False),
        ("", False),
        ("I don't know.\nAthens", False),
        ("New York City, of course", True),
        ("York New", False),
    ],
)
def test_a_reply_is_right_if_its_first_line_has_an_answer(reply, right):
    assert questions.is_right(reply, Item("?", ("Athens", "New York"))) == right


def test_the_standard_error_of_a_share_agrees_with_the_text():
    share, error = uncertainty.share([True] * 30 + [False] * 14)
    assert (round(share, 2), round(error, 2)) == (0.68, 0.07)


def test_questions_that_both_forms_answer_alike_do_not_add_to_the_error():
    first = [True, True, False, False] * 10
    second = [True, True, False, True] * 10
    mean, error = lab.difference(second, first)
    assert mean == pytest.approx(0.25)
    assert error == pytest.approx(math.sqrt(0.25 * 0.75 / 39))


def test_the_difference_of_two_forms_agrees_with_the_text():
    first = [True, True, True, False, True]
    second = [False, True, False, False, True]  # the differences are 1, 0, 1, 0 and 0
    mean, error = lab.difference(first, second)
    assert (round(mean, 1), round(error, 3)) == (0.4, 0.245)
    assert lab.difference(second, first) == (-mean, error)


def test_the_built_in_questions_are_enough_and_differ():
    items = questions.built_in()
    assert len(items) - questions.EXAMPLES >= 40
    assert len({item.question for item in items}) == len(items)


def test_the_few_shot_prompt_shows_the_examples_and_ends_where_the_reply_begins():
    examples = [("Is ice cold?", "yes"), ("Is snow black?", "no")]
    want = "Q: Is ice cold?\nA: yes\n\nQ: Is snow black?\nA: no\n\nQ: Is fire hot?\nA:"
    assert forms.few_shot_prompt(examples, "Is fire hot?") == want
    assert forms.few_shot_prompt([], "Is fire hot?") == "Q: Is fire hot?\nA:"


def test_a_cut_before_the_temperature_leaves_as_many_tokens_at_any_temperature():
    tables = []
    run = SimpleNamespace(table=lambda *table: tables.append(table))
    three = torch.tensor([0.67, 0.24, 0.09]).log()
    found = cuts.count_left(
        run, "", three, {"top-k": lab.top_k, "top-p": lab.top_p, "min-p": lab.min_p}
    )
    assert {t: left["top-p"] for t, left in found.items()} == {
        "0.7": 2,
        "1": 2,
        "2": 3,
        "2, after the cut": 2,
    }
    assert [row[0] for row in tables[0][2]] == list(found)


# A learner's file.


def write_file(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


GOOD = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(9)]


def test_questions_come_from_jsonl_and_csv(tmp_path):
    rows = [*GOOD, {"question": "2 + 2?", "answer": ["4", "four"]}]
    items = questions.read(write_file(tmp_path / "a.jsonl", ["", *rows, ""]))
    assert items[-1] == Item("2 + 2?", ("4", "four"))
    lines = [
        "id,question,answer",
        *(f'{i},"What, {i}?",{i}' for i in range(9)),
        '9,"2 +\n2?",4|four',
    ]
    table = write_file(tmp_path / "a.csv", lines)
    assert questions.read(table)[-1] == Item("2 +\n2?", ("4", "four"))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.jsonl", [*GOOD, "{"], "Line 10: it isn't JSON"),
        ("a.jsonl", [*GOOD[:3], "", "[1]", *GOOD], "Line 5: it must be an object"),
        ("a.jsonl", [{"answer": "4"}, *GOOD], "Line 1: it has no text as its question"),
        ("a.jsonl", [{"question": " ", "answer": "4"}, *GOOD], "Line 1: it has no text"),
        ("a.jsonl", [*GOOD, {"question": "2 + 2?"}], "Line 10: its answer must be"),
        ("a.jsonl", [*GOOD, {"question": "2 + 2?", "answer": 4}], "Line 10: its answer must be"),
        ("a.jsonl", [*GOOD, {"question": "2 + 2?", "answer": []}], "Line 10: its answer must be"),
        ("a.jsonl", [*GOOD, {"question": "2 + 2?", "answer": "…"}], "Line 10: its answer must be"),
        ("a.jsonl", [{"question": "x" * 2001, "answer": "4"}], "Line 1: its question has 2,001"),
        ("a.jsonl", GOOD[:7], "It has 7 questions"),
        ("a.jsonl", ["[" * 100_000], "Line 1: it isn't JSON"),
        ("a.csv", ["question;answer", "a;b"], "Line 1: the header must name"),
        ("a.csv", ["question,answer", "a,b", "c"], "Line 3: it has 1 fields"),
        ("a.csv", ["question,answer", *["a,b"] * 8, "c,"], "Line 10: its answer must be"),
        ("a.csv", ["question,answer", "a,b", '"c,d'], "Line 3: it isn't CSV"),
        ("a.csv", ["question,answer", '"a\nb",c', "d"], "Line 4: it has 1 fields"),
        ("a.txt", GOOD, "must end in .jsonl or .csv"),
        ("a.jsonl", [" "], "It is empty"),
    ],
)
def test_a_bad_file_is_a_card_that_names_the_line(tmp_path, name, content, why):
    with pytest.raises(Card) as raised:
        questions.read(write_file(tmp_path / name, content))
    assert why in raised.value.why
    assert raised.value.code == 2


def test_a_file_that_is_not_utf8_is_a_card_that_names_the_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,answer\na,b\nca\xffe,d\n")
    with pytest.raises(Card) as raised:
        questions.read(path)
    assert "Line 3: it isn't valid UTF-8" in raised.value.why


def test_a_missing_or_huge_file_is_a_card(tmp_path):
    with pytest.raises(Card) as raised:
        questions.read(tmp_path / "none.csv")
    assert "no file of that name" in raised.value.why
    path = tmp_path / "a.jsonl"
    path.write_bytes(b" " * (questions.LARGEST_FILE + 1))
    with pytest.raises(Card) as raised:
        questions.read(path)
    assert "the limit is" in raised.value.why
