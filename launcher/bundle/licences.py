"""THIRD-PARTY.md of a bundle: the software of others in it, with versions and licences."""

import runpy
from collections.abc import Callable, Iterable
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any
from zipfile import Path as ZipPath

from launcher import DOCKER_FOLDER
from launcher.bundle.folder import LICENCES, WHEELS
from launcher.bundle.images import BundledImage
from launcher.engine import orphans
from launcher.engine.client import Engine
from launcher.engine.known_errors import explain

INTRODUCTION = """# Software of others in this bundle

The texts of the licences are in the images and wheels themselves: in an image in
`/opt/labs/venv/lib/python*/site-packages/*.dist-info/` and `/usr/share/doc/*/copyright`, in a wheel
in its folder `*.dist-info`. llm-labs itself is MIT.
"""
# Lists the software of the image that it runs in: that of JupyterLab is on top of the labs' list.
_LIST = "python /sbom.py /opt/labs && cat /opt/labs/LICENCES.md"


def write(folder: Path, engine: Engine | None, images: Iterable[BundledImage]) -> None:
    """Write the list of a bundle.

    Raises:
        Card: If the engine can't run an image.
    """
    parts = [INTRODUCTION]
    for image in images:
        assert engine is not None
        parts.append(f"## Image {image.name}\n\n{_table_of(_list_image(engine, image))}\n")
    for wheels in sorted((folder / WHEELS).iterdir()):
        parts.append(f"## Wheels in {WHEELS}/{wheels.name}\n\n{_list_wheels(wheels)}\n")
    (folder / LICENCES).write_text("\n".join(parts), encoding="utf-8")


def _list_image(engine: Engine, image: BundledImage) -> str:
    from docker.errors import APIError, ContainerError
    from docker.types import Mount

    script = Mount("/sbom.py", str(DOCKER_FOLDER / "sbom.py"), type="bind", read_only=True)
    try:
        output: bytes = engine.client.containers.run(
            image.saved_as,
            [_LIST],
            entrypoint=["sh", "-c"],
            user="0:0",
            network_mode="none",
            mounts=[script],
            labels={orphans.LABEL: "the list of licences"},
            remove=True,
        )
    except (APIError, ContainerError) as error:
        what = f"The software in {image.name} can't be listed."
        raise explain(str(error), what, f"docker run --rm {image.saved_as} --list") from error
    return output.decode()


def _table_of(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def _list_wheels(folder: Path) -> str:
    licence: Callable[[Any], str] = runpy.run_path(str(DOCKER_FOLDER / "sbom.py"))["licence"]
    rows = ["| name | version | licence |", "|---|---|---|"]
    for wheel in sorted(folder.glob("*.whl"), key=lambda path: path.name.lower()):
        folders = [path for path in ZipPath(wheel).iterdir() if path.name.endswith(".dist-info")]
        package = PathDistribution(folders[0])
        text = licence(package.metadata) or "see its files"
        rows.append(f"| {package.name} | {package.version} | {text} |")
    return "\n".join(dict.fromkeys(rows))
