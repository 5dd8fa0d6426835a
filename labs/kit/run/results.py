"""results.json: the findings of a run, reproducible but for two keys, `timings` and `guesses`."""

import json
import math
import resource
from pathlib import Path
from typing import Any

from labs.course.syllabus import Lesson
from labs.kit.records import Check, Experiment, Measurement


def as_data(
    lesson: Lesson, environment: dict[str, Any], experiments: list[Experiment], closing: str
) -> dict[str, Any]:
    """Return the run as JSON data.

    Runs with the same `environment` agree in all keys but `timings` and `guesses`.
    """
    return {
        "lab": lesson.name,
        "title": lesson.title,
        "passed": all(experiment.passed for experiment in experiments),
        "experiments": [_experiment(experiment) for experiment in experiments],
        "closing": closing,
        "environment": environment,
        "guesses": {one.name: one.guess for one in experiments if one.guess},
        "timings": {
            "seconds": sum(experiment.seconds for experiment in experiments),
            "peak_memory_mib": peak_memory_mib(),
            "experiments": {experiment.name: _timed(experiment) for experiment in experiments},
        },
    }


def _experiment(experiment: Experiment) -> dict[str, Any]:
    untimed = [one for one in experiment.measurements if not one.timed]
    return {
        "name": experiment.name,
        "claim": experiment.claim,
        "verdict": _reproducible_verdict(experiment),
        "crash": experiment.crash,
        "checks": [_check(check) for check in experiment.checks],
        "measurements": [_measurement(measurement) for measurement in untimed],
    }


def _reproducible_verdict(experiment: Experiment) -> str:
    """Return the verdict, unless a timed measurement decides it: then it is in `timings`."""
    decided_by_time = any(one.timed and one.decides for one in experiment.measurements)
    return "see timings" if decided_by_time else experiment.verdict


def _timed(experiment: Experiment) -> dict[str, Any]:
    timed = [_measurement(one) for one in experiment.measurements if one.timed]
    return {
        "seconds": experiment.seconds,
        "verdict": experiment.verdict,
        "measurements": timed,
    }


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "values": [_finite(value) for value in check.values],
        "bound": check.bound,
        "passed": check.passed,
        "decides": check.decides,
        "because": check.because,
    }


def _measurement(measurement: Measurement) -> dict[str, Any]:
    return {
        "name": measurement.name,
        "values": [_finite(value) for value in measurement.values],
        "unit": measurement.unit,
        "expected": str(measurement.bound),
        "verdict": measurement.verdict,
        "decides": measurement.decides,
        "because": measurement.because,
    }


def _finite(value: Any) -> Any:
    """Return NaN and infinity as text: JSON has neither."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def peak_memory_mib() -> float:
    """Return the largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(data: dict[str, Any], path: Path) -> None:
    """Write `data` in one step: a reader never sees an incomplete file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    part.replace(path)
