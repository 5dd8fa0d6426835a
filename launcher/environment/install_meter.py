"""How far a step is, read from its output."""

import re
from collections.abc import Callable

# Returns the finished part of the step, from 0 to 1, or what the step makes now.
Meter = Callable[[str], float | str | None]
_UV_DOWNLOADING = re.compile(r"Downloading (\S+) \(([\d.]+)([KMG])iB\)")
_UV_DOWNLOADED = re.compile(r" Downloaded (\S+)")
_MEGABYTES = {"K": 1 / 1024, "M": 1, "G": 1024}
_PERCENT = re.compile(r"(\d+)%\|")
DOWNLOAD_SHARE = 0.8  # the rest of an installation writes the files


def meter(packages: int) -> Meter:
    """Return a meter for uv or pip installing a number of packages.

    uv names its larger downloads with their sizes, when they begin and when they end. pip names
    each package before it downloads it.
    """
    sizes: dict[str, float] = {}
    left: dict[str, float] = {}
    collected = 0

    def read(line: str) -> float | None:
        nonlocal collected
        if begun := _UV_DOWNLOADING.match(line):
            size = float(begun[2]) * _MEGABYTES[begun[3]]
            sizes[begun[1]] = size
            left[begun[1]] = size
        elif ended := _UV_DOWNLOADED.match(line):
            left.pop(ended[1], None)
        elif line.startswith("Collecting "):
            collected += 1
            return DOWNLOAD_SHARE * min(collected / packages, 1)
        elif line.startswith(("Prepared ", "Installing ")):
            return DOWNLOAD_SHARE
        if not sizes:
            return None
        return DOWNLOAD_SHARE * (1 - sum(left.values()) / sum(sizes.values()))

    return read


def conversion(line: str) -> float | None:
    """Read the output of docker/assets.py: the larger model comes first and shows a bar."""
    if "en.npz" in line:
        return 0.95
    percent = _PERCENT.search(line)
    return 0.4 + 0.3 * int(percent[1]) / 100 if percent else None
