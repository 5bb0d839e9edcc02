"""What the benchmarks share: sample images, a description of the machine, interleaved measurements."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VERSIONS = ("torch", "timm", "openvino", "pillow", "numpy", "pyarrow")


def photographs(folder: Path, count: int, *, size: tuple[int, int] = (533, 400), seed: int = 0) -> list[Path]:
    """Write `count` JPEG files of `size` (width, height): random crops of scikit-learn's two sample photographs.

    They lie in folder/china and folder/flower, as torchvision's ImageFolder reads them.
    """
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(seed)
    names = ("china", "flower")
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # 640 x 427
    paths = []
    for i in range(count):
        source = sources[i % 2]
        scale = generator.uniform(0.6, 1) * min(source.width / size[0], source.height / size[1])
        width, height = size[0] * scale, size[1] * scale
        left, top = generator.uniform(0, source.width - width), generator.uniform(0, source.height - height)
        crop = source.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        path = folder / names[i % 2] / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.save(path, quality=90)
        paths.append(path)
    return paths


def user_environment(**changed: str) -> dict[str, str]:
    """The environment for scripts that are timed as a user starts them.

    Python keeps what it compiled, unless told otherwise, as in many containers: then every script compiles all of
    scikit-learn and matplotlib anew, which takes half of its time.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | changed


def interleaved(contenders: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round: A B C, A B C, … so that a slow spell of the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """How many times as fast: the median over the rounds of the ratio within a round."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def circumstances() -> dict[str, Any]:
    """What a figure depends on: machine, versions, date and the command."""
    return {
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(*VERSIONS),
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }


def versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def write_results(path: Path | None, results: Mapping[str, Any]) -> None:
    """Write results and circumstances as JSON, where a path is given."""
    if path is not None:
        path.write_text(json.dumps({**circumstances(), **results}, indent=2) + "\n")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
