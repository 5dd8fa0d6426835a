"""`invoke preflight`: check a machine, or N seats on it, and list what to fix."""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.cards import WRONG_USAGE, Card, print_status
from common.processes import capture
from launcher import ROOT
from launcher.engine import orphans
from launcher.engine.client import Engine
from launcher.engine.compose import notebook_service
from launcher.environment import make as environment
from launcher.image.status import why_build
from launcher.notebook.server import PORTS
from launcher.preflight import checks as preflight_checks
from launcher.preflight import hub as preflight_hub
from launcher.preflight import seats
from launcher.preflight.findings import FIX, NOTE, OK, Finding, from_card
from launcher.preflight.seats import Measurement
from launcher.run import lab_command
from launcher.run import service as lab_service
from launcher.run.file_owner import give_to
from launcher.run.placement import Placement, choose_placement
from launcher.run.runtime import Runtime, choose_runtime

SOMETHING_TO_FIX = 1  # exit code
LAB = "LLM01"  # its first experiment opens the model that most labs use
MOST_SEATS = len(PORTS)


def run(seats_text: str, as_json: bool) -> int:
    """Check this machine, print what was found and what to fix, and return the exit code.

    Args:
        seats_text: How many learners' containers to start at once; "" for none.
        as_json: Whether to print JSON.

    Raises:
        Card: If the number of seats isn't possible.
    """
    preflight = Preflight(_parse_seats(seats_text))
    findings: list[Finding] = []
    for finding in preflight.findings():
        findings.append(finding)
        if not as_json:
            print(finding.line, flush=True)
    to_fix = [finding for finding in findings if finding.state == FIX]
    if as_json:
        print(json.dumps(_record(preflight, findings), indent=2))
    else:
        print(_summary(to_fix))
    return SOMETHING_TO_FIX if to_fix else 0


