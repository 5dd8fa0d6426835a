"""Decoding with LLM01's own loop, beside `model.generate` of transformers.

    python benchmarks/generate.py [--rounds 5] [--tokens 64]

The same model, the same prompts, greedy, as many new tokens, in float32; the two in turn, a b a b
…, so that a change of pace meets both alike. Printed are medians and ranges of tokens per second,
and the median of the ratios round by round: above 1 our loop is faster. The texts must be equal.
There are two models, the embedded SmolLM2 (4-bit release) and the tiny glass model, on which the
loop's own work shows most. It needs the labs' Python: the image's, or the environment's.
"""

import argparse
import platform
from statistics import median
from typing import Any

from labs.kit import assets, seconds_paired
from labs.kit.run.devices import describe_device
from labs.llm01_inference import generate, left_pad

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.utils import logging


def theirs(model: Any, prompts: list[list[int]], new: int) -> list[list[int]]:
    """The same by transformers: left-padded, greedy, exactly `new` tokens."""
    ids, mask, _ = (x.to(model.device) for x in left_pad(prompts))
    how = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": new}
    return model.generate(ids, attention_mask=mask, **how)[:, ids.shape[1] :].tolist()


def compare(model: Any, name: str, batch: int, new: int, rounds: int) -> None:
    prompts = torch.randint(5, 1000, (batch, 16)).tolist()
    prompts = [prompt[i % 4 :] for i, prompt in enumerate(prompts)]  # lengths 13 to 16
    if generate(model, prompts, new) != theirs(model, prompts, new):
        raise SystemExit(f"{name}, batch {batch}: the texts differ, so the times mean nothing")
    a, b = seconds_paired(
        lambda: generate(model, prompts, new), lambda: theirs(model, prompts, new), rounds
    )
    speeds = [sorted(batch * new / x for x in times) for times in (a, b)]
    ours, library = (f"{median(x):.1f} [{x[0]:.1f}, {x[-1]:.1f}]" for x in speeds)
    ratios = sorted(y / x for x, y in zip(a, b, strict=True))
    ratio = f"{median(ratios):.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}]"
    print(f"{name}, batch {batch}, {new} tokens: {ours}, {library} tokens/s, {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()
    logging.disable_progress_bar()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{describe_device(device)}; {versions}, transformers {transformers.__version__}")
    print(
        "model, batch, tokens: ours [range], model.generate [range], ratio round by round [range]"
    )
    for name, path in (("glass model", assets.glass()), ("SmolLM2", assets.smollm2())):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device).eval()
        model.generation_config.eos_token_id = None  # as long for both, whatever they write
        for batch in (1, 8):
            for new in (asked.tokens // 4, asked.tokens):
                torch.manual_seed(0)
                compare(model, name, batch, new, asked.rounds)


if __name__ == "__main__":
    main()
