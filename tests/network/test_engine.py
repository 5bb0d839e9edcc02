"""The CPU engine and the threads under it: numbers, order, bounds, and every way a stream can end."""

import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

from libraries.base.errors import ImageError, NetworkError
from libraries.network.engine import AHEAD_PER_CORE, Engine, supported

SIZE, WIDTH, CLASSES = 32, 24, 5
GENERATOR = np.random.default_rng(0)
KERNEL = GENERATOR.normal(0, 0.2, (WIDTH, 3, 3, 3)).astype(np.float32)
HEAD = GENERATOR.normal(0, 1, (WIDTH, CLASSES)).astype(np.float32)
IMAGES = GENERATOR.integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)


def write_onnx(path: Path, *, shape: tuple[object, ...] = ("N", SIZE, SIZE, 3), kind: int = TensorProto.UINT8) -> Path:
    """A small network as the exporter writes them: uint8 images in, convolution, ReLU, mean → embedding, scores out."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["float", "scale"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["nchw", "kernel"], ["conv"], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["conv"], ["relu"]),
            helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
            helper.make_node("Flatten", ["pool"], ["embedding"]),
            helper.make_node("MatMul", ["embedding", "head"], ["scores"]),
        ],
        "small",
        [helper.make_tensor_value_info("images", kind, shape)],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ("N", WIDTH)),
            helper.make_tensor_value_info("relu", TensorProto.FLOAT, ("N", WIDTH, SIZE - 2, SIZE - 2)),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("N", CLASSES)),
        ],
        [
            numpy_helper.from_array(np.float32(255), "scale"),
            numpy_helper.from_array(KERNEL, "kernel"),
            numpy_helper.from_array(HEAD, "head"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def feature_map(images: np.ndarray) -> np.ndarray:
    """What comes before the mean in the small network, in NumPy, float64: [N, SIZE - 2, SIZE - 2, WIDTH]."""
    windows = sliding_window_view(images / 255, (3, 3), axis=(1, 2))  # [N, H, W, C, 3, 3]
    features = np.einsum("nhwcij,dcij->nhwd", windows, KERNEL.astype(np.float64), optimize=True)
    return np.maximum(features, 0)


def reference(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The small network in NumPy, float64: (embedding [N, WIDTH], scores [N, CLASSES])."""
    embedding = feature_map(images).mean(axis=(1, 2))
    return embedding, embedding @ HEAD.astype(np.float64)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("network") / "model.onnx")


@pytest.fixture(scope="module")
def engine(network: Path) -> Engine:
    return Engine(network, cores=2)


@pytest.fixture(autouse=True)
def no_thread_survives() -> Iterator[None]:
    """Every test also checks that whatever way the stream ended, its threads have."""
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("ordered_map")]


def image(index: int) -> np.ndarray:
    return IMAGES[index % len(IMAGES)]


