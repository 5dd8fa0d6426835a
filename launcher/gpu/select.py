"""Select the GPUs of a run, and attach them to its container: as nodes, by CDI or by a runtime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from common.cards import WRONG_USAGE, Card, refuse_value
from launcher.engine.container_spec import ContainerSpec, GpuRequest
from launcher.gpu.model import Gpu
from launcher.gpu.visible import SEATS, visible_gpus

LABEL = "llm-labs.gpus"  # the GPUs of a container
ACCESS = ("auto", "nodes", "cdi", "runtime")
# Takes some of the given GPUs: these and their number. Returns them and a note.
Taker = Callable[[Sequence[Gpu], int], tuple[tuple[Gpu, ...], str]]
CDI_KINDS = {"rocm": "amd.com/gpu", "cuda": "nvidia.com/gpu"}


@dataclass(frozen=True)
class Selection:
    """The GPUs of a run, and a note on what limited the choice."""

    gpus: tuple[Gpu, ...]
    note: str = ""


def first_ones(gpus: Sequence[Gpu], count: int) -> tuple[tuple[Gpu, ...], str]:
    """Take the first GPUs, whoever else uses them."""
    return tuple(gpus[:count]), ""


def select(
    request: str,
    stack: str,
    gpus: Sequence[Gpu],
    environment: Mapping[str, str],
    take: Taker = first_ones,
) -> Selection:
    """Select the requested GPUs among those that this run may use.

    Args:
        request: "" for one, "all", "none", a count, or a comma list of the vendor's numbers
            ("0,2").
        stack: The stack, cuda or rocm.
        gpus: The usable GPUs, in order of preference.
        environment: The environment variables of the caller, and the site's settings.
        take: Takes the requested number of the GPUs that the request leaves.

    Raises:
        Card: If the request is invalid, or names a GPU that isn't visible.
    """
    seat = environment.get(SEATS[stack][0], "")
    visible, note = visible_gpus(stack, gpus, environment, seat)
    if request == "none":
        return Selection((), note)
    wanted, count = _wanted(request, visible, note)
    chosen, reason = take(wanted, count) if count else ((), "")
    return Selection(chosen, "; ".join(filter(None, (note, reason))))


def _wanted(request: str, visible: list[Gpu], note: str) -> tuple[list[Gpu], int]:
    """Return the GPUs that a request allows, and how many of them it wants."""
    if request == "all":
        return visible, len(visible)
    if "," in request:
        words = [word for word in request.split(",") if word]
        named = [_by_number(word, visible) for word in words]
        return named, len(named)
    count = _count(request or "1")
    if count > len(visible):
        raise Card(
            f"There are not {count} GPUs.",
            f"{len(visible)} can be used here{': ' + note if note else ''}.",
            "invoke gpus",
        )
    return visible, count


def gpu_label(gpu: Gpu) -> str:
    """Return the name of a GPU in the label of the containers that use it."""
    return gpu.uuid or gpu.node or str(gpu.index)


def _count(request: str) -> int:
    if not request.isdecimal() or int(request) < 1:
        why = "--gpus is all, none, a count (2), or a list (0,2; a single GPU with a comma: 0,)."
        raise Card(f"--gpus can't be {request!r}.", why, "invoke gpus", WRONG_USAGE)
    return int(request)


def _by_number(word: str, visible: Sequence[Gpu]) -> Gpu:
    for gpu in visible:
        if word.strip() == str(gpu.index):
            return gpu
    numbers = ", ".join(str(gpu.index) for gpu in visible) or "none"
    why = f"The usable GPUs are: {numbers}."
    raise Card(f"There is no GPU {word.strip()!r}.", why, "invoke gpus", WRONG_USAGE)


def attach(spec: ContainerSpec, stack: str, gpus: Sequence[Gpu], access: str) -> ContainerSpec:
    """Return the container spec with these GPUs and no others.

    Args:
        spec: The container.
        stack: The stack, cuda or rocm.
        gpus: The GPUs to attach.
        access: "nodes", "cdi", "runtime" or "auto": nodes for AMD; for NVIDIA a device request,
            which the NVIDIA Container Toolkit handles.

    Raises:
        Card: If `access` is unknown.
    """
    if access not in ACCESS:
        refuse_value("LABS_DEVICES", access, ACCESS)
    labels = {**spec.labels, LABEL: " ".join(gpu_label(gpu) for gpu in gpus)}
    spec = replace(spec, devices=(), groups=_groups(gpus), requests=(), runtime="", labels=labels)
    numbers = [str(gpu.index) for gpu in gpus]
    if access == "cdi":
        names = tuple(f"{CDI_KINDS[stack]}={number}" for number in numbers)
        return replace(spec, requests=(GpuRequest("cdi", names),))
    if stack == "cuda":
        names = tuple(gpu.uuid or str(gpu.index) for gpu in gpus)
        return replace(spec, requests=(GpuRequest("nvidia", names),))
    if access == "runtime":
        environment = {**spec.environment, "AMD_VISIBLE_DEVICES": ",".join(numbers)}
        return replace(spec, runtime="amd", environment=environment)
    nodes = dict.fromkeys(node for gpu in gpus for node in gpu.devices)  # unique, in order
    return replace(spec, devices=tuple(nodes))


def podman_access(stack: str, access: str) -> str:
    """Return the kind of access to use with Podman.

    Podman 5.4 silently ignores device requests other than CDI, and runtimes it doesn't know.

    Raises:
        Card: If `access` is "runtime".
    """
    if access == "runtime":
        raise Card(
            "Podman ignores the runtime in requests to its Docker-compatible socket.",
            "It would start the container without the GPU, and report no error.",
            "LABS_DEVICES=nodes, or cdi",
        )
    return "cdi" if stack == "cuda" else access


def _groups(gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """Return the nodes' groups as numbers: the engine looks names up in the image."""
    return tuple(str(gid) for gid in sorted({gid for gpu in gpus for gid in gpu.gids}))


def visibility_variables(stack: str, gpus: Sequence[Gpu]) -> dict[str, str]:
    """Return the variables that limit a process outside a container to these GPUs."""
    if not gpus:
        return {}
    numbers = ",".join(str(gpu.index) for gpu in gpus)
    if stack == "cuda":
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers}
    # HIP numbers the GPUs that ROCR leaves, so its list must not filter them again.
    remaining = ",".join(str(number) for number in range(len(gpus)))
    return {"ROCR_VISIBLE_DEVICES": numbers, "HIP_VISIBLE_DEVICES": remaining}
