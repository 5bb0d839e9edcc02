"""The service under load, on this machine's loopback: speed beside other servers, overload, memory, start.

    python benchmarks/serve.py [--quick] [--only start throughput overload soak] [--soak 100000] [--json results.json]

All services classify the same JPEG photographs of 533 x 400 with the same network (EfficientNet-Lite0, 224 pixels), and
share the cores with the generator of the load, which says how much it took.

start:      from the start of scripts/deploymain.py until /v2/health/ready answers 200.
throughput: 8 clients, each sending its next request over its kept connection when it has the answer to the last. One
            service after the other, in rounds; ratios are medians of those within a round. 'offline' is the same
            classifier without HTTP, in a process of its own: Classifier.predict_stream over load_bytes.
overload:   requests at random times (Poisson), at 0.8 and 3 times the rate that 8 clients got just before, over 256
            kept connections. A latency counts from when its request was due, whenever it was sent.
soak:       resident memory over so many requests of small photographs, one in a hundred of them broken.
"""

import argparse
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import circumstances, photographs, versions, write_results
from serving import contenders
from serving.contenders import precisions, running
from serving.load import closed_loop
from serving.overload import overload
from serving.throughput import throughput

PARTS = ("start", "throughput", "overload", "soak")
VERSIONS = ("fastapi", "uvicorn", "uvloop", "litserve")
NEEDED = ("litserve", "torch", "timm")  # by the servers that this one is compared with
STARTS, TARGET_START = 5, 3.0  # seconds
CLIENTS, WARM_UP, SAMPLE_EVERY = 8, 2_000, 1_000  # of the soak: requests
MB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round of everything: a look, no measurement")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--soak", type=int, metavar="N", help="requests of the soak (default: 100,000; quick: 5,000)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if "throughput" in options.only and (absent := {*NEEDED} - versions(*NEEDED).keys()):
        parser.error(
            f"throughput needs {', '.join(sorted(absent))}: make bench-serve installs them; or leave it out: --only"
        )
    pace = {"rounds": 1, "seconds": 3.0} if options.quick else {"rounds": 5, "seconds": 8.0}
    soaked = options.soak or (5_000 if options.quick else 100_000)
    figures: dict[str, Any] = {**pace}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = photographs(folder / "photographs", 256)
        bundle = contenders.make_bundle(folder, folder / "photographs")
        if "start" in options.only:
            figures["start"] = start(bundle, times=2 if options.quick else STARTS)
        if "throughput" in options.only:
            figures["throughput"] = throughput(bundle, files, **pace)
        if "overload" in options.only:
            figures["overload"] = overload(bundle, files, **pace)
        if "soak" in options.only:
            small = photographs(folder / "small", 99, size=(267, 200))
            figures["soak"] = soak(bundle, small, count=soaked)
    about = circumstances()
    others = [f"{package} {version}" for package, version in versions(*VERSIONS).items()]
    print(", ".join([about["machine"], about["date"], *others, *contenders.azure_version()]))
    write_results(options.json, figures)


def start(bundle: Path, *, times: int) -> dict[str, float]:
    """Seconds from the start of the process until it listens, and until it is ready: medians."""
    services = []
    for _ in range(times):
        with running(contenders.ours(bundle, "f32")) as service:
            services.append(service)
    ready = [service.seconds_to_ready for service in services]
    listening = statistics.median(service.seconds_to_listen for service in services)
    print(
        f"Start to ready: {statistics.median(ready):.2f} s (target {TARGET_START:.0f} s), at most {max(ready):.2f} s; "
        f"listening after {listening:.2f} s; medians of {times}"
    )
    return {"listening": listening, "ready": statistics.median(ready), "slowest": max(ready)}


def soak(bundle: Path, files: list[Path], *, count: int) -> dict[str, Any]:
    """Resident memory of the service after its warm-up and after `count` requests, and how it grew between."""
    images = [path.read_bytes() for path in files]
    images.append(images[0][:1000])
    precision = precisions()[-1]
    resident: dict[int, float] = {}  # requests answered → MB
    with running(contenders.ours(bundle, precision)) as service:

        def sample(done: int) -> None:
            if done >= WARM_UP and done % SAMPLE_EVERY == 0:
                resident[done] = service.resident / MB

        requests = [service.contender.request(image) for image in images]
        run = closed_loop(service.address, requests, clients=CLIENTS, count=count, each=sample)
    slope = np.polyfit(list(resident), list(resident.values()), 1)[0] * 100_000
    first, last = resident[min(resident)], resident[max(resident)]
    print(
        f"{count:,} requests in {run.seconds:.0f} s, {precision}: {tell(run.statuses)}\n"
        f"Resident memory after {min(resident):,} requests {first:.1f} MB, after {max(resident):,} {last:.1f} MB"
        f" (largest {max(resident.values()):.1f} MB); slope {slope:+.1f} MB per 100,000 requests"
    )
    return {"requests": count, "seconds": run.seconds, "resident_mb": resident, "slope_mb_per_100000": slope}


def tell(statuses: Counter[int | str]) -> str:
    """How many requests ended how."""
    return ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items(), key=str))


if __name__ == "__main__":
    main()
