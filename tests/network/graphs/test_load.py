"""Networks in .onnx and .model files, put to use: where they are cut, how images reach them, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from libraries.base.errors import NetworkError
from libraries.classifier.bundle_graph import head
from libraries.cntk.wire import parse
from libraries.network.graphs.graph_network import GraphNetwork, Preprocessing
from libraries.network.graphs.load import GraphOptions, load_graph_network
from tests.cntk.goldens import MANIFEST, arrays, golden, unpacked
from tests.cntk.wire_writer import encode
from tests.network.graphs.networks import CHANNELS, CLASSES, WEIGHTS, expected, write

SIZE = 33
IMAGES = np.random.default_rng(3).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
IMAGENET = Preprocessing()
TOLERANCE = 1e-5  # of the largest value: float32 against NumPy's float64, or against CNTK


def load(path: Path, *, size: int = SIZE, with_head: bool = False, **options: Any) -> GraphNetwork:
    return load_graph_network(path, size=size, options=GraphOptions(**options), with_head=with_head)


def near(found: Any, values: Any, tolerance: float = TOLERANCE) -> bool:
    return found.shape == values.shape and bool(np.abs(found - values).max() <= tolerance * np.abs(values).max())


@pytest.mark.parametrize("end", ["gemm", "matmul", "conv", "mean"])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_onnx_network_is_cut_before_its_last_layer(tmp_path: Path, end: str, opset: int) -> None:
    network = load(write(tmp_path / "net.onnx", end=end, opset=opset), with_head=True)
    wanted = expected(IMAGES, IMAGENET.mean, IMAGENET.std, "rgb")
    network.save(tmp_path / "model.onnx")
    assert (network.embedding_size, network.classes, network.architecture) == (CHANNELS, CLASSES, "net.onnx")
    found = network.run(IMAGES)
    assert near(found["embedding"], wanted["embedding"])
    assert near(found["scores"], wanted["scores"])  # those before any softmax
    weights, bias = head(network.model)  # the scores come out of the embedding alone
    assert near(weights, WEIGHTS["dense"])
    assert near(bias, WEIGHTS["bias"])
    model = onnx.load(tmp_path / "model.onnx")
    assert [output.name for output in model.graph.output] == ["embedding", "scores", "features"]
    assert network.mean == pytest.approx([level / 255 for level in IMAGENET.mean])


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("batch", "size"), [(None, None), (1, SIZE)])
def test_images_reach_the_network_as_it_wants_them(
    tmp_path: Path, layout: str, batch: int | None, size: int | None
) -> None:
    path = write(tmp_path / "net.onnx", layout=layout, batch=batch, size=size)
    network = load(path, order="bgr", mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))
    assert near(network.run(IMAGES)["embedding"], expected(IMAGES, (10, 20, 30), (2, 4, 8), "bgr")["embedding"])
    assert network.mean == pytest.approx((30 / 255, 20 / 255, 10 / 255))  # red first, as everywhere


def test_network_in_half_precision_gives_floats(tmp_path: Path) -> None:
    network = load(write(tmp_path / "net.onnx", kind=TensorProto.FLOAT16), with_head=True)
    wanted = expected(IMAGES, IMAGENET.mean, IMAGENET.std, "rgb")
    assert near(network.run(IMAGES)["scores"], wanted["scores"], tolerance=1e-2)


def test_classes_that_are_averaged_maps_are_cut_before_them(tmp_path: Path) -> None:
    path = write(tmp_path / "squeeze.onnx", end="maps")
    wanted = expected(IMAGES, IMAGENET.mean, IMAGENET.std, "rgb")
    assert near(load(path).run(IMAGES)["embedding"], wanted["embedding"])
    with pytest.raises(NetworkError, match=r"squeeze\.onnx does not end in a linear layer"):
        load(path, with_head=True)


def test_a_node_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", end="twice")
    wanted = expected(IMAGES, IMAGENET.mean, IMAGENET.std, "rgb")
    for node in ("features", "features_node"):  # the tensor's name or the node's; the mean over the positions of a map
        assert near(load(path, node=node).run(IMAGES)["embedding"], wanted["embedding"])
    with pytest.raises(NetworkError, match=r"no node is called 'feature' \(rf_embeddingNode\); there are .*features"):
        load(path, node="feature")


@pytest.mark.parametrize("end", ["relu", "twice"])
def test_where_the_cut_is_not_clear_it_asks(tmp_path: Path, end: str) -> None:
    with pytest.raises(NetworkError, match=r"net\.onnx: .*set rf_embeddingNode to one of.*scores_node"):
        load(write(tmp_path / "net.onnx", end=end))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 32}, r"works at 32 x 32 pixels only: set rf_inputResolution to that"),
        ({"batch": 8}, r"its batch size is fixed at 8: export it for 1 image"),
        ({"channels": 1}, r"image is \[0, 1, 0, 0\]: images of three channels"),
        ({"kind": TensorProto.INT32}, "not an ONNX network|images of three channels, as floats|cannot be run"),
        ({"inputs": 2}, r"its inputs are image, more1: one is needed"),
    ],
)
def test_networks_that_take_something_else_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        load(write(tmp_path / "net.onnx", **settings))


def test_damaged_and_missing_files_are_one_clear_error(tmp_path: Path) -> None:
    whole = write(tmp_path / "net.onnx").read_bytes()
    path = tmp_path / "damaged.onnx"
    for content in (b"", b"no network", whole[: len(whole) // 2], whole[:-3]):
        path.write_bytes(content)
        with pytest.raises(NetworkError, match=r"damaged\.onnx.*(not an ONNX network|one input)") as raised:
            load(path)
        assert "\n" not in str(raised.value)
    with pytest.raises(NetworkError, match=r"gone\.onnx cannot be read: No such file"):
        load(tmp_path / "gone.onnx")


def test_weights_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "net.onnx"))
    (tmp_path / "secret").write_bytes(bytes(4 * CHANNELS * CLASSES))
    (tmp_path / "inner").mkdir()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "dense")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "inner" / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NetworkError, match="damaged, or not an ONNX network"):
        load(tmp_path / "inner" / "net.onnx")


def model_and_values(name: str, folder: Path) -> tuple[Path, Any]:
    return unpacked(f"{name}.model", folder), arrays(name)


def as_images(values: Any) -> Any:
    """CNTK's images [N, 3, H, W], blue first, as the pipeline has them, uint8 [N, S, S, 3]."""
    images = np.rint(values).astype(np.uint8)
    return np.ascontiguousarray(images[:, ::-1].transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("name", "node"),
    [("transfer_frozen", "poolingLayer"), ("transfer_refined", "poolingLayer")],
)
def test_the_tutorials_network_gives_what_cntk_gave_of_the_same_images(tmp_path: Path, name: str, node: str) -> None:
    path, known = model_and_values(name, tmp_path)
    network = load(path, size=96, with_head=True)
    found = network.run(as_images(known["in"]))  # whole numbers from 0 to 255, which the network subtracts 114 from
    assert near(found["embedding"], known[node].reshape(2, -1))
    assert near(found["scores"], known["prediction"])
    assert network.mean == pytest.approx([114 / 255] * 3)


