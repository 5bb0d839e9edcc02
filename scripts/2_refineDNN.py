"""Make the network that turns images into embeddings: pretrained as it is, or refined on your images.

Reads:  the weights `rf_pretrainedModelFilename`; for 'dnn' and 'svmDnnRefined' also examples.csv and the images.
Writes: for 'svm' proc/<datasetName>/dnn_fixed/ (seconds); else dnn_refined/ with training.csv and training.png, and
        for 'dnn' the bundle model_dnn/. A training that was stopped goes on after its last finished epoch.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

from libraries.base import tracking
from libraries.base.command import run
from libraries.base.console import ProgressBar
from libraries.base.layout import Layout
from PARAMETERS import Parameters

if TYPE_CHECKING:
    from libraries.network.refine import Epoch


def main(parameters: Parameters) -> None:
    layout = Layout(parameters)
    if layout.is_refined:
        layout.examples.check()
    if layout.network.is_current():
        print("The network is up to date")
    else:
        with tracking.run("2_refineDNN", parameters) as record:
            make_network(parameters, layout, record)
    if parameters.classifier == "dnn" and not layout.bundle.is_current():
        from libraries.classifier.bundle import write_refined

        write_refined(layout.bundle, layout.network, settings=parameters.model_dump(mode="json"))
        print(f"Written: the bundle {layout.bundle.folder}")
    print(f"The network is in {layout.network.folder}; next: scripts/3_runDNN.py")


def make_network(parameters: Parameters, layout: Layout, record: tracking.Record) -> None:
    print(f"Loading {parameters.rf_pretrainedModelFilename}")
    from libraries.network.backbones import load_pretrained
    from libraries.network.folder import resize_rule, write_network

    network = load_pretrained(parameters.rf_pretrainedModelFilename, input_size=parameters.rf_inputResolution)
    network.views = parameters.rf_views
    rule = resize_rule(network, parameters.rf_resizeMode)
    print(
        f"{network.architecture} at {rule.size} x {rule.size} pixels, embedding of {network.embedding_size:,} numbers"
    )
    if not layout.is_refined:
        write_network(layout.network, network, rule=rule)
        return

    from libraries.base.storage import write_csv
    from libraries.classifier.calibration import fit_calibration
    from libraries.data.dataset import read_examples
    from libraries.evaluation import plots
    from libraries.network import training_sets
    from libraries.network.devices import find_device
    from libraries.network.recipe import RefineOptions, steps_per_epoch
    from libraries.network.refine import refine

    folder = layout.network.folder
    checkpoint = folder / "checkpoint.safetensors"
    learn, validate, test = training_sets.choose(
        read_examples(layout.examples.folder / "examples.csv"),
        validation_fraction=parameters.rf_validationFraction,
        most=parameters.rf_maxTrainImages,
        seed=parameters.randomSeed,
    )
    with ProgressBar("Decoding", total=len(learn) + len(validate) + len(test)) as bar:
        sets = training_sets.load(
            learn, validate, test, folder=layout.images, rule=rule, scratch=folder, on_image=bar.update
        )
    for error in sets.left_out:
        print(f"  left out: {error}")
    options = RefineOptions(
        epochs=parameters.rf_maxEpochs,
        batch=parameters.rf_mbSize,
        learning_rates=None if parameters.rf_lrPerMb == "auto" else parameters.rf_lrPerMb,
        momentum=parameters.rf_momentumPerMb,
        l2=parameters.rf_l2RegWeight,
        dropout=parameters.rf_dropoutRate,
        freeze=parameters.rf_boFreezeWeights,
        balance=parameters.rf_boBalanceTrainingSet,
        augmentation=parameters.rf_augmentation,
        seed=parameters.randomSeed,
        device=find_device(parameters.device),
    )
    print(f"Training on {len(sets.train):,} images, choosing the epoch on {len(sets.validation):,} ({options.device})")
    with ProgressBar("Training", total=options.epochs * steps_per_epoch(len(sets.train), options), unit="steps") as bar:
        refined = refine(
            network,
            train=sets.train,
            validation=sets.validation,
            test=sets.test,
            classes=len(sets.names),
            options=options,
            checkpoint=checkpoint,
            key=layout.network.key(),
            on_epoch=lambda row: bar.write(describe(row, epochs=options.epochs)),
            on_step=lambda step, steps: bar.update(),
        )
    rows = [asdict(row) for row in refined.history]
    write_csv(folder / "training.csv", rows)
    plots.save(plots.training_curves(rows, chosen_epoch=refined.best_epoch), folder / "training.png")
    calibration = fit_calibration(refined.validation_logits, sets.validation.labels)
    write_network(
        layout.network,
        refined.network,
        rule=rule,
        labels=sets.names,
        files=[folder / "training.csv", folder / "training.png"],
        calibration={"slope": calibration.slope, "bias": calibration.bias.tolist()},
        best_epoch=refined.best_epoch,
    )
    checkpoint.unlink(missing_ok=True)
    record.tags["data"] = layout.examples.identity()[:12]
    record.metrics.update({k: v for k, v in rows[refined.best_epoch - 1].items() if v is not None})
    record.files += [folder / "training.csv", folder / "training.png"]


def describe(row: "Epoch", *, epochs: int) -> str:
    test = "" if row.test_error is None else f", test {row.test_error:.1%}"
    errors = f"training {row.train_error:.1%}, validation {row.validation_error:.1%}{test}"
    return f"  epoch {row.epoch:3} of {epochs}: error in {errors} ({row.seconds:.0f} s)"


if __name__ == "__main__":
    run(main, Parameters)
