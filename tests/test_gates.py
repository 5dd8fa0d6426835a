"""The gates: the hooks of .pre-commit-config.yaml, each over all files."""

import os
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.conftest import BIN

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CONFIG = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
HOOKS = {hook["id"]: hook for repo in CONFIG["repos"] for hook in repo["hooks"]}
PATTERNS = {"python": ["*.py"], "shell": ["*.sh", ".ci/run"], "text": ["*"]}
# A formatter changes files for a person, and only checks them here.
CHECK_ONLY = {"ruff-format": ["--check"]}


def tracked(patterns: list[str]) -> list[str]:
    """Return the files that git tracks, and new ones, that match a pattern."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


def files_of(hook: dict[str, Any]) -> list[str]:
    if not hook.get("pass_filenames", True):
        return []
    patterns = PATTERNS[hook["types"][0]] if "types" in hook else ["*Dockerfile"]
    found = [name for name in tracked(patterns) if not name.endswith((".png", ".lock"))]
    assert found, "the hook has no file to look at"
    return found


def run_gate(name: str) -> subprocess.CompletedProcess[str]:
    hook = HOOKS[name]
    tool, *words = shlex.split(hook["entry"])
    command = [str(BIN / tool), *words, *CHECK_ONLY.get(name, []), *files_of(hook)]
    path = f"{BIN}:{os.environ['PATH']}"  # pyright looks at the packages of the Python on it
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def gates(
    request: pytest.FixtureRequest,
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Start each gate that a test asks for, several side by side: pyright uses a single core."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    mine = [test for test in tests if "gates" in test.fixturenames]
    names = [str(test.callspec.params["name"]) for test in mine]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(run_gate, name) for name in names}


@pytest.mark.parametrize("name", HOOKS)
def test_gate(gates: dict[str, Future[subprocess.CompletedProcess[str]]], name: str) -> None:
    ended = gates[name].result()
    assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-2000:]}"


def test_every_gate_is_there() -> None:
    tools = {shlex.split(hook["entry"])[0] for hook in HOOKS.values()}
    assert tools == {"ruff", "pyright", "codespell", "shellcheck", "hadolint"}
