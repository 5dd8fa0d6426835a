"""A real Slurm on this machine: a controller and two node daemons, on loopback only.

They and all commands run in a mount namespace: Slurm's sockets in /run have fixed names.
"""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.environment.make import required_environment
from tests.conftest import PATIENCE, Clone, Ended, Running

import pytest

COMMANDS = (
    *("unshare", "nsenter"),
    *("slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "sinfo"),
)
CPUS = 16  # that each node claims to have
GPUS = 8
STARTS = 3  # of a node's daemon
SECONDS_TO_START = 20
# Real ports would be another cluster's.
SETTINGS = r"""
ClusterName=labs
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/slurm
CredType=cred/slurm
AuthInfo=use_client_ids
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={controller}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/run/controller.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/log/controller.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait=20
SlurmdParameters=config_overrides
NodeName=DEFAULT CPUs={cpus} Sockets=1 CoresPerSocket={cpus} ThreadsPerCore=1 \
    RealMemory=8000 Gres=gpu:mi300x:{gpus}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=labs Nodes=n1,n2 Default=YES MaxTime=60 State=UP
PartitionName=urgent Nodes=n1,n2 PriorityTier=10 State=UP
"""
NAMESPACE = """
mkdir -p /run/slurm /run/slurmctld
mount -t tmpfs tmpfs /run/slurm
mount -t tmpfs tmpfs /run/slurmctld
echo ready
exec sleep infinity
"""
CARDS = """\
AutoDetect=off
NodeName=n[1-2] Name=gpu Type=mi300x File={folder}/dev/renderD[128-135]
"""


def why_not() -> str:
    """Return why Slurm can't run here, or ""."""
    if os.geteuid() != 0:
        return "only root can start Slurm's daemons"
    if missing := [name for name in COMMANDS if not shutil.which(name)]:
        return f"Slurm isn't installed here: {', '.join(missing)}"
    return ""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class Cluster:
    """Two nodes with eight stand-in GPUs each."""

    folder: Path
    holder: "subprocess.Popen[str]"  # of the mount namespace

    @classmethod
    def new(cls, folder: Path, inside: tuple[str, ...] | list[str] = ()) -> "Cluster":
        """Prepare a cluster; `inside` are words that enter the mount namespace of its nodes."""
        if reason := why_not():
            pytest.skip(reason)
        for name in ("state", "run", "log", "spool-n1", "spool-n2", "dev"):
            (folder / name).mkdir()
        key = folder / "slurm.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        for number in range(GPUS):
            node = folder / "dev" / f"renderD{128 + number}"
            os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(226, 128 + number))
        controller, first, second = free_ports(3)
        text = SETTINGS.format(
            host=socket.gethostname(),
            folder=folder,
            cpus=CPUS,
            gpus=GPUS,
            controller=controller,
            first=first,
            second=second,
        )
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text(CARDS.format(folder=folder))
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        command = [*inside, "unshare", "--mount", "--propagation=private", "sh", "-c", NAMESPACE]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        return cls(folder, holder)

    def enter(self, folder: Path) -> list[str]:
        """Return the words before a command that run it on the cluster."""
        return ["nsenter", f"--target={self.holder.pid}", "--mount", f"--wdns={folder}", "--"]

    @property
    def variables(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "GLOO_SOCKET_IFNAME": "lo"}

    def ask(self, *words: str) -> str:
        """Run one of Slurm's commands; return its output, also that of a failure."""
        environment = {**os.environ, **self.variables}
        command = [*self.enter(self.folder), *words]
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        return ended.stdout + ended.stderr

    def start(self) -> None:
        self.start_controller("-c", "-i")
        for node in ("n1", "n2"):
            self.start_node(node)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        self.wait_for("idle nodes", lambda: self.ask("sinfo", "-h", "-o", "%t %D") == "idle 2\n")

    def start_node(self, node: str) -> None:
        """Start a node's daemon; again if it ended at once, as was seen once in 200 starts."""
        for _ in range(STARTS):
            assert self.ask("slurmd", "-N", node) == ""
            deadline = time.monotonic() + SECONDS_TO_START
            while time.monotonic() < deadline:
                if self.runs(node):
                    return
                time.sleep(0.1)
        pytest.fail(f"{node} didn't start:\n{self.logs()}")

    def start_controller(self, *options: str) -> None:
        assert self.ask("slurmctld", *options) == ""

    def wait_for(self, what: str, ask) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ask():
            assert time.monotonic() < deadline, f"no {what}:\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in (self.folder / "log").iterdir())

    def state(self, job: str) -> str:
        return self.ask("squeue", "--jobs", job, "--states=all", "-h", "-o", "%T").strip()

    def kill(self, name: str, what: signal.Signals = signal.SIGKILL) -> None:
        """End a daemon: controller, n1 or n2."""
        with suppress(OSError, ValueError):
            pid = self._pid(name)
            os.kill(pid, what)
            self.wait_for(f"end of {name}", lambda: not _runs(pid))

    def runs(self, name: str) -> bool:
        """Return whether a daemon runs: controller, n1 or n2."""
        try:
            return _runs(self._pid(name))
        except (OSError, ValueError):
            return False

    def _pid(self, name: str) -> int:
        return int((self.folder / "run" / f"{name}.pid").read_text())

    def close(self) -> None:
        self.ask("scancel", "--state=PENDING", "--quiet")
        self.ask("scancel", "--state=RUNNING", "--quiet", "--signal=KILL", "--full")
        with suppress(AssertionError):
            self.wait_for("end of the jobs", lambda: not self.ask("squeue", "-h").strip())
        for name in ("n1", "n2", "controller"):
            self.kill(name)
        self.holder.kill()
        self.holder.communicate()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Cli:
    """A user's commands on the cluster."""

    def __init__(self, cluster: Cluster, clone: Clone) -> None:
        self.cluster = cluster
        self.clone = clone

    def start(
        self, *words: str, terminal: tuple[int, int] | None = None, **variables: str
    ) -> Running:
        how = {"user": self.cluster.enter(self.clone.path), **self.cluster.variables}
        return self.clone.start_invoke(*words, terminal=terminal, **{**how, **variables})

    def run(self, *words: str) -> Ended:
        return self.start(*words).ended()

    def lab(self, body: str, *words: str, terminal: tuple[int, int] | None = None) -> Running:
        lab = self.clone.bare_lab(body)
        return self.start("lab", lab, "--on", "slurm", *words, terminal=terminal)

    def go(self) -> None:
        self.clone.outputs.mkdir(exist_ok=True)
        (self.clone.outputs / "go").touch()


def stand_in_environment(clone: Clone, python: str, stack: str = "cpu", gfx: str = "") -> None:
    """Make a folder that the launcher takes for a finished environment, with this Python."""
    folder = clone.path / ".lab-env" / required_environment(stack, gfx).folder.name
    (folder / "venv" / "bin").mkdir(parents=True)
    (folder / "home").mkdir()
    file = folder / "venv" / "bin" / "python"
    file.write_text(python)
    file.chmod(0o755)
    (folder / "home" / "stack.json").write_text("{}")
    folder.with_suffix(".lock").touch()


def number_of(text: str) -> str:
    found = re.search(r"as job (\d+)\.", text)
    assert found, text
    return found[1]


def submitted(running: Running) -> str:
    running.wait_for("as job ")
    running.wait_for("\n")
    return number_of(running.text)
