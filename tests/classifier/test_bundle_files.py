"""Networks that take values from other files are told from those that do not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from libraries.classifier.bundle_files import has_external_data


def outside() -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    external_data_helper.set_external_data(tensor, "../../secret")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def without_location() -> TensorProto:
    tensor = outside()
    tensor.ClearField("data_location")
    return tensor


def model(where: str, tensor: TensorProto) -> bytes:
    inner = helper.make_graph([], "inner", [], [], [tensor])
    nodes = {
        "attribute": [helper.make_node("Constant", [], ["c"], value=tensor)],
        "list": [helper.make_node("X", [], ["c"], values=[tensor])],
        "branch": [helper.make_node("If", ["x"], ["c"], then_branch=inner)],
    }.get(where, [])
    graph = helper.make_graph(nodes, "g", [], [], [tensor] if where == "initializer" else [])
    made = helper.make_model(graph)
    if where == "function":
        node = helper.make_node("Constant", [], ["c"], value=tensor)
        made.functions.append(helper.make_function("d", "f", [], ["c"], [node], [helper.make_opsetid("", 18)]))
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("where", ["initializer", "attribute", "list", "branch", "function"])
def test_a_tensor_in_another_file_is_found(where: str) -> None:
    assert has_external_data(model(where, outside()))
    assert has_external_data(model(where, without_location()))
    assert not has_external_data(model(where, numpy_helper.from_array(np.zeros(300_000, np.float32), "w")))


def test_what_is_no_whole_network_is_refused(tmp_path: Path) -> None:
    whole = model("initializer", numpy_helper.from_array(np.arange(30, dtype=np.float32), "w"))
    for cut in range(1, len(whole)):
        try:
            assert not has_external_data(whole[:cut])
        except ValueError as error:
            assert "cut off" in str(error)
    for content in (b"\xff" * 20, b"GIF89a", b"\x3a\xff\xff\xff\xff\x0f", b"\x0b"):
        with pytest.raises(ValueError, match="cut off or damaged"):
            has_external_data(content)


def test_graphs_in_graphs_end() -> None:
    graph = b""
    for _ in range(200):  # a node with an attribute with a graph
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            size, length = len(graph), b""
            while size > 127:
                length, size = length + bytes([size & 127 | 128]), size >> 7
            graph = tag + length + bytes([size]) + graph
    with pytest.raises(ValueError, match="too deep"):
        has_external_data(b"\x3a" + bytes([len(graph) & 127 | 128, len(graph) >> 7]) + graph)


def test_onnx_and_this_module_agree_on_a_saved_file(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros((64, 64), np.float32), "w")
    made = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    onnx.save(made, tmp_path / "inside.onnx")
    onnx.save(made, tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert not has_external_data((tmp_path / "inside.onnx").read_bytes())
    assert has_external_data((tmp_path / "outside.onnx").read_bytes())
