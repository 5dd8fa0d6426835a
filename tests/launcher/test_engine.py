"""The connection to the engine, its properties, and the owner of the files."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from common.cards import Card
from launcher.engine import client as engine
from launcher.engine.client import NoEngine, connect
from launcher.run import file_owner
from launcher.run import service as lab_service
from launcher.run.file_owner import Owner
from launcher.run.placement import Placement
from tests.conftest import Clone

import pytest
from docker.errors import DockerException

# Output of Engine 26.1; ROOTLESS is from the documentation of the rootless mode.
ORDINARY = {
    "SecurityOptions": ["name=seccomp,profile=builtin"],
    "DockerRootDir": "/var/lib/docker",
}
ROOTLESS = {
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"],
    "DockerRootDir": "/home/learner/.local/share/docker",
}
# From the documentation of `docker info`; not recorded on a real host.
SELINUX = {**ORDINARY, "SecurityOptions": [*ORDINARY["SecurityOptions"], "name=selinux"]}


class Recorded:
    """A client that returns the recorded information of an engine."""

    def __init__(self, info: dict[str, Any] | Exception) -> None:
        self.recorded = info
        self.api = type("Api", (), {"timeout": 10})()

    def info(self) -> dict[str, Any]:
        if isinstance(self.recorded, Exception):
            raise self.recorded
        return self.recorded


@pytest.fixture
def engine_info(monkeypatch):
    def use(info: dict[str, Any] | Exception) -> None:
        monkeypatch.setattr(docker, "from_env", lambda **_: Recorded(info))

    return use


def test_a_rootless_engine_runs_labs_as_root_who_is_the_caller(engine_info) -> None:
    engine_info(ROOTLESS)
    engine = connect()
    assert engine.rootless
    assert file_owner.container_user(Owner(1000, 1000), engine.rootless) == Owner(0, 0)


def test_an_ordinary_engine_runs_labs_with_the_callers_uid(engine_info) -> None:
    engine_info(ORDINARY)
    engine = connect()
    assert not engine.rootless
    assert file_owner.container_user(Owner(1000, 1000), engine.rootless) == Owner(1000, 1000)


def test_on_an_selinux_host_labels_are_disabled_for_the_container(engine_info, monkeypatch) -> None:
    service = {"image": "image", "security_opt": ["no-new-privileges:true"], "build": {"args": {}}}
    placement = Placement("cpu", (), Owner(1000, 1000), "it was asked for")
    for info, options in (
        (ORDINARY, ("no-new-privileges:true",)),
        (SELINUX, ("no-new-privileges:true", "label=disable")),
    ):
        engine_info(info)
        monkeypatch.setattr(lab_service, "name_to_run", lambda *_: "image")
        container = lab_service.container_spec(service, placement, connect())
        assert container.security_opt == options


@pytest.mark.parametrize(
    "error",
    [
        DockerException("Error while fetching server API version: ConnectionRefusedError(111)"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
def test_an_engine_that_does_not_respond_raises_no_engine(engine_info, error: Exception) -> None:
    engine_info(error)
    with pytest.raises(NoEngine, match="no container engine is running"):
        connect()


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket of an engine that never responds."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        yield listening


def test_a_frozen_engine_is_not_taken_for_none(monkeypatch, frozen: socket.socket) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{frozen.getsockname()}")
    monkeypatch.setattr(engine, "SECONDS_TO_CONNECT", 1)
    with pytest.raises(Card, match="The container engine doesn't respond"):
        connect()


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_signal_ends_the_wait_for_a_frozen_engine(
    clone: Clone, frozen: socket.socket, what: signal.Signals
) -> None:
    address = f"unix://{frozen.getsockname()}"
    running = clone.start_invoke("lab", clone.bare_lab("pass"), DOCKER_HOST=address)
    with frozen.accept()[0]:
        running.send(what)
        ended = running.ended()
    assert ended.code == 130, ended
    assert "interrupted" in ended.err


def test_an_engine_that_refuses_is_a_card(engine_info) -> None:
    engine_info(
        DockerException(
            "Error while fetching server API version: ('Connection aborted.', "
            "PermissionError(13, 'Permission denied'))"
        )
    )
    with pytest.raises(Card, match="may not use"):
        connect()


def test_a_wrong_address_raises_no_engine(monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(NoEngine):
        connect()


def test_a_missing_sdk_is_a_card(monkeypatch) -> None:
    monkeypatch.delattr(docker, "from_env")
    with pytest.raises(Card) as caught:
        connect()
    assert caught.value.fix == "pip install -e ."


# Owners


@pytest.mark.usefixtures("root")
def test_root_acts_for_the_owner_of_the_clone(tmp_path: Path) -> None:
    os.chown(tmp_path, 4242, 4343)
    assert file_owner.file_owner(tmp_path) == Owner(4242, 4343)


def test_other_users_act_for_themselves(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 4321)
    assert file_owner.file_owner(tmp_path) == Owner(1234, 4321)


@pytest.mark.usefixtures("root")
def test_every_created_folder_belongs_to_the_owner(tmp_path: Path) -> None:
    file_owner.make_folder(tmp_path / "a" / "b", Owner(4242, 4242))
    assert [(tmp_path / one).stat().st_uid for one in ("a", "a/b")] == [4242, 4242]
    assert tmp_path.stat().st_uid == 0, "an existing folder keeps its owner"
