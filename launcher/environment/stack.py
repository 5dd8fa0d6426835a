"""Choose the stack that a lab runs on (cpu, cuda or rocm), with the reason."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from common.cards import WRONG_USAGE, Card, refuse_value
from launcher.gpu.detect import Machine, detect
from launcher.gpu.model import AMD, NVIDIA, Gpu

STACKS = ("cpu", "cuda", "rocm")
CHOICES = ("auto", *STACKS)
VENDORS = {"rocm": AMD, "cuda": NVIDIA}


@dataclass(frozen=True)
class StackChoice:
    """A stack, its GPUs, and the reason in words that follow "because"."""

    stack: str
    reason: str
    gpus: tuple[Gpu, ...] = ()


def refuse_gpus_of_cpu() -> NoReturn:
    """Refuse --gpus together with --stack cpu.

    Raises:
        Card: Always.
    """
    why = "--gpus asks for GPUs."
    fix = "leave out --gpus; or --stack cuda, or --stack rocm"
    raise Card("The cpu stack uses no GPU.", why, fix, WRONG_USAGE)


def choose_stack(request: str, machine: Machine | None = None) -> StackChoice:
    """Choose the stack for a machine; detect this one if none is given.

    Raises:
        Card: If the stack doesn't exist or has no usable GPU. For "auto", if the machine has a
            discrete GPU and none is usable: the launcher doesn't fall back to the CPU silently.
    """
    if request not in CHOICES:
        refuse_value("--stack", request, CHOICES)
    if request == "cpu":
        return StackChoice("cpu", "it was asked for")
    machine = machine or detect()
    if request != "auto":
        return _requested(request, machine)
    usable = [stack for stack in VENDORS if machine.usable(VENDORS[stack])]
    if usable:
        return _best(usable, machine)
    discrete = [gpu for gpu in machine.gpus if not gpu.integrated]
    if discrete:
        raise _unusable("a GPU", discrete)
    if machine.gpus:  # an unusable integrated GPU should not stop a learner
        return StackChoice("cpu", f"there is only {_problems(machine.gpus)}")
    return StackChoice("cpu", f"there is {' and '.join(machine.absences)}")


def format_memory(vram_bytes: int) -> str:
    """Return a GPU's memory as text: 192 GiB."""
    gib = vram_bytes / 2**30
    return f"{gib:.{0 if gib >= 10 else 1}f} GiB" if vram_bytes else "unknown"


def _requested(stack: str, machine: Machine) -> StackChoice:
    vendor = VENDORS[stack]
    name = vendor.upper()
    gpus = _same_image(machine.usable(vendor))
    if gpus:
        evidence = _evidence(stack, gpus, machine)
        return StackChoice(stack, f"it was asked for, and {evidence}", gpus)
    if machine.of(vendor):
        raise _unusable(f"an {name} GPU", machine.of(vendor))
    absence = next(text for text in machine.absences if f"no {name} " in text)
    why = f"{absence[0].upper()}{absence[1:]}."
    raise Card(f"This machine has no {name} GPU.", why, "--stack cpu")


def _best(usable: list[str], machine: Machine) -> StackChoice:
    """Choose between vendors: a discrete GPU first, then the GPU with more memory."""
    gpus = {stack: _same_image(machine.usable(VENDORS[stack])) for stack in usable}
    first, *others = sorted(usable, key=lambda stack: _rank(gpus[stack][0]))
    reason = _evidence(first, gpus[first], machine)
    for other in others:
        advantage = _advantage(gpus[first][0], gpus[other][0])
        reason += f"; it has {advantage}, so {other} isn't used"
    unusable = [gpu for gpu in machine.gpus if gpu.unusable]
    if unusable:
        reason += f"; other GPUs can't be used: {_problems(unusable)}"
    return StackChoice(first, reason, gpus[first])


def _rank(gpu: Gpu) -> tuple[bool, int]:
    return gpu.integrated, -gpu.vram_bytes


def _advantage(chosen: Gpu, other: Gpu) -> str:
    if other.integrated and not chosen.integrated:
        return f"dedicated memory, unlike the {other.name}"
    more = format_memory(chosen.vram_bytes)
    less = format_memory(other.vram_bytes)
    return f"the most memory ({more}; the {other.name}: {less})"


def _same_image(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Return the GPUs that one image can serve; AMD's is built for the first GPU's target."""
    same = (gpu for gpu in gpus if gpu.vendor != AMD or gpu.target == gpus[0].target)
    return tuple(same)


def _evidence(stack: str, gpus: tuple[Gpu, ...], machine: Machine) -> str:
    if stack == "rocm":
        return _rocm_evidence(gpus, machine)
    counts = Counter(gpu.name for gpu in gpus).items()
    names = " and ".join(f"{count} × {name}" if count > 1 else name for name, count in counts)
    return f"NVIDIA's driver {machine.nvidia or '(unknown version)'} lists {names}"


def _rocm_evidence(gpus: tuple[Gpu, ...], machine: Machine) -> str:
    first = gpus[0]
    description = f"integrated {first.target}" if first.integrated else first.target
    article = "an" if first.integrated else "a"
    number = len(gpus) if len(gpus) > 1 else article
    others = dict.fromkeys(gpu.target for gpu in machine.usable(AMD) if gpu not in gpus)
    notes = "".join(f"; the {target} would need a separate image" for target in others)
    return f"/sys/class/kfd lists {number} {description} and /dev/kfd is writable{notes}"


def _unusable(gpu: str, gpus: Sequence[Gpu]) -> Card:
    """Return the card for unusable GPUs; `gpu` is "a GPU" or "an AMD GPU"."""
    what = f"This machine has {gpu} that can't be used."
    if len(gpus) > 1:
        name = gpu.split(maxsplit=1)[1]
        what = f"This machine has {len(gpus)} {name}s, and none of them can be used."
    fixes = dict.fromkeys(gpu.fix for gpu in gpus if gpu.fix)
    fix = "; ".join([*fixes, "to run without a GPU: --stack cpu"])
    return Card(what, f"{_problems(gpus)}.", fix)


def _problems(gpus: Sequence[Gpu]) -> str:
    """List each different problem once, with the first GPU that has it."""
    groups: dict[tuple[str, str], list[Gpu]] = {}
    for gpu in gpus:
        problem = gpu.unusable.replace(gpu.node, "its node") if gpu.node else gpu.unusable
        groups.setdefault((gpu.name, problem), []).append(gpu)
    return "; ".join(
        f"{name}: {alike[0].unusable}{_and_more(len(alike) - 1)}"
        for (name, _), alike in groups.items()
    )


def _and_more(count: int) -> str:
    return f" (and {count} more like it)" if count else ""
