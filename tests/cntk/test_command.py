"""python -m libraries.cntk, as a user calls it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from libraries.cntk import convert
from libraries.cntk.__main__ import main
from libraries.cntk.wire import parse
from tests.cntk.goldens import arrays, golden, unpacked
from tests.cntk.wire_writer import encode
from tests.conftest import ROOT


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "libraries.cntk", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


def test_converts_a_file_unchanged(tmp_path: Path) -> None:
    path = unpacked("cntk_fixed.model", tmp_path)
    done = run(path, tmp_path / "fixed.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Written: {tmp_path / 'fixed.onnx'} (inputs: input; outputs: prediction)\n"
    known = arrays("cntk_fixed")
    session = onnxruntime.InferenceSession(tmp_path / "fixed.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": known["in"]})[0], known["prediction"], rtol=1e-4)


def test_needs_neither_pytorch_nor_cntk() -> None:
    code = "import sys, libraries.cntk.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert {"torch", "timm", "cntk", "openvino"}.isdisjoint(done.stdout.split())


def test_describes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(unpacked("cntk_fixed.model", tmp_path)), "--describe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cntk_fixed.model: 11,030 numbers in 51 parameters and constants, 32 operations"
    assert lines[1:3] == ["Input   input [3, 48, 48]", "Output  prediction [5]"]
    assert [line.split("  ")[0] for line in lines[4:5]] == ["Node"]
    named = {cells[0]: cells[1:] for cells in (line.split() for line in lines[5:])}
    assert named["poolingLayer"] == ["Pooling", "z.x.x.r", "[16,", "1,", "1]"]
    assert named["Minus7723"] == ["Minus", "input", "[3,", "48,", "48]", "Constant7722", "=", "114"]
    assert len(lines) == 5 + 32


def test_describes_what_cannot_be_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(unpacked("top_k.model", tmp_path)), "--describe"]) == 0
    text = capsys.readouterr().out
    assert "It cannot be converted: z (TopK): the operation TopK is not read" in text
    assert "\nz     TopK" in text


def test_names_of_any_kind_stay_on_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = parse(memoryview(golden("gap.model")))
    for entry in contents["primitive_functions"]:
        entry["name"] = "two\nlines\x1b[31m" + "n" * 9_000
    (tmp_path / "gap.model").write_bytes(encode(contents))
    assert main([str(tmp_path / "gap.model"), "--describe"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 7 and all(line.isprintable() and len(line) <= 1000 for line in lines)


def test_other_nodes_and_sizes(tmp_path: Path) -> None:
    path = unpacked("resnet_18.model", tmp_path)
    assert main([str(path), str(tmp_path / "map.onnx"), "--output", "z.x.x.r", "--size", "128x96"]) == 0
    model = onnx.load(tmp_path / "map.onnx")
    shapes = [
        [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [[0, 3, 128, 96], [0, 16, 4, 3]]
    assert model.graph.output[0].name == "z.x.x.r"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "name the file to write, or --describe"),
        (["out.onnx", "--size", "big"], 2, "'big' is not a size: give height and width in pixels, like 224x224"),
        (["out.onnx", "--output", "nothing"], 1, "no node is called 'nothing'; there are conv1.r, poolingLayer"),
        (["/proc/none/out.onnx"], 1, "/proc/none/out.onnx"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    path = unpacked("cntk_fixed.model", tmp_path)
    done = run(path, *arguments)
    assert done.returncode == status
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_missing_file_is_reported_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path / "gone.model", "--describe")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"libraries.cntk: {tmp_path / 'gone.model'} cannot be read: No such file or directory\n"


def test_weights_beyond_the_limit_of_a_message_go_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "LARGEST_MESSAGE", 1000)
    known = arrays("cntk_fixed")
    path = tmp_path / "fixed.onnx"
    convert.save(convert.convert(unpacked("cntk_fixed.model", tmp_path)), path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cntk_fixed.model", "fixed.onnx", "fixed.onnx.data"]
    assert path.stat().st_size < (tmp_path / "fixed.onnx.data").stat().st_size
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": known["in"]})[0], known["prediction"], rtol=1e-4)
