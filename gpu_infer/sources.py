"""Python files of the user's: which functions they define, and which files beside them they import."""

from __future__ import annotations

import ast
from pathlib import Path

__all__ = ["defined_functions", "local_imports", "parse"]


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        SyntaxError: with file and line; also for a file that is no text.
    """
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except ValueError as error:  # null bytes, undecodable text
        raise SyntaxError(f"{path} is not Python source: {error}") from error


def defined_functions(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef | None]:
    """The names that a module binds, also inside ``if`` and ``try``; the function where it is one, else ``None``.

    After ``from x import *`` anything may be bound: then ``"*"`` is among the names.
    """
    names: dict[str, ast.FunctionDef | ast.AsyncFunctionDef | None] = {}
    queue: list[ast.AST] = list(tree.body)
    while queue:
        node = queue.pop(0)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                names[node.name] = node
            case ast.ClassDef():
                names[node.name] = None
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {(alias.asname or alias.name).split(".")[0]: None for alias in aliases}
            case ast.Name(id=name, ctx=ast.Store()):
                names[name] = None
            case _:
                queue.extend(ast.iter_child_nodes(node))
    return names


def local_imports(path: Path) -> list[Path]:
    """The files and packages beside ``path`` that it imports, directly or through each other; without ``path`` itself.

    A file that a script imports by name has to travel with it, or the import fails in the container.
    """
    found: list[Path] = []
    queue = [path]
    while queue:
        for module in sorted(_imported_modules(parse(queue.pop()))):
            for candidate in (path.parent / f"{module}.py", path.parent / module):
                is_package = candidate.is_dir() and (candidate / "__init__.py").is_file()
                if candidate in found or candidate == path or not (candidate.is_file() or is_package):
                    continue
                found.append(candidate)
                queue.extend([candidate] if candidate.is_file() else sorted(candidate.rglob("*.py")))
    return found


def _imported_modules(tree: ast.Module) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.add(node.module.split(".")[0])
    return modules
