"""`invoke accept --compare A B`: what is slower or faster in B, by how much, beyond noise."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from launcher import accept_record
from launcher.accept_judge import bad_health, is_busy, load_of
from launcher.accept_noise import FASTER, SAME, SLOWER, UNCLEAR, compare
from launcher.accept_record import Record
from launcher.accept_run import ALL
from launcher.cards import WRONG_USAGE, Card
from launcher.table import print_table

WORSE = 1  # exit code
MISSING, NEW, WRONG, FAILED, PASSED = "missing", "new", "wrong", "failed", "passed"
BAD = (SLOWER, MISSING, WRONG, FAILED)
COLUMNS = ("card", "measurement", "A", "B", "unit", "B ÷ A", "noise", "verdict")


@dataclass(frozen=True)
class Row:
    """A measurement or a lab in both records, as text."""

    card: str
    name: str
    a: str = ""
    b: str = ""
    unit: str = ""
    ratio: str = ""
    noise: str = ""
    verdict: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the row's cells."""
        values = (self.card, self.name, self.a, self.b, self.unit, self.ratio, self.noise)
        return (*values, self.verdict)


def run(a: str, b: str) -> int:
    """Compare two records, print a table, and return the exit code.

    Args:
        a: The file or folder of the earlier record, or of the first machine.
        b: The file or folder of the later record, or of the second machine.

    Raises:
        Card: If a record can't be used, they are the same one, or they can't be compared.
    """
    if not b:
        why = "It compares two records, the earlier one first: each a folder or its accept.json."
        raise Card("--compare needs two records.", why, "invoke accept --compare A B", WRONG_USAGE)
    before = accept_record.read(Path(a).expanduser())
    after = accept_record.read(Path(b).expanduser())
    if before["sha256"] == after["sha256"]:
        why = f"Both have the SHA-256 {before['sha256'][:12]}…, so it would compare with itself."
        fix = "name another record: ls outputs/accept/*/accept.json"
        raise Card("A and B are the same record.", why, fix, WRONG_USAGE)
    rows = compare_records(before, after)
    for label, record in (("A", before), ("B", after)):
        print(f"{label}: {_describe(record)}")
    print()
    print_table(COLUMNS, [row.cells for row in rows])
    health = bad_health(after)
    load = _load(before, after)
    print(f"\n{summary(rows, load)}")
    for line in health:
        print(f"B, {line}")
    return WORSE if health or _worse(rows, load) else 0


def compare_records(a: Record, b: Record) -> list[Row]:
    """Return a row for each measurement and each lab.

    Raises:
        Card: If they measured different amounts.
    """
    ours = accept_record.measurements(a)
    theirs = accept_record.measurements(b)
    for key in ours.keys() & theirs.keys():
        if ours[key]["amount"] != theirs[key]["amount"]:
            raise Card(
                "The records can't be compared.",
                f"{key[0]}: {key[1]} has another size in A ({a['size']}, {a['stack']}) than in B "
                f"({b['size']}, {b['stack']}).",
                "invoke accept with the same --size and --stack on both machines",
                WRONG_USAGE,
            )
    rows = [_measured(key, ours.get(key), theirs.get(key)) for key in (ours | theirs)]
    mine = accept_record.labs(a)
    yours = accept_record.labs(b)
    return rows + [_lab(key, mine.get(key), yours.get(key)) for key in (mine | yours)]


def _measured(key: tuple[str, str], a: Any, b: Any) -> Row:
    known = b or a
    row = {"card": key[0], "name": key[1], "unit": known["unit"]}
    row["a"] = _rate(a) if a else ""
    row["b"] = _rate(b) if b else ""
    if b is None:
        return Row(**row, verdict=MISSING)
    if b["problem"]:
        return Row(**row, verdict=WRONG)
    if a is None:
        return Row(**row, verdict=NEW)
    change = compare(a["values"], b["values"])
    ratio = f"{change.ratio:.2f}"
    return Row(**row, ratio=ratio, noise=change.band, verdict=change.verdict)


def _lab(key: tuple[str, str], a: Any, b: Any) -> Row:
    row = {"card": key[0], "name": key[1]}
    row["a"] = _outcome(a) if a else ""
    row["b"] = _outcome(b) if b else ""
    if b is None:
        return Row(**row, verdict=MISSING)
    if b["problem"]:
        return Row(**row, verdict=FAILED)
    return Row(**row, verdict=SAME if a and not a["problem"] else PASSED)


def _rate(measured: dict[str, Any]) -> str:
    return f"{median(measured['values']):.4g}"


def _outcome(lab: dict[str, Any]) -> str:
    return FAILED if lab["problem"] else PASSED


def _describe(record: Record) -> str:
    devices = Counter(card["device"] for card in record["cards"] if card["name"] != ALL)
    names = ", ".join(f"{n} × {name}" if n > 1 else name for name, n in devices.items())
    return f"{record['machine']}, {record['time']}, {names}, SHA-256 {record['sha256'][:12]}…"


def _load(a: Record, b: Record) -> str:
    """Return the load of the records whose machine was busy, else ""."""
    both = (("A", a), ("B", b))
    busy = [f"{label} was measured at {load_of(one)}" for label, one in both if is_busy(one)]
    return ", ".join(busy)


def _worse(rows: list[Row], load: str) -> list[str]:
    """Return how many rows have which bad verdict; on a busy machine, nothing is slower."""
    counts = Counter(row.verdict for row in rows)
    bad = [verdict for verdict in BAD if not (load and verdict == SLOWER)]
    return [f"{counts[verdict]} {verdict}" for verdict in bad if counts[verdict]]


def summary(rows: list[Row], load: str = "") -> str:
    """Return the result: the same, how many rows have which verdict, or why there is none.

    Args:
        rows: The rows of the comparison.
        load: The load, if a machine was busy.
    """
    worse = _worse(rows, load)
    lines = [f"B is not as good as A: {', '.join(worse)}."] if worse else []
    if load:
        lines.append(f"No verdict on speed: {load}; repeat on an idle machine.")
    return "\n".join(lines) or _speed(rows)


def _speed(rows: list[Row]) -> str:
    """Return one sentence on two machines of which the second one isn't worse."""
    counts = Counter(row.verdict for row in rows)
    if counts[UNCLEAR]:
        unclear = f"{counts[UNCLEAR]} of {len(rows)} rows are {UNCLEAR}"
        return f"B isn't slower in the rows with a verdict; {unclear}: repeat on an idle machine."
    if counts[FASTER]:
        return f"B is faster than A in {counts[FASTER]} of {len(rows)} rows, and slower in none."
    return "The same within the noise."
