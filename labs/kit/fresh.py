"""Another process: a Python that has imported nothing yet, and has asked for no memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def in_a_fresh_process(code: str, *arguments: str) -> Any:
    """The last line that `code` prints there, read as JSON; it finds the labs, and `sys.argv[1:]`.

    Raises:
        subprocess.CalledProcessError: where it ends otherwise than well.
    """
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    words = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(words, env=here, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])
