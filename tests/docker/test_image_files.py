"""The inputs of the image, checked without an engine: pins, hashes, locks, compose.yaml."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from launcher.environment import locks as lock_files
from launcher.image import status as image_status

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
LOCKS = {
    name: (DOCKER / name).read_text() for name in ("requirements.lock", "requirements-cuda.lock")
}
LOCK, CUDA_LOCK = LOCKS.values()
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()


def requirements(text: str) -> list[Requirement]:
    """Return the requirements of a file in pip's format, without comments and hashes."""
    lines = text.replace("\\\n", " ").splitlines()
    plain = (re.sub(r"(^|\s)(#|--hash).*", "", line).strip() for line in lines)
    return [Requirement(line) for line in plain if line]


def pin(requirement: Requirement) -> str | None:
    """Return the version of a requirement that allows only one."""
    found = re.fullmatch(r"==([^*,]+)", str(requirement.specifier))
    return found[1] if found else None


ASKED = requirements((DOCKER / "requirements.in").read_text())
LOCKED = requirements(LOCK)
VERSIONS = {canonicalize_name(one.name): pin(one) for one in LOCKED}
CUDA = {canonicalize_name(one.name): pin(one) for one in requirements(CUDA_LOCK)}
every_lock = pytest.mark.parametrize("text", LOCKS.values(), ids=LOCKS)


