"""The container of a seat, in the words of the engine's interface that DockerSpawner calls."""

from typing import Any

from launcher.engine.container_spec import Bind, ContainerSpec

LOG = {"max-size": "10m", "max-file": "2"}  # without limits, it grows as long as the seat lives
CPU_PERIOD = 100_000  # microseconds; DockerSpawner sets it, which excludes nano_cpus


def create_arguments(spec: ContainerSpec, labels: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of `create_container` that compose.yaml decides."""
    return {"user": spec.user, "labels": labels, "working_dir": "/lab"}


def host_config(spec: ContainerSpec, learner: tuple[Bind, ...]) -> dict[str, Any]:
    """Return the arguments of `create_host_config`: limits, mounts and devices.

    Args:
        spec: The container of a seat, from compose.yaml.
        learner: The mounts of the learner's folders.
    """
    arguments = spec.sdk_arguments()
    same = (
        *("init", "read_only", "cap_drop", "security_opt", "tmpfs", "shm_size", "pids_limit"),
        *("mem_limit", "memswap_limit", "cpuset_cpus", "cgroup_parent", "ulimits", "devices"),
        *("group_add", "device_requests", "runtime", "dns"),
    )
    config = {name: arguments[name] for name in same if arguments[name]}
    config["log_config"] = {"Type": "json-file", "Config": LOG}
    if spec.cpus:
        config["cpu_period"] = CPU_PERIOD
        config["cpu_quota"] = round(spec.cpus * CPU_PERIOD)
    # A folder that is missing is an error; `binds` would create it for root.
    config["mounts"] = spec.with_binds(learner).sdk_arguments()["mounts"]
    return config
