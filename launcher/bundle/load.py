"""The second half of a bundle's setup, in the new clone: load the images, and run one lab.

usage: python -m launcher.bundle.load BUNDLE
"""

import os
import sys
from pathlib import Path
from typing import Any

from common.cards import Card, print_status
from launcher import ROOT
from launcher.bundle import images as bundle_images
from launcher.bundle import wheels as bundle_wheels
from launcher.bundle.folder import WHEELS, read_manifest
from launcher.image.build import refuse_full_disk
from launcher.run import lab as run_lab
from launcher.run import lab_command
from launcher.run.placement import choose_placement
from launcher.run.runtime import choose_runtime
from launcher.task_exit import exit_code_of

LAB = "LLM06"


def load(bundle: Path) -> int:
    """Load the images or install the environments of a bundle, and run a lab.

    Returns:
        The exit code of the lab.

    Raises:
        Card: If this machine lacks what the bundle needs.
    """
    manifest = read_manifest(bundle)
    if not manifest:
        raise Card(f"{bundle} isn't a bundle.", "It has no manifest.json.", "python3 BUNDLE/setup")
    runtime: str = manifest["runtime"]
    if runtime == "docker":
        _load_images(bundle, manifest)
    else:
        _install(bundle, manifest["stacks"])
    stack = _stack_to_try(runtime, manifest["stacks"])
    command = lab_command.plan_run(LAB, {}, [])
    code = run_lab.run(command, stack, runtime, "", dry=False)
    if code == 0:
        print_status(
            f"llm-labs {manifest['version']} is ready in {ROOT}. To begin: cd {ROOT} && "
            ". .venv/bin/activate && invoke labs"
        )
    return code


def _load_images(bundle: Path, manifest: dict[str, Any]) -> None:
    engine = choose_runtime("docker").engine
    assert engine is not None
    images = bundle_images.from_json(manifest["images"])
    names = ", ".join(image.name for image in images)
    if bundle_images.are_loaded(engine, images):
        print_status(f"Already loaded: {names}")
        return
    root = Path(engine.root_dir)
    gigabytes = manifest["unpacked_bytes"] / 1e9
    if engine.root_dir and root.exists():
        fix = "docker system df, then for example: docker system prune"
        refuse_full_disk(root, 1.2 * gigabytes, "the images", fix)
    print_status(f"Loading {names}: {gigabytes:.1f} GB on disk")
    bundle_images.load(engine, bundle, images)


def _install(bundle: Path, stacks: list[str]) -> None:
    """Build the environments from the wheels of the bundle, without asking an index."""
    wheels = bundle / WHEELS
    for stack in stacks:
        os.environ["LABS_WHEELS"] = str(wheels / stack)
        os.environ["PIP_FIND_LINKS"] = str(wheels / bundle_wheels.COMMON)
        os.environ["PIP_NO_INDEX"] = "1"
        run_lab.build(stack, "venv", jupyterlab=True)


def _stack_to_try(runtime: str, stacks: list[str]) -> str:
    """Return the stack that this machine would choose, if the bundle has it; else its first."""
    try:
        best = choose_placement(choose_runtime(runtime), "auto", "").stack
    except Card as card:
        print_status(f"{card.what} {card.why}")
        best = ""
    return best if best in stacks else stacks[0]


def main() -> int:
    """Run the command line."""
    return exit_code_of(lambda _: load(Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
