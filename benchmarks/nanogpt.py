"""LLM10's training beside nanoGPT's recipe for a CPU: one file, one split, one machine, in turn.

    python -m benchmarks.nanogpt --nanogpt DIR --corpus FILE [--rounds 3] [--processes 2]

DIR is a copy of nanoGPT (https://github.com/karpathy/nanoGPT), FILE its tinyshakespeare, 1,115,394
bytes; neither is in this repository. nanoGPT runs with the command of its README, in a copy of DIR;
ours is LLM10's recipe of size small, in bfloat16 where this machine's products are faster in it.
Seconds are those of the complete process, with start-up and
evaluations. Both losses are over the complete validation text, the last 10 %, in windows of the
model's context. For nanoGPT that is the loss of the checkpoint it saves, its best by its own
estimate, which is printed beside it. Its vocabulary is the file's 65 characters, ours all bytes and
an end mark, 257: both give this file the same tokens, so their losses can be compared. The
operations of training, 6·N per token, show how much of the difference is less work and how much is
speed.
"""

import argparse
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from common.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.devices import choose_precision, describe_device
from labs.kit.run.processes import leave, run_group
from labs.kit.run.run import Run
from labs.llm10_llama import lesson as lab
from labs.llm10_llama import training
from labs.llm10_llama.corpus import open_text
from labs.llm10_llama.ladder import nats

import numpy as np
import torch
from torch import Tensor, nn

THEIRS = [
    *("config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20"),
    *("--log_interval=1", "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4"),
    *("--n_embd=128", "--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0"),
]
THEIR_TOKENS = 2001 * 12 * 64  # train.py takes a step at 0 and another at 2000


class Theirs(nn.Module):
    """nanoGPT's model with the interface of ours: (B, T) -> (B, T, V)."""

    def __init__(self, gpt: nn.Module) -> None:
        super().__init__()
        self.gpt = gpt

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of every position; without targets it returns the last one's alone."""
        return self.gpt(tokens, tokens)[0]


def prepare(source: Path, corpus: Path, folder: Path) -> Path:
    """Copy nanoGPT, and let its own script prepare the corpus; return the copy."""
    copy = folder / "nanogpt"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".git", "out*"))
    data = copy / "data/shakespeare_char"
    shutil.copyfile(corpus, data / "input.txt")
    command = [sys.executable, "prepare.py"]
    subprocess.run(command, cwd=data, check=True, stdout=subprocess.DEVNULL)
    return copy


def run_theirs(copy: Path) -> dict[str, Any]:
    """Train nanoGPT; return its row of the table."""
    command = [sys.executable, "train.py", *THEIRS]
    start = time.perf_counter()
    ended = subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    estimate = re.findall(r"step 2000: .*val loss ([\d.]+)", ended.stdout)[-1]
    checkpoint = torch.load(copy / "out-shakespeare-char/ckpt.pt", weights_only=True)
    module = load_module(copy / "model.py")
    gpt = module.GPT(module.GPTConfig(**checkpoint["model_args"]))
    gpt.load_state_dict(checkpoint["model"])
    ids = np.fromfile(copy / "data/shakespeare_char/val.bin", dtype=np.uint16)
    loss = nats(Theirs(gpt.eval()), ids, checkpoint["model_args"]["block_size"])
    return {
        "who": "nanoGPT",
        "parameters": lab.parameters(gpt),
        "tokens": THEIR_TOKENS,
        "seconds": seconds,
        "loss": loss,
        "note": f"its own estimate {estimate}",
    }


def load_module(path: Path) -> Any:
    """Import a Python file that belongs to no package."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run_ours(
    corpus: Path, folder: Path, processes: int, seed: int, precision: str
) -> dict[str, Any]:
    """Train LLM10's model in a group of processes; return its row of the table."""
    result = folder / f"ours-{seed}.json"
    options = ["--corpus", str(corpus), "--result", str(result)]
    options += ["--seed", str(seed), "--precision", precision]
    start = time.perf_counter()
    code = run_group(processes, [sys.executable, "-m", "benchmarks.nanogpt", *options])
    seconds = time.perf_counter() - start
    if code:
        raise SystemExit(code)
    row = json.loads(result.read_text(encoding="utf-8"))
    return {"who": f"LLM10, {processes} processes", **row, "seconds": seconds}


def choose() -> str:
    """Print and return the precision that this processor is fast in."""
    precision, why = choose_precision("auto", training.HEADLINE[0].d_model)
    print(f"ours in {precision}: {why}")
    return precision


def train(corpus: Path, result: Path, seed: int, precision: str) -> None:
    """Train in one of our processes; the main process writes the result."""
    folder = result.with_suffix("")
    folder.mkdir(exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        settings = Settings(size="small", precision=precision, seed=seed, outputs=folder)
        run = Run(settings, precision, Output(log, silent=True), folder)
        config, recipe = training.HEADLINE
        text = open_text(corpus, 0, folder)
        config = replace(config, vocabulary=text.vocabulary)
        trained = training.train(run, lab.PARTS, "headline", config, text, recipe, seed)
        if run.accelerator.is_main_process:
            row = {
                "parameters": lab.parameters(trained.model),
                "tokens": recipe.steps * recipe.batch * config.context,
                "loss": nats(trained.model, text.validation, config.context),
                "note": f"training alone {trained.seconds:.1f} s",
            }
            result.write_text(json.dumps(row), encoding="utf-8")
        run.accelerator.end_training()


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print every run, then the ratio of the seconds in each round."""
    print("| | parameters | tokens seen | 6·N a token | seconds | tokens/s | validation loss | |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        speed = row["tokens"] / row["seconds"]
        work = 6 * row["parameters"] * row["tokens"]
        cells = [row["who"], f"{row['parameters']:,}", f"{row['tokens']:,}", f"{work:.1e}"]
        cells += [f"{row['seconds']:.1f}", f"{speed:,.0f}", f"{row['loss']:.4f}", row["note"]]
        print(f"| {' | '.join(cells)} |")
    theirs = [row["seconds"] for row in rows if row["who"] == "nanoGPT"]
    ours = [row["seconds"] for row in rows if row["who"] != "nanoGPT"]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    rounded = [round(ratio, 3) for ratio in ratios]
    print(f"seconds, ours ÷ theirs, round by round: {rounded}, median {median(ratios):.3f}")


def main() -> None:
    """Parse the command line and run both recipes in turn, or one process of ours."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, metavar="DIR")
    parser.add_argument("--corpus", type=Path, required=True, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    # for our processes
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="fp32", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.result:
        train(parsed.corpus, parsed.result, parsed.seed, parsed.precision)
        leave(0)
    if parsed.nanogpt is None:
        parser.error("--nanogpt DIR is needed: a copy of nanoGPT")
    print(f"{describe_device(torch.device('cpu'))}; torch {torch.__version__}")
    for path in (parsed.corpus, parsed.nanogpt / "train.py", parsed.nanogpt / "model.py"):
        print(f"{path.name} SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    precision = choose()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = prepare(parsed.nanogpt, parsed.corpus, folder)
        for i in range(parsed.rounds):
            ours = run_ours(parsed.corpus, folder, parsed.processes, i, precision)
            rows += [run_theirs(copy), ours]
            for row in rows[-2:]:
                print(f"  {row['who']}: {row['loss']:.4f} in {row['seconds']:.1f} s", flush=True)
    print_table(rows)


if __name__ == "__main__":
    main()
