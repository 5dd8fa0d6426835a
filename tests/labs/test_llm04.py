"""LLM04: properties for any text, parts on hostile input, and what the lab says of libraries."""

import base64
import inspect
import math
import random
import re
import sys
from collections import Counter
from itertools import pairwise

from labs.kit import Mistake, assets
from labs.llm04_tokenization import (
    caching,
    deeper_figures,
    smollm2_tasks,
    streams,
    vocabularies,
)
from labs.llm04_tokenization import deeper as fast
from labs.llm04_tokenization import lesson as lab
from tests.labs.solutions import check_wrong

import numpy as np
import pytest
import regex
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public
from tokenizers import Tokenizer, models, pre_tokenizers

TEXT = assets.shakespeare()[:150_000]
MERGES = fast.train(fast.count_words(TEXT + "naïve café 漢字 漢字 бабушка бабушка"), 1500)
BPE = fast.BPE(MERGES)
GPT4 = fast.BPE(MERGES, fast.GPT4)
SPECIALS = ["<|start|>", "<|end|>", "<|end|>!"]
CHAT = fast.BPE(MERGES[:300], specials=SPECIALS)
SIMPLE = lab.Tokenizer(MERGES[:300], SPECIALS)
# Every kind of character that the patterns distinguish, and texts that are easily cut wrongly.
SCRAPS = [*"aZ9 \n\t\r'.|<>é漢🙂", "'ll", "'LL", "  ", " \n", "\u00a0", "\u0301", "\x1c", "²", "<|"]
SCRAPS += ["!\n", "\n  ", "1234", "\u2028"]
HALVES = ["\ud83d", "\ude42", "\udcff"]  # of surrogate pairs
texts = st.lists(st.sampled_from([*SCRAPS, *SPECIALS]) | st.text(max_size=5)).map("".join)
broken = st.lists(st.sampled_from([*SCRAPS, *HALVES])).map("".join)
settings.register_profile("labs", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("labs")


# Properties for any text.


@given(st.binary(max_size=200))
@example(bytes(range(256)))
@example(b"\xed\xa0\x80 \xf0\x9f\x99 \xc3")
def test_every_byte_string_survives(data):
    assert b"".join(BPE.pieces(data)) == data


@given(texts)
def test_every_text_survives(text):
    assert BPE.decode(BPE.encode(text)) == text
    assert CHAT.decode(CHAT.encode(text, SPECIALS)) == text
    assert SIMPLE.decode(SIMPLE.encode(text)) == text


@given(texts)
def test_the_fast_tokenizer_gives_the_ids_of_the_readable_one(text):
    assert CHAT.encode(text) == SIMPLE.encode(text)
    assert CHAT.encode(text, SPECIALS) == SIMPLE.encode(text, SPECIALS)


@given(texts)
@example("<|end|>!<|end|>")
def test_plain_text_never_becomes_special_and_allowed_names_do(text):
    special = set(CHAT.specials.values())
    assert not special & set(CHAT.encode(text))
    names = text.count("<|start|>") + text.count("<|end|>")  # the third begins with the second
    assert sum(i in special for i in CHAT.encode(text, SPECIALS)) == names


@given(texts, st.integers(0, 2**32))
@example("foo\n  \n bar", 1)
def test_a_stream_gives_the_ids_of_the_joined_text_for_any_cuts(text, seed):
    data = text.encode()
    cuts = sorted(random.Random(seed).choices(range(len(data) + 1), k=9))
    chunks = [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]
    for bpe in (BPE, GPT4):
        assert list(fast.encode_stream(bpe.encode, chunks, bpe.split)) == bpe.encode(text)


@given(st.binary(max_size=60))
def test_a_stream_of_broken_bytes_gives_the_ids_of_the_joined_bytes(data):
    chunks = [bytes([byte]) for byte in data]
    assert list(fast.encode_stream(BPE.encode, chunks)) == BPE.encode(data)


@given(texts)
def test_stretches_never_cut_a_word(text):
    for split in (fast.GPT2, fast.GPT4):
        stretches = split.stretch.findall(text)
        assert "".join(stretches) == text
        words = [word for part in stretches for word in split.word.findall(part)]
        assert words == split.word.findall(text)


@given(texts, st.sampled_from("aé漢"), st.sampled_from("\n\r"), texts)
def test_gpt4s_pattern_cuts_line_ends_from_a_letter_but_not_from_a_sign(left, letter, end, right):
    words = fast.GPT4.word.findall
    assert words(left + letter + end + right) == words(left + letter) + words(end + right)
    assert words(f"end!{end}") == ["end", f"!{end}"]


@given(texts)
def test_the_libraries_give_the_same_ids(text):
    ids = BPE.encode(text)
    assert LIBRARIES[0].encode(text).ids == ids
    assert LIBRARIES[1].encode_ordinary(text) == ids
    assert LIBRARIES[2].encode_ordinary(text) == GPT4.encode(text)


@given(broken)
def test_halves_of_surrogate_pairs_get_tiktokens_ids(text):
    assert LIBRARIES[1].encode_ordinary(text) == BPE.encode(text)
    assert LIBRARIES[2].encode_ordinary(text) == GPT4.encode(text)


LIBRARIES = (
    vocabularies.in_tokenizers(MERGES),
    vocabularies.in_tiktoken(BPE.tokens, fast.GPT2.words),
    vocabularies.in_tiktoken(BPE.tokens, fast.GPT4.words),
)


@given(st.dictionaries(st.text(alphabet="ab é", min_size=1, max_size=9), st.integers(1, 4)))
@example({"aaaa": 1, "aaa": 2, "aa": 1})
@example({"abab": 1, "babab": 1})
def test_incremental_training_makes_the_simple_merges_under_each_tie_rule(words):
    simple = lab.train({word.encode(): count for word, count in words.items()}, 12)
    assert fast.train(words, 12) == simple
    for tie in (fast.smallest_ids, fast.greatest_bytes):
        assert fast.train(words, 12, tie) == fast.train_round_by_round(words, 12, tie)


@given(st.dictionaries(st.text(alphabet="ab é", min_size=1, max_size=9), st.integers(1, 3)))
def test_training_makes_the_merges_of_tokenizers(words):
    raw = Counter({word.encode(): count for word, count in words.items()})
    assert fast.train(words, 12) == vocabularies.train_by_tokenizers(raw, 256 + 12)


@given(st.text(alphabet="the aoi", max_size=200))
def test_a_long_word_gets_the_ids_of_the_simple_encoder(word):
    data = word.encode()
    assert fast.encode_long_word(data, BPE.merge_ids) == lab.encode_word(data, BPE.merge_ids)


# Parts with hostile results, and unusual input.


def refuses(*_arguments):
    raise RuntimeError("no")


HOSTILE = [lambda *_: None, lambda *_: 0, lambda *_: float("nan"), lambda *_: [None], refuses]
HOSTILE += [lambda *_: "", lambda *_: b"", lambda *_: (None, None), lambda *_: iter(())]
HOSTILE += [lambda *arguments: arguments[0], lambda: None, lambda *_: [np.arange(2)]]
HOSTILE += [lambda *_: (np.arange(3), np.arange(2)), lambda *_: [float("nan")] * 3]


PARTS = [(module.lab.lesson, part) for module in (lab, fast) for part in module.lab.exercises]


@pytest.mark.parametrize(("lesson", "part"), PARTS, ids=[part for _, part in PARTS])
@pytest.mark.parametrize("wrong", range(len(HOSTILE)))
def test_a_hostile_result_is_a_mistake_and_no_other_error(lesson, part, wrong):
    with pytest.raises(Mistake):
        check_wrong(lesson, part, HOSTILE[wrong])


def test_training_ends_when_every_word_is_one_token():
    assert fast.train({"ab": 2, "c": 9}, 50) == [(97, 98)]
    assert fast.train({}, 5) == []


def test_the_words_in_the_text_merge_as_it_says():
    words = lab.count_words("low low lower")
    tokens = lab.vocabulary(lab.train(words, 3))
    assert tokens[256:] == [b"lo", b"low", b" low"]


def test_the_tie_rule_of_cs336_takes_the_greatest_bytes():
    words = {"ab": 2, "ba": 2, "b": 1}
    assert fast.train(words, 1) == [(97, 98)]
    assert fast.train(words, 1, fast.greatest_bytes) == [(98, 97)]


def test_the_count_of_a_pair_that_exists_never_rises():
    """The heap relies on this: no count rises from one merge to the next."""
    words = [list(word) for word in lab.count_words(TEXT[:4000])]
    known = {}
    merges = lab.train({bytes(word): 1 for word in words}, 100)
    for i, pair in enumerate(merges):
        counts = Counter(neighbours for ids in words for neighbours in pairwise(ids))
        for neighbours, count in counts.items():
            assert count <= known.get(neighbours, count)
        known = dict(counts)
        words = [lab.merge(ids, pair, 256 + i) for ids in words]


def test_a_word_of_a_million_letters_survives():
    word = "theshe" * 170_000
    assert BPE.decode(BPE.encode(word)) == word
    assert not BPE.cache or max(map(len, BPE.cache)) <= caching.REMEMBERED


def test_the_cache_has_a_limit():
    small = fast.BPE(MERGES, cache=10)
    assert small.encode(TEXT[:5000]) == BPE.encode(TEXT[:5000])
    assert len(small.cache) <= 10


def test_a_saved_tokenizer_gives_the_same_ids(tmp_path):
    path = tmp_path / "tokenizer.json"
    saved = fast.BPE(MERGES[:300], fast.GPT4, SPECIALS)
    saved.save(path)
    loaded = fast.BPE.load(path)
    text = "We'LL see 123456 <|end|>\n"
    assert loaded.encode(text, SPECIALS) == saved.encode(text, SPECIALS)
    assert (loaded.split, loaded.specials) == (saved.split, saved.specials)


@pytest.mark.parametrize("text", ["[]", "{}", '{"merges": 1, "split": {}, "specials": []}', "x"])
def test_a_file_that_holds_no_tokenizer_is_a_value_error(tmp_path, text):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        fast.BPE.load(path)


def test_a_merge_of_ids_that_do_not_exist_is_a_value_error():
    with pytest.raises(ValueError, match="merge 1 uses an id"):
        fast.BPE([(97, 98), (256, 257)])


def test_specials_are_respected_in_training():
    words = fast.count_words("ab<|end|>ab", specials=["<|end|>"])
    assert words == {"ab": 2}


@pytest.mark.parametrize("room", [1, 7, 24, 25, 100])
def test_truncation_equals_that_of_tokenizers(room):
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(room, strategy="longest_first")
    for a in range(0, 30, 3):
        for b in range(0, 30, 4):
            kinds = tokenizer.encode("a " * a, "a " * b).type_ids
            first, second = fast.truncate_pair([0] * a, [0] * b, room)
            assert [0] * len(first) + [1] * len(second) == kinds


def test_tiktoken_raises_an_error_for_a_name_in_plain_text():
    ranks = {bytes([byte]): byte for byte in range(256)}
    names = {"<|end|>": 256}
    encoding = tiktoken.Encoding("t", pat_str=".", mergeable_ranks=ranks, special_tokens=names)
    with pytest.raises(ValueError, match="disallowed special token"):
        encoding.encode("a<|end|>")
    assert encoding.encode("<|end|>", allowed_special="all") == [256]


# Functions that the measurements use.


def test_frequency_bits_follow_from_the_frequencies():
    bytes_alone = fast.BPE([])
    bits = fast.frequency_bits(bytes_alone, "a" * 256, "a")  # (256 + 1) of (256 + 256)
    assert bits == pytest.approx(-math.log2(257 / 512))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=300))
