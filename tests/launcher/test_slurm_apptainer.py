"""`invoke lab --on slurm --runtime apptainer`: real Slurm, real Apptainer, and a small image.

Debian's unstable distribution has Apptainer. Where it isn't installed, these tests are skipped.
"""

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.conftest import Clone, _fresh_clone
from tests.launcher.gpu_host import SMALL_ONES, Host, use_small_images
from tests.launcher.slurm_cluster import Cli, Cluster, number_of

import pytest

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("apptainer"), reason="Apptainer isn't installed here"),
]

TWO_NODES = ("--nodes", "2", "--runtime", "apptainer")
LOOKS = """
def refuses(path):
    try:
        pathlib.Path(path, "new").touch()
    except OSError:
        return True

WRITABLE = ("/tmp", "/lab/outputs", "/lab/work/progress")
status = pathlib.Path("/proc/self/status").read_text()
seen = {
    "node": os.environ.get("LABS_NODE"),
    "meets": os.environ.get("MASTER_ADDR"),
    "again": os.environ["LABS_CONTINUE"].split()[0],
    "home": os.environ["HOME"],
    "host": os.environ.get("SECRET"),
    "read_only": [path for path in ("/", "/lab/labs", "/lab/work") if refuses(path)],
    "writable": [path for path in WRITABLE if not refuses(path)],
    "networks": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
    "privileges": ["NoNewPrivs:\\t1" in status, "CapEff:\\t" + 16 * "0" in status],
    "dri": sorted(os.listdir("/dev/dri")) if os.path.exists("/dev/dri") else [],
    "gpus": os.environ.get("ROCR_VISIBLE_DEVICES"),
}
os.write(1, (json.dumps(seen) + "\\n").encode())
"""
ON_BOTH = """
node = os.environ["LABS_NODE"]
print(f"node {node} of {os.environ['LABS_NODES']} at {os.environ['MASTER_ADDR']}", flush=True)
wait_for("go")
if node == "1":
    raise RuntimeError("node 1 is broken")
time.sleep(600)
"""


@pytest.fixture(scope="module")
def image(small_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small image as a file of Apptainer."""
    file = tmp_path_factory.mktemp("sif") / "small.sif"
    subprocess.run(["docker", "load", "--quiet", "--input", small_images], check=True)
    command = ["apptainer", "--quiet", "build", str(file), f"docker-daemon:{SMALL_ONES[0]}"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    subprocess.run(["docker", "image", "rm", *SMALL_ONES], check=True, capture_output=True)
    assert built.returncode == 0, built.stderr
    return file


@pytest.fixture
def cli(cluster: Cluster, snapshot: Path, image: Path) -> Iterator[Cli]:
    clone = use_small_images(_fresh_clone(snapshot))
    made = Cli(cluster, clone)
    put(image, made)
    yield made
    clone.close()


def put(image: Path, cli: Cli, **variables: str) -> None:
    """Put the image where the launcher looks for it, as the card without it says."""
    words = ("lab", cli.clone.bare_lab("pass"), "--on", "slurm", "--runtime", "apptainer")
    gpus = ("--gpus", "1") if variables else ()
    ended = cli.start(*words, *gpus, **variables).ended()
    assert ended.code == 3, ended
    (file,) = re.findall(r"The image file (\S+) is missing", ended.err)
    assert f"apptainer build {file} docker-daemon:llm-labs:" in ended.err
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(image, file)


def looks(cli: Cli, *words: str, **variables: str) -> list[dict[str, Any]]:
    """Return what a lab sees in its containers."""
    lab = cli.clone.bare_lab(LOOKS)
    words = ("lab", lab, "--on", "slurm", "--runtime", "apptainer", *words)
    ended = cli.start(*words, SECRET="of the host", **variables).ended()
    assert ended.code == 0, ended
    return [json.loads(line) for line in ended.out.splitlines() if line.startswith("{")]


def test_a_container_gets_what_compose_yaml_gives_it(cli: Cli) -> None:
    (seen,) = looks(cli)
    assert seen == {
        "node": None,
        "meets": None,
        "again": "sbatch",
        "home": "/tmp/home",
        "host": None,
        "read_only": ["/", "/lab/labs", "/lab/work"],
        "writable": ["/tmp", "/lab/outputs", "/lab/work/progress"],
        "networks": ["lo"],
        "privileges": [True, True],
        "dri": [],
        "gpus": None,
    }


def test_a_node_that_fails_ends_the_containers_of_all_nodes(cli: Cli) -> None:
    running = cli.lab(ON_BOTH, *TWO_NODES)
    running.wait_for("node 0 of 2 at 127.0.0.1")
    running.wait_for("node 1 of 2 at 127.0.0.1")
    cli.go()
    ended = running.ended()
    assert ended.code == 1, ended
    assert "RuntimeError: node 1 is broken" in ended.out


def test_a_cancelled_job_ends_its_containers(cli: Cli) -> None:
    running = cli.lab(ON_BOTH, *TWO_NODES)
    running.wait_for("node 0 of 2")
    running.wait_for("node 1 of 2")
    cli.cluster.ask("scancel", number_of(running.text))
    assert "was cancelled" in running.ended().err
    cli.cluster.wait_for("end of the containers", lambda: not containers(cli))


def containers(cli: Cli) -> list[str]:
    """Return the processes on this machine that Apptainer started for a clone."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(cli.clone.path) in (process / "mountinfo").read_text():
                found.append(process.name)
    return found


def test_a_container_gets_the_gpus_that_the_job_may_open(
    mi300x: Host, image: Path, small_clone: Clone, tmp_path: Path
) -> None:
    """A node of no device stands for one that the job's cgroup denies."""
    denied = mi300x.root / "dev" / "dri" / "renderD136"
    denied.unlink()
    os.mknod(denied, stat.S_IFCHR | 0o666, os.makedev(240, 7))
    cluster = Cluster.new(tmp_path, mi300x.enter(tmp_path))
    cli = Cli(cluster, small_clone)
    try:
        cluster.start()
        put(image, cli, LABS_GFX="gfx942")
        (seen,) = looks(cli, "--gpus", "1", LABS_GFX="gfx942")
    finally:
        cluster.close()
    assert (seen["dri"], seen["gpus"]) == (["renderD128"], "0")
