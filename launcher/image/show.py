"""`invoke images`: list the images on this machine, and the stacks without one."""

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from launcher.engine import orphans
from launcher.engine.client import Engine, NoEngine, connect
from launcher.engine.compose import notebook_service, resolve
from launcher.engine.known_errors import no_engine
from launcher.environment.stack import STACKS
from launcher.image.build import sizes_of
from launcher.image.status import (
    GFX_LABEL,
    INPUTS_LABEL,
    NOTEBOOK_LABEL,
    STACK_LABEL,
    is_clone_name,
    why_stale,
)

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class ImageRow:
    """An image of this project, or, without a size, a stack that has no image."""

    name: str
    stack: str
    gfx: str
    lock: str
    state: str
    size_bytes: int = 0
    created: str = ""


def find_images(engine: Engine) -> list[ImageRow]:
    """Return a row for each image of this project, and for each stack without one."""
    images: list[Any] = engine.client.images.list(filters={"label": STACK_LABEL})
    rows = [_row(name, image) for image in images for name in _names(image)]
    rows.sort(key=lambda row: row.name)
    built = {one.labels[STACK_LABEL] for one in images if NOTEBOOK_LABEL not in one.labels}
    for stack in STACKS:
        if stack not in built:
            state = f"not built; about {sizes_of(stack).download} to download"
            rows.append(ImageRow(f"llm-labs:{stack}", stack, "", "", state))
    return rows


def _names(image: Any) -> list[str]:
    """Return an image's names; without those of clones, if it has others."""
    names: list[str] = image.tags or [image.short_id]
    return [name for name in names if not is_clone_name(name)] or names


def _row(name: str, image: Any) -> ImageRow:
    stack = image.labels[STACK_LABEL]
    gfx = image.labels.get(GFX_LABEL, "")
    built_from = image.labels.get(INPUTS_LABEL, "")
    hashes = dict(part.partition("=")[::2] for part in built_from.split())
    service = notebook_service(stack) if NOTEBOOK_LABEL in image.labels else stack
    reason = why_stale(built_from, resolve(service, {"LABS_GFX": gfx}))
    state = f"stale: {reason}" if reason else "current"
    if reason and is_clone_name(name):
        state = f"another clone's; if that is gone: docker image rm {name}"
    created = image.attrs["Created"][:19] + "Z"
    size = int(image.attrs["Size"])
    return ImageRow(name, stack, gfx, hashes.get("lock", ""), state, size, created)


def show(as_json: bool) -> None:
    """Print a table on a terminal, tab-separated lines on a pipe, or JSON.

    Raises:
        Card: If no engine is running.
    """
    try:
        engine = connect()
    except NoEngine as error:
        raise no_engine() from error
    orphans.clean_up(engine)
    rows = find_images(engine)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    header = ("image", "stack", "gfx", "lock", "size", "age", "state")
    lines = [
        (row.name, row.stack, row.gfx, row.lock, _size(row), _age(row), row.state) for row in rows
    ]
    if not sys.stdout.isatty():
        print("\n".join("\t".join(line) for line in (header, *lines)))
        return
    table = Table(*header, box=None)
    for line in lines:
        table.add_row(*line)
    Console(highlight=False).print(table)


def _size(row: ImageRow) -> str:
    return f"{row.size_bytes / 1e9:.2f} GB" if row.size_bytes else ""


def _age(row: ImageRow) -> str:
    if not row.created:
        return ""
    age = datetime.now(UTC) - datetime.fromisoformat(row.created)
    hours = int(age.total_seconds() // 3600)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h" if hours else "< 1 h"
