"""`invoke gpus`: list the GPUs of this machine, and the stack that "auto" chooses."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from common.cards import Card
from common.table import print_table
from launcher.engine.client import running_engine
from launcher.environment.stack import choose_stack, format_memory
from launcher.gpu.access import User
from launcher.gpu.detect import Machine, detect
from launcher.gpu.leases import Leases, describe
from launcher.gpu.model import Gpu
from launcher.run.file_owner import file_owner
from launcher.run.placement import container_device_user

from rich.console import Console

COLUMNS = ("#", "GPU", "target", "VRAM", "node", "usable")


def show(as_json: bool, user: User | None = None) -> None:
    """Print this machine's GPUs, and whether `user`, by default the caller, can use them."""
    machine = detect(user=user)
    notes = [*machine.notes, *_container_notes(), *_leases(machine)]
    auto = _auto_stack(machine)
    if as_json:
        print(json.dumps({**asdict(machine), "notes": notes, "auto": auto}, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    if machine.gpus:
        print_gpus(console, machine.gpus)
    for line in (*notes, _auto_text(auto)):
        console.print(line, markup=False)


def print_gpus(console: Console, gpus: Iterable[Gpu]) -> None:
    """Print a table on a terminal, tab-separated lines on a pipe."""
    print_table(COLUMNS, [_row(gpu) for gpu in gpus], console)


def _row(gpu: Gpu) -> tuple[str, ...]:
    number = f"{gpu.vendor} {gpu.index}"
    name = f"{gpu.name}, integrated" if gpu.integrated else gpu.name
    memory = format_memory(gpu.vram_bytes)
    usable = f"no: {gpu.unusable}" if gpu.unusable else "yes"
    return number, name, gpu.target or "unknown", memory, gpu.node or "none", usable


def _container_notes() -> list[str]:
    """Return notes on GPUs that are usable in a container only, or outside one only."""
    for_caller = detect(ask_nvidia_smi=False).gpus
    if not for_caller:
        return []
    engine = running_engine()
    rootless = engine is not None and engine.rootless
    user = container_device_user(rootless, file_owner())
    for_container = detect(user=user, ask_nvidia_smi=False).gpus
    notes: list[str] = []
    for outside, inside in zip(for_caller, for_container, strict=True):
        if bool(outside.unusable) == bool(inside.unusable):
            continue
        if inside.unusable:
            notes.append(f"In a container, {inside.name} can't be used: {inside.unusable}.")
        else:
            notes.append(
                f"In a container, {inside.name} can be used: its user joins the devices' groups."
            )
    return list(dict.fromkeys(notes))


def _leases(machine: Machine) -> list[str]:
    """Return a note on who holds which GPUs, if anybody does."""
    try:
        held = describe(machine.gpus, Leases(machine.gpus).held())
    except Card as card:
        return [f"{card.what} {card.why}"]
    return [f"Held: {held}."] if held else []


def _auto_stack(machine: Machine) -> dict[str, Any]:
    """Return the stack that --stack auto chooses, or the card that it ends in."""
    try:
        choice = choose_stack("auto", machine)
    except Card as card:
        return {"stack": None, "what": card.what, "why": card.why, "fix": card.fix}
    return {"stack": choice.stack, "reason": choice.reason}


def _auto_text(auto: dict[str, Any]) -> str:
    if auto["stack"] is None:
        return f"--stack auto: {auto['what']}\nwhy: {auto['why']}\nfix: {auto['fix']}"
    return f"--stack auto: {auto['stack']}, because {auto['reason']}."
