"""Look into the files of a model, and name it."""

from pathlib import Path
from typing import Any

from labs.kit import Run

import torch
from safetensors import safe_open
from torch import nn


def sizes_of_files(folder: str) -> list[list[Any]]:
    """Return the name and the bytes of each file of a model's folder."""
    return [[path.name, path.stat().st_size] for path in sorted(Path(folder).iterdir())]


@torch.no_grad()
def equal_to_files(folder: str, model: nn.Module) -> int:
    """Count the parameters that equal the number of their name and place in the weights files."""
    parameters = dict(model.named_parameters())
    count = 0
    for path in Path(folder).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in set(file.keys()) & parameters.keys():
                p = parameters[name].cpu()
                count += int((file.get_tensor(name).to(p.dtype) == p).sum())
    return count


def compare_with_files(run: Run, folder: str, model: nn.Module, empty: nn.Module) -> None:
    """Compare the parameters of a model with its files, and those of `empty`, built without."""
    parameters = sum(p.numel() for p in model.parameters())
    unlike = parameters - equal_to_files(folder, model)
    because = "from_pretrained copies each array to the parameter of the same name"
    what = "parameters that differ from the files"
    run.measure(what, unlike, expect_at_most=0, because=because, decides=True)
    unlike = parameters - equal_to_files(folder, empty)
    because = "control: from config.json alone, the weights are random; half of all is our choice"
    what = "the same, for a model built from config.json alone"
    run.check(what, unlike, at_least=parameters / 2, because=because)


def called(run: Run) -> str:
    """Return the model's name for captions."""
    if run.options.model is None:
        return "4-bit SmolLM2"
    name = Path(run.options.model).name
    return "the model" if name == "model" else name  # LLM10 saves its own under that name
