"""The networks of a cross-validation, each refined without one fold by the recipe of step 2; a stopped run goes on."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from libraries.base.arrays import Float32
from libraries.base.layout import Layout
from libraries.base.storage import Artefact
from libraries.classifier.calibration import Calibration
from libraries.data.dataset import Example, read_white_level, write_examples
from libraries.data.images import ResizeRule
from libraries.evaluation.folds import FoldOutputs

if TYPE_CHECKING:
    from libraries.network.runners import RunOptions


class Refining:
    """The networks of the folds, each refined without its fold, in folders that stay until `clean`.

    Args:
        layout: of the parameters; `layout.network` has been made by them.
        folder: of the cross-validation.
        folds: how many.
        refine: trains into an artefact, on a table of examples.
        seen: paths of the images that a network is trained on, by the examples of a fold.
        options: how networks are run.
        told: called with lines about the progress.
    """

    def __init__(
        self,
        layout: Layout,
        folder: Path,
        *,
        folds: int,
        refine: Callable[[Artefact, Path], object],
        seen: Callable[[list[Example]], set[str]],
        options: "RunOptions",
        told: Callable[[str], object],
    ) -> None:
        self._layout, self._folder, self._folds = layout, folder, folds
        self._refine, self._seen, self._options, self._told = refine, seen, options, told

    def __call__(self, fold: int, examples: list[Example]) -> FoldOutputs:
        """Train the network of a fold, unless an earlier run has, and run it over all images."""
        network = Artefact(
            f"fold {fold + 1}",
            self._folder / f"fold-{fold + 1}" / "model.json",
            "scripts/5_evaluate.py --folds",
            {**self._layout.network.parameters, "folds": self._folds, "fold": fold},
            self._layout.network.inputs,
        )
        if not network.is_current():
            self._told(f"Fold {fold + 1} of {self._folds}: training")
            table = network.folder / "examples.csv"
            write_examples(table, examples)
            self._refine(network, table)
        described = network.read()
        outputs = self._outputs(network, described["resize"], examples)
        if self._layout.classifier != "dnn":
            return FoldOutputs(outputs["embedding"], seen=self._seen(examples))
        calibration, names = Calibration.from_json(described["calibration"]), described["labels"]
        return FoldOutputs(outputs["embedding"], outputs["scores"], calibration, names, self._seen(examples))

    def _outputs(self, network: Artefact, resize: dict[str, Any], examples: list[Example]) -> dict[str, Float32]:
        from libraries.network.runners import Embeddings

        rule = replace(ResizeRule.from_json(resize), white_level=read_white_level(self._layout.examples))
        with Embeddings(self._layout, network, rule, self._options) as embeddings:
            embeddings.compute(examples, told=self._told)
            return embeddings.together(examples)

    def clean(self) -> None:
        """Remove the networks, also of earlier runs with more folds: the answers have been written."""
        for folder in self._folder.glob("fold-*"):
            shutil.rmtree(folder, ignore_errors=True)
