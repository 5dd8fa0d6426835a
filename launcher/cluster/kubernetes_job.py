"""`invoke manifest`: a Kubernetes Job that runs a lab as compose.yaml describes its container."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from common.cards import WRONG_USAGE, Card, print_status, refuse_value
from launcher.engine import compose
from launcher.engine.container_spec import ContainerSpec
from launcher.environment.stack import refuse_gpus_of_cpu
from launcher.run.file_owner import file_owner
from launcher.run.lab_command import LabCommand
from launcher.run.service import local_time_zone

STACKS = ("cpu", "cuda", "rocm")
# The names by which the vendors' device plugins offer GPUs.
# https://github.com/ROCm/k8s-device-plugin, https://github.com/NVIDIA/k8s-device-plugin
RESOURCES = {"rocm": "amd.com/gpu", "cuda": "nvidia.com/gpu"}
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
LONGEST_NAME = 253
HOME = PurePosixPath("/lab")  # the claim has the folders that are mounted below it
HEADER = """# {title}, for `kubectl apply --filename`. `invoke manifest` wrote it from compose.yaml.
# Before: push the image to a registry of the cluster, or load it on the nodes. Copy this clone into
# the persistent volume of the claim {claim!r}, and there: mkdir -p outputs work/progress
# The results of a run will be in outputs/ on that volume.
# Two settings of compose.yaml are the node's: the limit of processes is podPidsLimit of the
# kubelet, and a network plugin has to enforce the NetworkPolicy.
"""


@dataclass(frozen=True)
class Cluster:
    """What the manifest needs to know of the cluster.

    Attributes:
        image: The image as the nodes name it; "": as this machine does.
        claim: The PersistentVolumeClaim that has a copy of the clone.
    """

    image: str = ""
    claim: str = "llm-labs"


def write(command: LabCommand, stack: str, gpus: str, cluster: Cluster) -> None:
    """Print the manifest.

    Raises:
        Card: If the stack or the number of GPUs is invalid, Compose is missing, or compose.yaml
            and its override have a setting that a Job doesn't have.
    """
    count = number_of_gpus(stack, gpus)
    refuse_claim(cluster.claim)
    owner = file_owner()
    variables = {
        "LABS_UID": str(owner.uid),
        "LABS_GID": str(owner.gid),
        "LABS_TZ": local_time_zone(),
        "LABS_NETWORK": "bridge" if command.online else "none",
    }
    spec = compose.translate(compose.resolve(stack, variables))
    if not cluster.image and spec.image.endswith("-unset"):
        why = "An image of the ROCm stack is for one kind of GPU, and LABS_GFX isn't set."
        raise Card("The image has no GPU target.", why, "LABS_GFX=gfx942 invoke manifest …")
    spec = replace(spec, image=cluster.image or spec.image)
    documents = manifest(spec, command.with_processes(count), stack, count, cluster.claim)
    if owner.uid == 0:
        print_status(
            "The Job runs as root (runAsUser: 0), because the clone here is root's. Without root: "
            "run invoke manifest in a clone of the user who owns the volume's files."
        )
    sys.stdout.write(HEADER.format(title=command.name, claim=cluster.claim) + to_yaml(documents))


def refuse_claim(claim: str) -> None:
    """Refuse a name that no PersistentVolumeClaim can have.

    Raises:
        Card: If Kubernetes would refuse it.
    """
    if len(claim) > LONGEST_NAME or not DNS_SUBDOMAIN.fullmatch(claim):
        why = "Kubernetes takes lower-case letters, digits, - and . between them."
        raise Card(f"--claim can't be {claim!r}.", why, "kubectl get pvc lists them", WRONG_USAGE)


def number_of_gpus(stack: str, gpus: str) -> int:
    """Return the number of GPUs that the Job asks for; by default one, and none on a CPU.

    Raises:
        Card: If the stack is unknown, or the number doesn't suit it.
    """
    if stack not in STACKS:
        refuse_value("--stack", stack, STACKS)
    if stack == "cpu" and not gpus:
        return 0
    count = int(gpus or 1) if (gpus or "1").isdecimal() else 0
    if stack == "cpu":
        refuse_gpus_of_cpu()
    if count < 1:
        why = "A cluster chooses the cards, so a Job can only ask for a number of them."
        fix = f"--stack {stack} --gpus 2"
        raise Card(f"--stack {stack} --gpus {gpus} isn't possible.", why, fix, WRONG_USAGE)
    return count


def to_yaml(documents: Sequence[dict[str, Any]]) -> str:
    """Return documents as YAML, in the given order of keys."""
    import yaml

    class Plain(yaml.SafeDumper):
        """Writes a repeated value again, where YAML would refer to the first."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - its caller names it
            return True

    return yaml.dump_all(documents, Dumper=Plain, sort_keys=False, allow_unicode=True)


