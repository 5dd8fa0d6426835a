"""Shapes of published transformers, and how to measure the FLOPs and bytes of a model."""

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, replace
from functools import cache
from typing import Any

from labs.kit import Card, Run, assets

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Transformer:
    """The shape of a decoder, as its configuration gives it."""

    vocabulary: int  # V
    width: int  # d
    layers: int  # L
    heads: int  # H
    kv_heads: int  # H_kv
    head_dim: int  # D
    ffn: int  # f
    tied: bool = False
    gated: bool = True
    biases: bool = False  # in all matrices but the output, and in the norms
    positions: int = 0  # learned position vectors; 0 for rotary ones


# Sources: Radford et al. 2019, Table 2, and the hparams.json of OpenAI's release; Allal et al. 2025
# (SmolLM2); Touvron et al. 2023 (Llama 2); Grattafiori et al. 2024, Table 3; their config.json.
GPT2 = Transformer(
    50257, 768, 12, 12, 12, 64, 3072, tied=True, gated=False, biases=True, positions=1024
)
SMOLLM2 = Transformer(49152, 576, 30, 9, 3, 64, 1536, tied=True)
PUBLISHED = {
    "GPT-2": GPT2,
    "GPT-2 XL": replace(GPT2, width=1600, layers=48, heads=25, kv_heads=25, ffn=6400),
    "SmolLM2-135M": SMOLLM2,
    "Llama-2-7B": Transformer(32000, 4096, 32, 32, 32, 128, 11008),
    "Llama-3-8B": Transformer(128256, 4096, 32, 32, 8, 128, 14336),
}
LLAMA_NAMES = (  # the first eight fields, as a Llama's config.json names them
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "tie_word_embeddings",
)


def library_model(s: Transformer) -> Any:
    """Return a model of transformers with this shape, its attention as plain products."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    plain: dict[str, Any] = {"attn_implementation": "eager"}
    if not s.positions:
        named: dict[str, Any] = dict(zip(LLAMA_NAMES, astuple(s), strict=False))
        return LlamaForCausalLM(LlamaConfig(**named, **plain))
    sizes: dict[str, Any] = {"n_embd": s.width, "n_layer": s.layers, "n_head": s.heads}
    sizes |= {"n_inner": s.ffn, "vocab_size": s.vocabulary, "n_positions": s.positions}
    # the default ids may lie outside of a small vocabulary
    sizes |= dict.fromkeys(("bos_token_id", "eos_token_id"))
    return GPT2LMHeadModel(GPT2Config(**sizes, **plain))


@cache
def language_model(run: Run) -> tuple[Any, Transformer]:
    """Return SmolLM2, or the model of --model, and its shape.

    Raises:
        Card: for a model with another architecture than Llama's.
    """
    from transformers import AutoModelForCausalLM

    path = assets.pretrained(run.options.model, run.online)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    config = model.config
    if config.model_type not in ("llama", "mistral") or getattr(config, "attention_bias", False):
        why = "This lab counts Llama's parts, and others have biases, experts or more norms."
        fix = "the same command without --model, for the embedded SmolLM2"
        raise Card(f"{config.model_type} isn't made like Llama.", why, fix)
    return model.to(run.device), Transformer(*(getattr(config, name) for name in LLAMA_NAMES))


def counted_flops(call: Callable[[], Any]) -> tuple[Any, int]:
    """Return the result of a call, and the FLOPs that PyTorch counts in it."""
    with FlopCounterMode(display=False) as counter:
        result = call()
    return result, counter.get_total_flops()


def storage_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Return the bytes of the storages behind tensors, each storage counted once."""
    storages = [t.untyped_storage() for t in tensors if t is not None]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def saved_bytes(model: nn.Module, tokens: Tensor) -> int:
    """Return what a forward pass saves for backward besides the parameters, by autograd's hook."""
    saved: list[Tensor] = list(model.parameters())
    weights = storage_bytes(saved)

    def save(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        model(tokens, use_cache=False)
    return storage_bytes(saved) - weights


def count_in_a_fused_kernel(run: Run, forward_flops: Callable[..., int]) -> None:
    """Count a small model with numbers, in plain products and with a fused attention."""
    s = replace(SMOLLM2, layers=2, vocabulary=320)
    model = library_model(s)
    tokens = torch.randint(320, (2, 32))
    _, plain = counted_flops(lambda: model(tokens))
    formula = forward_flops(s, 2, 32)
    run.check("a small model with numbers: forward", formula, equals=plain, decides=True)
    model.set_attn_implementation("sdpa")
    _, fused = counted_flops(lambda: model(tokens))
    missed = (plain - fused) / (8 * s.layers * s.heads * s.head_dim * 32**2)
    because = "the counter has no formula for the CPU's fused kernel"
    run.measure("share of the T² terms that a fused kernel hides", missed, because=because)
