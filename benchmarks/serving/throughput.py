"""Images per second of several services, and of the engine without HTTP."""

import contextlib
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving import contenders
from serving.contenders import precisions, running
from serving.load import Run, closed_loop

CLIENTS = 8
PLAIN, LITSERVE, AZURE = "FastAPI + PyTorch", "LitServe", "Azure ML's server"
TARGETS = {"offline f32": 0.85, "offline bf16": 0.85, PLAIN: 3.0, LITSERVE: 1.0, AZURE: 1.0}  # ours / it, at least


def throughput(bundle: Path, files: list[Path], *, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Rates, latencies and ratios of all contenders: medians over the rounds."""
    rates: dict[str, list[float]] = {}
    runs: dict[str, list[Run]] = {}
    with contextlib.ExitStack() as stack:
        contestants = _contestants(stack, bundle, files, seconds=seconds)
        for _ in range(rounds):
            for name, measure in contestants.items():
                result = measure()
                if isinstance(result, Run):
                    _check(name, result)
                    runs.setdefault(name, []).append(result)
                rates.setdefault(name, []).append(result.goodput if isinstance(result, Run) else result)
    figures = {name: {"images/s": statistics.median(values)} for name, values in rates.items()}
    for name, row in figures.items():
        for precision in precisions():
            pairs = zip(rates[f"ours {precision}"], rates[name], strict=True)
            row[f"{precision} / it"] = statistics.median(a / b for a, b in pairs)
        for percent in (50, 99) if name in runs else ():
            row[f"p{percent} [ms]"] = 1000 * statistics.median(run.percentile(percent, 200) for run in runs[name])
    share = max(run.own_share for several in runs.values() for run in several)
    _show(figures, title=f"{CLIENTS} clients, {rounds} rounds of {seconds:.0f} s", share=share)
    return figures


def _contestants(
    stack: contextlib.ExitStack, bundle: Path, files: list[Path], *, seconds: float
) -> dict[str, Callable[[], float | Run]]:
    """All that are compared, started and warm, by their names in the table."""
    services = {f"ours {precision}": contenders.ours(bundle, precision) for precision in precisions()}
    services[PLAIN] = contenders.plain(files[0].parents[1])
    services[LITSERVE] = contenders.litserve(bundle)
    if contenders.AZURE.exists():
        services[AZURE] = contenders.azure(bundle)
    images = [path.read_bytes() for path in files]
    contestants: dict[str, Callable[[], float | Run]] = {}
    for precision in precisions():
        offline = stack.enter_context(Offline(bundle, precision, images))
        contestants[f"offline {precision}"] = partial(offline.images_per_second, seconds)
    for name, contender in services.items():
        service = stack.enter_context(running(contender))
        requests = [contender.request(image) for image in images]
        load = partial(closed_loop, service.address, requests, clients=CLIENTS, warm=1.0)
        load(seconds=1.0)
        contestants[name] = partial(load, seconds=seconds)
    return contestants


class Offline:
    """A classifier in a process of its own, and the images it classifies."""

    def __init__(self, bundle: Path, precision: str, images: list[bytes]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_load, initargs=(bundle, precision, images))

    def __enter__(self) -> "Offline":
        self.images_per_second(1.0)  # warm
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()

    def images_per_second(self, seconds: float) -> float:
        """Classify images, one after the other and again, for so long."""
        return self._pool.submit(_images_per_second, seconds).result()


_loaded: dict[str, Any] = {}  # in the process of Offline


def _load(bundle: Path, precision: Any, images: list[bytes]) -> None:
    from libraries.classifier.bundle import Classifier

    _loaded.update(classifier=Classifier(bundle, precision=precision), images=images)


def _images_per_second(seconds: float) -> float:
    from libraries.data.images import load_bytes

    classifier, images = _loaded["classifier"], _loaded["images"]
    begun = time.perf_counter()
    some = itertools.takewhile(lambda _: time.perf_counter() - begun < seconds, itertools.cycle(images))
    count = sum(1 for _ in classifier.predict_stream(some, partial(load_bytes, rule=classifier.rule)))
    return count / (time.perf_counter() - begun)


def _check(name: str, run: Run) -> None:
    """Answers that are errors come fast: a figure with them would mean nothing."""
    if set(run.statuses) != {200}:
        raise SystemExit(f"{name}: not all requests were answered with 200: {dict(run.statuses)}")


def _show(figures: dict[str, dict[str, float]], *, title: str, share: float) -> None:
    columns = list(figures["ours f32"])
    table = Table(title=title, caption=f"the generator took at most {share:.2f} cores")
    table.add_column("")
    for column in columns:
        table.add_column(f"ours {column}" if column.endswith("/ it") else escape(column), justify="right")
    for name, row in figures.items():
        table.add_row(name, *(_cell(name, column, row.get(column)) for column in columns))
    Console().print(table)


def _cell(name: str, column: str, value: float | None) -> str:
    if value is None:
        return ""
    if not column.endswith("/ it"):
        return f"{value:.0f}"
    compared = name not in ("offline f32", "offline bf16") or name == f"offline {column.split()[0]}"
    target = f" (target {TARGETS[name]})" if name in TARGETS and compared else ""
    return f"{value:.2f}{target}"