def manifest(
    spec: ContainerSpec, command: LabCommand, stack: str, gpus: int, claim: str
) -> list[dict[str, Any]]:
    """Return the documents: the Job, and a NetworkPolicy if the container has no network.

    Raises:
        Card: If the container spec has a setting that a Job doesn't have.
    """
    _refuse_unknown(spec)
    name = _name(command)
    labels = {"app.kubernetes.io/name": "llm-labs", "llm-labs/lab": name}
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": spec.init,  # the lab isn't process 1, so signals end it
        "securityContext": _pod_security(spec),
        "containers": [_container(spec, command, stack, gpus)],
        "volumes": _volumes(spec, claim),
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
    return [job, _no_network(name, labels)] if spec.network_mode == "none" else [job]


def _name(command: LabCommand) -> str:
    """Return a DNS label: llm10, llm10-plus, llm01-and-10-more."""
    return command.name.lower().replace("+", "-plus").replace(" ", "-")


def _refuse_unknown(spec: ContainerSpec) -> None:
    outside = [bind.target for bind in spec.binds if HOME not in PurePosixPath(bind.target).parents]
    unknown = {
        "ports": spec.ports,
        "dns": spec.dns,
        "cpuset": spec.cpuset,
        "cgroup_parent": spec.cgroup_parent,
        "ulimits": spec.ulimits,
        "runtime": spec.runtime,
        "networks": spec.network_options,
        "tmpfs": [mount for mount in spec.tmpfs if not _size_of(mount)],
        "security_opt": set(spec.security_opt)
        - {"no-new-privileges:true", "seccomp=unconfined", "label=disable"},
        "network_mode": spec.network_mode not in ("none", "bridge"),
        "volumes": outside,
    }
    for setting, value in unknown.items():
        if value:
            raise Card(
                f"A Kubernetes Job can't express {setting}.",
                "compose.yaml or compose.override.yaml sets it, and its meaning would be lost.",
                f"move the override away, and add {setting} to the manifest in the cluster's way",
            )


def _size_of(mount: str) -> str:
    """Return the size of a tmpfs in Kubernetes' notation: /tmp:mode=1777,size=1g is 1Gi."""
    options = mount.partition(":")[2].split(",")
    size = next((word.removeprefix("size=") for word in options if word.startswith("size=")), "")
    return f"{size[:-1]}{size[-1].upper()}i" if size[-1:].lower() in ("k", "m", "g") else ""


def _pod_security(spec: ContainerSpec) -> dict[str, Any]:
    uid, _, gid = spec.user.partition(":")
    unconfined = "seccomp=unconfined" in spec.security_opt
    return {
        "runAsUser": int(uid),
        "runAsGroup": int(gid),
        "runAsNonRoot": int(uid) != 0,
        "fsGroup": int(gid),
        "supplementalGroups": [int(group) for group in spec.groups],
        "seccompProfile": {"type": "Unconfined" if unconfined else "RuntimeDefault"},
    }


def _container(spec: ContainerSpec, command: LabCommand, stack: str, gpus: int) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if spec.cpus:
        limits["cpu"] = f"{spec.cpus:g}"
    if spec.mem_limit:
        limits["memory"] = str(spec.mem_limit)
    if gpus:
        limits[RESOURCES[stack]] = gpus
    return {
        "name": "lab",
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "args": [*spec.command, *command.words],
        "env": [{"name": name, "value": value} for name, value in spec.environment.items()],
        "securityContext": {
            "allowPrivilegeEscalation": "no-new-privileges:true" not in spec.security_opt,
            "readOnlyRootFilesystem": spec.read_only,
            "capabilities": {"drop": list(spec.cap_drop)},
        },
        "resources": {"limits": limits},
        "volumeMounts": _mounts(spec),
    }


def _mounts(spec: ContainerSpec) -> list[dict[str, Any]]:
    mounts = [
        {
            "name": "clone",
            "mountPath": bind.target,
            "subPath": str(PurePosixPath(bind.target).relative_to(HOME)),
            "readOnly": bind.read_only,
        }
        for bind in spec.binds
    ]
    paths = [mount.partition(":")[0] for mount in spec.tmpfs]
    mounts += [{"name": _volume_of(path), "mountPath": path} for path in paths]
    return [*mounts, {"name": "shm", "mountPath": "/dev/shm"}] if spec.shm_size else mounts


def _volumes(spec: ContainerSpec, claim: str) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "clone", "persistentVolumeClaim": {"claimName": claim}}
    ]
    sizes = {_volume_of(mount.partition(":")[0]): _size_of(mount) for mount in spec.tmpfs}
    if spec.shm_size:
        sizes["shm"] = str(spec.shm_size)
    for name, size in sizes.items():
        volumes.append({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}})
    return volumes


def _volume_of(path: str) -> str:
    return path.strip("/").replace("/", "-")


def _no_network(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return a policy that allows the Job's pods no traffic."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress", "Egress"],
        },
    }
