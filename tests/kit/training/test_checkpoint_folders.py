"""The code that a checkpoint depends on: the lab, and the labs that it imports."""

import json
import subprocess
import sys
from pathlib import Path

from common.syllabus import LABS, find
from labs.kit.training.checkpoint_folders import imported_modules
from tests.conftest import REPO, Clone
from tests.kit.training.trainings import OPTIONS, TRAINS, Training, first_step

import pytest

# A package of a lab imports a part at its first use.
IMPORTED = """
import importlib, json, sys
from common.parts import imported_at_first_use
importlib.import_module(sys.argv[1])
known = 0
while known != len(sys.modules):
    known = len(sys.modules)
    for name in list(sys.modules):
        if name.startswith("labs.llm") and name.count(".") == 1:
            for part in imported_at_first_use(name):
                getattr(sys.modules[name], part)
teaching = [m for n, m in sys.modules.items() if n.startswith(("labs.llm", "labs.shared"))]
print(json.dumps([module.__file__ for module in teaching]))
"""


def imported_by_python(module: str) -> set[Path]:
    """Import a module in a new process; return the files of the labs' modules that it imports."""
    command = [sys.executable, "-c", IMPORTED, module]
    ended = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True)
    return {Path(file) for file in json.loads(ended.stdout)}


@pytest.mark.parametrize("name", ["LLM05b", "LLM08", "LLM10"])
def test_the_imports_read_from_the_source_are_those_of_python(name: str) -> None:
    (lesson,) = find(name)
    own_package = lesson.path.parent / "__init__.py"  # Python imports it in any case
    own = {lesson.path, own_package}
    assert imported_modules(lesson) - own == imported_by_python(lesson.module) - own


def test_llm08_depends_on_its_own_modules_and_not_on_llm04() -> None:
    (lesson,) = find("LLM08")
    folders = {path.relative_to(LABS).parts[0] for path in imported_modules(lesson)}
    assert "llm08_training" in folders
    assert "llm04_tokenization" not in folders


EARLIER = """# %% [markdown]
# # {name} · An earlier lab
# Has one part.

from labs.kit import Lab

lab = Lab("{name}")


def rate():
    return 3e-3
"""


@pytest.fixture
def training(clone: Clone) -> Training:
    """A training in LLM90 that imports LLM80 through LLM81; LLM82 is beside it."""
    for name in ("LLM80", "LLM81", "LLM82"):
        folder = clone.lab_folder(name)
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "lesson.py").write_text(EARLIER.format(name=name))
    package = "from labs.llm80_small.lesson import rate as rate\n"
    (clone.lab_folder("LLM81") / "__init__.py").write_text(package)
    clone.kit_lab("from labs.llm81_small import rate\n" + TRAINS, options=OPTIONS)
    return Training(clone)


@pytest.mark.parametrize(
    ("changed", "starts_over"), [("LLM80", True), ("LLM81", False), ("LLM82", False)]
)
def test_only_a_change_in_an_imported_module_invalidates_checkpoints(
    training: Training, changed: str, starts_over: bool
) -> None:
    training.kill_at(8, 0)
    path = training.clone.lab_folder(changed) / "lesson.py"
    training.clone.change(str(path.relative_to(training.clone.path)), "3e-3", "2e-3")
    ended = training.run()
    assert ended.code == 0, ended
    assert (first_step(ended.out) == 0) is starts_over
    assert ("the text of labs that it imports has changed" in ended.out) is starts_over
