"""The folder of the image or the environment that this Python is in: models and records."""

import json
import os
import sys
from pathlib import Path

from common.cards import Card


def home() -> Path:
    """Return the folder with assets/ and stack.json of the image or the environment.

    Raises:
        Card: if this Python belongs to neither and LABS_HOME isn't set.
    """
    beside_the_environment = Path(sys.prefix).parent / "home"
    folder = Path(os.environ.get("LABS_HOME") or beside_the_environment)
    if not folder.is_dir():
        raise Card(
            "The labs' models are missing.",
            "This Python belongs neither to the image nor to the environment.",
            "invoke lab …; or build an environment: invoke build --runtime venv",
        )
    return folder


def rebuild_command() -> str:
    """Return the command that repairs the image or the environment that this Python is in."""
    try:
        stack = json.loads((home() / "stack.json").read_text(encoding="utf-8"))
        in_image = stack["base"] is not None
    except (Card, OSError, ValueError, KeyError, TypeError):
        in_image = Path(sys.prefix) == Path("/opt/labs/venv")
    if in_image:
        return "invoke build; if that changes nothing, first: docker builder prune --all"
    return "rm -r .lab-env && invoke build --runtime venv"
