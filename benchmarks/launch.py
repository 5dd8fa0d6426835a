"""Measure what the launcher adds to a lab, compared with its container and its bare script.

    .venv/bin/python benchmarks/launch.py [--rounds 5] [--lab LLM06]

`invoke lab`, its `docker run` line and the bare script take turns, so that a slower moment of the
machine affects all three. The output has the medians of the times, and of the differences and
ratios in each round. The first lab does nothing; it is in a copy of this clone, which the benchmark
removes. The second is a real lab. Then `invoke --list` is compared with that of a bare Invoke
project. Needs a container engine and both runtimes: `invoke build`, `invoke build --runtime venv`.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
INVOKE = str(Path(sys.executable).parent / "invoke")
EMPTY_LAB = """# %% [markdown]
# # LLM90 · Nothing
# Does nothing.
class lab:
    @staticmethod
    def run(*_):
        return 0
"""
BARE_TASKS = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"


def seconds(command: str, folder: Path) -> float:
    """Return the wall-clock time of one run of a shell command; discard its output."""
    start = time.perf_counter()
    subprocess.run(
        command,
        shell=True,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def take_turns(commands: dict[str, str], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each command in each round, after one warm-up."""
    for command in commands.values():
        seconds(command, folder)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(seconds(command, folder))
    return times


def show(title: str, times: dict[str, list[float]]) -> None:
    """Print medians, and the first command relative to each other one, round by round."""
    print(f"\n{title}")
    first, *others = times
    for name, values in times.items():
        print(f"  {name:22} {median(values):7.2f} s  [{min(values):.2f}, {max(values):.2f}]")
    for other in others:
        pairs = list(zip(times[first], times[other], strict=True))
        difference = median(a - b for a, b in pairs)
        ratio = median(a / b for a, b in pairs)
        print(f"  {first} − {other}: {difference:+.2f} s, ratio {ratio:.2f}")


def pasted_line(folder: Path, lab: str, runtime: str) -> str:
    """Return the last command that `invoke --dry` prints."""
    dry = [INVOKE, "--dry", "lab", lab, "--runtime", runtime]
    printed = subprocess.run(dry, cwd=folder, check=True, capture_output=True, text=True).stdout
    return printed.strip().splitlines()[-1]


def compare(folder: Path, lab: str, rounds: int, title: str) -> None:
    """Measure a lab in the three ways and print the comparison."""
    commands = {
        "invoke lab": f"{INVOKE} lab {lab} --runtime docker",
        "docker run": pasted_line(folder, lab, "docker"),
        "bare script": pasted_line(folder, lab, "venv"),
    }
    show(title, take_turns(commands, folder, rounds))


def clone_with_empty_lab(folder: Path) -> Path:
    """Copy this clone, add the empty lab and share the environment."""
    clone = folder / "clone"
    ignored = shutil.ignore_patterns("outputs", ".git", ".venv", ".lab-env", "__pycache__")
    shutil.copytree(ROOT, clone, ignore=ignored)
    (clone / ".lab-env").symlink_to(ROOT / ".lab-env")
    lab = clone / "labs" / "llm90_nothing"
    lab.mkdir()
    (lab / "__init__.py").touch()
    (lab / "lesson.py").write_text(EMPTY_LAB)
    return clone


def main() -> None:
    """Measure the empty lab, `invoke --list` and a real lab."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lab", default="LLM06")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clone = clone_with_empty_lab(Path(name))
        compare(clone, "LLM90", arguments.rounds, "A lab that does nothing")
        bare = Path(name) / "bare"
        bare.mkdir()
        (bare / "tasks.py").write_text(BARE_TASKS)
        commands = {
            "invoke --list": f"cd {ROOT} && {INVOKE} --list",
            "bare project": f"{INVOKE} --list",
        }
        show("invoke --list", take_turns(commands, bare, 4 * arguments.rounds))
    compare(ROOT, arguments.lab, arguments.rounds, f"{arguments.lab}, tiny")


if __name__ == "__main__":
    main()
