"""What becomes of the service when more is asked of it than it can do."""

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from libraries.base.pool import usable_cores
from serving import contenders
from serving.contenders import precisions, running
from serving.load import LOST, REFUSED, UNANSWERED, Run, closed_loop, open_loop

CLIENTS, CONNECTIONS = 8, 256
LOW, HIGH = 0.8, 3.0  # times the peak
TARGETS = {
    "goodput at 3.0 / peak": "at least 0.9",
    "p99 at 3.0 / p99 at 0.8": "at most 2",
    "p99 of rejections at 3.0 [ms]": "below 50",
    "connections lost or refused, no answer": "0",
}


def overload(bundle: Path, files: list[Path], *, rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """By precision: peak, goodput, latencies and what went wrong."""
    images = [path.read_bytes() for path in files]
    figures = {p: _measure(bundle, p, images, rounds=rounds, seconds=seconds) for p in precisions()}
    _show(figures, title=f"Requests at {LOW} and {HIGH} times the peak, {rounds} rounds of {seconds:.0f} s each")
    return figures


def _measure(bundle: Path, precision: str, images: list[bytes], *, rounds: int, seconds: float) -> dict[str, Any]:
    peaks, lows, highs = [], [], []
    with running(contenders.ours(bundle, precision)) as service:
        requests = [service.contender.request(image) for image in images]
        for seed in range(rounds):
            peak = closed_loop(service.address, requests, clients=CLIENTS, seconds=seconds, warm=1.0)
            peaks.append(peak)
            for factor, runs in ((LOW, lows), (HIGH, highs)):
                rate = factor * peak.goodput
                load = {"rate": rate, "seconds": seconds, "warm": 2.0, "connections": CONNECTIONS, "seed": seed}
                runs.append(open_loop(service.address, requests, **load))
    return _figures(peaks, lows, highs)


def _figures(peaks: list[Run], lows: list[Run], highs: list[Run]) -> dict[str, Any]:
    """Medians over the rounds."""
    statuses = {name: sum((r.statuses for r in runs), Counter()) for name, runs in (("0.8", lows), ("3.0", highs))}
    cores = usable_cores()
    triples = list(zip(peaks, lows, highs, strict=True))

    def milliseconds(runs: list[Run], percent: float, status: int) -> float:
        return 1000 * statistics.median(run.percentile(percent, status) for run in runs)

    return {
        "peak [images/s]": statistics.median(run.goodput for run in peaks),
        "goodput at 0.8 / sent": statistics.median(low.goodput / low.rate for low in lows),
        "goodput at 3.0 / peak": statistics.median(high.goodput / peak.goodput for peak, _, high in triples),
        "the same, per core that the generator left": statistics.median(
            (high.goodput / (cores - high.own_share)) / (peak.goodput / (cores - peak.own_share))
            for peak, _, high in triples
        ),
        "p50 at 0.8 [ms]": milliseconds(lows, 50, 200),
        "p99 at 0.8 [ms]": milliseconds(lows, 99, 200),
        "p50 at 3.0 [ms]": milliseconds(highs, 50, 200),
        "p99 at 3.0 [ms]": milliseconds(highs, 99, 200),
        "p99 at 3.0 / p99 at 0.8": statistics.median(
            high.percentile(99, 200) / low.percentile(99, 200) for _, low, high in triples
        ),
        "p50 of rejections at 3.0 [ms]": milliseconds(highs, 50, 503),
        "p99 of rejections at 3.0 [ms]": milliseconds(highs, 99, 503),
        "connections lost or refused, no answer": sum(
            count[what] for count in statuses.values() for what in (LOST, REFUSED, UNANSWERED)
        ),
        "sent again on a new connection": sum(run.sent_again for run in (*lows, *highs)),
        **{f"statuses at {name}": dict(count) for name, count in statuses.items()},
        "cores taken by the generator at 3.0": max(run.own_share for run in highs),
    }


def _show(figures: dict[str, dict[str, Any]], *, title: str) -> None:
    table = Table(title=title, caption=f"{CONNECTIONS} kept connections; latencies from when a request was due")
    for column in ("", *figures, "target"):
        table.add_column(column, justify="left" if column == "" else "right")
    for row in next(iter(figures.values())):
        table.add_row(escape(row), *(_cell(values[row]) for values in figures.values()), TARGETS.get(row, ""))
    Console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{status}: {count:,}" for status, count in sorted(value.items(), key=str))
    return str(value) if isinstance(value, int) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
