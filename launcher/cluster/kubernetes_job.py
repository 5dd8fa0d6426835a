"""`invoke manifest`: a Kubernetes Job that runs a lab as compose.yaml describes its container."""

import re
import sys
from dataclasses import replace

from common.cards import WRONG_USAGE, Card, print_status, refuse_value
from launcher.cluster.templates import render
from launcher.engine import compose
from launcher.engine.container_spec import ContainerSpec
from launcher.environment.stack import STACKS, refuse_gpus_of_cpu
from launcher.run.file_owner import file_owner
from launcher.run.lab_command import LabCommand
from launcher.run.service import local_time_zone

TEMPLATE = "kubernetes_job.yaml.j2"
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SIZE = re.compile(r"[:,]size=(\d+)([kmg])(,|$)", re.IGNORECASE)
_KNOWN_SECURITY = {"no-new-privileges:true", "seccomp=unconfined", "label=disable"}


def write(command: LabCommand, stack: str, gpus: str, image: str, claim: str) -> None:
    """Print the manifest.

    Args:
        command: The labs and their options.
        stack: cpu, cuda or rocm.
        gpus: The number of GPUs, as the user wrote it.
        image: The image as the nodes name it; "": as this machine does.
        claim: The PersistentVolumeClaim that has a copy of the clone.

    Raises:
        Card: If an option is invalid, Compose is missing, or a Job can't express a setting of it.
    """
    count = _number_of_gpus(stack, gpus)
    if not _NAME.fullmatch(claim):
        why = "Kubernetes takes lower-case letters, digits, - and . between them."
        raise Card(f"--claim can't be {claim!r}.", why, "kubectl get pvc lists them", WRONG_USAGE)
    owner = file_owner()
    variables = {
        "LABS_UID": str(owner.uid),
        "LABS_GID": str(owner.gid),
        "LABS_TZ": local_time_zone(),
        "LABS_NETWORK": "bridge" if command.online else "none",
    }
    spec = compose.translate(compose.resolve(stack, variables))
    if not image and spec.image.endswith("-unset"):
        why = "An image of the ROCm stack is for one kind of GPU, and LABS_GFX isn't set."
        raise Card("The image has no GPU target.", why, "LABS_GFX=gfx942 invoke manifest …")
    spec = replace(spec, image=image or spec.image)
    text = manifest(spec, command.with_processes(count), stack, count, claim)
    if owner.uid == 0:
        print_status(
            "The Job runs as root (runAsUser: 0), because the clone here is root's. Without root: "
            "run invoke manifest in a clone of the user who owns the volume's files."
        )
    sys.stdout.write(text)


def _number_of_gpus(stack: str, gpus: str) -> int:
    """Return the number of GPUs that the Job asks for; by default one, and none on a CPU."""
    if stack not in STACKS:
        refuse_value("--stack", stack, STACKS)
    if stack == "cpu":
        return refuse_gpus_of_cpu() if gpus else 0
    count = int(gpus or 1) if (gpus or "1").isdecimal() else 0
    if count < 1:
        why = "A cluster chooses the cards, so a Job can only ask for a number of them."
        fix = f"--stack {stack} --gpus 2"
        raise Card(f"--stack {stack} --gpus {gpus} isn't possible.", why, fix, WRONG_USAGE)
    return count


def manifest(spec: ContainerSpec, command: LabCommand, stack: str, gpus: int, claim: str) -> str:
    """Return the Job, and a NetworkPolicy if the container has no network, as YAML.

    Raises:
        Card: If the container spec has a setting that a Job doesn't have.
    """
    sizes = {mount.partition(":")[0]: _SIZE.search(mount) for mount in spec.tmpfs}
    _refuse_unknown(spec, all(sizes.values()))
    memory = {path: f"{size[1]}{size[2].upper()}i" for path, size in sizes.items() if size}
    if spec.shm_size:
        memory["/dev/shm"] = str(spec.shm_size)
    lab = {"name": command.name, "words": command.words, "stack": stack, "gpus": gpus}
    return render(TEMPLATE, spec=spec, memory=memory, claim=claim, **lab)


def _refuse_unknown(spec: ContainerSpec, tmpfs_have_sizes: bool) -> None:
    unknown = {
        "ports": spec.ports,
        "dns": spec.dns,
        "cpuset": spec.cpuset,
        "cgroup_parent": spec.cgroup_parent,
        "ulimits": spec.ulimits,
        "runtime": spec.runtime,
        "networks": spec.network_options,
        "tmpfs": not tmpfs_have_sizes,
        "security_opt": set(spec.security_opt) - _KNOWN_SECURITY,
        "network_mode": spec.network_mode not in ("none", "bridge"),
        "volumes": [bind for bind in spec.binds if not bind.target.startswith("/lab/")],
    }
    for setting, value in unknown.items():
        if value:
            raise Card(
                f"A Kubernetes Job can't express {setting}.",
                "compose.yaml or compose.override.yaml sets it, and its meaning would be lost.",
                f"move the override away, and add {setting} to the manifest in the cluster's way",
            )
