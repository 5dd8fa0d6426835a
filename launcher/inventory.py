"""`invoke gpus`: what was found, and the stack that it comes to."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from launcher import owners
from launcher.cards import Card
from launcher.engine import is_rootless
from launcher.gpus import Gpu, Machine, User, detect
from launcher.stacks import choose, size
from launcher.targets import in_a_container

from rich.console import Console
from rich.table import Table

COLUMNS = ("#", "GPU", "target", "VRAM", "node", "usable")


def show(as_json: bool, user: User | None = None) -> None:
    """Print this machine's GPUs as `user`, by default the caller, can use them."""
    machine = detect(user=user)
    notes = [*machine.notes, *_in_a_container()]
    auto = _auto(machine)
    if as_json:
        print(json.dumps({**asdict(machine), "notes": notes, "auto": auto}, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    if machine.gpus:
        print_gpus(console, machine.gpus)
    for line in (*notes, _sentence(auto)):
        console.print(line, markup=False)


def print_gpus(console: Console, gpus: Iterable[Gpu]) -> None:
    """A table on a terminal; else lines with tabs."""
    rows = [row(gpu) for gpu in gpus]
    if not console.is_terminal:
        for one in (COLUMNS, *rows):
            print("\t".join(one), file=console.file)  # rich would turn tabs into spaces
        return
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for one in rows:
        table.add_row(*one)
    console.print(table, soft_wrap=False)


def row(gpu: Gpu) -> tuple[str, ...]:
    """What is told of a GPU, a text for each column."""
    name = f"{gpu.name}, integrated" if gpu.integrated else gpu.name
    usable = f"no: {gpu.unusable}" if gpu.unusable else "yes"
    place = f"{gpu.vendor} {gpu.index}"
    return place, name, gpu.target or "unknown", size(gpu.vram_bytes), gpu.node or "none", usable


def _in_a_container() -> list[str]:
    """Where what a container's user may open differs from what the caller may."""
    ours = detect(ask=False).gpus
    if not ours:
        return []
    theirs = detect(user=in_a_container(is_rootless(), owners.of_the_files()), ask=False).gpus
    notes = [
        f"In a container, {their.name} can be used: it is given the groups of the devices."
        if not their.unusable
        else f"In a container, {their.name} can't be used: {their.unusable}."
        for our, their in zip(ours, theirs, strict=True)
        if bool(our.unusable) != bool(their.unusable)
    ]
    return list(dict.fromkeys(notes))


def _auto(machine: Machine) -> dict[str, Any]:
    """What --stack auto comes to."""
    try:
        choice = choose("auto", machine)
    except Card as card:
        return {"stack": None, "what": card.what, "why": card.why, "mend": card.mend}
    return {"stack": choice.stack, "reason": choice.reason}


def _sentence(auto: dict[str, Any]) -> str:
    if auto["stack"] is None:
        return f"--stack auto: {auto['what']}\nwhy: {auto['why']}\nmend: {auto['mend']}"
    return f"--stack auto: {auto['stack']}, because {auto['reason']}."
