"""Compare LLM08's reading of data with plain `datasets`: rows per second and memory.

    python -m benchmarks.dataset [--rows 1000000] [--rounds 3]

Run it from the clone's root with the labs' Python (`.lab-env/cpu-…/venv/bin/python`). It writes a
JSONL file of instruction, input and output, and a second file with a tenth of the rows. Each way
turns every row into messages and reads them. Each way runs in a separate process, so that peak
memory can be compared, and the ways take turns, so that a slowdown affects all. The cache of
`datasets` goes into a new folder each time. Memory is bounded if ten times the rows take no more of
it. Resident memory includes the mapped Arrow files.
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


def own(file: str, _: str) -> Iterable[Any]:
    return Conversations(file)


def own_stream(file: str, _: str) -> Iterable[Any]:
    return datasets.IterableDataset.from_generator(lambda: iter(Conversations(file)))


def plain_map(file: str, folder: str) -> Iterable[Any]:
    table = datasets.load_dataset("json", data_files=file, split="train", cache_dir=folder)
    return table.map(as_messages, remove_columns=table.column_names)


def plain_stream(file: str, folder: str) -> Iterable[Any]:
    stream = datasets.load_dataset(
        "json", data_files=file, split="train", cache_dir=folder, streaming=True
    )
    return stream.map(as_messages, remove_columns=["instruction", "input", "output"])


WAYS: dict[str, Callable[[str, str], Iterable[Any]]] = {
    "LLM08's reading": own,
    "LLM08's, as an IterableDataset": own_stream,
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


def in_new_process(way: str, file: Path, rows: int) -> tuple[float, float]:
    """Return rows per second, and the growth of peak resident memory in MiB."""
    command = [sys.executable, "-m", "benchmarks.dataset", "--way", way, "--file", str(file)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    read, seconds, before, peak = json.loads(ended.stdout.splitlines()[-1])
    if read != rows:
        raise SystemExit(f"{way}: it read {read} of {rows} rows, so its time means nothing")
    return rows / seconds, peak - before


def write(file: Path, rows: int) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for row in islice(examples(0, None), rows):
            lines.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        measure(options.way, options.file)
        return
    print(
        f"Python {platform.python_version()}, datasets {version('datasets')}, {options.rows:,} rows"
    )
    with tempfile.TemporaryDirectory() as folder:
        tenth = Path(folder) / "tenth.jsonl"
        full = Path(folder) / "full.jsonl"
        write(tenth, options.rows // 10)
        write(full, options.rows)
        speeds: dict[str, list[float]] = {way: [] for way in WAYS}
        memory: dict[str, list[float]] = {}
        for way in WAYS:
            memory[way] = [in_new_process(way, tenth, options.rows // 10)[1]]
        for _ in range(options.rounds):
            for way in WAYS:
                speed, taken = in_new_process(way, full, options.rows)
                speeds[way].append(speed)
                memory[way].append(taken)
    print("way: rows/s [range], MiB for a tenth of the rows and for all, speed ÷ datasets' map")
    for way, measured in speeds.items():
        ratios = [a / b for a, b in zip(measured, speeds["datasets, map"], strict=True)]
        small, *large = memory[way]
        print(
            f"{way:32} {median(measured):9,.0f} [{min(measured):,.0f}, {max(measured):,.0f}], "
            f"{small:.0f} and {median(large):.0f} MiB, × {median(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
