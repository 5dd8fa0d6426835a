"""What a lab's container gets from its job of Slurm: limits, and the way to the other nodes."""

from launcher.cluster import node as slurm_node
from launcher.engine.container_spec import ContainerSpec

import pytest


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABS_CPUS", "LABS_MEMORY", "LABS_NODES", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("job", "limits"),
    [
        ({}, {}),
        ({"SLURM_MEM_PER_NODE": "900"}, {}),  # the shell of salloc, outside of the nodes
        ({"SLURM_CPUS_ON_NODE": "4"}, {"LABS_CPUS": "4"}),
        ({"SLURM_CPUS_ON_NODE": "64"}, {"LABS_CPUS": "16"}),  # the engine has no more
        (
            {"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_NODE": "900"},
            {"LABS_CPUS": "4", "LABS_MEMORY": "900m"},
        ),
        (
            {"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "100", "LABS_CPUS": "2"},
            {"LABS_MEMORY": "400m"},
        ),
    ],
)
def test_the_job_s_limits_are_the_container_s(
    monkeypatch: pytest.MonkeyPatch, job: dict[str, str], limits: dict[str, str]
) -> None:
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert slurm_node.compose_variables(16) == limits


def test_only_a_lab_on_several_nodes_gets_the_way_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = {"LABS_NODE": "1", "LABS_NODES": "2", "MASTER_ADDR": "10.0.0.1", "NCCL_DEBUG": "INFO"}
    for name, value in {**job, "LABS_CONTINUE": "sbatch x"}.items():
        monkeypatch.setenv(name, value)
    seen = slurm_node.with_job(ContainerSpec("image", environment={"TZ": "UTC0"})).environment
    assert {**job, "LABS_CONTINUE": "sbatch x", "TZ": "UTC0"}.items() <= seen.items()
    monkeypatch.setenv("LABS_NODES", "1")
    assert not slurm_node.spans_nodes()
    seen = slurm_node.with_job(ContainerSpec("image")).environment
    assert seen == {"LABS_CONTINUE": "sbatch x"}
