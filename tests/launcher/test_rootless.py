"""Real rootless engines: the owner of their files, how they end, and the GPUs they open."""

import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from tests.conftest import BIN, SOMEBODY, Clone, Running, as_user
from tests.launcher.gpu_host import (
    FAKED,
    FIRST,
    KFD,
    OPEN_NODES,
    PODMAN_SETTINGS,
    RENDER,
    SECOND,
    Host,
    opened_nodes,
    wait_for_engine,
)

import pytest

pytestmark = pytest.mark.engine
SCRIPT = "/usr/share/docker.io/contrib/dockerd-rootless.sh"  # Debian's place; elsewhere on the PATH
NEEDS = {
    "docker": ("setpriv", "newuidmap", "rootlesskit", "slirp4netns"),
    "podman": ("setpriv", "newuidmap", "podman"),
}
# Starts the engine with a separate /etc, in which SOMEBODY has a name, subordinate ids and the
# group RENDER. The engine sees the host's /dev, but the real /sys and /proc: a container needs new
# mounts of them, which the kernel denies to a user namespace while they have mounts on top.
START = f"""
set -e
here=$1
shift
for folder in {" ".join(FAKED)}; do
    if mountpoint -q "$folder"; then umount "$folder"; fi
done
cp -a /etc "$here/etc"
echo "somebody:x:{SOMEBODY}:{SOMEBODY}::$here/home:/bin/sh" >> "$here/etc/passwd"
echo "somebody:x:{SOMEBODY}:" >> "$here/etc/group"
echo "cards:x:{RENDER}:somebody" >> "$here/etc/group"
echo "somebody:200000:65536" | tee "$here/etc/subuid" > "$here/etc/subgid"
mount --bind "$here/etc" /etc
exec setpriv --reuid={SOMEBODY} --regid={SOMEBODY} --init-groups env -i HOME="$here/home" \\
    XDG_RUNTIME_DIR="$here/home" PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""


@dataclass
class Rootless:
    """An engine of SOMEBODY on the tests' host."""

    folder: Path
    host: Host

    @property
    def socket(self) -> Path:
        return self.folder / "home" / "docker.sock"

    def here(self, clone: Clone) -> dict[str, Any]:
        ours = self.host.here(clone, as_user(SOMEBODY, RENDER))
        return {**ours, "DOCKER_HOST": f"unix://{self.socket}"}

    def invoke(self, clone: Clone, *words: str) -> Running:
        return clone.start(str(BIN / "invoke"), *words, **self.here(clone))

    def compose(self, clone: Clone, *words: str) -> Running:
        return clone.start("docker", "compose", *words, **self.here(clone))


def command(engine: str, folder: Path, script: str) -> list[str]:
    """Return the command that starts the engine on the socket home/docker.sock."""
    if engine == "docker":
        network = "DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns"
        return [network, script, "--bridge=none", "--iptables=false", "--ip6tables=false"]
    (folder / "containers.conf").write_text(PODMAN_SETTINGS)
    settings = [f"CONTAINERS_CONF={folder}/containers.conf", "PODMAN_IGNORE_CGROUPSV1_WARNING=1"]
    address = f"unix://{folder}/home/docker.sock"
    return [*settings, "podman", "system", "service", "--time=0", address]


@pytest.fixture(scope="module", params=["docker", "podman"])
def rootless(
    request: pytest.FixtureRequest, running_host: Host, small_images: Path
) -> Iterator[Rootless]:
    missing = [one for one in NEEDS[request.param] if not shutil.which(one)]
    script = shutil.which("dockerd-rootless.sh") or SCRIPT
    if request.param == "docker" and not Path(script).exists():
        missing.append("dockerd-rootless.sh")
    if request.param == "docker" and not Path("/dev/net/tun").exists():
        missing.append("/dev/net/tun")
    if missing:
        pytest.skip(f"no rootless {request.param} here: there is no {', '.join(missing)}")
    one = Rootless(Path(tempfile.mkdtemp(prefix="llm-labs-rootless-")), running_host)
    one.folder.chmod(0o755)
    (one.folder / "home").mkdir()
    os.chown(one.folder / "home", SOMEBODY, SOMEBODY)
    log = one.folder / "log"
    words = [*running_host.enter(one.folder), "unshare", "--mount", "--propagation=private"]
    words += ["bash", "-c", START, "bash", str(one.folder)]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*words, *command(request.param, one.folder, script)],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        wait_for_engine(one.socket, process, log)
        client = docker.DockerClient(base_url=f"unix://{one.socket}")
        list(client.api.load_image(small_images.read_bytes()))
        yield one
    finally:
        process.terminate()
        process.wait()
        for pause in one.folder.rglob("pause.pid"):  # this process holds Podman's user namespace
            os.kill(int(pause.read_text()), signal.SIGKILL)
        shutil.rmtree(one.folder, ignore_errors=True)