def test_length_groups_hold_every_text_once_by_length_within_twelve(lengths):
    order = fast.length_groups(lengths, 4, 3)
    for start in range(0, len(lengths), 12):
        group = order[start : start + 12]
        assert sorted(group) == [*range(start, min(start + 12, len(lengths)))]
        assert [lengths[i] for i in group] == sorted(lengths[start : start + 12])


def test_a_price_is_the_product_of_its_factors():
    pieces = vocabularies.real()[0].pieces
    thai = vocabularies.paragraphs()["Thai"]
    english = vocabularies.paragraphs()["English"]
    words = vocabularies.words_relative_to_english(lab.WORD)["Thai"]
    per_word = vocabularies.tokens_per_word(pieces, lab.WORD, "Thai")
    per_english_word = vocabularies.tokens_per_word(pieces, lab.WORD, "English")
    for i, pair in enumerate(zip(thai, english, strict=True)):
        product = words[i] * per_word[i] / per_english_word[i]
        assert vocabularies.price(pieces, *pair) == pytest.approx(product)


def test_words_without_signs_are_those_of_a_pattern_with_signs_as_letters():
    pattern = lab.WORD.pattern.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+")
    letters = regex.compile(pattern.replace(r"\s\p{L}", r"\s\p{L}\p{M}"))
    for language in vocabularies.paragraphs():
        bare = vocabularies.words_in(language, lab.WORD, signs=False)
        assert bare == vocabularies.words_in(language, letters)
    assert len(lab.WORD.findall("हिन्दी")) == 6


