"""Convert SmolLM2 from GGUF, and glassllm's model from numpy, to transformers and safetensors."""

import json
import sys
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The names of weights in a GGUF file, and transformers' names.
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "blk.": "model.layers.",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_output": "self_attn.o_proj",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_smollm2(folder: Path, to: Path) -> None:
    """Dequantize SmolLM2's GGUF file in `folder` and save the model in `to`.

    A weight is d·q + m, of 4 bits and two numbers in float16, rounded to float16 to halve the file.
    This changes 25 % of the weights, by at most 2⁻¹¹ of their size; bfloat16 would change 67 %. On
    1,500 tokens the loss changes from 3.06764 to 3.06760, the logits by at most 0.036, and no
    token that is predicted first. The model still opens in float32, in which the labs compute.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.integrations.gguf.reader import read_gguf_metadata

    facts, _ = read_gguf_metadata(str(folder / GGUF))
    heads = facts["llama.attention.head_count"]
    width = facts["llama.embedding_length"]
    config = LlamaConfig(
        _model_name_or_path=facts["general.name"],
        vocab_size=facts["llama.vocab_size"],
        hidden_size=width,
        intermediate_size=facts["llama.feed_forward_length"],
        num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=facts["llama.attention.head_count_kv"],
        max_position_embeddings=facts["llama.context_length"],
        rms_norm_eps=facts["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": facts["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=facts["tokenizer.ggml.bos_token_id"],
        eos_token_id=facts["tokenizer.ggml.eos_token_id"],
        pad_token_id=facts["tokenizer.ggml.padding_token_id"],
        unk_token_id=facts["tokenizer.ggml.unknown_token_id"],
        quantization_config=None,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(
        _smollm2_weights(folder / GGUF, width // heads), strict=False, assign=True
    )
    model.tie_weights()
    model.half().save_pretrained(to)
    _open_in_float32(to)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=GGUF)
    # The file's pre-tokenizer "smollm" splits digits and then applies GPT-2's pattern. transformers
    # only applies the pattern, which gives other tokens for a number after several spaces.
    digits = pre_tokenizers.Digits(individual_digits=True)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, gpt2])
    tokenizer.save_pretrained(to)
    _check_weights(model, to)


def _smollm2_weights(file: Path, head_dim: int):
    """Return the dequantized weights of a GGUF file, with transformers' names.

    transformers itself opens a model of this architecture through gguf's reader, which takes 6 s
    for the vocabulary.
    """
    from transformers.integrations.gguf.dequant import GGML_BLOCK, dequantize
    from transformers.integrations.gguf.reader import GgufHeader, load_gguf_state_dict

    header = GgufHeader.from_file(str(file))
    stored = load_gguf_state_dict(header)
    state = {}
    for tensor in header.tensors:
        weight = stored[tensor.name][...]
        if tensor.ggml_type in GGML_BLOCK:
            weight = dequantize(weight, tensor.ggml_type).reshape(tensor.shape)
        name = tensor.name
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            weight = _reorder(weight, head_dim)
        for old, new in NAMES.items():
            name = name.replace(old, new)
        state[name] = weight
    return state


def _open_in_float32(folder: Path) -> None:
    """Let `from_pretrained` without a dtype give float32, whatever type the file has."""
    config = folder / "config.json"
    facts = json.loads(config.read_text(encoding="utf-8"))
    facts["dtype"] = "float32"
    config.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def convert_glass(folder: Path, to: Path) -> None:
    """Convert glassllm's model, a Llama in numpy, to transformers and save it in `to`."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with np.load(folder / "weights" / "en.npz") as arrays:
        config = json.loads(str(arrays["__config__"]))
        names = [name for name in arrays.files if not name.startswith("_")]
        weights = {name: torch.tensor(arrays[name]).float() for name in names}
    width = config["d_model"]
    heads = config["n_heads"]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config["vocab_size"],
            hidden_size=width,
            intermediate_size=weights["blocks.0.ffn.W1"].shape[1],
            num_hidden_layers=config["n_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config["n_kv_heads"],
            max_position_embeddings=config["max_len"],
            rms_norm_eps=config["eps"],
            rope_parameters={"rope_type": "default", "rope_theta": config["rope_base"]},
            tie_word_embeddings=True,
            bos_token_id=2,
            eos_token_id=3,
            pad_token_id=0,
        )
    )
    state = {
        "model.embed_tokens.weight": weights["E"],
        "model.norm.weight": weights["norm_f.gamma"],
    }
    for i in range(config["n_layers"]):
        state |= _block(weights, f"blocks.{i}.", f"model.layers.{i}.", width // heads)
    model.load_state_dict({**state, "lm_head.weight": weights["E"]})
    model.save_pretrained(to)
    file = folder / "weights" / "en.tokenizer.json"
    _glass_tokenizer(file, config["max_len"]).save_pretrained(to)
    _check_weights(model, to)


def _reorder(weight, head_dim: int):
    """Reorder the rows of a query or key projection within each head, for transformers.

    The rotary embedding of GGUF and glassllm rotates coordinates 2i and 2i + 1 of a head,
    transformers' rotates i and i + D/2.
    """
    pairs = weight.unflatten(0, (-1, head_dim // 2, 2))  # (H, D/2, 2, C)
    return pairs.transpose(1, 2).flatten(0, 2).contiguous()  # (H * D, C)


def _block(weights, source: str, target: str, head_dim: int):
    """Return a block's weights with transformers' names and shapes, (out, in) for (in, out)."""
    names = {"attn.W_V": "self_attn.v", "attn.W_O": "self_attn.o"}
    names |= {"ffn.W1": "mlp.gate", "ffn.W3": "mlp.up", "ffn.W2": "mlp.down"}
    state = {}
    for old, new in names.items():
        state[f"{target}{new}_proj.weight"] = weights[source + old].T.contiguous()
    for old, new in (("attn.W_Q", "self_attn.q"), ("attn.W_K", "self_attn.k")):
        state[f"{target}{new}_proj.weight"] = _reorder(weights[source + old].T, head_dim)
    state[f"{target}input_layernorm.weight"] = weights[source + "norm1.gamma"]
    state[f"{target}post_attention_layernorm.weight"] = weights[source + "norm2.gamma"]
    return state


def _glass_tokenizer(file: Path, max_length: int):
    """Return glassllm's tokenizer, a BPE of characters with ▁ for a space, for transformers."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    data = json.loads(file.read_text(encoding="utf-8"))
    merges = [(a, b) for a, b in data["merges"]]
    specials = ["<pad>", "<unk>", "<bos>", "<eos>"]
    vocabulary = [*specials, *data["alphabet"], *(a + b for a, b in merges)]
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", "▁")])
    chunks = Regex(r"\n|▁*[^▁\n]+|▁+")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(chunks, "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
    )


def _check_weights(model, folder: Path) -> None:
    """Open the saved model, and compare its weights and their type, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    written = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name, weight in model.state_dict().items():
        if not torch.equal(weight.float(), written[name]):
            sys.exit(f"assets: {name} has other values in the saved model")
