# %% [markdown]
# # LLM04+ · Tokenization, deeper
# The same tokenizer, fast enough to use: training, long words, streams, packing, other families.
#
# **You will be able to** train a vocabulary on a megabyte of text in seconds; explain how a word of
# 100,000 letters is encoded in nearly linear time; encode a text that arrives in pieces; compare
# BPE, WordPiece and Unigram; batch texts with little padding. **Builds on** LLM04, whose functions
# are the specification. **Takes** an hour to read, a minute to run (`tiny`, 2 cores).

# %% Imports
import codecs
import heapq
import inspect
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import chain, pairwise
from operator import add
from pathlib import Path
from statistics import median
from typing import Any

from labs.kit import Lab, Results, Run, assets, seconds, seconds_paired
from labs.llm04_tokenization import deeper_figures as figures
from labs.llm04_tokenization import (
    families,
    padding,
    size_figures,
    smollm2_tasks,
    streams,
    timing,
    vocabularies,
)
from labs.llm04_tokenization.caching import Cache
from labs.llm04_tokenization.figures import show
from labs.llm04_tokenization.lesson import (
    WORD,
    Pair,
    count_pairs,
    decode,
    encode_word,
    merge,
    split_specials,
    steps,
    vocabulary,
)
from labs.llm04_tokenization.patterns import Split, clean, raw
from labs.llm04_tokenization.vocabularies import differing

lab = Lab("LLM04+")

# %% [markdown]
# ## 1. Two rules of training
# A text and a number of merges don't define a vocabulary. Training needs two more rules, and
# libraries differ in both. Encoding needs the merges and the first rule.
#
# **The split pattern** cuts text into words. GPT-2's keeps a run of digits together. GPT-4's cuts
# digits in groups of three from the left, lets a sign such as `(` begin a word of letters, and
# ignores case in `'LL`. In the code, `split.word.findall(text)` returns the words. Section 4
# explains `split.stretch`, `clean` and `raw`. Until then, read `clean(text)` as `text`, and
# `raw(text)` as `text.encode()`.
#
# **The tie rule** decides between pairs of equal count. Stanford's course CS336 takes the pair with
# the greatest bytes; `tokenizers` takes the smallest ids, as LLM04 does. But its ids follow the
# characters by which it writes bytes. It usually writes a space as Ġ, which comes after z. So a
# pair that begins with a space loses ties that it wins with us. For our comparisons we write byte
# 32 as character 32, and so on. Then its ids are ours, and ties fall as ours do.


# %% 1. Split patterns and tie rules
GPT2 = Split(WORD.pattern, r"\s*\S+|\s+")
GPT4 = Split(  # cl100k_base; `++` is a faster `+` that never gives back what it took
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    r"\s*\S+(?:[\r\n]\s*\S*)*|\s+",
)
Tie = Callable[[Pair, list[bytes]], Any]  # the pair with the smallest key wins


def smallest_ids(pair: Pair, tokens: list[bytes]) -> Pair:
    """Return the key of LLM04's rule."""
    del tokens
    return pair


def greatest_bytes(pair: Pair, tokens: list[bytes]) -> tuple[tuple[int, ...], ...]:
    """Return the key of CS336's rule: the pair whose bytes are the greatest comes first."""
    # Negated, greater bytes are smaller; a final 1 puts a longer token before its beginning.
    return tuple((*(-byte for byte in tokens[i]), 1) for i in pair)


def count_words(text: str, split: Split = GPT2, specials: Iterable[str] = ()) -> Counter[str]:
    """Count the words of a text. Special names are cut out: no merge learns a part of one."""
    counts: Counter[str] = Counter()
    for piece, special in split_specials(clean(text), specials):
        if not special:
            counts.update(split.word.findall(piece))
    return counts


def train_round_by_round(words: dict[str, int], merges: int, tie: Tie) -> list[Pair]:
    """Learn merges as LLM04's `train` does, with any tie rule."""
    spelled = [(list(raw(word)), frequency) for word, frequency in words.items()]
    tokens = vocabulary([])
    learned: list[Pair] = []
    while len(learned) < merges and (counts := count_pairs(spelled)):
        most = max(counts.values())
        ties = [pair for pair, count in counts.items() if count == most]
        pair = min((tie(pair, tokens), pair) for pair in ties)[1]
        spelled = [(merge(ids, pair, len(tokens)), frequency) for ids, frequency in spelled]
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        learned.append(pair)
    return learned


# %% [markdown]
# ## 2. Training that touches only what changes
# LLM04's trainer counts every pair again after each merge. But a merge changes only the words that
# contain its pair, and there only the pairs beside it. So store for each pair its count and a list
# of the words in which it occurs. After a merge, correct the counts and add the new pairs. A word
# may stay on the list of a pair that it has lost: merging there changes nothing. Take the word
# `xababy`, and merge (a, b) into N. The pairs (x, a), (b, a) and (b, y) each lose one occurrence;
# (x, N), (N, N) and (N, y) are new. Two more ideas make it fast.
#
# - A **heap** returns its smallest entry without a search. Our entries begin with −count, so the
#   most frequent pair comes first; the tie rule's key decides between equal counts. After a merge,
#   each new pair gets an entry. The count of an older pair can fall, but never rise: a merge never
#   makes two older tokens neighbours. So an entry's count is never too low. If the top entry's
#   count is still right, no other pair has more. If not, push the pair back with its present count.
# - String methods are faster than Python's loops. Write a word as a **string with one character for
#   each token**, `chr(id)`. Then `split` finds all places of a pair, from left to right.


