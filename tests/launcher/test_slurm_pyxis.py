"""`invoke lab --on slurm --runtime pyxis`, with a stand-in for Pyxis on a real cluster.

The stand-in is an `srun` that checks the options of Pyxis, takes them away, and calls the real
srun. The lab then runs in the node's Python instead of a container. So the script, the ranks, the
exit code and the outputs are real, and the container isn't.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from common.cards import Card
from launcher.cluster import containers as slurm_containers
from launcher.cluster.containers import APPTAINER, PYXIS
from launcher.cluster.runtime import Shape
from launcher.engine import compose
from launcher.run import runtime
from launcher.run.lab_command import LabCommand
from tests.launcher.slurm_cluster import Cli

import pytest

SRUN = """\
#!{python}
import json, os, shutil, sys
from pathlib import Path

os.environ["PATH"] = os.environ["PATH"].partition(":")[2]
srun = shutil.which("srun")
words = sys.argv[1:]
if words == ["--help"]:
    print("--container-image  --container-mounts")
    sys.exit(0)
PYTHON = "/opt/labs/venv/bin/python"
own = words[: words.index("bash")]  # the words after are the command's
options = dict(word.partition("=")[::2] for word in own if "=" in word)
flags = [word for word in own if "=" not in word]
mounts = [mount.split(":") for mount in options.pop("--container-mounts").split(",")]
assert Path(options.pop("--container-image")).suffix == ".sqsh"
assert options == {{"--kill-on-bad-exit": "1", "--container-workdir": "/lab"}}, options
assert {{"--container-readonly", "--no-container-mount-home"}} <= set(flags), flags
assert all(Path(source).is_dir() for source, *_ in mounts), mounts
print(json.dumps({{target: flags for _, target, *flags in mounts}}), flush=True)
words = [word for word in words if "container-" not in word]
words[words.index(PYTHON)] = {python!r}
os.execv(srun, [srun, *words])
"""
RANKS = """
print(json.dumps([os.environ["LABS_NODE"], arguments]), flush=True)
if os.environ["LABS_NODE"] == "0":
    (OUTPUTS / "printed").touch()
    wait_for("ever")  # Slurm ends it when the other fails
wait_for("printed")
sys.exit(7)
"""


@pytest.fixture
def pyxis(tmp_path: Path) -> str:
    """Return a PATH on which srun stands in for one with Pyxis."""
    srun = tmp_path / "srun"
    srun.write_text(SRUN.format(python=sys.executable))
    srun.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_a_job_runs_on_two_nodes_and_its_exit_code_is_the_command_s(cli: Cli, pyxis: str) -> None:
    lab = cli.clone.bare_lab(RANKS)
    words = ("lab", lab, "--on", "slurm", "--nodes", "2", "--runtime", "pyxis")
    refused = cli.start(*words, PATH=pyxis).ended()
    assert refused.code == 3, refused
    file = Path(refused.err.split("The image file ")[1].split(" is missing")[0])
    assert f"enroot import --output {file} dockerd://llm-labs:cpu" in refused.err
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    ended = cli.start(*words, PATH=pyxis).ended()
    assert ended.code == 7, ended
    mounts, *nodes = (json.loads(line) for line in ended.out.splitlines() if line[:1] in "[{")
    assert mounts == {
        "/lab/labs": ["ro"],
        "/lab/common": ["ro"],
        "/lab/outputs": [],
        "/lab/work": ["ro"],
        "/lab/work/progress": [],
    }
    assert sorted(nodes) == [["0", []], ["1", []]]


def test_a_cluster_without_pyxis_is_a_card(cli: Cli) -> None:
    ended = cli.run("lab", cli.clone.bare_lab("pass"), "--on", "slurm", "--runtime", "pyxis")
    assert ended.code == 3 and "Slurm has no Pyxis here." in ended.err, ended


# Both


@pytest.mark.parametrize("name", runtime.IN_JOBS)
def test_a_runtime_of_jobs_needs_a_job(name: str) -> None:
    with pytest.raises(Card, match="needs --on slurm") as refused:
        runtime.choose_runtime(name)
    assert refused.value.code == 2
    assert f"--on slurm --runtime {name}" in refused.value.fix


def test_the_mounts_are_those_of_compose_yaml() -> None:
    assert (
        slurm_containers.binds(online=False) == compose.translate(compose.resolve("cpu", {})).binds
    )


def test_an_image_of_another_version_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_containers, "FOLDER", tmp_path)
    monkeypatch.setattr(slurm_containers, "binds", lambda online: ())  # noqa: ARG005
    shape = Shape(1, 1, 1, "rocm", "gfx942")
    for other in ("rocm-gfx942-0a1b2c3d.sif", "rocm-gfx90a-0a1b2c3d.sif", "cpu-0a1b2c3d.sif"):
        (tmp_path / other).touch()
    with pytest.raises(Card, match="is missing") as refused:
        slurm_containers.prepare(APPTAINER, shape, online=False)
    assert "changed since rocm-gfx942-0a1b2c3d.sif was made" in refused.value.why
    assert refused.value.fix.startswith(
        "invoke build --runtime docker --stack rocm --gfx gfx942 &&"
    )
    slurm_containers.image_file(APPTAINER, shape).touch()
    slurm_containers.prepare(APPTAINER, shape, online=False)


def test_pyxis_cannot_mount_a_path_with_a_comma(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_OUTPUTS", str(tmp_path / "a,b"))
    with pytest.raises(Card, match="Pyxis can't mount"):
        slurm_containers.start(PYXIS, LabCommand(("LLM91",)), Shape(1, 1, 0, "cpu"))


def test_a_node_without_apptainer_says_so(tmp_path: Path) -> None:
    start = slurm_containers.start(APPTAINER, LabCommand(("LLM91",)), Shape(1, 1, 0, "cpu"))
    variables = {"PATH": str(tmp_path), "SLURMD_NODENAME": "n1"}
    command = ["/bin/bash", "-c", "\n".join(start.setup)]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "what: n1 has no command apptainer." in ended.stderr
