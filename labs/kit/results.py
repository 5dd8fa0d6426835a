"""results.json: what a run found, reproducibly; what can't be reproduced has keys of its own."""

import hashlib
import json
import math
import platform
import resource
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labs.kit.assets import home
from labs.kit.cards import Card
from labs.kit.device import describe_device
from labs.kit.records import Check, Experiment, Measurement
from labs.kit.run import Run
from labs.kit.syllabus import Lesson

PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy")


def environment(run: Run, lesson: Lesson) -> dict[str, Any]:
    """What the results depend on: code, versions, device, threads, precision, seed, size."""
    import torch

    return {
        "lab_sha256": hashlib.sha256(lesson.source.encode()).hexdigest(),
        **({} if lesson.yours is None else {"written_by_you": ", ".join(lesson.yours)}),
        "stack": stack(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "device": describe_device(run.device),
        "threads": torch.get_num_threads(),
        "processes": run.accelerator.num_processes,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": run.precision,
        "size": run.size,
        "seed": run.seed,
        "online": run.online,
        "options": {name: str(value) for name, value in vars(run.options).items()},
    }


def stack() -> dict[str, Any]:
    """What the image or the environment was built from; empty for a Python of one's own."""
    try:
        return json.loads((home() / "stack.json").read_text(encoding="utf-8"))
    except (Card, FileNotFoundError):
        return {}


def as_data(lesson: Lesson, env: dict[str, Any], experiments: list[Experiment]) -> dict[str, Any]:
    """The run as JSON data. Runs that agree in `environment` agree in all but two keys.

    These are `timings`, and `guesses`: what the learner expected.
    """
    return {
        "lab": lesson.name,
        "title": lesson.title,
        "passed": all(experiment.passed for experiment in experiments),
        "experiments": [_experiment(experiment) for experiment in experiments],
        "environment": env,
        "guesses": {one.name: one.guess for one in experiments if one.guess},
        "timings": {
            "seconds": sum(experiment.seconds for experiment in experiments),
            "peak_memory_mib": peak_memory_mib(),
            "experiments": {one.name: _timed(one) for one in experiments},
        },
    }


def _experiment(experiment: Experiment) -> dict[str, Any]:
    untimed = [one for one in experiment.measurements if not one.timed]
    return {
        "name": experiment.name,
        "claim": experiment.claim,
        "crash": experiment.crash,
        "checks": [_check(check) for check in experiment.checks],
        "measurements": [_measurement(one) for one in untimed],
    }


def _timed(experiment: Experiment) -> dict[str, Any]:
    timed = [_measurement(one) for one in experiment.measurements if one.timed]
    return {"seconds": experiment.seconds, "measurements": timed}


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "values": [_finite(value) for value in check.values],
        "bound": check.bound,
        "passed": check.passed,
        "because": check.because,
    }


def _measurement(one: Measurement) -> dict[str, Any]:
    return {
        "name": one.name,
        "values": [_finite(value) for value in one.values],
        "unit": one.unit,
        "expected": str(one.bound),
        "verdict": one.verdict,
        "because": one.because,
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are told as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def peak_memory_mib() -> float:
    """The largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(data: dict[str, Any], path: Path) -> None:
    """Write `data` in one step: a reader never sees half a file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    part.replace(path)
