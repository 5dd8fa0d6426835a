"""The number of CPUs that a process may use, with cgroup trees as the kernel shows them."""

import os
from pathlib import Path

from labs import cpus
from labs.cpus import cpu_limit, usable_cpus
from labs.kit.run.processes import group_size, rank, run_ranks
from tests.conftest import Clone

import pytest


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a cgroup tree in which this process is in /jobs/job_7, without limits."""
    (tmp_path / "jobs/job_7").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/jobs/job_7\n")
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path)
    monkeypatch.setattr(cpus, "OWN_GROUP", tmp_path / "own")
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "limit"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", None)],
)
def test_a_quota_limits_the_cpus(tree: Path, quota: str, limit: int | None) -> None:
    (tree / "jobs/job_7/cpu.max").write_text(quota + "\n")
    assert cpu_limit() == limit


def test_the_tightest_limit_of_the_groups_around_it_counts(tree: Path) -> None:
    (tree / "jobs/job_7/cpu.max").write_text("400000 100000\n")
    (tree / "jobs/cpu.max").write_text("300000 100000\n")
    assert cpu_limit() == 3


def test_a_container_sees_its_own_limit_at_the_root(tree: Path) -> None:
    (tree / "own").write_text("0::/\n")
    (tree / "cpu.max").write_text("100000 100000\n")
    assert cpu_limit() == 1


def test_version_1_has_a_folder_for_each_controller(tree: Path) -> None:
    (tree / "own").write_text("5:memory:/job\n4:cpu,cpuacct:/job\n")
    job = tree / "cpu,cpuacct/job"
    job.mkdir(parents=True)
    (job / "cpu.cfs_quota_us").write_text("300000\n")
    (job / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_limit() == 3
    (job / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_limit() is None


def test_without_cgroups_there_is_no_limit(tree: Path) -> None:
    (tree / "own").unlink()
    assert cpu_limit() is None
    assert usable_cpus() == len(os.sched_getaffinity(0))


def test_the_affinity_counts_too(tree: Path) -> None:
    (tree / "jobs/job_7/cpu.max").write_text("90000000 100000\n")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def write_threads(folder: Path) -> int:
    """Write the number of threads of this process."""
    (folder / str(rank())).write_text(f"{os.environ['OMP_NUM_THREADS']} of {group_size()}")
    return 0


def test_processes_share_the_cpus_unless_the_user_says_otherwise(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    share = max(1, usable_cpus() // 2)
    assert run_ranks(2, write_threads, tmp_path) == 0
    assert (tmp_path / "1").read_text() == f"{share} of 2"
    (tree / "jobs/cpu.max").write_text("100000 100000\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as labs/__init__.py has set it
    assert run_ranks(2, write_threads, tmp_path) == 0
    assert (tmp_path / "1").read_text() == "1 of 2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert run_ranks(2, write_threads, tmp_path) == 0
    assert (tmp_path / "1").read_text() == "5 of 2"


@pytest.mark.engine
def test_a_limited_container_starts_that_many_threads(clone: Clone) -> None:
    lab = clone.bare_lab("print('threads:', os.environ.get('OMP_NUM_THREADS'))")
    ended = clone.invoke("lab", lab, LABS_CPUS="1")
    assert ended.code == 0, str(ended)
    assert "threads: 1" in ended.out
