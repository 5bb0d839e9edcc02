"""Where everything is stored under DATA_DIR, and what each artefact is made from."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from libraries.base import stages
from libraries.base.errors import StorageError
from libraries.base.file_system import expanded, explained, on_disk, read_regular
from libraries.base.settings import Settings
from libraries.base.stages import NETWORK_FORMAT, Output, Subject
from libraries.base.storage import Artefact, read_json, sha256_once
from libraries.base.text import split_lines

MEGAPIXELS = 100  # default limit for an image
UNKNOWN_RATE, COVERAGE = 0.05, 0.9  # default promises, which bundles of earlier versions do not record
EQUAL_COSTS = "equal"  # the default, likewise
LR_PEAK = 5e-4  # likewise, of networks

ANNOTATIONS = "annotations.jsonl"  # beside the class folders: labels changed and images marked by hand
MAX_LOG_BYTES = 2**29  # of that file: millions of changes


class Layout:
    """The artefacts of one run, as `stages` declares them, each with the parameters that matter to its content."""

    def __init__(self, parameters: Settings, *, with_annotations: bool = True) -> None:
        """
        Args:
            with_annotations: whether changing labels by hand makes the artefacts stale.
        """
        self._with_annotations = with_annotations
        self._matters_to = parameters.subjects()
        self._values: dict[str, Any] = parameters.model_dump()
        self._made: dict[str, Artefact] = {}
        self.classifier: str = self._values["classifier"]
        self.dataset: str = self._values["datasetName"]
        self.root: Path = self._values["rootDir"]
        self.images = self.root / on_disk(self.root, f"images/{self.dataset}")
        self.proc = self.root / on_disk(self.root, f"proc/{self.dataset}")

        self.max_pixels: int = self._values["maxMegapixels"] * 10**6
        self.store = self.root / "store"  # results by content, of all data sets: see `content_store`
        self.store_bytes = int(self._values["storeGigabytes"] * 10**9)
        self.class_map: Path | None = self._values["classMap"]
        self.thumbnails = self.proc / "thumbnails.sqlite"
        self.review = self.proc / "review.csv"
        self.drift = self.proc / "drift.html"

    @property
    def prepared_state(self) -> str | None:
        """The state of the annotations when script 1 ran."""
        state: str | None = self._made_with("examples.json").get("annotations")
        return state

    def regardless_of_labels(self) -> "Layout":
        """The same, but changing labels by hand makes nothing stale."""
        same = copy.copy(self)
        same._with_annotations, same._made = False, {}
        return same

    @property
    def is_refined(self) -> bool:
        """Whether the network is trained on the user's images."""
        return self.classifier != "svm"

    @property
    def examples(self) -> Artefact:
        """examples.csv: the images, their labels and the split."""
        return self._artefact("examples.csv")

    @property
    def scene_network(self) -> Artefact:
        """The unchanged pretrained network, whose embeddings step 1 compares to find duplicates."""
        return self._artefact("features_duplicates/network")

    @property
    def network(self) -> Artefact:
        """dnn_fixed/ (pretrained, unchanged, made without examples) or dnn_refined/ (trained on the user's images)."""
        return self._artefact("dnn_refined" if self.is_refined else "dnn_fixed")

    @property
    def features(self) -> Artefact:
        """features_<classifier>/: the embedding of every image."""
        return self._artefact(f"features_{self.classifier}")

    @property
    def svm(self) -> Artefact:
        """svm_<classifier>/: the linear SVM and its sweep over C."""
        return self._artefact(f"svm_{self.classifier}")

    @property
    def bundle(self) -> Artefact:
        """model_<classifier>/: the folder that is deployed."""
        return self._artefact(f"model_{self.classifier}")

    @property
    def evaluation(self) -> Artefact:
        """evaluation_<classifier>/: metrics, pictures and the report."""
        return self._artefact(f"evaluation_{self.classifier}")

    @property
    def crossvalidation(self) -> Artefact:
        """crossvalidation_<classifier>/: the same for all images, each tested once."""
        return self._artefact(f"crossvalidation_{self.classifier}")

    def _artefact(self, name: str) -> Artefact:
        if name not in self._made:
            stage, output = stages.find(name, self.classifier)
            inputs = [each.format(classifier=self.classifier) for each in output.made_from]
            self._made[name] = Artefact(
                name,
                self.proc / output.manifest.format(classifier=self.classifier),
                f"scripts/{stage.script}.py",
                self._mattering(output) | {fact: self._fact(fact, name) for fact in output.facts},
                tuple(self.network if each == "network" else self._artefact(each) for each in inputs),
            )
        return self._made[name]

    def _mattering(self, output: Output) -> dict[str, Any]:
        """The parameters that matter to an output."""
        subjects = {subject for subject in output.depends_on if self._is_relevant(subject)}
        if "scene duplicates" in subjects:  # found by comparing embeddings of the pretrained network
            network = stages.find("features_duplicates/network", self.classifier)[1]
            subjects |= {subject for subject in network.depends_on if self._is_relevant(subject)}
        return {name: self._mattering_value(name) for name, to in self._matters_to.items() if subjects & to}

    def _mattering_value(self, name: str) -> Any:
        """A parameter's value as in a recipe: of a table its content; of costs, which a bundle holds, as recorded."""
        value = self._values[name]
        if name not in ("costs", "classMap") or not isinstance(value, Path):
            return value
        if value.is_file():
            return f"{value.name} ({sha256_once(value)[:12]})"
        recorded = self._recorded_costs()
        return recorded if name == "costs" and str(recorded).startswith(value.name) else f"{value.name} (missing)"

    def _recorded_costs(self) -> Any:
        return self._made_with(f"model_{self.classifier}/model.json").get("costs")

    def _is_relevant(self, subject: Subject) -> bool:
        """Whether a subject matters with the current parameters."""
        match subject:
            case "near duplicates":
                return bool(self._values["duplicates"] != "exact")
            case "scene duplicates":
                return bool(self._values["duplicates"] == "scene")
            case "network file":
                return bool(self._values["rf_pretrainedModelFilename"].endswith((".model", ".onnx")))
            case "training" | "own classes":
                return bool(self._values["rf_maxEpochs"] == 0) == (subject == "own classes")
            case "pixel limit":
                was = self._made_with("examples.json").get("maxMegapixels")
                return bool(self._values["maxMegapixels"] != MEGAPIXELS) or was is not None
            case "costs":
                return bool(self._values["costs"] != EQUAL_COSTS) or self._recorded_costs() is not None
            case "highest rate":
                was = self._made_with("dnn_refined/model.json").get("rf_lrPeak")
                return bool(self._values["rf_maxEpochs"]) and (self._values["rf_lrPeak"] != LR_PEAK or was is not None)
            case "trust":
                was = self._made_with(f"model_{self.classifier}/model.json").get("coverage")
                now = self._values["unknownRate"], self._values["coverage"]
                return now != (UNKNOWN_RATE, COVERAGE) or was is not None
        return True

    def _fact(self, fact: str, name: str) -> Any:
        """The value of a fact that an output depends on, by the output's name."""
        match fact:
            case "annotations":  # the current state, or the one that script 1 saw
                if self._with_annotations:
                    return _newest_state(self.images / ANNOTATIONS)
                return self.prepared_state
            case "format":
                return NETWORK_FORMAT
            case "weights":
                return self._weights(name)
            case "white_level":  # measured by script 1 in images of more than 8 bits; None: the full 16-bit range
                return self._manifest("examples.json").get("white_level")
        raise KeyError(fact)

    def _weights(self, name: str) -> str | None:
        """SHA-256 of the local weights file, as recorded if the file is gone; None if there never was one."""
        source = self._values["rf_pretrainedModelFilename"]
        path = expanded(source.partition("@")[2] or source)
        if path.is_file():
            return sha256_once(path)
        recorded: str | None = self._made_with(f"{name}/model.json").get("weights")
        return recorded

    def _made_with(self, manifest: str) -> Mapping[str, Any]:
        """The parameters that an artefact was made with."""
        parameters = self._manifest(manifest).get("parameters")
        return parameters if isinstance(parameters, dict) else {}

    def _manifest(self, name: str) -> Mapping[str, Any]:
        """An artefact's manifest; empty if it is missing, or damaged, which `Artefact.read` reports."""
        try:
            manifest = read_json(self.proc / name)
        except StorageError:
            return {}
        return manifest if isinstance(manifest, dict) else {}


def _newest_state(log: Path) -> str | None:
    """The state after the last complete line of the annotation log (see `data.annotations`); None without one."""
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
    """The error for an annotation log that cannot be read."""
    return StorageError(f"{log} cannot be read: {explained(error)}")


def damaged_log(log: Path, line: int, error: Exception) -> StorageError:
    """The error for an invalid line of an annotation log."""
    what = f"{error} is missing" if isinstance(error, KeyError) else error
    if isinstance(error, TypeError):
        what = "expected an object with kind, changes and state"
    return StorageError(f"{log} is damaged in line {line} ({what}): fix the line, or move the file away")