def _parse_seats(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SEATS:
        why = f"It is a number of learners, from 1 to {MOST_SEATS}."
        raise Card(f"--seats can't be {text!r}.", why, "invoke preflight --seats 4", WRONG_USAGE)
    return int(text)


@dataclass
class Preflight:
    """The checks of this machine, in their order.

    Attributes:
        seats: The number of seats to start, or 0.
        measurement: What the seats took, once they were tried.
    """

    seats: int
    measurement: Measurement | None = None

    def findings(self) -> Iterator[Finding]:
        """Yield each finding as soon as it is known."""
        yield preflight_checks.python()
        try:
            runtime = choose_runtime("auto")
        except Card as card:
            yield from_card("engine", card)
            runtime = None
        engine = runtime.engine if runtime else None
        if engine is not None:
            yield preflight_checks.engine_version(engine)
            yield preflight_checks.compose()
        yield from preflight_checks.gpus(engine)
        yield preflight_checks.cores(engine)
        yield preflight_checks.memory(self.seats)
        yield preflight_checks.ports(self.seats)
        yield preflight_checks.clock(engine)
        yield from preflight_hub.findings(runtime)
        if runtime is not None:
            yield from self._of_runtime(runtime)

    def _of_runtime(self, runtime: Runtime) -> Iterator[Finding]:
        """Check what depends on the stack: its image or environment, the disk, a lab, seats."""
        try:
            placement = choose_placement(runtime, "auto", "")
            if runtime.engine is None:
                yield from self._environment(runtime, placement)
            else:
                yield from self._images(runtime.engine, placement)
        except Card as card:
            yield from_card("stack", card)

    def _environment(self, runtime: Runtime, placement: Placement) -> Iterator[Finding]:
        required = environment.required_environment(placement.stack, placement.gfx)
        yield preflight_checks.no_engine(runtime.reason, required.is_complete)
        missing = "" if required.is_complete else placement.stack
        yield from preflight_checks.disks(None, missing, self.seats)
        if required.is_complete:
            yield _first_experiment(placement)
        if self.seats:
            yield Finding("seats", "not tried: they need a container engine", FIX, "docker info")

    def _images(self, engine: Engine, placement: Placement) -> Iterator[Finding]:
        orphans.clean_up(engine)
        reason = _why_not(engine, placement, placement.stack)
        yield from preflight_checks.disks(engine, placement.stack if reason else "", self.seats)
        yield _image(placement.stack, reason, f"invoke build --stack {placement.stack}", FIX)
        jupyter = _why_not(engine, placement, notebook_service(placement.stack))
        fix = f"invoke build --notebook --stack {placement.stack}"
        name = notebook_service(placement.stack)
        hub = preflight_hub.image_for_seats(engine, placement) if self.seats else ""
        yield _image(name, jupyter, fix, FIX if self.seats and not hub else NOTE)
        if not reason:
            yield _first_experiment(placement)
        if self.seats and (hub or not jupyter):
            yield self._try_seats(engine, placement, hub)

    def _try_seats(self, engine: Engine, placement: Placement, image: str) -> Finding:
        _, available = preflight_checks.read_memory()
        needed = self.seats * preflight_checks.SEAT_BYTES
        if available < needed:
            value = f"not tried: {needed / 1e9:.1f} GB of memory are needed"
            fitting = available // preflight_checks.SEAT_BYTES
            fewer = f"invoke preflight --seats {fitting}"
            fix = fewer if fitting else "free -h, then end programs that aren't needed"
            return Finding("seats", value, FIX, fix)
        of_image = f" of {image}" if image else ""
        print_status(f"Starting {self.seats} learners' containers{of_image}.")
        try:
            self.measurement = seats.measure(engine, placement, self.seats, image)
        except Card as card:
            return from_card("seats", card)
        return _judge_seats(self.measurement)


def _why_not(engine: Engine, placement: Placement, service: str) -> str:
    return why_build(engine, lab_service.resolve(service, placement, {}))


def _image(name: str, reason: str, fix: str, state: str) -> Finding:
    value = f"{name}: {reason}" if reason else f"{name}: up to date"
    return Finding("image", value, state if reason else OK, fix if reason else "")


def _first_experiment(placement: Placement) -> Finding:
    """Run the first experiment of a lab as a user would, and report how long it took."""
    (lab,) = lab_command.find_files(LAB)
    words = ["lab", LAB, "--only", lab.first_experiment]
    with tempfile.TemporaryDirectory(prefix="llm-labs-preflight-") as outputs:
        give_to(placement.owner, [Path(outputs)])
        begun = datetime.now(UTC)
        ended = capture(
            [sys.executable, "-m", "invoke", *words],
            cwd=ROOT,
            env={**os.environ, "LABS_OUTPUTS": outputs},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    seconds = (datetime.now(UTC) - begun).total_seconds()
    if ended.returncode == 0:
        value = f"the first experiment of {LAB} ran on {placement.stack} in {seconds:.0f} s"
        return Finding("lab", value)
    lines = ended.stderr.strip().splitlines() or ["it printed nothing"]
    card = dict(line.split(": ", 1) for line in lines if line.startswith(("what: ", "fix: ")))
    reason = card.get("what", lines[-1])
    value = f"the first experiment of {LAB} failed ({ended.returncode}): {reason}"
    return Finding("lab", value, FIX, card.get("fix", f"invoke {' '.join(words)}"))


def _judge_seats(measured: Measurement) -> Finding:
    value = f"{measured.ready} of {measured.seats} ready"
    if measured.median_seconds is not None:
        value += f" after {measured.median_seconds} s (median), {measured.worst_seconds} s (worst)"
    if measured.median_memory and measured.worst_memory:
        mega = f"{measured.median_memory / 1e6:.0f} MB (median), {measured.worst_memory / 1e6:.0f}"
        value += f", {mega} MB (worst) of memory each"
    if not measured.failures:
        return Finding("seats", value)
    reasons = "; ".join(f"{count} × {text}" for text, count in measured.failures.items())
    fix = f"invoke preflight --seats {max(measured.ready, 1)}"
    return Finding("seats", f"{value}; failed: {reasons}", FIX, fix)


def _summary(to_fix: list[Finding]) -> str:
    if not to_fix:
        return "\nNothing is to be fixed."
    lines = [f"{i}. {one.name}: {one.fix}" for i, one in enumerate(to_fix, start=1)]
    return "\n".join(["\nTo fix:", *lines])


def _record(preflight: Preflight, findings: list[Finding]) -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        "machine": preflight_checks.host_name(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": project["version"],
        "ready": all(finding.state != FIX for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "seats": asdict(preflight.measurement) if preflight.measurement else None,
    }
