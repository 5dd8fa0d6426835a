"""How far the build of an image is, read from the plain output of BuildKit or Podman."""

import re
from collections.abc import Callable

# Seconds that each stage of docker/Dockerfile takes on two cores with a fast network.
_SECONDS = {"base": 10, "installed": 40, "lock": 5, "torch": 20, "labs": 25, "export": 10}
_OTHER_SECONDS = 10
_TITLES = {
    "base": "Python and certificates, from the distribution",
    "installed": "Packages, each verified by its hash",
    "lock": "Packages: their layer",
    "torch": "torch",
    "labs": "Two models, converted to safetensors",
    "notebook": "JupyterLab",
    "export": "The image's layers",
}
_VERTEX = re.compile(r"#(\d+) \[(?:[^\]]* )?([\w-]+) +(\d+)/(\d+)\]")
_EXPORT = re.compile(r"#(\d+) exporting to image")
_END = re.compile(r"#(\d+) (?:DONE|CACHED)")
_PODMAN_STEP = re.compile(r"(?:\[(\d+)/(\d+)\] )?STEP (\d+)/(\d+)")


def image_meter() -> Callable[[str], float | str | None]:
    """Return a meter for the build of an image; it returns titles, too."""
    vertices: dict[str, tuple[str, float]] = {}  # by BuildKit's number: the stage, its share of it
    ended: set[str] = set()
    titles: set[str] = set()

    def read(line: str) -> float | str | None:
        if step := _PODMAN_STEP.match(line):
            stages_before = int(step[1] or 1) - 1
            part_of_stage = (int(step[3]) - 1) / int(step[4])
            return (stages_before + part_of_stage) / int(step[2] or 1)
        if end := _END.match(line):
            ended.add(end[1])
            return _finished(vertices, ended)
        if vertex := _VERTEX.match(line):
            stage = vertex[2].partition("-")[0]
            vertices[vertex[1]] = (stage, 1 / int(vertex[4]))
        elif export := _EXPORT.match(line):
            stage = "export"
            vertices[export[1]] = (stage, 1)
        else:
            return None
        title = _TITLES.get(stage, "")
        if title in titles or not title:
            return None
        titles.add(title)
        return title

    return read


def _finished(vertices: dict[str, tuple[str, float]], ended: set[str]) -> float:
    """Return the finished part of the build, by the usual duration of each stage."""
    stages = _SECONDS | {
        stage: _OTHER_SECONDS for stage, _ in vertices.values() if stage not in _SECONDS
    }
    done = sum(stages[stage] * share for n, (stage, share) in vertices.items() if n in ended)
    return min(done / sum(stages.values()), 1)
