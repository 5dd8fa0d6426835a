"""A host for tests with fake GPUs: a real engine with separate /dev, /sys/class and /etc/cdi.

The engine and all commands on the host run in a mount namespace, so no other process sees the GPUs.
They are null devices with the mode and group of a GPU's nodes. The engine has CDI enabled, a
runtime named amd, which is runc, and an NVIDIA hook that does nothing. So the tests cover the
engine's part of a request, and not the vendor's tool.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from resource import RLIMIT_NOFILE, RLIMIT_NPROC, getrlimit
from typing import Any

from tests.conftest import BIN, PATIENCE, SOMEBODY, Clone, Ended, Running, as_user
from tests.launcher.device_trees import GIB, cpu_node, device, kfd_node

GROUP = 4300  # may use the engine
RENDER = 60992  # owns the nodes; a gid without a name on this machine and in the image
FAKED = ("/sys/class", "/sys/bus/pci/devices", "/proc/driver")
START = """
set -e
here=$1
for folder in {faked}; do if [ -d "$folder" ]; then mount -t tmpfs tmpfs "$folder"; fi; done
cp -a /etc "$here/etc"
rm -rf "$here/etc/cdi"
mkdir "$here/etc/cdi"
mount --bind "$here/etc" /etc
mount -t tmpfs -o dev tmpfs "$here/dev"
cd /dev
cp -a null zero full random urandom tty ptmx fd stdin stdout stderr "$here/dev"
if [ -e net/tun ]; then cp -a net "$here/dev"; chmod 666 "$here/dev/net/tun"; fi  # as udev has it
mkdir "$here/dev/pts" "$here/dev/shm"
mount --bind /dev/pts "$here/dev/pts"
mount --bind /dev/shm "$here/dev/shm"
cd /
mount --rbind "$here/dev" /dev
mount -t tmpfs -o mode=1777 tmpfs /run/lock  # the leases on these GPUs
ip link set lo up  # for a hub's port
""".format(faked=" ".join(FAKED))
ENGINE = f"""
here=$1
export PATH="$here/bin:$PATH"
exec dockerd --config-file "$here/daemon.json" --host "unix://$here/socket" --group {GROUP} \\
    --data-root "$here/data" --exec-root "$here/exec" --pidfile "$here/pid" \\
    --bridge none --iptables=false --ip6tables=false
"""

# Settings of Podman for a machine without systemd, whose limits Podman can't raise.
LIMITS = [
    (one, getrlimit(kind)[1]) for one, kind in (("nofile", RLIMIT_NOFILE), ("nproc", RLIMIT_NPROC))
]
PODMAN_SETTINGS = f"""[containers]
netns = "host"
default_ulimits = {json.dumps([f"{one}={most}:{most}" for one, most in LIMITS])}
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

# A small image (180 MB) for labs that only need Python. The launcher builds it, so that it has the
# labels that the launcher checks.
SMALL = """
FROM llm-labs:cpu AS whole
FROM base AS labs
COPY --from=whole /opt/labs/venv/lib/python3.*/site-packages/rich /packages/rich
COPY --from=whole /opt/labs/venv/lib/python3.*/site-packages/pygments /packages/pygments
COPY --from=whole /opt/labs/venv/lib/python3.*/site-packages/markdown_it /packages/markdown_it
COPY --from=whole /opt/labs/venv/lib/python3.*/site-packages/mdurl /packages/mdurl
RUN mkdir -p /opt/labs/venv/bin && ln -sf "$(command -v python3)" /opt/labs/venv/bin/python
ENV HOME=/tmp/home PYTHONPATH=/lab:/packages PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /lab
ARG STACK GFX INPUTS
LABEL llm-labs.stack=$STACK llm-labs.gfx=$GFX llm-labs.inputs=$INPUTS
USER 1000:1000
ENTRYPOINT ["python3", "-m", "labs"]
"""
SMALL_ONES = ("llm-labs-small:cpu", "llm-labs-small:cuda", "llm-labs-small:rocm-gfx942")


def use_small_images(clone: Clone, small: str = SMALL) -> Clone:
    """Change a clone so that it uses the small images."""
    file = clone.path / "docker" / "Dockerfile"
    bare, _, _ = file.read_text(encoding="utf-8").partition("\n# The complete lock.")
    file.write_text(bare + small, encoding="utf-8")
    for stack in ("cpu", "cuda", "rocm-"):
        clone.change("compose.yaml", f"image: llm-labs:{stack}", f"image: llm-labs-small:{stack}")
    return clone


