"""What the launcher adds to a lab, beside the same container and beside the bare script.

    .venv/bin/python benchmarks/launch.py [--rounds 5] [--lab LLM06]

`invoke lab`, the `docker run` line that it stands for and the bare script run in turn, a b c a b c
…, so that a change of pace meets all alike. Printed are the medians, and those of the differences
and ratios round by round. There are two labs: one that does nothing, in a copy of this clone that
is removed afterwards, and a real one; then `invoke --list` beside a bare Invoke project's. It needs
a container engine and both runtimes: `invoke build`, `invoke build --runtime venv`.
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
NOTHING = """# %% [markdown]
# # LLM90 · Nothing
# Does nothing.
class lab:
    @staticmethod
    def run(arguments):
        return 0
"""
BARE_TASKS = "from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n"


def seconds(command: str, folder: Path) -> float:
    """Wall-clock of one run of a shell command, its output thrown away."""
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


def in_turn(commands: dict[str, str], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each command in each round, after one that isn't counted."""
    for command in commands.values():
        seconds(command, folder)
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(seconds(command, folder))
    return found


def show(title: str, found: dict[str, list[float]]) -> None:
    """Medians, and the first command against each other one, round by round."""
    print(f"\n{title}")
    first, *others = found
    for name, times in found.items():
        print(f"  {name:22} {median(times):7.2f} s  [{min(times):.2f}, {max(times):.2f}]")
    for other in others:
        pairs = list(zip(found[first], found[other], strict=True))
        added = median(a - b for a, b in pairs)
        ratio = median(a / b for a, b in pairs)
        print(f"  {first} adds {added:+.2f} s to {other}: {ratio:.2f} times")


def pasted(folder: Path, lab: str, runtime: str) -> str:
    """The command that `invoke --dry` prints last."""
    dry = [INVOKE, "--dry", "lab", lab, "--runtime", runtime]
    printed = subprocess.run(dry, cwd=folder, check=True, capture_output=True, text=True).stdout
    return printed.strip().splitlines()[-1]


def compare(folder: Path, lab: str, rounds: int, title: str) -> None:
    commands = {
        "invoke lab": f"{INVOKE} lab {lab} --runtime docker",
        "docker run": pasted(folder, lab, "docker"),
        "the bare script": pasted(folder, lab, "venv"),
    }
    show(title, in_turn(commands, folder, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lab", default="LLM06")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clone, bare = Path(name) / "clone", Path(name) / "bare"
        ignored = shutil.ignore_patterns("outputs", ".git", ".venv", ".lab-env", "__pycache__")
        shutil.copytree(ROOT, clone, ignore=ignored)
        (clone / ".lab-env").symlink_to(ROOT / ".lab-env")
        (clone / "labs" / "llm90_nothing.py").write_text(NOTHING)
        compare(clone, "LLM90", asked.rounds, "A lab that does nothing")
        bare.mkdir()
        (bare / "tasks.py").write_text(BARE_TASKS)
        commands = {
            "invoke --list": f"cd {ROOT} && {INVOKE} --list",
            "bare project": f"{INVOKE} --list",
        }
        show("invoke --list", in_turn(commands, bare, 4 * asked.rounds))
    compare(ROOT, asked.lab, asked.rounds, f"{asked.lab}, tiny")


if __name__ == "__main__":
    main()