def test_only_a_pattern_with_signs_as_letters_joins_the_words_of_hindi():
    smollm2, *_, tekken = (vocabulary.pieces for vocabulary in vocabularies.real())
    for language in vocabularies.paragraphs():
        assert min(vocabularies.tokens_per_word(smollm2, lab.WORD, language)) >= 1
    assert max(vocabularies.tokens_per_word(tekken, lab.WORD, "Hindi")) < 1


def test_base64_is_no_long_word_and_dna_uses_about_25_merges():
    data = base64.b64encode(random.Random(0).randbytes(75_000)).decode()
    assert max(map(len, lab.WORD.findall(data))) <= 200  # a run of 200 has a chance of 1e-18
    pieces = vocabularies.real()[0].pieces
    for length in (1000, 10_000):
        dna = "".join(random.Random(0).choices("ACGT", k=length))
        assert 23 <= len({*pieces(dna)} - {b"A", b"C", b"G", b"T"}) <= 27


def test_the_digits_after_a_space_are_the_tokens_in_the_text():
    assert vocabularies.real()[0].pieces("in 2024") == [b"in", b" ", b"2", b"0", b"2", b"4"]


def test_the_cents_in_the_text_are_those_of_the_table():
    _, rows = vocabularies.table_of_prices(vocabularies.prices())
    columns = dict(zip(vocabularies.prices(), rows[1][1:], strict=True))
    tokens = [int(columns[name].replace(",", "")) for name in ("SmolLM2", "AI21 J2", "Tekken")]
    assert [f"{count / 1000:.1f}" for count in tokens] == ["1.9", "1.6", "0.6"]
    assert "find 1.9, 1.6 and 0.6 cents" in inspect.getsource(lab)


