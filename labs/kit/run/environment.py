"""What the results of a run depend on: code, versions, device, threads, precision, seed, size."""

import hashlib
import json
import platform
from dataclasses import fields
from importlib.metadata import version
from typing import Any

from common.cards import Card
from common.syllabus import Lesson
from labs.kit.asset_hashes import weights_hashes
from labs.kit.home import home, rebuild_command
from labs.kit.run.devices import describe_device
from labs.kit.run.run import Run

PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy")


def environment(run: Run, lesson: Lesson) -> dict[str, Any]:
    """Return everything that the results of a run depend on."""
    import torch

    return {
        "lab_sha256": hashlib.sha256(lesson.source.encode()).hexdigest(),
        **({} if lesson.yours is None else {"written_by_you": ", ".join(lesson.yours)}),
        "stack": stack(),
        "models_sha256": weights_hashes(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "device": describe_device(run.device),
        "threads": torch.get_num_threads(),
        "processes": run.accelerator.num_processes,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": run.precision,
        "precision_because": run.why_precision,
        "size": run.size,
        "seed": run.seed,
        "online": run.online,
        "options": {one.name: str(getattr(run.options, one.name)) for one in fields(run.options)},
    }


def stack() -> dict[str, Any]:
    """Return what the image or the environment was built from; empty for any other Python."""
    try:
        return json.loads((home() / "stack.json").read_text(encoding="utf-8"))
    except (Card, FileNotFoundError):
        return {}
    except ValueError as error:
        what = "The record of the image or the environment is damaged."
        why = f"{home() / 'stack.json'} isn't JSON."
        raise Card(what, why, rebuild_command()) from error
