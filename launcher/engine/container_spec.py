"""Container spec, rendered for the Docker SDK and for `docker run`."""

import csv
import io
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Bind:
    """A folder of the host, mounted into the container."""

    source: str
    target: str
    read_only: bool = False

    def mount_words(self) -> str:
        """Return the value of --mount, which is CSV: a path with a comma needs quotes."""
        fields = ["type=bind", f"source={self.source}", f"target={self.target}"]
        fields += ["readonly"] if self.read_only else []
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(fields)
        return line.getvalue()


@dataclass(frozen=True)
class Port:
    """A port of the container, published on one address of the host."""

    address: str
    published: int
    target: int


@dataclass(frozen=True)
class GpuRequest:
    """GPUs by name: from a driver ("nvidia") or by CDI ("cdi", "amd.com/gpu=0")."""

    driver: str
    names: tuple[str, ...]

    def docker_run_words(self) -> list[str]:
        """Return the options of `docker run`."""
        if self.driver == "cdi":
            return [f"--device={name}" for name in self.names]
        return ["--gpus", f'driver={self.driver},"device={",".join(self.names)}"']

    def sdk_request(self) -> Any:
        """Return the SDK's device request."""
        from docker.types import DeviceRequest

        if self.driver == "cdi":
            return DeviceRequest(driver="cdi", device_ids=list(self.names))
        names = list(self.names)
        return DeviceRequest(driver=self.driver, device_ids=names, capabilities=[["gpu"]])


@dataclass(frozen=True)
class ContainerSpec:
    """Everything that decides how a lab's container runs."""

    image: str
    user: str = ""
    network_mode: str = ""
    network_options: dict[str, str] = field(default_factory=dict[str, str])  # for a new network
    ports: tuple[Port, ...] = ()
    dns: tuple[str, ...] = ()
    init: bool = False
    read_only: bool = False
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    shm_size: int = 0
    pids_limit: int = 0
    mem_limit: int = 0
    memswap_limit: int = 0  # memory and swap together
    cpus: float = 0
    cpuset: str = ""
    cgroup_parent: str = ""
    ulimits: tuple[tuple[str, int, int], ...] = ()  # name, soft, hard
    binds: tuple[Bind, ...] = ()
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    requests: tuple[GpuRequest, ...] = ()
    runtime: str = ""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    labels: dict[str, str] = field(default_factory=dict[str, str])
    command: tuple[str, ...] = ()
    reads_input: bool = False  # and handles Ctrl-C, as a chat does

    @property
    def writable_folders(self) -> list[str]:
        """Return the host's folders that the container writes to."""
        return [bind.source for bind in self.binds if not bind.read_only]

    def with_bind(self, bind: Bind) -> "ContainerSpec":
        """Return a copy with one more mounted folder."""
        return replace(self, binds=(*self.binds, bind))

    def with_binds(self, binds: tuple[Bind, ...]) -> "ContainerSpec":
        """Return a copy with more mounted folders."""
        return replace(self, binds=(*self.binds, *binds))

    def sdk_arguments(self) -> dict[str, Any]:
        """Return the arguments of the SDK's `client.containers.create`."""
        from docker.types import Mount, Ulimit

        tmpfs = (mount.partition(":") for mount in self.tmpfs)
        return {
            "image": self.image,
            "command": list(self.command),
            "user": self.user,
            "network_mode": self.network_mode,
            "ports": {port.target: (port.address, port.published) for port in self.ports},
            "dns": list(self.dns),
            "init": self.init,
            "read_only": self.read_only,
            "cap_drop": list(self.cap_drop),
            "security_opt": list(self.security_opt),
            "tmpfs": {path: options for path, _, options in tmpfs},
            "shm_size": self.shm_size or None,
            "pids_limit": self.pids_limit or None,
            "mem_limit": self.mem_limit or None,
            "memswap_limit": self.memswap_limit or None,
            "nano_cpus": round(self.cpus * 1e9) or None,
            "cpuset_cpus": self.cpuset or None,
            "cgroup_parent": self.cgroup_parent or None,
            "ulimits": [
                Ulimit(name=name, soft=soft, hard=hard) for name, soft, hard in self.ulimits
            ],
            "mounts": [
                Mount(bind.target, bind.source, type="bind", read_only=bind.read_only)
                for bind in self.binds
            ],
            "devices": [f"{node}:{node}:rwm" for node in self.devices],
            "group_add": list(self.groups),
            "device_requests": [request.sdk_request() for request in self.requests],
            "runtime": self.runtime or None,
            "environment": self.environment,
            "labels": self.labels,
        }

    def docker_run_command(self) -> list[str]:
        """Return a `docker run` command that starts the same container."""
        words = ["docker", "run", "--rm", "--user", self.user, "--network", self.network_mode]
        words += self._network_words()
        words += ["--interactive", "--tty"] if self.reads_input else []
        words += self._hardening_words()
        words += self._device_words()
        words += [f"--env={name}={value}" for name, value in self.environment.items()]
        words += self._limit_words()
        for bind in self.binds:
            words += ["--mount", bind.mount_words()]
        words += [f"--label={name}={value}" for name, value in self.labels.items()]
        return [*words, self.image, *self.command]

    def _network_words(self) -> list[str]:
        words = [f"--publish={port.address}:{port.published}:{port.target}" for port in self.ports]
        return words + [f"--dns={server}" for server in self.dns]

    def _hardening_words(self) -> list[str]:
        words = ["--init"] if self.init else []
        words += ["--read-only"] if self.read_only else []
        words += [f"--cap-drop={capability}" for capability in self.cap_drop]
        words += [f"--security-opt={option}" for option in self.security_opt]
        return words + [f"--tmpfs={mount}" for mount in self.tmpfs]

    def _device_words(self) -> list[str]:
        words = [f"--device={node}" for node in self.devices]
        words += [f"--group-add={gid}" for gid in self.groups]
        for request in self.requests:
            words += request.docker_run_words()
        return words + ([f"--runtime={self.runtime}"] if self.runtime else [])

    def _limit_words(self) -> list[str]:
        words = [f"--cpus={self.cpus:g}"] if self.cpus else []
        words += [f"--cpuset-cpus={self.cpuset}"] if self.cpuset else []
        words += [f"--cgroup-parent={self.cgroup_parent}"] if self.cgroup_parent else []
        words += [f"--ulimit={name}={soft}:{hard}" for name, soft, hard in self.ulimits]
        limits = (
            ("shm-size", self.shm_size),
            ("pids-limit", self.pids_limit),
            ("memory", self.mem_limit),
            ("memory-swap", self.memswap_limit),
        )
        return words + [f"--{name}={limit}" for name, limit in limits if limit]
