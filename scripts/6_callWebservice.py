"""Call the service: one picture several times, as in the tutorial, or all images of a folder; or tell it a right label.

--url is the address that scripts/deploymain.py prints, or the scoring URI of a service in a cloud.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from libraries.base.command import run
from libraries.base.console import ProgressBar, counted, table
from libraries.base.errors import InputError
from libraries.base.layout import Layout
from libraries.service.keys import read_key
from PARAMETERS import Parameters

if TYPE_CHECKING:
    from libraries.data.formats import NotRead
    from libraries.service.calling.client import Client


def main(parameters: Parameters) -> None:
    from libraries.service.calling.client import Client

    key = read_key(parameters.keyFile, "SERVICE_KEY" if parameters.rightLabel is None else "SERVICE_FEEDBACK_KEY")
    retries = 3 if parameters.folder is None else 8  # a long run can wait while the service restarts
    with Client(parameters.url, key=key, retries=retries) as client:
        if parameters.rightLabel is not None:
            teach(client, parameters.imagePath, parameters.rightLabel)
        elif parameters.folder is None:
            call(client, parameters)
        else:
            classify(client, parameters.folder.resolve(), parameters)


def call(client: "Client", parameters: Parameters) -> None:
    from libraries.data.decoding import read

    image = read(parameters.imagePath)
    print(f"Sending {parameters.imagePath} to {parameters.url}, {parameters.calls} times")
    scores = [client.score(image) for _ in range(parameters.calls)]
    times = [(i, s.milliseconds, s.server_milliseconds, s.overhead_milliseconds) for i, s in enumerate(scores, 1)]
    rows = [(f"call {i}", *(f"{ms:.1f} ms" for ms in row)) for i, *row in times]
    print(table("Time", ["", "whole", "server", "overhead"], rows))
    score = scores[-1]
    ranked = sorted(score.probabilities.items(), key=lambda item: -item[1])
    print(table(f"Label: {score.label}", ["", "probability"], [(label, f"{p:.2%}") for label, p in ranked]))
    if score.unknown:
        print("Unknown: it is unlike the images that the classifier was trained with, so its label says little")
    elif score.set is not None and len(score.set) > 1:
        print(f"Not certain: one of {', '.join(score.set)}")
    if score.ask:
        print("Ask a person: by the costs of mistakes, that is better than any answer")


def teach(client: "Client", path: Path, label: str) -> None:
    from libraries.data.decoding import read

    answered = client.feedback(read(path), label)
    print(f"Sent {path} as {label}; the service {'knew it' if answered == label else f'took it for {answered}'}")


def classify(client: "Client", folder: Path, parameters: Parameters) -> None:
    from libraries.service.calling.folder import classify_folder, walk_images

    skipped: Counter[NotRead] = Counter()
    total = sum(1 for _ in walk_images(folder, skipped))
    left_out = [kind.describe(count) for kind, count in skipped.items()]
    if not total:
        found = f", only {'; '.join(left_out)}" if left_out else ""
        raise InputError(f"{folder} has no images{found}: give another --folder")
    print(f"Sending {counted(total, 'image')} of {folder} to {parameters.url}")
    print(*(f"  left out: {line}" for line in left_out), sep="\n", end="\n" if left_out else "")
    target = Layout(parameters).proc / "predictions" / f"{folder.name or 'root'}.csv"
    with ProgressBar("Classifying", total=total) as bar:
        summary = classify_folder(client, folder, target, in_flight=parameters.requestsInFlight, progress=bar.update)
    rows = [*summary.labels.items(), *(("no label: " + reason, n) for reason, n in summary.errors.most_common())]
    print(table("What became of the images", ["", "images"], rows, footer=["all", sum(n for _, n in rows)]))
    if summary.unknown:
        print(f"Unknown, as they are like none of the classes: {counted(summary.unknown, 'image')}")
    if summary.asked:
        print(f"To be shown to a person, by the costs of mistakes: {counted(summary.asked, 'image')}")
    if summary.known:
        print(f"Classified already by an earlier run, which was stopped: {counted(summary.known, 'image')}")
    print(f"Classified by {' and then '.join(summary.models)}\nEvery image with its probabilities: {target}")


if __name__ == "__main__":
    run(main, Parameters)
