"""The core knows neither how the book is published nor how the model was trained."""

import ast
from pathlib import Path

import pytest

import essaylib

HOME = Path(essaylib.__file__).parent
OUTER = {"publishing", "training"}
CORE = [
    path for path in HOME.rglob("*.py") if path.relative_to(HOME).parts[0] not in OUTER | {"cli.py"}
]


def imported(path):
    """Every module that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(HOME)))
def test_the_core_imports_only_the_core(path):
    outer = tuple(f"essaylib.{name}" for name in OUTER)
    assert not [name for name in imported(path) if name.startswith(outer)]
