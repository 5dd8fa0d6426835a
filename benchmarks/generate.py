"""Compare decoding with LLM01+'s loop and with `model.generate` of transformers.

    python -m benchmarks.generate [--rounds 5] [--tokens 64]

Both decode greedily in float32, with the same model, prompts and number of new tokens. They run in
turn, a b a b …, so that a change of pace affects both. The benchmark prints medians and ranges of
tokens per second, and the median of the ratios round by round: above 1, our loop is faster. The
texts must be equal. There are two models: the embedded SmolLM2 (4-bit release), and the tiny glass
model, in which the loop takes the largest share of the time. Run it from the root of the clone with
the labs' Python: the image's, or the environment's.
"""

import argparse
import platform
from statistics import median
from typing import Any

from labs.kit import assets, seconds_paired
from labs.kit.run.devices import describe_device
from labs.llm01_inference.deeper import generate_batch, left_pad

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.utils import logging


def theirs(model: Any, prompts: list[list[int]], new: int) -> list[list[int]]:
    """Return exactly `new` greedy tokens after each left-padded prompt, by transformers."""
    ids, mask, _ = (x.to(model.device) for x in left_pad(prompts))
    output = model.generate(
        ids, attention_mask=mask, do_sample=False, pad_token_id=0, max_new_tokens=new
    )
    return output[:, ids.shape[1] :].tolist()


def compare(model: Any, name: str, batch: int, new: int, rounds: int) -> None:
    """Time both on one batch and print a line.

    Raises:
        SystemExit: if the texts differ.
    """
    prompts = torch.randint(5, 1000, (batch, 16)).tolist()
    prompts = [prompt[i % 4 :] for i, prompt in enumerate(prompts)]  # lengths 13 to 16
    if generate_batch(model, prompts, new) != theirs(model, prompts, new):
        raise SystemExit(f"{name}, batch {batch}: the texts differ, so the times mean nothing")
    a, b = seconds_paired(
        lambda: generate_batch(model, prompts, new), lambda: theirs(model, prompts, new), rounds
    )
    speeds = [sorted(batch * new / x for x in times) for times in (a, b)]
    ours, library = (f"{median(x):.1f} [{x[0]:.1f}, {x[-1]:.1f}]" for x in speeds)
    ratios = sorted(y / x for x, y in zip(a, b, strict=True))
    ratio = f"{median(ratios):.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}]"
    print(f"{name}, batch {batch}, {new} tokens: {ours}, {library} tokens/s, {ratio}", flush=True)


def main() -> None:
    """Compare both models, batches of 1 and 8, and two lengths."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{describe_device(device)}; {versions}, transformers {transformers.__version__}")
    print(
        "model, batch, tokens: ours [range], model.generate [range], ratio round by round [range]"
    )
    for name, path in (("glass model", assets.glass()), ("SmolLM2", assets.smollm2())):
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        model.to(device).eval()
        model.generation_config.eos_token_id = None  # the same length for both
        for batch in (1, 8):
            for new in (arguments.tokens // 4, arguments.tokens):
                torch.manual_seed(0)
                compare(model, name, batch, new, arguments.rounds)


if __name__ == "__main__":
    main()