# %% 2. The incremental trainer
@lab.exercise(
    level=2,
    hints=(
        "word.split(pair) returns what stands between the places of the pair. What joins it again?",
        "A place changes the pair to its left and the one to its right. Two places side by side "
        "share a pair: the word loses (b, a) once and gains (N, N) once.",
        "A slower way works, too: count the pairs of the word before and after, and subtract one "
        "Counter from the other. A Counter's difference has positive counts only.",
    ),
)
def merge_word(word: str, pair: str, new: str) -> tuple[str, list[str], list[str]]:
    """Merge a pair in a word; return the merged word, the pairs it loses and those it gains.

    A word is a string with one character for each token, and `new` is a character that it doesn't
    have. A pair that is lost or gained twice is listed twice. `pair` itself need not be listed.
    """
    a, b = pair
    parts = word.split(pair)
    lost = []
    gained = []
    old_left = new_left = parts[0][-1:]  # the left neighbour, before and after this merge
    for right in parts[1:]:
        if old_left:
            lost.append(old_left + a)
            gained.append(new_left + new)
        if right:
            lost.append(b + right[0])
            gained.append(new + right[0])
            old_left = new_left = right[-1]
        else:
            old_left = b
            new_left = new
    return new.join(parts), lost, gained


def train(words: dict[str, int], merges: int, tie: Tie = smallest_ids) -> list[Pair]:
    """Learn at most `merges` merges from words and frequencies; the i-th makes the id 256 + i."""
    spelled = [raw(word).decode("latin-1") for word in words]  # a byte, a character, a token
    frequencies = list(words.values())
    tokens = vocabulary([])
    counts: defaultdict[str, int] = defaultdict(int)
    where: defaultdict[str, list[int]] = defaultdict(list)  # the words in which a pair occurs
    for i, word in enumerate(spelled):
        for pair in map(add, word, word[1:]):
            counts[pair] += frequencies[i]
            where[pair].append(i)

    def entry(pair: str) -> tuple[int, Any, str]:
        # strings compare as their ids do
        key = pair if tie is smallest_ids else tie((ord(pair[0]), ord(pair[1])), tokens)
        return -counts[pair], key, pair

    heap = [entry(pair) for pair in counts]
    heapq.heapify(heap)
    learned: list[Pair] = []
    while len(learned) < merges and heap:
        count, key, pair = heapq.heappop(heap)
        if -count != counts[pair]:  # out of date: it has fallen since
            if counts[pair]:
                heapq.heappush(heap, (-counts[pair], key, pair))
            continue
        a, b = map(ord, pair)
        new = chr(len(tokens))
        learned.append((a, b))
        tokens.append(tokens[a] + tokens[b])
        fresh_pairs: set[str] = set()
        for i in where.pop(pair):
            spelled[i], lost, gained = merge_word(spelled[i], pair, new)
            for old in lost:
                counts[old] -= frequencies[i]
            for fresh in gained:
                counts[fresh] += frequencies[i]
                where[fresh].append(i)
            fresh_pairs.update(gained)
        counts[pair] = 0
        for fresh in fresh_pairs:
            heapq.heappush(heap, entry(fresh))
    return learned


@cache
def shakespeare(run: Run) -> tuple[str, str]:
    """Return plays to train on, and the last 0.5 MB, unseen."""
    text = assets.shakespeare()
    seen = text[:-500_000]
    return seen[: run.pick(tiny=1_200_000, small=len(seen), full=len(seen))], text[-500_000:]


@cache
def trained(run: Run) -> list[Pair]:
    """Return as many merges of the plays as the largest vocabulary of this run needs."""
    size = run.pick(tiny=8192, small=16384, full=32768)
    return train(count_words(shakespeare(run)[0]), size - 256)


@lab.experiment
def the_incremental_trainer_makes_the_same_merges(run: Run):
    """The incremental trainer makes the merges of the simple one, under both tie rules, and faster.

    Predict: how many times faster, for 256 merges?
    """
    words = count_words(shakespeare(run)[0][: run.pick(tiny=40_000, small=150_000, full=600_000)])
    learned = {}
    slow = {}
    for tie in (smallest_ids, greatest_bytes):
        learned[tie] = train(words, 256, tie)
        simple, slow[tie] = timing.timed(partial(train_round_by_round, words, 256, tie))
        name = f"{tie.__name__}: merges that differ, of 256"
        run.check(name, differing(learned[tie], simple), equals=0, decides=True)
    because = "ties are frequent among rare pairs"
    different = differing(*learned.values())
    run.check("merges that differ between the two rules", different, at_least=1, because=because)
    fast = median(seconds(lambda: train(words, 256), repeats=5))
    ratio = slow[smallest_ids] / fast
    name = "time of the simple trainer ÷ time of the incremental one"
    because = "most merges change few of the words, and the others are skipped; 20 is our choice"
    run.measure(name, ratio, expect_at_least=20, because=because, timed=True, decides=True)
    seen = shakespeare(run)[0]
    size = len(trained(run))
    merges, ours = timing.timed(lambda: train(count_words(seen), size))
    spelled = Counter({raw(word): count for word, count in count_words(seen).items()})
    library_merges, library = timing.timed(
        lambda: vocabularies.train_by_tokenizers(spelled, 256 + len(merges))
    )
    name = f"tokenizers: merges that differ, of {len(merges):,}"
    run.check(name, differing(merges, library_merges), equals=0)
    name = f"seconds for {len(seen) / 1e6:.1f} MB and {len(merges):,} merges"
    run.measure(name, ours, expect_at_most=60, because="“in seconds”: under a minute", timed=True)
    run.measure("the same, tokenizers, which gets its words from Python", library, timed=True)
    show(run, "pairs", figures.changed_pairs(merge_word, "xababy", "ab", "N"))
    return (
        f"256 merges of {len(words):,} different words took {slow[smallest_ids]:.2f} s round by "
        f"round and {fast:.3f} s incrementally: {ratio:.0f} times as fast."
    )


