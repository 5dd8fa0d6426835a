"""What the image is made from, checked without an engine: pins, hashes, the lock, compose.yaml."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
LOCK = (DOCKER / "requirements.lock").read_text()
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()


def requirements(text: str) -> list[Requirement]:
    """The requirements of a file in pip's format, without comments and hashes."""
    lines = text.replace("\\\n", " ").splitlines()
    plain = (re.sub(r"(^|\s)(#|--hash).*", "", line).strip() for line in lines)
    return [Requirement(line) for line in plain if line]


def pin(requirement: Requirement) -> str | None:
    """The one version that a requirement allows, if it allows one."""
    found = re.fullmatch(r"==([^*,]+)", str(requirement.specifier))
    return found[1] if found else None


ASKED = requirements((DOCKER / "requirements.in").read_text())
LOCKED = requirements(LOCK)
VERSIONS = {canonicalize_name(one.name): pin(one) for one in LOCKED}


def tool(name: str) -> str:
    """A command of the test extra, from beside this Python or from PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return shutil.which(name, path=path) or pytest.skip(f"{name} isn't installed")


def test_what_a_lab_names_is_pinned_to_one_version() -> None:
    assert [str(one) for one in ASKED if pin(one) is None] == []


def test_the_lock_gives_what_was_asked_for() -> None:
    assert {canonicalize_name(one.name): pin(one) for one in ASKED}.items() <= VERSIONS.items()


def test_the_lock_pins_every_package_once() -> None:
    assert [str(one) for one in LOCKED if pin(one) is None] == []
    assert len(VERSIONS) == len(LOCKED)


def test_every_line_of_the_lock_has_a_hash() -> None:
    lines = [line for line in LOCK.replace("\\\n", " ").splitlines() if "==" in line]
    assert len(lines) == len(LOCKED)
    assert [line for line in lines if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", line)] == []


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_whole_lock_applies_to_each_python(python: str) -> None:
    machine = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    assert [str(one) for one in LOCKED if one.marker and not one.marker.evaluate(machine)] == []


def test_the_lock_leaves_out_torch_and_what_the_overrides_name() -> None:
    out = {one.name for one in requirements((DOCKER / "overrides.txt").read_text())}
    assert "torch" in out
    assert out & VERSIONS.keys() == set()
    assert [name for name in VERSIONS if name.startswith(("torch", "nvidia", "triton"))] == []


def test_the_lock_names_no_index_and_no_path() -> None:
    assert re.findall(r"://|--index|--extra-index|--find-links|(?<![\w.])/\w+", LOCK) == []


def test_what_torch_imports_is_in_the_lock() -> None:
    try:
        asked = [Requirement(line) for line in requires("torch") or []]
    except PackageNotFoundError:
        pytest.skip("torch isn't installed here")
    for one in asked:
        accelerator = one.name.startswith(("nvidia", "triton", "cuda", "rocm", "amd"))
        if accelerator or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        assert VERSIONS.get(canonicalize_name(one.name)) in one.specifier, str(one)


def test_the_image_and_the_environment_get_the_same_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.search(r"^ARG TORCH_VERSION=(.+)$", DOCKERFILE, re.MULTILINE)
    assert version
    assert f"torch=={version[1]}" in project["optional-dependencies"]["labs"]


@pytest.mark.parametrize("name", ["BASE_IMAGE", "TORCH_INDEX"])
def test_compose_and_dockerfile_have_the_same_default(name: str) -> None:
    in_file = re.findall(rf"^ARG {name}=(.+)$", DOCKERFILE, re.MULTILINE)
    in_compose = re.findall(rf"\$\{{LABS_{name}:-(.+)\}}", COMPOSE)
    assert len(in_file) == 1
    assert in_file == in_compose


def test_the_base_is_pinned_by_digest() -> None:
    assert re.search(r"^ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_no_host_is_named_but_torchs_index() -> None:
    files = [ROOT / "compose.yaml", *(one for one in DOCKER.iterdir() if one.is_file())]
    hosts = {host for one in files for host in re.findall(r"https?://([\w.-]+)", one.read_text())}
    assert hosts == {"download.pytorch.org"}


def test_the_build_copies_nothing_into_the_image() -> None:
    # Wheels, secrets, lock and scripts are mounted while they are needed.
    assert re.findall(r"^(?:COPY|ADD)\b.*", DOCKERFILE, re.MULTILINE) == []


def test_the_docker_folder_is_no_package() -> None:
    # As one, it would hide the Docker SDK from `import docker`.
    assert not (DOCKER / "__init__.py").exists()


def test_hadolint_passes() -> None:
    command = [tool("hadolint"), "--no-color", str(DOCKER / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_passes() -> None:
    scripts = [*(ROOT / "tests").rglob("*.sh"), *DOCKER.rglob("*.sh")]
    scripts += [one for one in [ROOT / ".ci" / "run"] if one.exists()]
    command = [tool("shellcheck"), *map(str, scripts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def resolved(**variables: str) -> dict:
    """The services of compose.yaml as Docker Compose reads it, given these variables alone."""
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose isn't installed")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [docker, "compose", "--env-file", os.devnull, "--profile", "*"]
    done = subprocess.run(
        [*command, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment | variables,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def test_compose_needs_no_variable() -> None:
    assert resolved()["cpu"]["image"] == "llm-labs:cpu"


def test_every_service_is_hardened() -> None:
    for name, service in resolved().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service["network_mode"] == "none", name
        assert service["user"] == "1000:1000", name
        assert service["profiles"] == [name], name
        assert service.keys().isdisjoint(["privileged", "cap_add", "ports", "ipc", "pid"]), name


def test_every_service_mounts_the_labs_read_only_and_makes_no_folder() -> None:
    for name, service in resolved().items():
        assert [one["target"] for one in service["volumes"]] == ["/lab/labs", "/lab/outputs"], name
        assert [one.get("read_only", False) for one in service["volumes"]] == [True, False], name
        assert not any(one["bind"].get("create_host_path") for one in service["volumes"]), name


def test_what_a_site_sets_reaches_the_service(tmp_path: Path) -> None:
    service = resolved(
        LABS_UID="4242",
        LABS_GID="4343",
        LABS_NETWORK="bridge",
        LABS_MEMORY="1g",
        LABS_OUTPUTS=str(tmp_path),
        LABS_BASE_IMAGE="base:1",
        LABS_TORCH_INDEX="index",
        LABS_WHEELS=str(tmp_path),
    )["cpu"]
    assert service["user"] == "4242:4343"
    assert service["network_mode"] == "bridge"
    assert service["mem_limit"] == str(2**30)
    assert service["volumes"][1]["source"] == str(tmp_path)
    assert service["build"]["args"]["BASE_IMAGE"] == "base:1"
    assert service["build"]["args"]["TORCH_INDEX"] == "index"
    assert service["build"]["additional_contexts"] == {"wheels": str(tmp_path)}
