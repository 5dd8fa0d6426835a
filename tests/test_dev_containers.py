"""The dev containers: one for each stack, on services and stages that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".devcontainer"
STACKS = ("cpu", "cuda", "rocm")
# https://containers.dev/implementors/json_reference: those for Compose that these files use.
KEYS = {
    "name": str,
    "dockerComposeFile": list,
    "service": str,
    "runServices": list,
    "overrideCommand": bool,
    "workspaceFolder": str,
    "shutdownAction": str,
    "updateRemoteUserUID": bool,
    "customizations": dict,
}


def read(stack: str) -> dict[str, Any]:
    return json.loads((FOLDER / stack / "devcontainer.json").read_text(encoding="utf-8"))


def test_there_is_one_for_each_stack() -> None:
    assert {path.parent.name for path in FOLDER.glob("*/devcontainer.json")} == set(STACKS)


@pytest.mark.parametrize("stack", STACKS)
def test_its_keys_are_those_of_the_format(stack: str) -> None:
    described = read(stack)
    assert {key: type(value) for key, value in described.items()} == KEYS
    assert described["shutdownAction"] in ("none", "stopCompose")
    assert set(described["customizations"]) == {"vscode"}
    extensions = described["customizations"]["vscode"]["extensions"]
    assert {"ms-python.python", "ms-toolsai.jupyter"} <= set(extensions)


@pytest.mark.parametrize("stack", STACKS)
def test_its_service_exists_and_is_that_of_its_stack(stack: str) -> None:
    described = read(stack)
    if shutil.which("docker") is None:
        pytest.skip("the docker command isn't here")
    files = [(FOLDER / stack / name).resolve() for name in described["dockerComposeFile"]]
    command = [
        "docker",
        "compose",
        "--env-file",
        "/dev/null",
        *[f"--file={file}" for file in files],
    ]
    command += ["--profile", described["service"], "config", "--format=json"]
    resolved = subprocess.run(command, capture_output=True, text=True, check=False)
    assert resolved.returncode == 0, resolved.stderr
    services = json.loads(resolved.stdout)["services"]
    assert list(services) == described["runServices"] == [described["service"]]
    service = services[described["service"]]
    assert service["build"]["args"]["STACK"] == stack
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "docker/Dockerfile").read_text(), re.M)
    assert service["build"]["target"] in stages
    (clone,) = service["volumes"]
    assert (clone["source"], clone["target"]) == (str(ROOT), described["workspaceFolder"])
    assert not clone.get("read_only")
    # As much of a lab's hardening as an editor allows.
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("ports") and not service.get("privileged")
