"""How much a first build downloads and how much disk space it needs."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from common.cards import Card


@dataclass(frozen=True)
class Sizes:
    """What a first build downloads, and the disk space it needs, in GB."""

    download: str
    image_gb: int
    environment_gb: int


# Measured on Linux x86-64 for cpu and cuda; for rocm, AMD publishes the size of its wheels.
SIZES = {
    "cpu": Sizes("490 MB", image_gb=3, environment_gb=3),
    "cuda": Sizes("2.9 GB", image_gb=10, environment_gb=8),
    "rocm": Sizes("1.6 GB", image_gb=12, environment_gb=8),
}
ALL_GFX_TARGETS = Sizes("more than 20 GB", image_gb=80, environment_gb=80)


def sizes_of(stack: str, gfx: str = "") -> Sizes:
    """Return the sizes of a stack; `gfx` is "all" for every gfx target at once."""
    return ALL_GFX_TARGETS if gfx == "all" else SIZES[stack]


def refuse_full_disk(folder: Path, needed_gb: float, purpose: str, fix: str) -> None:
    """Check the free space of a folder's disk.

    Raises:
        Card: If fewer than `needed_gb` gigabytes are free.
    """
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < needed_gb:
        raise Card(
            f"There isn't enough disk space for {purpose}.",
            f"{folder} has {free_gb:.1f} GB free; {purpose} needs about {needed_gb:.2g} GB.",
            fix,
        )
