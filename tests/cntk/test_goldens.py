"""Every golden of tests/cntk/networks, as real CNTK 2.7 saved and computed it (see make_goldens.py)."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from libraries.base.errors import NetworkError
from libraries.cntk.convert import convert
from libraries.network.engine import load_openvino
from tests.cntk.goldens import MANIFEST, arrays, unpacked

COMPUTED = sorted(name for name, entry in MANIFEST.items() if "refused" not in entry)
TRAINING = {"ce", "errs", "top2Errs", "loss"}  # outputs of the root that are measures for training: left out

TOLERANCE = 1e-5  # of the largest value
HALF_TOLERANCE = 1e-3  # half_dense, which CNTK itself computed in 16 bits
SMALL = 60  # nodes; the reference evaluator is slow

Feeds = dict[str, NDArray[Any]]


def reference(model: Any, feeds: Feeds) -> list[NDArray[Any]]:
    return list(ReferenceEvaluator(model).run(None, feeds))


def onnx_runtime(model: Any, feeds: Feeds) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def openvino(model: Any, feeds: Feeds) -> list[NDArray[Any]]:
    core = load_openvino().Core()
    network = core.read_model(model.SerializeToString(), b"")
    results = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feeds)
    return [results[i] for i in range(len(model.graph.output))]


def runtimes(model: Any) -> list[Any]:
    """What can run a model: float64 is for the reference alone."""
    if any(value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE for value in model.graph.input):
        return [reference]
    return [onnx_runtime, openvino] + [reference] * (len(model.graph.node) < SMALL)


def check(model: Any, inputs: Feeds, expected: Feeds, tolerance: float) -> None:
    """All runtimes give the expected outputs, by name, at batch 1 and 2."""
    taken = {value.name for value in model.graph.input}
    for batch in (1, 2):
        feeds = {name: np.ascontiguousarray(values[:batch]) for name, values in inputs.items() if name in taken}
        for run in runtimes(model):
            for output, found in zip(model.graph.output, run(model, feeds), strict=True):
                values = expected[output.name][:batch]
                assert found.shape == values.shape, (output.name, run.__name__)
                difference, largest = np.abs(found - values).max(), np.abs(values).max()
                assert difference <= tolerance * largest, (output.name, run.__name__, batch, difference / largest)


@pytest.mark.parametrize("name", COMPUTED)
def test_golden_computes_what_cntk_computed(name: str, tmp_path: Path) -> None:
    entry, known = MANIFEST[name], arrays(name)
    inputs = {}
    for given in entry["inputs"]:
        values = known[given["key"]]
        inputs[given["name"] or given["uid"]] = values.astype(np.float32) if values.dtype == np.float16 else values
    tolerance = HALF_TOLERANCE if name == "half_dense" else TOLERANCE
    path = unpacked(f"{name}.model", tmp_path)
    size = (17, 17) if name == "free_size" else None
    model = convert(path, image_size=size)
    outputs = {o["name"] or o["uid"].rpartition("_Output_")[0]: known[o["key"]] for o in entry["outputs"]}
    assert [value.name for value in model.graph.output] == [key for key in outputs if key not in TRAINING]
    check(model, inputs, outputs, tolerance)
    nodes = [node for node in entry["nodes"] if node not in TRAINING]
    if nodes:
        inner = convert(path, outputs=nodes, image_size=size)
        check(inner, inputs, {node: known[node] for node in nodes}, tolerance)


@pytest.mark.parametrize("name", sorted(set(MANIFEST) - set(COMPUTED)))
def test_what_no_image_classifier_has_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = unpacked(f"{name}.model", tmp_path)
    with pytest.raises(NetworkError) as raised:
        convert(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    named = {"batch_reduced": "defaultBatchAxis", "pad_symmetric": "mode 2", "recurrence": "recurrent"}
    named |= {"native_function": "NativeUserTimesOp", "user_function": "golden_cases.Doubled"}
    named |= {"sequence_ends": "ReconcileDynamicAxis", "sequence_reduced": "UnpackSequence"}
    named |= {"cosine": "losses or errors", "from_onnx": "ToBatch", "batch_unpacked": "UnpackBatch"}
    assert named.get(name, MANIFEST[name]["refused"].split(", ")[-1]) in message


def test_layout_for_large_files_is_the_same_network(tmp_path: Path) -> None:
    model = convert(unpacked("resnet_basic_base.split.model", tmp_path))
    known = arrays("resnet_basic_base")
    check(model, {"features": known["in"]}, {"z": known["z"]}, TOLERANCE)


def test_file_of_the_first_version_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"version 1 \(BrainScript\)"):
        convert(unpacked("resnet_basic_base.v1.dnn", tmp_path))


@pytest.mark.parametrize("name", ["resnet_basic_base", "resnet_18", "legacy"])
def test_convolutions_take_images_of_another_size(name: str, tmp_path: Path) -> None:
    known = arrays("resized")
    images, expected = known[f"{name}.in"].astype(np.float32), known[f"{name}.map"]
    path = unpacked(f"{name}.model", tmp_path)
    model = convert(path, outputs=["z.x.x.r"], image_size=images.shape[2:])
    check(model, {"features": images}, {"z.x.x.r": expected}, TOLERANCE)
    whole = convert(path, image_size=images.shape[2:])
    pooled = [node for node in whole.graph.node if node.op_type == "GlobalAveragePool"]
    assert len(pooled) == 1  # over the whole of the larger map, where the file has a window of the smaller one's size


def test_dense_network_says_that_it_takes_one_size_only(tmp_path: Path) -> None:
    path = unpacked("alexnet.model", tmp_path)
    with pytest.raises(NetworkError, match=r"fc6.*|Times.*weights .* for samples"):
        convert(path, image_size=(99, 99))


def test_input_without_a_size_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="does not give the size of x"):
        convert(unpacked("free_size.model", tmp_path))


def test_node_of_no_name_is_answered_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"no node is called 'pool'; there are .*poolingLayer"):
        convert(unpacked("cntk_fixed.model", tmp_path), outputs=["pool"])


def test_numbers_can_be_computed_in_another_type(tmp_path: Path) -> None:
    known = arrays("float64_conv")
    model = convert(unpacked("float64_conv.model", tmp_path), dtype="float32")
    check(model, {"features": known["in"].astype(np.float32)}, {"c": known["c"]}, TOLERANCE)
