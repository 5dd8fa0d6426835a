"""The two files of an adapter, as peft writes them: its configuration and its tensors."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"


def write(
    folder: Path, state: dict[str, Tensor], base: str, rank: int, alpha: float, targets: list[str]
) -> None:
    """Write an adapter; `base` is the name or path of the model that it belongs to."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": targets,
    }
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    safetensors.torch.save_file(state, folder / TENSORS)


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
