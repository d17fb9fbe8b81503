"""Data flows one way: command, then task and data, then engine, then record."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LEVELS = {
    "train.faults": 0,
    "train.config": 1,
    "train.record": 2,
    "train.engine": 3,
    "train.data": 4,
    "train.tasks": 5,
    "train.command": 6,
    "train": 7,  # the commands that train a task, and what is made of their runs
    "train.comparison": 8,
    "train.compare": 9,
}


def room(module: str) -> str:
    """The room that a module is in: the longest of their names that it begins with."""
    parts = module.split(".")
    names = (".".join(parts[:i]) for i in (2, 1))
    return next(name for name in names if name in LEVELS)


def imported(path: pathlib.Path) -> set[str]:
    """The modules of `train` that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "train":
            found |= {f"train.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return {name for name in found if name.split(".")[0] == "train"}


FILES = [path.relative_to(ROOT) for path in sorted((ROOT / "train").rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_import_reaches_up(path):
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    ours = LEVELS[room(module)]
    upward = {name for name in imported(ROOT / path) if LEVELS[room(name)] > ours}
    assert not upward


def test_an_import_is_found_wherever_it_stands(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from train import fit\n    import train.tasks.cnn\n")
    assert imported(path) == {"train.fit", "train.tasks.cnn"}
