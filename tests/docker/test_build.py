"""Real builds: their inputs and their refusals."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from launcher.environment.torch_source import dockerfile_default, torch_version

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
BASE = (
    os.environ.get("LABS_BASE_IMAGE")
    or re.findall(r"^ARG BASE_IMAGE=(.+)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)[0]
)
ROCM_TORCH = f"{torch_version()}+rocm{dockerfile_default('ROCM_VERSION')}"
CA = os.environ.get("LABS_CA", os.devnull)

pytestmark = pytest.mark.engine


def build(context: Path, wheels: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `docker buildx build` with the inputs of compose.yaml; the output is in stderr."""
    options = ["--progress=plain", f"--build-context=wheels={wheels}", f"--secret=id=ca,src={CA}"]
    if not any("id=pip_conf" in one for one in more):
        options.append(f"--secret=id=pip_conf,src={os.devnull}")
    command = ["docker", "buildx", "build", *options, f"--build-arg=BASE_IMAGE={BASE}", *more]
    return subprocess.run([*command, str(context)], capture_output=True, text=True, check=False)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Return a copy of docker/."""
    copy = tmp_path / "docker"
    shutil.copytree(DOCKER, copy, ignore=shutil.ignore_patterns("wheels"))
    return copy


@pytest.mark.parametrize("stack", ["cpu", "cuda", "rocm", "notebook"])
def test_the_builder_gets_no_secret_and_no_history(stack: str, tmp_path: Path) -> None:
    command = ["docker", "compose", "--env-file", os.devnull, "--profile", stack, "config"]
    config = subprocess.run(
        [*command, "--format=json"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    described = json.loads(config.stdout)["services"][stack]["build"]
    recipe = tmp_path / "Dockerfile"
    recipe.write_text("FROM scratch\nCOPY . /\n")
    # The builder looks for .dockerignore beside the Dockerfile first, then in the context.
    sent = tmp_path / "sent"
    command = ["docker", "buildx", "build", "--quiet", f"--file={recipe}"]
    done = subprocess.run(
        [*command, f"--output=type=local,dest={sent}", described["context"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = {str(path.relative_to(sent)) for path in sent.rglob("*") if path.is_file()}
    suffixes = (".py", ".sh", ".js", ".txt", ".in", ".json", ".lock")
    odd = {name for name in names if not name.endswith(suffixes)}
    assert odd == {"Dockerfile", ".dockerignore", "seat.bashrc"}
    assert {one["source"] for one in described["secrets"]} == {"pip_conf", "ca"}


def wheel(folder: Path, code: str) -> str:
    """Write a small wheel with `code` to `folder`, and return its hash."""
    name = "labs_tamper_test-1.0"
    files = {
        "labs_tamper_test.py": code,
        f"{name}.dist-info/METADATA": "Metadata-Version: 2.1\nName: labs-tamper-test\nVersion: 1.0",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any",
    }
    lines: list[str] = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        lines.append(f"{path},sha256={digest.rstrip('=')},{len(text)}")
    files[f"{name}.dist-info/RECORD"] = "\n".join([*lines, f"{name}.dist-info/RECORD,,"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}-py3-none-any.whl").write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


@pytest.mark.parametrize("tampered", [False, True])
def test_a_tampered_wheel_fails_the_build(context: Path, tmp_path: Path, tampered: bool) -> None:
    wheels = tmp_path / "wheels"
    offline = tmp_path / "pip.conf"
    offline.write_text("[global]\nno-index = true\n")
    digest = wheel(wheels, "honest = True")
    if tampered:
        wheel(wheels, "honest = None")
    (context / "requirements.lock").write_text(f"labs-tamper-test==1.0 --hash=sha256:{digest}\n")
    done = build(context, wheels, f"--secret=id=pip_conf,src={offline}", "--target=installed")
    assert ("DO NOT MATCH THE HASHES" in done.stderr) == tampered, done.stderr[-3000:]
    # The genuine wheel is installed. Then the step fails, because this lock has no weights.
    assert ("Successfully installed labs-tamper-test" in done.stderr) == (not tampered)
    assert done.returncode != 0


@pytest.fixture(scope="session")
def rocm_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a stand-in for AMD's index."""
    folders = [os.environ.get(name, "") for name in ("LABS_WHEELS", "PIP_FIND_LINKS")]
    found = [one for name in folders if name for one in Path(name).glob("torch-*+cpu-*.whl")]
    if not found:
        pytest.skip("no torch-*+cpu-*.whl in LABS_WHEELS to make a stand-in of")
    wheels = tmp_path_factory.mktemp("rocm")
    script = Path(__file__).with_name("stand_in_rocm_index.py")
    subprocess.run([sys.executable, str(script), str(found[0]), str(wheels)], check=True)
    return wheels


