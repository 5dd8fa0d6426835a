"""The results of a run: for the closing of its lab, and as results.json."""

import json
import math
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from common import source
from common.syllabus import Lesson
from labs.kit.records import Check, Experiment, Figure, Measurement, show_values

SEE_TIMINGS = "see timings"


class Results:
    """The results of a run, for a closing that is computed from them.

    Args:
        experiments: the experiments of the run.

    Attributes:
        timed: whether a verdict or a value that was asked for depends on a timing.
    """

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        """Index the experiments by name."""
        self._experiments = {experiment.name: experiment for experiment in experiments}
        self.timed = False

    def verdict(self, experiment: str) -> str:
        """Return the verdict on an experiment's claim.

        Raises:
            KeyError: if the run has no such experiment.
        """
        found = self._find(experiment)
        self.timed |= found.decided_by_time
        return found.verdict

    def values(self, experiment: str, name: str) -> list[Any]:
        """Return the values of a check or measurement.

        Raises:
            KeyError: if the run has no such experiment, or the experiment no such item.
        """
        for item in self._find(experiment).items:
            if isinstance(item, Check | Measurement) and item.name == name:
                self.timed |= isinstance(item, Measurement) and item.timed
                return item.values
        raise KeyError(f"{experiment} has no check or measurement {name!r}")

    def value(self, experiment: str, name: str) -> float:
        """Return the value of a check or measurement, the median of several."""
        return float(median(self.values(experiment, name)))

    def shown(self, experiment: str, name: str) -> str:
        """Return the values of a check or measurement, formatted."""
        return show_values(self.values(experiment, name))

    def _find(self, experiment: str) -> Experiment:
        if experiment not in self._experiments:
            raise KeyError(f"the run has no experiment {experiment!r}")
        return self._experiments[experiment]


@dataclass(frozen=True)
class Closing:
    """The closing of a lab.

    Attributes:
        text: Markdown; empty for a lab without a closing.
        timed: whether a second run with the same seed may give another text.
    """

    text: str = ""
    timed: bool = False


def compute_closing(
    function: Callable[[Results], str], experiments: Sequence[Experiment]
) -> Closing:
    """Compute the closing of a lab from the results of its experiments."""
    results = Results(experiments)
    text = function(results)
    return Closing(text, results.timed)


def as_data(
    lesson: Lesson,
    environment: dict[str, Any],
    experiments: Sequence[Experiment],
    closing: Closing,
    commands: dict[str, str],
) -> dict[str, Any]:
    """Return the run as JSON data.

    Runs with the same `environment` and experiments agree in all keys but `timings` and `guesses`.

    Args:
        lesson: the lab.
        environment: what the results depend on.
        experiments: what was found.
        closing: the closing of the lab.
        commands: the command that repeats an experiment, by the experiment's name.
    """
    ran = [experiment.name for experiment in experiments]
    return {
        "lab": lesson.name,
        "title": lesson.title,
        "passed": all(experiment.passed for experiment in experiments),
        "experiments": [_experiment(experiment) for experiment in experiments],
        "not_run": [name for name in source.experiments(lesson.source) if name not in ran],
        "commands": commands,
        "closing": SEE_TIMINGS if closing.timed else closing.text,
        "environment": environment,
        "guesses": {one.name: one.guess for one in experiments if one.guess},
        "timings": {
            "seconds": sum(experiment.seconds for experiment in experiments),
            "peak_memory_mib": peak_memory_mib(),
            "experiments": {experiment.name: _timed(experiment) for experiment in experiments},
            "closing": closing.text,
        },
    }


def _experiment(experiment: Experiment) -> dict[str, Any]:
    untimed = [one for one in experiment.measurements if not one.timed]
    return {
        "name": experiment.name,
        "claim": experiment.claim,
        "verdict": SEE_TIMINGS if experiment.decided_by_time else experiment.verdict,
        "crash": experiment.crash,
        "checks": [_check(check) for check in experiment.checks],
        "measurements": [_measurement(measurement) for measurement in untimed],
        "figures": [item.path.name for item in experiment.items if isinstance(item, Figure)],
    }


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
