"""Compare LLM04's tokenizer with `tokenizers` and tiktoken: training, encoding, growth, a stream.

    python -m benchmarks.tokenization [--rounds 7] [--megabytes 50]
    python -m benchmarks.tokenization --stream 1000

Run it from the root of the clone with the labs' Python (`.lab-env/cpu-…/venv/bin/python`). The
libraries run in turn, a b c a b c …, so that a change of pace affects all of them. The benchmark
prints medians, and medians of the ratios round by round. The text is 1.1 MB of Shakespeare, and all
5 MB to train 10,000 ids. Then comes one word of 100,000 letters. Growth uses all plays and the
Python sources installed here, in shuffled pieces, so that nothing repeats.
The stream repeats the plays, for a container with less memory than the stream has bytes:

    docker run --rm --memory 512m --memory-swap 512m -v $PWD:/clone -w /clone \\
        --entrypoint python llm-labs:cpu -m benchmarks.tokenization --stream 1000
"""

import argparse
import math
import platform
import random
import resource
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from labs.kit import assets
from labs.kit.run.devices import describe_device
from labs.llm04_tokenization import deeper as lab
from labs.llm04_tokenization import vocabularies

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

Call = Callable[[], Any]
PIECE = 100_000  # characters, or bytes of a stream


@dataclass(frozen=True)
class Seconds:
    """Seconds on the clock, and CPU seconds of all cores together."""

    clock: float
    cpu: float


def seconds(call: Call) -> Seconds:
    """Time one call."""
    clock = time.perf_counter()
    cpu = time.process_time()
    call()
    return Seconds(time.perf_counter() - clock, time.process_time() - cpu)


def in_turn(calls: dict[str, Call], rounds: int) -> dict[str, list[Seconds]]:
    """Time each call in each round, after one round that isn't counted."""
    for call in calls.values():
        call()
    times: dict[str, list[Seconds]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def show(title: str, results: dict[str, list[Seconds]], megabytes: float) -> None:
    """Print medians, and the ratios of the first to each other one, round by round."""
    print(f"\n{title}")
    first, *others = results
    for name, times in results.items():
        clock = median(time.clock for time in times)
        cpu = median(time.cpu for time in times)
        print(f"  {name:34} {clock:7.3f} s, {cpu:.3f} s of CPU, {megabytes / clock:6.2f} MB/s")
    for other in others:
        pairs = list(zip(results[first], results[other], strict=True))
        clock = median(a.clock / b.clock for a, b in pairs)
        cpu = median(a.cpu / b.cpu for a, b in pairs)
        print(f"  {first}: {clock:.2f} times the time of {other}, {cpu:.2f} times its CPU time")


def compare_training(text: str, size: int, rounds: int) -> None:
    """Time training of `size` ids."""
    lines = text.splitlines(keepends=True)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=letters, show_progress=False)

    def theirs(items: list[str]) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator(items, trainer)

    calls: dict[str, Call] = {
        "ours": lambda: lab.train(lab.count_words(text), size - 256),
        "tokenizers, all text at once": lambda: theirs([text]),
        "tokenizers, line by line": lambda: theirs(lines),
    }
    title = f"Training {size:,} ids"
    show(title, in_turn(calls, rounds), len(text.encode()) / 1e6)


def compare_encoding(text: str, size: int, rounds: int) -> None:
    """Time encoding with the same `size` ids."""
    merges = lab.train(lab.count_words(text), size - 256)
    ours = lab.BPE(merges)
    hugging = vocabularies.in_tokenizers(merges)
    openai = vocabularies.in_tiktoken(ours.tokens, ours.split.words)
    lines = text.splitlines(keepends=True)
    ids = ours.encode(text)
    assert ids == hugging.encode(text).ids == openai.encode_ordinary(text)
    calls: dict[str, Call] = {
        "ours, text encoded before": lambda: ours.encode(text),
        "ours, a new table": lambda: lab.BPE(merges).encode(text),
        "tokenizers.encode": lambda: hugging.encode(text),
        "tokenizers.encode_batch_fast, lines": lambda: hugging.encode_batch_fast(lines),
        "tiktoken.encode_ordinary": lambda: openai.encode_ordinary(text),
    }
    title = f"Encoding with {size:,} ids, {len(ids):,} of them the same from all three"
    show(title, in_turn(calls, rounds), len(text.encode()) / 1e6)


