"""Each lab with ten other seeds, in both precisions, and how close each check is to its bound.

Run by hand, because a lab takes a quarter of an hour: invoke test -- -n 0 -m sweep -k LLM06 -s
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common.syllabus import Lesson, lessons
from tests.conftest import Clone

import pytest

SEEDS = range(1, 11)
AT_ONCE = os.cpu_count() or 1  # each on one thread: a sweep measures chance, not speed


def results(clone: Clone, lab: str, seed: int) -> dict[str, Any]:
    """Return the results for a seed: odd seeds train in bf16, even seeds in fp32."""
    outputs = clone.path / f"seed-{seed}"
    precision = "bf16" if seed % 2 else "fp32"
    options = ("--seed", str(seed), "--precision", precision, "--size", "tiny")
    ended = clone.labs(lab, *options, "--outputs", str(outputs), OMP_NUM_THREADS="1")
    found = [*outputs.glob(f"{lab}/*/results.json")]
    assert len(found) == 1, ended
    return json.loads(found[0].read_text(encoding="utf-8"))


def margin(value: float, bound: str) -> float:
    """Return how far a value is on the right side of its bound, as a factor; 1 is the bound."""
    side, _, number = bound.rpartition(" ")
    if side == "at most":
        return float(number) / value if value > 0 else float("inf")
    if side == "at least":
        least = float(number)
        # a bound of 0 or below has no factor
        return value / least if least > 0 else float("inf" if value >= least else "-inf")
    return float("inf")


def margins(runs: list[dict[str, Any]]) -> list[tuple[float, str, str, list[float]]]:
    """Return each check that depends on the seed: smallest margin, name, bound and values."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for experiment in run["experiments"]:
            for check in experiment["checks"]:
                name = f"{experiment['name']}: {check['name']}"
                values = [one for one in check["values"] if isinstance(one, int | float)]
                found.setdefault((name, check["bound"]), []).extend(values)
    rows = [
        (min(margin(one, bound) for one in values), name, bound, values)
        for (name, bound), values in found.items()
        if len(set(values)) > 1
    ]
    return sorted(rows)


@pytest.mark.sweep
@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)
def test_a_lab_passes_with_ten_other_seeds(lesson: Lesson, clone: Clone, labs_home: Path) -> None:
    os.environ.setdefault("LABS_HOME", str(labs_home))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = list(pool.map(lambda seed: results(clone, lesson.name, seed), SEEDS))
    print(f"\n{lesson.name}: the smallest margins of checks that depend on the seed")
    for least, name, bound, values in margins(runs):
        print(f"{least:8.3g} × {name} ({bound}; {min(values):.3g} to {max(values):.3g})")
    failed = [
        f"seed {seed}: {experiment['name']}: {check['name']} {check['values']} ({check['bound']})"
        for seed, run in zip(SEEDS, runs, strict=True)
        for experiment in run["experiments"]
        for check in experiment["checks"]
        if not check["passed"]
    ]
    crashed = [
        f"seed {seed}: {experiment['name']} crashed"
        for seed, run in zip(SEEDS, runs, strict=True)
        for experiment in run["experiments"]
        if experiment["crash"]
    ]
    assert failed + crashed == []


def test_a_margin_is_a_factor_from_the_bound() -> None:
    assert margin(0.05, "at most 0.1") == 2
    assert margin(3, "at least 1.5") == 2
    assert margin(0, "at most 1e-12") == float("inf")
    assert margin(-1, "at least 2") == -0.5
