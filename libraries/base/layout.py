"""Where everything lies under DATA_DIR, and what each artefact is made from."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from libraries.base.errors import StorageError
from libraries.base.file_system import expanded, explained, on_disk, read_regular
from libraries.base.settings import Settings
from libraries.base.storage import Artefact, read_json, sha256_once
from libraries.base.text import split_lines

NETWORK = ("rf_pretrainedModelFilename", "rf_inputResolution", "rf_resizeMode", "rf_views")
GRAPH = ("rf_embeddingNode", "rf_channelOrder", "rf_channelMeans", "rf_channelStds")  # of .model and .onnx files
REFINEMENT = (
    "randomSeed",
    "rf_dropoutRate",
    "rf_mbSize",
    "rf_maxEpochs",
    "rf_maxTrainImages",
    "rf_lrPerMb",
    "rf_momentumPerMb",
    "rf_l2RegWeight",
    "rf_boFreezeWeights",
    "rf_boBalanceTrainingSet",
    "rf_augmentation",
    "rf_validationFraction",
)

DUPLICATES = ("duplicates", "duplicates_maxDistance", "duplicates_minSimilarity")

MEGAPIXELS = 100  # an image may have, by default

ANNOTATIONS = "annotations.jsonl"  # beside the class folders: labels changed and images marked by hand
MAX_LOG_BYTES = 2**29  # of that file: some millions of changes

NETWORK_FORMAT = 2  # of what step 2 writes; 2 since model.onnx also has the feature map


class Layout:
    """The artefacts of one run, in the order they are made, each with the parameters that matter to its content.

    A parameter that changes how fast a result comes (device, batch size of inference) is not part of any recipe.
    """

    def __init__(self, parameters: Settings, *, with_annotations: bool = True) -> None:
        """
        Args:
            with_annotations: whether all is stale, too, once labels were changed by hand.
        """
        self._with_annotations = with_annotations
        self._values: dict[str, Any] = parameters.model_dump()
        self.classifier: str = self._values["classifier"]
        self.dataset: str = self._values["datasetName"]
        self.root: Path = self._values["rootDir"]
        self.images = self.root / on_disk(self.root, f"images/{self.dataset}")
        self.proc = self.root / on_disk(self.root, f"proc/{self.dataset}")

        self.max_pixels: int = self._values["maxMegapixels"] * 10**6
        self.thumbnails = self.proc / "thumbnails.sqlite"

    def _artefact(
        self,
        name: str,
        manifest: str,
        *,
        by: str,
        parameters: tuple[str, ...],
        inputs: tuple[Artefact, ...] = (),
        **constants: Any,
    ) -> Artefact:
        values = {key: self._values[key] for key in parameters} | constants
        return Artefact(name, self.proc / manifest, f"scripts/{by}.py", values, inputs)

    @property
    def is_refined(self) -> bool:
        """Whether the network is trained on the user's images."""
        return self.classifier != "svm"

    @cached_property
    def examples(self) -> Artefact:
        """examples.csv: the images, their labels and the split."""
        parameters = (
            *("datasetName", "ratioTrainTest", "imagesSplitBy", "randomSeed", "whiteLevel"),
            *self._of_duplicates(),
            *self._of_limit(),
        )
        state = _newest_state(self.images / ANNOTATIONS) if self._with_annotations else self._prepared_state()
        return self._artefact(
            "examples.csv",
            "examples.json",
            by="1_prepareData",
            parameters=parameters,
            annotations=state,
        )

    def _of_duplicates(self) -> tuple[str, ...]:
        """The parameters that matter to which images are taken for duplicates."""
        mattering = {"exact": DUPLICATES[:1], "near": DUPLICATES[:2], "scene": (*DUPLICATES, *self._of_network())}
        return mattering[self._values["duplicates"]]

    def _of_limit(self) -> tuple[str, ...]:
        """The limit on pixels, unless it is and was the usual one, which earlier versions did not write down."""
        is_usual = (
            self._values["maxMegapixels"] == MEGAPIXELS
            and self._made_with("examples.json").get("maxMegapixels") is None
        )
        return () if is_usual else ("maxMegapixels",)

    def _prepared_state(self) -> Any:
        """What stands for the annotations that script 1 has seen."""
        return self._made_with("examples.json").get("annotations")

    def _white_level(self) -> Any:
        """What script 1 has found to be white in images of more than 8 bits; None: all that 16 bits can hold."""
        return self._noted("examples.json").get("white_level")

    def _made_with(self, manifest: str) -> Mapping[str, Any]:
        """The parameters that an artefact was made with."""
        parameters = self._noted(manifest).get("parameters")
        return parameters if isinstance(parameters, dict) else {}

    def _noted(self, manifest: str) -> Mapping[str, Any]:
        """What an artefact's manifest says; nothing where there is none, or a damaged one, as its readers will tell."""
        try:
            noted = read_json(self.proc / manifest)
        except StorageError:
            return {}
        return noted if isinstance(noted, dict) else {}

    def _of_network(self) -> tuple[str, ...]:
        """The parameters that matter to the pretrained network."""
        is_graph = self._values["rf_pretrainedModelFilename"].endswith((".model", ".onnx"))
        return (*NETWORK, *GRAPH) if is_graph else NETWORK

    def _weights(self, name: str) -> str | None:
        """SHA-256 of the local file that the network is from; of one that is gone by now, what it was; else None."""
        source = self._values["rf_pretrainedModelFilename"]
        path = expanded(source.partition("@")[2] or source)
        if path.is_file():
            return sha256_once(path)
        noted: str | None = self._made_with(f"{name}/model.json").get("weights")
        return noted

    def _of_refinement(self) -> tuple[str, ...]:
        """The parameters that matter to how it is trained, or to its classes if it is taken as it is."""
        return REFINEMENT if self._values["rf_maxEpochs"] else ("rf_maxEpochs", "rf_labels")

    @cached_property
    def pretrained(self) -> Artefact:
        """dnn_fixed/: the pretrained network as it is, which needs no examples."""
        return self._artefact(
            "dnn_fixed",
            "dnn_fixed/model.json",
            by="2_refineDNN",
            parameters=self._of_network(),
            format=NETWORK_FORMAT,
            weights=self._weights("dnn_fixed"),
        )

    @cached_property
    def network(self) -> Artefact:
        """dnn_fixed/ (pretrained, as it is) or dnn_refined/ (trained on the user's images)."""
        if not self.is_refined:
            return self.pretrained
        return self._artefact(
            "dnn_refined",
            "dnn_refined/model.json",
            by="2_refineDNN",
            parameters=(*self._of_network(), *self._of_refinement()),
            inputs=(self.examples,),
            format=NETWORK_FORMAT,
            weights=self._weights("dnn_refined"),
            white_level=self._white_level(),
        )

    @cached_property
    def features(self) -> Artefact:
        """features_<classifier>/: the embedding of every image."""
        name = f"features_{self.classifier}"
        inputs = (self.examples, self.network)
        return self._artefact(
            name,
            f"{name}/manifest.json",
            by="3_runDNN",
            parameters=("run_precision",),
            inputs=inputs,
            white_level=self._white_level(),
        )

    @cached_property
    def svm(self) -> Artefact:
        """svm_<classifier>/: the linear SVM and its sweep over C."""
        name = f"svm_{self.classifier}"
        parameters = ("svm_CVals", "svm_boL2Normalize", "svm_folds", "randomSeed")
        return self._artefact(
            name, f"{name}/manifest.json", by="4_trainSVM", parameters=parameters, inputs=(self.features,)
        )

    @cached_property
    def bundle(self) -> Artefact:
        """model_<classifier>/: the one folder that classifies an image anywhere."""
        name = f"model_{self.classifier}"
        by, inputs = (
            ("2_refineDNN", (self.network,)) if self.classifier == "dnn" else ("4_trainSVM", (self.network, self.svm))
        )
        return self._artefact(
            name,
            f"{name}/model.json",
            by=by,
            parameters=("classifier",),
            inputs=inputs,
            white_level=self._white_level(),
        )

    @cached_property
    def evaluation(self) -> Artefact:
        """evaluation_<classifier>/: metrics, pictures and the report."""
        name = f"evaluation_{self.classifier}"
        inputs = (self.bundle, self.features)
        return self._artefact(name, f"{name}/manifest.json", by="5_evaluate", parameters=(), inputs=inputs)


def _newest_state(log: Path) -> str | None:
    """What stands for all annotations in the newest whole line of their log (see `data.annotations`); None for none."""
    try:
        lines = split_lines(read_regular(log, most=MAX_LOG_BYTES)).whole
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable_log(log, error) from error
    number, newest = max(
        ((i, line) for i, line in enumerate(lines, 1) if line.strip()), default=(0, b'{"state": null}')
    )
    try:
        state = json.loads(newest)["state"]
        if not isinstance(state, str | None):
            raise ValueError(f"state {state!r:.50}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_log(log, number, error) from error
    return state


def unreadable_log(log: Path, error: OSError) -> StorageError:
    """The error for a log of annotations that cannot be opened."""
    return StorageError(f"{log} cannot be read: {explained(error)}")


def damaged_log(log: Path, line: int, error: Exception) -> StorageError:
    """The error for a line of a log of annotations that is none."""
    what = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else error
    return StorageError(f"{log} is damaged in line {line} ({what}): mend the line, or move the file away")