# %% [markdown]
# ## 3. Long words
# LLM04's `encode_word` looks at every pair in every round, and each round applies one merge
# everywhere. So a word of $n$ bytes that uses $m$ different merges takes $m$ rounds, and its time
# grows like $nm$, written $O(nm)$. A word of English uses a few merges. But Chinese without commas,
# or an attack on your server, may be one word of 100,000 letters and use hundreds. A longer word
# uses more, up to all merges that its letters allow. DNA has four letters: a long sequence uses
# about 25 of SmolLM2's. Base64, bytes as text, is harmless: 12 of its 64 characters end a word.
#
# The remedy is to work in **buckets**; a drawing below the code shows them for `lower`. If the pair
# at a place has a merge, put the place into the bucket of the id that this merge makes. A heap
# holds the ids of the buckets. Take the smallest id, merge all its places from left to right, and
# add the new pairs to their buckets. The merge of a new pair makes a later id. So no place comes
# into a bucket after its turn. But a place may be out of date: in `aaa`, (a, a) has places 0 and 1,
# and the merge at 0 uses the a at 1. So check that both ids are still there.
#
# Two lists find the neighbours of a token without a search. `ids[i]` is the id of the token that
# begins at place i; its length leads to the next one. For a token that ends at place j, `begin[j]`
# is its first place. So the left neighbour of a token at i begins at `begin[i - 1]`.
#
# Each pair of neighbours is looked up once at the start. Each merge makes at most two new pairs,
# and leaves one token fewer. So a word of $n$ bytes takes fewer than $3n$ look-ups, whatever the
# vocabulary. The heap and the sorting add a logarithm, so the time is $O(n \log n)$: for 10
# times the letters, 10 to 12.5 times as long. If a longer word no longer fits the processor's
# cache, or the machine is busy, it may be more.


# %% 3. Encoding a long word
def encode_long_word(word: bytes, merge_ids: dict[Pair, int]) -> list[int]:
    """Return what `encode_word` returns, in O(n log n)."""
    buckets: defaultdict[int, list[int]] = defaultdict(list)  # new id -> places of its pair
    for place, new in enumerate(map(merge_ids.get, pairwise(word))):
        if new is not None:
            buckets[new].append(place)
    ids = [*word, -1]  # by the place where a token begins; −1: none begins here
    begin = [*range(len(word))]  # by the place where a token ends
    length = dict.fromkeys(range(256), 1)  # of a token, in bytes
    heap = [(new, word[places[0]], word[places[0] + 1]) for new, places in buckets.items()]
    heapq.heapify(heap)
    while heap:
        new, a, b = heapq.heappop(heap)
        length[new] = length[a] + length[b]
        for i in sorted(buckets.pop(new)):
            j = i + length[a]
            if ids[i] != a or ids[j] != b:
                continue  # an earlier merge took one of the two
            after = j + length[b]
            ids[i] = new
            ids[j] = -1
            begin[after - 1] = i
            pairs = [(i, (new, ids[after]))]
            if i > 0:
                before = begin[i - 1]
                pairs.append((before, (ids[before], new)))
            for place, pair in pairs:
                later = merge_ids.get(pair)
                if later is None:
                    continue
                if later not in buckets:
                    heapq.heappush(heap, (later, *pair))
                buckets[later].append(place)
    return [i for i in ids if i >= 0]


@lab.experiment
def buckets_give_the_same_ids_faster(run: Run):
    """For long words, buckets give the same ids faster, with under three look-ups per letter.

    Predict: for twice the letters, how many times as many pairs does the simple encoder look up?
    """
    merges = trained(run)
    merge_ids = {pair: 256 + i for i, pair in enumerate(merges)}
    letters = bytes(random.Random(run.seed).choices(b"etaoinshrdlu", k=100_000))
    words = [letters[:n] for n in (1, 2, 3, 50, 500, 1500)] + [b"a" * 1000, b"ab" * 500]
    different = sum(encode_long_word(w, merge_ids) != encode_word(w, merge_ids) for w in words)
    run.check(f"words with other ids, of {len(words)}", different, equals=0, decides=True)
    lengths = (1000, 10_000, 100_000)
    counts = [timing.look_ups(encode_long_word, letters[:n], merge_ids) for n in lengths]
    because = "proved above: under n pairs at the start, two for each of under n merges"
    name = "look-ups per letter in words of 1,000, 10,000 and 100,000 letters"
    run.check(name, counts, at_most=3, because=because, decides=True)
    simple = timing.look_ups(encode_word, letters[:1000], merge_ids)
    because = "every round looks up every pair, and a word of 1,000 letters takes over 20 rounds"
    run.check("the same round by round, 1,000 letters", simple, at_least=10, because=because)
    times = {"with buckets": encode_long_word, "round by round": encode_word}
    taken = timing.seconds_by_length(times, letters, (500, 1000, 2000, 5000, 10_000), merge_ids)
    slow, fast = taken["round by round"], taken["with buckets"]
    name = "10,000 letters: time round by round ÷ time with buckets"
    because = "over a hundred rounds; for each letter, buckets cost as much as a few of them"
    ratio = slow[10_000] / fast[10_000]
    run.measure(name, ratio, expect_at_least=10, because=because, timed=True, decides=True)
    text = letters.decode()
    openai = vocabularies.in_tiktoken(vocabulary(merges), WORD.pattern)
    same = encode_long_word(letters, merge_ids) == openai.encode_ordinary(text)
    run.check("tiktoken gives our ids", same, equals=True)
    call = partial(encode_long_word, letters, merge_ids)
    ours, library = seconds_paired(call, partial(openai.encode_ordinary, text), repeats=3)
    ratio = median(a / b for a, b in zip(ours, library, strict=True))
    name = "100,000 letters: our time ÷ tiktoken's"
    run.measure(name, ratio, because="Python's loops against compiled ones", timed=True)
    show(run, "steps", figures.long_word_steps(vocabulary(figures.LOWER_MERGES)))
    buckets = {"with buckets": encode_long_word}
    fast |= timing.seconds_by_length(buckets, letters, (100_000,), merge_ids)["with buckets"]
    show(run, "growth", size_figures.growth(taken))
    few, many = (timing.look_ups(encode_word, letters[:n], merge_ids) for n in (5000, 10_000))
    return (
        f"Round by round, each letter takes {few:.0f} look-ups in a word of 5,000 letters and "
        f"{many:.0f} in one of 10,000. So twice the letters take {2 * many / few:.1f} times as "
        f"many. With buckets, each takes {counts[0]:.1f} in a word of 1,000 letters and "
        f"{counts[-1]:.1f} in one of 100,000. With buckets, 100,000 letters take "
        f"{fast[100_000] / fast[10_000]:.0f} times the CPU time of 10,000."
    )


