"""Which stack a lab runs on, and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.cards import Card, unknown_value
from launcher.gpus import AMD, NVIDIA, Gpu, Machine, detect

STACKS = ("auto", "cpu", "cuda", "rocm")
VENDORS = {"rocm": AMD, "cuda": NVIDIA}


@dataclass(frozen=True)
class Choice:
    """A stack, the reason for it, in words that follow "because", and the GPUs for it."""

    stack: str
    reason: str
    gpus: tuple[Gpu, ...] = ()


def choose(asked: str, machine: Machine | None = None) -> Choice:
    """The stack for `machine`, by default this one, which is looked at only where it matters.

    Raises:
        Card: for a stack that doesn't exist, or for which there is no GPU that can be used; where
            nothing was asked for, only if there is one that can't: it isn't passed over in silence.
    """
    if asked not in STACKS:
        unknown_value("--stack", asked, STACKS)
    if asked == "cpu":
        return Choice("cpu", "it was asked for")
    machine = machine or detect()
    if asked != "auto":
        return _asked_for(asked, machine)
    able = [stack for stack in VENDORS if machine.usable(VENDORS[stack])]
    if able:
        return _best(able, machine)
    meant = [gpu for gpu in machine.gpus if not gpu.integrated]
    if meant:
        raise _unusable("a GPU", meant)
    if machine.gpus:  # what a processor has beside its cores is no reason to stop a learner
        return Choice("cpu", f"there is only {_reasons(machine.gpus)}")
    return Choice("cpu", f"there is {' and '.join(machine.absences)}")


def size(vram_bytes: int) -> str:
    """192 GiB."""
    gib = vram_bytes / 2**30
    return f"{gib:.{0 if gib >= 10 else 1}f} GiB" if vram_bytes else "unknown"


def _asked_for(stack: str, machine: Machine) -> Choice:
    vendor = VENDORS[stack]
    name = vendor.upper()
    gpus = _alike(machine.usable(vendor))
    if gpus:
        return Choice(stack, f"it was asked for, and {_evidence(stack, gpus, machine)}", gpus)
    if machine.of(vendor):
        raise _unusable(f"an {name} GPU", machine.of(vendor))
    why = next(one for one in machine.absences if f"no {name} " in one)
    raise Card(f"There is no {name} GPU here.", f"{why[0].upper()}{why[1:]}.", "--stack cpu")


def _best(able: list[str], machine: Machine) -> Choice:
    """Of two vendors, the one with a discrete GPU, then the one whose GPU has more memory."""
    gpus = {stack: _alike(machine.usable(VENDORS[stack])) for stack in able}
    first, *others = sorted(able, key=lambda stack: _rank(gpus[stack][0]))
    reason = _evidence(first, gpus[first], machine)
    for other in others:
        chosen, passed = gpus[first][0], gpus[other][0]
        reason += f"; it has {_advantage(chosen, passed)}, so {other} is passed over"
    left = [gpu for gpu in machine.gpus if gpu.unusable]
    if left:
        reason += f"; there is more that can't be used: {_reasons(left)}"
    return Choice(first, reason, gpus[first])


def _rank(gpu: Gpu) -> tuple[bool, int]:
    return gpu.integrated, -gpu.vram_bytes


def _advantage(chosen: Gpu, passed: Gpu) -> str:
    if passed.integrated and not chosen.integrated:
        return f"memory of its own, unlike the {passed.name}"
    ours, theirs = size(chosen.vram_bytes), size(passed.vram_bytes)
    return f"the most memory ({ours}; the {passed.name}: {theirs})"


def _alike(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Those that one image can serve: on AMD it is built for the target of the first."""
    same = (gpu for gpu in gpus if gpu.vendor != AMD or gpu.target == gpus[0].target)
    return tuple(same)


def _evidence(stack: str, gpus: tuple[Gpu, ...], machine: Machine) -> str:
    if stack == "rocm":
        first, *more = gpus
        kind = f"integrated {first.target}" if first.integrated else first.target
        number = len(gpus) if more else "an" if first.integrated else "a"
        others = dict.fromkeys(gpu.target for gpu in machine.usable(AMD) if gpu not in gpus)
        left = "".join(f"; the {target} would need an image of its own" for target in others)
        return f"/sys/class/kfd lists {number} {kind} and /dev/kfd is writable{left}"
    kinds = Counter(gpu.name for gpu in gpus).items()
    names = " and ".join(f"{count} × {name}" if count > 1 else name for name, count in kinds)
    return f"NVIDIA's driver {machine.nvidia or '(of unknown version)'} lists {names}"


def _unusable(one: str, gpus: Sequence[Gpu]) -> Card:
    kind = one.split(maxsplit=1)[1]
    what = f"There is {one} here, and it can't be used."
    if len(gpus) > 1:
        what = f"There are {len(gpus)} {kind}s here, and none of them can be used."
    remedies = dict.fromkeys(gpu.remedy for gpu in gpus if gpu.remedy)
    mend = "; ".join([*remedies, "to run without it: --stack cpu"])
    return Card(what, f"{_reasons(gpus)}.", mend)


def _reasons(gpus: Sequence[Gpu]) -> str:
    """Each thing that is wrong, once, with the first GPU that it is wrong with."""
    groups: dict[tuple[str, str], list[Gpu]] = {}
    for gpu in gpus:
        wrong = gpu.unusable.replace(gpu.node, "its node") if gpu.node else gpu.unusable
        groups.setdefault((gpu.name, wrong), []).append(gpu)
    return "; ".join(
        f"{name}: {alike[0].unusable}{_and_more(len(alike) - 1)}"
        for (name, _), alike in groups.items()
    )


def _and_more(count: int) -> str:
    return f" (and {count} more like it)" if count else ""
