"""A malicious pickle, harmless here."""

import os
from pathlib import Path
from typing import Any


class Trap:
    """Make a folder when pickle opens it. It could as well remove yours."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)
