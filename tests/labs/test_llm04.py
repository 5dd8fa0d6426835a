"""LLM04: properties for any text, parts on hostile input, and what the lab says of libraries."""

import codecs
import random
from collections import Counter
from itertools import pairwise

from labs.kit import Mistake, assets
from labs.llm04_tokenization import lesson as lab
from labs.llm04_tokenization import vocabularies
from tests.labs.solutions import check_wrong

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

TEXT = assets.shakespeare()[:150_000]
MERGES = lab.train(lab.count_words(TEXT + "naïve café 漢字 漢字 бабушка бабушка"), 1500)
BPE = lab.BPE(MERGES)
SPECIALS = ["<|start|>", "<|end|>", "<|end|>!"]
CHAT = lab.ChatBPE(MERGES[:300], SPECIALS)
# Every kind of character that the pattern distinguishes, and texts that are easily cut wrongly.
SCRAPS = [*"aZ9 \n\t'.|<>é漢🙂", "'ll", "'s", "  ", " \n", "\u00a0", "\u0301", "\x1c", "²", "<|"]
texts = st.lists(st.sampled_from([*SCRAPS, *SPECIALS]) | st.text(max_size=5)).map("".join)
settings.register_profile("labs", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("labs")


def escaped(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# Properties for any text.


@given(st.binary(max_size=200))
@example(bytes(range(256)))
@example(b"\xed\xa0\x80 \xf0\x9f\x99 \xc3")
def test_every_byte_string_survives(data):
    assert b"".join(BPE.pieces(escaped(data))) == data


@given(texts)
def test_every_text_survives(text):
    assert BPE.decode(BPE.encode(text)) == text
    assert CHAT.decode(CHAT.encode(text, SPECIALS)) == text


@given(texts)
@example("<|end|>!<|end|>")
def test_plain_text_never_becomes_special_and_allowed_names_do(text):
    special = set(CHAT.specials.values())
    assert not special & set(CHAT.encode(text))
    names = text.count("<|start|>") + text.count("<|end|>")  # the third begins with the second
    assert sum(i in special for i in CHAT.encode(text, SPECIALS)) == names


@given(texts, st.integers(0, 2**32))
def test_a_stream_gives_the_ids_of_the_joined_text_for_any_cuts(text, seed):
    data = lab.to_bytes(text)
    cuts = sorted(random.Random(seed).choices(range(len(data) + 1), k=9))
    chunks = [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]
    assert list(lab.encode_stream(BPE.encode, chunks)) == BPE.encode(text)


@given(st.binary(max_size=60))
def test_a_stream_of_broken_bytes_gives_the_ids_of_the_joined_bytes(data):
    chunks = [bytes([byte]) for byte in data]
    assert list(lab.encode_stream(BPE.encode, chunks)) == BPE.encode(escaped(data))


@given(texts)
def test_stretches_never_cut_a_word(text):
    words = [word for part in lab.STRETCH.findall(text) for word in lab.WORD.findall(part)]
    assert words == lab.WORD.findall(text)


@given(texts)
def test_the_libraries_give_the_same_ids(text):
    ids = BPE.encode(text)
    assert LIBRARIES[0].encode(text).ids == ids
    assert LIBRARIES[1].encode_ordinary(text) == ids


LIBRARIES = vocabularies.in_tokenizers(MERGES), lab.in_tiktoken(BPE)


@given(st.dictionaries(st.text(alphabet="ab é", min_size=1, max_size=9), st.integers(1, 4)))
@example({"aaaa": 1, "aaa": 2, "aa": 1})
@example({"abab": 1, "babab": 1})
def test_incremental_training_makes_the_naive_merges(words):
    assert lab.train(words, 12) == lab.train_naively(words, 12)


@given(st.dictionaries(st.text(alphabet="ab é", min_size=1, max_size=9), st.integers(1, 3)))
def test_training_makes_the_merges_of_tokenizers(words):
    spelled = [lab.to_bytes(word) for word, count in words.items() for _ in range(count)]
    theirs = vocabularies.merges_by_tokenizers(spelled, 256 + 12)
    merges = lab.train(words, 12)
    tokens = lab.vocabulary(merges)
    assert [(tokens[a], tokens[b]) for a, b in merges] == theirs


# Parts with hostile results, and unusual input.


def refuses(*_arguments):
    raise RuntimeError("no")


HOSTILE = [lambda *_: None, lambda *_: 0, lambda *_: float("nan"), lambda *_: [None], refuses]
HOSTILE += [lambda *_: "", lambda *_: b"", lambda *_: (None, None), lambda *_: iter(())]
HOSTILE += [lambda *arguments: arguments[0], lambda: None, lambda *_: [np.arange(2)]]
HOSTILE += [lambda *_: (np.arange(3), np.arange(2)), lambda *_: [float("nan")] * 3]


@pytest.mark.parametrize("part", lab.lab.exercises)
@pytest.mark.parametrize("wrong", range(len(HOSTILE)))
def test_a_hostile_result_is_a_mistake_and_no_other_error(part, wrong):
    with pytest.raises(Mistake):
        check_wrong(lab.lab.lesson, part, HOSTILE[wrong])


def test_training_ends_when_every_word_is_one_token():
    assert (
        lab.train({"ab": 2, "c": 9}, 50) == lab.train_naively({"ab": 2, "c": 9}, 50) == [(97, 98)]
    )
    assert lab.train({}, 5) == []


def test_the_words_in_the_text_merge_as_it_says():
    words = lab.count_words("low low lower")
    tokens = lab.vocabulary(lab.train(words, 3))
    assert tokens[256:] == [b"lo", b"low", b" low"]
    counts = {(108, 111): 3, (111, 119): 3, (32, 108): 2}
    assert lab.best_pair(counts) == (108, 111)


def test_the_count_of_a_pair_that_exists_never_rises():
    """The heap relies on this: no count rises from one merge to the next."""
    words = [list(lab.to_bytes(word)) for word in lab.count_words(TEXT[:4000])]
    known = {}
    for i, pair in enumerate(lab.train(Counter(map(bytes.decode, map(bytes, words))), 100)):
        counts = Counter(neighbours for ids in words for neighbours in pairwise(ids))
        for neighbours, count in counts.items():
            assert count <= known.get(neighbours, count)
        known = dict(counts)
        words = [lab.merge(ids, pair, 256 + i) for ids in words]


def test_a_word_of_60_000_letters_survives():
    """Merging everywhere at once takes one pass for each different merge, at most."""
    assert BPE.decode(BPE.encode("the" * 20_000)) == "the" * 20_000


def test_the_table_of_stretches_has_a_limit():
    assert BPE.ids_of.cache_info().maxsize == 100_000


@pytest.mark.parametrize("room", [0, 1, 7, 24, 25, 100])
def test_truncation_differs_from_tokenizers_only_in_the_last_place_of_an_odd_room(room):
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(room, strategy="longest_first")
    for a in range(0, 30, 3):
        for b in range(0, 30, 4):
            kinds = tokenizer.encode("a " * a, "a " * b).type_ids
            first, second = lab.truncate_pair([0] * a, [0] * b, room)
            assert len(first) + len(second) == min(a + b, room) == len(kinds)
            odd = room % 2 == 1 and min(a, b) > room // 2  # the longer text gets its last place
            assert len(first) - kinds.count(0) == (odd and a <= b)


def test_tiktoken_raises_an_error_for_a_name_in_plain_text():
    ranks = {bytes([byte]): byte for byte in range(256)}
    names = {"<|end|>": 256}
    encoding = tiktoken.Encoding("t", pat_str=".", mergeable_ranks=ranks, special_tokens=names)
    with pytest.raises(ValueError, match="disallowed special token"):
        encoding.encode("a<|end|>")
    assert encoding.encode("<|end|>", allowed_special="all") == [256]


# Functions that the measurements use.


def test_utf8_by_hand_at_the_limits_of_every_length():
    for code in (0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF):
        assert lab.utf8(code) == chr(code).encode()


def test_longest_first_takes_the_longest_token():
    assert lab.longest_first(b"abcab", {b"a", b"b", b"c", b"ab", b"bca"}) == [b"ab", b"c", b"ab"]


def test_unigram_bits_follow_from_the_frequencies():
    bytes_alone = lab.BPE([])
    bits = lab.unigram_bits(bytes_alone, "a" * 256, "a")  # (256 + 1) of (256 + 256)
    assert bits == pytest.approx(-lab.math.log2(257 / 512))


def test_waste_is_the_share_of_padding_in_the_rectangle():
    assert lab.waste([[1, 3], [2, 2]]) == pytest.approx(1 - 8 / 10)
    assert lab.batches([1, 2, 3], 2) == [[1, 2], [3]]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=300))
def test_sorted_batches_waste_at_most_a_batch_of_the_longest(lengths):
    found = lab.batches(sorted(lengths), 8)
    padding = sum(len(batch) * max(batch) for batch in found) - sum(lengths)
    assert padding <= 8 * max(lengths)


@given(st.binary(min_size=1, max_size=99), st.integers(1, 9))
def test_joined_chunks_are_the_data(data, most):
    random.seed(0)
    chunks = lab.cut_anywhere(data, most)
    assert b"".join(chunks) == data
    assert all(1 <= len(chunk) <= most for chunk in chunks)


def test_differing_counts_different_and_missing_places_once():
    assert lab.differing([1, 2, 3], [1, 9, 3, 4]) == 2


def test_an_incremental_decoder_keeps_broken_bytes_like_one_call():
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    data = b"a\xe6\xbc b\xff\xf0\x9f"
    decoded = "".join(decoder.decode(bytes([byte])) for byte in data)
    assert decoded + decoder.decode(b"", True) == escaped(data)