@pytest.fixture
def theirs(small_clone: Clone, rootless: Rootless, host: Host) -> Iterator[Clone]:
    """Return a clone of SOMEBODY; fail if a test leaves a container of it."""
    assert host is rootless.host  # has no GPU
    small_clone.give_to(SOMEBODY)
    yield small_clone
    client = docker.DockerClient(base_url=f"unix://{rootless.socket}")
    assert client.containers.list(all=True) == [], "a container was left behind"


def test_root_in_the_container_is_the_caller_and_the_exit_code_is_returned(
    theirs: Clone, rootless: Rootless
) -> None:
    lab = theirs.bare_lab(
        "status = open('/proc/self/status').read()\n"
        "open('outputs/mine', 'w')\n"
        "bare = 'CapBnd:\\t' + '0' * 16 in status\n"
        "print(json.dumps([os.getuid(), bare, os.listdir('/sys/class/net')]))\n"
        "return 7"
    )
    ended = rootless.invoke(theirs, "lab", lab).ended()
    assert ended.code == 7, ended
    assert json.loads(ended.out) == [0, True, ["lo"]]
    assert (theirs.outputs / "mine").stat().st_uid == SOMEBODY


def test_a_signal_leaves_no_container(theirs: Clone, rootless: Rootless) -> None:
    running = rootless.invoke(theirs, "lab", theirs.bare_lab("print('begun')\nwait_for('never')"))
    running.wait_for("begun")
    running.send(signal.SIGTERM)
    assert running.ended().code == 130, running.text


def test_compose_alone_runs_a_lab_with_the_file_of_dotenv(
    theirs: Clone, rootless: Rootless
) -> None:
    theirs.bare_lab("open('outputs/mine', 'w')\nprint(os.getuid())")
    theirs.make_folders()
    theirs.give_to(SOMEBODY)
    assert rootless.invoke(theirs, "dotenv").ended().code == 0
    ended = rootless.compose(theirs, "run", "--rm", "-T", "cpu", "LLM91").ended()
    assert (ended.code, ended.out.strip()) == (0, "0"), ended
    assert (theirs.outputs / "mine").stat().st_uid == SOMEBODY


def allow(path: Path) -> None:
    """Write the access control list of `setfacl -m u:SOMEBODY:rw`."""
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, 6, SOMEBODY), (4, 6, nobody), (16, 6, nobody), (32, 0, nobody)]
    text = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)
    os.setxattr(path, "system.posix_acl_access", text)


NODES = ("--", "--word", KFD, FIRST, SECOND)


@pytest.mark.usefixtures("mi300x")
def test_a_gpu_that_needs_a_group_is_a_card_with_the_reason(
    theirs: Clone, rootless: Rootless
) -> None:
    """The user is in the group, but the container isn't, and --group-add has no effect."""
    theirs.bare_lab(OPEN_NODES)
    ended = rootless.invoke(theirs, "lab", "LLM91", *NODES).ended()
    assert ended.code == 3, ended
    assert "a rootless engine's container is in none of the user's groups" in ended.err
    assert f"sudo setfacl -m u:{SOMEBODY}:rw {KFD} {FIRST}" in ended.err
    listed = rootless.invoke(theirs, "gpus").ended()
    assert "In a container, AMD Instinct MI300 series can't be used: uid 4242" in listed.out
    # Compose alone shows that the nodes really don't open.
    theirs.make_folders()
    theirs.give_to(SOMEBODY)
    assert rootless.invoke(theirs, "dotenv").ended().code == 0
    words = ("run", "--rm", "-T", "rocm", "LLM91", *NODES[1:])
    assert str(RENDER) not in (theirs.path / ".env").read_text()
    lines, _ = opened_nodes(rootless.compose(theirs, *words).ended())
    assert lines == [f"PermissionError {one}" for one in (KFD, FIRST, SECOND)]


@pytest.mark.parametrize("opened", ["by an access list", "to everybody"])
def test_a_gpu_that_needs_no_group_opens(
    theirs: Clone, rootless: Rootless, mi300x: Host, opened: str
) -> None:
    theirs.bare_lab(OPEN_NODES)
    for node in (KFD, SECOND):
        path = mi300x.root / node.lstrip("/")
        allow(path) if opened == "by an access list" else path.chmod(0o666)
    lines, seen = opened_nodes(rootless.invoke(theirs, "lab", "LLM91", *NODES).ended())
    assert lines == [f"opened {KFD}", f"FileNotFoundError {FIRST}", f"opened {SECOND}"]
    assert seen["uid"] == 0
