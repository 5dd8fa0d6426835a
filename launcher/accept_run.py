"""Run the measurements and the labs of `invoke accept`, each where a lab would run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher import ROOT, run_lab, settings
from launcher.accept_inventory import card_name
from launcher.cards import Card, print_status
from launcher.lab_command import LabCommand
from launcher.placement import Placement

CPU = "cpu"
ALL = "all cards"


@dataclass
class Acceptance:
    """What the runs on the cards of this machine gave.

    Attributes:
        placement: the stack and the GPUs.
        runtime: the requested runtime.
        size: of the measurements.
        labs: the command of the labs; None for no lab.
        inside: the folder of this acceptance, as the runs see it.
        folder: the same folder on the host.
        dry: whether to print the commands only.
        cards: the records of the measurements.
        results: the results of the labs.
        failures: runs that gave nothing, a sentence for each.
    """

    placement: Placement
    runtime: str
    size: str
    labs: LabCommand | None
    inside: Path
    folder: Path
    dry: bool
    cards: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    results: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    failures: list[str] = field(default_factory=list[str])

    def run(self) -> None:
        """Measure each card, then all-reduce over all cards, then run the labs on each card."""
        for name, gpus in self._cards():
            self._measure(name, gpus, processes=1)
        count = len(self.placement.gpus)
        if count != 1:  # one GPU has nothing to reduce over; on a CPU, two processes do it
            numbers = "".join(f"{gpu.index}," for gpu in self.placement.gpus)
            self._measure(ALL, numbers, processes=count or 2)
        for name, gpus in self._cards() if self.labs else []:
            self._run_labs(name, gpus, self.labs)

    def _cards(self) -> list[tuple[str, str]]:
        """Return the name of each card, and the option --gpus that selects it."""
        if not self.placement.gpus:
            return [(CPU, "")]
        return [(card_name(gpu), f"{gpu.index},") for gpu in self.placement.gpus]

    def _measure(self, name: str, gpus: str, processes: int) -> None:
        file = f"{name.replace(' ', '-')}.json"
        options = ["--out", str(self.inside / file), "--size", self.size]
        options += ["--processes", str(processes)] if processes > 1 else []
        command = LabCommand((), tuple(options), verb="accept")
        if not self._run(name, "the measurement", command, gpus):
            return
        measured = json.loads((self.folder / file).read_text(encoding="utf-8"))
        (self.folder / file).unlink()
        self.cards.append({"name": name, **measured})

    def _run_labs(self, name: str, gpus: str, labs: LabCommand | None) -> None:
        if labs is None:
            return
        where = f"labs-{name.replace(' ', '-')}"
        options = (*labs.options, "--outputs", str(self.inside / where))
        self._run(name, labs.name, replace(labs, options=options), gpus, fails=False)
        if not self.dry:
            self.results += [_lab_result(name, lab, self.folder / where) for lab in labs.labs]

    def _run(
        self, name: str, what: str, command: LabCommand, gpus: str, fails: bool = True
    ) -> bool:
        """Run a command on a card; return whether it left a result.

        Args:
            name: The card.
            what: What is run, for people.
            command: The command.
            gpus: The GPUs, as in `select_gpus.select`.
            fails: Whether an exit code other than 0 is a failure; a lab's results say more.
        """
        stack = self.placement.stack
        print_status(f"{name}: {what}")
        try:
            code = run_lab.run(command, stack, self.runtime, gpus, self.dry, announce=False)
        except Card as card:
            self.failures.append(f"{name}: {what} failed: {card.what} {card.why}")
            return False
        if code and fails:
            self.failures.append(f"{name}: {what} ended with {code}")
        return not (code or self.dry)


def outputs_folder(in_container: bool) -> Path:
    """Return the folder on the host that a run sees as outputs/."""
    setting = settings.find("LABS_OUTPUTS") if in_container else None
    return (ROOT / Path(setting.value).expanduser()).resolve() if setting else ROOT / "outputs"


def _lab_result(card: str, lab: str, folder: Path) -> dict[str, str]:
    """Return how a lab ended, from its results.json."""
    found = sorted((folder / lab).glob("*/results.json"))
    if not found:
        return {"card": card, "lab": lab, "checks": "", "problem": "it left no results"}
    data = json.loads(found[-1].read_text(encoding="utf-8"))
    checks = [check for one in data["experiments"] for check in one["checks"]]
    bad = [check["name"] for check in checks if not check["passed"]]
    crashed = [one["name"] for one in data["experiments"] if one["crash"]]
    problem = "; ".join((*_named("crashed", crashed), *_named("failed checks", bad)))
    if not problem and not data["passed"]:
        problem = "it did not pass"
    passed = f"{len(checks) - len(bad)} of {len(checks)}"
    return {"card": card, "lab": lab, "checks": passed, "problem": problem}


def _named(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what}: {', '.join(names)}"] if names else []
