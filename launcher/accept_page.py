"""The page of `invoke accept`: accept.html, one file that needs no network."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from launcher import accept_peaks
from launcher.accept_noise import spread
from launcher.accept_record import NAME, Record, labs, measurements
from launcher.findings import MARKS

PAGE = "accept.html"
MEASURED = ("card", "measurement", "rate", "spread", "of its peak", "result")
STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1c2026, #e3e7ec);
  --soft: light-dark(#535d68, #a9b3bd); --line: light-dark(#d9dee4, #38404a);
  --bad: light-dark(#b3261e, #ff9a90); --good: light-dark(#17693a, #62cb8e); }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: var(--ink);
  background: light-dark(#ffffff, #14171b); overflow-wrap: anywhere;
  font: 17px/1.6 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; }
h2 { font-size: 1.3rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.1rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
.bad { color: var(--bad); } .good { color: var(--good); } .quiet { color: var(--soft); }
@media print { body { max-width: none; font-size: 10pt; } h2 { margin-top: 1rem; } }
"""


def write(record: Record, folder: Path) -> Path:
    """Write the page of a signed record; return its path."""
    page = folder / PAGE
    page.write_text(render(record), encoding="utf-8")
    return page


def render(record: Record) -> str:
    """Return the page as HTML."""
    title = f"Acceptance of {record['machine']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_when(record))}</p>",
        f"<p>{escape(conditions(record))}</p>",
        _verdict(record["faults"], record["doubts"]),
        "<h2>Measurements</h2>",
        _table(MEASURED, measured_rows(record)),
        '<p class="quiet">The rate is the median of all rounds. The spread is their median '
        "absolute deviation, scaled to a standard deviation.</p>",
        "<h2>Labs</h2>",
        _table(("card", "lab", "checks", "result"), _lab_rows(record))
        if record["labs"]
        else "<p>No lab was run.</p>",
        "<h2>Health</h2>",
        _table(("", "part", "finding"), _finding_rows(record)),
        "<h2>Inventory</h2>",
        _table(("part", "property", "value"), _inventory_rows(record)),
        f'<p class="quiet">SHA-256 of the content of {NAME}: <code>{record["sha256"]}</code></p>',
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</html>\n"
    )


def _when(record: Record) -> str:
    return (
        f"{record['time']}, llm-labs {record['version']}, {record['stack']} stack in "
        f"{record['runtime']}."
    )


def conditions(record: Record) -> str:
    """Return the size of the measurements, and the load of the machine before and after."""
    load = record["load"]
    return (
        f"Size {record['size']}. The load was {load['start']:g} at the start and {load['end']:g} "
        f"at the end, on {load['cores']} cores."
    )


def _verdict(faults: Sequence[str], doubts: Sequence[str]) -> str:
    parts: list[str] = []
    if faults:
        parts.append(f'<p class="bad">Faults: {len(faults)}</p>\n{_items(faults, "bad")}')
    if doubts:
        parts.append(f"<p>No verdict on slow cards or cores:</p>\n{_items(doubts, 'quiet')}")
    return "\n".join(parts) or '<p class="good">No fault was found.</p>'


def _items(lines: Sequence[str], style: str) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{style}">{items}</ul>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(one)}</th>' if one else "<td></td>" for one in columns)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<div class="scroll" role="group" aria-label="Table" tabindex="0">{table}</div>'


def measured_rows(record: Record) -> list[tuple[str, ...]]:
    """Return the cells of MEASURED for each measurement."""
    gpus = record["inventory"]["cards"]
    peaks = {card["name"]: _peak(record, card) for card in record["cards"] if card["name"] in gpus}
    rows: list[tuple[str, ...]] = []
    for (on, name), one in measurements(record).items():
        rate = median(one["values"])
        share = _share(peaks[on], name, rate) if on in peaks else "–"
        shown = f"{rate:.4g} {one['unit']}"
        rows.append((on, name, shown, f"{spread(one['values']):.1%}", share, _result(one)))
    return rows


def _result(one: dict[str, Any]) -> str:
    return f"wrong: {one['problem']}" if one["problem"] else "right"


def _peak(record: Record, card: dict[str, Any]) -> accept_peaks.Peak | None:
    return accept_peaks.find(record["inventory"]["cards"][card["name"]]["GPU"], card["device"])


def _share(peak: accept_peaks.Peak | None, name: str, rate: float) -> str:
    if peak is None:
        return "its peak isn't known"
    most = accept_peaks.rate(peak, name)
    return f"{rate / most:.0%} of {most:,.0f}" if most else "–"


def _lab_rows(record: Record) -> list[tuple[str, ...]]:
    return [
        (on, lab, one["checks"], f"failed: {one['problem']}" if one["problem"] else "passed")
        for (on, lab), one in labs(record).items()
    ]


def _finding_rows(record: Record) -> list[tuple[str, ...]]:
    return [(MARKS[one["state"]], one["name"], one["value"]) for one in record["findings"]]


def _inventory_rows(record: Record) -> list[tuple[str, ...]]:
    parts = {"machine": record["inventory"]["machine"], **record["inventory"]["cards"]}
    rows = [(part, name, value) for part, known in parts.items() for name, value in known.items()]
    software = [(card["name"], "device", card["device"]) for card in record["cards"]]
    return [*rows, *software, *((card["name"], "torch", card["torch"]) for card in record["cards"])]
