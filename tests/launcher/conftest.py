"""What the launcher's tests share: hosts and engines of their own, and the image for them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import Clone, _fresh_clone
from tests.launcher.hosts import Host, build_small, card, kfd, made_small
from tests.launcher.machines import nvidia_card, nvidia_driver

import pytest


@pytest.fixture(scope="session")
def small_images(snapshot: Path, engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the small images, for engines that begin with none."""
    del engine  # it has the image that these are made from
    builder = made_small(_fresh_clone(snapshot))
    archive = tmp_path_factory.mktemp("small") / "images.tar"
    try:
        build_small(builder, archive)
    finally:
        builder.close()
    return archive


@pytest.fixture
def small_clone(clone: Clone) -> Clone:
    """A clone whose images are the small ones."""
    return made_small(clone)


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
    """A host of the tests' own, without a card; no container of a test may be left on it."""
    running_host.emptied()
    yield running_host
    left = running_host.containers()
    running_host.emptied()
    assert not left, "a container was left behind"


@pytest.fixture
def mi300x(host: Host) -> Host:
    """A host with two of them."""
    kfd(host)
    card(host, 1, 90402, 128, 192)
    card(host, 2, 90402, 136, 192)
    return host


@pytest.fixture
def h100(host: Host) -> Host:
    """A host with two of them, whose engine answers the toolkit's requests."""
    nvidia_driver(host.root, "580.95.05")
    nvidia_card(host.root, "0000:04:00.0", 0, uuid="GPU-aaaaaaaa-0000-0000-0000-000000000000")
    nvidia_card(host.root, "0000:05:00.0", 1, uuid="GPU-bbbbbbbb-0000-0000-0000-000000000000")
    return host