@pytest.fixture
def tag() -> Iterator[str]:
    """Return the name of an image, and remove the image afterwards."""
    name = f"llm-labs:test-{os.getpid()}"
    yield name
    subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)


def run_in(image: str, *command: str) -> str:
    words = ["docker", "run", "--rm", "--network=none", f"--entrypoint={command[0]}", image]
    return subprocess.check_output([*words, *command[1:]], text=True)


LIST_PACKAGES = """
from importlib.metadata import distributions
print(*(f"{package.name}=={package.version}" for package in distributions()), sep="\\n")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gfx", "devices"), [("gfx942", ["gfx942"]), ("all", ["gfx1151", "gfx942"])]
)
def test_the_rocm_image_has_the_rocm_torch_for_its_target(
    rocm_wheels: Path, tag: str, gfx: str, devices: list[str]
) -> None:
    index = "--build-arg=ROCM_INDEX=file:///wheels/simple/"
    stack = ["--build-arg=STACK=rocm", f"--build-arg=GFX={gfx}"]
    done = build(DOCKER, rocm_wheels, *stack, index, f"--tag={tag}")
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads(run_in(tag, "cat", "/opt/labs/stack.json"))
    assert (made["stack"], made["torch"]) == ("rocm", ROCM_TORCH)
    assert run_in(tag, "cat", "/opt/labs/constraints.txt") == f"torch=={ROCM_TORCH}\n"
    installed = run_in(tag, "python", "-c", LIST_PACKAGES)
    assert sorted(re.findall(r"amd-torch-device-(\w+)==", installed)) == devices
    assert sorted(re.findall(r"rocm-sdk-device-(\w+)==", installed)) == devices
    labels = "{{json .Config.Labels}}"
    inspected = subprocess.check_output(["docker", "inspect", f"--format={labels}", tag])
    assert json.loads(inspected)["llm-labs.gfx"] == gfx


# An image with a Python on PATH that has torch, like AMD's.
PREBUILT = """FROM {rocm} AS rocm
FROM {base}
COPY --from=rocm /opt/labs/venv /opt/venv
RUN rm -r /opt/venv/lib/python3*/site-packages/transformers
ENV PATH=/opt/venv/bin:$PATH
"""


@pytest.mark.slow
def test_the_torch_of_a_base_image_is_used(rocm_wheels: Path, tag: str, tmp_path: Path) -> None:
    """Build with LABS_TORCH=base on a stand-in for rocm/pytorch."""
    index = "--build-arg=ROCM_INDEX=file:///wheels/simple/"
    stack = ["--build-arg=STACK=rocm", "--build-arg=GFX=gfx942"]
    rocm = f"{tag}-rocm"
    base = f"{tag}-base"
    (tmp_path / "Dockerfile").write_text(PREBUILT.format(rocm=rocm, base=BASE))
    try:
        done = build(DOCKER, rocm_wheels, *stack, index, f"--tag={rocm}")
        assert done.returncode == 0, done.stderr[-3000:]
        done = build(tmp_path, rocm_wheels, f"--tag={base}")
        assert done.returncode == 0, done.stderr[-3000:]
        options = ["--build-arg=STACK=rocm", "--build-arg=TORCH=base", "--build-arg=GFX=all"]
        options.append(f"--build-arg=BASE_IMAGE={base}")
        done = build(DOCKER, rocm_wheels, *options, f"--tag={tag}")
        assert done.returncode == 0, done.stderr[-3000:]
    finally:
        left = ["docker", "image", "rm", "--force", base, rocm]
        subprocess.run(left, capture_output=True, check=False)
    code = "import torch, transformers; print(torch.__file__, transformers.__file__)"
    torch, transformers = run_in(tag, "python", "-c", code).split()
    assert torch.startswith("/opt/venv/"), "the base's"
    assert transformers.startswith("/opt/labs/venv/"), "the lock's"


@pytest.mark.slow
def test_a_torch_for_another_stack_fails_the_build(rocm_wheels: Path) -> None:
    # The stand-in's torch reports ROCm.
    index = "--build-arg=ROCM_INDEX=file:///wheels/simple/"
    options = ["--build-arg=STACK=cpu", "--build-arg=TORCH=rocm", "--build-arg=GFX=gfx942", index]
    done = build(DOCKER, rocm_wheels, *options)
    assert done.returncode != 0
    assert f"for cpu is required, but {ROCM_TORCH} for rocm is installed" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("gfx", ["", "gfx", "mi300x", "gfx942,gfx90a"])
def test_a_rocm_image_needs_a_gfx_target(rocm_wheels: Path, gfx: str) -> None:
    done = build(DOCKER, rocm_wheels, "--build-arg=STACK=rocm", f"--build-arg=GFX={gfx}")
    assert done.returncode != 0
    assert f"LABS_GFX is '{gfx}'" in done.stderr