# %% [markdown]
# ## 4. The tokenizer
# The class below joins all parts: short words by string operations, long ones by buckets, special
# names as in LLM04. `save` writes merges, patterns and names, which define it completely.
#
# Texts repeat themselves, so a cache saves work: it remembers the ids of pieces. Which pieces? Take
# `I·don't··know`. GPT-2's pattern always cuts between a visible character and the whitespace after
# it. So `I`, `·don't` and `··know` can be encoded one by one, and no text around them changes their
# ids. Such a piece is a **stretch**: a part of a text at whose ends the pattern always cuts. These
# three hold one, two and two words. Their pattern is `\s*\S+|\s+`: whitespace with the visible
# characters after it, or whitespace at the end.
#
# GPT-4's pattern joins a sign with the line ends after it: `end!↵` is `end` and `!↵`. So its
# stretch goes on after a line end, by `(?:[\r\n]\s*\S*)*`. It ends only where a **blank**,
# whitespace that isn't a line end, follows a visible character. A drawing below shows an example.
#
# Python's strings can hold **surrogates**, code points D800 to DFFF. In UTF-16, two of them encode
# one character; UTF-8 can't encode them. tiktoken replaces a surrogate without its partner by �,
# and so does our `clean`.
#
# Our encoder also takes any bytes: its tokens, joined, are the same bytes. Here a surrogate stands
# for a byte that isn't UTF-8: with `errors="surrogateescape"`, Python reads the byte FF as the
# surrogate DCFF, and writes DCFF as FF again. `raw` writes bytes by this rule.


# %% 4. The tokenizer
# Timed: with 1,000 merges or more, buckets win from 20 to 30 bytes on; without any, not even at 64.
SHORT = 48  # bytes


