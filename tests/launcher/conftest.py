"""Fixtures of the launcher's tests: hosts with separate engines, and small images for them."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import Clone, _fresh_clone
from tests.launcher.device_trees import add_nvidia_gpu, nvidia_driver
from tests.launcher.gpu_host import Host, add_gpu, add_kfd, build_small, use_small_images
from tests.launcher.slurm_cluster import Cli, Cluster, stand_in_environment

import pytest


@pytest.fixture(scope="session")
def small_images(snapshot: Path, engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive of the small images, to load into new engines."""
    del engine  # it has the image that these are made from
    builder = use_small_images(_fresh_clone(snapshot))
    archive = tmp_path_factory.mktemp("small") / "images.tar"
    try:
        build_small(builder, archive)
    finally:
        builder.close()
    return archive


@pytest.fixture
def small_clone(clone: Clone) -> Clone:
    """Return a clone that uses the small images."""
    return use_small_images(clone)


@pytest.fixture(scope="session")
def running_host(small_images: Path) -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("only root can start an engine of its own")
    if not all(map(shutil.which, ("dockerd", "unshare", "nsenter"))):
        pytest.skip("dockerd, unshare or nsenter isn't installed")
    host = Host.new()
    try:
        host.start()
        host.load(small_images)
        yield host
    finally:
        host.close()


@pytest.fixture
def host(running_host: Host) -> Iterator[Host]:
    """Return a host without a GPU; fail if a test leaves a container on it."""
    running_host.clear()
    yield running_host
    left = running_host.containers()
    running_host.clear()
    assert not left, "a container was left behind"


@pytest.fixture
def mi300x(host: Host) -> Host:
    """Return a host with two MI300X."""
    add_kfd(host)
    add_gpu(host, 1, 90402, 128, 192)
    add_gpu(host, 2, 90402, 136, 192)
    return host


@pytest.fixture
def h100(host: Host) -> Host:
    """Return a host with two H100, whose engine accepts requests for NVIDIA GPUs."""
    nvidia_driver(host.root, "580.95.05")
    add_nvidia_gpu(host.root, "0000:04:00.0", 0, uuid="GPU-aaaaaaaa-0000-0000-0000-000000000000")
    add_nvidia_gpu(host.root, "0000:05:00.0", 1, uuid="GPU-bbbbbbbb-0000-0000-0000-000000000000")
    return host


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="llm-labs-slurm-") as folder:
        Path(folder).chmod(0o755)  # other users have to read its configuration
        made = Cluster.new(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def their_clone(snapshot: Path) -> Iterator[Clone]:
    """Copy this clone once, with a stand-in for the environment: bare labs need only Python."""
    clone = _fresh_clone(snapshot)
    for stack, gfx in (("cpu", ""), ("rocm", "gfx942")):
        python = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
        stand_in_environment(clone, python, stack, gfx)
    yield clone
    clone.close()


@pytest.fixture
def cli(cluster: Cluster, their_clone: Clone) -> Cli:
    (their_clone.outputs / "go").unlink(missing_ok=True)
    return Cli(cluster, their_clone)
