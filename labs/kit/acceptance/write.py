"""Write the record of a card's measurements for the launcher."""

import json
from pathlib import Path
from typing import Any


def write(record: dict[str, Any], out: Path) -> None:
    """Write a record in one step: the launcher never reads an incomplete file."""
    part = out.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1), encoding="utf-8")
    part.replace(out)
