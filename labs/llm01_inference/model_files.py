"""Look into the files of a model, and name it."""

from pathlib import Path
from typing import Any

from labs.kit import Run

import torch
from safetensors import safe_open


def sizes_of_files(folder: str) -> list[list[Any]]:
    """Return the name and the bytes of each file of a model's folder."""
    return [[path.name, path.stat().st_size] for path in sorted(Path(folder).iterdir())]


def numbers_in(folder: str) -> int:
    """Count the numbers in all weights files of a model's folder."""
    count = 0
    for path in Path(folder).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no dictionary
                count += torch.Size(file.get_slice(name).get_shape()).numel()
    return count


def called(run: Run) -> str:
    """Return the model's name for captions."""
    if run.options.model is None:
        return "4-bit SmolLM2"
    name = Path(run.options.model).name
    return "the model" if name == "model" else name  # LLM10 saves its own under that name
