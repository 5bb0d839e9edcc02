"""The steps as data: what each reads and writes, and which parameters matter to its outputs.

Each parameter in PARAMETERS.py names the subjects it matters to; each output names the subjects it depends on and the
other outputs it is made from. This determines which outputs are stale, the order of the scripts, their `--help`, the
tables in the documentation, and the diagram of the data flow.

A parameter that changes only the speed, the place or the recipient of a result matters to no subject.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Subject = Literal[
    "examples",  # which images there are, and on which side of the split
    "pixel limit",  # unless it is and was the default, which earlier versions did not record
    "near duplicates",
    "scene duplicates",
    "network",  # the pretrained one
    "network file",  # .model and .onnx: where they are cut, and how images are normalised
    "training",  # of the network
    "highest rate",  # of that, unless it is and was the default, which earlier versions did not record
    "own classes",  # of a network that is used unchanged
    "features",
    "svm",
    "bundle",
    "trust",  # unless they are and were the defaults, which earlier versions did not record
    "costs",  # likewise
]

NETWORK_FORMAT = 2  # of the network that step 2 writes; since 2, model.onnx also has the feature map


@dataclass(frozen=True)
class File:
    """A file that a step reads or writes, and that is never checked for being up to date.

    Attributes:
        path: as a user types it, or the name of a parameter.
        holds: what it contains.
        only: when it is used; empty: always.
    """

    path: str
    holds: str
    only: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.holds}{f' ({self.only})' if self.only else ''}"


@dataclass(frozen=True)
class Output:
    """What a step writes to proc/<datasetName> for later steps; complete once its manifest exists.

    Attributes:
        name: used in messages; {classifier} stands for the parameter.
        manifest: the JSON file that is written last.
        holds: the files in it.
        depends_on: the subjects that matter to it, when they are relevant (see `Layout`).
        facts: what else matters to it: values that `Layout` looks up, not parameters.
        made_from: names of other outputs; 'network' is dnn_fixed or dnn_refined.
        only: the values of `classifier` for which it is made; empty: all.
    """

    name: str
    manifest: str
    holds: str
    depends_on: tuple[Subject, ...] = ()
    facts: tuple[str, ...] = ()
    made_from: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def __str__(self) -> str:
        only = f" ({' and '.join(self.only)})" if self.only else ""
        return f"proc/<datasetName>/{self.name.format(classifier='<classifier>')}: {self.holds}{only}"


@dataclass(frozen=True)
class Stage:
    """A step: a script with its inputs and outputs.

    Attributes:
        script: its name without .py.
        reads: inputs other than those that its outputs are made from.
    """

    script: str
    reads: tuple[File, ...] = ()
    writes: tuple[File | Output, ...] = ()

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(each for each in self.writes if isinstance(each, Output))

    def made_from(self) -> list[str]:
        """Names of the outputs of other steps that it reads."""
        own = {output.name for output in self.outputs}
        return [name for name in dict.fromkeys(n for o in self.outputs for n in o.made_from) if name not in own]


STORE = File("<rootDir>/store", "what was computed from each image, of all data sets, so that it is done once")
IMAGES = File("images/<datasetName>/<label>/*", "the images")

STAGES = (
    Stage(
        "0_downloadData",
        reads=(
            File("imgUrlsPath", "a list of URLs"),
            File("imgLabelsPath, imgFolder", "or a table of images, with columns such as image or id, label or "
                 "species, split or usage, and the images"),
            File("imgStoreUrl", "or a folder of images in an object store"),
            File("resources/<datasetName>Queries.toml", "or words to search the web for"),
            File("the package elpv-dataset", "or, for the data set 'solarCells', its images"),
        ),
        writes=(
            IMAGES,
            File("proc/<datasetName>/downloads.csv", "every URL with its outcome", only="list or search"),
            File("proc/<datasetName>/stored_images.csv", "what became of every object", only="store"),
            File("proc/<datasetName>/search.tsv, search.csv, images/<datasetName>/ATTRIBUTION.md",
                 "what was found, with authors and licences", only="search"),
        ),
    ),
    Stage(
        "1_prepareData",
        reads=(
            File("images/<datasetName>/<label>/*", "the images; or, where the split is on disk, train/<label>/*, "
                 "val/<label>/* and test/<label>/*"),
            File("images/<datasetName>/dedicatedTestImages.tsv", "the test set", only="if it is there"),
            File("images/<datasetName>/annotations.jsonl", "labels and marks set by hand", only="if it is there"),
        ),
        writes=(
            Output(
                "examples.csv", "examples.json", "path, label, split, group, size and SHA-256 of every intact image",
                depends_on=("examples", "near duplicates", "scene duplicates", "pixel limit"), facts=("annotations",),
            ),
            Output(
                "features_duplicates/network", "features_duplicates/network/model.json",
                "the pretrained network whose embeddings are compared (duplicates = scene)",
                depends_on=("network", "network file"), facts=("format", "weights"),
            ),
            File("proc/<datasetName>/duplicates.csv", "images that show the same picture, which stay on one side"),
            File("proc/<datasetName>/quality.csv", "which images are worth a second look"),
            STORE,
        ),
    ),
    Stage(
        "2_refineDNN",
        reads=(
            File("rf_pretrainedModelFilename", "the pretrained weights"),
            File("images/<datasetName>/<label>/*", "the images", only="dnn and svmDnnRefined"),
        ),
        writes=(
            Output(
                "dnn_fixed", "dnn_fixed/model.json", "the pretrained network, unchanged", only=("svm",),
                depends_on=("network", "network file"), facts=("format", "weights"),
            ),
            Output(
                "dnn_refined", "dnn_refined/model.json", "the network trained on your images, training.csv and .png",
                depends_on=("network", "network file", "training", "highest rate", "own classes"),
                facts=("format", "weights", "white_level"), made_from=("examples.csv",), only=("dnn", "svmDnnRefined"),
            ),
        ),
    ),
    Stage(
        "3_runDNN",
        reads=(IMAGES,),
        writes=(
            Output(
                "features_{classifier}", "features_{classifier}/manifest.json",
                "part-*.parquet: path, label, split, embedding, and of a refined network its scores",
                depends_on=("features",), facts=("white_level",), made_from=("examples.csv", "network"),
            ),
            STORE,
        ),
    ),
    Stage(
        "4_trainSVM",
        writes=(
            Output(
                "svm_{classifier}", "svm_{classifier}/manifest.json",
                "svm.npz, sweep.csv, sweep.png, learning_curve.csv, learning_curve.png",
                depends_on=("svm", "costs"), made_from=("features_{classifier}",),
            ),
            Output(
                "model_{classifier}", "model_{classifier}/model.json", "the bundle that is deployed",
                depends_on=("bundle", "trust", "costs"), facts=("white_level",),
                made_from=("network", "svm_{classifier}"), only=("svm", "svmDnnRefined"),
            ),
            Output(
                "model_dnn", "model_dnn/model.json", "the same, of the refined network with its own head",
                depends_on=("bundle", "trust", "costs"), facts=("white_level",),
                made_from=("dnn_refined", "features_{classifier}"), only=("dnn",),
            ),
        ),
    ),
    Stage(
        "5_evaluate",
        reads=(File("images/<datasetName>/<label>/*", "the test images"),),
        writes=(
            Output(
                "evaluation_{classifier}", "evaluation_{classifier}/manifest.json",
                "metrics.json, predictions.csv, pictures, and report.html (open it in a browser)",
                made_from=("model_{classifier}", "features_{classifier}"),
            ),
            Output(
                "crossvalidation_{classifier}", "crossvalidation_{classifier}/manifest.json",
                "the same of all images, each tested once, and folds.csv (with --folds)",
                depends_on=("svm", "trust", "costs"), made_from=("features_{classifier}",),
            ),
            File("proc/<datasetName>/model_<classifier>/metrics.json", "how accurate the bundle is"),
            File("proc/<datasetName>/model_<classifier>/reference.npz", "what the test images look like, as numbers"),
            File("proc/<datasetName>/review.csv", "which images to look at again, and why"),
            File("releases/<datasetName>/<release>", "a bundle that is kept, with its predictions and report",
                 only="with --release"),
            File("proc/<datasetName>/against_<release>.html, .csv", "what is better and worse than in a release",
                 only="with --against"),
            File("proc/<datasetName>/drift.html", "how images in the pool differ from the test images",
                 only="with --drift"),
        ),
    ),
    Stage(
        "6_callWebservice",
        reads=(
            File("imagePath", "the picture that is sent"),
            File("folder", "or a folder, all of whose images are classified; it is never written to"),
            File("SERVICE_KEY, keyFile", "the key, from the environment or a file", only="if the service wants one"),
        ),
        writes=(
            File("proc/<datasetName>/predictions/<folder>.csv", "path, label, probabilities, or the problem; beside it "
                 "<folder>.csv.journal, from which a stopped run continues", only="with folder"),
        ),
    ),
    Stage(
        "tune",
        reads=(IMAGES, File("proc/<datasetName>/examples.csv", "which of them are for training")),
        writes=(
            File("proc/<datasetName>/tune.csv, tune.png", "accuracy and time of networks and settings"),
            STORE,
        ),
    ),
    Stage(
        "deploymain",
        reads=(
            File("proc/<datasetName>/model_<classifier>", "the bundle; or the folder `bundle`, or AZUREML_MODEL_DIR"),
            File("SERVICE_KEY, keyFile", "the key that callers must show, from the environment or a file"),
        ),
        writes=(
            File("proc/<datasetName>/deployment_<classifier>", "a folder ready for Azure ML", only="with --stage"),
        ),
    ),
)  # fmt: skip


def outputs() -> Iterator[tuple[Stage, Output]]:
    """All outputs, in the order in which they are made."""
    for stage in STAGES:
        for output in stage.outputs:
            yield stage, output


def find(name: str, classifier: str) -> tuple[Stage, Output]:
    """The output of a name, {classifier} filled in, for a classifier, and its stage; KeyError if no step makes it."""
    for stage, output in outputs():
        if output.name.format(classifier=classifier) == name and classifier in (output.only or (classifier,)):
            return stage, output
    raise KeyError(f"{name} is made by no step with classifier = '{classifier}'")


def stage_of(script: str) -> Stage | None:
    """The step of a script; None for other scripts."""
    return next((stage for stage in STAGES if stage.script == script), None)


def described(stage: Stage) -> str:
    """What a step reads and writes, as lines of text."""
    inputs = [output for _, output in outputs() if output.name in stage.made_from()]
    if "network" in stage.made_from():
        inputs += [output for _, output in outputs() if output.name in ("dnn_fixed", "dnn_refined")]
    lines: list[str] = []
    for title, files in {"Reads:": [*stage.reads, *inputs], "Writes:": stage.writes}.items():
        lines += [title] * bool(files)
        for file in files:
            lines += textwrap.wrap(str(file), 118, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)


def table() -> str:
    """All steps, what they read and what they write, as a table in Markdown."""
    lines = ["| script | reads | writes, in `proc/<datasetName>/` unless another place is named |", "|---|---|---|"]
    for stage in STAGES:
        inputs = [f"`{_shown(name)}`" for name in stage.made_from()]
        reads = [*inputs, *(file.holds for file in stage.reads)]
        writes = [_cell(each) for each in stage.writes]
        lines.append(f"| `{stage.script}` | {'; '.join(reads)} | {'; '.join(writes)} |".replace("\n", " "))
    return "\n".join(lines)


def _cell(written: File | Output) -> str:
    """What a step writes, for a cell of the table."""
    if isinstance(written, File):
        name, only = written.path.removeprefix("proc/<datasetName>/"), written.only
    else:
        name, only = _shown(written.name), " and ".join(written.only)
    return f"`{name}`{f' ({only})' if only else ''}: {written.holds}"


_BOXES = {"network": "dnn_fixed or dnn_refined", "model": "model_<classifier>"}


def flowchart() -> str:
    """The data flow through the steps as a Mermaid flowchart; outputs that differ by classifier share a box."""
    edges = ["0_downloadData --> images"]
    boxes = {"images": "images/&lt;label&gt;/*"}
    for stage in STAGES:
        names = {_box(output.name): output.name for output in stage.outputs if "/" not in output.name}
        edges += [f"images --> {stage.script}"] * any(file.path.startswith("images/") for file in stage.reads)
        boxes |= {box: _BOXES.get(box, _shown(name)) for box, name in names.items()}
        edges += [f"{_box(name)} --> {stage.script}" for name in stage.made_from()]
        edges += [f"{stage.script} --> {box}" for box in names]
    edges += ["model --> deploymain", "deploymain --> 6_callWebservice"]
    shapes = [f"{stage.script}([{stage.script}])" for stage in STAGES]
    shapes += [f'{box}["{label.replace("<", "&lt;").replace(">", "&gt;")}"]' for box, label in boxes.items()]
    return "\n  ".join(["flowchart TD", *shapes, *dict.fromkeys(edges)])


def _box(name: str) -> str:
    """The box of an output in the flowchart."""
    if name in ("dnn_fixed", "dnn_refined"):
        return "network"
    return name.partition("{")[0].rstrip("_").replace("model_dnn", "model").replace(".csv", "")


def _shown(name: str) -> str:
    return name.format(classifier="<classifier>")
