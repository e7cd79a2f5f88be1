"""What the package promises of itself: quick to import, every public name there, annotated and documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpu_infer
from gpu_infer import errors

PACKAGE = Path(gpu_infer.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "templates" not in path.parts)
FLOORS = [
    {"cli", "testing", "demo", "emulator"},
    {"migration"},
    {"deployment", "arguments", "load", "smoke", "teardown"},
    {"service"},
    {"targets"},
    {"bundle", "preflight", "diagnose", "ledger", "plans"},
    {"client"},
    {"catalog", "spec", "durations", "rollouts", "sources", "samples", "progress", "notebook"},
    {"_version", "blotting", "errors"},
]


def test_every_public_name_is_there() -> None:
    for name in gpu_infer.__all__:
        assert getattr(gpu_infer, name) is not None
    assert sorted(gpu_infer.__all__) == gpu_infer.__dir__()
    with pytest.raises(AttributeError, match="no attribute 'nix'"):
        _ = gpu_infer.nix  # type: ignore[attr-defined]


def test_the_function_stays_a_function_whatever_is_imported() -> None:
    for module in ("deployment", "plans", "service", "targets.local"):
        importlib.import_module(f"gpu_infer.{module}")
    assert callable(gpu_infer.deploy)
    assert callable(gpu_infer.plan)


def imported_modules(statement: str) -> set[str]:
    command = [sys.executable, "-X", "importtime", "-c", statement]
    report = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr
    return {line.rpartition("|")[2].strip() for line in report.splitlines()}


def test_the_import_loads_nothing_heavy() -> None:
    heavy = {
        "numpy",
        "requests",
        "azure",
        "azureml",
        "tensorflow",
        "torch",
        "onnxruntime",
        "rich",
        "aiohttp",
        "asyncio",
    }
    roots = {module.partition(".")[0] for module in imported_modules("import gpu_infer")}
    assert "gpu_infer" in roots
    assert roots & heavy == set()


def test_the_client_needs_no_framework_and_no_azure_package() -> None:
    heavy = {"azure", "azureml", "tensorflow", "torch", "onnxruntime", "flask", "aiohttp"}
    statement = "import gpu_infer; gpu_infer.ScoringClient('http://127.0.0.1:9/score')"
    roots = {module.partition(".")[0] for module in imported_modules(statement)}
    assert roots & heavy == set()


def test_the_error_tree_in_the_docstring_is_the_one_in_the_code() -> None:
    drawn = set(re.findall(r"── (\w+)", errors.__doc__ or ""))
    classes = {name for name in errors.__all__ if inspect.isclass(getattr(errors, name)) and name != "Finding"}
    assert drawn | {"GpuInferError"} == classes


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_small(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) < 400
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = node.end_lineno - body[0].lineno + 1 if body else 0
            assert length < 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_floors_below(path: Path) -> None:
    """``serving`` stands beside the house: it imports nothing of it, and only checks look into it."""
    home = path.relative_to(PACKAGE).with_suffix("").parts[0]
    own = next((level for level, rooms in enumerate(FLOORS) if home in rooms), None)
    for room in imported_rooms(path):
        if room == home:
            continue
        assert home != "serving", f"serving imports {room}"
        if own is None:
            continue
        if room == "serving":
            assert home in ("preflight", "bundle", "cli")
            continue
        level = next(level for level, rooms in enumerate(FLOORS) if room in rooms)
        assert level >= own, f"{home} imports {room}, which is above it"


def imported_rooms(path: Path) -> set[str]:
    """The first-level rooms of the package that a file imports, relative imports included."""
    rooms: set[str] = set()
    parents = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                inside = parents[: len(parents) - node.level + 1]
                full = ".".join([*inside, *([node.module] if node.module else [])])
                names = [full] if full else [alias.name for alias in node.names]
            elif node.module == "gpu_infer":
                names = [alias.name for alias in node.names]
            elif (node.module or "").startswith("gpu_infer."):
                names = [(node.module or "").removeprefix("gpu_infer.")]
            else:
                continue
            rooms |= {name.partition(".")[0] for name in names}
    return {room for room in rooms if (PACKAGE / room).exists() or (PACKAGE / f"{room}.py").exists()}


def test_the_serving_code_is_readable_by_python_3_9() -> None:
    for path in (PACKAGE / "serving").rglob("*.py"):
        ast.parse(path.read_text("utf-8"), feature_version=(3, 9))


def test_types_are_complete(tmp_path: Path) -> None:
    """pyright's own count over the public names: none without a type."""
    pyright = Path(sys.executable).with_name("pyright")
    if not pyright.exists():
        pytest.skip("pyright is not installed beside this interpreter")
    # pyright does not follow an editable install.
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [str(pyright), "--verifytypes", "gpu_infer", "--ignoreexternal", "--pythonpath", sys.executable]
    report = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=250, env=environment, cwd=tmp_path
    ).stdout
    assert "Type completeness score: 100%" in report, report[-3000:]
