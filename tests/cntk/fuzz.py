"""Converts damaged CNTK models, many of them, each within limits of time and memory, and reports what went wrong.

    python -m tests.cntk.fuzz --mutations 100000

Right is a model that onnx's checker accepts, or a NetworkError whose text is one line. Each process ends what hangs
and goes on behind it; a mutation can be made again from its mode and seed (mutations.py).
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from libraries.base.errors import NetworkError
from libraries.cntk.convert import convert
from tests.cntk.goldens import MANIFEST
from tests.cntk.mutations import MODES, SMALL, goldens, mutation

RIGHT = ("accepted", "refused")
MAX_TEXT = 500  # characters of a message, beside the path


@dataclass
class Findings:
    """What became of the mutations: `failures` by kind, with the first that failed in that way."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    slowest: tuple[float, str] = (0.0, "")
    memory: int = 0  # the most that a process took [MiB]

    def add(self, mutation: str, result: str, seconds: float, memory: int) -> None:
        self.outcomes[result if result in RIGHT else "FAILED"] += 1
        if result not in RIGHT:
            self.failures.setdefault(result, mutation)
        self.slowest = max(self.slowest, (seconds, mutation))
        self.memory = max(self.memory, memory)


def outcome(path: Path, options: dict[str, Any]) -> str:
    """'accepted', 'refused', or what is wrong with the way in which this file was met."""
    try:
        convert(path, **options)
    except NetworkError as error:
        text = str(error)
        if text.isprintable() and len(text) <= MAX_TEXT + len(f"{path}: "):
            return "refused"
        return f"a message of {len(text)} characters: {text[:300]!r}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = next((f for f in reversed(place) if "cntk" in f.filename), place[-1])
        text = " ".join(str(error).split())[:100]
        return f"{type(error).__name__} at {Path(ours.filename).name}:{ours.lineno}: {text}"
    return "accepted"


def explore(
    mode: str, seeds: Iterable[int], names: tuple[str, ...], seconds: float, memory: int, current: Any, findings: Any
) -> None:
    """Convert the mutations of these seeds; runs in a separate process, within `memory` bytes beyond the first."""
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "m.model"
        path.write_bytes(goldens(names)[0])
        convert(path)  # imports all that is needed
        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
        for seed in seeds:
            current.value = seed
            data, options = mutation(mode, seed, names)
            path.write_bytes(data)
            started = time.process_time()
            result = outcome(path, options)
            duration = time.process_time() - started
            if duration > seconds:
                result = f"takes longer than {seconds} s"
            findings.put((f"{mode} {seed}", result, duration, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10))
    findings.put(None)


def fuzz(mode: str, seeds: range, *, names: tuple[str, ...], seconds: float, memory: int) -> Findings:
    """What becomes of these seeds' mutations, with so many seconds, and bytes, for each."""
    result = Findings()
    while seeds:
        current, queue = multiprocessing.Value("q", seeds[0]), multiprocessing.Queue()
        process = multiprocessing.Process(target=explore, args=(mode, seeds, names, seconds, memory, current, queue))
        process.start()
        try:
            while (found := queue.get(timeout=seconds + 5)) is not None:
                result.add(*found)
            seeds = range(0)
        except Empty:
            result.add(f"{mode} {current.value}", f"hangs, or ended with {process.exitcode}", seconds, 0)
            seeds = range(current.value + 1, seeds.stop)
            process.kill()
        process.join()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000, help="in every mode")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--all", action="store_true", help="damage all goldens, not only the smallest")
    parser.add_argument("--seconds", type=float, default=5.0, help="for one mutation")
    parser.add_argument("--memory", type=int, default=512, help="for one mutation [MiB]")
    args = parser.parse_args()
    names = tuple(sorted(MANIFEST)) if args.all else SMALL
    failed = False
    for mode in args.modes.split(","):
        seeds = range(args.first, args.first + args.mutations)
        found = fuzz(mode, seeds, names=names, seconds=args.seconds, memory=args.memory << 20)
        sys.stdout.write(f"{mode}: {dict(found.outcomes)}, slowest {found.slowest}, peak {found.memory} MiB\n")
        for text, first in sorted(found.failures.items()):
            sys.stdout.write(f"    {first}: {text}\n")
        failed |= bool(found.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
