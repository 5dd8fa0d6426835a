"""Is there an engine, may we use it, what is it like; and whose the files are."""

import os
from pathlib import Path
from typing import Any

import docker
from launcher import owners, run
from launcher.cards import Card
from launcher.engine import NoEngine, connect
from launcher.owners import Owner
from launcher.plan import Plan
from launcher.targets import Target

import pytest
from docker.errors import DockerException

# As Engine 26.1 told them; the second from the rootless mode's own documentation.
ORDINARY = {
    "SecurityOptions": ["name=seccomp,profile=builtin"],
    "DockerRootDir": "/var/lib/docker",
}
ROOTLESS = {
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"],
    "DockerRootDir": "/home/learner/.local/share/docker",
}
# By the documentation of `docker info`: no such host was at hand.
SELINUX = {**ORDINARY, "SecurityOptions": [*ORDINARY["SecurityOptions"], "name=selinux"]}


class Recorded:
    """A client that answers what an engine once answered."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer
        self.api = type("Api", (), {"timeout": 10})()

    def info(self) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def answers(monkeypatch):
    def use(answer: dict[str, Any] | Exception) -> None:
        monkeypatch.setattr(docker, "from_env", lambda **_: Recorded(answer))

    return use


def test_a_rootless_engine_s_root_is_the_caller(answers) -> None:
    answers(ROOTLESS)
    engine = connect()
    assert engine.rootless
    assert owners.in_the_container(Owner(1000, 1000), engine.rootless) == Owner(0, 0)


def test_an_ordinary_engine_is_given_the_caller_s_uid(answers) -> None:
    answers(ORDINARY)
    engine = connect()
    assert not engine.rootless
    assert owners.in_the_container(Owner(1000, 1000), engine.rootless) == Owner(1000, 1000)


def test_on_an_selinux_host_the_labels_are_off_for_the_lab_s_container(answers) -> None:
    service = {"image": "image", "security_opt": ["no-new-privileges:true"], "build": {"args": {}}}
    plan = Plan(("LLM06",), (), online=False)
    target = Target("cpu", (), Owner(1000, 1000), "it was asked for")
    for answer, options in (
        (ORDINARY, ("no-new-privileges:true",)),
        (SELINUX, ("no-new-privileges:true", "label=disable")),
    ):
        answers(answer)
        container = run._container(plan, service, target, connect())
        assert container.security_opt == options


def test_a_silent_lab_is_not_cut_off(answers) -> None:
    answers(ORDINARY)
    assert connect().client.api.timeout is None


@pytest.mark.parametrize(
    "error",
    [
        DockerException("Error while fetching server API version: ConnectionRefusedError(111)"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
def test_an_engine_that_does_not_answer_is_none(answers, error: Exception) -> None:
    answers(error)
    with pytest.raises(NoEngine, match="no container engine answers"):
        connect()


def test_an_engine_that_refuses_is_a_card(answers) -> None:
    answers(
        DockerException(
            "Error while fetching server API version: ('Connection aborted.', "
            "PermissionError(13, 'Permission denied'))"
        )
    )
    with pytest.raises(Card, match="may not talk"):
        connect()


def test_no_engine_answers_at_an_address_where_there_is_none(monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(NoEngine):
        connect()


def test_a_missing_sdk_is_a_card_and_not_an_empty_package(monkeypatch) -> None:
    monkeypatch.delattr(docker, "from_env")
    with pytest.raises(Card) as caught:
        connect()
    assert caught.value.mend == "pip install -e ."


# Owners


@pytest.mark.usefixtures("root")
def test_root_works_for_the_owner_of_the_clone(tmp_path: Path) -> None:
    os.chown(tmp_path, 4242, 4343)
    assert owners.of_the_files(tmp_path) == Owner(4242, 4343)


def test_anyone_else_works_for_themselves(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 4321)
    assert owners.of_the_files(tmp_path) == Owner(1234, 4321)


@pytest.mark.usefixtures("root")
def test_every_folder_that_is_made_belongs_to_the_owner(tmp_path: Path) -> None:
    owners.make_folder(tmp_path / "a" / "b", Owner(4242, 4242))
    assert [(tmp_path / one).stat().st_uid for one in ("a", "a/b")] == [4242, 4242]
    assert tmp_path.stat().st_uid == 0, "what was there already keeps its owner"