def tool(name: str) -> str:
    """Return the path of a command: beside this Python, or on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return shutil.which(name, path=path) or pytest.skip(f"{name} isn't installed")


def test_every_direct_requirement_is_pinned_to_one_version() -> None:
    assert [str(one) for one in ASKED if pin(one) is None] == []


def test_the_lock_contains_the_direct_requirements() -> None:
    assert {canonicalize_name(one.name): pin(one) for one in ASKED}.items() <= VERSIONS.items()


@pytest.mark.parametrize("lock", lock_files.LOCKS, ids=lambda lock: lock.name)
def test_a_lock_is_current(lock: lock_files.Lock) -> None:
    assert lock.is_current, "invoke lock"


def test_a_changed_input_makes_a_lock_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(DOCKER, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("wheels"))
    monkeypatch.setattr(lock_files, "DOCKER_FOLDER", tmp_path)
    asked = tmp_path / "requirements.in"
    asked.write_text(asked.read_text() + "\n# a comment changes nothing\n")
    assert lock_files.LOCKS[0].is_current
    asked.write_text(asked.read_text() + "one-more==1.0\n")
    assert not lock_files.LOCKS[0].is_current


@every_lock
def test_a_lock_pins_every_package_once(text: str) -> None:
    locked = requirements(text)
    assert [str(one) for one in locked if pin(one) is None] == []
    assert len({canonicalize_name(one.name) for one in locked}) == len(locked)


@every_lock
def test_every_line_of_a_lock_has_a_hash(text: str) -> None:
    lines = [line for line in text.replace("\\\n", " ").splitlines() if "==" in line]
    assert len(lines) == len(requirements(text))
    assert [line for line in lines if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", line)] == []


@every_lock
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_package_of_a_lock_applies_to_each_python(python: str, text: str) -> None:
    machine = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    locked = requirements(text)
    assert [str(one) for one in locked if one.marker and not one.marker.evaluate(machine)] == []


def test_the_cuda_lock_has_the_same_torch_and_repeats_no_package() -> None:
    version = re.search(r"^ARG TORCH_VERSION=(.+)$", DOCKERFILE, re.MULTILINE)
    assert version and CUDA["torch"] == version[1]
    assert CUDA.keys() & VERSIONS.keys() == set()
    others = CUDA.keys() - {"torch"}
    assert [name for name in others if not name.startswith(("nvidia-", "cuda-"))] == []


def test_the_lock_omits_torch_and_the_overrides() -> None:
    named = requirements((DOCKER / "overrides.txt").read_text())
    out = {one.name for one in named if one.marker and not one.marker.evaluate()}
    assert "torch" in out
    assert out & VERSIONS.keys() == set()
    assert [name for name in VERSIONS if name.startswith(("torch", "nvidia", "triton"))] == []


@every_lock
def test_a_lock_names_no_index_and_no_path(text: str) -> None:
    assert re.findall(r"://|--index|--extra-index|--find-links|(?<![\w.])/\w+", text) == []


def test_the_lock_contains_the_requirements_of_torch() -> None:
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


def test_compose_and_dockerfile_have_the_same_defaults() -> None:
    def defaults(name: str) -> list[str]:
        return re.findall(rf"^ARG {name}=(.+)$", DOCKERFILE, re.MULTILINE)

    services = resolved()
    assert services.pop("hub")["image"] == services["seat"]["image"]  # which the seats build
    args = {name: service["build"]["args"] for name, service in services.items()}
    assert defaults("BASE_IMAGE") == [args["cpu"]["BASE_IMAGE"]]
    assert defaults("CPU_INDEX") == [args["cpu"]["CPU_INDEX"]]
    assert defaults("ROCM_INDEX") == [args["rocm"]["ROCM_INDEX"]]
    assert {one["BASE_IMAGE"] for one in args.values()} == {args["cpu"]["BASE_IMAGE"]}


def copied() -> set[str]:
    """Return what the build copies from the context into an image."""
    lines = re.findall(r"^(?:COPY|ADD)\b (.+)", DOCKERFILE, re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


def top_level(files: Iterable[str]) -> set[str]:
    """Return files, and folders in place of the files in them."""
    return {name.partition("/")[0] for name in files}


def test_every_file_that_the_build_mounts_is_hashed() -> None:
    mounted = set(re.findall(r"--mount=type=bind,source=([\w.-]+)", DOCKERFILE))
    hashed = {*image_status.BUILD_FILES, *image_status.lock_names("cuda")}
    hashed |= {*image_status.NOTEBOOK_FILES, image_status.NOTEBOOK_LOCK}
    hashed |= top_level(image_status.HUB_FILES) | {image_status.HUB_LOCK}
    assert mounted | copied() | {"Dockerfile"} == hashed


def test_the_base_is_pinned_by_digest() -> None:
    assert re.search(r"^ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_only_the_hosts_of_torch_are_named() -> None:
    files = [ROOT / "compose.yaml", *(one for one in DOCKER.iterdir() if one.is_file())]
    hosts = {host for one in files for host in re.findall(r"https?://([\w.-]+)", one.read_text())}
    assert hosts == {"127.0.0.1", "download.pytorch.org", "stable.repo.amd.com"}


def test_the_build_copies_no_file_of_the_host_into_the_image() -> None:
    # The steps mount wheels, secrets, the lock and scripts. JupyterLab's image has its settings, a
    # seat's those of its terminal.
    allowed = {*image_status.NOTEBOOK_FILES, *top_level(image_status.HUB_FILES)}
    assert set(image_status.NOTEBOOK_FILES) <= copied() <= allowed


def test_torch_for_rocm_comes_from_one_index_only() -> None:
    stage = DOCKERFILE.split("AS torch-rocm")[1].split("\nFROM ")[0]
    assert '--index-url "$ROCM_INDEX"' in stage
    assert "--extra-index-url" not in stage
    # The variable overrides a site's pip.conf.
    assert "export PIP_EXTRA_INDEX_URL=$ROCM_INDEX;" in stage


def test_the_docker_folder_is_not_a_package() -> None:
    # As a package, it would hide the Docker SDK from `import docker`.
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


def resolved(profile: str = "*", **variables: str) -> dict:
    """Resolve the services of compose.yaml with these variables only."""
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose isn't installed")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [docker, "compose", "--env-file", os.devnull, "--profile", profile]
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
    named = {name: service["image"] for name, service in resolved().items()}
    assert named == {
        "cpu": "llm-labs:cpu",
        "cuda": "llm-labs:cuda",
        "rocm": "llm-labs:rocm-unset",
        "notebook": "llm-labs:cpu-notebook",
        "notebook-cuda": "llm-labs:cuda-notebook",
        "notebook-rocm": "llm-labs:rocm-unset-notebook",
        "hub": "llm-labs:cpu-hub",
        "seat": "llm-labs:cpu-hub",
        "seat-cuda": "llm-labs:cuda-hub",
        "seat-rocm": "llm-labs:rocm-unset-hub",
    }


@pytest.mark.parametrize("profile", ["cpu", "cuda", "rocm"])
def test_every_profile_has_one_service(profile: str) -> None:
    assert list(resolved(profile)) == [profile]


def test_each_gpu_service_has_only_its_own_devices() -> None:
    services = resolved()
    assert services["cpu"].keys().isdisjoint(["devices", "deploy", "group_add"])
    assert "devices" not in services["cuda"]
    assert "deploy" not in services["rocm"]
    assert [one["source"] for one in services["rocm"]["devices"]] == ["/dev/kfd", "/dev/dri"]


def test_groups_are_numbers() -> None:
    # The engine would look up names in the image.
    assert all(gid.isdecimal() for gid in resolved()["rocm"]["group_add"])


def labs_services() -> dict:
    """Return the services that run labs; JupyterLab's and the hub's have a network."""
    others = ("notebook", "hub", "seat")
    return {name: one for name, one in resolved().items() if not name.startswith(others)}


@pytest.mark.parametrize("name", ["hub", "seat", "seat-cuda", "seat-rocm"])
def test_the_services_of_a_class_are_hardened(name: str) -> None:
    service = resolved()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["user"] == "1000:1000"
    assert service["profiles"] == [name]
    assert service.keys().isdisjoint(["privileged", "cap_add", "ipc", "pid", "userns_mode"])
    mounts = {one["target"]: one.get("read_only", False) for one in service["volumes"]}
    writable = {target for target, read_only in mounts.items() if not read_only}
    hub = {"/lab/workshop", "/lab/leases", "/var/run/docker.sock"}
    assert writable == (hub if name == "hub" else set())
    assert not any(one["bind"].get("create_host_path") for one in service["volumes"])


def test_every_service_is_hardened() -> None:
    for name, service in labs_services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service["network_mode"] == "none", name
        assert service["user"] == "1000:1000", name
        assert service["profiles"] == [name], name
        forbidden = ["privileged", "cap_add", "ports", "ipc", "pid", "userns_mode"]
        assert service.keys().isdisjoint(forbidden), name
        assert service.get("environment", {}).keys() <= {"TZ"}, name


def test_every_service_mounts_labs_and_sheets_read_only_and_creates_no_folder() -> None:
    for name, service in labs_services().items():
        mounts = {one["target"]: one.get("read_only", False) for one in service["volumes"]}
        assert mounts == {
            "/lab/labs": True,
            "/lab/common": True,
            "/lab/outputs": False,
            "/lab/work": True,
            "/lab/work/progress": False,
        }, name
        assert not any(one["bind"].get("create_host_path") for one in service["volumes"]), name


def test_variables_of_a_site_reach_the_service(tmp_path: Path) -> None:
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
    sources = {one["target"]: one["source"] for one in service["volumes"]}
    assert sources["/lab/outputs"] == str(tmp_path)
    assert service["build"]["args"]["BASE_IMAGE"] == "base:1"
    assert service["build"]["args"]["CPU_INDEX"] == "index"
    assert service["build"]["additional_contexts"] == {"wheels": str(tmp_path)}


def test_variables_of_a_host_with_amd_gpus_reach_the_service() -> None:
    service = resolved(
        LABS_GFX="gfx942",
        LABS_RENDER_NODES="/dev/dri/renderD129",
        LABS_RENDER_GID="992",
        LABS_VIDEO_GID="991",
        LABS_SHM="16g",
        LABS_CPUS="12.5",
        LABS_ROCM_INDEX="index",
        LABS_TORCH="base",
    )["rocm"]
    assert service["image"] == "llm-labs:rocm-gfx942"
    assert service["build"]["args"]["GFX"] == "gfx942"
    assert service["build"]["args"]["TORCH"] == "base"
    assert service["build"]["args"]["ROCM_INDEX"] == "index"
    assert [one["source"] for one in service["devices"]] == ["/dev/kfd", "/dev/dri/renderD129"]
    assert service["group_add"] == ["992", "991"]
    assert service["shm_size"] == str(16 * 2**30)
    assert service["cpus"] == 12.5


@pytest.mark.parametrize("gpus", ["all", "0", "0,2", "GPU-6d14f3a1"])
def test_variables_of_a_host_with_nvidia_gpus_reach_the_service(gpus: str) -> None:
    reserved = resolved(LABS_GPUS=gpus)["cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "device_ids": [gpus], "capabilities": ["gpu"]}]
