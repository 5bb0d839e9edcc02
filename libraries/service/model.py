"""The bundle in service: loaded, checked and warmed up before its first answer, and replaced without a gap."""

import asyncio
import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from libraries.classifier.bundle import Classifier
from libraries.classifier.bundle_files import DECISIVE
from libraries.service.drift import DriftWatch
from libraries.service.problems import Problem

log = logging.getLogger(__name__)

_MOST_COSTS = 1000  # rows of the table that are told


@dataclass(frozen=True)
class LoadedModel:
    """A bundle that has been loaded and warmed up.

    Attributes:
        name: data set and classifier, e.g. 'solarCells_svm'.
        version: the first 12 digits of the SHA-256 of what decides the predictions: the bundle's files, labels,
            resize rule, thresholds and costs.
        folder: of the bundle.
        drift: watches the images that it classifies; None if the bundle does not say what its test images look like.
    """

    classifier: Classifier
    name: str
    version: str
    folder: Path
    drift: DriftWatch | None = None

    @property
    def identity(self) -> dict[str, str]:
        """Name and version, as in responses."""
        return {"name": self.name, "version": self.version}

    def describe(self) -> dict[str, Any]:
        """What users may want to know about the model; nothing about the machine it was made on."""
        model = self.classifier.model
        known = ("architecture", "input_size", "embedding_size", "resize", "views", "versions", "created")
        facts = {key: model.get(key) for key in known}
        if trust := model.get("trust"):  # what is promised
            facts["trust"] = {name: trust[name] for name in ("unknown_rate", "coverage")}
        if (costs := model.get("costs")) and len(costs["rows"]) <= _MOST_COSTS:
            facts["costs"] = costs
        provenance = {"parameters": model.get("parameters"), "inputs": model.get("inputs"), "files": model["files"]}
        metrics = model.get("metrics")
        drift = None if self.drift is None else self.drift.describe()
        labels = self.classifier.labels
        return {**self.identity, "labels": labels, **facts, "metrics": metrics, "drift": drift, **provenance}


def load_model(folder: Path, *, precision: Literal["f32", "bf16"]) -> LoadedModel:
    """Load a bundle, check it and warm it up.

    Raises:
        StorageError: there is no bundle, or its files have changed since it was written.
        NetworkError: its graph cannot be read.
    """
    classifier = Classifier(folder, precision=precision)
    size = classifier.rule.size
    blank = np.full((size, size, 3), 127, np.uint8)
    for _ in range(2):  # the first run of a network is the slowest
        classifier.classify(blank)
    if classifier.has_evidence:
        classifier.evidence(blank)  # now everything has been read from the folder, which may change later
    settings = classifier.model.get("settings", {})
    name = f"{settings.get('datasetName', 'model')}_{settings.get('classifier', 'svm')}".replace(" ", "_")
    parts = [classifier.model[key] for key in ("files", "labels", "resize", *DECISIVE) if key in classifier.model]
    decisive = json.dumps(parts, sort_keys=True)
    reference = classifier.load_reference()
    drift = None if reference is None else DriftWatch(reference, classifier.labels)
    return LoadedModel(classifier, name, hashlib.sha256(decisive.encode()).hexdigest()[:12], folder, drift)


def _is_same(one: DriftWatch | None, other: DriftWatch | None) -> bool:
    """Whether both compare with the same test images."""
    return one is not None and other is not None and np.array_equal(one.reference.looks, other.reference.looks)


class ServedModel:
    """The model in service; another replaces it at once, while requests in progress keep theirs.

    Attributes:
        previous: the one before, to which `roll_back` returns.
    """

    def __init__(self, folder: Path, *, precision: Literal["f32", "bf16"] = "f32") -> None:
        self.folder, self.precision = folder, precision
        self.previous: LoadedModel | None = None
        self._loaded: LoadedModel | None = None
        self._loading = asyncio.Lock()

    @property
    def is_ready(self) -> bool:
        """Whether a model has been loaded."""
        return self._loaded is not None

    @property
    def current(self) -> LoadedModel:
        """The model in service; raises Problem 503 before there is one."""
        if self._loaded is None:
            raise Problem(503, "the model is being loaded: try again in a moment", retry_after=1)
        return self._loaded

    async def load(self) -> LoadedModel:
        """Load the bundle as it is now, in a thread, and put it into service.

        Raises:
            PipelineError: the bundle is refused; the present one stays in service.
        """
        async with self._loading:
            loaded, before = await asyncio.to_thread(load_model, self.folder, precision=self.precision), self._loaded
            if before is not None and before.version == loaded.version and _is_same(before.drift, loaded.drift):
                loaded = replace(loaded, drift=before.drift)  # which goes on with the images that it has seen
            self._serve(loaded)
        return loaded

    async def promote(self, candidate: LoadedModel) -> None:
        """Put another one, which has been loaded, into service."""
        async with self._loading:
            self._serve(candidate)

    async def roll_back(self) -> LoadedModel:
        """Put the one before into service again.

        Raises:
            Problem: 409 there is none.
        """
        async with self._loading:
            if self.previous is None:
                raise Problem(409, "none has been replaced since the service started: there is nothing to go back to")
            self._serve(self.previous)
            self.previous = None  # a second call must not bring back what was just taken out of service
        return self.current

    def _serve(self, loaded: LoadedModel) -> None:
        if self._loaded is not None and self._loaded.version != loaded.version:
            self.previous = self._loaded
        is_other = self._loaded is not None and self._loaded.version != loaded.version
        self._loaded, self.folder = loaded, loaded.folder
        level = logging.WARNING if is_other else logging.INFO  # a change is always told
        log.log(level, "serving %s, version %s, from %s", loaded.name, loaded.version, loaded.folder)
