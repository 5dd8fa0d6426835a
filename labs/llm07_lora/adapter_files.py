"""The two files of an adapter, as peft writes them: its configuration and its tensors."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"


def write(folder: Path, model: Any, layers: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Write an adapter: its layers by name, and their numbers.

    Raises:
        TypeError: for layers with more numbers than A and B, such as DoRA's.
    """
    layer = next(iter(layers.values()))
    if len(list(layer.parameters(recurse=False))) > 2:
        raise TypeError("this format has A and B only; DoRA's magnitudes would be lost")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.config.name_or_path,
        "r": layer.rank,
        "lora_alpha": layer.alpha,
        "target_modules": sorted({name.split(".")[-1] for name in layers}),
    }
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    safetensors.torch.save_file(state, folder / TENSORS)


@torch.no_grad()
def put(state: dict[str, Tensor], layers: dict[str, Any]) -> None:
    """Copy an adapter's numbers into layers, in place.

    Raises:
        ValueError: if names or shapes differ, or a layer is merged; then nothing has changed.
    """
    targets = {
        f"base_model.model.{name}.lora_{letter}.weight": weight
        for name, layer in layers.items()
        for letter, weight in (("A", layer.A), ("B", layer.B))
    }
    shapes = {key: tensor.shape for key, tensor in state.items()}
    if {key: weight.shape for key, weight in targets.items()} != shapes:
        raise ValueError("this adapter has other layers, or another rank, than the model's")
    if any(layer.merged for layer in layers.values()):
        raise ValueError("the model's adapter is merged: unmerge it first")
    for key, weight in targets.items():
        weight.copy_(state[key])


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the tensors of an adapter that peft or `write` wrote.

    Raises:
        ValueError: if it is scaled by another factor than α/r, or isn't a plain LoRA adapter.
    """
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    scaled = ("use_rslora", "alpha_pattern", "rank_pattern", "use_dora")
    if any(config.get(key) for key in scaled):
        raise ValueError("this adapter is scaled otherwise than by α/r")
    return config, safetensors.torch.load_file(folder / TENSORS)


def size(folder: Path) -> int:
    """Return the bytes of the tensors' file."""
    return (folder / TENSORS).stat().st_size


def write_card(folder: Path, model: str, size: str, seed: int, system: str) -> None:
    """Write a README that says what the adapter is for."""
    card = f"""# A LoRA adapter of {model}

Trained in LLM07 of llm-labs, at size {size} with seed {seed}. It turns requests for seats into
records such as `OSL-FRI-3`, with the system prompt "{system}"
It belongs to a lesson and is not for anything else. peft opens it, on its base model only.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")
