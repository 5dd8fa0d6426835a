"""Convert between LLM10's model and LlamaForCausalLM of transformers.

Both give their modules the same names. Only the rows of W_q and W_k are in another order: we turn
neighbouring coordinates as pairs, (2i, 2i + 1), and transformers turns (i, i + D/2).
"""

from collections.abc import Callable
from typing import Any

from common.cards import WRONG_USAGE
from labs.kit import Card
from labs.llm10_llama.parts import Config

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

PREFIX = "model."
TURNED = ("q_proj.weight", "k_proj.weight")


def to_halves(rows: Tensor, head_dim: int) -> Tensor:
    """Move each head's rows (2i, 2i + 1) to (i, i + D/2): (H·D, …) -> (H·D, …)."""
    pairs = rows.unflatten(0, (-1, head_dim // 2, 2))  # (H, D/2, 2, …)
    return pairs.transpose(1, 2).flatten(0, 2)


def to_neighbours(rows: Tensor, head_dim: int) -> Tensor:
    """Move rows back: find out where `to_halves` puts each row, and fetch it from there."""
    return rows[to_halves(torch.arange(len(rows)), head_dim).argsort()]


def as_they_are(rows: Tensor, head_dim: int) -> Tensor:
    """Return the rows in their old order, which is wrong in the other model."""
    del head_dim
    return rows


def renamed(tensors: dict[str, Tensor], head_dim: int) -> dict[str, Tensor]:
    """Return our weights, or their gradients, by transformers' names and in its layout."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        rows = to_halves(tensor, head_dim) if name.endswith(TURNED) else tensor
        theirs[name if name.startswith("lm_head") else PREFIX + name] = rows
    return theirs


def to_transformers(model: Any) -> Any:
    """Return a LlamaForCausalLM with the weights of our model."""
    c: Config = model.config
    end = c.vocabulary - 1
    config = LlamaConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.d_model,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        intermediate_size=c.d_ff,
        max_position_embeddings=c.context,
        rms_norm_eps=c.eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.theta},
        tie_word_embeddings=c.tied,
        initializer_range=c.std,
        bos_token_id=end,
        eos_token_id=end,
    )
    theirs: Any = LlamaForCausalLM(config)
    # not in the model's configuration: its embedding of a padding token would get no gradient
    theirs.generation_config.pad_token_id = end
    weights = renamed(model.state_dict(), c.head_dim)
    theirs.to(model.embed_tokens.weight.dtype).load_state_dict(weights)
    return theirs


def what_ours_lacks(t: Any) -> str:
    """Return the features of a configuration that our model lacks, as text, or ""."""
    if t.model_type != "llama":
        return f"the architecture {t.model_type!r}"
    foreign = {
        "biases": t.attention_bias or t.mlp_bias,
        "heads that aren't d/H wide": t.head_dim * t.num_attention_heads != t.hidden_size,
        f"the activation {t.hidden_act!r}": t.hidden_act != "silu",
        "positions that aren't plain RoPE": t.rope_parameters["rope_type"] != "default",
    }
    return ", ".join(name for name, present in foreign.items() if present)


def config_from(t: Any) -> Config:
    """Return the shape of a LlamaForCausalLM.

    Raises:
        Card: for another architecture, or a Llama with features that ours lacks.
    """
    if foreign := what_ours_lacks(t):
        why = f"Ours is a plain Llama; this one has {foreign}."
        raise Card("Its weights have no place in our model.", why, "another --model", WRONG_USAGE)
    return Config(
        vocabulary=t.vocab_size,
        d_model=t.hidden_size,
        layers=t.num_hidden_layers,
        heads=t.num_attention_heads,
        kv_heads=t.num_key_value_heads,
        d_ff=t.intermediate_size,
        context=t.max_position_embeddings,
        theta=t.rope_parameters["rope_theta"],
        eps=t.rms_norm_eps,
        tied=t.tie_word_embeddings,
        std=t.initializer_range,
    )


def from_transformers(
    theirs: Any,
    make: Callable[[Config], Any],
    convert: Callable[[Tensor, int], Tensor] = to_neighbours,
) -> Any:
    """Return our model with the weights of a LlamaForCausalLM.

    Args:
        theirs: the LlamaForCausalLM.
        make: makes our model from a Config.
        convert: reorders the rows of W_q and W_k.

    Raises:
        Card: for another architecture, or a Llama with features that ours lacks.
    """
    config = config_from(theirs.config)
    with torch.device("meta"):  # shapes without numbers: they will be replaced
        model = make(config)
    weights: dict[str, Tensor] = {}
    for name, tensor in theirs.state_dict().items():
        turned = name.endswith(TURNED)
        rows = convert(tensor, config.head_dim) if turned else tensor
        weights[name.removeprefix(PREFIX)] = rows
    model.load_state_dict(weights, assign=True)
    if config.tied:
        model.tie()
    return model
