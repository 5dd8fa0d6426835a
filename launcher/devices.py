"""Which GPUs a run gets, and how they come into the container: as nodes, by CDI or by a runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from launcher.cards import WRONG_USAGE, Card, unknown_value
from launcher.compose import Container, Request
from launcher.hardware import Gpu

ACCESS = ("auto", "nodes", "cdi", "runtime")
# ROCR filters first and HIP numbers what is left; on AMD, CUDA_VISIBLE_DEVICES is another name for
# HIP's. https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html
FILTERS = {
    "rocm": (("ROCR_VISIBLE_DEVICES",), ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")),
    "cuda": (("CUDA_VISIBLE_DEVICES",),),
}


@dataclass(frozen=True)
class Selection:
    """The GPUs of a run, and what was said about choosing them."""

    gpus: tuple[Gpu, ...]
    note: str = ""


def select(
    asked: str, stack: str, gpus: Sequence[Gpu], environment: Mapping[str, str]
) -> Selection:
    """The GPUs that `--gpus` asks for, among those that the environment leaves visible.

    Args:
        asked: "" for one, "all", "none", a count, or a comma list of the vendor's numbers ("0,2").

    Raises:
        Card: for what can't be understood, isn't there, or isn't assigned to this user's job.
    """
    visible, note = _assigned(stack, gpus, environment)
    if asked == "none":
        return Selection((), note)
    if asked == "all":
        return Selection(tuple(visible), note)
    if "," in asked:
        return Selection(tuple(_numbered(word, visible) for word in asked.split(",") if word), note)
    count = _count(asked or "1")
    if count > len(visible):
        raise Card(
            f"There are not {count} GPUs.",
            f"{len(visible)} can be used here{': ' + note if note else ''}.",
            "invoke gpus",
        )
    return Selection(tuple(visible[:count]), note)


def _count(asked: str) -> int:
    if not asked.isdecimal() or int(asked) < 1:
        why = "--gpus is all, none, how many (2), or which (0,2; one alone with a comma: 0,)."
        raise Card(f"--gpus can't be {asked!r}.", why, "invoke gpus", WRONG_USAGE)
    return int(asked)


def _numbered(word: str, visible: Sequence[Gpu]) -> Gpu:
    for gpu in visible:
        if word.strip() == str(gpu.index):
            return gpu
    known = ", ".join(str(gpu.index) for gpu in visible) or "none"
    why = f"Those that can be used are: {known}."
    raise Card(f"There is no GPU {word.strip()!r}.", why, "invoke gpus", WRONG_USAGE)


def _assigned(
    stack: str, gpus: Sequence[Gpu], environment: Mapping[str, str]
) -> tuple[list[Gpu], str]:
    """The GPUs that are left by what the user, or a batch system, has set; and what that was."""
    left, said = list(gpus), list[str]()
    for names in FILTERS[stack]:
        name = next((one for one in names if one in environment), None)
        if name is None:
            continue
        value = environment[name]
        left = [_named(word.strip(), left, name) for word in value.split(",") if word.strip()]
        said.append(f"{name}={value} leaves GPU {', '.join(str(gpu.index) for gpu in left)}")
    return left, "; ".join(said)


def _named(word: str, gpus: Sequence[Gpu], variable: str) -> Gpu:
    """A GPU by its number among `gpus`, or by its UUID or the beginning of it."""
    if word.isdecimal() and int(word) < len(gpus):
        return gpus[int(word)]
    for gpu in gpus:
        if gpu.uuid and gpu.uuid.lower().startswith(word.lower()):
            return gpu
    raise Card(
        f"{variable} names a GPU that isn't here: {word}.",
        f"There are {len(gpus)}; it comes from your shell, or from the batch system.",
        f"unset {variable}, or set it to what invoke gpus shows",
    )


def given(container: Container, stack: str, gpus: Sequence[Gpu], access: str) -> Container:
    """The container with these GPUs in it and no other.

    Args:
        access: "nodes" (AMD's default), "cdi", "runtime", or "auto"; NVIDIA's default is a device
            request, which its toolkit answers.

    Raises:
        Card: for an unknown way.
    """
    if access not in ACCESS:
        unknown_value("LABS_DEVICES", access, ACCESS)
    without = replace(container, devices=(), groups=(), requests=(), runtime="")
    numbers = [str(gpu.index) for gpu in gpus]
    if access == "cdi":
        kind = {"rocm": "amd.com/gpu", "cuda": "nvidia.com/gpu"}[stack]
        names = tuple(f"{kind}={number}" for number in numbers)
        return replace(without, requests=(Request("cdi", names),), groups=_groups(gpus))
    if stack == "cuda":
        request = Request("nvidia", tuple(gpu.uuid or str(gpu.index) for gpu in gpus))
        return replace(without, requests=(request,), groups=_groups(gpus))
    if access == "runtime":
        visible = {"AMD_VISIBLE_DEVICES": ",".join(numbers)}
        environment = {**container.environment, **visible}
        return replace(without, runtime="amd", environment=environment, groups=_groups(gpus))
    nodes = dict.fromkeys(node for gpu in gpus for node in gpu.devices)  # each once, in order
    return replace(without, devices=tuple(nodes), groups=_groups(gpus))


def on_podman(stack: str, access: str) -> str:
    """The way that Podman knows: of others that it is asked for it says nothing, and gives no GPU.

    Podman 5.4 passes over device requests but CDI's, and over runtimes that it doesn't know.

    Raises:
        Card: for a runtime.
    """
    if access == "runtime":
        raise Card(
            "Podman takes no runtime through its Docker-compatible socket.",
            "It would start the container without the GPU, and say nothing.",
            "LABS_DEVICES=nodes, or cdi",
        )
    return "cdi" if stack == "cuda" else access


def _groups(gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """The nodes' groups by number: a name would be looked up in the image."""
    return tuple(str(gid) for gid in sorted({gid for gpu in gpus for gid in gpu.gids}))


def visible(stack: str, gpus: Sequence[Gpu]) -> dict[str, str]:
    """The variables that show a process, which no container keeps apart, these GPUs only."""
    if not gpus:
        return {}
    numbers = ",".join(str(gpu.index) for gpu in gpus)
    if stack == "cuda":
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers}
    # HIP would number what ROCR leaves: one filter, and not a second on top of it.
    everything = ",".join(str(number) for number in range(len(gpus)))
    return {"ROCR_VISIBLE_DEVICES": numbers, "HIP_VISIBLE_DEVICES": everything}
