"""The rules of the labs' imports: no circle, nothing climbs, and the kit knows no lab."""

import re
from pathlib import Path

from common.parts import imported_at_first_use
from tests.import_graph import ROOT, circles, graph, imports, modules

# From the bottom to the top: a module imports only what stands on its own level or below.
LEVELS = (
    r"labs\.cpus",
    r"labs\.kit\.sandbox(\..+)?",
    r"labs\.kit\.(records|compare|measure|home|asset_hashes|assets|model_check|atomic_folder)",
    r"labs\.kit\.model_files",
    r"labs\.kit\.report(\..+)?",
    r"labs\.kit\.run(\..+)?",
    r"labs\.kit\.training(\..+)?",
    r"labs\.kit\.chat(\..+)?",
    r"labs\.kit\.grader(\..+)?",
    r"labs\.kit",
    r"labs\.shared(\..+)?",
    r"labs\.llm\d\d[a-z]?_\w+(\..+)?",
    r"labs\.cli(\..+)?",
    r"labs|labs\.__main__",
)
LABS = sorted(path.name for path in (ROOT / "labs").glob("llm*/"))


def level(module: str) -> int:
    (found,) = [i for i, pattern in enumerate(LEVELS) if re.fullmatch(pattern, module)]
    return found


def files(pattern: str) -> list[Path]:
    found = sorted((ROOT / "labs").glob(pattern))
    assert found
    return found


def by_path(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_modules_import_each_other() -> None:
    assert circles(graph()) == []


def test_a_circle_is_found_where_there_is_one(tmp_path: Path) -> None:
    """A check of the check: a type-checking import back closes the circle."""
    folder = tmp_path / "labs"
    folder.mkdir()
    (folder / "a.py").write_text("def later():\n    from labs.b import g\n")
    (folder / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from labs.c import h\n"
    )
    (folder / "c.py").write_text("import labs.a\n")
    (folder / "d.py").write_text("import labs.a\n")
    assert circles(graph(tmp_path)) == [["labs.a", "labs.b", "labs.c"]]


def test_no_import_climbs() -> None:
    climbing = [
        f"{module} imports {other}"
        for module in modules()
        for other in graph()[module]
        if level(other) > level(module)
    ]
    assert climbing == []


def test_common_and_kit_know_no_lab() -> None:
    """They neither import one nor name its folder or its options."""
    names = re.compile("|".join([*LABS, r"--(corpus|dataset|merges|tune|bad-rows)\b"]))
    found = [
        f"{by_path(path)}: {names.search(text)}"
        for path in [*files("kit/**/*.py"), *files("../common/*.py")]
        if names.search(text := path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_a_lesson_never_imports_its_checks() -> None:
    found = [
        f"{by_path(path)} imports {one.module}"
        for path in files("llm*/*.py")
        for one in imports(path)
        if one.module.endswith(".checks")
    ]
    assert found == []


def test_nothing_looks_into_a_function_s_globals() -> None:
    found = [by_path(path) for path in files("**/*.py") if "__globals__" in path.read_text("utf-8")]
    assert found == []


def exports(lab: str) -> set[str]:
    """The names that a lab's __init__.py imports at their first use."""
    return set(imported_at_first_use(f"labs.{lab}"))


def test_a_lab_imports_only_what_earlier_labs_export() -> None:
    found = []
    for path in files("llm*/*.py"):
        own = path.parent.name
        for one in imports(path):
            lab = one.module.split(".")[1]
            if lab not in LABS or lab == own:
                continue
            if one.module != f"labs.{lab}":
                found.append(f"{by_path(path)}: {one.module} is a part of another lab")
            elif lab > own:
                found.append(f"{by_path(path)}: {lab} comes later")
            elif missing := set(one.names) - exports(lab):
                found.append(f"{by_path(path)}: {lab} doesn't export {sorted(missing)}")
    assert found == []


def test_a_lab_exports_nothing_that_no_later_lab_imports() -> None:
    unused = {}
    for lab in LABS:
        later = [path for path in files("llm*/*.py") if path.parent.name > lab]
        used = {
            name
            for path in later
            for one in imports(path)
            if one.module == f"labs.{lab}"
            for name in one.names
        }
        if exports(lab) != used:
            unused[lab] = sorted(exports(lab) ^ used)
    assert unused == {}
