"""What `invoke accept` found wrong: wrong results, slow cards, failed labs, bad health."""

from launcher.accept_noise import SLOWER, compare_with_all
from launcher.accept_record import Record, labs, measurements
from launcher.findings import FIX


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
    """Return the cards, or cores, that are slower than the median one by more than the noise."""
    by_name: dict[str, dict[str, list[float]]] = {}
    for (on, name), one in measurements(record).items():
        by_name.setdefault(name, {})[on] = one["values"]
    lines: list[str] = []
    for name, rates in by_name.items():
        for on, own in rates.items():
            change = compare_with_all(own, list(rates.values()))
            if change.verdict == SLOWER:
                share = f"{change.ratio:.2f} of the median rate; noise is {change.band}"
                lines.append(f"{on}: {name} is slow: {share}")
    return lines


def failed(record: Record) -> list[str]:
    """Return the labs whose checks failed."""
    bad = [(key, one["problem"]) for key, one in labs(record).items() if one["problem"]]
    return [f"{on}: {lab} failed: {problem}" for (on, lab), problem in bad]
