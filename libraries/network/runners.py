"""Runs the network in a folder: opens it on the available device, and embeds a data set, keeping the embeddings."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Union

import numpy as np

from libraries.base.arrays import Pixels
from libraries.base.cluster import NONE, Cluster, Part, by_parts, connected, given
from libraries.base.content_store import Row, write_rows
from libraries.base.errors import ImageError, ParameterError, StaleInput
from libraries.base.layout import Layout
from libraries.base.pool import WorkerLost
from libraries.base.processes import Work
from libraries.base.storage import Artefact
from libraries.data.dataset import Example, check_unchanged, load_example, read_example
from libraries.data.images import ResizeRule, decode, fit
from libraries.data.remembered import KnownFiles, Remembered
from libraries.network.devices import find_device
from libraries.network.engine import Engine, Precision, supported

if TYPE_CHECKING:
    from libraries.network.torch_engine import TorchEngine

View = Literal["whole", "inner"]

INNER_MARGIN = 0.05  # of the width and height, on each side


@dataclass(frozen=True)
class RunOptions:
    """How a network is run: where, in which precision, and how many images at once on a GPU.

    On a cluster, its GPUs do the work if it has any, else its processors.
    """

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Precision
    batch_size: int
    cluster: str = NONE

    def open(self, folder: Path) -> Union[Engine, "TorchEngine"]:
        """The network in a folder: with OpenVINO on a CPU; with PyTorch on a GPU if it has PyTorch weights.

        Raises:
            ParameterError: there is no such device.
            NetworkError, StorageError: the network cannot be read.
        """
        if self._on_cpu(folder):
            return Engine(folder / "model.onnx", precision=self.precision)
        return _on_device(folder, find_device(self.device), self.precision, self.batch_size)

    def precision_of(self, folder: Path) -> Precision:
        """The precision in which it is really run: not every processor has bf16, but nodes that lack it are refused."""
        return supported(self.precision) if self.cluster == NONE and self._on_cpu(folder) else self.precision

    def device_of(self, folder: Path) -> str:
        """Of a cluster's workers: see `Cluster`."""
        return self.device if _has_weights(folder) else "cpu"

    def _on_cpu(self, folder: Path) -> bool:
        return self.cluster != NONE or find_device(self.device) == "cpu" or not _has_weights(folder)


def _has_weights(folder: Path) -> bool:
    """Whether PyTorch can run the network, too."""
    return (folder / "weights.safetensors").exists()


class Embeddings:
    """The outputs of a network for the images of a data set: known from earlier runs, or computed now and kept.

    A context manager; the network is opened when the first image is not known.

    Attributes:
        precision: in which they are computed.
    """

    def __init__(
        self,
        layout: Layout,
        network: Artefact,
        rule: ResizeRule,
        options: RunOptions,
        *,
        view: View = "whole",
        images: Path | None = None,
        files: KnownFiles | None = None,
        is_settled: bool = True,
    ) -> None:
        """
        Args:
            rule: how images are fitted, with the white level of the data set.
            view: the part of a picture that the network sees: see `load_inner`.
            images: the folder of the images; by default that of the data set.
            files: what is known of the files there; by default of those of the data set.
            is_settled: whether a file that has changed or gone is a StaleInput, not an ImageError.
        """
        remembered = Remembered.of(layout)
        self.precision = options.precision_of(network.folder)
        recipe = sorted(rule.to_json().items()), self.precision, view
        self._known = remembered.open("embeddings", network.identity(), *recipe)
        self._files, self._images = files or remembered.files, images or layout.images
        self._is_settled = is_settled
        self._load = loader(view, folder=self._images, rule=rule)
        self._engine = cache(lambda: options.open(network.folder))
        self._cluster, self._shared = options.cluster, layout.store
        self._device = options.device_of(network.folder)
        self._settings = {
            "images": str(self._images),
            "network": str(network.folder),
            "rule": rule.to_json(),
            "precision": self.precision,
            "batch_size": options.batch_size,
            "view": view,
        }
        self._lost: dict[str, str] = {}  # by SHA-256 of an image, why it has no outputs

    def __enter__(self) -> Self:
        self._known.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._known.__exit__(*error)

    @property
    def store(self) -> Path:
        """The folder into which others may put outputs of this network, by `content_store.write_rows`.

        Raises:
            ParameterError: nothing is kept.
        """
        return self._known.for_others()

    def stored(self, examples: Iterable[Example]) -> int:
        """Of how many examples the outputs are known."""
        return sum(example.sha256 in self._known for example in examples)

    def compute(
        self,
        examples: Iterable[Example],
        *,
        progress: Callable[[int], object] = lambda count: None,
        told: Callable[[str], object] = lambda size: None,
    ) -> int:
        """Let the cluster, if there is one, compute what is not known; returns of how many images that was.

        Args:
            progress: called with how many were just done.
            told: see `Cluster`.

        Raises:
            ParameterError, PipelineError: there is no such cluster, or a node cannot do it.
            StaleInput: a file has changed since the data set was prepared.
        """
        if self._cluster == NONE:
            return 0
        missing = list({e.sha256: e for e in examples if e.sha256 not in self._known}.values())
        if not missing:
            return 0  # Ray takes long to start
        work = embedding_work({**self._settings, "store": str(self.store)})
        with (
            connected(self._cluster, folder=self._shared),
            Cluster(work, told=told, device=self._device) as pool,
        ):
            for part, result in by_parts(pool, missing):
                if isinstance(result, WorkerLost):
                    self._lost |= {example.sha256: str(result) for example in part.items}
                progress(len(part.items))
        self._known.look_again()
        return len(missing)

    def of(self, examples: Iterable[Example]) -> Generator[tuple[Example, Row | ImageError]]:
        """Yield, in order, each example with its outputs, or with its ImageError.

        Raises:
            StaleInput: a file has changed since the data set was prepared.
        """
        return self._known.through(
            self._unchanged(examples),
            lambda unknown: self._engine().stream(unknown, self._loaded),
            key=lambda example: example.sha256,
        )

    def together(self, examples: Sequence[Example], *, progress: Callable[[], object] = lambda: None) -> dict[str, Any]:
        """The outputs of all examples, by name, each float32 [N, size].

        Args:
            progress: called after every image.

        Raises:
            ImageError: one cannot be read, though it could be when the data set was prepared.
            StaleInput: a file has changed since then.
        """
        rows: list[Row] = []
        for _, outputs in self.of(examples):
            if isinstance(outputs, ImageError):
                raise outputs
            rows.append(outputs)
            progress()
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _loaded(self, example: Example) -> Pixels:
        if example.sha256 in self._lost:
            raise ImageError(self._lost[example.sha256], example.path)
        try:
            return self._load(example)
        except StaleInput as error:
            if self._is_settled:
                raise
            raise ImageError("has changed, or gone, in the meantime", example.path) from error

    def _unchanged(self, examples: Iterable[Example]) -> Iterator[Example]:
        for example in examples:
            if self._is_settled:
                check_unchanged(example, folder=self._images, files=self._files)
            yield example