@pytest.mark.parametrize("name", ["resnet_18", "resnet_50"])
def test_a_network_without_normalisation_gets_the_tutorials(tmp_path: Path, name: str) -> None:
    path, known = model_and_values(name, tmp_path)
    network = load(path, size=96, with_head=True)
    plain = load(path, size=96, with_head=True, mean=(0.0, 0.0, 0.0))
    images = as_images(known["in"])
    assert near(plain.run(images)["embedding"], known["z.x"].reshape(2, -1))
    assert near(plain.run(images)["scores"], known["z"])
    shifted = load(path, size=96, mean=(104.0, 104.0, 104.0))  # 10 less is subtracted from 10 less
    assert near(network.run(images.clip(10))["embedding"], shifted.run(images.clip(10) - 10)["embedding"])


def test_the_map_is_averaged_over_its_positions_at_another_size(tmp_path: Path) -> None:
    path = unpacked("resnet_18.model", tmp_path)
    resized = arrays("resized")
    square = resized["resnet_18.in"][:, :, :96, :96].astype(np.float32)
    network = load(path, size=96, mean=(0.0, 0.0, 0.0))
    assert network.embedding_size == resized["resnet_18.map"].shape[1]
    larger = load(path, size=128, mean=(0.0, 0.0, 0.0))
    padded = np.zeros((2, 128, 128, 3), np.uint8)
    assert larger.run(padded)["embedding"].shape == network.run(as_images(square))["embedding"].shape


@pytest.mark.parametrize(("name", "layer"), [("alexnet", "fc7"), ("vgg", "fc7"), ("inception", "pool")])
def test_other_networks_of_the_time_are_cut_at_what_their_last_layer_takes(
    tmp_path: Path, name: str, layer: str
) -> None:
    path, known = model_and_values(name, tmp_path)
    size = MANIFEST[name]["inputs"][0]["shape"][1]
    network = load(path, size=size, mean=(0.0, 0.0, 0.0))
    found = network.run(as_images(known["in"]))["embedding"]
    key = next(key for key in (f"drop{layer[-1]}", layer) if key in known)  # a dropout behind it changes nothing
    assert near(found, known[key].reshape(2, -1))


def test_a_node_of_a_cntk_network_can_be_named(tmp_path: Path) -> None:
    path, known = model_and_values("resnet_18", tmp_path)
    found = load(path, size=96, node="z.x.x.r", mean=(0.0, 0.0, 0.0)).run(as_images(known["in"]))
    assert near(found["embedding"], known["z.x.x.r"].mean((2, 3)))
    with pytest.raises(NetworkError, match=r"no node is called 'pool' \(rf_embeddingNode\); there are .*z\.x\.x\.r"):
        load(path, size=96, node="pool")


def test_too_many_outputs_are_refused_at_once(tmp_path: Path) -> None:
    contents = parse(memoryview(golden("plus_chan.model")))
    plus = contents["primitive_functions"][0]
    copies = [plus | {"uid": f"Plus{i}"} for i in range(101)]
    together = {"op": 44, "uid": "All", "inputs": [f"Plus{i}_Output_0" for i in range(101)]}
    contents |= {"primitive_functions": [*copies, plus | together], "root": "All"}
    (tmp_path / "many.model").write_bytes(encode(contents))
    with pytest.raises(NetworkError, match=r"many\.model: it has 101 outputs, and it is not clear"):
        load(tmp_path / "many.model", size=32)


def test_dense_layers_say_which_size_they_were_made_for(tmp_path: Path) -> None:
    path = unpacked("alexnet.model", tmp_path)
    with pytest.raises(NetworkError, match=r"alexnet\.model: .*67 x 67 pixels: set rf_inputResolution to 67"):
        load(path, size=99)


def test_cntk_network_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    path = unpacked("dense.model", tmp_path)
    with pytest.raises(NetworkError, match=r"dense\.model: "):
        load(path, size=32)
