"""A million rows through LLM08's reading of data, beside plain `datasets`: rows per second, memory.

    python -m benchmarks.dataset [--rows 1000000] [--rounds 3]

It is run from the clone's root with the labs' Python (`.lab-env/cpu-…/venv/bin/python`). A JSONL
file of instruction, input and output is written once, with a tenth of it in a second file. Each
way turns every row into messages, and looks at each of them; it is a process of its own, so that
its peak memory is its own, and the ways take turns, so that a change of pace meets all alike. What
`datasets` keeps goes into a fresh folder each time. Memory is bounded where ten times the rows take
no more of it. (Resident memory: that of Arrow's files, which are mapped, counts while it is there.)
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from labs.llm08_training.conversations import Conversations, messages_of
from labs.llm08_training.word_tasks import examples

import datasets


def as_messages(row: dict[str, Any]) -> dict[str, Any]:
    return {"messages": messages_of(row)}


def ours(file: str, _: str) -> Iterable[Any]:
    return Conversations(file)


def ours_as_a_stream(file: str, _: str) -> Iterable[Any]:
    return datasets.IterableDataset.from_generator(lambda: iter(Conversations(file)))


def plain_map(file: str, folder: str) -> Iterable[Any]:
    made = datasets.load_dataset("json", data_files=file, split="train", cache_dir=folder)
    return made.map(as_messages, remove_columns=made.column_names)


def plain_stream(file: str, folder: str) -> Iterable[Any]:
    made = datasets.load_dataset(
        "json", data_files=file, split="train", cache_dir=folder, streaming=True
    )
    return made.map(as_messages, remove_columns=["instruction", "input", "output"])


WAYS: dict[str, Callable[[str, str], Iterable[Any]]] = {
    "LLM08's reading": ours,
    "LLM08's, as an IterableDataset": ours_as_a_stream,
    "datasets, map": plain_map,
    "datasets, streaming map": plain_stream,
}


def measure(way: str, file: str) -> None:
    """Print rows, seconds, and the peak of resident memory in MiB before and after, as JSON."""
    datasets.disable_progress_bars()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = sum(row["messages"][-1]["role"] == "assistant" for row in WAYS[way](file, folder))
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([rows, seconds, before, peak]))


def in_its_own_process(way: str, file: Path, rows: int) -> tuple[float, float]:
    """Rows per second, and the MiB that the reading took beyond what was there before it."""
    command = [sys.executable, "-m", "benchmarks.dataset", "--way", way, "--file", str(file)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found, seconds, before, peak = json.loads(ended.stdout.splitlines()[-1])
    if found != rows:
        raise SystemExit(f"{way}: {found} of {rows} rows came, so its time means nothing")
    return rows / seconds, peak - before


def write(file: Path, rows: int) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for row in islice(examples(0, None), rows):
            lines.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        measure(asked.way, asked.file)
        return
    print(
        f"Python {platform.python_version()}, datasets {version('datasets')}, {asked.rows:,} rows"
    )
    with tempfile.TemporaryDirectory() as folder:
        tenth, whole = Path(folder) / "tenth.jsonl", Path(folder) / "whole.jsonl"
        write(tenth, asked.rows // 10)
        write(whole, asked.rows)
        speeds: dict[str, list[float]] = {way: [] for way in WAYS}
        memory: dict[str, list[float]] = {}
        for way in WAYS:
            memory[way] = [in_its_own_process(way, tenth, asked.rows // 10)[1]]
        for _ in range(asked.rounds):
            for way in WAYS:
                speed, taken = in_its_own_process(way, whole, asked.rows)
                speeds[way].append(speed)
                memory[way].append(taken)
    print("way: rows/s [range], MiB for a tenth of the rows and for all, times datasets' map")
    for way, found in speeds.items():
        times = [a / b for a, b in zip(found, speeds["datasets, map"], strict=True)]
        small, *large = memory[way]
        print(
            f"{way:32} {median(found):9,.0f} [{min(found):,.0f}, {max(found):,.0f}], "
            f"{small:.0f} and {median(large):.0f} MiB, × {median(times):.2f}"
        )


if __name__ == "__main__":
    main()
