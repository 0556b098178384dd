"""The rooms of the package import one way, and ``find`` needs no PyTorch."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gel_lightning

ROOT = Path(gel_lightning.__file__).parent
ROOMS = {
    "core": set(),
    "data": {"core"},
    "models": {"core"},
    "features": {"core", "data", "models"},
    "training": {"core", "data", "models", "features"},
    "detector": {"core", "data"},
    "inference": {"core", "data", "models", "features", "training", "detector"},
    "comparison": {"core", "data", "models", "features", "training"},
    "cli": {"core", "data", "models", "features", "training", "detector", "inference", "comparison"},
}
"""What each room may import besides itself."""
HEAVY = {"torch", "torchvision", "lightning", "torchmetrics", "tensorboard", "jsonargparse", "timm", "pandas"}


def modules() -> dict[str, Path]:
    """The modules of the package by their names, without ``gel_lightning.``."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imports(path: Path, at_import: bool = False) -> Iterator[str]:
    """The names that a module imports.

    Args:
        path: of the module.
        at_import: leaves out what is imported in functions and for type checkers alone.
    """
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        skipped = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        )
        if not (at_import and skipped):
            pending += ast.iter_child_nodes(node)


def own(name: str) -> str | None:
    """The module of the package that an imported name is, or is in."""
    if name == "gel_lightning" or not name.startswith("gel_lightning."):
        return None
    name = name.removeprefix("gel_lightning.")
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] in ROOMS])
def test_imports_follow_the_arrows(name: str) -> None:
    room = name.partition(".")[0]
    others = {found.partition(".")[0] for imported in imports(MODULES[name]) if (found := own(imported))}
    assert others - {room} <= ROOMS[room], f"{name} imports {others - {room} - ROOMS[room]}"


def test_every_module_has_a_room() -> None:
    assert {name.partition(".")[0] for name in MODULES} == {*ROOMS, "", "__main__"}


@cache
def needed(name: str) -> frozenset[str]:
    """All modules that importing one of the package's imports, from anywhere: its own by name, others by package."""
    seen: set[str] = set()
    pending = [name]
    while pending:
        module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        if module in MODULES:
            parents = [module[:end] for end, letter in enumerate(module) if letter == "."]
            pending += [*parents, *(own(found) or found.partition(".")[0] for found in imports(MODULES[module], True))]
    return frozenset(seen)


@pytest.mark.parametrize("name", ["inference.find", "cli.find", "inference.exported", "inference.sort"])
def test_find_imports_no_pytorch(name: str) -> None:
    assert "core" in needed(name)
    assert not needed(name) & HEAVY


def test_the_walk_finds_what_is_imported() -> None:
    assert needed("training.classifier") & HEAVY == {"torch", "lightning", "torchvision", "torchmetrics"}
