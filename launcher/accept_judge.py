"""What `invoke accept` found wrong: wrong results, slow cards, failed labs, bad health."""

from collections.abc import Iterator

from launcher.accept_noise import SLOWER, UNCLEAR, Change, compare_with_all
from launcher.accept_record import Record, labs, measurements
from launcher.findings import FIX

MOST_LOAD = 2  # processes for each core; the measurements themselves have one


def faults(record: Record) -> list[str]:
    """Return a sentence for each fault; each names its card."""
    return [
        *record["failures"],
        *bad_health(record),
        *wrong(record),
        *slow(record),
        *failed(record),
    ]


def bad_health(record: Record) -> list[str]:
    """Return the findings that have to be fixed."""
    bad = [one for one in record["findings"] if one["state"] == FIX]
    return [f"{one['name']}: {one['value']}. To fix: {one['fix']}" for one in bad]


def wrong(record: Record) -> list[str]:
    """Return the measurements whose result is wrong."""
    found = measurements(record).items()
    return [
        f"{on}: {name} is wrong: {one['problem']}" for (on, name), one in found if one["problem"]
    ]


def slow(record: Record) -> list[str]:
    """Return the cards, or cores, that are slower than the median one by more than the noise.

    Of two, the faster one counts as the median. Nothing is slow on a machine that was busy.
    """
    if busy(record):
        return []
    lines: list[str] = []
    for on, name, count, change in _compared(record):
        if change.verdict == SLOWER:
            usual = f"the faster of two {_kind(on)}s" if count == 2 else "the median rate"
            share = f"{change.ratio:.2f} of {usual}; noise is {change.band}"
            lines.append(f"{on}: {name} is slow: {share}")
    return lines


def doubts(record: Record) -> list[str]:
    """Return why the measurements can't show slow cards or cores here."""
    if why := busy(record):
        return [why]
    unclear = [
        f"{on}: {name} is {UNCLEAR}: noise is {change.band}"
        for on, name, count, change in _compared(record)
        if count > 1 and change.verdict == UNCLEAR
    ]
    return [*unclear, "Repeat when nothing else runs."] if unclear else []


def busy(record: Record) -> str:
    """Return a sentence if other programs used the machine, else ""."""
    if not is_busy(record):
        return ""
    return f"The machine was busy ({load_of(record)}): repeat when it isn't."


def is_busy(record: Record) -> bool:
    """Return whether other programs used the machine."""
    load = record.get("load")  # records of earlier releases have none
    return load is not None and max(load["start"], load["end"]) > MOST_LOAD * load["cores"]


def load_of(record: Record) -> str:
    """Return the load of the machine, of a record that has one."""
    load = record["load"]
    return f"load {max(load['start'], load['end']):.1f} on {load['cores']} cores"


def _compared(record: Record) -> Iterator[tuple[str, str, int, Change]]:
    """Compare each card with all cards: yield name, measurement, number, change."""
    by_name: dict[str, dict[str, list[float]]] = {}
    for (on, name), one in measurements(record).items():
        by_name.setdefault(name, {})[on] = one["values"]
    for name, rates in by_name.items():
        for on, own in rates.items():
            yield on, name, len(rates), compare_with_all(own, list(rates.values()))


def _kind(on: str) -> str:
    return "core" if on.startswith("core ") else "card"


def failed(record: Record) -> list[str]:
    """Return the labs whose checks failed."""
    bad = [(key, one["problem"]) for key, one in labs(record).items() if one["problem"]]
    return [f"{on}: {lab} failed: {problem}" for (on, lab), problem in bad]
