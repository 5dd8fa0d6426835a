"""`invoke bundle FOLDER`: everything that a machine without a network needs to run the labs."""

import os
import platform
import re
import shutil
import subprocess
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.cards import WRONG_USAGE, Card, print_status
from common.processes import capture
from launcher import ROOT, settings
from launcher.bundle import folder as bundle_folder
from launcher.bundle import images as bundle_images
from launcher.bundle import licences as bundle_licences
from launcher.bundle import wheels as bundle_wheels
from launcher.bundle.folder import CLONE, README, SETUP
from launcher.bundle.images import BundledImage
from launcher.engine.client import Engine
from launcher.environment.stack import STACKS
from launcher.image.build import refuse_full_disk, sizes_of
from launcher.run.file_owner import file_owner, give_to
from launcher.run.placement import Placement, placement_to_build
from launcher.run.runtime import choose_runtime

# Settings that decide what an image is built from: with others, it would look out of date.
BUILD_SETTINGS = ("LABS_BASE_IMAGE", "LABS_TORCH", "LABS_GFX")


@dataclass(frozen=True)
class Plan:
    """What a bundle will contain."""

    folder: Path
    commit: str
    engine: Engine | None
    placements: list[Placement]

    @property
    def stacks(self) -> tuple[str, ...]:
        """Return the names of the stacks."""
        return tuple(placement.stack for placement in self.placements)

    @property
    def pythons(self) -> tuple[str, ...]:
        """Return the versions of Python that the bundle's packages are for."""
        return bundle_wheels.PYTHONS if self.engine else (bundle_wheels.this_python(),)


def make(folder: str, stack: str, runtime: str) -> None:
    """Write a bundle.

    Args:
        folder: The folder to write it into.
        stack: The stacks, with commas between them, or "auto".
        runtime: "docker" for images, "venv" for wheels, "auto" for what a lab would run in.

    Raises:
        Card: If the clone has uncommitted changes, or something can't be had or written.
    """
    if not folder:
        why = "A bundle is a folder, for example on a USB stick."
        raise Card("Which folder?", why, "invoke bundle /media/stick/llm-labs", WRONG_USAGE)
    commit = _commit()
    chosen = choose_runtime(runtime)
    placements = [placement_to_build(chosen, name) for name in _stacks(stack)]
    plan = Plan(Path(folder).expanduser().resolve(), commit, chosen.engine, placements)
    print_status(f"The bundle is for {chosen.description}, because {chosen.reason}.")
    images = _images(plan)
    with_environment = () if plan.engine else plan.stacks
    wheel_folders = bundle_wheels.folders_of(with_environment)
    bundle_folder.begin(plan.folder, commit, wheel_folders)
    _check_disk_space(plan, images)
    contents = _fill(plan, images)
    size = bundle_folder.finish(plan.folder, contents)
    with suppress(PermissionError):  # the files of a FAT file system can't change their owner
        give_to(file_owner(), (plan.folder, *plan.folder.rglob("*")))
    print_status(
        f"{plan.folder} is complete: {size / 1e9:.2f} GB. On the other machine: "
        f"python3 {plan.folder.name}/{SETUP}"
    )


