"""Walls: the host side needs no torch, the labs need no host side, no pickle is opened."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# torch, the packages that import it, and those that only labs need.
HEAVY = {
    "accelerate",
    "datasets",
    "jinja2",
    "matplotlib",
    "numpy",
    "peft",
    "safetensors",
    "scipy",
    "sklearn",
    "tokenizers",
    "torch",
    "transformers",
}
HOST = {"docker", "invoke", "launcher", "tasks"}


def python_files(*names: str) -> list[Path]:
    """Return Python files of the clone, below folders or by name."""
    found = []
    for name in names:
        path = ROOT / name
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert found
    return found


def imported(path: Path) -> set[str]:
    """Return the first names of everything that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func
            name = getattr(function, "attr", getattr(function, "id", ""))
            if name in ("import_module", "__import__"):
                names.add(str(node.args[0].value).split(".")[0])
    return names


def crossings(wall: set[str], *names: str) -> list[str]:
    """Return the files below these names that import a package behind a wall, with it."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in python_files(*names)
        for name in sorted(imported(path) & wall)
    ]


def test_the_host_side_imports_neither_torch_nor_a_lab() -> None:
    heavy = HEAVY - {"jinja2"}  # the launcher writes manifests with it
    assert crossings(heavy | {"labs"}, "tasks.py", "common", "launcher") == []


def test_common_imports_nothing_of_ours() -> None:
    assert crossings({"docker", "hub", "launcher", "tasks"}, "common") == []


def test_the_hub_imports_no_torch_and_no_lab() -> None:
    assert crossings(HEAVY | {"invoke", "labs", "tasks"}, "hub") == []


def test_nothing_else_imports_the_hub() -> None:
    assert crossings({"hub"}, "common", "launcher", "labs") == []


def test_the_labs_import_nothing_of_the_host_side() -> None:
    assert crossings(HOST, "labs") == []


def test_a_crossing_is_found_where_there_is_one() -> None:
    """A check of the check: the labs do import torch."""
    assert any(found.endswith("imports torch") for found in crossings({"torch"}, "labs"))


def run(code: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_module_of_the_host_side_runs_without_torch() -> None:
    """Import them all in a Python that refuses every heavy package."""
    paths = [path.relative_to(ROOT) for path in python_files("common", "launcher")]
    modules = [".".join(path.with_suffix("").parts) for path in paths]
    code = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {HEAVY!r}:
            raise ImportError('the host side imported ' + name)
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, '')
for name in ['tasks', *{modules!r}]:
    importlib.import_module(name)
import docker
assert hasattr(docker, 'from_env'), 'the folder docker/ hides the SDK'
"""
    run(code)


def test_the_labs_command_line_needs_no_torch_until_a_lab_runs() -> None:
    heavy = HEAVY | {"docker", "invoke"}
    code = f"""
import os, sys, tempfile
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {heavy!r}:
            raise ImportError('the command line imported ' + name)
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, os.getcwd())
from common import workbook
from labs.cli.main import main
assert main(['--list']) == 0
assert main(['LLM06', '--list']) == 0
from launcher.run import lab_command
assert lab_command.plan_run('LLM06', {{'only': 'two_layers_learn_recall'}}, []).labs == ('LLM06',)
assert len(lab_command.plan_run('all+', {{}}, []).labs) == 22
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    assert main(['learn', 'LLM06']) == 0
    assert workbook.checkable('LLM06').name == 'LLM06'
    assert main(['progress']) == 0
"""
    assert "LLM06" in run(code)


def test_parsing_the_verbs_imports_nothing_heavy() -> None:
    heavy = HEAVY | {"docker", "rich", "launcher"}
    loaded = run("import sys; sys.path.insert(0, ''); import tasks; print(*sys.modules)")
    assert not {name.split(".")[0] for name in loaded.split()} & heavy


def test_the_folder_docker_is_not_a_package() -> None:
    assert not (ROOT / "docker" / "__init__.py").exists()


def tracked() -> list[Path]:
    """Return the files that git tracks, and new files that it doesn't ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# Cut in two, so that this file doesn't contain the words.
HOSTS = [
    "py|pi.org",
    "python|hosted.org",
    "deb.|debian.org",
    "archive.|ubuntu.com",
    "registry.|npmjs.org",
    "anaconda|.org",
    "docker|.io/library",
]
PLACES = [*(f"/wo|rk/{name}" for name in ("main", "wt", "shared", "labs-home", "brief"))]
PLACES += ["/opt/|wheels", "/tmp/|w/", ".py|env"]


@pytest.mark.parametrize("words", [HOSTS, PLACES], ids=["registries", "places on this machine"])
def test_no_tracked_file_names(words: list[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in tracked()
        for word in (cut.replace("|", "") for cut in words)
        if word.encode() in path.read_bytes()
    ]
    assert found == []


def calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
# LLM09 shows what opening a pickle can do, with one that it makes itself.
TAUGHT = ROOT / "labs" / "llm09_custom_architectures" / "careless.py"
OURS = ("labs", "common", "hub", "launcher", "docker", "tasks.py")


def dangers(call: ast.Call, taught: bool) -> bool:
    """Say whether a call may open a pickle or run a model's own code."""
    keywords = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    function = ast.unparse(call.func)
    careless = keywords.get("weights_only") is not True and not taught
    return (
        "trust_remote_code" in keywords
        or function == "torch.hub.load"
        or (function == "torch.load" and careless)
        or keywords.get("allow_pickle", False) is not False
    )


def test_no_pickle_is_opened_and_no_model_code_is_run() -> None:
    found = crossings(PICKLES, *OURS)
    found += [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in python_files(*OURS)
        for call in calls(path)
        if dangers(call, taught=path == TAUGHT)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "dangerous"),
    [
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=True)", False),
        ("torch.hub.load('a')", True),
        ("from_pretrained('a', trust_remote_code=False)", True),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path, allow_pickle=False)", False),
    ],
)
def test_a_dangerous_call_is_found(code: str, dangerous: bool) -> None:
    (call,) = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    assert dangers(call, taught=False) is dangerous
