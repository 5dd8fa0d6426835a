"""The imports of the labs as a graph, read by `ast`: run-time, deferred and type-checking alike."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Import:
    """One imported module, and the names that are imported from it."""

    module: str
    names: tuple[str, ...] = ()


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return the name of a module: labs.kit.run.lab for labs/kit/run/lab.py."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return every module below labs/ by name."""
    return {module_name(path, root): path for path in sorted((root / "labs").rglob("*.py"))}


@cache
def imports(path: Path, root: Path = ROOT) -> list[Import]:
    """Return what a file imports of the labs' modules.

    `from labs.kit import assets` is an import of labs.kit.assets, for that is a module.
    """
    known = modules(root)
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [Import(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [alias.name for alias in node.names]
            submodules = [name for name in names if f"{node.module}.{name}" in known]
            found += [Import(f"{node.module}.{name}") for name in submodules]
            rest = tuple(name for name in names if name not in submodules)
            if rest:
                found.append(Import(node.module, rest))
    return [one for one in found if one.module in known]


@cache
def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Return the modules that each module of the labs imports."""
    known = modules(root)
    return {
        name: {one.module for one in imports(path, root)} - {name} for name, path in known.items()
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = len(index)
        low[node] = index[node]
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            cut = stack.index(node)
            group = stack[cut:]
            del stack[cut:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return found