def _stacks(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if names != ("auto",) and not set(names) <= set(STACKS):
        why = f"--stack is auto, or a list of {', '.join(STACKS)} with commas."
        raise Card(f"--stack can't be {text!r}.", why, "invoke bundle --help", WRONG_USAGE)
    return names


def _commit() -> str:
    """Return the clone's commit.

    Raises:
        Card: If it isn't a git clone, or files differ from the commit.
    """
    head = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise Card(
            "The clone has changes that aren't committed.",
            f"A bundle contains the commit {head[:8]}, without: {names}{more}.",
            "git commit --all, or to set them aside: git stash",
        )
    new = _git("ls-files", "--others", "--exclude-standard").splitlines()
    if new:
        print_status(f"Not in the bundle, because git doesn't track them: {', '.join(new[:5])}")
    if (ROOT / "compose.override.yaml").exists():
        print_status("Not in the bundle: compose.override.yaml, which is for this machine.")
    return head


def _git(*words: str) -> str:
    """Return the output of a git command in the clone.

    Raises:
        Card: If git is missing or refuses.
    """
    try:
        result = capture(["git", "-C", str(ROOT), *words], stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        why = "A bundle contains a commit of this clone."
        raise Card("The git command is missing.", why, "sudo apt-get install git") from error
    if result.returncode:
        raise Card(
            f"{ROOT} can't be bundled.",
            (result.stderr.strip().splitlines() or ["git failed."])[-1],
            "git status; a bundle is made in a clone, or copied from an earlier bundle",
        )
    return result.stdout.rstrip("\n")


def _images(plan: Plan) -> list[BundledImage]:
    if plan.engine is None:
        return []
    return [
        image
        for placement in plan.placements
        for image in bundle_images.choose_images(plan.engine, placement)
    ]


def _check_disk_space(plan: Plan, images: list[BundledImage]) -> None:
    needed = 0.2  # the packages of invoke
    if plan.engine is None:
        needed += sum(sizes_of(one.stack, one.gfx).environment_gb for one in plan.placements) / 2
    # The images of a stack share their layers, so the largest has nearly all.
    largest: dict[str, int] = {}
    for image in images:
        stack = re.sub("-(notebook|hub)$", "", image.name)
        largest[stack] = max(image.size, largest.get(stack, 0))
    needed += sum(largest.values()) / 1e9 * bundle_images.COMPRESSED
    fix = f"df -h {plan.folder}; or choose another folder"
    refuse_full_disk(plan.folder, needed, "the bundle", fix)


def _fill(plan: Plan, images: list[BundledImage]) -> dict[str, Any]:
    """Write everything but the manifest; return what the manifest says about it."""
    folder = plan.folder
    print_status("The clone")
    try:
        _git("archive", "--format=tar.gz", f"--output={folder / CLONE}", "HEAD")
        shutil.copyfile(ROOT / "launcher" / "bundle" / "offline_setup.py", folder / SETUP)
        (folder / README).write_text(_readme(plan), encoding="utf-8")
        bundle_wheels.download_host(folder, plan.pythons)
        unpacked = _fill_runtime(plan, images)
        bundle_licences.write(folder, plan.engine, images)
    except OSError as error:
        raise bundle_folder.cannot_write(folder, error) from error
    return {
        "version": _version(),
        "commit": plan.commit,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "runtime": "docker" if plan.engine else "venv",
        "stacks": plan.stacks,
        "machine": platform.machine(),
        "pythons": plan.pythons,
        "settings": _settings(),
        "images": bundle_images.as_json(images),
        "unpacked_bytes": unpacked,
    }


def _fill_runtime(plan: Plan, images: list[BundledImage]) -> int:
    """Save the images, or download the wheels; return the bytes of the unpacked images."""
    if plan.engine is None:
        bundle_wheels.download_environment(plan.folder, plan.placements)
        return 0
    print_status(f"Images: {', '.join(image.name for image in images)}")
    return bundle_images.save(plan.folder, images)


def _version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def _settings() -> dict[str, str]:
    found = {name: settings.find(name) for name in BUILD_SETTINGS}
    values = {name: setting.value for name, setting in found.items() if setting}
    if gfx := os.environ.get("LABS_GFX"):
        values["LABS_GFX"] = gfx
    return values


def _readme(plan: Plan) -> str:
    needs = "Docker with its compose plugin, running" if plan.engine else "2 GB for packages"
    return f"""llm-labs {_version()}, for machines without a network

Needed on the machine: Linux on x86-64, Python {" or ".join(plan.pythons)} with its venv module,
and {needs}.
In this folder:

    python3 setup FOLDER

FOLDER is the new clone; by default it is llm-labs in your home. setup checks every file, creates
the clone, loads the images or packages, and runs one lab. It can be run again at any time.
THIRD-PARTY.md lists the software of others in this bundle, with licences.
"""
