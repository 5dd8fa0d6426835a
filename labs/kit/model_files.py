"""What a saved model has beside its weights: a card, and how it generates text."""

from pathlib import Path
from typing import Any

_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p")


def generate_greedily(model: Any) -> None:
    """Let a model of transformers take the most probable token, also after it was saved.

    `invoke chat` then starts with temperature 0. It suits a model with one right answer to each
    question.
    """
    model.generation_config.update(do_sample=False, **dict.fromkeys(_OF_SAMPLING))


def write_card(folder: Path, text: str) -> None:
    """Write a folder's README.md, and give all its files the mode of a new file.

    safetensors lets only the owner read a model.
    """
    card = folder / "README.md"
    card.write_text(text, encoding="utf-8")
    mode = card.stat().st_mode & 0o777
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(mode)
