"""`invoke accept`: inventory, health and measurements of a machine, as a page and signed JSON."""

import os
import tomllib
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from launcher import (
    ROOT,
    accept_inventory,
    accept_judge,
    accept_page,
    accept_record,
    lab_command,
    preflight_checks,
)
from launcher.accept_record import FORMAT, Record
from launcher.accept_run import Acceptance, outputs_folder
from launcher.cards import WRONG_USAGE, Card
from launcher.detect_gpus import detect
from launcher.file_owner import give_to, make_writable_folder
from launcher.findings import Finding
from launcher.lab_command import LabCommand
from launcher.placement import Placement, choose_placement
from launcher.run_lab import announce_choices
from launcher.runtime import Runtime, choose_runtime
from launcher.table import print_table

SOMETHING_WRONG = 1  # exit code
SIZES = ("full", "tiny")
NO_LABS = "none"


def run(labs: str, size: str, stack: str, runtime: str, gpus: str, dry: bool) -> int:
    """Measure this machine, write its page and its record, and return the exit code.

    Args:
        labs: The labs whose checks run on each card, or "none".
        size: "full", or "tiny" for a trial.
        stack: The requested stack, or "auto".
        runtime: The requested runtime, or "auto".
        gpus: The requested GPUs, as in `select_gpus.select`; empty for all.
        dry: Whether to print the commands only.

    Raises:
        Card: If an option isn't possible, or no card could be measured.
        SystemExit: If there is no such lab; the labs print a card.
    """
    if size not in SIZES:
        why = f"--size is one of {', '.join(SIZES)}."
        raise Card(f"--size can't be {size!r}.", why, "invoke accept --help", WRONG_USAGE)
    command = None if labs == NO_LABS else lab_command.plan_run(labs, {"size": "tiny"}, [])
    chosen = choose_runtime(runtime)
    placement = _place(chosen, stack, gpus)
    announce_choices("accept", placement, chosen)
    acceptance = _prepare(chosen, placement, runtime, size, command, dry)
    load = _load()
    try:
        acceptance.run()
    finally:
        if not (dry or acceptance.cards):
            with suppress(OSError):  # it isn't empty
                acceptance.folder.rmdir()
    if dry:
        return 0
    if not acceptance.cards:
        why = "; ".join(acceptance.failures)
        raise Card("No card could be measured.", f"{why}.", "invoke preflight")
    record = accept_record.write(_record(acceptance, chosen, load), acceptance.folder)
    page = accept_page.write(record, acceptance.folder)
    give_to(placement.owner, (page, acceptance.folder / accept_record.NAME))
    _print(record, page)
    return SOMETHING_WRONG if record["faults"] else 0


def _place(runtime: Runtime, stack: str, gpus: str) -> Placement:
    """Choose the stack, and all its GPUs unless some are named."""
    placement = choose_placement(runtime, stack, gpus)
    if placement.gpus and not gpus:
        return choose_placement(runtime, stack, "all")
    return placement


def _prepare(
    chosen: Runtime,
    placement: Placement,
    runtime: str,
    size: str,
    labs: LabCommand | None,
    dry: bool,
) -> Acceptance:
    outputs = outputs_folder(in_container=chosen.engine is not None)
    below = Path("accept") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if not dry:
        make_writable_folder(outputs, placement.owner)
        make_writable_folder(outputs / below, placement.owner)
    inside = Path("outputs") / below
    return Acceptance(placement, runtime, size, labs, inside, outputs / below, dry)


def _load() -> float:
    """Return the mean number of processes that ran or waited in the last minute."""
    return round(os.getloadavg()[0], 1)


def _record(acceptance: Acceptance, runtime: Runtime, load: float) -> Record:
    gpus = detect().gpus
    inventory = accept_inventory.as_data(gpus)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    record: Record = {
        "format": FORMAT,
        "machine": preflight_checks.host_name(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": project["version"],
        "size": acceptance.size,
        "stack": acceptance.placement.stack,
        "runtime": runtime.description,
        "load": {"start": load, "end": _load(), "cores": os.cpu_count() or 1},
        "inventory": inventory,
        "findings": [asdict(one) for one in _health(runtime, inventory["cards"])],
        "cards": acceptance.cards,
        "labs": acceptance.results,
        "failures": acceptance.failures,
    }
    judged = {"faults": accept_judge.faults(record), "doubts": accept_judge.doubts(record)}
    return {**record, **judged}


def _health(runtime: Runtime, cards: dict[str, dict[str, str]]) -> list[Finding]:
    return [
        *preflight_checks.gpus(runtime.engine),
        *accept_inventory.link_findings(cards),
        *accept_inventory.temperatures(),
        *accept_inventory.memory_errors(),
    ]


def _print(record: Record, page: Path) -> None:
    print()
    print_table(accept_page.MEASURED, accept_page.measured_rows(record))
    print(f"\n{accept_page.conditions(record)}")
    faults: list[str] = record["faults"]
    doubts: list[str] = record["doubts"]
    if faults or not doubts:
        print("Faults:" if faults else "No fault was found.")
    for fault in faults:
        print(f"- {fault}")
    if doubts:
        print("No verdict on slow cards or cores:")
    for doubt in doubts:
        print(f"- {doubt}")
    print(f"\nThe page: {page}\nThe record: {page.parent / accept_record.NAME}")
    print(f"Its SHA-256: {record['sha256']}")
