"""The networks of a search for settings, as they are or trained, in folders that stay until `clean`."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from libraries.base.arrays import Float32
from libraries.base.console import ProgressBar, say
from libraries.base.errors import InputError
from libraries.base.layout import Layout
from libraries.base.storage import Artefact
from libraries.base.tables import read_table
from libraries.data.dataset import Example, read_white_level, write_examples
from libraries.data.images import ResizeRule
from libraries.evaluation.tuning import Recipe
from libraries.evaluation.tuning_dnn import Training
from libraries.network.pretrained import NetworkOptions

if TYPE_CHECKING:
    from libraries.network.runners import RunOptions

LEAST_MEASURED = 32  # images that are computed, to tell how long one takes

Refine = Callable[[Artefact, Path, NetworkOptions, Recipe], object]
"""Trains a network into an artefact, on a table of examples."""


class TrialNetworks:
    """The networks of candidates; a search that was stopped finds those that it has made.

    Args:
        layout: of the parameters.
        refine: see `Refine`.
        options: how networks are run.
    """

    def __init__(self, layout: Layout, *, refine: Refine, options: "RunOptions") -> None:
        self._layout, self._refine, self._options = layout, refine, options
        self._folder = layout.proc / "tune"
        self._white_level = read_white_level(layout.examples)

    def embed(self, options: NetworkOptions, examples: list[Example]) -> tuple[Float32, float | None]:
        """Embeddings [N, D] by a network as it is, and seconds for each image, if enough were computed."""
        from libraries.network.artefact import resize_rule, write_network
        from libraries.network.pretrained import load_network_for

        network = self._artefact({"network": asdict(options)})
        if not network.is_current():
            pretrained = load_network_for(options, refine=False)
            write_network(network, pretrained, rule=resize_rule(pretrained, options.mode))
        outputs, seconds = self._run(network, examples)
        return outputs["embedding"], seconds

    def train(self, options: NetworkOptions, recipe: Recipe, examples: list[Example]) -> Training:
        """Train a network, unless an earlier run has."""
        from libraries.network.training.refine import Epoch, kept_epoch

        network, begun = self._trained(options, recipe, examples), time.monotonic()
        is_new = not network.is_current()
        if is_new:
            table = network.folder / "examples.csv"
            write_examples(table, examples)
            try:
                self._refine(network, table, options, recipe)
            except InputError as error:
                raise InputError(f"{error}; the search keeps a fifth of the training images apart") from error
        history = read_table(network.folder / "training.csv", Epoch, advice="run scripts/tune.py again")
        seconds = sum(row.seconds for row in history)
        rest = time.monotonic() - begun - seconds if is_new else None
        return Training(1 - kept_epoch(history).validation_error, seconds, rest)

    def answer(
        self, options: NetworkOptions, recipe: Recipe, trained_on: list[Example], examples: list[Example]
    ) -> tuple[list[str], float | None]:
        """The labels that such a network gives other images, and seconds for each image, if enough were computed."""
        network = self._trained(options, recipe, trained_on)
        outputs, seconds = self._run(network, examples)
        names: Sequence[str] = network.read()["labels"]
        return [names[index] for index in outputs["scores"].argmax(axis=1).tolist()], seconds

    def clean(self) -> None:
        """Remove them: what they say of images stays in the store."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _trained(self, options: NetworkOptions, recipe: Recipe, examples: list[Example]) -> Artefact:
        images = sha256("\n".join(f"{e.label}\t{e.sha256}" for e in examples).encode()).hexdigest()
        settings = {"network": asdict(options), "recipe": asdict(recipe), "images": images}
        return self._artefact({**self._layout.network.parameters, **settings}, self._layout.network.inputs)

    def _artefact(self, parameters: dict[str, Any], inputs: tuple[Artefact, ...] = ()) -> Artefact:
        described = json.loads(json.dumps(parameters, default=str))
        key = sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
        return Artefact(key, self._folder / key / "model.json", "scripts/tune.py", described, inputs)

    def _run(self, network: Artefact, examples: list[Example]) -> tuple[dict[str, np.ndarray], float | None]:
        from libraries.network.runners import Embeddings

        rule = replace(ResizeRule.from_json(network.read()["resize"]), white_level=self._white_level)
        with Embeddings(self._layout, network, rule, self._options) as embeddings:
            missing = len(examples) - embeddings.stored(examples)
            ended: list[float] = []  # when each image was done: the first when the network had been opened
            with ProgressBar("  Embedding", total=len(examples)) as bar:

                def done() -> None:
                    ended.append(time.monotonic())
                    bar.update()

                on_cluster = embeddings.compute(examples, told=say)
                outputs = embeddings.together(examples, progress=done)
        is_measured = missing >= LEAST_MEASURED and not on_cluster
        return outputs, (ended[-1] - ended[0]) / missing if is_measured else None