def test_equals_the_reference_in_float32(engine: Engine) -> None:
    embedding, scores = reference(IMAGES)
    outputs = engine.run(IMAGES)
    assert engine.precision == "f32"
    assert engine.output_shapes == {"embedding": (WIDTH,), "scores": (CLASSES,)}
    assert {values.dtype for values in outputs.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(outputs["embedding"], embedding, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs["scores"], scores, rtol=1e-5, atol=1e-5)


def test_bf16_is_near_and_says_what_it_is(network: Path) -> None:
    engine = Engine(network, precision="bf16", cores=1)
    embedding, _ = reference(IMAGES)
    error = np.abs(engine.run(IMAGES)["embedding"] - embedding).max() / np.abs(embedding).max()
    assert error < 0.02
    # f32 on processors without bf16
    assert engine.precision == supported("bf16") == ("bf16" if error > 1e-5 else "f32")


def test_an_output_that_is_not_a_row_is_computed_only_on_demand(engine: Engine, network: Path) -> None:
    assert engine.left_out == {"relu"}
    other = Engine(network, outputs=("relu",), cores=1)
    assert other.left_out == {"embedding", "scores"}
    assert other.output_shapes == {"relu": (WIDTH, SIZE - 2, SIZE - 2)}
    expected = feature_map(IMAGES[:2]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(other.run(IMAGES[:2])["relu"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other.infer(IMAGES[1])["relu"], expected[1], rtol=1e-5, atol=1e-5)


def test_outputs_that_the_network_lacks_are_named(network: Path) -> None:
    with pytest.raises(NetworkError, match="has the outputs embedding, relu, scores, but not evidence"):
        Engine(network, outputs=("scores", "evidence"))


def test_outputs_keep_their_names_where_nothing_is_between_them(tmp_path: Path) -> None:
    """OpenVINO leaves out what adds zero or multiplies by one."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ("N", SIZE, SIZE, 3))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", 3)) for name in ("mean", "same", "double")]
    constants = {"axes": np.array([1, 2]), "one": np.float32(1), "zero": np.float32(0), "two": np.float32(2)}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "one"], ["between"]),
        helper.make_node("Add", ["between", "zero"], ["same"]),
        helper.make_node("Mul", ["same", "two"], ["double"]),
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", [images], outputs, initializers)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "model.onnx")
    found = Engine(tmp_path / "model.onnx", cores=1).infer(IMAGES[0])
    mean = IMAGES[0].mean((0, 1))
    for name, expected in (("mean", mean), ("same", mean), ("double", 2 * mean)):
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)


def test_one_image_at_a_time_from_many_threads(engine: Engine) -> None:
    expected = engine.run(IMAGES)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: engine.infer(image(i)), range(100)))
    for i, outputs in enumerate(answers):
        for name, values in outputs.items():
            np.testing.assert_array_equal(values, expected[name][i % 7])


def test_no_images_are_no_rows(engine: Engine) -> None:
    outputs = engine.run(IMAGES[:0])
    assert outputs["embedding"].shape == (0, WIDTH)
    assert outputs["scores"].shape == (0, CLASSES)
    assert list(engine.stream([], image)) == []


def test_an_image_gives_the_same_bits_in_any_company(engine: Engine) -> None:
    together = engine.run(IMAGES)["embedding"]
    for index, (_, outputs) in enumerate(engine.stream(reversed(range(7)), image)):
        assert not isinstance(outputs, ImageError)
        np.testing.assert_array_equal(outputs["embedding"], together[6 - index])
    strided = np.repeat(IMAGES, 2, axis=2)[:, :, ::2]  # the same pixels, not contiguous
    np.testing.assert_array_equal(engine.run(strided)["embedding"], together)


def test_results_own_their_memory(engine: Engine) -> None:
    results = [outputs["embedding"] for _, outputs in engine.stream(range(100), image) if isinstance(outputs, dict)]
    expected = engine.run(IMAGES)["embedding"]
    np.testing.assert_array_equal(results, [expected[i % 7] for i in range(100)])


def test_a_bad_image_gives_its_error_in_its_place(engine: Engine) -> None:
    def load(index: int) -> np.ndarray:
        if index % 3 == 0:
            raise ImageError("not a whole image", f"{index}.jpg")
        return image(index)

    results = list(engine.stream(range(20), load))
    assert [item for item, _ in results] == list(range(20))
    assert [item for item, outputs in results if isinstance(outputs, ImageError)] == list(range(0, 20, 3))
    assert str(results[3][1]) == "3.jpg: not a whole image"


def test_any_other_exception_of_load_is_raised_in_its_place(engine: Engine) -> None:
    def load(index: int) -> np.ndarray:
        if index == 5:
            raise ZeroDivisionError("a bug in load")
        return image(index)

    seen = []
    with pytest.raises(ZeroDivisionError, match="a bug in load"):
        for item, _ in engine.stream(itertools.count(), load):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]


def test_an_exception_of_the_items_is_raised(engine: Engine) -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        raise OSError("the list is cut off")

    with pytest.raises(OSError, match="cut off"):
        list(engine.stream(items(), image))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((SIZE, SIZE, 4), np.uint8),
        np.zeros((SIZE + 1, SIZE, 3), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.float32),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused(engine: Engine, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"cat\.jpg: the network takes uint8 \[32, 32, 3\], got"):
        list(engine.stream(["cat.jpg"], lambda _: wrong))
    with pytest.raises(ValueError, match=r"takes uint8 \[N, 32, 32, 3\], got"):
        engine.run(wrong[None])
    with pytest.raises(ValueError, match=r"takes uint8 \[32, 32, 3\], got"):
        engine.infer(wrong)


def test_a_consumer_may_stop_early(engine: Engine) -> None:
    loads = itertools.count()

    def load(index: int) -> np.ndarray:
        next(loads)
        return image(index)

    stream = engine.stream(itertools.count(), load)
    assert [item for item, _ in itertools.islice(stream, 3)] == [0, 1, 2]
    stream.close()
    assert next(loads) <= 3 + 2 * AHEAD_PER_CORE


def test_ctrl_c_ends_an_endless_stream(engine: Engine) -> None:
    def load(index: int) -> np.ndarray:
        if index == 10:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return image(index)

    def consume() -> None:
        for _ in engine.stream(itertools.count(), load):
            pass

    with pytest.raises(KeyboardInterrupt):
        consume()


def test_streams_may_run_at_once(engine: Engine) -> None:
    pairs = zip(engine.stream(range(50), image), engine.stream(range(50), image), strict=True)
    for (_, one), (_, other) in pairs:
        assert isinstance(one, dict)
        assert isinstance(other, dict)
        np.testing.assert_array_equal(one["embedding"], other["embedding"])


def test_a_network_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"nothing\.onnx does not exist"):
        Engine(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(NetworkError, match=r"text\.onnx is not a readable ONNX file"):
        Engine(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(NetworkError, match=r"empty\.onnx"):
        Engine(tmp_path / "empty.onnx")


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (("N", SIZE, SIZE, 3), TensorProto.FLOAT),
        (("N", 3, SIZE, SIZE), TensorProto.UINT8),
        (("N", SIZE), TensorProto.UINT8),
    ],
)
def test_a_network_with_another_input_is_refused(tmp_path: Path, shape: tuple[object, ...], kind: int) -> None:
    image = helper.make_tensor_value_info("images", kind, shape)
    output = helper.make_tensor_value_info("embedding", kind, shape)
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["embedding"])], "other", [image], [output])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "other.onnx"
    )
    with pytest.raises(NetworkError, match=r"other\.onnx has the inputs .*one is needed, uint8 \[N, S, S, 3\]"):
        Engine(tmp_path / "other.onnx")


def test_neither_pytorch_nor_timm_nor_scikit_learn_is_imported(network: Path) -> None:
    code = (
        "import sys; from libraries.network.engine import Engine; Engine(sys.argv[1]);"
        "print([m for m in ('torch', 'timm', 'sklearn', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(network)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