def build_small(clone: Clone, archive: Path) -> None:
    """Build the small images with the machine's engine, and save them in one archive.

    The tests of Podman and of GPU hosts do so, perhaps at the same time.
    """
    with (Path(tempfile.gettempdir()) / "llm-labs-small.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (("cpu",), ("cuda",), ("rocm", "--gfx", "gfx942")):
            built = clone.invoke("build", "--runtime", "docker", "--stack", *words)
            assert built.code == 0, built
        subprocess.run(["docker", "save", "--output", archive, *SMALL_ONES], check=True)
        subprocess.run(["docker", "image", "rm", *SMALL_ONES], check=True, capture_output=True)


def wait_for_engine(socket: Path, process: "subprocess.Popen[Any]", log: Path) -> None:
    import docker

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the engine ended:\n{log.read_text()[-4000:]}"
        try:
            docker.DockerClient(base_url=f"unix://{socket}").ping()
            return
        except (docker.errors.DockerException, OSError):
            time.sleep(0.1)
    raise AssertionError(f"the engine never responded:\n{log.read_text()[-4000:]}")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@dataclass
class Host:
    """A host with a separate engine; `root` is its root folder as seen from outside."""

    folder: Path
    process: "subprocess.Popen[Any] | None" = None

    @classmethod
    def new(cls) -> "Host":
        folder = Path(tempfile.mkdtemp(prefix="llm-labs-host-"))
        folder.chmod(0o755)  # other users have to reach the socket
        for name in ("bin", "dev"):
            (folder / name).mkdir()
        hook = folder / "bin" / "nvidia-container-runtime-hook"
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
        settings = {"features": {"cdi": True}, "runtimes": {"amd": {"path": "runc"}}}
        (folder / "daemon.json").write_text(json.dumps(settings))
        return cls(folder)

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    @property
    def specifications(self) -> Path:
        """Return the host's /etc/cdi."""
        return self.folder / "etc" / "cdi"

    @property
    def root(self) -> Path:
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root")

    def start(self) -> None:
        shutil.rmtree(self.folder / "etc", ignore_errors=True)
        # In a separate network namespace: dockerd without a bridge removes the other engine's.
        self._run(["unshare", "--net", "--mount", "--propagation=private"], START + ENGINE)

    def restart_engine(self, how: signal.Signals) -> None:
        """End the engine and start it again; the host's network, nodes and leases stay."""
        into = ["--mount", "--net"]
        stay = ["nsenter", f"--target={self.process.pid}", *into, "--", "sleep", "infinity"]
        with subprocess.Popen(stay) as stays:
            time.sleep(1)  # it enters
            self.stop(how)
            self._run(["nsenter", f"--target={stays.pid}", *into, "--"], ENGINE)
            stays.kill()

    def restart_machine(self) -> None:
        """Kill the engine and all its containers at once, and start the host again.

        As on a machine that lost its power, /run, /dev, the mounts and the network are new, and the
        engine's data stays. But the kernel goes on, and so does what it hasn't written yet.
        """
        everything = self._processes()
        for pid in everything:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        for pid in everything:
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.05)
        shutil.rmtree(self.folder / "exec")
        for name in ("pid", "socket"):
            (self.folder / name).unlink()
        self.start()

    def _processes(self) -> list[int]:
        """Return the engine, its containerd, its shims and the first process of each container."""
        engine = self.process.pid
        asked = ["pgrep", "--parent", str(engine)]
        children = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        states = [one.attrs["State"] for one in self.containers()]
        containers = [state["Pid"] for state in states if state["Running"]]
        return [engine, *map(int, children), *map(_parent, containers), *containers]

    def _run(self, namespaces: list[str], script: str) -> None:
        log = self.folder / "log"
        command = [*namespaces, "sh", "-c", script, "sh", str(self.folder)]
        with log.open("a") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, start_new_session=True
            )
        wait_for_engine(self.socket, self.process, log)

    def load(self, archive: Path) -> None:
        with self.client() as client:
            client.images.load(archive.read_bytes())

    def client(self) -> Any:
        import docker

        return contextlib.closing(docker.DockerClient(base_url=f"unix://{self.socket}"))

    def containers(self) -> list[Any]:
        with self.client() as client:
            return client.containers.list(all=True)

    def inspected(self, identity: str) -> Any:
        with self.client() as client:
            return client.containers.get(identity).attrs

    def clear(self) -> None:
        """Remove every GPU, and every container that a test left."""
        for one in self.containers():
            one.remove(force=True)
        for folder in FAKED:
            for one in (self.root / folder.lstrip("/")).glob("*"):
                shutil.rmtree(one)
        for one in (*self.root.glob("dev/nvidia*"), *self.root.glob("dev/kfd")):
            one.unlink()
        shutil.rmtree(self.root / "dev" / "dri", ignore_errors=True)
        for one in self.specifications.iterdir():
            one.unlink()

    def enter(self, folder: Path) -> list[str]:
        """Return the words before a command that run it on this host."""
        assert self.process is not None
        return ["nsenter", f"--target={self.process.pid}", "--mount", f"--wdns={folder}", "--"]

    def here(self, clone: Clone, user: tuple[str, ...] | list[str] = ()) -> dict[str, Any]:
        """Return keywords that run a command of the clone on this host."""
        return {
            "user": [*self.enter(clone.path), *user],
            "DOCKER_HOST": f"unix://{self.socket}",
            "HOME": str(clone.path),
        }

    def somebody(self, clone: Clone, *groups: int) -> dict[str, Any]:
        """Return keywords that run a command as an ordinary user who may use the engine."""
        return self.here(clone, as_user(SOMEBODY, GROUP, *groups))

    def invoke(self, clone: Clone, *words: str, **how: Any) -> Running:
        """Start invoke on this host as an ordinary user."""
        return clone.start(str(BIN / "invoke"), *words, **{**self.somebody(clone), **how})

    def compose(self, clone: Clone, *words: str, **how: Any) -> Running:
        """Start Docker Compose on this host as an ordinary user."""
        return clone.start("docker", "compose", *words, **{**self.somebody(clone), **how})

    def stop(self, what: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(what)
            self.process.wait(PATIENCE)
        self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


# A lab that opens the named nodes and prints the result for each.
OPEN_NODES = """
for name in arguments[arguments.index("--word") + 1:]:
    try:
        open(name, "r+b").close()
        print("opened", name)
    except OSError as error:
        print(type(error).__name__, name)
shown = [name for name in os.environ if "VISIBLE_DEVICES" in name]
print(json.dumps({
    "uid": os.getuid(), "groups": os.getgroups(),
    "shown": {name: os.environ[name] for name in shown},
    "nodes": sorted(one for one in ("kfd", "dri") if os.path.exists(f"/dev/{one}")),
    "cards": sorted(os.listdir("/dev/dri")) if os.path.exists("/dev/dri") else [],
}))
"""
KFD, FIRST, SECOND = "/dev/kfd", "/dev/dri/renderD128", "/dev/dri/renderD136"


def add_gpu(
    host: Host, number: int, version: int, minor: int, vram: int, mode: int = 0o660
) -> None:
    """Add a GPU whose render node is open to the group RENDER only."""
    device(host.root, f"/dev/dri/renderD{minor}", mode, RENDER)
    kfd_node(host.root, number, version, minor, vram * GIB)


def add_kfd(host: Host, mode: int = 0o660) -> None:
    cpu_node(host.root)
    device(host.root, KFD, mode, RENDER)


def opened_nodes(ended: Ended) -> tuple[list[str], dict[str, Any]]:
    """Return the lines about each node, and what else the lab printed."""
    assert ended.code == 0, ended
    *lines, seen = ended.out.strip().splitlines()
    return lines, json.loads(seen)


def specification(
    host: Host, *nodes: str, kind: str = "amd.com/gpu", each: tuple[str, ...] = (KFD,)
) -> None:
    """Write a CDI specification: a device for each GPU, with the nodes that all share."""
    devices = [
        {
            "name": str(index),
            "containerEdits": {"deviceNodes": [{"path": one} for one in (*each, node)]},
        }
        for index, node in enumerate(nodes)
    ]
    text = json.dumps({"cdiVersion": "0.6.0", "kind": kind, "devices": devices})
    (host.specifications / "cards.json").write_text(text)
