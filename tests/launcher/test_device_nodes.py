"""Device nodes in a real container: attached nodes open, and others are missing.

The nodes are null devices from `mknod`, with the mode and group of a GPU's nodes.
"""

import os
import stat
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from common.cards import Card
from launcher.engine import compose
from launcher.engine import container as run_container
from launcher.engine.client import connect
from launcher.engine.container_spec import ContainerSpec
from launcher.gpu import select as select_gpus
from launcher.gpu.model import AMD, NVIDIA, Gpu
from tests.conftest import SOMEBODY, Clone

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]
RENDER = 992  # a gid without a name in the image
OPEN_NODES = """
for name in arguments:
    try:
        open(name, "rb").close()
        print("opened", name)
    except OSError as error:
        print(type(error).__name__, name)
"""


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Create three nodes with mode 660 and group RENDER: the compute driver's and two GPUs'."""
    if os.geteuid() != 0:
        pytest.skip("only root can make device nodes")
    made = [f"/dev/llm-labs-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    for node in made:
        os.mknod(node, stat.S_IFCHR | 0o660, os.makedev(1, 3))
        os.chown(node, 0, RENDER)
        Path(node).chmod(0o660)  # because mknod applies the umask
    yield made
    for node in made:
        Path(node).unlink()


def amd_gpu(*opened: str) -> Gpu:
    return Gpu(AMD, 0, "A GPU", "gfx942", node=opened[-1], devices=opened, gids=(RENDER,))


def bare(clone: Clone, lab: str, *words: str) -> ContainerSpec:
    """Return the CPU stack's container for a user who isn't in the group RENDER."""
    service = compose.resolve("cpu", {"LABS_UID": str(SOMEBODY), "LABS_GID": str(SOMEBODY)})
    binds = tuple(
        replace(one, source=str(clone.path / one.target.removeprefix("/lab/")))
        for one in compose.translate(service).binds
    )
    clone.make_folders()
    return replace(compose.translate(service), binds=binds, command=(lab, "--", *words))


def ran(container: ContainerSpec, capfd: pytest.CaptureFixture[str]) -> list[str]:
    assert run_container.run(connect(), container, "LLM91") == 0
    return capfd.readouterr().out.split("\n")[:-1]


def test_attached_nodes_open_and_others_are_missing(clone, nodes, capfd) -> None:
    container = bare(clone, clone.bare_lab(OPEN_NODES), *nodes)
    attached = select_gpus.attach(container, "rocm", [amd_gpu(nodes[0], nodes[1])], "nodes")
    said = ran(attached, capfd)
    assert [line.split()[0] for line in said[-3:]] == ["opened", "opened", "FileNotFoundError"]


def test_a_node_does_not_open_without_its_group(clone, nodes, capfd) -> None:
    container = bare(clone, clone.bare_lab(OPEN_NODES), nodes[0])
    attached = select_gpus.attach(container, "rocm", [amd_gpu(nodes[0])], "nodes")
    assert ran(replace(attached, groups=()), capfd)[-1].startswith("PermissionError")
    assert ran(replace(attached, groups=("4243",)), capfd)[-1].startswith("PermissionError")


@pytest.mark.parametrize(
    ("stack", "access", "what"),
    [
        ("rocm", "nodes", "A GPU's device node doesn't exist."),
        ("rocm", "runtime", "The engine doesn't know the requested runtime."),
        ("cuda", "auto", "The engine can't give a container an NVIDIA GPU."),
    ],
)
def test_a_gpu_that_the_engine_can_not_attach_is_a_card(
    clone, stack: str, access: str, what: str
) -> None:
    gpus = {"rocm": amd_gpu("/dev/llm-labs-nothing"), "cuda": Gpu(NVIDIA, 0, "A GPU", uuid="GPU-0")}
    container = bare(clone, clone.bare_lab("pass"))
    attached = select_gpus.attach(container, stack, [replace(gpus[stack], gids=())], access)
    with pytest.raises(Card) as caught:
        run_container.run(connect(), attached, "LLM91")
    assert caught.value.what == what


def test_a_group_name_that_the_image_lacks_is_a_card(clone) -> None:
    container = replace(bare(clone, clone.bare_lab("pass")), groups=("nosuchgroup",))
    with pytest.raises(Card) as caught:
        run_container.run(connect(), container, "LLM91")
    assert caught.value.what == "The image has no group of that name."


def test_a_container_name_in_use_is_a_card_and_the_other_container_survives(
    clone, monkeypatch
) -> None:
    """Simulate another launch with the same random suffix of six hexadecimal digits."""
    container = bare(clone, clone.bare_lab("pass"))
    token = uuid.uuid4().hex[:6]
    taken = f"llm-labs-llm91-{token}"
    monkeypatch.setattr(run_container.secrets, "token_hex", lambda _: token)
    engine = connect()
    holder = engine.client.containers.create(**container.sdk_arguments(), name=taken)
    try:
        with pytest.raises(Card) as caught:
            run_container.run(engine, container, "LLM91")
        assert caught.value.what == "A container of that name exists already."
        assert engine.client.containers.get(taken).id == holder.id
    finally:
        holder.remove()


def test_a_node_that_a_device_cgroup_denies_is_unusable(clone: Clone, nodes: list[str]) -> None:
    """Detect in a container that sees a node and may not open it, like the process of a job."""
    node = nodes[1]
    Path(node).unlink()
    os.mknod(node, stat.S_IFCHR, os.makedev(226, 200))  # null devices are allowed everywhere
    Path(node).chmod(0o666)
    ask = (
        "import pathlib, sys; sys.path.insert(0, '/clone')\n"
        "from launcher.gpu.access import User, access_problem\n"
        "for user in (User.caller(), User(1000, frozenset(), joins_device_groups=True)):\n"
        "    print(access_problem(pathlib.Path('/'), ['/dev/dri/renderD128'], user).unusable)"
    )
    binds = ("-v", f"{node}:/dev/dri/renderD128", "-v", f"{clone.path}:/clone:ro")
    python = ("--entrypoint", "python3", "llm-labs:cpu", "-c", ask)
    ended = clone.run("docker", "run", "--rm", *binds, *python)
    assert ended.code == 0, ended
    problems = ended.out.splitlines()
    assert len(problems) == 2
    assert all("a device cgroup denies it to this process" in problem for problem in problems)