def compare_long_words(size: int, rounds: int) -> None:
    """Time one word of 100,000 letters: random ones, and a single letter repeated."""
    merges = lab.train(lab.count_words(assets.shakespeare()[:1_100_000]), size - 256)
    letters = "".join(random.Random(0).choices("etaoinshrdlu", k=100_000))
    for name, word in (("random letters", letters), ("the letter a", "a" * 100_000)):
        ours = lab.BPE(merges)  # long words are never cached
        openai = vocabularies.in_tiktoken(ours.tokens, ours.split.words)
        hugging = vocabularies.in_tokenizers(merges)
        assert ours.encode(word) == openai.encode_ordinary(word) == hugging.encode(word).ids
        calls: dict[str, Call] = {
            "ours": partial(ours.encode, word),
            "tiktoken": partial(openai.encode_ordinary, word),
            "tokenizers": partial(hugging.encode, word),
        }
        show(f"A word of 100,000 letters, {name}", in_turn(calls, rounds), 0.1)


def pieces(megabytes: int) -> list[str]:
    """Return plays and Python sources, at most `megabytes` of characters, in shuffled pieces."""
    texts = [assets.shakespeare()]
    enough = megabytes * 1_000_000
    folders = {sysconfig.get_paths()[name] for name in ("stdlib", "platlib")}
    files = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    random.Random(0).shuffle(files)
    for path in files:
        if sum(map(len, texts)) >= enough:
            break
        texts.append(path.read_text(encoding="utf-8", errors="replace"))
    text = "\n".join(texts)[:enough]
    parts = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    random.Random(0).shuffle(parts)
    return parts


def show_growth(megabytes: int, merges: list[lab.Pair]) -> None:
    """Print CPU time by size, a new table for each, and the slope of its logarithm."""
    parts = pieces(megabytes)
    sizes: list[float] = []
    times: list[float] = []
    print("\nGrowth, CPU time: text that doesn't repeat, a new table for each size")
    for share in (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1):
        text = "".join(parts[: max(round(len(parts) * share), 1)])
        bpe = lab.BPE(merges)
        sizes.append(len(text.encode()) / 1e6)
        times.append(seconds(partial(bpe.encode, text)).cpu)
        print(f"  {sizes[-1]:7.2f} MB {times[-1]:7.2f} s {sizes[-1] / times[-1]:6.2f} MB/s")
    slope = linear_regression([*map(math.log, sizes)], [*map(math.log, times)]).slope
    print(f"  time grows as size to the {slope:.2f}")


def encode_stream(megabytes: int, merges: list[lab.Pair]) -> None:
    """Encode the plays repeatedly, store no id, and print the process's peak memory."""
    text = assets.shakespeare().encode()
    data = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]  # cut inside words
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for chunk in cycle(data):
            if read >= megabytes * 1_000_000:
                return
            read += len(chunk)
            yield chunk

    bpe = lab.BPE(merges)
    start = time.process_time()
    count = sum(1 for _ in lab.encode_stream(bpe.encode, chunks()))
    speed = read / 1e6 / (time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nA stream of {read / 1e6:,.0f} MB: {count:,} ids, {speed:.2f} MB per CPU second")
    print(f"  the process never used more than {peak:,.0f} MiB")


def main() -> None:
    """Run the comparisons, or the stream alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--megabytes", type=int, default=50, help="size of the largest text for growth"
    )
    parser.add_argument(
        "--stream", type=int, metavar="MB", help="only encode a stream of this size"
    )
    arguments = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "tiktoken", "regex"))
    print(f"{describe_device(torch.device('cpu'))}, Python {platform.python_version()}, {versions}")
    text = assets.shakespeare()[:1_100_000]
    merges = lab.train(lab.count_words(text), 4096 - 256)
    if arguments.stream:
        encode_stream(arguments.stream, merges)
        return
    for size in (512, 4096):
        compare_training(text, size, arguments.rounds)
    compare_training(assets.shakespeare(), 10_000, max(arguments.rounds // 2, 1))
    compare_encoding(text, 4096, arguments.rounds)
    compare_long_words(4096, arguments.rounds)
    show_growth(arguments.megabytes, merges)


if __name__ == "__main__":
    main()
