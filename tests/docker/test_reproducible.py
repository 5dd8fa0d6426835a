"""Two builds without a cache give the same layers."""

import json
import os
import subprocess
from pathlib import Path

from tests.docker.test_build import build

import pytest

DOCKER = Path(__file__).parents[2] / "docker"

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def layers(name: str) -> list[str]:
    """Build the CPU image without a cache, and return the digests of its layers."""
    wheels = Path(os.environ.get("LABS_WHEELS") or DOCKER / "wheels")
    done = build(DOCKER, wheels, "--no-cache", "--build-arg=STACK=cpu", f"--tag={name}")
    assert done.returncode == 0, done.stderr[-3000:]
    command = ["docker", "inspect", "--format={{json .RootFS.Layers}}", name]
    return json.loads(subprocess.check_output(command))


def test_two_builds_give_the_same_layers() -> None:
    names = [f"llm-labs:twice-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        first, second = map(layers, names)
    finally:
        remove = ["docker", "image", "rm", "--force", *names]
        subprocess.run(remove, capture_output=True, check=False)
    assert first == second