def test_the_drawing_of_a_long_word_shows_what_the_encoder_does():
    """Compare it with the encoder's variables each time the loop begins, and at the end."""
    merge_ids = {pair: 256 + i for i, pair in enumerate(deeper_figures.LOWER_MERGES)}
    seen = []
    lines, first = inspect.getsourcelines(fast.encode_long_word)
    loop = first + next(i for i, line in enumerate(lines) if line.strip() == "while heap:")

    def trace(frame, event, _argument):
        if frame.f_code is not fast.encode_long_word.__code__:
            return None
        if event == "line" and frame.f_lineno == loop:
            values = frame.f_locals
            waiting = {k: [*v] for k, v in values["buckets"].items()}
            seen.append(([*values["ids"][:-1]], [*values["begin"]], waiting))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        ids = fast.encode_long_word(deeper_figures.LOWER, merge_ids)
    finally:
        sys.settrace(before)
    assert seen == [tuple(step) for _, *step in deeper_figures.LOWER_STEPS]
    assert ids == [i for i in deeper_figures.LOWER_STEPS[-1][1] if i >= 0] == [256, 258]


@given(st.binary(min_size=1, max_size=99), st.integers(1, 9))
def test_joined_chunks_are_the_data(data, most):
    chunks = streams.cut_anywhere(data, most, random.Random(0))
    assert b"".join(chunks) == data
    assert all(1 <= len(chunk) <= most for chunk in chunks)


def test_differing_counts_different_and_missing_places_once():
    assert vocabularies.differing([1, 2, 3], [1, 9, 3, 4]) == 2


def test_each_expected_word_is_a_single_token_with_and_without_its_space():
    tokenizer = vocabularies.smollm2()[0]
    for _, word in smollm2_tasks.FACTS:
        assert len(tokenizer.encode(word).ids) == len(tokenizer.encode(f" {word}").ids) == 1, word


def test_each_word_of_the_spelling_task_is_a_single_token():
    tokenizer = vocabularies.smollm2()[0]
    assert len(set(smollm2_tasks.WORDS)) == len(smollm2_tasks.WORDS) == 40
    for word in smollm2_tasks.WORDS:
        assert len(tokenizer.encode(f" {word}").ids) == 1


def test_gpt4s_pattern_is_tiktokens():
    assert fast.GPT4.words in inspect.getsource(openai_public.cl100k_base)


@pytest.mark.parametrize("sitting", [lab, fast])
def test_no_code_in_the_text_depends_on_a_space_that_browsers_drop(sitting):
    lines = [line for line in inspect.getsource(sitting).splitlines() if line.startswith("#")]
    text = " ".join(line.removeprefix("#").strip() for line in lines)
    text = re.sub("```.*?```", "", text)  # blocks keep their spaces
    for code in re.findall("`([^`]+)`", text):
        assert code == " ".join(code.split()), code
