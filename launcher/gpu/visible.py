"""Which GPUs a run may use: those that a batch system, the user or the site leave to it."""

import re
from collections.abc import Mapping, Sequence

from common.cards import Card
from launcher.gpu.model import Gpu

# ROCR filters first, and HIP numbers the remaining GPUs. On AMD, CUDA_VISIBLE_DEVICES is another
# name of HIP's variable. https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html
FILTERS = {
    "rocm": (("ROCR_VISIBLE_DEVICES",), ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")),
    "cuda": (("CUDA_VISIBLE_DEVICES",),),
}
# The numbers of a job's GPUs on its node, "not relative to any device cgroup"; the first is more
# specific. https://slurm.schedmd.com/sbatch.html
JOB_GPUS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
# The site's restriction of a seat, and the value that means all GPUs.
SEATS = {"rocm": ("LABS_RENDER_NODES", "/dev/dri"), "cuda": ("LABS_GPUS", "all")}


def visible_gpus(
    stack: str, gpus: Sequence[Gpu], environment: Mapping[str, str], seat: str = ""
) -> tuple[list[Gpu], str]:
    """Return the GPUs that a run may use, and a note on what limited them.

    Args:
        stack: The stack, cuda or rocm.
        gpus: The usable GPUs, in order of preference.
        environment: The environment variables of the caller.
        seat: The value of the site's variable for this stack, as in `SEATS`.

    Raises:
        Card: If a variable names a GPU that isn't here, or nothing names those of a Slurm job.
    """
    visible = list(gpus)
    notes: list[str] = []
    lists = {name: _numbers(environment[name]) for name in JOB_GPUS if environment.get(name)}
    job = next(iter(lists), "")
    if job:
        visible = _gpus_of_job(lists[job], visible, job)
        notes.append(_note(job, environment[job], visible))
    elif environment.get("SLURM_JOB_ID") and not _filters(stack, environment):
        raise _unknown_gpus(environment["SLURM_JOB_ID"])
    absolute = {_joined(numbers) for numbers in lists.values()}
    relative = {_joined(range(len(numbers))) for numbers in lists.values()}
    for name, value in _filters(stack, environment):
        if value.replace(" ", "") in absolute | relative:
            continue  # Slurm set it, for the same GPUs
        words = [word.strip() for word in value.split(",") if word.strip()]
        visible = [_find(word, visible, name, by_index=bool(job)) for word in words]
        notes.append(_note(name, value, visible))
    variable, everything = SEATS[stack]
    if seat and seat != everything:
        visible = _gpus_of_seat(variable, seat, visible)
        notes.append(_note(variable, seat, visible))
    return visible, "; ".join(notes)


def _filters(stack: str, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the variables that filter GPUs, one after the other.

    Batch systems set ROCR's and HIP's alike for AMD, and mean one filter: Slurm, Flux and Parsl do.
    """
    found = [next((name for name in names if name in environment), "") for names in FILTERS[stack]]
    filters = [(name, environment[name]) for name in found if name]
    if len(filters) == 2 and filters[0][1] == filters[1][1]:
        return filters[:1]
    return filters


def _note(variable: str, value: str, gpus: Sequence[Gpu]) -> str:
    indices = ", ".join(str(gpu.index) for gpu in gpus)
    return f"{variable}={value} leaves GPU {indices}"


def _numbers(text: str) -> list[int]:
    """Return the numbers of a list with ranges: 0,2-4."""
    ranges = re.findall(r"(\d+)(?:-(\d+))?", text)
    return [number for low, high in ranges for number in range(int(low), int(high or low) + 1)]


def _joined(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _gpus_of_job(numbers: list[int], gpus: list[Gpu], variable: str) -> list[Gpu]:
    """Return the GPUs of a Slurm job.

    If the job's cgroup denies it all others, the usable GPUs are the job's, and the kernel may have
    numbered them anew.
    """
    if len(numbers) == len(gpus):
        return gpus
    indices = [gpu.index for gpu in gpus]
    missing = [number for number in numbers if number not in indices]
    if missing:
        raise Card(
            f"This job's GPU {missing[0]} can't be used here.",
            f"{variable}={_joined(numbers)}; the usable GPUs are: {_joined(indices) or 'none'}.",
            "invoke gpus; if Slurm's gres.conf numbers the GPUs otherwise, tell its administrator",
        )
    return [gpus[indices.index(number)] for number in numbers]


def _unknown_gpus(job: str) -> Card:
    """Return the card for a job without a list of its GPUs: all others' could be open to it."""
    return Card(
        f"It isn't known which GPUs job {job} of Slurm has.",
        f"Neither {' nor '.join(JOB_GPUS)} is set, so the job may have none, and the GPUs of this "
        "machine may be other jobs'. Or this is the shell of salloc, outside of the job's nodes.",
        "--stack cpu; or ask for GPUs: srun --gpus=1 invoke lab …; or, if this machine is yours "
        "alone, name them: CUDA_VISIBLE_DEVICES=0 (AMD: ROCR_VISIBLE_DEVICES=0) invoke lab …",
    )


def _find(word: str, gpus: Sequence[Gpu], variable: str, by_index: bool) -> Gpu:
    """Find a GPU by its position among `gpus`, or by the beginning of its UUID.

    Args:
        word: The position or the UUID.
        gpus: The GPUs to search.
        variable: The variable that has the word.
        by_index: Whether a number may also be the GPU's number on this machine.
    """
    if word.isdecimal() and int(word) < len(gpus):
        return gpus[int(word)]
    for gpu in gpus:
        if gpu.uuid and gpu.uuid.lower().startswith(word.lower()):
            return gpu
        if by_index and word == str(gpu.index):
            return gpu
    raise Card(
        f"{variable} names a GPU that isn't here: {word}.",
        f"There are {len(gpus)} GPUs; your shell or the batch system sets {variable}.",
        f"unset {variable}, or set it to what invoke gpus shows",
    )


def _gpus_of_seat(variable: str, seat: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs that the site leaves to this seat, by node, number or UUID."""
    words = [word for word in re.split(r"[,\s]+", seat) if word]
    chosen = [gpu for gpu in gpus if {gpu.node, gpu.uuid, str(gpu.index)} & set(words)]
    if not chosen:
        raise Card(
            f"{variable}={seat} names no GPU that can be used here.",
            f"The usable GPUs are: {', '.join(gpu.node or str(gpu.index) for gpu in gpus)}.",
            f"invoke gpus; then correct {variable} in the shell or in .env",
        )
    return chosen
