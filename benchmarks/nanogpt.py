"""LLM10's training beside nanoGPT's recipe for a CPU: one file, one split, one machine, in turn.

    python -m benchmarks.nanogpt --nanogpt DIR --corpus FILE [--rounds 3] [--processes 2]

DIR is a copy of nanoGPT (https://github.com/karpathy/nanoGPT), FILE its tinyshakespeare, 1,115,394
bytes; neither is in this repository. nanoGPT runs with the command of its own README, in a copy of
DIR; ours is LLM10's recipe of size small. Seconds are those of the whole process, from its start to
its end, with start-up and evaluations. Both losses are over the whole validation text, the last
tenth, in windows of the model's context; for nanoGPT that is the checkpoint it keeps, its best by
its own estimate, which is printed beside. Their vocabulary is the file's 65 characters, ours all
bytes and an end mark, 257: the same tokens of this file, so that the losses can be compared. The
operations of training, 6·N a token, say how much of the seconds is less work and how much is speed.
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
from pathlib import Path
from statistics import median
from typing import Any

from labs.course.options import Settings
from labs.kit.run.console import Output
from labs.kit.run.devices import describe_device
from labs.kit.run.processes import start
from labs.kit.run.run import Run
from labs.llm10_llama import lesson as lab
from labs.llm10_llama.corpus import opened

import numpy as np
import torch
from torch import Tensor, nn

THEIRS = [
    *("config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20"),
    *("--log_interval=1", "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4"),
    *("--n_embd=128", "--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0"),
]
THEIR_TOKENS = 2001 * 12 * 64  # train.py takes a step at 0 and at 2000, too


class Theirs(nn.Module):
    """nanoGPT's model as ours are called: (B, T) -> (B, T, V)."""

    def __init__(self, gpt: nn.Module):
        super().__init__()
        self.gpt = gpt

    def forward(self, tokens: Tensor) -> Tensor:
        return self.gpt(tokens, tokens)[0]  # without targets it computes the last place alone


def prepare(source: Path, corpus: Path, folder: Path) -> Path:
    """A copy of nanoGPT with the corpus made ready by its own script."""
    copy = folder / "nanogpt"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".git", "out*"))
    shutil.copyfile(corpus, copy / "data/shakespeare_char/input.txt")
    subprocess.run([sys.executable, "prepare.py"], cwd=copy / "data/shakespeare_char", check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return copy


def run_theirs(copy: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "train.py", *THEIRS], cwd=copy, check=True,
                          capture_output=True, text=True)  # fmt: skip
    seconds = time.perf_counter() - begun
    estimate = re.findall(r"step 2000: .*val loss ([\d.]+)", done.stdout)[-1]
    kept = torch.load(copy / "out-shakespeare-char/ckpt.pt", weights_only=True)
    spec = importlib.util.spec_from_file_location("nanogpt_model", copy / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    gpt = module.GPT(module.GPTConfig(**kept["model_args"]))
    gpt.load_state_dict(kept["model"])
    ids = np.fromfile(copy / "data/shakespeare_char/val.bin", dtype=np.uint16)
    loss = lab.nats(Theirs(gpt.eval()), ids, kept["model_args"]["block_size"])
    return {"who": "nanoGPT", "parameters": lab.parameters(gpt), "tokens": THEIR_TOKENS,
            "seconds": seconds, "loss": loss, "told": f"its own estimate {estimate}"}  # fmt: skip


def run_ours(corpus: Path, folder: Path, processes: int, seed: int) -> dict[str, Any]:
    told = folder / f"ours-{seed}.json"
    words = ["--corpus", str(corpus), "--tell", str(told), "--seed", str(seed)]
    begun = time.perf_counter()
    code = start(processes, words, module="benchmarks.nanogpt")
    seconds = time.perf_counter() - begun
    if code:
        raise SystemExit(code)
    result = json.loads(told.read_text(encoding="utf-8"))
    return {"who": f"LLM10, {processes} processes", **result, "seconds": seconds}


def train(corpus: Path, told: Path, seed: int) -> None:
    """One of our processes: train, judge, and tell (the main one)."""
    folder = told.with_suffix("")
    folder.mkdir(exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        settings = Settings(size="small", precision="fp32", seed=seed, outputs=folder)
        run = Run(settings, "fp32", Output(log, silent=True), folder)
        config, recipe = lab.HEADLINE
        text = opened(corpus, 0, folder)
        config = lab.replace(config, vocabulary=text.vocabulary)
        trained = lab.train(run, "headline", config, text, recipe, seed)
        if run.accelerator.is_main_process:
            tokens = recipe.steps * recipe.batch * config.context
            loss = lab.nats(trained.model, text.validation, config.context)
            result = {"parameters": lab.parameters(trained.model), "tokens": tokens, "loss": loss}
            result["told"] = f"training alone {trained.seconds:.1f} s"
            told.write_text(json.dumps(result), encoding="utf-8")
        run.accelerator.end_training()


def tell(rows: list[dict[str, Any]]) -> None:
    print("| | parameters | tokens seen | 6·N a token | seconds | tokens/s | validation loss | |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        speed, work = r["tokens"] / r["seconds"], 6 * r["parameters"] * r["tokens"]
        print(f"| {r['who']} | {r['parameters']:,} | {r['tokens']:,} | {work:.1e} | "
              f"{r['seconds']:.1f} | {speed:,.0f} | {r['loss']:.4f} | {r['told']} |")  # fmt: skip
    theirs = [r for r in rows if r["who"] == "nanoGPT"]
    ours = [r for r in rows if r["who"] != "nanoGPT"]
    shares = [a["seconds"] / b["seconds"] for a, b in zip(ours, theirs, strict=True)]
    print(f"seconds, ours over theirs, round by round: {[round(x, 3) for x in shares]}, "
          f"median {median(shares):.3f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, metavar="DIR")
    parser.add_argument("--corpus", type=Path, required=True, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tell", type=Path, help=argparse.SUPPRESS)  # how our processes are called
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.tell:
        train(asked.corpus, asked.tell, asked.seed)
        return
    if asked.nanogpt is None:
        parser.error("--nanogpt DIR is needed: a copy of nanoGPT")
    print(f"{describe_device(torch.device('cpu'))}; torch {torch.__version__}")
    for path in (asked.corpus, asked.nanogpt / "train.py", asked.nanogpt / "model.py"):
        print(f"{path.name} SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), []
        copy = prepare(asked.nanogpt, asked.corpus, folder)
        for i in range(asked.rounds):
            rows += [run_theirs(copy), run_ours(asked.corpus, folder, asked.processes, i)]
            for r in rows[-2:]:
                print(f"  {r['who']}: {r['loss']:.4f} in {r['seconds']:.1f} s", flush=True)
    tell(rows)


if __name__ == "__main__":
    main()
