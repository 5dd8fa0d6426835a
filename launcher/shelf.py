"""`invoke images`: the images that are here, and the stacks that have none."""

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from launcher import images
from launcher.compose import resolve
from launcher.engine import Engine, NoEngine, connect
from launcher.errors import explain

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """An image of ours that the engine has; or, without a size, a stack that it has none of."""

    name: str
    stack: str
    gfx: str
    lock: str
    state: str
    size_bytes: int = 0
    created: str = ""


def here(engine: Engine) -> list[Row]:
    """Every image of ours, and a row for each stack without one."""
    rows = [
        _row(name, image)
        for image in engine.client.images.list(filters={"label": images.STACK_LABEL})
        for name in image.tags or [image.short_id]
    ]
    rows.sort(key=lambda row: row.name)
    for stack in ("cpu", "cuda", "rocm"):
        if not any(row.stack == stack for row in rows):
            state = f"not here; about {images.SIZES[stack].download} to download"
            rows.append(Row(f"llm-labs:{stack}", stack, "", "", state))
    return rows


def _row(name: str, image: Any) -> Row:
    stack, gfx = image.labels[images.STACK_LABEL], image.labels.get(images.GFX_LABEL, "")
    made_from = image.labels.get(images.INPUTS_LABEL, "")
    lock = next((part[5:] for part in made_from.split() if part.startswith("lock=")), "")
    state = images.stale(made_from, resolve(stack, {"LABS_GFX": gfx}))
    state = f"stale: {state}" if state else "current"
    created = image.attrs["Created"][:19] + "Z"
    return Row(name, stack, gfx, lock, state, int(image.attrs["Size"]), created)


def show(as_json: bool) -> None:
    """A table on a terminal, lines with tabs on a pipe, or JSON.

    Raises:
        Card: where no engine answers.
    """
    try:
        rows = here(connect())
    except NoEngine as error:
        raise explain("cannot connect to the docker daemon", str(error)) from error
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    heads = ("image", "stack", "gfx", "lock", "size", "age", "state")
    cells = [
        (row.name, row.stack, row.gfx, row.lock, _gigabytes(row), _age(row), row.state)
        for row in rows
    ]
    if not sys.stdout.isatty():
        print("\n".join("\t".join(line) for line in (heads, *cells)))
        return
    table = Table(*heads, box=None)
    for line in cells:
        table.add_row(*line)
    Console(highlight=False).print(table)


def _gigabytes(row: Row) -> str:
    return f"{row.size_bytes / 1e9:.2f} GB" if row.size_bytes else ""


def _age(row: Row) -> str:
    if not row.created:
        return ""
    passed = datetime.now(UTC) - datetime.fromisoformat(row.created)
    hours = int(passed.total_seconds() // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} h" if hours else "< 1 h"