class BPE:
    """Byte-level BPE: ids 0 to 255 are the bytes, then come the merges, then special tokens.

    Args:
        merges: pairs of ids; the i-th makes the id 256 + i.
        split: the patterns that cut the text.
        specials: names of special tokens.
        cache: the largest number of stretches whose ids are remembered.

    Raises:
        ValueError: if a merge uses an id that no earlier merge makes.
    """

    def __init__(
        self,
        merges: Iterable[Pair],
        split: Split = GPT2,
        specials: Iterable[str] = (),
        cache: int = 100_000,
    ):
        self.merges = [(a, b) for a, b in merges]
        for i, pair in enumerate(self.merges):
            if not 0 <= min(pair) <= max(pair) < 256 + i:
                raise ValueError(f"merge {i} uses an id that doesn't exist yet: {pair}")
        self.split = split
        self.tokens = vocabulary(self.merges)
        self.specials = {name: len(self.tokens) + i for i, name in enumerate(specials)}
        self.tokens += [name.encode() for name in self.specials]
        self.merge_ids = {pair: 256 + i for i, pair in enumerate(self.merges)}
        # The same with a character for each id, for short words.
        self._merge_chars = {chr(a) + chr(b): chr(i) for (a, b), i in self.merge_ids.items()}
        self.cache = Cache(self._encode_stretch, cache)

    def encode(self, text: str | bytes, allowed: Iterable[str] = ()) -> list[int]:
        """Return the ids of a text, or of bytes, which needn't be UTF-8.

        Only `allowed` names become special tokens.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        elif not text.isascii():
            text = clean(text)
        ids: list[int] = []
        for piece, special in split_specials(text, allowed):
            if special:
                ids.append(self.specials[piece])
            else:
                stretches = self.split.stretch.findall(piece)
                ids.extend(chain.from_iterable(map(self.cache.__getitem__, stretches)))
        return ids

    def _encode_stretch(self, stretch: str) -> tuple[int, ...]:
        ids: list[int] = []
        for word in self.split.word.findall(stretch):
            data = raw(word)
            if len(data) > SHORT:
                ids += encode_long_word(data, self.merge_ids)
            else:
                ids += map(ord, self._encode_short(data.decode("latin-1")))
        return tuple(ids)

    def _encode_short(self, spelled: str) -> str:
        """Return the tokens of a word, given as one character for each byte."""
        none = chr(0x10FFFF)  # later than every id
        while len(spelled) > 1:
            pairs = map(add, spelled, spelled[1:])
            pair = min(pairs, key=lambda pair: self._merge_chars.get(pair, none))
            if pair not in self._merge_chars:
                break
            spelled = spelled.replace(pair, self._merge_chars[pair])
        return spelled

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, with � for bytes that are no UTF-8."""
        return decode(ids, self.tokens)

    def pieces(self, text: str | bytes) -> list[bytes]:
        """Return the bytes of each token."""
        return [self.tokens[i] for i in self.encode(text)]

    def save(self, path: Path) -> None:
        """Write merges, patterns and special tokens as JSON."""
        data = {
            "split": {"words": self.split.words, "stretches": self.split.stretches},
            "specials": list(self.specials),
            "merges": self.merges,
        }
        path.write_text(json.dumps(data), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "BPE":
        """Read what `save` wrote.

        Raises:
            ValueError: if the file holds no tokenizer that `save` wrote.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(data["merges"], Split(**data["split"]), data["specials"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no tokenizer: {error!r}") from error


@lab.experiment
def patterns_surrogates_and_files_are_the_librarys(run: Run):
    """Under GPT-2's and GPT-4's patterns, tiktoken gives our ids for our texts, broken ones, too.

    Predict: what becomes of half an emoji?
    """
    languages = ["\n".join(texts) for texts in vocabularies.paragraphs().values()]
    broken = ["half \ud83d an emoji", "\ude42\ud83d", "a pair \ud83d\ude42!", "x\udcff y"]
    odd = ["We'LL see:\r\n\n  12345678 \t end!!\n\n x  ", "a\x1cb\x85c\u2028d", "  \n  \n"]
    texts = [*broken, *odd, *languages, shakespeare(run)[1][:50_000], inspect.getsource(heapq)]
    splits = {"GPT-2": GPT2, "GPT-4": GPT4}
    for name, split in splits.items():
        words = count_words(shakespeare(run)[0][:200_000] + "".join(languages), split)
        bpe = BPE(train(words, 1000), split)
        openai = vocabularies.in_tiktoken(bpe.tokens, split.words)
        different = sum(bpe.encode(text) != openai.encode_ordinary(text) for text in texts)
        title = f"{name}: texts where tiktoken's ids differ from ours, of {len(texts)}"
        run.check(title, different, equals=0, decides=True)
        path = run.folder / f"{name}.json"
        bpe.save(path)
        again = BPE.load(path)
        same = [again.encode(text) == bpe.encode(text) for text in texts]
        run.check(f"{name}: saved and loaded, the same ids", all(same), equals=True)
        path.unlink()
    generator = random.Random(run.seed)
    strings = [generator.randbytes(generator.randrange(64)) for _ in range(3000)]
    lost = sum(b"".join(bpe.pieces(data)) != data for data in strings)
    run.check(f"random byte strings that don't come back, of {len(strings):,}", lost, equals=0)
    names = ["<|im_end|>"]
    text = "low<|im_end|>\n" * 50
    merged = [vocabulary(train(count_words(text, GPT2, s), 20)) for s in ((), names)]
    inside = [sum(token in b"<|im_end|>" for token in tokens[256:]) for tokens in merged]
    run.check("learned tokens that are parts of `<|im_end|>`, as text", inside[0], at_least=1)
    run.check("learned tokens that are parts of `<|im_end|>`, as a special", inside[1], equals=0)
    show(run, "stretches", figures.stretches(splits, "I don't  know!\n\n OK (12345)."))
    back = bpe.decode(bpe.encode(broken[0]))
    return f"Half an emoji becomes �: {broken[0]!r} comes back as {back!r}."


# %% [markdown]
# ## 5. A stream
# A text may not fit into memory, or may be incomplete. It comes as **chunks of bytes**, cut
# anywhere: inside a word or a character. If you encode chunks one by one, the cuts show in the ids.
#
# What can be encoded early? All stretches but the last: later text can extend only the last one.
# Hold it back until more text comes. A chunk may also end inside a character. In Python,
# `codecs.getincrementaldecoder("utf-8")("surrogateescape")` makes a decoder that keeps the first
# bytes of such a character for the next chunk. After the last chunk, `decode(b"", final=True)`
# returns what the decoder still keeps.
#
# How much text may be held back? With GPT-2's pattern, about one line, if it has no blanks, as in
# Chinese or base64. With GPT-4's, our stretches cross line ends, so a text without blanks is held
# to its end. With each chunk, `findall` searches all the held text again: a long stretch in small
# chunks takes quadratic time.


# %% 5. A stream
@lab.exercise(
    level=3,
    hints=(
        "A chunk may end in a character: codecs.getincrementaldecoder('utf-8') waits for its end.",
        "The text so far ends in a stretch that may grow: hold it back, encode what is before it.",
        "For each chunk: stretch.findall(held + text) or [''], keep the last. In the end, what is "
        "held.",
    ),
)
def encode_stream(
    encode: Callable[[bytes], list[int]], chunks: Iterable[bytes], split: Split = GPT2
) -> Iterator[int]:
    """Yield the ids of the chunks' joined bytes as they come; hold back one stretch, no more.

    `encode` takes bytes. Bytes that aren't UTF-8 must arrive there unchanged: decode and encode
    with errors="surrogateescape".
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    held = ""
    for chunk in chunks:
        *ready, held = split.stretch.findall(held + decoder.decode(chunk)) or [""]
        yield from encode(raw("".join(ready)))
    yield from encode(raw(held + decoder.decode(b"", final=True)))


@lab.experiment
def a_stream_gives_the_same_ids(run: Run):
    """Cut at random, our text gives the same ids as a stream; at most a stretch and 3 bytes wait.

    Predict: if each byte is encoded alone, how many times as many ids come out?
    """
    generator = random.Random(run.seed)
    paragraphs = chain.from_iterable(vocabularies.paragraphs().values())
    text = "\n".join([shakespeare(run)[1][:60_000], *paragraphs])
    data = text.encode()
    waited = {}
    for name, split in (("GPT-2", GPT2), ("GPT-4", GPT4)):
        bpe = BPE(trained(run), split)
        ids = bpe.encode(text)
        different = []
        held_back = []
        for most in (1, 5, 100, 10_000):
            chunks = streams.cut_anywhere(data, most, generator)
            flow = streams.Flow()
            stream = encode_stream(bpe.encode, flow.count(chunks), split)
            different.append(differing(flow.collect(stream, bpe.tokens), ids))
            held_back.append(flow.held)
        because = "chunks of up to 1, 5, 100 and 10,000 bytes: no cut may show"
        run.check(f"{name}: ids that differ", different, at_most=0, because=because, decides=True)
        longest = max(len(stretch.encode()) for stretch in split.stretch.findall(text))
        because = f"the longest stretch, {longest} bytes, and three bytes of a character"
        title = f"{name}: most bytes held back"
        run.check(title, held_back, at_most=longest + 3, because=because, decides=True)
        waited[name] = max(held_back)
    alone = sum(len(bpe.encode(data[i : i + 1])) for i in range(len(data))) / len(ids)
    title = "ids if each byte is encoded alone ÷ ids of the text"
    run.measure(title, alone, because="a byte alone is one id: these are the bytes per token")
    pieces = ["I do", "n't k", "now the", " end"]
    show(run, "stream", figures.stream(pieces, GPT2.stretch.findall))
    return (
        f"Single bytes, each encoded alone, are {alone:.1f} times as many ids. At most "
        f"{waited['GPT-2']:,} bytes wait with GPT-2's pattern, {waited['GPT-4']:,} with GPT-4's."
    )


# %% [markdown]
# ## 6. How many ids?
# Each merge can only shorten a text. Does it make a better model, too? Losses per token can't show
# that, because tokens have different lengths. **Bits per byte** (Gao et al. 2020) can be compared.
# Over the tokens $t_i$ of a text they are
#
# $$\text{bits per byte} = -\frac{1}{\text{bytes}} \sum_i \log_2 p(t_i \mid t_1 \ldots t_{i-1})$$
#
# The simplest model ignores the tokens before and gives each token its frequency in training. We
# add one to each count, so that no token has probability 0. This **frequency model** gains from
# larger tokens: inside a token nothing is left to guess. A language model may gain less.
#
# The first merges of a large vocabulary are those of a small one. So one training makes all sizes.


# %% 6. Vocabulary and length
def frequency_bits(bpe: BPE, seen: str, new: str) -> float:
    """Return the bits per byte of `new` under the frequencies in `seen`, one added to each."""
    counts = Counter(bpe.encode(seen))
    total = counts.total() + len(bpe.tokens)
    bits = -sum(math.log2((counts[i] + 1) / total) for i in bpe.encode(new))
    return bits / len(new.encode())


@lab.experiment
def bytes_per_token_rise_with_the_vocabulary(run: Run):
    """Tokens grow with the vocabulary of the plays: most on unseen plays, less on German or Python.

    Predict: 512, 1,024, 2,048 … ids: does a doubling add ever more, or ever less?
    """
    seen, unseen = shakespeare(run)
    paragraphs = vocabularies.paragraphs()
    texts = {"unseen plays": unseen, "Python": inspect.getsource(heapq)}
    texts |= {name: " ".join(paragraphs[name]) for name in ("German", "Greek")}
    sizes = [256 << i for i in range(10) if 256 << i <= 256 + len(trained(run))]
    lengths: dict[str, list[float]] = {name: [] for name in texts}
    bits = []
    for size in run.progress(sizes, "vocabularies"):
        bpe = BPE(trained(run)[: size - 256])
        for name, text in texts.items():
            lengths[name].append(len(text.encode()) / len(bpe.encode(text)))
        bits.append(frequency_bits(bpe, seen[:1_000_000], unseen))
    rows = [[size, *(v[i] for v in lengths.values()), bits[i]] for i, size in enumerate(sizes)]
    run.table("Bytes per token", ["ids", *texts, "frequency model's bits per byte"], rows)
    show(run, "vocabulary", size_figures.vocabulary_size(sizes, lengths, bits))
    because = "no two bytes of a Greek letter stood together in training; only signs may merge"
    name = "Greek: bytes per token, at each size"
    run.check(name, lengths["Greek"], at_most=1.01, because=because)
    for other in ("German", "Python"):
        because = f"the pairs that are frequent in English plays are rarer in {other}"
        name = f"bytes per token, {other} ÷ unseen plays, from 512 ids on"
        ratios = [a / b for a, b in zip(lengths[other], lengths["unseen plays"], strict=True)]
        run.check(name, ratios[1:], at_most=1, because=because, decides=True)
    gains = [b / a - 1 for a, b in pairwise(lengths["unseen plays"])]
    because = "a doubling adds frequent pairs, which occur in other plays, too; 2 % is our choice"
    name = "unseen plays: smallest relative gain of a doubling"
    run.check(name, min(gains), at_least=0.02, because=because, decides=True)
    because = "the most frequent pairs are merged first, so each doubling adds rarer ones"
    falls = [b / a for a, b in pairwise(gains)]
    run.check("gain of a doubling ÷ that of the one before", falls, at_most=1, because=because)
    because = "nothing is left to guess inside a token"
    name = "bits per byte, largest vocabulary ÷ bytes alone"
    run.check(name, bits[-1] / bits[0], at_most=1, because=because)
    longest = lengths["unseen plays"][-1]
    return (
        f"With {sizes[-1]:,} ids a token has {longest:.2f} bytes on unseen plays. The first "
        f"doubling adds {gains[0]:.0%}, the last one {gains[-1]:.0%}. The frequency model's loss "
        f"rises from {bits[0]:.1f} to {bits[-1] * longest:.1f} bits per token, and falls from "
        f"{bits[0]:.1f} to {bits[-1]:.1f} bits per byte."
    )


# %% [markdown]
# Which size is best? Each doubling shortens the text by less, doubles the parameters of the ids,
# and adds rare tokens, which are rarely trained (LLM04, section 6). A first estimate compares the
# computing. Besides its ids, SmolLM2 has 106 million parameters. With 8,192 ids instead of 4,096 it
# would have 4,096 × 576 more, so each token would cost about 2 % more. Here (`tiny`) that doubling
# shortens unseen plays by 7 %, which would save about 5 % of the computing. Which model is better,
# only training shows.
#
# ## 7. The other families
# Take the tokens `lo`, `er`, `wer` and `low`, learned in this order, and the bytes. How do three
# families write `lower`? BPE makes `lo`, `er`, then `wer`, learned before `low`: `lo`, `wer`.
#
# **WordPiece** (Schuster & Nakajima 2012; Devlin et al. 2019) takes the longest token that fits,
# again and again, and marks tokens inside a word by `##`: `low`, `##er`. Inside a word, a character
# must exist with `##`. A rare character may exist only without it. BERT's characters are Unicode's;
# in our experiment they are bytes. A word that can't be written becomes **UNK**, unknown, which
# counts as a single token. In training, its authors merge the pair that makes the text most
# probable; `tokenizers` merges the most frequent one, as BPE does.
#
# **Unigram** (Kudo 2018) gives each token a probability and writes a text in the most probable way.
# Let `low` and `er` have 0.01 and 0.03, `lo` and `wer` 0.02 and 0.001. Then 0.01 × 0.03 = 0.0003 is
# more than 0.02 × 0.001 = 0.00002. If single bytes are rarer still, it writes `low`, `er`. A
# word of $n$ bytes has $2^{n-1}$ cuts, too many to try. But the best cut of its first $k$ bytes
# ends in some token, and before that token stands the best cut of fewer bytes. So take the ends
# from left to right, try all starts for each, and store the best score and start (Viterbi 1967).
# That is $n(n + 1)/2$ look-ups.
#
# Unigram's training starts with too many tokens. It repeatedly drops those whose loss lowers the
# text's probability least. So it optimizes probability, and its tokens may be shorter than BPE's.
#
# **SentencePiece** (Kudo & Richardson 2018) is a library that trains BPE or Unigram on characters.
# It writes a space as ▁.
#
# A warning about the name "byte-level": SmolLM2's file lacks 21 of 256 bytes. Of these 13 never
# occur in UTF-8, and F1 and F2 begin only code points that Unicode hasn't assigned. But six are
# control characters, such as 04, which vanish without an error. Test yours with all 256 bytes.


# %% 7. Families
@lab.exercise(
    level=2,
    hints=(
        "best[k] is the largest score of the first k bytes, and best[0] is 0. Begin the others "
        "with −math.inf.",
        "For each end, try all starts: best[start] + log_p[word[start:end]], if that is a token.",
        "Note the start that won for each end. Then walk back from the last end, and reverse.",
    ),
)
def best_cut(word: bytes, log_p: dict[bytes, float]) -> list[bytes]:
    """Return the tokens of a word whose log-probabilities have the largest sum.

    `log_p` has every single byte of the word, so there is always a cut.
    """
    best = [0.0] + [-math.inf] * len(word)  # best[k]: score of the best cut of the first k bytes
    begin = [0] * (len(word) + 1)  # begin[k]: where that cut's last token begins
    for end in range(1, len(word) + 1):
        for start in range(end):
            score = best[start] + log_p.get(word[start:end], -math.inf)
            if score > best[end]:
                best[end] = score
                begin[end] = start
    tokens = []
    end = len(word)
    while end > 0:
        tokens.append(word[begin[end] : end])
        end = begin[end]
    return tokens[::-1]


@lab.experiment
def bytes_underneath_lose_nothing(run: Run):
    """With all bytes as tokens, BPE and Unigram lose nothing; a list of words loses rare words.

    Predict: which share of the words in unseen plays isn't among the 4,095 most frequent?
    """
    seen, unseen = shakespeare(run)
    german = " ".join(vocabularies.paragraphs()["German"])
    tokenizers, log_p = families.train(seen, BPE(trained(run)[: 4096 - 256]), WORD)
    columns, rows = families.compare(tokenizers, unseen, german)
    title = "Trained on the same plays; an UNK counts as one token, whatever it loses"
    run.table(title, columns, rows)
    lossless = " · ".join(row[0] for row in rows if row.count("yes") == 2)
    name = "tokenizers that return both texts"
    run.check(name, lossless, equals="bytes · BPE · Unigram", decides=True)
    missing = sum(bytes([byte]) not in log_p for byte in range(256))
    run.check("Unigram: bytes without a token", missing, equals=0, decides=True)
    by_name = {row[0]: row for row in rows}
    share = by_name["words and UNK"][2] / 100
    because = "most distinct words are rare (Zipf 1935): new text has others; 2 % is our choice"
    run.check("words: share of UNK", share, at_least=0.02, because=because, decides=True)
    words = {*WORD.findall(unseen)}
    different = sum(best_cut(w.encode(), log_p) != tokenizers["Unigram"](w) for w in words)
    name = f"words that best_cut and the library's Unigram cut differently, of {len(words):,}"
    run.check(name, different, equals=0)
    bpe = by_name["BPE"][1]
    run.measure("bytes per token, BPE ÷ words", bpe / by_name["words and UNK"][1])
    shorter = by_name["Unigram"][1] / bpe
    run.measure("bytes per token, Unigram ÷ BPE", shorter)
    because = "UNKs count as tokens; ties broken at random make it differ from run to run"
    ratio = by_name["WordPiece"][1] / bpe
    run.measure("bytes per token, WordPiece ÷ BPE", ratio, because=because, timed=True)
    tokenizer = smollm2_tasks.tokenizer()
    in_file = tokenizer.get_vocab()
    missing = [chr(byte) for byte in range(128) if vocabularies.LETTERS[byte] not in in_file]
    back = [tokenizer.decode(tokenizer(f"a{sign}b").input_ids) for sign in missing]
    name = "a, a control character and b after SmolLM2's encode and decode"
    run.check(name, back, equals=["ab"] * 6)
    show(run, "families", figures.families())
    return (
        f"Words of unseen plays outside the list: {share:.0%}. In German, "
        f"{by_name['WordPiece'][5]:.1f} % of WordPiece's tokens are UNK. Our BPE and our Unigram "
        f"lose nothing. A token of Unigram has {shorter:.2f} times the bytes of one of BPE."
    )


# %% [markdown]
# ## 8. Unequal lengths
# In LLM04, a limit that loses under 5 % of the tokens leaves mostly padding. Two ways lose no text.
#
# **Length groups**: shuffle the texts, take those of 50 batches at a time, sort them by length, and
# cut them into batches of similar lengths. Then shuffle the batches: otherwise lengths rise within
# every 50 batches. Shuffling batches doesn't change their padding, so our code leaves it out.
#
# **Packing**: write all texts one after another, each followed by an end token, and cut the long
# row into rows of equal length. Only the last row needs padding. A text may be cut in two, and
# LLM08 masks attention so that texts don't see their neighbours.
#
# Sometimes two texts, such as a question and a document, share one row of fixed length, the
# **room**. The rule `longest_first` cuts the longer text until both fit. If both must be cut, each
# gets half of the room. If the room is odd, the longer text gets the extra id. If both are equally
# long, the second one gets it.


# %% 8. Length groups, packing, pairs
def length_groups(lengths: list[int], rows: int = 32, batches: int = 50) -> list[int]:
    """Return the order of the texts, by length within groups of `batches` batches."""
    size = rows * batches
    places = range(len(lengths))
    groups = [places[i : i + size] for i in range(0, len(lengths), size)]
    return [i for group in groups for i in sorted(group, key=lengths.__getitem__)]


def pack(texts: Iterable[list[int]], width: int, end: int) -> list[list[int]]:
    """Return rows of `width` ids with all texts in order, `end` after each.

    The last row is filled with `end`.
    """
    joined = [i for text in texts for i in (*text, end)]
    rows = [joined[start : start + width] for start in range(0, len(joined), width)]
    if rows:
        rows[-1] += [end] * (width - len(rows[-1]))
    return rows


@lab.exercise(
    level=1,
    hints=(
        "Does the shorter text fit into half of the room? Then only the longer one is cut.",
        "The shorter text keeps at most room // 2 ids; the other gets the rest of the room.",
        "min(len(first), len(second), room // 2) is what the shorter keeps. Which is the shorter?",
    ),
)
def truncate_pair(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Cut the ends of two lists until both fit into `room` together, by `longest_first`."""
    shorter = min(len(first), len(second), room // 2)
    if len(first) > len(second):
        return first[: room - shorter], second[:shorter]
    return first[:shorter], second[: room - shorter]


@lab.experiment
def length_groups_and_packing_remove_padding(run: Run):
    """Length groups remove most padding; packing needs it in the last row only and loses no text.

    Predict: in groups of 50 batches, which share of a batch is padding?
    """
    bpe = BPE(trained(run)[: 4096 - 256])
    texts = [bpe.encode(text) for text in shakespeare(run)[0].split("\n\n")]
    random.Random(run.seed).shuffle(texts)
    lengths = [len(text) for text in texts]
    grouped = [lengths[i] for i in length_groups(lengths)]
    orders = {"random order": lengths, "length groups": grouped, "sorted": sorted(lengths)}
    shares = {name: 1 - sum(order) / steps(order, 32) for name, order in orders.items()}
    width = 256
    end = len(bpe.tokens)
    rows = pack(texts, width, end)
    needed = sum(lengths) + len(lengths)
    shares["packed"] = 1 - needed / (len(rows) * width)
    run.table("Padding in batches of 32", ["texts", "%"], [[k, 100 * v] for k, v in shares.items()])
    flat = [*chain.from_iterable(rows)]
    back = padding.split_at(flat[:needed], end) == texts
    run.check("every text comes back from its rows", back, equals=True, decides=True)
    run.check("rows of another width", sum(len(row) != width for row in rows), equals=0)
    filled = set(flat[needed:]) <= {end}
    run.check("after the last text there is only the end id", filled, equals=True)
    name = "padding per token of text, length groups ÷ random order"
    per_token = {order: share / (1 - share) for order, share in shares.items()}
    ratio = per_token["length groups"] / per_token["random order"]
    because = "“most of the padding”"
    run.measure(name, ratio, expect_at_most=0.5, because=because, decides=True)
    tokenizer = smollm2_tasks.tokenizer()
    different = padding.truncated_differently(tokenizer, smollm2_tasks.PROMPTS, truncate_pair)
    run.check("pairs that the library truncates differently, any room", different, equals=0)
    show(run, "padding", size_figures.batches(lengths, grouped, steps, pack))
    return (
        f"In random order {shares['random order']:.0%} is padding, in length groups "
        f"{shares['length groups']:.0%}, packed {shares['packed']:.2%}. Length groups remove "
        f"{1 - ratio:.0%} of the padding."
    )


# %% [markdown]
# ## What to remember
# - To train fast, count again only what a merge changes, and take the next pair from a heap.
# - One long word can hold up an encoder that looks at every pair each round. Try 100,000 letters.
# - A cut in a text is safe only where the split pattern always cuts.
# - Compare vocabularies by bits per byte, never by loss per token.
# - Before you truncate texts to save padding, try length groups or packing: they lose no text.


# %% The closing
@lab.closing
def closing(results: Results) -> str:
    """Sum up this run."""
    faster = results.value(
        "the_incremental_trainer_makes_the_same_merges",
        "time of the simple trainer ÷ time of the incremental one",
    )
    return (
        f"For 256 merges of a short text, the incremental trainer was {faster:.0f} times as fast."
    )


# %% [markdown]
# **Read on**: Kudo 2018, *Subword Regularization* · Bostrom & Durrett 2020, *Byte Pair Encoding is
# Suboptimal for Language Model Pretraining* · Gao et al. 2020, *The Pile* · Pagnoni et al. 2024,
# *Byte Latent Transformer*, a model without a tokenizer. Next is LLM05a, normalization.

# %%
if __name__ == "__main__":
    lab.main()
