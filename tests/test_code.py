"""The code itself: clean, typed, imports pointing down, scripts thin, light scripts light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("base", "data", "web", "cntk", "network", "classifier", "evaluation", "service", "widgets")
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
def test_scripts_are_thin(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 125


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "scripts").glob("*.py")))
def test_help_and_bad_parameters_load_nothing_heavy(script: str) -> None:
    """They answer within a second because none of these is imported."""
    heavy = ("torch", "timm", "mlflow", "sklearn", "matplotlib", "openvino", "onnx", "pyarrow", "pandas", "scipy")
    for argument in ("--help", "--rf_maxEpoch=1"):
        code = (
            "import runpy, sys\n"
            f"sys.argv = ['{script}.py', '{argument}']\n"
            "try: runpy.run_path(sys.argv.pop(0), run_name='__main__')\n"
            f"finally: print('HEAVY', [m for m in {heavy} if m in sys.modules])"
        ).replace("sys.argv.pop(0)", f"r'{ROOT / 'scripts' / (script + '.py')}'")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "HEAVY []" in done.stdout, done.stdout[-300:] + done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "libraries.classifier.bundle",
        "libraries.network.engine",
        "libraries.network.embedding_store",
        "libraries.evaluation.outputs",
        "libraries.evaluation.test_run",
        "libraries.classifier.explain",
        "libraries.service.app",
        "libraries.service.calling.folder",
        "libraries.widgets.images",
        "libraries.widgets.results",
    ],
)
def test_light_modules_need_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'timm', 'sklearn', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
