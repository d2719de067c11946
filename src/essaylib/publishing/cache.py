"""When a chapter must be run again.

A chapter is run again when one of these changed since its last run:

- its code cells, or the parameters and thread count it is run with;
- the syntax tree, docstrings left out, of any essaylib module that it reaches, directly or through
  other modules (imports inside functions count, imports for type checking only do not);
- the corpus, or any weights under `models/`, or the model folder that `model` names;
- the versions of torch, diffusers and transformers;
- where it reaches `essaylib.measures.tokens`: the vocabularies in `data/vocabularies`;
- where it reaches `essaylib.runs`: the declared runs that its code names, or all if it names none;
- where it reaches `essaylib.claims`: `book/claims.yml` and `book/claims.lock.json`.

Prose, docstrings, comments in modules, model cards and training logs change nothing. What is
imported by a name computed at run time is not seen.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import essaylib
from essaylib import paths
from essaylib.provenance import sha256
from essaylib.publishing.chapters import code_cells, parse

if TYPE_CHECKING:
    from nbformat import NotebookNode

PACKAGES = ("torch", "diffusers", "transformers")
_RUNNING_TAGS = {"parameters", "raises-exception", "skip-execution"}
_NOT_WEIGHTS = {".md", ".csv", ".png", ".svg", ".webp", ".jpg"}


def key(notebook: NotebookNode, parameters: dict[str, Any], threads: int) -> dict[str, str]:
    """Return everything that a run depends on, as {what: digest}; equal keys mean equal runs."""
    cells = [cell for _, cell in code_cells(notebook)]
    trees = [parse(cell.source) for cell in cells]
    modules = reached(trees)
    parts = {
        "code": _digest(
            [(c.source, sorted(_RUNNING_TAGS & {*c.metadata.get("tags", ())})) for c in cells]
        ),
        "parameters": _digest(sorted(parameters.items())),
        "threads": str(threads),
        "corpus": _files(paths.root() / "data" / "corpus"),
        "weights": _files(paths.models()),
    }
    model = Path(str(parameters.get("model", "")))
    # Folders come in whole; a name may be that of anything in the folder that one stands in.
    if model.is_absolute() and model.is_dir():
        parts["model"] = _files(model)
    if "essaylib.measures.tokens" in modules:
        parts["vocabularies"] = _files(paths.root() / "data" / "vocabularies")
    if "essaylib.runs" in modules:
        parts |= _runs(trees)
    if "essaylib.claims" in modules:
        for name in ("claims.yml", "claims.lock.json"):
            parts[name] = _files(paths.book() / name)
    parts |= {name: _digest(ast.dump(_tree(path))) for name, path in sorted(modules.items())}
    return parts | versions()


def versions() -> dict[str, str]:
    """Return the versions of the packages whose change changes a run."""
    return {f"{name} version": _version(name) for name in PACKAGES}


def changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Name what differs between two keys."""
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def reached(trees: Iterable[ast.AST]) -> dict[str, Path]:
    """Return the essaylib modules that this code imports, directly or not, as {name: file}."""
    found: dict[str, Path] = {}
    waiting = [name for tree in trees for name in _imports(tree, "")]
    while waiting:
        name = waiting.pop()
        path = _module_file(name)
        if path is None or name in found:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [package, *_imports(_tree(path), package)]
    return found


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield every essaylib name that may be a module, of all that the code imports."""
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, node.module or ""]).strip(".") if node.level else node.module
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            while name.split(".")[0] == "essaylib":
                yield name
                name = name.rpartition(".")[0]


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a syntax tree, leaving out what is imported for type checking only."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _module_file(name: str) -> Path | None:
    base = Path(essaylib.__file__).parent.joinpath(*name.split(".")[1:])
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _tree(path: Path) -> ast.Module:
    """Parse a module, docstrings left out."""
    return _parsed(path, *_stamp(path))


@cache
def _parsed(path: Path, size: int, mtime_ns: int) -> ast.Module:
    # Every statement that is only a string goes: docstrings of modules, classes and attributes.
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_string(statement)]
    return tree


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _runs(trees: Iterable[ast.AST]) -> dict[str, str]:
    """Digest the declared runs that the code names in a string; all of them if it names none."""
    if not paths.runs().is_dir():
        return {}
    declared = {path.name for path in paths.runs().iterdir() if path.is_dir()}
    strings = {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    used = declared & strings or declared
    return {f"run {name}": _files(paths.runs() / name) for name in sorted(used)}


def _files(path: Path) -> str:
    """Digest a file, or a folder's files with their names, documents and pictures left out."""
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return _digest(
        [
            (file.relative_to(path).as_posix(), sha256(file))
            for file in found
            if file.suffix not in _NOT_WEIGHTS
        ]
    )


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
