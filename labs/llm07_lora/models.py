"""The two models of LLM07: SmolLM2, which is real, and glass, which trains in a second."""

import copy
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from labs.kit import Card, Run, assets

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()  # these weights load in less than a second
warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")  # peft uses the old name

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
ALL = (*ATTENTION, *MLP)  # every linear layer of a Llama's block
QV = ("q_proj", "v_proj")  # where Hu et al. (2021) put most of their adapters


def open_model(path: str | Path) -> Any:
    """Open a model in float32."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@cache
def _glass() -> Any:
    return open_model(assets.glass())


def glass() -> Any:
    """Return a new copy of the tiny model: 4 layers, d = 128."""
    return copy.deepcopy(_glass())  # ten times as fast as reading the file


@cache
def glass_tokenizer() -> Any:
    """Open glass's tokenizer; its backend encodes without special tokens."""
    return AutoTokenizer.from_pretrained(assets.glass())


@cache
def _tokenizer(path: str) -> Any:
    return AutoTokenizer.from_pretrained(path)


def smollm2(run: Run) -> tuple[Any, Any]:
    """Open SmolLM2, or the model that --model names, and its tokenizer.

    Raises:
        Card: for a model whose linear layers don't have the names of Llama's.
    """
    path = assets.pretrained(run.options.model, run.online)
    model = open_model(path)
    tokenizer = _tokenizer(path)
    missing = set(ALL) - {name.split(".")[-1] for name, _ in model.named_modules()}
    if missing:
        why = f"It has no layers called {', '.join(sorted(missing))}."
        raise Card(f"{path} isn't made like Llama.", why, "another model: --model …")
    if tokenizer.eos_token is None:  # it was never taught to stop: a line's end does it
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(tokenizer("\n").input_ids[-1])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer


def take_out(model: Any) -> Any:
    """Put the base layers back where they were; a merged layer keeps its update."""
    for name, layer in _adapted(model).items():
        model.set_submodule(name, layer.base)
    return model


def randomize(model: Any) -> Any:
    """Give every B random numbers: an adapter that does something, without training."""
    for layer in _adapted(model).values():
        nn.init.normal_(layer.B, std=0.05)
    return model


def _adapted(model: nn.Module) -> dict[str, Any]:
    """Return the layers with an adapter, by name: a learner's sheet has its own class of them."""
    modules = model.named_modules()
    return {
        name: module for name, module in modules if hasattr(module, "A") and hasattr(module, "base")
    }


def in_float64(model: Any) -> Any:
    """Return the model in float64, norms included: transformers' RMSNorm computes in float32."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "variance_epsilon"):
            norm = nn.RMSNorm(len(module.weight), module.variance_epsilon)
            norm.weight = module.weight
            model.set_submodule(name, norm)
    return model.double()
