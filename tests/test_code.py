"""The code itself: clean, typed, imports pointing down, scripts thin, light scripts light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    "base",
    "data",
    "web",
    "cntk",
    "network",
    "classifier",
    "review",
    "evaluation",
    "service",
    "history",
    "widgets",
)
MODULES = sorted((ROOT / "libraries").rglob("*.py"))


@pytest.mark.parametrize("tool", ["ruff check", "ruff format --check", "mypy"])
def test_tool_is_content(tool: str) -> None:
    done = subprocess.run([sys.executable, "-m", *tool.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path: Path) -> set[str]:
    """The modules of this project that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("libraries", "PARAMETERS")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_down(path: Path) -> None:
    names = imported(path)
    assert not any(name.startswith("PARAMETERS") for name in names), "libraries take plain arguments"
    floor = path.relative_to(ROOT / "libraries").parts[0]
    if floor in FLOORS:
        above = FLOORS[FLOORS.index(floor) + 1 :]
        assert not [n for n in names if n.split(".")[1:2] and n.split(".")[1] in above]


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda p: p.name)
def test_functions_of_scripts_are_short(path: Path) -> None:
    """Logic lies in libraries/, where it can be imported and tested."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, node.name


HEAVY = ("torch", "timm", "mlflow", "sklearn", "matplotlib", "openvino", "onnx", "pyarrow", "pandas", "scipy")
EXITS = f"""
import runpy, sys
for path in sys.argv[1:]:
    for argument in ("--help", "--rf_maxEpoch=1"):
        sys.argv = [path, argument]
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as exit:
            print("EXIT", argument, exit.code, [name for name in {HEAVY} if name in sys.modules])
"""


def test_help_and_bad_parameters_load_nothing_heavy() -> None:
    """They answer within a second because none of these is imported."""
    scripts = [str(path) for path in sorted((ROOT / "scripts").glob("*.py"))]
    done = subprocess.run([sys.executable, "-c", EXITS, *scripts], capture_output=True, text=True, check=False)
    exits = [line for line in done.stdout.splitlines() if line.startswith("EXIT")]
    assert exits == ["EXIT --help 0 []", "EXIT --rf_maxEpoch=1 2 []"] * len(scripts), done.stdout + done.stderr


LIGHT = (
    "libraries.classifier.bundle",
    "libraries.network.engine",
    "libraries.network.embedding_store",
    "libraries.evaluation.outputs",
    "libraries.evaluation.testing",
    "libraries.classifier.explain",
    "libraries.service.app",
    "libraries.service.calling.folder",
    "libraries.widgets.images",
    "libraries.widgets.results",
)


def test_light_modules_need_no_torch() -> None:
    """One after the other, so that the first that needs it is named."""
    code = (
        "import importlib, sys\n"
        f"for name in {LIGHT}:\n"
        "    importlib.import_module(name)\n"
        "    print(name, [m for m in ('torch', 'timm', 'sklearn', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name} []" for name in LIGHT]
