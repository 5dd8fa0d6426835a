"""Device nodes in a real container: what was given opens, nothing else does, and why not is told.

The nodes are null devices, as `mknod` makes them, with the mode and group that a GPU's have.
"""

import os
import stat
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from launcher import compose, containers, devices
from launcher.cards import Card
from launcher.engine import connect
from launcher.hardware import AMD, NVIDIA, Gpu
from launcher.interrupts import Interrupts
from tests.conftest import SOMEBODY, Clone

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]
RENDER = 992  # a gid that the image has no name for
TRIES = """
for name in arguments:
    try:
        open(name, "rb").close()
        print("opened", name)
    except OSError as error:
        print(type(error).__name__, name)
"""


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Three nodes of mode 660 and group RENDER: a compute driver's, and two cards'."""
    if os.geteuid() != 0:
        pytest.skip("only root can make device nodes")
    made = [f"/dev/llm-labs-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    for node in made:
        os.mknod(node, stat.S_IFCHR | 0o660, os.makedev(1, 3))
        os.chown(node, 0, RENDER)
        Path(node).chmod(0o660)  # past the umask
    yield made
    for node in made:
        Path(node).unlink()


def card(*opened: str) -> Gpu:
    return Gpu(AMD, 0, "A card", "gfx942", node=opened[-1], devices=opened, gids=(RENDER,))


def bare(clone: Clone, lab: str, *words: str) -> compose.Container:
    """The CPU stack's container, as somebody who is no member of RENDER."""
    service = compose.resolve("cpu", {"LABS_UID": str(SOMEBODY), "LABS_GID": str(SOMEBODY)})
    binds = tuple(
        replace(one, source=str(clone.path / one.target.removeprefix("/lab/")))
        for one in compose.translate(service).binds
    )
    clone.make_folders()
    return replace(compose.translate(service), binds=binds, command=(lab, "--", *words))


def ran(container: compose.Container, capfd: pytest.CaptureFixture[str]) -> list[str]:
    with Interrupts() as interrupts:
        assert containers.run(connect(), container, "LLM91", interrupts) == 0
    return capfd.readouterr().out.split("\n")[:-1]


def test_what_is_given_opens_and_nothing_else_is_there(clone, nodes, capfd) -> None:
    container = bare(clone, clone.bare_lab(TRIES), *nodes)
    given = devices.given(container, "rocm", [card(nodes[0], nodes[1])], "nodes")
    said = ran(given, capfd)
    assert [line.split()[0] for line in said[-3:]] == ["opened", "opened", "FileNotFoundError"]


def test_without_the_group_a_node_is_there_and_does_not_open(clone, nodes, capfd) -> None:
    container = bare(clone, clone.bare_lab(TRIES), nodes[0])
    given = devices.given(container, "rocm", [card(nodes[0])], "nodes")
    assert ran(replace(given, groups=()), capfd)[-1].startswith("PermissionError")
    assert ran(replace(given, groups=("4243",)), capfd)[-1].startswith("PermissionError")


@pytest.mark.parametrize(
    ("stack", "access", "what"),
    [
        ("rocm", "nodes", "A GPU's device node isn't there."),
        ("rocm", "runtime", "The engine doesn't know the runtime that was asked for."),
        ("cuda", "auto", "The engine can't give a container an NVIDIA GPU."),
    ],
)
def test_what_the_engine_can_not_give_is_a_card(clone, stack: str, access: str, what: str) -> None:
    gpus = {"rocm": card("/dev/llm-labs-nothing"), "cuda": Gpu(NVIDIA, 0, "A card", uuid="GPU-0")}
    container = bare(clone, clone.bare_lab("pass"))
    given = devices.given(container, stack, [replace(gpus[stack], gids=())], access)
    with pytest.raises(Card) as caught, Interrupts() as interrupts:
        containers.run(connect(), given, "LLM91", interrupts)
    assert caught.value.what == what


def test_a_group_by_a_name_that_the_image_lacks_is_a_card(clone) -> None:
    container = replace(bare(clone, clone.bare_lab("pass")), groups=("nosuchgroup",))
    with pytest.raises(Card) as caught, Interrupts() as interrupts:
        containers.run(connect(), container, "LLM91", interrupts)
    assert caught.value.what == "The image has no group of that name."


def test_a_name_that_is_taken_is_a_card_and_its_holder_is_left_alone(clone, monkeypatch) -> None:
    """By another launch with the same six hexadecimal digits, which a test has to arrange."""
    container = bare(clone, clone.bare_lab("pass"))
    token = uuid.uuid4().hex[:6]
    taken = f"llm-labs-llm91-{token}"
    monkeypatch.setattr(containers.secrets, "token_hex", lambda _: token)
    engine = connect()
    holder = engine.client.containers.create(**container.for_the_sdk(), name=taken)
    try:
        with pytest.raises(Card) as caught, Interrupts() as interrupts:
            containers.run(engine, container, "LLM91", interrupts)
        assert caught.value.what == "A container of that name is there already."
        assert engine.client.containers.get(taken).id == holder.id
    finally:
        holder.remove()
