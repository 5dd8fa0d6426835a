"""`invoke lab --on slurm --runtime docker`: on each node a container with the job's GPUs alone."""

import json
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import SOMEBODY, Clone, _fresh_clone, containers_of
from tests.launcher.gpu_host import Host
from tests.launcher.slurm_cluster import Cli, Cluster, number_of

import pytest

pytestmark = pytest.mark.engine

TWO_NODES = ("--nodes", "2", "--runtime", "docker")
CARDS = """
cards = sorted(os.listdir("/dev/dri"))
os.write(1, (json.dumps([os.environ["LABS_NODE"], cards]) + "\\n").encode())
"""
ON_BOTH = """
node = os.environ["LABS_NODE"]
(OUTPUTS / f"node{node}").touch()
print(f"node {node} of {os.environ['LABS_NODES']} at {os.environ['MASTER_ADDR']}", flush=True)
wait_for("node0")
wait_for("node1")
wait_for("go")
if node == "1":
    raise RuntimeError("node 1 is broken")
time.sleep(600)
"""


@pytest.fixture
def cli(cluster: Cluster, snapshot: Path) -> Iterator[Cli]:
    """Return commands in a clone of another user, which root runs on the cluster."""
    clone = _fresh_clone(snapshot)
    clone.give_to(SOMEBODY)
    yield Cli(cluster, clone)
    left = containers_of(clone)
    clone.close()
    for container in left:
        container.remove(force=True)
    assert not left, "a container was left behind"


def test_a_node_that_fails_ends_the_containers_of_all_nodes(cli: Cli) -> None:
    running = cli.lab(ON_BOTH, *TWO_NODES)
    running.wait_for("node 0 of 2 at 127.0.0.1")
    running.wait_for("node 1 of 2 at 127.0.0.1")
    assert len(containers_of(cli.clone)) == 2
    assert (cli.clone.outputs / "node1").stat().st_uid == SOMEBODY
    cli.go()
    ended = running.ended()
    assert ended.code == 1, ended
    assert "RuntimeError: node 1 is broken" in ended.out


def test_a_cancelled_job_ends_its_containers(cli: Cli) -> None:
    running = cli.lab(ON_BOTH, *TWO_NODES)
    running.wait_for("node 0 of 2")
    running.wait_for("node 1 of 2")
    cli.cluster.ask("scancel", number_of(running.text))
    ended = running.ended()
    assert "was cancelled" in ended.err, ended
    cli.cluster.wait_for("end of the containers", lambda: not containers_of(cli.clone))


def test_each_node_s_container_has_the_job_s_gpus_and_no_others(
    mi300x: Host, small_clone: Clone, tmp_path: Path
) -> None:
    """Another job holds the first GPU of n1, so this one gets the second there."""
    cluster = Cluster.new(tmp_path, mi300x.enter(tmp_path))
    try:
        cluster.start()
        wrap = ("--wrap", "sleep 600")
        cluster.ask("sbatch", "--nodelist=n1", "--gpus-per-node=1", "--output=/dev/null", *wrap)
        cluster.wait_for("job", lambda: cluster.state("1") == "RUNNING")
        where = {"DOCKER_HOST": f"unix://{mi300x.socket}", "HOME": str(small_clone.path)}
        where["LABS_GFX"] = "gfx942"
        lab = small_clone.bare_lab(CARDS)
        running = Cli(cluster, small_clone).start(
            "lab", lab, "--on", "slurm", *TWO_NODES, "--gpus", "1", **where
        )
        ended = running.ended()
    finally:
        cluster.close()
    assert ended.code == 0, ended
    lines = [line for line in ended.out.splitlines() if line.startswith("[")]
    assert sorted(map(json.loads, lines)) == [["0", ["renderD136"]], ["1", ["renderD128"]]]