def embedding_work(settings: dict[str, Any]) -> Work[Part[Example], None]:
    """The work of a cluster: parts of the examples → their rows in the store.

    Args:
        settings: of `open_embedder`.
    """

    def encode(part: Part[Example]) -> list[dict[str, Any]]:
        return [asdict(example) for example in part.items]

    return Work(open_embedder, settings, encode, lambda nothing: None)


def open_embedder(
    *, images: str, network: str, rule: dict[str, Any], precision: Precision, batch_size: int, view: View, store: str
) -> "_Embedder":
    """A worker of a cluster, on one core, or on the GPU that it is given.

    Args:
        images: folder of the data set.
        network: folder of the network.
        rule: how images are fitted, see `ResizeRule.to_json`.
        batch_size: images at once on a GPU.
        store: folder of the embeddings.

    Raises:
        ParameterError: its processor cannot compute in this precision.
        NetworkError, StorageError: the network cannot be read.
    """
    engine = _engine_here(Path(network), precision, batch_size)
    if engine.precision != precision:
        raise ParameterError(f"a node of the cluster cannot compute in {precision}: set run_precision = f32")
    return _Embedder(engine, loader(view, folder=Path(images), rule=ResizeRule.from_json(rule)), Path(store))


def _engine_here(network: Path, precision: Precision, batch_size: int) -> Union[Engine, "TorchEngine"]:
    """The network, on what this job of a cluster is given."""
    here = given()
    if here.device == "cpu":
        return Engine(network / "model.onnx", precision=precision, cores=here.cores)
    return _on_device(network, here.device, precision, batch_size, workers=here.cores)


def _on_device(
    network: Path, device: str, precision: Precision, batch_size: int, *, workers: int | None = None
) -> "TorchEngine":
    """The network with PyTorch; see `TorchEngine`."""
    from libraries.network.export import load_network
    from libraries.network.torch_engine import TorchEngine

    return TorchEngine(
        load_network(network), device=device, precision=precision, batch_size=batch_size, workers=workers
    )


class _Embedder:
    """Examples → None; their rows are written into the store, those that cannot be read have none."""

    def __init__(self, engine: Union[Engine, "TorchEngine"], load: Callable[[Example], Pixels], store: Path) -> None:
        self._engine, self._load, self._store = engine, load, store

    def __call__(self, job: Sequence[dict[str, Any]], /) -> None:
        results = self._engine.stream([Example(**described) for described in job], self._load)
        rows = {e.sha256: outputs for e, outputs in results if not isinstance(outputs, ImageError)}
        if rows:
            write_rows(self._store, rows)

    def close(self) -> None:
        """Nothing is open."""


def loader(view: View, *, folder: Path, rule: ResizeRule) -> Callable[[Example], Pixels]:
    """The function that reads the picture of an example as a network sees it."""
    return partial(load_inner if view == "inner" else load_example, folder=folder, rule=rule)


def load_inner(example: Example, *, folder: Path, rule: ResizeRule) -> Pixels:
    """An example's picture without a twentieth on each side, uint8 [S, S, 3]; see `load_example`."""
    picture = decode(
        read_example(example, folder=folder),
        path=folder / example.path,
        at_least=2 * rule.size,
        white_level=rule.white_level,
        max_pixels=example.max_pixels,
    )
    y, x = (round(INNER_MARGIN * length) for length in picture.shape[:2])
    return fit(np.ascontiguousarray(picture[y : len(picture) - y, x : picture.shape[1] - x]), rule)
