"""Copies of all work at the start and the end of the hub, between those of the page of the class.

That page makes a copy every ten minutes, and counts them from the start of the hub.
"""

import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

from hub import archive, state
from launcher.hub.folder import LABEL


def begin(engine: Any, ident: str) -> None:
    """Make a copy in the background, once the last one is ten minutes old."""
    Thread(target=copy_when_due, args=(state.WORKSHOP, engine, ident), daemon=True).start()


def copy_when_due(workshop: Path, engine: Any, ident: str) -> None:
    """Wait until the last copy is ten minutes old; then make one if anybody has a seat."""
    time.sleep(archive.seconds_until_due(workshop, time.time()))
    own = {"label": f"{LABEL}={ident}"}
    try:
        if engine.containers.list(filters=own, ignore_removed=True):
            archive.copy(workshop, time.time())
    except OSError as error:  # the disk's, or the engine's
        print(f"No copy of the learners' work: {error}", file=sys.stderr)


def main(folders: list[str]) -> int:
    """Make a copy for `invoke hub --stop` or `--purge`, and print its name or why there is none.

    Args:
        folders: The folder workshop/ on the host; none in the hub's container.
    """
    workshop = Path(folders[0]) if folders else state.WORKSHOP
    try:
        path = archive.copy(workshop, time.time())
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
