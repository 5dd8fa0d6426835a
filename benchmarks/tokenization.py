"""LLM04's tokenizer beside `tokenizers` and tiktoken: training, encoding, growth, and a stream.

    python -m benchmarks.tokenization [--rounds 7] [--megabytes 50]
    python -m benchmarks.tokenization --stream 1000

It is run from the clone's root with the labs' Python (`.lab-env/cpu-…/venv/bin/python`). What
competes runs in turn, a b c a b c …, so that a change of pace meets all alike; printed are the
medians, and those of the ratios round by round. The text is 1.1 MB of Shakespeare; for growth all
plays and the Python sources installed here, in shuffled pieces, so that nothing comes twice. The
stream, the plays again and again, is for a container that hasn't as much memory:

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
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from labs.kit import assets
from labs.kit.run.devices import describe_device
from labs.llm04_tokenization import lesson as lab
from labs.llm04_tokenization import vocabularies

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

Call = Callable[[], Any]
PIECE = 100_000  # characters, or bytes of a stream


@dataclass(frozen=True)
class Taken:
    """Seconds on the clock, and seconds of all cores together."""

    clock: float
    cpu: float


def taken(call: Call) -> Taken:
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return Taken(time.perf_counter() - clock, time.process_time() - cpu)


def in_turn(calls: dict[str, Call], rounds: int) -> dict[str, list[Taken]]:
    """What each call takes in each round, after one that isn't counted."""
    for call in calls.values():
        call()
    found: dict[str, list[Taken]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(taken(call))
    return found


def show(title: str, found: dict[str, list[Taken]], megabytes: float) -> None:
    """Medians, and the first against each other one, round by round."""
    print(f"\n{title}")
    first, *others = found
    for name, times in found.items():
        clock, cpu = median(one.clock for one in times), median(one.cpu for one in times)
        print(f"  {name:34} {clock:7.3f} s, {cpu:.3f} s of CPU, {megabytes / clock:6.2f} MB/s")
    for other in others:
        pairs = list(zip(found[first], found[other], strict=True))
        clock, cpu = (
            median(getattr(a, k) / getattr(b, k) for a, b in pairs) for k in ("clock", "cpu")
        )
        print(f"  {first}: {clock:.2f} times the time of {other}, {cpu:.2f} times its CPU time")


def compare_training(text: str, size: int, rounds: int) -> None:
    lines = text.splitlines(keepends=True)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=letters, show_progress=False)

    def theirs(items: list[str]) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator(items, trainer)

    calls: dict[str, Call] = {
        "ours": lambda: lab.train(lab.count_words(text), size - 256),
        "tokenizers, the whole text": lambda: theirs([text]),
        "tokenizers, line by line": lambda: theirs(lines),
    }
    title = f"Training {size:,} ids"
    show(title, in_turn(calls, rounds), len(lab.to_bytes(text)) / 1e6)


def compare_encoding(text: str, size: int, rounds: int) -> None:
    merges = lab.train(lab.count_words(text), size - 256)
    ours, lines = lab.BPE(merges), text.splitlines(keepends=True)
    hugging, openai = vocabularies.in_tokenizers(merges), lab.in_tiktoken(ours)
    ids = ours.encode(text)
    assert ids == hugging.encode(text).ids == openai.encode_ordinary(text)
    calls: dict[str, Call] = {
        "ours, text met before": lambda: ours.encode(text),
        "ours, a new table": lambda: lab.BPE(merges).encode(text),
        "tokenizers.encode": lambda: hugging.encode(text),
        "tokenizers.encode_batch_fast, lines": lambda: hugging.encode_batch_fast(lines),
        "tiktoken.encode_ordinary": lambda: openai.encode_ordinary(text),
    }
    title = f"Encoding with {size:,} ids, {len(ids):,} of them the same from all three"
    show(title, in_turn(calls, rounds), len(lab.to_bytes(text)) / 1e6)


def pieces(megabytes: int) -> list[str]:
    """Plays and Python sources, up to so many MB of characters, in shuffled pieces."""
    texts, enough = [assets.shakespeare()], megabytes * 1_000_000
    folders = {sysconfig.get_paths()[name] for name in ("stdlib", "platlib")}
    files = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    random.Random(0).shuffle(files)
    for path in files:
        if sum(map(len, texts)) >= enough:
            break
        texts.append(path.read_text(encoding="utf-8", errors="replace"))
    text = "\n".join(texts)[:enough]
    found = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    random.Random(0).shuffle(found)
    return found


def show_growth(megabytes: int, merges: list[lab.Pair]) -> None:
    """CPU time against size, each size with a table of its own, and the slope in logarithms."""
    found, sizes, times = pieces(megabytes), [], []
    print("\nGrowth, CPU time: text that doesn't repeat, a new table for each size")
    for share in (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1):
        text, bpe = "".join(found[: max(round(len(found) * share), 1)]), lab.BPE(merges)
        sizes.append(len(lab.to_bytes(text)) / 1e6)
        times.append(taken(lambda text=text, bpe=bpe: bpe.encode(text)).cpu)
        print(f"  {sizes[-1]:7.2f} MB {times[-1]:7.2f} s {sizes[-1] / times[-1]:6.2f} MB/s")
    slope = linear_regression([*map(math.log, sizes)], [*map(math.log, times)]).slope
    print(f"  time grows as size to the {slope:.2f}")


def encode_stream(megabytes: int, merges: list[lab.Pair]) -> None:
    """Encode the plays again and again, keep no id, and tell the process's largest size."""
    text = lab.to_bytes(assets.shakespeare())
    data = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]  # cut inside words
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for chunk in cycle(data):
            if read >= megabytes * 1_000_000:
                return
            read += len(chunk)
            yield chunk

    start, bpe = time.process_time(), lab.BPE(merges)
    count = sum(1 for _ in lab.encode_stream(bpe.encode, chunks()))
    speed = read / 1e6 / (time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nA stream of {read / 1e6:,.0f} MB: {count:,} ids, {speed:.2f} MB per CPU second")
    print(f"  the process never had more than {peak:,.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=50, help="of the growth's largest text")
    parser.add_argument("--stream", type=int, metavar="MB", help="the stream alone, of so many MB")
    asked = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("tokenizers", "tiktoken", "regex"))
    print(f"{describe_device(torch.device('cpu'))}, Python {platform.python_version()}, {versions}")
    text = assets.shakespeare()[:1_100_000]
    merges = lab.train(lab.count_words(text), 4096 - 256)
    if asked.stream:
        encode_stream(asked.stream, merges)
        return
    for size in (512, 4096):
        compare_training(text, size, asked.rounds)
    compare_encoding(text, 4096, asked.rounds)
    show_growth(asked.megabytes, merges)


if __name__ == "__main__":
    main()
