"""Who downloads: this project's script 0 and img2dataset, each started as its users do, and what they left on disk."""

import contextlib
import http.client
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "scripts" / "0_downloadData.py"
IMG2DATASET = "img2dataset==1.47.0"
HOSTS = 16
MAX_SIDE = 1000


@dataclass(frozen=True)
class Web:
    """The server: its files are known by their names."""

    port: int

    def urls(self, names: list[str], count: int) -> list[str]:
        """So many different URLs, of each file in turn, spread over all hosts."""
        return [f"http://127.0.0.{1 + i % HOSTS}:{self.port}/{i}/{names[i % len(names)]}" for i in range(count)]

    def first(self) -> float:
        """When the first request since the last call came, in seconds since 1970."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/first")
        seconds = float(connection.getresponse().read())
        connection.close()
        return seconds

    def bare_rate(self, names: list[str], count: int, *, threads: int = 4) -> float:
        """URLs per second of a client that throws the bytes away."""
        paths = [f"/{i}/{names[i % len(names)]}" for i in range(count)]

        def client(k: int) -> None:
            connection = http.client.HTTPConnection(f"127.0.0.{1 + k}", self.port)
            buffer = bytearray(2**20)
            for path in paths[k::threads]:
                connection.request("GET", path)
                response = connection.getresponse()
                while response.readinto(buffer):
                    pass
            connection.close()

        crew = [threading.Thread(target=client, args=(k,)) for k in range(threads)]
        start = time.perf_counter()
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        return count / (time.perf_counter() - start)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """A server, in a process of its own, for the files of a folder."""
    command = [sys.executable, str(HERE / "server.py"), str(folder), str(HOSTS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Web(int(process.stdout.readline()))
        finally:
            process.kill()


def ours(urls: list[str], folder: Path, *, workers: int) -> list[Path]:
    """Script 0 with a list of URLs; gives the images."""
    listed = write_list(urls, folder)
    subprocess.run(command(listed, folder, workers=workers), check=True, stdout=subprocess.DEVNULL)
    return list((folder / "images").rglob("*.jpg"))


def write_list(urls: list[str], folder: Path) -> Path:
    listed = folder / "urls.tsv"
    listed.write_text("".join(f"a\t{url}\n" for url in urls))
    return listed


def command(listed: Path, folder: Path, *, workers: int) -> list[str]:
    """Script 0 as typed, with the hosts of loopback allowed."""
    hosts = ",".join(f"127.0.0.{i}" for i in range(1, HOSTS + 1))
    where = ["--imgUrlsPath", str(listed), "--rootDir", str(folder), "--datasetName", "listed", "--runHistory", "false"]
    how = ["--download_allowedHosts", hosts, "--download_workers", str(workers), "--download_maxSide", str(MAX_SIDE)]
    return [sys.executable, str(SCRIPT), *where, *how]


def img2dataset(python: Path, urls: list[str], folder: Path, *, processes: int, threads: int) -> list[Path]:
    """img2dataset without all that it would do besides (EXIF, hashes); gives the images."""
    listed = folder / "urls.txt"
    listed.write_text("".join(f"{url}\n" for url in urls))
    options = {
        "url_list": str(listed),
        "output_folder": str(folder / "images"),
        "output_format": "files",
        "image_size": MAX_SIDE,
        "resize_mode": "keep_ratio_largest",
        "resize_only_if_bigger": True,
        "skip_reencode": True,
        "encode_quality": 95,
        "processes_count": processes,
        "thread_count": threads,
        "number_sample_per_shard": -(-len(urls) // processes),
        "extract_exif": False,
        "compute_hash": None,
        "enable_wandb": False,
    }
    code = "import json, sys; from img2dataset import download; download(**json.loads(sys.argv[1]))"
    environment = {"NO_ALBUMENTATIONS_UPDATE": "1", "PATH": ""}
    call = [str(python), "-W", "ignore", "-c", code, json.dumps(options)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"img2dataset failed:\n{done.stderr[-2000:]}")
    return list((folder / "images").rglob("*.jpg"))


def new_environment(folder: Path) -> Path:
    """Install img2dataset into a new environment; gives its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([str(python), "-m", "pip", "install", *quiet, IMG2DATASET], check=True)
    return python


@dataclass(frozen=True)
class Run:
    """One download.

    Attributes:
        urls: how many.
        rate: URLs per second, from the first request until the last image was written.
        cpu: seconds of processor time, of the program and all its processes, from start to end.
        bytes: of all images.
    """

    urls: int
    rate: float
    cpu: float
    bytes: int


def timed(download: Callable[[list[str], Path], list[Path]], *, web: Web, urls: list[str], root: Path) -> Run:
    """Download into a new folder in `root`."""
    folder = Path(tempfile.mkdtemp(dir=root))
    web.first()
    before = children_seconds()
    images = download(urls, folder)
    cpu = children_seconds() - before
    if len(images) != len(urls):
        sys.exit(f"{len(images):,} images of {len(urls):,} URLs")
    written = [image.stat() for image in images]
    seconds = max(status.st_mtime for status in written) - web.first()
    return Run(len(urls), len(urls) / seconds, cpu, sum(status.st_size for status in written))


def children_seconds() -> float:
    """Seconds of processor time of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def peak_memory(urls: list[str], folder: Path, *, workers: int) -> int:
    """Bytes that script 0 had in use at most, for a list of URLs. Run again in the same folder, it finds all done."""
    listed = write_list(urls, folder)
    # Started by a small process: on Linux the largest size that a program has had includes that of its parent.
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    call = [sys.executable, "-c", code, *command(listed, folder, workers=workers)]
    return 1024 * int(subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout)
